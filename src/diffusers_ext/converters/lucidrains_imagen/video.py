"""The U-Nets of films."""

import re

import torch

from diffusers_ext.converters.lucidrains_imagen.arguments import (
    SHARED_ARGUMENTS,
    agreed_arguments,
    network_options,
    read_arguments,
)
from diffusers_ext.converters.lucidrains_imagen.modules import FILMS, attention, conditions, frame_block, trunk
from diffusers_ext.converters.lucidrains_imagen.unet import batched_shapes, without_batch
from diffusers_ext.converters.original_arguments import anything, one_of
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models import ImagenVideoUNet


IMAGEN_VIDEO_ARGUMENTS = {
    **SHARED_ARGUMENTS,
    "temporal_strides": one_of(1),
    "ff_time_token_shift": one_of(True),
    "time_causal_attn": one_of(True),
    "time_rel_pos_bias_depth": one_of(2),
    "combine_upsample_fmaps": one_of(False),
    "init_conv_to_final_conv_residual": one_of(False),
    "resize_mode": anything,  # of images that networks here are not shown
}
# All attention of the original has a bias of its first key, which only attention along frames adds.
UNUSED = re.compile(r"(mid_attn\.fn|(downs|ups)\.\d+\.\d+\.layers\.\d+\.0)\.null_attn_bias")


def convert_imagen_video_unet(
    state_dict: StateDict, noise_schedule: str | None = None, timesteps: int = 1000, **config
) -> ImagenVideoUNet:
    r"""
    A `Unet3D` of https://github.com/lucidrains/imagen-pytorch that reads texts.

    Args:
        state_dict (`Mapping`):
            The tensors of one network of the original.
        noise_schedule, timesteps:
            As in [`convert_imagen_unet`].
        config:
            Arguments of the original's `Unet3D`. The tensors show all of them but `scale_skip_connection` and
            `time_causal_attn`, which must be `True`, their default.

    Returns:
        [`ImagenVideoUNet`]: the network, in eval mode and in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, contradict the
            tensors, or are those of a network that is not converted.
    """
    network = "a U-Net of films of imagen-pytorch"
    check_parts(state_dict, network, "init_temporal_peg")
    read = agreed_arguments(config, IMAGEN_VIDEO_ARGUMENTS, read_arguments(state_dict, network))
    tensors = dict(_of_frames(key, tensor) for key, tensor in state_dict.items() if not UNUSED.fullmatch(key))
    return load_converted(
        ImagenVideoUNet,
        {**network_options(read), "noise_schedule": noise_schedule, "num_train_timesteps": timesteps},
        conditions() | trunk(tensors, FILMS) | _frames(tensors),
        tensors,
        without_batch,
        batched_shapes(tensors),
    )


def _of_frames(key: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
    """The name and shape of a tensor as in a network of images, which all frames share."""
    key = key.replace(".project.spatial_conv.", ".project.").replace(".project.temporal_conv.", ".frames.")
    if key.endswith(".g"):
        return key.removesuffix(".g") + ".weight", tensor.flatten()
    return key, tensor.squeeze(2) if tensor.ndim == 5 and tensor.shape[2] == 1 else tensor


def _frames(tensors: StateDict) -> Modules:
    modules = attention("mid_attn.fn", "mid_attention")
    modules |= frame_block("init_temporal_peg", "init_temporal_attn", "frame_block_in")
    modules |= frame_block("mid_temporal_peg", "mid_temporal_attn", "mid_frame_block")
    for level in range(count_blocks(tensors, "downs")):
        modules |= frame_block(f"downs.{level}.4", f"downs.{level}.5", f"down_blocks.{level}.frame_block")
        modules |= frame_block(f"ups.{level}.3", f"ups.{level}.4", f"up_blocks.{level}.frame_block")
    return modules
