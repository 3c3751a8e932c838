"""The encoder and the decoder of AdaIN, in one network."""

from diffusers_ext.converters.original_arguments import checked
from diffusers_ext.converters.state_dicts import StateDict, has, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_adain import AdaINStyleNet


# The positions of convolutions among the layers of VGG, and of its four parts, which count from 0 again
ENCODER = {0: "conv_colors", 2: "stages.0.0.conv"}
ENCODER |= {5: "stages.1.0.conv", 9: "stages.1.1.conv", 12: "stages.2.0.conv", 16: "stages.2.1.conv"}
ENCODER |= {19: "stages.3.0.conv", 22: "stages.3.1.conv", 25: "stages.3.2.conv", 29: "stages.3.3.conv"}
PARTS = {1: range(4), 2: range(4, 11), 3: range(11, 18), 4: range(18, 31)}
DECODER = {1: "decoder.0.0.conv", 5: "decoder.1.0.conv", 8: "decoder.1.1.conv", 11: "decoder.1.2.conv"}
DECODER |= {14: "decoder.1.3.conv", 18: "decoder.2.0.conv", 21: "decoder.2.1.conv"}
DECODER |= {25: "decoder.3.0.conv", 28: "decoder.3.1.conv"}
# The convolutions whose outputs are relu1_1, relu2_1, relu3_1 and relu4_1
LAST = ("stages.0.0.conv", "stages.1.1.conv", "stages.2.1.conv", "stages.3.3.conv")


def convert_adain(state_dict: StateDict, **config) -> AdaINStyleNet:
    r"""
    The `Net` of https://github.com/naoto0804/pytorch-AdaIN: VGG-19 until relu4_1, and its decoder.

    Args:
        state_dict (`Mapping`):
            The tensors of the original: those of the decoder are `decoder.*`, and those of the encoder `enc_1.*` to
            `enc_4.*`, or `vgg.*` with the names of `vgg_normalised.pth`, whose layers after relu4_1 are left out.
        config:
            Must be empty, because the tensors show everything.

    Returns:
        [`AdaINStyleNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if there are arguments.
    """
    checked(config, {})
    if not has(state_dict, "decoder") or not (has(state_dict, "enc_1") or has(state_dict, "vgg")):
        raise ValueError(
            "This is not a Net of pytorch-AdaIN with `decoder` and `enc_1`: for a file of a decoder alone, give the "
            "file of VGG as `encoder_file`."
        )
    modules = {f"decoder.{position}": name for position, name in DECODER.items()}
    if has(state_dict, "vgg"):
        modules |= {f"vgg.{position}": name for position, name in ENCODER.items()}
        later = [key for key in state_dict if key.startswith("vgg.") and int(key.split(".")[1]) > max(ENCODER)]
        state_dict = {key: tensor for key, tensor in state_dict.items() if key not in later}
    else:
        for part, layers in PARTS.items():
            modules |= {
                f"enc_{part}.{position - layers[0]}": ENCODER[position] for position in layers if position in ENCODER
            }
    of = {name: source for source, name in modules.items()}
    widths = tuple(size_of(state_dict, {f"{of[name]}.{kind}": 0 for kind in ("weight", "bias")}) for name in LAST)
    return load_converted(AdaINStyleNet, {"block_out_channels": widths}, modules, state_dict)
