"""The encoders of encoder4editing: from their tensors to a [`StyleEncoder`]."""

import re

from diffusers_ext.converters.original_arguments import one_of, positive_integer
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_style_encoder import StyleEncoder


STYLE_ENCODER_ARGUMENTS = {
    "architecture": one_of("e4e", "psp"),
    "num_styles": positive_integer,
    "sample_size": positive_integer,
}
LAYERS_PER_BLOCK = (3, 4, 14, 3)  # which the original has whatever the depth of its network is
# Of a residual unit; a number is a position in an `nn.Sequential`.
UNIT = {
    "shortcut_layer.0": "skip",
    "shortcut_layer.1": "skip_norm",
    "res_layer.0": "norm1",
    "res_layer.1": "conv1",
    "res_layer.2": "act",
    "res_layer.3": "conv2",
    "res_layer.4": "norm2",
    "res_layer.5.fc1": "excitation.squeeze",
    "res_layer.5.fc2": "excitation.excite",
}
TOP = {
    "input_layer.0": "conv_in",
    "input_layer.1": "norm_in",
    "input_layer.2": "act_in",
    "latlayer1": "middle_lateral",
    "latlayer2": "fine_lateral",
    "linear": "linear_out",
    "latent_avg": "style_average",
}


def convert_style_encoder(
    state_dict: StateDict,
    architecture: str = "e4e",
    num_styles: int | None = None,
    sample_size: int | None = None,
) -> StyleEncoder:
    """A pSp or e4e encoder, or one into W, of https://github.com/omertov/encoder4editing as a [`StyleEncoder`].

    Args:
        state_dict (`Mapping`): the tensors of the encoder, and `latent_avg`, the average style, `(style_dim,)`, or
            `(num_styles, style_dim)` with equal rows. Without it, the average is 0.
        architecture (`str`): `"e4e"` or `"psp"`, whose tensors have the same names; one into W is recognised.
        num_styles (`int`, *optional*): for an encoder into W: how many layers get its style, by default 18.
        sample_size (`int`, *optional*): for an encoder into W: height and width of its images, by default 256.

    Raises:
        ValueError: if tensors are missing, unknown, or of other shapes.
    """
    units = [key for key in state_dict if re.fullmatch(r"body\.\d+\.res_layer\.3\.weight", key)]
    if len(units) != sum(LAYERS_PER_BLOCK) or state_dict.get("input_layer.0.weight") is None:
        raise ValueError(
            f"This is no encoder of encoder4editing: it has {len(units)} residual units instead of "
            f"{sum(LAYERS_PER_BLOCK)}."
        )
    firsts = [sum(LAYERS_PER_BLOCK[:stage]) for stage in range(4)]
    widths = tuple(len(state_dict[f"body.{first}.res_layer.3.weight"]) for first in firsts)
    into_w = "linear.weight" in state_dict
    heads = sorted({int(key.split(".")[1]) for key in state_dict if key.startswith("styles.")})
    if into_w == bool(heads):
        raise ValueError("This is no encoder of encoder4editing: it needs `styles` or `linear`, and not both.")
    if not into_w:
        # The coarsest features, of a sixteenth of the image, are halved once by each convolution.
        convs = [key for key in state_dict if re.fullmatch(r"styles\.0\.convs\.\d+\.weight", key)]
        decided = {"num_styles": len(heads), "sample_size": 16 * 2 ** len(convs)}
        for name, given in (("num_styles", num_styles), ("sample_size", sample_size)):
            if given not in (None, decided[name]):
                raise ValueError(f"`{name}` is {given}, but the tensors are of an encoder with {decided[name]}.")
        num_styles, sample_size = decided["num_styles"], decided["sample_size"]
    squeezes = state_dict.get(f"body.{firsts[-1]}.res_layer.5.fc1.weight")
    linear = state_dict["linear.weight" if into_w else "styles.0.linear.weight"]
    config = {
        "sample_size": sample_size or 256,
        "in_channels": state_dict["input_layer.0.weight"].shape[1],
        "num_styles": num_styles or 18,
        "style_dim": len(linear),
        "architecture": "w" if into_w else architecture,
        "block_out_channels": widths,
        "layers_per_block": LAYERS_PER_BLOCK,
        "se_reduction": None if squeezes is None else widths[-1] // len(squeezes),
    }
    average = state_dict.get("latent_avg", linear.new_zeros(len(linear)))
    if average.ndim == 2 and (average == average[0]).all():
        average = average[0]
    return load_converted(StyleEncoder, config, _modules(config), {**state_dict, "latent_avg": average})


def _modules(config: dict) -> dict[str, str]:
    modules, position = dict(TOP), 0
    for stage, number in enumerate(LAYERS_PER_BLOCK):
        for unit in range(number):
            modules |= {f"body.{position}.{old}": f"stages.{stage}.{unit}.{new}" for old, new in UNIT.items()}
            position += 1
    for head in range(config["num_styles"]):
        modules[f"styles.{head}.linear"] = f"heads.{head}.linear"
        for conv in range(config["sample_size"].bit_length()):
            modules[f"styles.{head}.convs.{2 * conv}"] = f"heads.{head}.convs.{conv}"
    return modules
