"""The networks of Palette: of its module `guided_diffusion`, or of its module `sr3`."""

from diffusers import UNet2DModel

from diffusers_ext.converters.adm_arguments import head_count
from diffusers_ext.converters.adm_networks import convert_adm_unet
from diffusers_ext.converters.janspiry.checkpoint_parts import PALETTE_BUFFERS, network_tensors
from diffusers_ext.converters.janspiry.sr3_layout import read_sr3_layout
from diffusers_ext.converters.janspiry.sr3_unet import build_sr3
from diffusers_ext.converters.original_arguments import (
    anything,
    boolean,
    check_agreement,
    checked,
    numbers,
    one_of,
    positive_integer,
    probability,
)
from diffusers_ext.converters.state_dicts import StateDict, has


# Palette's names of guided-diffusion's arguments.
NAMES = {
    "in_channels": "in_channel",
    "model_channels": "inner_channel",
    "out_channels": "out_channel",
    "num_res_blocks": "res_blocks",
    "attention_resolutions": "attn_res",
    "channel_mult": "channel_mults",
}
_SHARED = {
    "module_name": anything,
    "in_channel": positive_integer,
    "inner_channel": positive_integer,
    "out_channel": positive_integer,
    "res_blocks": positive_integer,
    "attn_res": numbers,
    "channel_mults": numbers,
    "image_size": positive_integer,
    "dropout": probability,
}
PALETTE_WITH_ADM = {
    **_SHARED,
    "conv_resample": one_of(True),
    "use_checkpoint": boolean,
    "use_fp16": boolean,
    "num_heads": head_count,
    "num_head_channels": head_count,
    "num_heads_upsample": head_count,
    "use_scale_shift_norm": boolean,
    "resblock_updown": boolean,
    "use_new_attention_order": boolean,
}
PALETTE_WITH_SR3 = {**_SHARED, "norm_groups": positive_integer}


def convert_palette(state_dict: StateDict, **config) -> UNet2DModel:
    r"""
    A network of https://github.com/Janspiry/Palette-Image-to-Image-Diffusion-Models (Saharia et al. 2022,
    https://huggingface.co/papers/2111.05826), of the module `guided_diffusion` or `sr3`.

    The network takes the conditioning image followed by the noisy image, and alpha_bar_t instead of a timestep.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, `*_Network.pth` or `*_Network_ema.pth`.
        config:
            The entry `unet` of the original's configuration, and `module_name`. A network of `guided_diffusion` needs
            `num_head_channels` or `num_heads`, and `use_new_attention_order=True` if it was trained with it; its
            `attn_res` are rates of downsampling. A network of `sr3` needs `norm_groups` if they are not 32; its
            `attn_res` are heights of the image. What the tensors show need not be given, and must agree with them if
            it is.

    Returns:
        [`UNet2DModel`], or [`ADMUNet2DModel`] if that cannot express the network: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, missing or
            contradict the tensors.
    """
    tensors = network_tensors(state_dict, PALETTE_BUFFERS)
    if has(tensors, "downs"):
        layout = read_sr3_layout(tensors)
        if layout.kind != "sr3":
            raise ValueError("This is not a network of Palette but one of SR3's repository: it embeds timesteps.")
        return build_sr3(tensors, layout, checked(config, PALETTE_WITH_SR3), "channel_mults", {"module_name": "sr3"})
    config = checked(config, PALETTE_WITH_ADM)
    check_agreement(config, config, {"module_name": "guided_diffusion"})
    renamed = {palette: original for original, palette in NAMES.items()}
    config = {renamed.get(name, name): value for name, value in config.items()}
    return convert_adm_unet(tensors, config, can_be_superres=False, names=NAMES, time_embed="cond_embed")
