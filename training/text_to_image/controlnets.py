"""ControlNets for the two kinds of denoisers: how they start, what they are shown, and what they add.

A ControlNet (Zhang et al. 2023) is a copy of a denoiser's first half that sees a control image, and whose results go
into the denoiser through convolutions (or linear layers) that start at zero: at first, it changes nothing.
"""

import torch
from diffusers import ControlNetModel, SD3ControlNetModel
from diffusers.models.modeling_utils import ModelMixin


# What a denoiser adds inside, by the keywords of its call.
RESIDUALS = ("down_block_additional_residuals", "mid_block_additional_residual", "block_controlnet_hidden_states")


class UNetControl:
    """A ControlNet for a UNet, which sees the pixels of control images, from 0 to 1.

    Args:
        base ([`~diffusers_ext.training.text_to_image.base_models.BaseModel`]): whose denoiser is controlled.
    """

    controlnet_class = ControlNetModel
    image_argument = "image"  # of the pipeline's call

    # How many channels the pixels of a control image have at each size, down to that of the latents.
    _channels = (16, 32, 96, 256)
    # What a ControlNet has in common with its denoiser.
    _shared = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim", "addition_embed_type")

    def __init__(self, base):
        self.base = base
        # A ControlNet that learns is in float32, and the frozen denoiser may be not.
        base.denoiser.register_forward_pre_hook(_residuals_in_its_dtype, with_kwargs=True)

    def load(self, name_or_path: str, cache_dir: str | None = None) -> ModelMixin:
        """A published ControlNet, in float32.

        Raises:
            ValueError: if it is for another base.
            OSError: if there is none.
        """
        controlnet = self.controlnet_class.from_pretrained(name_or_path, cache_dir=cache_dir)
        for key, needed in self._needed().items():
            found = controlnet.config.get(key)
            if found != needed:
                raise ValueError(
                    f"{name_or_path} is no ControlNet to go on with for {self.base.name}: its {key} is {found}, and "
                    f"must be {needed}."
                )
        return controlnet

    def _needed(self) -> dict:
        return {key: self.base.denoiser.config.get(key) for key in self._shared}

    def freeze_unread(self, controlnet: ModelMixin) -> None:
        """Let weights whose results are read by nothing not learn: they get no gradients."""

    def new(self) -> ControlNetModel:
        """A ControlNet with the weights of the denoiser."""
        halvings = self.base.vae_scale_factor.bit_length() - 1
        channels = (*self._channels, *self._channels[-1:] * halvings)[: halvings + 1]
        return ControlNetModel.from_unet(self.base.denoiser, conditioning_embedding_out_channels=channels)

    def zero_layers(self, controlnet: ControlNetModel) -> list[torch.nn.Module]:
        """Those through which all that a ControlNet adds has to go."""
        return [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]

    def condition(self, control_images: torch.Tensor, draw, moments) -> torch.Tensor:
        """What the ControlNet sees of control images (N, 3, H, W) in [-1, 1]; `moments` encodes images."""
        return control_images / 2 + 0.5

    def residuals(
        self,
        controlnet: torch.nn.Module,
        noisy_latents: torch.Tensor,
        timesteps: torch.Tensor,
        condition: torch.Tensor,
        inputs: dict,
    ) -> dict:
        """What is added inside of the denoiser, as keywords of its call.

        Args:
            controlnet (`torch.nn.Module`): the network, or a wrapper around it.
            noisy_latents, timesteps: what the denoiser sees, and is told.
            condition: from [`~UNetControl.condition`].
            inputs (`dict`): the text as keywords, from [`BaseModel.denoiser_inputs`].
        """
        down, middle = controlnet(
            sample=noisy_latents, timestep=timesteps, controlnet_cond=condition, return_dict=False, **inputs
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


class TransformerControl(UNetControl):
    """A ControlNet for the transformer of Stable Diffusion 3, which sees the latents of control images."""

    controlnet_class = SD3ControlNetModel
    image_argument = "control_image"

    _shared = ("in_channels", "patch_size", "num_attention_heads", "attention_head_dim", "joint_attention_dim")
    # Of the pooled text it sees what the denoiser does, and control images are scaled as all latents are.
    _own = {"extra_conditioning_channels": 0, "force_zeros_for_pooled_projection": False}

    def _needed(self):
        return {**super()._needed(), **self._own}

    def new(self) -> SD3ControlNetModel:
        """A ControlNet with the weights of the first half of the denoiser."""
        transformer = self.base.denoiser
        # from_transformer would write its own numbers into the configuration of the transformer.
        config = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
        num_layers = max(1, config["num_layers"] // 2)
        controlnet = SD3ControlNetModel.from_config({**config, "num_layers": num_layers, **self._own})
        own = controlnet.state_dict()
        copied = {name: tensor for name, tensor in transformer.state_dict().items() if name in own}
        controlnet.load_state_dict({**own, **copied})
        return controlnet

    def freeze_unread(self, controlnet: SD3ControlNetModel) -> None:
        # What the last block makes of the text.
        for name, weight in controlnet.transformer_blocks[-1].named_parameters():
            if name.startswith(("ff_context", "attn.to_add_out", "attn.add_q_proj", "attn.norm_added_q")):
                weight.requires_grad_(False)

    def zero_layers(self, controlnet: SD3ControlNetModel) -> list[torch.nn.Module]:
        return list(controlnet.controlnet_blocks)

    def condition(self, control_images: torch.Tensor, draw, moments) -> torch.Tensor:
        parameters = moments(control_images)
        return self.base.sample_latents(parameters, draw.normal_like(parameters.chunk(2, dim=1)[0]))

    def residuals(self, controlnet, noisy_latents, timesteps, condition, inputs):
        (blocks,) = controlnet(
            hidden_states=noisy_latents, timestep=timesteps, controlnet_cond=condition, return_dict=False, **inputs
        )
        return {"block_controlnet_hidden_states": blocks}


def _residuals_in_its_dtype(denoiser: ModelMixin, arguments: tuple, keywords: dict) -> tuple[tuple, dict]:
    for name in RESIDUALS:
        added = keywords.get(name)
        if isinstance(added, torch.Tensor):
            keywords[name] = added.to(denoiser.dtype)
        elif added is not None:
            keywords[name] = [residual.to(denoiser.dtype) for residual in added]
    return arguments, keywords
