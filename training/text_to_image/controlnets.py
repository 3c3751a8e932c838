"""ControlNets for UNets and for transformers: their initial weights, their inputs and their outputs.

A ControlNet (Zhang et al. 2023) is a copy of a denoiser's first half that also sees a control image. Its outputs are
added inside the denoiser, after convolutions (or linear layers) that start at zero: at first, it changes nothing.
"""

import torch
from diffusers import ControlNetModel, SD3ControlNetModel
from diffusers.models.modeling_utils import ModelMixin

from diffusers_ext.hub.pipeline_folders import refuse_single_file


# The keywords of a denoiser's call that take the outputs of a ControlNet.
RESIDUALS = ("down_block_additional_residuals", "mid_block_additional_residual", "block_controlnet_hidden_states")


class UNetControl:
    """ControlNets for a UNet, which see the pixels of control images.

    Args:
        base ([`~diffusers_ext.training.text_to_image.base_models.BaseModel`]): the base whose denoiser is controlled.
    """

    controlnet_class = ControlNetModel
    image_argument = "image"  # the keyword of control images in the pipeline's call

    # The channels of a control image at each size, from the size of the image down to the size of the latents.
    _channels = (16, 32, 96, 256)
    # The options that a ControlNet has in common with its denoiser.
    _shared = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim", "addition_embed_type")

    def __init__(self, base):
        self.base = base
        # A ControlNet in training is in float32, but the frozen denoiser may be in another precision.
        base.denoiser.register_forward_pre_hook(_residuals_in_its_dtype, with_kwargs=True)

    def load(self, name_or_path: str, cache_dir: str | None = None) -> ModelMixin:
        """A published ControlNet, in float32.

        Raises:
            ValueError: if it is a single file, or for another base.
            OSError: if it does not exist.
        """
        refuse_single_file(name_or_path)
        controlnet = self.controlnet_class.from_pretrained(name_or_path, cache_dir=cache_dir)
        for key, needed in self._needed().items():
            found = controlnet.config.get(key)
            if found != needed:
                raise ValueError(
                    f"{name_or_path} is not a ControlNet for {self.base.name}: its {key} is {found}, but must be "
                    f"{needed}."
                )
        return controlnet

    def _needed(self) -> dict:
        return {key: self.base.denoiser.config.get(key) for key in self._shared}

    def freeze_unread(self, controlnet: ModelMixin) -> None:
        """Freeze the weights whose output is not used, and which would get no gradients."""

    def new(self) -> ControlNetModel:
        """A ControlNet with the weights of the denoiser."""
        halvings = self.base.space.pixels_per_latent.bit_length() - 1
        channels = (*self._channels, *self._channels[-1:] * halvings)[: halvings + 1]
        return ControlNetModel.from_unet(self.base.denoiser, conditioning_embedding_out_channels=channels)

    def zero_layers(self, controlnet: ControlNetModel) -> list[torch.nn.Module]:
        """The layers that start at zero; all outputs of the ControlNet pass through them."""
        return [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]

    def condition(self, control_images: torch.Tensor, draw, moments) -> torch.Tensor:
        """The `controlnet_cond` argument of a ControlNet.

        Args:
            control_images (`torch.Tensor` of shape (N, 3, H, W)): in [-1, 1].
            draw (`Draw`): the source of random numbers.
            moments (`Callable`): encodes images as [`LatentSpace.encode_moments`] does.

        Returns:
            `torch.Tensor`: for a UNet the pixels in [0, 1], for a transformer latents (N, C, h, w).
        """
        return control_images / 2 + 0.5

    def residuals(
        self,
        controlnet: torch.nn.Module,
        noisy_latents: torch.Tensor,
        timesteps: torch.Tensor,
        condition: torch.Tensor,
        inputs: dict,
    ) -> dict:
        """The outputs of a ControlNet, as keywords of the denoiser's call.

        Args:
            controlnet (`torch.nn.Module`): the network, or a wrapper around it.
            noisy_latents, timesteps: the same inputs as the denoiser's.
            condition: from [`~UNetControl.condition`].
            inputs (`dict`): the text embeddings, from [`BaseModel.denoiser_inputs`].
        """
        down, middle = controlnet(
            sample=noisy_latents, timestep=timesteps, controlnet_cond=condition, return_dict=False, **inputs
        )
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


class TransformerControl(UNetControl):
    """ControlNets for the transformer of Stable Diffusion 3, which see the latents of control images."""

    controlnet_class = SD3ControlNetModel
    image_argument = "control_image"

    _shared = ("in_channels", "patch_size", "num_attention_heads", "attention_head_dim", "joint_attention_dim")
    # It sees the same pooled text embeddings as the denoiser, and control images scaled as all latents are.
    _own = {"extra_conditioning_channels": 0, "force_zeros_for_pooled_projection": False}

    def _needed(self):
        return {**super()._needed(), **self._own}

    def new(self) -> SD3ControlNetModel:
        """A ControlNet with the weights of the first half of the denoiser."""
        transformer = self.base.denoiser
        # from_transformer would change the configuration of the transformer.
        config = {name: value for name, value in transformer.config.items() if not name.startswith("_")}
        num_layers = max(1, config["num_layers"] // 2)
        controlnet = SD3ControlNetModel.from_config({**config, "num_layers": num_layers, **self._own})
        own = controlnet.state_dict()
        copied = {name: tensor for name, tensor in transformer.state_dict().items() if name in own}
        controlnet.load_state_dict({**own, **copied})
        return controlnet

    def freeze_unread(self, controlnet: SD3ControlNetModel) -> None:
        # The text output of the last block is not used.
        for name, weight in controlnet.transformer_blocks[-1].named_parameters():
            if name.startswith(("ff_context", "attn.to_add_out", "attn.add_q_proj", "attn.norm_added_q")):
                weight.requires_grad_(False)

    def zero_layers(self, controlnet: SD3ControlNetModel) -> list[torch.nn.Module]:
        return list(controlnet.controlnet_blocks)

    def condition(self, control_images: torch.Tensor, draw, moments) -> torch.Tensor:
        parameters = moments(control_images)
        return self.base.space.sample(parameters, draw.normal_like(parameters.chunk(2, dim=1)[0]))

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
