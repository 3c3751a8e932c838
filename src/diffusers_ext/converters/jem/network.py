"""The wide residual network of JEM, as a classifier or with a single energy."""

from diffusers_ext.converters.original_arguments import boolean, check_agreement, checked, one_of, positive_integer
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.models.modeling_energy_wide_resnet import EnergyWideResNet


IMAGE_SIZE = 32  # of CIFAR, SVHN: the original pools over 8 x 8 pixels
NORMS = {None: None, "batch": "batch", "instance": "instance", "layer": "layer", "act": "affine"}
JEM_ARGUMENTS = {
    "image_size": positive_integer,
    "depth": positive_integer,
    "width": positive_integer,
    "n_classes": positive_integer,
    "norm": one_of(*NORMS),
    "uncond": boolean,
}


def convert_jem(state_dict: StateDict, **config) -> EnergyWideResNet:
    r"""
    The `CCF` of https://github.com/wgrathwohl/JEM, whose logits are minus the energies of classes, or its `F`.

    The originals have further layers that they don't use, which are left out.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            `image_size`, which pipelines make, is 32 by default; `uncond` says that it is an `F`, of one energy.
            `norm` has to be `"instance"` for that normalization, which has the tensors of `"layer"`. The tensors show
            the original's `depth`, `width` and `n_classes`, which must agree with them if they are given.

    Returns:
        [`EnergyWideResNet`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, JEM_ARGUMENTS)
    check_parts(state_dict, "a network of wgrathwohl/JEM", "f.conv1", "f.layer1.0", "f.layer3.0", "class_output")
    blocks = count_blocks(state_dict, "f.layer1")
    read = {
        "depth": 6 * blocks + 4,
        "width": size_of(state_dict, {"f.layer1.0.conv1.weight": 0, "f.layer1.0.conv1.bias": 0}) // 16,
        "n_classes": size_of(state_dict, {"class_output.weight": 0, "class_output.bias": 0}),
    }
    check_agreement(config, config, read)
    has_one_energy = config.get("uncond", False)
    used, unused = ("energy_output", "class_output") if has_one_energy else ("class_output", "energy_output")
    state_dict = {k: t for k, t in state_dict.items() if not k.startswith((f"{unused}.", "f.linear."))}
    state_dict = {k: t for k, t in state_dict.items() if not k.endswith(".initialized")}

    modules = {"f.conv1": "conv_in", "f.bn1": "norm_out", used: "proj_out"}
    for stage in range(3):
        for index in range(blocks):
            source, target = f"f.layer{stage + 1}.{index}", f"stages.{stage}.{index}"
            modules |= {
                f"{source}.bn1": f"{target}.norm1",
                f"{source}.bn2": f"{target}.norm2",
                f"{source}.conv1": f"{target}.conv1",
                f"{source}.conv2": f"{target}.conv2",
                f"{source}.shortcut.0": f"{target}.shortcut",
            }
    norms = {source: target for source, target in modules.items() if source.endswith((".bn1", ".bn2"))}
    modules |= {f"{source}.loc": f"{target}.shift" for source, target in norms.items()}
    modules |= {f"{source}.scale": f"{target}.scale" for source, target in norms.items()}
    net_config = {
        "sample_size": config.get("image_size", IMAGE_SIZE),
        "in_channels": size_of(state_dict, {"f.conv1.weight": 1}),
        "depth": read["depth"],
        "width": read["width"],
        "normalization": NORMS[config.get("norm", _shown_norm(state_dict))],
        "num_classes": None if has_one_energy else read["n_classes"],
    }
    return load_converted(EnergyWideResNet, net_config, modules, state_dict)


def _shown_norm(state_dict: StateDict) -> str | None:
    """The normalization by the tensors of the last one."""
    shown = {"f.bn1.loc": "act", "f.bn1.running_mean": "batch", "f.bn1.weight": "layer"}
    return next((norm for name, norm in shown.items() if name in state_dict), None)
