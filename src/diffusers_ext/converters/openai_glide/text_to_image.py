"""GLIDE's base, upsampler and inpainting models: a UNet2DConditionModel and a GlideTextModel."""

import torch
from diffusers import UNet2DConditionModel

from diffusers_ext.converters.adm_arguments import ADM_ARGUMENTS, GUIDED_ARGUMENTS, head_count
from diffusers_ext.converters.adm_layout import read_adm_layout
from diffusers_ext.converters.adm_text_unets import convert_text_unet, parts_first
from diffusers_ext.converters.original_arguments import (
    boolean,
    check_agreement,
    checked,
    one_of,
    positive_integer,
    require,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_glide_text import GlideTextModel
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDIMScheduler, ExactDDPMScheduler


TEXT_ARGUMENTS = {
    "text_ctx": positive_integer,
    "xf_width": positive_integer,
    "xf_layers": positive_integer,
    "xf_heads": positive_integer,
    "xf_final_ln": boolean,
    "xf_padding": one_of(True),
    "n_vocab": positive_integer,
    "cache_text_emb": boolean,
}
UNET_ARGUMENTS = {**ADM_ARGUMENTS, **GUIDED_ARGUMENTS, "num_head_channels": head_count}
GLIDE_ARGUMENTS = {**UNET_ARGUMENTS, **TEXT_ARGUMENTS}
# Of `create_gaussian_diffusion`.
PROCESS_ARGUMENTS = {"noise_schedule": one_of("squaredcos_cap_v2", "linear"), "diffusion_steps": positive_integer}
TEXT_PARTS = ("transformer", "token_embedding", "transformer_proj", "final_ln")
TEXT_TENSORS = ("positional_embedding", "padding_embedding")


def convert_glide(state_dict: StateDict, **config) -> tuple[UNet2DConditionModel, GlideTextModel]:
    r"""
    A `Text2ImUNet` of https://github.com/openai/glide-text2im (Nichol et al. 2021,
    https://huggingface.co/papers/2112.10741), or its relatives for super-resolution and inpainting.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. `num_head_channels` or `num_heads`, and `xf_heads` are needed;
            the tensors show all others, except `image_size`. `in_channels` are those of an image, 3.

    Returns:
        `tuple`: the denoiser, a [`UNet2DConditionModel`], and its text transformer, a [`GlideTextModel`], in eval mode
        and in float32. The denoiser gets the states of the text transformer as `encoder_hidden_states`, and its pooled
        output as `class_labels`.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, missing or
            contradict the tensors.
    """
    config = checked(config, GLIDE_ARGUMENTS)
    check_parts(state_dict, "a model of GLIDE", "input_blocks", "transformer", "token_embedding")
    if "padding_embedding" not in state_dict:
        raise ValueError("This text transformer has no `padding_embedding`: such networks are not converted.")
    text = {key: value for key, value in state_dict.items() if _is_text(key)}
    rest = {key: value for key, value in state_dict.items() if not _is_text(key)}
    text_encoder = _convert_text(text, config)
    return _convert_unet(rest, config, text_encoder.config.hidden_size), text_encoder


def glide_scheduler(
    unet: UNet2DConditionModel, noise_schedule: str, diffusion_steps: int
) -> ExactDDPMScheduler | ExactDDIMScheduler:
    """The sampler of the original's notebooks: DDIM for super-resolvers, else ancestral with the learned variance."""
    images = unet.config.out_channels // 2
    sampler = ExactDDPMScheduler if unet.config.in_channels in (images, 2 * images + 1) else ExactDDIMScheduler
    return sampler(
        num_train_timesteps=diffusion_steps,
        beta_schedule=noise_schedule,
        variance_type="learned_range",
        prediction_type="epsilon",
        timestep_spacing="linspace",
    )


def _is_text(key: str) -> bool:
    return key in TEXT_TENSORS or key.split(".")[0] in TEXT_PARTS


def _convert_text(tensors: StateDict, config: dict) -> GlideTextModel:
    layers = 0
    while has(tensors, f"transformer.resblocks.{layers}"):
        layers += 1
    width = size_of(tensors, {"token_embedding.weight": 1})
    read = {
        "text_ctx": size_of(tensors, {"positional_embedding": 0, "padding_embedding": 0}),
        "xf_width": width,
        "xf_layers": layers,
        "xf_final_ln": has(tensors, "final_ln"),
        "n_vocab": size_of(tensors, {"token_embedding.weight": 0}),
    }
    check_agreement(config, config, read)
    require(config, "xf_heads")
    heads = config["xf_heads"]
    if width % heads != 0:
        raise ValueError(f"`xf_heads` must divide the {width} channels of the text transformer, but is {heads}.")
    modules: Modules = {
        "token_embedding": "token_embedding",
        "positional_embedding": "position_embedding",
        "padding_embedding": "padding_embedding",
        "final_ln": "norm_out",
        "transformer_proj": "proj_out",
    }
    for layer in range(layers):
        source, target = f"transformer.resblocks.{layer}", f"blocks.{layer}"
        modules |= {
            f"{source}.ln_1": f"{target}.norm1",
            f"{source}.attn.c_qkv": (f"{target}.to_q", f"{target}.to_k", f"{target}.to_v"),
            f"{source}.attn.c_proj": f"{target}.to_out",
            f"{source}.ln_2": f"{target}.norm2",
            f"{source}.mlp.c_fc": f"{target}.linear_1",
            f"{source}.mlp.c_proj": f"{target}.linear_2",
        }

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        return parts_first(tensor, heads, 3) if ".c_qkv." in key else tensor

    return load_converted(
        GlideTextModel,
        {
            "vocab_size": read["n_vocab"],
            "max_position_embeddings": read["text_ctx"],
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "projection_dim": size_of(tensors, {"transformer_proj.weight": 0}),
            "final_norm": read["xf_final_ln"],
        },
        modules,
        tensors,
        prepare,
    )


def _convert_unet(tensors: StateDict, config: dict, text_width: int) -> UNet2DConditionModel:
    layout = read_adm_layout(tensors)
    channels = config.get("in_channels", 3)
    if layout.in_channels not in (channels, 2 * channels, 2 * channels + 1, 3 * channels + 1):
        raise ValueError(
            f"The first convolution takes {layout.in_channels} channels, which no model of GLIDE for images of "
            f"{channels} channels has."
        )
    special = {"class_embed_type": "identity"}
    return convert_text_unet(tensors, layout, config, in_channels=channels, text_channels=text_width, special=special)
