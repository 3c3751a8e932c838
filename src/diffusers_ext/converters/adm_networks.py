"""From an ADM U-Net to diffusers' UNet2DModel, or to [`ADMUNet2DModel`] where that cannot express its numbers.

The architecture is read from the tensors. Arguments say what tensors do not show, under the names and with the meaning
of the original's constructor.
"""

from collections.abc import Mapping
from types import MappingProxyType

from diffusers import UNet2DModel

from diffusers_ext.converters.adm_arguments import check_against, check_heads, in_order_of_diffusers, read_heads
from diffusers_ext.converters.adm_layout import ADMLayout, read_adm_layout
from diffusers_ext.converters.adm_modules import decoder, encoder
from diffusers_ext.converters.original_arguments import check_image_size
from diffusers_ext.converters.state_dicts import StateDict, has, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_adm_unet import ADMUNet2DModel


NUM_GROUPS = 32  # of every normalization in the originals
RESCALED_TIMESTEPS = 1000  # what timesteps are rescaled to, if they are


def convert_adm_unet(
    state_dict: StateDict,
    config: Mapping,
    can_be_superres: bool = True,
    names: Mapping[str, str] = MappingProxyType({}),
    time_embed: str = "time_embed",
) -> UNet2DModel:
    """The network of these tensors, in eval mode and in float32.

    Args:
        state_dict (`Mapping`): the tensors by the names of guided-diffusion.
        config (`Mapping`): checked arguments, by the names of guided-diffusion.
        can_be_superres (`bool`): whether the origin has a `SuperResModel`, which takes two images.
        names (`Mapping`): the origin's names of arguments that have another name in guided-diffusion, for messages.
        time_embed (`str`): the name of the module that embeds the timestep.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are missing or contradict the
            tensors.
    """
    if not has(state_dict, "output_blocks"):
        raise ValueError("This is not a U-Net of the diffusion repositories: it has no output_blocks.")
    layout = read_adm_layout(state_dict, time_embed=time_embed)
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
    timestep_scale = _timestep_scale(config.get("diffusion_steps"), config.get("rescale_timesteps", False))
    special = _beyond_unet2d(layout, heads, low_res_channels, timestep_scale)
    if "num_attention_heads" not in special:
        shared["attention_head_dim"] = (
            heads.get("attention_head_dim") or layout.widths[-1] // heads["num_attention_heads"]
        )
    return load_converted(
        ADMUNet2DModel if special else UNet2DModel,
        shared | special,
        encoder(layout) | decoder(layout) | {"label_emb": "class_embedding"},
        state_dict,
        in_order_of_diffusers(heads, config.get("use_new_attention_order", False)),
    )


def block_config(layout: ADMLayout) -> dict:
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


def _read_low_res_channels(layout: ADMLayout, config: Mapping) -> int:
    """The channels of the low-resolution image that a super-resolution network also takes; 0 for other networks."""
    channels = layout.in_channels
    if "in_channels" in config:
        return config["in_channels"] if channels == 2 * config["in_channels"] else 0
    if channels % 2 == 0:
        raise ValueError(
            f"The first convolution takes {channels} channels. A super-resolution network takes twice as many as its "
            f"images have: give `in_channels`, {channels // 2} if this is one and {channels} if it is not."
        )
    return 0


def _timestep_scale(diffusion_steps: int | None, rescale_timesteps: bool) -> float:
    """The factor by which the network multiplies its timesteps."""
    return RESCALED_TIMESTEPS / diffusion_steps if rescale_timesteps and diffusion_steps is not None else 1.0


def _beyond_unet2d(
    layout: ADMLayout, heads: dict[str, int], low_res_channels: int, timestep_scale: float
) -> dict[str, int | float]:
    """The arguments that only [`ADMUNet2DModel`] has, where they are needed."""
    special = {}
    if "num_attention_heads" in heads and len(set(layout.attention_widths())) > 1:
        special["num_attention_heads"] = heads["num_attention_heads"]
    if layout.model_channels != layout.widths[0]:
        special["time_projection_dim"] = layout.model_channels
    if timestep_scale != 1.0:
        special["timestep_scale"] = timestep_scale
    if low_res_channels:
        special["low_res_channels"] = low_res_channels
    return special
