"""CLIP with a vision transformer in open_clip's layout, as transformers' CLIPModel."""

from collections.abc import Mapping

from transformers import CLIPModel

from diffusers_ext.converters.clip_layout import (
    load_vit_clip,
    read_text_sizes,
    read_vision_sizes,
    without_unused,
)
from diffusers_ext.converters.original_arguments import (
    anything,
    boolean,
    check_agreement,
    checked,
    positive_integer,
    positive_number,
)
from diffusers_ext.converters.state_dicts import StateDict


OPEN_CLIP_ARGUMENTS = {
    "embed_dim": positive_integer,
    "vision_cfg": anything,
    "text_cfg": anything,
    "quick_gelu": boolean,
}
VISION = {
    "image_size": positive_integer,
    "layers": positive_integer,
    "width": positive_integer,
    "patch_size": positive_integer,
    "head_width": positive_integer,
    "mlp_ratio": positive_number,
}
TEXT = {
    "context_length": positive_integer,
    "vocab_size": positive_integer,
    "width": positive_integer,
    "heads": positive_integer,
    "layers": positive_integer,
    "mlp_ratio": positive_number,
}
USUAL_HEAD_WIDTH, USUAL_HEADS = 64, 8  # of the original's CLIPVisionCfg and CLIPTextCfg


def convert_open_clip(state_dict: StateDict, **config) -> CLIPModel:
    r"""
    A `CLIP` or `CustomTextCLIP` with a vision transformer of https://github.com/mlfoundations/open_clip.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            The entries of the model's JSON file in the original: `embed_dim`, `vision_cfg`, `text_cfg` and
            `quick_gelu`. The tensors show all but the `head_width` of `vision_cfg` (64 by default), the `heads` of
            `text_cfg` (8) and `quick_gelu` (`False`, except for OpenAI's weights).

    Returns:
        [`CLIPModel`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown, contradict the
            tensors, or are for layers that a `CLIPModel` does not have.
    """
    config = checked(config, OPEN_CLIP_ARGUMENTS)
    vision, text = _tower(config, "vision_cfg", VISION), _tower(config, "text_cfg", TEXT)
    state_dict = without_unused({key.removeprefix("text."): tensor for key, tensor in state_dict.items()})
    sizes = read_text_sizes(state_dict) | read_vision_sizes(state_dict)
    _check(config, vision, text, sizes)
    head_width, heads = vision.get("head_width", USUAL_HEAD_WIDTH), text.get("heads", USUAL_HEADS)
    for name, width, divisor in (
        ("head_width", sizes["vision_width"], head_width),
        ("heads", sizes["transformer_width"], heads),
    ):
        if width % divisor != 0:
            raise ValueError(f"`{name}` must divide the width of its tower, {width}, but is {divisor}.")
    return load_vit_clip(
        state_dict,
        sizes,
        text_heads=heads,
        vision_heads=sizes["vision_width"] // head_width,
        activation="quick_gelu" if config.get("quick_gelu", False) else "gelu",
    )


def _tower(config: Mapping, name: str, arguments: Mapping) -> dict:
    entries = config.get(name) or {}
    if not isinstance(entries, Mapping):
        raise ValueError(f"`{name}` must be a mapping, as in the model's JSON file, but is {entries!r}.")
    unknown = [entry for entry in entries if entry not in arguments]
    if unknown:
        raise ValueError(
            f"`{name}` has {', '.join(unknown)}, which a CLIPModel does not have or the converter does not know."
        )
    return checked(dict(entries), arguments)


def _check(config: Mapping, vision: Mapping, text: Mapping, sizes: Mapping) -> None:
    shown = {
        "vision_cfg": (
            vision,
            {
                "image_size": sizes["image_resolution"],
                "layers": sizes["vision_layers"],
                "width": sizes["vision_width"],
                "patch_size": sizes["vision_patch_size"],
            },
        ),
        "text_cfg": (
            text,
            {
                "context_length": sizes["context_length"],
                "vocab_size": sizes["vocab_size"],
                "width": sizes["transformer_width"],
                "layers": sizes["transformer_layers"],
            },
        ),
    }
    check_agreement(config, config, {"embed_dim": sizes["embed_dim"]})
    for given, found in shown.values():
        check_agreement(given, given, found)
