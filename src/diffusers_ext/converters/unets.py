"""The U-Nets of guided-diffusion, improved-diffusion, latent-diffusion and Palette, as diffusers' UNet2DModel.

A network whose numbers UNet2DModel cannot express becomes an [`ADMUNet2DModel`]. The architecture is read off the
tensors; arguments say what tensors do not show, under the names and with the meaning of the original's constructor.
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from diffusers import UNet2DModel

from diffusers_ext.converters.arguments import (
    COMMON,
    check_against,
    check_agreement,
    check_heads,
    check_image_size,
    checked,
    in_order_of_diffusers,
    read_heads,
)
from diffusers_ext.converters.janspiry import PALETTE_BUFFERS, network_tensors
from diffusers_ext.converters.latents import unet_tensors
from diffusers_ext.converters.layout import Layout, has, read_layout, size_of
from diffusers_ext.converters.modules import decoder, encoder
from diffusers_ext.converters.sr3 import build_sr3, read_sr3_layout
from diffusers_ext.converters.weights import load_converted
from diffusers_ext.models.modeling_adm_unet import ADMUNet2DModel


NUM_GROUPS = 32  # of every normalization in the originals
RESCALED_TIMESTEPS = 1000  # what timesteps are rescaled to, if they are

IMPROVED_DIFFUSION = (*COMMON, "num_classes", "diffusion_steps", "rescale_timesteps")
GUIDED_DIFFUSION = (*IMPROVED_DIFFUSION, "num_head_channels", "resblock_updown", "use_new_attention_order")
LATENT_DIFFUSION = (*GUIDED_DIFFUSION, "use_spatial_transformer", "use_ema")
# What Palette calls the arguments of guided-diffusion.
PALETTE_NAMES = {
    "in_channels": "in_channel",
    "model_channels": "inner_channel",
    "out_channels": "out_channel",
    "num_res_blocks": "res_blocks",
    "attention_resolutions": "attn_res",
    "channel_mult": "channel_mults",
}
PALETTE = (
    "module_name",
    *PALETTE_NAMES.values(),
    "image_size",
    "dropout",
    "conv_resample",
    "use_checkpoint",
    "use_fp16",
    "num_heads",
    "num_head_channels",
    "num_heads_upsample",
    "use_scale_shift_norm",
    "resblock_updown",
    "use_new_attention_order",
)
PALETTE_SR3 = ("module_name", *PALETTE_NAMES.values(), "image_size", "dropout", "norm_groups")


def convert_guided_diffusion(state_dict: Mapping[str, torch.Tensor], **config) -> UNet2DModel:
    r"""
    A `UNetModel` or `SuperResModel` of https://github.com/openai/guided-diffusion (Dhariwal & Nichol 2021,
    https://huggingface.co/papers/2105.05233).

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. The checkpoint needs `num_head_channels` or `num_heads`, if it
            was trained with it `use_new_attention_order=True`, and where the first convolution has an even number of
            channels, `in_channels`, which for a `SuperResModel` is half of them. `attention_resolutions` are rates of
            downsampling. What the tensors show need not be given, and must agree with them if it is. With
            `diffusion_steps` and `rescale_timesteps=True` the network takes timesteps from 0 to `diffusion_steps - 1`
            and rescales them.

    Returns:
        [`UNet2DModel`], or [`ADMUNet2DModel`] where that cannot express the network: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown, missing or at
            odds with the tensors.
    """
    return _convert(state_dict, checked(config, GUIDED_DIFFUSION))


def convert_improved_diffusion(state_dict: Mapping[str, torch.Tensor], **config) -> UNet2DModel:
    r"""
    A `UNetModel` or `SuperResModel` of https://github.com/openai/improved-diffusion (Nichol & Dhariwal 2021,
    https://huggingface.co/papers/2102.09672).

    As [`convert_guided_diffusion`], save that `num_heads` is what the checkpoint needs. Without
    `rescale_timesteps=True` the network expects its timesteps as the original's forward gets them: rescaled already.
    """
    unet = _convert(state_dict, checked(config, IMPROVED_DIFFUSION))
    if unet.config.downsample_type == "resnet":
        raise ValueError("This is a network of guided-diffusion, for it halves and doubles images in residual blocks.")
    return unet


def convert_latent_diffusion(state_dict: Mapping[str, torch.Tensor], **config) -> UNet2DModel:
    r"""
    The unconditional `UNetModel` of https://github.com/CompVis/latent-diffusion (Rombach et al. 2022,
    https://huggingface.co/papers/2112.10752).

    As [`convert_guided_diffusion`], save that the state dict may also be that of the whole `LatentDiffusion`, whose
    averaged weights are taken if it has them and `use_ema=False` is not given.
    """
    config = checked(config, LATENT_DIFFUSION)
    return _convert(unet_tensors(state_dict, config.get("use_ema")), config, can_be_superres=False)


def convert_palette(state_dict: Mapping[str, torch.Tensor], **config) -> UNet2DModel:
    r"""
    A network of https://github.com/Janspiry/Palette-Image-to-Image-Diffusion-Models (Saharia et al. 2022,
    https://huggingface.co/papers/2111.05826), of the module `guided_diffusion` or `sr3`.

    The network takes the conditioning image and behind it the noisy one, and alpha_bar_t instead of a timestep.

    Args:
        state_dict (`Mapping`):
            The tensors of the original, `*_Network.pth` or `*_Network_ema.pth`.
        config:
            The entry `unet` of the original's configuration, and `module_name`. The checkpoint of a `guided_diffusion`
            needs `num_head_channels` or `num_heads`, and if it was trained with it `use_new_attention_order=True`;
            `attn_res` are rates of downsampling there. That of an `sr3` needs `norm_groups` where they are not 32;
            `attn_res` are heights of the image there. What the tensors show need not be given, and must agree with
            them if it is.

    Returns:
        [`UNet2DModel`], or [`ADMUNet2DModel`] where that cannot express the network: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown, missing or at
            odds with the tensors.
    """
    tensors = network_tensors(state_dict, PALETTE_BUFFERS)
    if has(tensors, "downs"):
        layout = read_sr3_layout(tensors)
        if layout.kind != "sr3":
            raise ValueError("This is no network of Palette but one of SR3's repository, for it embeds timesteps.")
        return build_sr3(tensors, layout, checked(config, PALETTE_SR3), "channel_mults", {"module_name": "sr3"})
    config = checked(config, PALETTE)
    check_agreement(config, config, {"module_name": "guided_diffusion"})
    ours = {theirs: ours for ours, theirs in PALETTE_NAMES.items()}
    config = {ours.get(name, name): value for name, value in config.items()}
    return _convert(tensors, config, can_be_superres=False, names=PALETTE_NAMES, time_embed="cond_embed")


def _read_low_res_channels(layout: Layout, config: Mapping) -> int:
    """Those of a super-resolution network, whose first convolution takes two images; 0 of others."""
    channels = layout.in_channels
    if "in_channels" in config:
        return config["in_channels"] if channels == 2 * config["in_channels"] else 0
    if channels % 2 == 0:
        raise ValueError(
            f"The first convolution takes {channels} channels, which may be twice as many as the images have, if this "
            f"is a super-resolution network: give `in_channels`, {channels // 2} if it is and {channels} if not."
        )
    return 0


def _convert(
    state_dict: Mapping[str, torch.Tensor],
    config: Mapping,
    can_be_superres: bool = True,
    names: Mapping[str, str] = MappingProxyType({}),
    time_embed: str = "time_embed",
) -> UNet2DModel:
    if not has(state_dict, "output_blocks"):
        raise ValueError("This is no U-Net of the diffusion repositories, for it has no output_blocks.")
    layout = read_layout(state_dict, time_embed=time_embed)
    low_res_channels = _read_low_res_channels(layout, config) if can_be_superres else 0
    out_channels = size_of(state_dict, {"out.2.weight": 0, "out.2.bias": 0})
    has_classes = has(state_dict, "label_emb")
    num_classes = size_of(state_dict, {"label_emb.weight": 0}) if has_classes else None
    check_against(
        layout,
        config,
        names,
        in_channels=layout.in_channels - low_res_channels,
        out_channels=out_channels,
        num_classes=num_classes,
    )
    check_image_size(config.get("image_size"), len(layout.widths))
    heads = read_heads(config)
    check_heads(layout.attention_widths(), heads)

    shared = {
        "sample_size": config.get("image_size"),
        "in_channels": layout.in_channels,
        "out_channels": out_channels,
        "num_class_embeds": num_classes,
        "dropout": config.get("dropout", 0.0),
        **block_config(layout),
        "upsample_type": "resnet" if layout.resblock_updown else "conv",
        "up_block_types": tuple(
            "AttnUpBlock2D" if attention else "ResnetUpsampleBlock2D" if layout.resblock_updown else "UpBlock2D"
            for attention in reversed(layout.attention)
        ),
        "attn_norm_num_groups": NUM_GROUPS,
    }
    special = _beyond_unet2d(layout, config, heads, low_res_channels)
    if "num_attention_heads" not in special:
        shared["attention_head_dim"] = (
            heads.get("attention_head_dim") or layout.widths[-1] // heads["num_attention_heads"]
        )
    return load_converted(
        ADMUNet2DModel if special else UNet2DModel,
        shared | special,
        encoder(layout) | decoder(layout) | {"label_emb": "class_embedding"},
        state_dict,
        in_order_of_diffusers(config, heads),
    )


def block_config(layout: Layout) -> dict:
    """The arguments that [`UNet2DModel`] and [`NoisyClassifier`] share."""
    return {
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "block_out_channels": tuple(layout.widths),
        "layers_per_block": layout.num_res_blocks,
        "down_block_types": tuple(
            "AttnDownBlock2D" if attention else "ResnetDownsampleBlock2D" if layout.resblock_updown else "DownBlock2D"
            for attention in layout.attention
        ),
        "downsample_type": "resnet" if layout.resblock_updown else "conv",
        "norm_num_groups": NUM_GROUPS,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if layout.use_scale_shift_norm else "default",
    }


def _beyond_unet2d(layout: Layout, config: Mapping, heads: dict[str, int], low_res_channels: int) -> dict:
    """What only [`ADMUNet2DModel`] has arguments for."""
    special = {}
    if "num_attention_heads" in heads and len(set(layout.attention_widths())) > 1:
        special["num_attention_heads"] = heads["num_attention_heads"]
    if layout.model_channels != layout.widths[0]:
        special["time_projection_dim"] = layout.model_channels
    steps = config.get("diffusion_steps", RESCALED_TIMESTEPS)
    if config.get("rescale_timesteps", False) and steps != RESCALED_TIMESTEPS:
        special["timestep_scale"] = RESCALED_TIMESTEPS / steps
    if low_res_channels:
        special["low_res_channels"] = low_res_channels
    return special
