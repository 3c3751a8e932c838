"""The transformers of VQGAN: `Net2NetTransformer`, with class labels or nothing before the codes."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from diffusers_ext.converters.compvis.first_stage import VQGAN_ARGUMENTS, convert_vqgan
from diffusers_ext.converters.original_arguments import checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, part, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.pipelines import TokensToImagePipeline


GPT_ARGUMENTS = {"n_head": positive_integer, "n_classes": positive_integer, "n_embed": positive_integer}
NET2NET_ARGUMENTS = {**VQGAN_ARGUMENTS, **GPT_ARGUMENTS}
N_HEAD, N_CLASSES, RESOLUTION = 16, 1000, 256  # of the published class-conditional transformer
QKV = ("query", "key", "value")


def convert_taming_transformer(state_dict: StateDict, **config) -> GPT2LMHeadModel:
    r"""
    The transformer of a `Net2NetTransformer` of https://github.com/CompVis/taming-transformers (Esser et al. 2021,
    https://huggingface.co/papers/2012.09841) that sees a class or a start token before the codes.

    The original looks up classes in the same table as codes. Here the classes have tokens of their own behind the
    codes, with copies of the same rows.

    Args:
        state_dict (`Mapping`):
            The tensors of the original's `transformer`, without this prefix.
        config:
            What no tensor shows: `n_head` (16 by default), `n_classes` (1000 by default, 1 for a model without
            classes), and `n_embed`, the number of codes of the first stage (by default all tokens).

    Returns:
        [`GPT2LMHeadModel`]: in eval mode, in float32, without dropout.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, if arguments do not fit, or if some tokens
            see later ones (`n_unmasked`), as with coordinates or depth maps before the codes.
    """
    config = checked(config, GPT_ARGUMENTS)
    check_parts(state_dict, "a transformer of taming-transformers", "tok_emb", "blocks", "ln_f", "head")
    vocabulary, width = (size_of(state_dict, {"tok_emb.weight": axis, "head.weight": axis}) for axis in (0, 1))
    num_codes, num_classes = config.get("n_embed", vocabulary), config.get("n_classes", N_CLASSES)
    num_heads, num_blocks = config.get("n_head", N_HEAD), count_blocks(state_dict, "blocks")
    if max(num_codes, num_classes) > vocabulary:
        raise ValueError(
            f"`n_embed` and `n_classes` must be at most {vocabulary}, the tokens of the transformer, but are "
            f"{num_codes} and {num_classes}."
        )
    if width % num_heads:
        raise ValueError(f"`n_head` must divide the width {width}, but is {num_heads}.")
    _check_causal(state_dict)
    state_dict = _with_joint_projections(state_dict, num_blocks)
    length = size_of(state_dict, {"pos_emb": 1})

    net_config = {
        "vocab_size": num_codes + num_classes,
        "n_positions": length,
        "n_embd": width,
        "n_layer": num_blocks,
        "n_head": num_heads,
        "n_inner": size_of(state_dict, {"blocks.0.mlp.0.weight": 0}),
        "activation_function": "gelu",
    }
    modules: Modules = {
        "tok_emb": "transformer.wte",
        "pos_emb": "transformer.wpe.weight",
        "ln_f": "transformer.ln_f",
        "head": "lm_head",
    }
    linear = {"attn.qkv": "attn.c_attn", "attn.proj": "attn.c_proj", "mlp.0": "mlp.c_fc", "mlp.2": "mlp.c_proj"}
    shapes = {"tok_emb.weight": (vocabulary, width), "head.weight": (vocabulary, width), "pos_emb": (1, length, width)}
    for block in range(num_blocks):
        source, target = f"blocks.{block}", f"transformer.h.{block}"
        modules |= {f"{source}.ln{number}": f"{target}.ln_{number}" for number in (1, 2)}
        modules |= {f"{source}.{ours}": f"{target}.{theirs}" for ours, theirs in linear.items()}
        inner = net_config["n_inner"]
        sizes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        sizes |= {"mlp.0": (inner, width), "mlp.2": (width, inner)}
        shapes |= {f"{source}.{name}.weight": shape for name, shape in sizes.items()}

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        if key == "tok_emb.weight":
            return torch.cat([tensor[:num_codes], tensor[:num_classes]])
        if key == "head.weight":  # classes are never predicted
            return torch.cat([tensor[:num_codes], torch.zeros(num_classes, width)])
        if key == "pos_emb":
            return tensor[0]
        return tensor.T.contiguous() if key in shapes else tensor  # of a Conv1D

    return load_converted(_build_gpt2, net_config, modules, state_dict, prepare, other_shapes=shapes)


def convert_net2net(state_dict: StateDict, **config) -> TokensToImagePipeline:
    """The whole `Net2NetTransformer`, with its first stage; see [`convert_taming_transformer`] and `convert_vqgan`.

    Raises:
        ValueError: also if the codes are permuted.
    """
    config = checked(config, NET2NET_ARGUMENTS)
    check_parts(state_dict, "a Net2NetTransformer", "transformer", "first_stage_model")
    if any(key.startswith("permuter.") for key in state_dict):
        raise ValueError("The codes of this transformer are permuted, but only those in raster order are converted.")
    of_vqgan = {name: value for name, value in config.items() if name in VQGAN_ARGUMENTS}
    vqvae = convert_vqgan(part(state_dict, "first_stage_model."), **of_vqgan)
    num_codes = vqvae.config.num_vq_embeddings
    options = {name: config[name] for name in ("n_head", "n_classes") if name in config}
    transformer = convert_taming_transformer(part(state_dict, "transformer."), n_embed=num_codes, **options)
    side = config.get("resolution", RESOLUTION) // 2 ** (len(vqvae.config.block_out_channels) - 1)
    return TokensToImagePipeline(transformer, vqvae, token_height=side, token_width=side)


def _check_causal(state_dict: StateDict) -> None:
    """Refuses `n_unmasked`, by the masks in the file."""
    for key, mask in state_dict.items():
        if key.endswith("attn.mask") and not mask.is_meta and mask.triu(1).any():
            raise ValueError(
                "The first tokens of this transformer see each other (`n_unmasked`), which GPT2LMHeadModel does not "
                "have: only transformers of class labels or of nothing are converted."
            )


def _with_joint_projections(state_dict: StateDict, num_blocks: int) -> dict[str, torch.Tensor]:
    """The tensors without masks, and with queries, keys and values as one layer, where all three are there."""
    joint = {key: tensor for key, tensor in state_dict.items() if not key.endswith("attn.mask")}
    for block in range(num_blocks):
        for kind in ("weight", "bias"):
            names = [f"blocks.{block}.attn.{name}.{kind}" for name in QKV]
            if all(name in joint for name in names):
                joint[f"blocks.{block}.attn.qkv.{kind}"] = torch.cat([joint.pop(name) for name in names])
    return joint


def _build_gpt2(**config) -> GPT2LMHeadModel:
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    no_ends = {"bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(**config, **dropout, **no_ends, tie_word_embeddings=False))
