"""The networks of latent-diffusion that turn a condition into what its U-Net takes."""

from collections.abc import Mapping

import torch
from diffusers import ModelMixin
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

from diffusers_ext.converters.original_arguments import check_agreement, positive_integer, require
from diffusers_ext.converters.state_dicts import StateDict, count_blocks, first_names, has, part, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_class_embedder import ClassEmbedder
from diffusers_ext.models.modeling_spatial_rescaler import SpatialRescaler


# The original's arguments: `n_classes` of its ClassEmbedder, `n_stages` of its SpatialRescaler.
CONDITION_ARGUMENTS = {"n_classes": positive_integer, "n_stages": positive_integer}
HEADS, HEAD_DIM = 8, 64  # of the original's text transformer, whatever its width


def convert_condition(
    tensors: StateDict, first_stage: StateDict, options: Mapping
) -> dict[str, ModelMixin | LDMBertModel]:
    """The network of the condition, by the name of the component; none for conditions that are taken as they are.

    Args:
        tensors (`Mapping`): the tensors of `cond_stage_model`.
        first_stage (`Mapping`): those of `first_stage_model`, which for inpainting encodes the condition too.
        options (`Mapping`): `n_stages` for a `SpatialRescaler`, which no tensor shows, and `n_classes` to be checked.

    Raises:
        ValueError: if the network is unknown, or an option is missing or contradicts the tensors.
    """
    if not tensors:
        return {}
    if has(tensors, "embedding"):
        return {"class_embedder": _class_embedder(tensors, options)}
    if has(tensors, "channel_mapper"):
        return {"conditioner": _spatial_rescaler(tensors, options)}
    if has(tensors, "transformer.token_emb"):
        return {"bert": _bert(part(tensors, "transformer."))}
    if has(tensors, "encoder"):
        _check_second_copy(tensors, first_stage)
        return {}
    raise ValueError(
        "The cond_stage_model is neither a ClassEmbedder, a SpatialRescaler, a BERTEmbedder nor the first "
        f"stage; its tensors are {first_names(tensors)}."
    )


def _class_embedder(tensors: StateDict, options: Mapping) -> ClassEmbedder:
    num_classes = size_of(tensors, {"embedding.weight": 0})
    check_agreement(options, options, {"n_classes": num_classes})
    config = {"num_class_embeds": num_classes, "embed_dim": size_of(tensors, {"embedding.weight": 1})}
    return load_converted(ClassEmbedder, config, {"embedding": "embedding"}, tensors)


def _spatial_rescaler(tensors: StateDict, options: Mapping) -> SpatialRescaler:
    require(options, "n_stages")
    config = {
        "in_channels": size_of(tensors, {"channel_mapper.weight": 1}),
        "out_channels": size_of(tensors, {"channel_mapper.weight": 0}),
        "num_stages": options["n_stages"],
        "bias": "channel_mapper.bias" in tensors,
    }
    return load_converted(SpatialRescaler, config, {"channel_mapper": "channel_mapper"}, tensors)


def _check_second_copy(tensors: StateDict, first_stage: StateDict) -> None:
    """Refuses a condition that another autoencoder encodes than the one that decodes the images."""
    for key, tensor in tensors.items():
        if not key.startswith("loss.") and not (key in first_stage and torch.equal(tensor, first_stage[key])):
            raise ValueError(
                f"The first stages of images and of the condition differ in {key}: such checkpoints are not converted."
            )


def _bert(tensors: StateDict) -> LDMBertModel:
    """The text transformer, which diffusers' LDMTextToImagePipeline calls `bert`; its tokens are those of BERT."""
    layers = "attn_layers.layers"
    depth = count_blocks(tensors, layers) // 2
    config = {
        "vocab_size": size_of(tensors, {"token_emb.weight": 0}),
        "max_position_embeddings": size_of(tensors, {"pos_emb.emb.weight": 0}),
        "encoder_layers": depth,
        "encoder_ffn_dim": size_of(tensors, {f"{layers}.{2 * i + 1}.1.net.0.0.bias": 0 for i in range(depth)}),
        "encoder_attention_heads": HEADS,
        "head_dim": HEAD_DIM,
        "d_model": size_of(tensors, {"norm.weight": 0, "norm.bias": 0}),
    }
    return load_converted(_build_bert, config, _bert_modules(depth), tensors)


def _build_bert(**config) -> LDMBertModel:
    return LDMBertModel(LDMBertConfig(**config))


def _bert_modules(depth: int) -> Modules:
    modules = {
        "token_emb": "model.embed_tokens",
        "pos_emb.emb": "model.embed_positions",
        "norm": "model.layer_norm",
        "to_logits": "to_logits",
    }
    for layer in range(depth):
        attention, feed_forward = (f"attn_layers.layers.{2 * layer + i}" for i in (0, 1))
        target = f"model.layers.{layer}"
        modules |= {
            f"{attention}.0": f"{target}.self_attn_layer_norm",
            f"{attention}.1.to_q": f"{target}.self_attn.q_proj",
            f"{attention}.1.to_k": f"{target}.self_attn.k_proj",
            f"{attention}.1.to_v": f"{target}.self_attn.v_proj",
            f"{attention}.1.to_out": f"{target}.self_attn.out_proj",
            f"{feed_forward}.0": f"{target}.final_layer_norm",
            f"{feed_forward}.1.net.0.0": f"{target}.fc1",
            f"{feed_forward}.1.net.2": f"{target}.fc2",
        }
    return modules
