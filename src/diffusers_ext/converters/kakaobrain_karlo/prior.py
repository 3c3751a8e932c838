"""The prior of karlo: diffusers' PriorTransformer."""

import os

import torch
from diffusers import DDPMScheduler, PriorTransformer

from diffusers_ext.converters.adm_text_unets import parts_first
from diffusers_ext.converters.checkpoint_files import check_file, read_pickle
from diffusers_ext.converters.original_arguments import check_agreement, checked, one_of, positive_integer, require
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted


KARLO_PRIOR_ARGUMENTS = {
    "text_ctx": positive_integer,
    "xf_width": positive_integer,
    "xf_layers": positive_integer,
    "xf_heads": positive_integer,
    "xf_final_ln": one_of(True),
    "clip_dim": positive_integer,
}
STATISTICS = ("clip_mean", "clip_std")
NUM_OTHERS = 4  # in the sequence after the text's tokens: its embedding, the timestep, the image, the query
MASKED = -10000.0  # what PriorTransformer adds where attention is not to look


def convert_karlo_prior(state_dict: StateDict, **config) -> PriorTransformer:
    r"""
    The prior of https://github.com/kakaobrain/karlo, which follows unCLIP (Ramesh et al. 2022,
    https://huggingface.co/papers/2204.06125).

    Args:
        state_dict (`Mapping`):
            The tensors of the original, and as `clip_mean` and `clip_std`, each of shape `(clip_dim,)`, the statistics
            of CLIP's embeddings of images, which the original has in a file of their own.
        config:
            Arguments of the original's `PriorTransformer`. `xf_heads` is needed; the tensors show all others.

    Returns:
        [`PriorTransformer`]: the network, in eval mode and in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, missing or
            contradict the tensors.
    """
    config = checked(config, KARLO_PRIOR_ARGUMENTS)
    tensors = {key.removeprefix("model."): tensor for key, tensor in state_dict.items()}
    check_parts(tensors, "a prior of karlo", "clip_img_proj", "transformer", "text_enc_proj")
    read = {
        "text_ctx": size_of(tensors, {"positional_embedding": 1}) - NUM_OTHERS,
        "xf_width": size_of(tensors, {"out_proj.weight": 1, "clip_img_proj.weight": 0, "clip_img_proj.bias": 0}),
        "xf_layers": count_blocks(tensors, "transformer.resblocks"),
        "clip_dim": size_of(tensors, {"out_proj.weight": 0, "out_proj.bias": 0, "clip_img_proj.weight": 1}),
    }
    check_agreement(config, config, read)
    require(config, "xf_heads")
    heads, width = config["xf_heads"], read["xf_width"]
    if width % heads != 0:
        raise ValueError(f"`xf_heads` must divide the {width} channels of the transformer, but is {heads}.")

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if key in STATISTICS:
            return tensor[None]
        return parts_first(tensor, heads, 3) if ".c_qkv." in key else tensor

    prior = load_converted(
        PriorTransformer,
        {
            "num_attention_heads": heads,
            "attention_head_dim": width // heads,
            "num_layers": read["xf_layers"],
            "embedding_dim": read["clip_dim"],
            "num_embeddings": read["text_ctx"],
            "additional_embeddings": NUM_OTHERS,
        },
        _modules(read["xf_layers"]),
        tensors,
        prepare,
        other_shapes={name: (read["clip_dim"],) for name in STATISTICS},
    )
    # no weight: it is computed when the network is built, here on the meta device
    length = read["text_ctx"] + NUM_OTHERS
    causal = torch.full((1, length, length), MASKED).triu(1)
    prior.register_buffer("causal_attention_mask", causal, persistent=False)
    return prior


def karlo_prior_scheduler() -> DDPMScheduler:
    """The sampler of the original. diffusers' UnCLIPScheduler has the same process, but an inexact first step."""
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="fixed_small",
        prediction_type="sample",
        clip_sample_range=10.0,
        timestep_spacing="linspace",
    )


def read_statistics(file: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The mean and the standard deviation of CLIP's embeddings, by the names of PriorTransformer.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if it holds anything but two vectors of one length.
    """
    check_file(file)
    content = read_pickle(file)
    are_tensors = isinstance(content, (tuple, list)) and all(torch.is_tensor(part) for part in content)
    if not are_tensors or len(content) != 2 or content[0].ndim != 1 or content[0].shape != content[1].shape:
        raise ValueError(f"{file} must hold the mean and the standard deviation of embeddings, two vectors.")
    return dict(zip(STATISTICS, content, strict=True))


def _modules(num_layers: int) -> Modules:
    modules: Modules = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "clip_img_proj": "proj_in",
        "text_emb_proj": "embedding_proj",
        "text_enc_proj": "encoder_hidden_states_proj",
        "positional_embedding": "positional_embedding",
        "prd_emb": "prd_embedding",
        "final_ln": "norm_out",
        "out_proj": "proj_to_clip_embeddings",
        **{name: name for name in STATISTICS},
    }
    for layer in range(num_layers):
        source, target = f"transformer.resblocks.{layer}", f"transformer_blocks.{layer}"
        modules |= {
            f"{source}.ln_1": f"{target}.norm1",
            f"{source}.attn.c_qkv": tuple(f"{target}.attn1.to_{name}" for name in "qkv"),
            f"{source}.attn.c_proj": f"{target}.attn1.to_out.0",
            f"{source}.ln_2": f"{target}.norm3",
            f"{source}.mlp.c_fc": f"{target}.ff.net.0.proj",
            f"{source}.mlp.c_proj": f"{target}.ff.net.2",
        }
    return modules
