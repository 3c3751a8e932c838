"""The U-Nets of guided-diffusion and improved-diffusion."""

from diffusers import UNet2DModel

from diffusers_ext.converters.adm_arguments import ADM_ARGUMENTS, GUIDED_ARGUMENTS
from diffusers_ext.converters.adm_networks import convert_adm_unet
from diffusers_ext.converters.original_arguments import boolean, checked, class_count, positive_integer
from diffusers_ext.converters.state_dicts import StateDict


IMPROVED_DIFFUSION = {
    **ADM_ARGUMENTS,
    "num_classes": class_count,
    "diffusion_steps": positive_integer,
    "rescale_timesteps": boolean,
}
GUIDED_DIFFUSION = {**IMPROVED_DIFFUSION, **GUIDED_ARGUMENTS}


def convert_guided_diffusion(state_dict: StateDict, **config) -> UNet2DModel:
    r"""
    A `UNetModel` or `SuperResModel` of https://github.com/openai/guided-diffusion (Dhariwal & Nichol 2021,
    https://huggingface.co/papers/2105.05233).

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. `num_head_channels` or `num_heads` is needed, and
            `use_new_attention_order=True` if the network was trained with it. If the first convolution has an even
            number of input channels, `in_channels` is needed too; for a `SuperResModel` it is half of them.
            `attention_resolutions` are rates of downsampling. What the tensors show need not be given, and must agree
            with them if it is. With `diffusion_steps` and `rescale_timesteps=True` the network takes timesteps from 0
            to `diffusion_steps - 1` and rescales them.

    Returns:
        [`UNet2DModel`], or [`ADMUNet2DModel`] if that cannot express the network: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, missing or
            contradict the tensors.
    """
    return convert_adm_unet(state_dict, checked(config, GUIDED_DIFFUSION))


def convert_improved_diffusion(state_dict: StateDict, **config) -> UNet2DModel:
    r"""
    A `UNetModel` or `SuperResModel` of https://github.com/openai/improved-diffusion (Nichol & Dhariwal 2021,
    https://huggingface.co/papers/2102.09672).

    Like [`convert_guided_diffusion`], but `num_heads` is needed. Without `rescale_timesteps=True` the network expects
    the timesteps that the original's `forward` gets, which are rescaled already.
    """
    unet = convert_adm_unet(state_dict, checked(config, IMPROVED_DIFFUSION))
    if unet.config.downsample_type == "resnet":
        raise ValueError("This is a network of guided-diffusion: it halves and doubles images in residual blocks.")
    return unet
