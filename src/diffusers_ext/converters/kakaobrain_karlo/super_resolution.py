"""The improved super-resolution of karlo: two UNet2DModels, of which the second makes the last step."""

from diffusers import UNet2DModel

from diffusers_ext.converters.adm_arguments import ADM_ARGUMENTS, check_against
from diffusers_ext.converters.adm_layout import read_adm_layout
from diffusers_ext.converters.adm_modules import decoder, encoder
from diffusers_ext.converters.adm_networks import block_config
from diffusers_ext.converters.original_arguments import boolean, check_image_size, checked, one_of
from diffusers_ext.converters.state_dicts import StateDict, check_parts, part, size_of
from diffusers_ext.converters.weight_mapping import load_converted
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


KARLO_SUPER_RESOLUTION_ARGUMENTS = {
    **ADM_ARGUMENTS,
    "resblock_updown": boolean,
    "use_middle_attention": one_of(False),
}
NETWORKS = ("model_first_steps", "model_last_step")


def convert_karlo_super_resolution(state_dict: StateDict, **config) -> tuple[UNet2DModel, UNet2DModel]:
    r"""
    The improved super-resolution of https://github.com/kakaobrain/karlo.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's `SuperResUNetModel`. The tensors show all of them, except `image_size`.
            `in_channels` are those of an image, 3.

    Returns:
        `tuple`: the network of all steps but the last, and that of the last, which was tuned by adversarial and
        perceptual losses; each in eval mode and in float32. Their input is the noisy image and, after it, the small
        image, enlarged to the same size with bicubic interpolation.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict the
            tensors.
    """
    config = checked(config, KARLO_SUPER_RESOLUTION_ARGUMENTS)
    check_parts(state_dict, "a super-resolution of karlo", *NETWORKS)
    unknown = [key for key in state_dict if not key.startswith(tuple(f"{name}." for name in NETWORKS))]
    if unknown:
        raise ValueError(f"The tensor {unknown[0]} is none of {' or '.join(NETWORKS)}.")
    first, last = (_convert(part(state_dict, f"{name}."), config) for name in NETWORKS)
    return first, last


def karlo_super_resolution_scheduler() -> ExactDDPMScheduler:
    """The sampler of the original: ancestral, with the posterior's variance."""
    return ExactDDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="fixed_small",
        prediction_type="epsilon",
        timestep_spacing="linspace",
    )


def _convert(tensors: StateDict, config: dict) -> UNet2DModel:
    layout = read_adm_layout(tensors)
    if layout.attention_widths():
        raise ValueError("This network has attention, which karlo's super-resolution has not.")
    out_channels = size_of(tensors, {"out.2.weight": 0, "out.2.bias": 0})
    check_against(layout, config, {}, in_channels=layout.in_channels // 2, out_channels=out_channels)
    check_image_size(config.get("image_size"), len(layout.widths))
    up_block = "ResnetUpsampleBlock2D" if layout.resblock_updown else "UpBlock2D"
    return load_converted(
        UNet2DModel,
        {
            "sample_size": config.get("image_size"),
            "in_channels": layout.in_channels,
            "out_channels": out_channels,
            "dropout": config.get("dropout", 0.0),
            **block_config(layout),
            "up_block_types": (up_block,) * len(layout.widths),
            "upsample_type": "resnet" if layout.resblock_updown else "conv",
            "add_attention": False,
        },
        encoder(layout) | decoder(layout),
        tensors,
    )
