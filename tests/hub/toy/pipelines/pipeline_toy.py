import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.guiders import BaseGuidance
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor


class ToyPipeline(DiffusionPipeline):
    _optional_components = ["guider"]

    def __init__(
        self,
        unet: ModelMixin,
        scheduler: SchedulerMixin,
        guider: BaseGuidance | None = None,
        id2label: dict | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, guider=guider)
        self.register_to_config(id2label=id2label)

    @torch.no_grad()
    def __call__(self, class_labels, num_inference_steps: int = 2, generator=None):
        config = self.unet.config
        shape = (len(class_labels), config.in_channels, config.sample_size, config.sample_size)
        images = randn_tensor(shape, generator=generator, device=self.device, dtype=self.unet.dtype)
        self.scheduler.set_timesteps(num_inference_steps)
        scale = 1.0 if self.guider is None else self.guider.config.guidance_scale
        for timestep in self.scheduler.timesteps:
            noise_pred = scale * self.unet(images, timestep, torch.tensor(class_labels)).sample
            images = self.scheduler.step(noise_pred, timestep, images).prev_sample
        return ImagePipelineOutput(images=images)
