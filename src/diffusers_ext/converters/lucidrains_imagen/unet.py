"""The U-Nets of images."""

import torch

from diffusers_ext.converters.lucidrains_imagen.arguments import (
    SHARED_ARGUMENTS,
    agreed_arguments,
    network_options,
    read_arguments,
)
from diffusers_ext.converters.lucidrains_imagen.modules import IMAGES, conditions, transformer, trunk
from diffusers_ext.converters.original_arguments import anything, boolean, one_of
from diffusers_ext.converters.state_dicts import StateDict, has, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models import ImagenUNet
from diffusers_ext.models.imagen_conditions import get_log_snr
from diffusers_ext.schedulers import ExactDDPMScheduler


IMAGEN_UNET_ARGUMENTS = {
    **SHARED_ARGUMENTS,
    "combine_upsample_fmaps": boolean,
    "init_conv_to_final_conv_residual": boolean,
    "layer_mid_attns_depth": one_of(1),
    "resize_mode": anything,  # of images that networks here are not shown
}
# By the objectives of the original.
PREDICTION_TYPES = {"noise": "epsilon", "x_start": "sample", "v": "v_prediction"}
NO_LIMIT = 1e12  # of pixels under dynamic thresholding


def convert_imagen_unet(
    state_dict: StateDict, noise_schedule: str | None = None, timesteps: int = 1000, **config
) -> ImagenUNet:
    r"""
    A `Unet` of https://github.com/lucidrains/imagen-pytorch that reads texts.

    Args:
        state_dict (`Mapping`):
            The tensors of one network of the original.
        noise_schedule (`str`, *optional*):
            `"cosine"` or `"linear"`, of the original's `Imagen`: then the network is called with the timesteps of
            [`imagen_scheduler`], of which there are `timesteps`. By default it is called with log SNRs, as the
            original.
        timesteps (`int`, defaults to 1000):
            The number of steps of the original's `Imagen`.
        config:
            Arguments of the original's `Unet`. The tensors show all of them but `scale_skip_connection`, which must be
            `True`, its default.

    Returns:
        [`ImagenUNet`]: the network, in eval mode and in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, contradict the
            tensors, or are those of a network that is not converted.
    """
    read = read_arguments(state_dict, "a U-Net of imagen-pytorch")
    combines = has(state_dict, "upsample_combiner.fmap_convs")
    shown = size_of(state_dict, {"final_res_block.block1.norm.gamma": 0}) // read["dim"]
    read["combine_upsample_fmaps"] = combines
    read["init_conv_to_final_conv_residual"] = shown > 1 + combines * len(read["dim_mults"])
    read = agreed_arguments(config, IMAGEN_UNET_ARGUMENTS, read)
    tensors = {
        key.removesuffix(".g") + ".weight" if key.endswith(".g") else key: tensor for key, tensor in state_dict.items()
    }
    return load_converted(
        ImagenUNet,
        {
            **network_options(read),
            "combine_upsampled": combines,
            "combine_first": read["init_conv_to_final_conv_residual"],
            "noise_schedule": noise_schedule,
            "num_train_timesteps": timesteps,
        },
        conditions() | trunk(tensors, IMAGES) | transformer("mid_attn", "mid_attention", IMAGES),
        tensors,
        without_batch,
        batched_shapes(tensors),
    )


def without_batch(key: str, tensor: torch.Tensor) -> torch.Tensor:
    """What the original keeps with a dimension for the batch."""
    return tensor[0] if key.startswith("null_text_") else tensor


def batched_shapes(tensors: StateDict) -> dict[str, tuple[int, ...]]:
    """The shapes that these have in the original."""
    width, embed_dim = (size_of(tensors, {key: 0}) for key in ("norm_cond.weight", "to_text_non_attn_cond.3.weight"))
    return {
        "null_text_embed": (1, size_of(tensors, {"null_text_embed": 1}), width),
        "null_text_hidden": (1, embed_dim),
    }


def imagen_scheduler(
    noise_schedule: str, timesteps: int, pred_objective: str, dynamic_thresholding_percentile: float
) -> ExactDDPMScheduler:
    """The original's sampler in discrete time. It ends with the image that the network predicts, where the original's
    last step leaves some of the noise of its earliest time."""
    log_snr = get_log_snr(torch.arange(timesteps), noise_schedule, timesteps)
    alphas_cumprod = torch.cat([torch.ones(1, dtype=torch.float64), log_snr.double().sigmoid()])
    return ExactDDPMScheduler(
        num_train_timesteps=timesteps,
        trained_betas=(1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).tolist(),
        variance_type="fixed_small",
        prediction_type=PREDICTION_TYPES[pred_objective],
        clip_sample=False,
        thresholding=True,
        dynamic_thresholding_ratio=dynamic_thresholding_percentile,
        sample_max_value=NO_LIMIT,
        timestep_spacing="linspace",
    )
