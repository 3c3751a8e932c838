"""The transformer of DiT, as [`ExactDiTTransformer2DModel`]."""

import math

import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed

from diffusers_ext.converters.original_arguments import boolean, check_agreement, checked, positive_integer, require
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_exact_dit import ExactDiTTransformer2DModel


DIT_ARGUMENTS = {
    "input_size": positive_integer,
    "patch_size": positive_integer,
    "in_channels": positive_integer,
    "hidden_size": positive_integer,
    "depth": positive_integer,
    "num_heads": positive_integer,
    "num_classes": positive_integer,
    "learn_sigma": boolean,
}
# The embeddings of timestep and class, which the original computes once and diffusers anew in each block.
EMBEDDINGS = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}


def convert_dit(state_dict: StateDict, **config) -> ExactDiTTransformer2DModel:
    r"""
    A `DiT` of https://github.com/facebookresearch/DiT (Peebles & Xie 2023, https://huggingface.co/papers/2212.09748).

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. `num_heads` is needed. What the tensors show need not be given,
            and must agree with them if it is.

    Returns:
        [`ExactDiTTransformer2DModel`]: in eval mode, in float32. Its class `num_embeds_ada_norm`, the last one, stands
        for "no class".

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, missing or
            contradict the tensors.
    """
    config = checked(config, DIT_ARGUMENTS)
    check_parts(state_dict, "a DiT", "x_embedder", "t_embedder", "y_embedder", "blocks", "final_layer")
    read = _read(state_dict)
    check_agreement(config, config, read)
    require(config, "num_heads")
    if read["hidden_size"] % config["num_heads"] != 0:
        raise ValueError(f"`num_heads` must divide the {read['hidden_size']} channels, but is {config['num_heads']}.")
    positions = _positions(read["hidden_size"], read["input_size"] // read["patch_size"])
    _check_positions(state_dict.get("pos_embed"), positions)
    copies = {
        f"transformer_blocks.{block}.{name}.{kind}": f"transformer_blocks.0.{name}.{kind}"
        for block in range(1, read["depth"])
        for source, name in EMBEDDINGS.items()
        for kind in (("weight",) if source.startswith("y_") else ("weight", "bias"))
    }
    model = load_converted(
        ExactDiTTransformer2DModel,
        {
            "num_attention_heads": config["num_heads"],
            "attention_head_dim": read["hidden_size"] // config["num_heads"],
            "in_channels": read["in_channels"],
            "out_channels": read["in_channels"] * (2 if read["learn_sigma"] else 1),
            "num_layers": read["depth"],
            "sample_size": read["input_size"],
            "patch_size": read["patch_size"],
            "num_embeds_ada_norm": read["num_classes"],
        },
        _modules(read["depth"]),
        {key: tensor for key, tensor in state_dict.items() if key != "pos_embed"},
        copies=copies,
    )
    # no parameter: the network computes it when it is built, here on the meta device
    model.pos_embed.register_buffer("pos_embed", positions, persistent=False)
    return model


def _read(state_dict: StateDict) -> dict[str, int | bool]:
    """What the tensors show, by the original's names."""
    width = size_of(state_dict, {"x_embedder.proj.weight": 0, "x_embedder.proj.bias": 0})
    patch_size = size_of(state_dict, {"x_embedder.proj.weight": 2})
    channels = size_of(state_dict, {"x_embedder.proj.weight": 1})
    outputs = size_of(state_dict, {"final_layer.linear.weight": 0, "final_layer.linear.bias": 0})
    return {
        "input_size": math.isqrt(size_of(state_dict, {"pos_embed": 1})) * patch_size,
        "patch_size": patch_size,
        "in_channels": channels,
        "hidden_size": width,
        "depth": count_blocks(state_dict, "blocks"),
        "num_classes": size_of(state_dict, {"y_embedder.embedding_table.weight": 0}) - 1,
        "learn_sigma": outputs == 2 * channels * patch_size**2,
    }


def _positions(width: int, grid_size: int) -> torch.Tensor:
    """The sinusoids of the positions, `(1, grid_size^2, width)`: fixed in the original."""
    return get_2d_sincos_pos_embed(width, grid_size, base_size=grid_size, output_type="pt").float()[None]


def _check_positions(found: torch.Tensor | None, expected: torch.Tensor) -> None:
    if found is None or found.is_meta:
        return
    if found.shape != expected.shape or not torch.allclose(found.float(), expected, rtol=0, atol=1e-3):
        raise ValueError("The checkpoint's pos_embed does not hold DiT's sinusoids of positions, which are fixed.")


def _modules(depth: int) -> Modules:
    modules = {
        "x_embedder.proj": "pos_embed.proj",
        "final_layer.adaLN_modulation.1": "proj_out_1",
        "final_layer.linear": "proj_out_2",
    }
    modules |= {source: f"transformer_blocks.0.{name}" for source, name in EMBEDDINGS.items()}
    for block in range(depth):
        source, target = f"blocks.{block}", f"transformer_blocks.{block}"
        modules |= {
            f"{source}.adaLN_modulation.1": f"{target}.norm1.linear",
            f"{source}.attn.qkv": tuple(f"{target}.attn1.{name}" for name in ("to_q", "to_k", "to_v")),
            f"{source}.attn.proj": f"{target}.attn1.to_out.0",
            f"{source}.mlp.fc1": f"{target}.ff.net.0.proj",
            f"{source}.mlp.fc2": f"{target}.ff.net.2",
        }
    return modules
