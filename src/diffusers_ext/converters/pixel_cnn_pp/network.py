"""The network of PixelCNN++, with three scales."""

import torch

from diffusers_ext.converters.original_arguments import check_agreement, checked, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_pixelcnn_pp import PixelCNNPlusPlus


IMAGE_SIZE = 32  # of CIFAR-10, which the original trains on
NUM_SCALES = 3
PIXEL_CNN_PP_ARGUMENTS = dict.fromkeys(
    ("image_size", "nr_resnet", "nr_filters", "nr_logistic_mix", "input_channels"), positive_integer
)
STREAMS = {"u_stream": "upper", "ul_stream": "left"}


def convert_pixel_cnn_pp(state_dict: StateDict, **config) -> PixelCNNPlusPlus:
    r"""
    The `PixelCNN` of https://github.com/pclucas14/pixel-cnn-pp, a PyTorch version of OpenAI's PixelCNN++.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            `image_size`, which pipelines make, is 32 by default. The tensors show the original's `nr_resnet`,
            `nr_filters`, `nr_logistic_mix` and `input_channels`, which must agree with them if they are given.

    Returns:
        [`PixelCNNPlusPlus`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, PIXEL_CNN_PP_ARGUMENTS)
    check_parts(state_dict, "a PixelCNN++ of pclucas14/pixel-cnn-pp", "u_init", "ul_init", "up_layers", "nin_out")
    channels = size_of(state_dict, {f"{name}.conv.weight_v": 1 for name in ("u_init", "ul_init.0", "ul_init.1")}) - 1
    parameters = size_of(state_dict, {f"nin_out.lin_a.{name}": 0 for name in ("weight_g", "weight_v", "bias")})
    read = {
        "input_channels": channels,
        "nr_filters": size_of(
            state_dict, {"u_init.conv.weight_v": 0, "u_init.conv.bias": 0, "ul_init.0.conv.bias": 0}
        ),
        "nr_resnet": count_blocks(state_dict, "up_layers.0.u_stream"),
        "nr_logistic_mix": parameters // (3 if channels == 1 else 10),
    }
    check_agreement(config, config, read)
    layers = _layers(read["nr_resnet"])
    modules = {f"{source}.bias": f"{target}.bias" for source, target in layers.items()}
    for part, original in (("weight_g", "original0"), ("weight_v", "original1")):
        modules |= {f"{s}.{part}": f"{t}.parametrizations.weight.{original}" for s, t in layers.items()}
    net_config = {
        "sample_size": config.get("image_size", IMAGE_SIZE),
        "in_channels": channels,
        "hidden_channels": read["nr_filters"],
        "num_resnets": read["nr_resnet"],
        "num_mixtures": read["nr_logistic_mix"],
        "num_scales": NUM_SCALES,
    }
    # The original has matrices where the network has convolutions of size 1.
    with torch.device("meta"):
        expected = PixelCNNPlusPlus(**net_config).state_dict()
    matrices = {
        source: tuple(expected[target].shape[:2])
        for source, target in modules.items()
        if ".lin_a.weight" in source and target in expected
    }

    def prepare(key: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:, :, None, None] if key in matrices else tensor

    return load_converted(PixelCNNPlusPlus, net_config, modules, state_dict, prepare, matrices)


def _layers(num_resnets: int) -> dict[str, str]:
    """The counterpart of each layer with normalized weights."""
    layers = {
        "u_init.conv": "upper_in",
        "ul_init.0.conv": "left_in_above",
        "ul_init.1.conv": "left_in_before",
        "nin_out.lin_a": "proj_out",
    }
    last = NUM_SCALES - 1
    for source, target in STREAMS.items():
        for scale in range(NUM_SCALES):
            blocks = {f"up_layers.{scale}.{source}": f"scales.{scale}.{target}_down"}
            blocks[f"down_layers.{last - scale}.{source}"] = f"scales.{scale}.{target}_up"
            for before, after in blocks.items():
                for index in range(num_resnets + 1):
                    layers |= {
                        f"{before}.{index}.conv_input.conv": f"{after}.{index}.conv_in",
                        f"{before}.{index}.conv_out.conv": f"{after}.{index}.conv_out",
                        f"{before}.{index}.nin_skip.lin_a": f"{after}.{index}.proj_skip",
                    }
        for scale in range(last):
            layers[f"downsize_{source}.{scale}.conv"] = f"scales.{scale}.{target}_downsample"
            layers[f"upsize_{source}.{last - 1 - scale}.deconv"] = f"scales.{scale}.{target}_upsample"
    return layers
