"""The diffusion prior of DALLE2-pytorch."""

from diffusers_ext.converters.original_arguments import (
    boolean,
    check_agreement,
    checked,
    one_of,
    positive_integer,
    probability,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, part, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models import MultiQueryPriorTransformer
from diffusers_ext.schedulers import ExactDDPMScheduler


DALLE2_PRIOR_ARGUMENTS = {
    "dim": positive_integer,
    "depth": positive_integer,
    "dim_head": positive_integer,
    "heads": positive_integer,
    "ff_mult": positive_integer,
    "num_timesteps": positive_integer,
    "max_text_len": positive_integer,
    "normformer": boolean,
    "num_time_embeds": one_of(1),
    "num_image_embeds": one_of(1),
    "num_text_embeds": one_of(1),
    "norm_in": one_of(False),
    "norm_out": one_of(True),
    "final_proj": one_of(True),
    "rotary_emb": one_of(True),
    "self_cond": one_of(False),
    "attn_dropout": probability,  # of the training
    "ff_dropout": probability,
}
# The example configuration of the original's training.
PRIOR = {
    "dim": 768,
    "depth": 12,
    "dim_head": 64,
    "heads": 12,
    "ff_mult": 4,
    "num_timesteps": 1000,
    "max_text_len": 77,
    "normformer": True,
    "attn_dropout": 0.05,
    "ff_dropout": 0.05,
}
# Beside the network a DiffusionPrior has its noise schedule and, where the training computed embeddings, its CLIP.
OTHERS = ("noise_scheduler.", "clip.")
# What the original keeps with a dimension for the batch, and for several tokens of one embedding.
FIRST = {"null_text_encodings": 0, "null_text_embeds": (0, 0), "null_image_embed": 0}


def convert_dalle2_prior(state_dict: StateDict, **config) -> MultiQueryPriorTransformer:
    r"""
    A `DiffusionPrior` of https://github.com/lucidrains/DALLE2-pytorch with discrete timesteps, which predicts the
    embedding itself (`predict_x_start`, the default).

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's `DiffusionPriorNetwork`. The tensors show all of them.

    Returns:
        [`MultiQueryPriorTransformer`]: the network, in eval mode and in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, contradict the
            tensors, or are those of a network that is not converted.
    """
    config = checked(config, DALLE2_PRIOR_ARGUMENTS)
    tensors = part({key: value for key, value in state_dict.items() if not key.startswith(OTHERS)}, "net.")
    check_parts(tensors, "a prior of DALLE2-pytorch", "causal_transformer.layers.0", "to_time_embeds")
    # the frequencies of rotations are constants
    tensors = {
        key.removesuffix(".g") + ".weight" if key.endswith(".g") else key: tensor
        for key, tensor in tensors.items()
        if not key.endswith(".rotary_emb.freqs")
    }
    first = "causal_transformer.layers.0"
    width = size_of(tensors, {"causal_transformer.project_out.weight": 0, f"{first}.0.to_q.weight": 1})
    head_width = size_of(tensors, {f"{first}.0.null_kv": 1})
    read = {
        "dim": width,
        "depth": count_blocks(tensors, "causal_transformer.layers"),
        "dim_head": head_width,
        "heads": size_of(tensors, {"causal_transformer.rel_pos_bias.relative_attention_bias.weight": 1}),
        "ff_mult": size_of(tensors, {f"{first}.1.5.weight": 1}) // width,
        "num_timesteps": size_of(tensors, {"to_time_embeds.0.weight": 0}),
        "max_text_len": size_of(tensors, {"null_text_encodings": 1}),
        "normformer": f"{first}.1.3.weight" in tensors,
    }
    check_agreement(config, config, read)
    return load_converted(
        MultiQueryPriorTransformer,
        {
            "num_attention_heads": read["heads"],
            "attention_head_dim": read["dim_head"],
            "num_layers": read["depth"],
            "embedding_dim": read["dim"],
            "num_embeddings": read["max_text_len"],
            "num_timesteps": read["num_timesteps"],
            "feed_forward_factor": read["ff_mult"],
            "norm_in_feed_forward": read["normformer"],
        },
        _modules(read["depth"]),
        tensors,
        lambda key, tensor: tensor[FIRST[key]] if key in FIRST else tensor,
        other_shapes={
            "null_text_encodings": (1, read["max_text_len"], width),
            "null_text_embeds": (1, 1, width),
            "null_image_embed": (1, width),
        },
    )


def dalle2_prior_scheduler(num_timesteps: int) -> ExactDDPMScheduler:
    """The sampler of the original with all of its timesteps. With fewer it mixes two noise schedules, which is not
    repeated here."""
    return ExactDDPMScheduler(
        num_train_timesteps=num_timesteps,
        beta_schedule="squaredcos_cap_v2",
        variance_type="fixed_small",
        prediction_type="sample",
        clip_sample=False,
        timestep_spacing="linspace",
    )


def _modules(num_layers: int) -> Modules:
    modules: Modules = {
        "to_time_embeds.0": "time_embedding",
        "learned_query": "prd_embedding",
        "null_text_encodings": "padding_states",
        "null_text_embeds": "null_prompt_embedding",
        "null_image_embed": "null_image_embedding",
        "causal_transformer.rel_pos_bias.relative_attention_bias": "distance_bias",
        "causal_transformer.norm": "norm_out",
        "causal_transformer.project_out": "proj_out",
    }
    for layer in range(num_layers):
        source, target = f"causal_transformer.layers.{layer}", f"transformer_blocks.{layer}"
        modules |= {
            f"{source}.0.norm": f"{target}.norm_1",
            f"{source}.0.null_kv": f"{target}.first_key_value",
            f"{source}.0.to_q": f"{target}.to_q",
            f"{source}.0.to_kv": (f"{target}.to_k", f"{target}.to_v"),
            f"{source}.0.to_out.0": f"{target}.to_out",
            f"{source}.0.to_out.1": f"{target}.norm_attention",
            f"{source}.1.0": f"{target}.norm_2",
            f"{source}.1.1": f"{target}.proj_in",
            f"{source}.1.3": f"{target}.norm_hidden",
            f"{source}.1.5": f"{target}.proj_out",
        }
    return modules
