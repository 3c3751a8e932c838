"""The residual network of IGEBM."""

from diffusers_ext.converters.original_arguments import check_agreement, checked, class_count, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, has, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_energy_resnet import EnergyResNet


IMAGE_SIZE = 32  # of CIFAR-10, which the original trains on
IGEBM_ARGUMENTS = {"image_size": positive_integer, "n_class": class_count}


def convert_igebm(state_dict: StateDict, **config) -> EnergyResNet:
    r"""
    The `IGEBM` of https://github.com/rosinality/igebm-pytorch.

    Its images are in `[0, 1]`, and those of the converted network in `[-1, 1]`.

    Args:
        state_dict (`Mapping`):
            The tensors of the original. Of each convolution it has the weight, the vector `weight_u`, and the
            normalized weight of the last forward, which is left out.
        config:
            `image_size`, which pipelines make, is 32 by default. The tensors show the original's `n_class`, which must
            agree with them if it is given.

    Returns:
        [`EnergyResNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, IGEBM_ARGUMENTS)
    check_parts(state_dict, "an IGEBM of rosinality/igebm-pytorch", "conv1", "blocks.0", "linear")
    state_dict = {key: t for key, t in state_dict.items() if f"{key}_orig" not in state_dict}
    blocks = range(count_blocks(state_dict, "blocks"))
    features = [size_of(state_dict, {f"conv1.{name}": 0 for name in ("weight_orig", "weight_u", "bias")})]
    for index in blocks:
        names = [
            f"blocks.{index}.{conv}.{name}" for conv in ("conv1", "conv2") for name in ("weight_orig", "weight_u")
        ]
        features.append(size_of(state_dict, dict.fromkeys(names, 0)))
    classes = None
    if has(state_dict, "blocks.0.class_embed"):
        classes = size_of(state_dict, {f"blocks.{index}.class_embed.weight": 0 for index in blocks})
    check_agreement(config, config, {"n_class": classes})

    convs, modules = {"conv1": "conv_in"}, {"linear": "proj_out"}
    for index in blocks:
        name = f"blocks.{index}"
        convs |= {f"{name}.{conv}": f"{name}.{conv}" for conv in ("conv1", "conv2")}
        convs[f"{name}.skip.0"] = f"{name}.shortcut"
        modules[f"{name}.class_embed"] = f"{name}.class_embedding"
    for source, target in convs.items():
        modules |= {
            f"{source}.weight_orig": f"{target}.weight",
            f"{source}.weight_u": f"{target}.u",
            f"{source}.bias": f"{target}.bias",
        }
    net_config = {
        "sample_size": config.get("image_size", IMAGE_SIZE),
        "in_channels": size_of(state_dict, {"conv1.weight_orig": 1}),
        "hidden_channels": tuple(features),
        "num_classes": classes,
    }
    return load_converted(EnergyResNet, net_config, modules, state_dict)
