"""Stages I and II of DeepFloyd IF: diffusers' UNet2DConditionModel."""

from collections.abc import Mapping
from dataclasses import replace

from diffusers import UNet2DConditionModel

from diffusers_ext.converters.adm_arguments import ADM_ARGUMENTS, GUIDED_ARGUMENTS
from diffusers_ext.converters.adm_layout import read_adm_layout, read_depths
from diffusers_ext.converters.adm_text_unets import convert_text_unet
from diffusers_ext.converters.original_arguments import (
    anything,
    boolean,
    check_agreement,
    checked,
    numbers,
    one_of,
    positive_integer,
    require,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, has, size_of
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


def numbers_or_text(name: str, value) -> list[float]:
    """A list of numbers, which the original's config.yml writes as a text like `32,16,8`."""
    if isinstance(value, str) and all(part.strip().isdecimal() for part in value.split(",")):
        value = [int(part) for part in value.split(",")]
    return numbers(name, value)


def depths(name: str, value) -> int | list[float]:
    """The residual blocks of all levels, or those of each."""
    return positive_integer(name, value) if isinstance(value, int) else numbers_or_text(name, value)


DEEPFLOYD_IF_ARGUMENTS = {
    **ADM_ARGUMENTS,
    **GUIDED_ARGUMENTS,
    "num_res_blocks": depths,
    "channel_mult": numbers_or_text,
    "attention_resolutions": numbers_or_text,  # the sides of the images where attention runs
    "activation": one_of("silu", "gelu"),
    "encoder_dim": positive_integer,
    "encoder_channels": positive_integer,
    "att_pool_heads": positive_integer,
    "efficient_activation": boolean,
    "scale_skip_connection": boolean,
    "disable_self_attentions": anything,  # the tensors show where
    "interpolate_mode": one_of("bilinear"),
    "precision": anything,  # how it was run
}
SKIP_SCALE = 0.7071  # of a residual sum; the published configurations of diffusers have 1 / 1.414
THRESHOLD_OF_STAGE_I = 1.5  # the highest magnitude that dynamic thresholding divides by; stage II only clips
POOLING = {"0": "norm1", "1": "pool", "2": "proj", "3": "norm2"}


def convert_deepfloyd_if(state_dict: StateDict, **config) -> UNet2DConditionModel:
    r"""
    Stage I or II of https://github.com/deep-floyd/IF, which follows Imagen (Saharia et al. 2022,
    https://huggingface.co/papers/2205.11487).

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            `params` of the original's config.yml. `activation`, `att_pool_heads` and `num_head_channels` are needed,
            and `efficient_activation` and `scale_skip_connection` where they are not False; the tensors show all
            others, except `image_size`.

    Returns:
        [`UNet2DConditionModel`]: the denoiser, in eval mode and in float32. It gets the states of T5's encoder as
        `encoder_hidden_states`. That of stage II also gets the small image, enlarged, noised and concatenated behind
        the noisy one, and the timestep of its noise as `class_labels`.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, missing or
            contradict the tensors.
    """
    config = checked(config, DEEPFLOYD_IF_ARGUMENTS)
    check_parts(state_dict, "a stage of DeepFloyd IF", "time_embed", "output_blocks", "encoder_pooling")
    require(config, "activation", "att_pool_heads")
    read = {
        "encoder_dim": size_of(state_dict, {"encoder_pooling.0.weight": 0, "encoder_pooling.2.weight": 1}),
        "encoder_channels": size_of(state_dict, {"middle_block.1.encoder_kv.weight": 1}),
    }
    check_agreement(config, config, read)
    if read["encoder_dim"] % config["att_pool_heads"] != 0:
        raise ValueError(
            f"`att_pool_heads` must divide the {read['encoder_dim']} channels of the text, but is "
            f"{config['att_pool_heads']}."
        )
    layout = read_adm_layout(state_dict, read_depths(state_dict))
    layout = replace(layout, model_channels=size_of(state_dict, {"time_embed.0.weight": 1, "aug_proj.0.weight": 1}))
    return convert_text_unet(
        state_dict,
        layout,
        _in_words_of_adm(config),
        in_channels=layout.in_channels,
        text_channels=read["encoder_channels"],
        special=_special(state_dict, config, read["encoder_dim"]),
        modules={
            **{f"encoder_pooling.{place}": f"add_embedding.{name}" for place, name in POOLING.items()},
            **{f"encoder_pooling.1.{name}_proj": f"add_embedding.pool.{name}_proj" for name in "qkv"},
            "encoder_pooling.1.positional_embedding": "add_embedding.pool.positional_embedding",
            "encoder_proj": "encoder_hid_proj",
            "aug_proj.0": "class_embedding.linear_1",
            "aug_proj.2": "class_embedding.linear_2",
        },
    )


def if_scheduler(unet: UNet2DConditionModel) -> ExactDDPMScheduler:
    """The sampler of the original, with dynamic thresholding as its stages have it by default."""
    is_first = unet.config.in_channels == unet.config.out_channels // 2
    return ExactDDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        prediction_type="epsilon",
        timestep_spacing="linspace",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=THRESHOLD_OF_STAGE_I if is_first else 1.0,
    )


def _in_words_of_adm(config: Mapping) -> dict:
    """The arguments as guided-diffusion has them: attention by rates, and one depth for equal ones."""
    words = dict(config)
    if "attention_resolutions" in words:
        require(words, "image_size")
        words["attention_resolutions"] = [words["image_size"] // side for side in words["attention_resolutions"]]
    depths_given = words.get("num_res_blocks")
    if isinstance(depths_given, list) and len(set(depths_given)) == 1:
        words["num_res_blocks"] = depths_given[0]
    return words


def _special(state_dict: StateDict, config: Mapping, text_width: int) -> dict:
    special = {
        "act_fn": config["activation"],
        "cross_attention_norm": "group_norm",
        "time_embedding_dim": size_of(state_dict, {"time_embed.2.weight": 0, "time_embed.2.bias": 0}),
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": config["att_pool_heads"],
    }
    if has(state_dict, "encoder_proj"):
        special |= {"encoder_hid_dim": text_width, "encoder_hid_dim_type": "text_proj"}
    if has(state_dict, "aug_proj"):
        special["class_embed_type"] = "timestep"
    if config.get("efficient_activation"):
        special |= {"resnet_skip_time_act": True, "time_embedding_act_fn": config["activation"]}
    if config.get("scale_skip_connection"):
        special |= {"resnet_out_scale_factor": 1 / SKIP_SCALE, "mid_block_scale_factor": 1 / SKIP_SCALE}
    return special
