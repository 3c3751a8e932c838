"""The decoder of karlo: a UNet2DConditionModel and an UnCLIPConditioner."""

from diffusers import UNet2DConditionModel

from diffusers_ext.converters.adm_arguments import ADM_ARGUMENTS, GUIDED_ARGUMENTS
from diffusers_ext.converters.adm_layout import read_adm_layout
from diffusers_ext.converters.adm_text_unets import convert_text_unet
from diffusers_ext.converters.original_arguments import (
    check_agreement,
    checked,
    one_of,
    positive_integer,
    probability,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_unclip_conditioner import UnCLIPConditioner
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


KARLO_DECODER_ARGUMENTS = {
    **ADM_ARGUMENTS,
    **GUIDED_ARGUMENTS,
    "text_ctx": positive_integer,  # of its CLIP, without effect on the network
    "xf_width": positive_integer,
    "clip_dim": positive_integer,
    "clip_emb_mult": positive_integer,
    "clip_emb_type": one_of("image"),
    "clip_emb_drop": probability,
}
CONDITIONER = {
    "cf_param": "learned_classifier_free_guidance_embeddings",
    "text_feat_proj": "embedding_proj",
    "clip_emb": "clip_image_embeddings_project_to_time_embeddings",
    "clip_tok_proj": "clip_extra_context_tokens_proj",
    "text_seq_proj.0": "encoder_hidden_states_proj",
    "text_seq_proj.1": "text_encoder_hidden_states_norm",
}


def convert_karlo_decoder(state_dict: StateDict, **config) -> tuple[UNet2DConditionModel, UnCLIPConditioner]:
    r"""
    The decoder of https://github.com/kakaobrain/karlo, which follows unCLIP (Ramesh et al. 2022,
    https://huggingface.co/papers/2204.06125).

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's `PLMImUNet`. `num_head_channels` is needed; the tensors show all others, except
            `image_size`.

    Returns:
        `tuple`: the denoiser, a [`UNet2DConditionModel`], and what makes its conditions of CLIP's embeddings, an
        [`UnCLIPConditioner`], in eval mode and in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, missing or
            contradict the tensors.
    """
    config = checked(config, KARLO_DECODER_ARGUMENTS)
    tensors = {key.removeprefix("model."): tensor for key, tensor in state_dict.items()}
    check_parts(tensors, "a decoder of karlo", "input_blocks", "clip_tok_proj", "text_seq_proj.0")
    condition = {key: tensor for key, tensor in tensors.items() if key.startswith(tuple(CONDITIONER))}
    rest = {key: tensor for key, tensor in tensors.items() if key not in condition}
    conditioner = _convert_conditioner(condition, config)
    layout = read_adm_layout(rest)
    unet = convert_text_unet(
        rest,
        layout,
        config,
        in_channels=layout.in_channels,
        text_channels=conditioner.config.cross_attention_dim,
        special={"class_embed_type": "identity"},
    )
    return unet, conditioner


def karlo_decoder_scheduler() -> ExactDDPMScheduler:
    """The sampler of the original: ancestral, with the learned variance."""
    return ExactDDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        prediction_type="epsilon",
        timestep_spacing="linspace",
    )


def _convert_conditioner(tensors: StateDict, config: dict) -> UnCLIPConditioner:
    width = size_of(tensors, {"text_seq_proj.0.weight": 0, "text_seq_proj.1.weight": 0, "text_seq_proj.1.bias": 0})
    read = {
        "xf_width": width,
        "clip_dim": size_of(tensors, {"clip_emb.weight": 1, "text_feat_proj.weight": 1, "clip_tok_proj.weight": 1}),
        "clip_emb_mult": size_of(tensors, {"clip_tok_proj.weight": 0, "clip_tok_proj.bias": 0}) // width,
    }
    check_agreement(config, config, read)
    return load_converted(
        UnCLIPConditioner,
        {
            "clip_extra_context_tokens": read["clip_emb_mult"],
            "clip_embeddings_dim": read["clip_dim"],
            "time_embed_dim": size_of(tensors, {"clip_emb.weight": 0, "text_feat_proj.weight": 0}),
            "cross_attention_dim": width,
        },
        CONDITIONER,
        tensors,
    )
