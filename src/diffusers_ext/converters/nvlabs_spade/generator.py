"""The generator of SPADE."""

from diffusers_ext.converters.nvlabs_spade.spectral_convs import has_spectral_norm, spectral_conv
from diffusers_ext.converters.original_arguments import boolean, checked, one_of, positive_integer, positive_number
from diffusers_ext.converters.state_dicts import StateDict, check_parts, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models.modeling_spade import SPADEGenerator


UPSAMPLINGS = {"normal": 5, "more": 6, "most": 7}
GENERATOR_DEFAULTS = {"crop_size": 256, "aspect_ratio": 1.0, "num_upsampling_layers": "normal", "no_instance": False}
GENERATOR_ARGUMENTS = {
    "crop_size": positive_integer,
    "aspect_ratio": positive_number,
    "num_upsampling_layers": one_of(*UPSAMPLINGS),
    "no_instance": boolean,
}
NORMS = {"norm_0": "norm1", "norm_1": "norm2", "norm_s": "norm_shortcut"}
CONVS = {"conv_0": "conv1", "conv_1": "conv2", "conv_s": "conv_shortcut"}
SPADE = {
    "param_free_norm": "norm",
    "mlp_shared.0": "conv_shared",
    "mlp_gamma": "conv_scale",
    "mlp_beta": "conv_shift",
}


def convert_spade_generator(state_dict: StateDict, **config) -> SPADEGenerator:
    r"""
    A `SPADEGenerator` of https://github.com/NVlabs/SPADE.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Options of the original that no tensor shows: `crop_size` (256), the width of the images; `aspect_ratio`
            (1.0), their width by their height; `num_upsampling_layers` (`"normal"`, `"more"`, `"most"`); and
            `no_instance` (`False`), whether the label maps have no channel of instance edges.

    Returns:
        [`SPADEGenerator`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, GENERATOR_ARGUMENTS)
    check_parts(state_dict, "a generator of SPADE", "fc", "head_0", "G_middle_0", "up_3")
    is_most = has(state_dict, "up_4")
    upsamplings = config.get("num_upsampling_layers", "most" if is_most else "normal")
    if is_most != (upsamplings == "most"):
        raise ValueError(
            f"`num_upsampling_layers` is given as {upsamplings}, but the checkpoint has "
            f"{'a fifth' if is_most else 'no fifth'} up block."
        )
    options = {**GENERATOR_DEFAULTS, **config}
    stride = 2 ** UPSAMPLINGS[upsamplings]
    width = options["crop_size"] // stride
    height = round(width / options["aspect_ratio"])
    shared = "head_0.norm_0.mlp_shared.0.weight"
    is_latent = "fc.weight" in state_dict and state_dict["fc.weight"].ndim == 2
    modules: Modules = {"fc": "linear_in" if is_latent else "conv_in", "conv_img": "conv_out"}
    blocks = {"head_0": "head_block", "G_middle_0": "middle_blocks.0", "G_middle_1": "middle_blocks.1"}
    blocks |= {f"up_{index}": f"up_blocks.{index}" for index in range(4 + is_most)}
    for block, target in blocks.items():
        for conv, name in CONVS.items():
            modules |= spectral_conv(f"{block}.{conv}", f"{target}.{name}")
        for norm, name in NORMS.items():
            modules |= {f"{block}.{norm}.{layer}": f"{target}.{name}.{own}" for layer, own in SPADE.items()}
    return load_converted(
        SPADEGenerator,
        {
            "sample_size": (height * stride, width * stride),
            "num_labels": size_of(state_dict, {shared: 1}) - (not options["no_instance"]),
            "instance_edges": not options["no_instance"],
            "out_channels": size_of(state_dict, {"conv_img.weight": 0, "conv_img.bias": 0}),
            "base_channels": size_of(state_dict, {"up_3.conv_1.bias": 0, "up_3.norm_1.mlp_beta.bias": 0}),
            "num_upsamplings": UPSAMPLINGS[upsamplings],
            "latent_dim": size_of(state_dict, {"fc.weight": 1}) if is_latent else None,
            "normalization": "batch" if any(key.endswith("running_mean") for key in state_dict) else "instance",
            "modulation_channels": size_of(state_dict, {shared: 0}),
            "modulation_kernel_size": size_of(state_dict, {shared: 2}),
            "spectral_norm": has_spectral_norm(state_dict),
        },
        modules,
        state_dict,
    )
