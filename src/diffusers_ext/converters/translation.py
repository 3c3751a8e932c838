"""The networks of pytorch-CycleGAN-and-pix2pix, in all the layouts that its checkpoints have had.

With instance norm the originals give a bias to every convolution, and the normalization takes it away again: ours have
none there. Without it they give none even to convolutions that no normalization follows: ours have a zero there.
"""

import re
from collections.abc import Mapping

import torch

from diffusers_ext.converters.arguments import check_agreement, checked
from diffusers_ext.converters.layout import StateDict, has, size_of
from diffusers_ext.converters.reading import read_state_dict
from diffusers_ext.converters.weights import Modules, load_converted
from diffusers_ext.models.modeling_patch_discriminator import PatchDiscriminator
from diffusers_ext.models.modeling_resnet_generator import ResnetGenerator
from diffusers_ext.models.modeling_unet_generator import UNetGenerator
from diffusers_ext.pipelines import ImageTranslationPipeline


# pix2pix trains with dropout unless told otherwise, CycleGAN without.
DROPOUT = 0.5
PADDING_MODES = {"reflect": "reflect", "replicate": "replicate", "zero": "zeros"}
GENERATOR_ARGUMENTS = ("input_nc", "output_nc", "ngf", "norm", "use_dropout")
SWAPPED = {"input_nc": "output_nc", "output_nc": "input_nc"}  # from one direction to the other
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def pix2pix(state_dict: StateDict, options: dict) -> tuple[dict, list[str]]:
    """An [`ImageTranslationPipeline`] around a generator, or a [`PatchDiscriminator`]; and what was assumed."""
    return _components(state_dict, options, use_dropout=True)


def cyclegan(state_dict: StateDict, options: dict) -> tuple[dict, list[str]]:
    """The same for CycleGAN, which trains without dropout."""
    return _components(state_dict, options, use_dropout=False)


def _components(state_dict: StateDict, options: dict, use_dropout: bool) -> tuple[dict, list[str]]:
    options, assumed = dict(options), []
    reverse_file = options.pop("reverse_file", None)
    if has(state_dict, "model.model") and "use_dropout" not in options:
        options["use_dropout"] = use_dropout
        assumed.append(f"use_dropout={use_dropout}")
    network = convert_translation_network(state_dict, **options)
    if isinstance(network, PatchDiscriminator):
        if reverse_file is not None:
            raise ValueError("`reverse_file` is for generators, and the checkpoint is a discriminator.")
        return {"": network}, assumed
    if isinstance(network, ResnetGenerator) and network.config.padding_mode == "reflect":
        assumed += [] if "padding_type" in options else ["padding_type=reflect"]
    if reverse_file is None:
        return {"": ImageTranslationPipeline(network)}, assumed
    options |= {name: options[other] for name, other in SWAPPED.items() if other in options}
    reverse = convert_translation_network(read_state_dict(str(reverse_file)), **options)
    if isinstance(reverse, PatchDiscriminator):
        raise ValueError(f"`reverse_file` must be a generator, but {reverse_file} is a discriminator.")
    return {"": ImageTranslationPipeline(network, reverse)}, assumed


def convert_translation_network(
    state_dict: Mapping[str, torch.Tensor], **config
) -> UNetGenerator | ResnetGenerator | PatchDiscriminator:
    """A generator or discriminator of pix2pix or CycleGAN; the names of the tensors tell which it is.

    See [`convert_unet_generator`], [`convert_resnet_generator`] and [`convert_patch_discriminator`].

    Raises:
        ValueError: if it is none of these, or if arguments or tensors do not fit.
    """
    if has(state_dict, "model.model"):
        return convert_unet_generator(state_dict, **config)
    if any(".conv_block." in key for key in state_dict):
        return convert_resnet_generator(state_dict, **config)
    # The discriminator's layers lie three apart from 2 on, a generator's from 1 on.
    if has(state_dict, "net.0") or has(state_dict, "model.0") and has(state_dict, "model.2"):
        return convert_patch_discriminator(state_dict, **config)
    raise ValueError(
        "This is no network of pix2pix or CycleGAN, for it has neither `model.model.0`, as their U-Nets, nor "
        "`model.*.conv_block`, as their residual networks, nor `model.0` or `net.0`, as their discriminators."
    )


def convert_unet_generator(state_dict: Mapping[str, torch.Tensor], **config) -> UNetGenerator:
    r"""
    A `UnetGenerator` of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. No tensor shows `use_dropout`, which matters for training and
            wherever dropout is the noise: `True` by default, as pix2pix is trained. What the tensors show
            (`input_nc`, `output_nc`, `num_downs`, `ngf`, `norm`) need not be given, and must agree with them if it is.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown or at odds with
            the tensors.
    """
    config = checked(config, (*GENERATOR_ARGUMENTS, "num_downs"))
    levels = ["model.model"]  # the innermost level last
    levels += ["model.model.1.model"] if has(state_dict, "model.model.1.model") else []
    while has(state_dict, f"{levels[-1]}.3.model"):
        levels.append(f"{levels[-1]}.3.model")
    count, last = len(levels), len(levels) - 1
    downs = [f"{level}.{0 if position == 0 else 1}" for position, level in enumerate(levels)]
    ups = [f"{level}.{3 if position in (0, last) else 5}" for position, level in enumerate(levels)]

    convs = {downs[0]: "conv_in", ups[0]: "conv_out"}
    norms = {}
    for level in range(1, count):
        convs[downs[level]] = f"down_layers.{level - 1}.conv"
        convs[ups[level]] = f"up_layers.{last - level}.conv"
        norms[f"{levels[level]}.{4 if level == last else 6}"] = f"up_layers.{last - level}.norm"
        if level < last:
            norms[f"{levels[level]}.2"] = f"down_layers.{level - 1}.norm"
    normalization = _read_normalization(state_dict, convs, (ups[0],), norms)
    widths = tuple(size_of(state_dict, {f"{down}.weight": 0}) for down in downs)
    channels = {
        "in_channels": size_of(state_dict, {f"{downs[0]}.weight": 1}),
        "out_channels": size_of(state_dict, {f"{ups[0]}.weight": 1, f"{ups[0]}.bias": 0}),
    }
    _check_config(config, normalization, channels, ngf=widths[0], num_downs=count)
    return _load(
        UNetGenerator,
        {
            **channels,
            "block_out_channels": widths,
            "normalization": normalization,
            "dropout": DROPOUT if config.get("use_dropout", True) else 0.0,
            # those of eight times `ngf` channels, the innermost one excepted
            "num_dropout_layers": max(count - 5, 0),
        },
        convs,
        (ups[0],),
        norms,
        state_dict,
    )


def convert_resnet_generator(state_dict: Mapping[str, torch.Tensor], **config) -> ResnetGenerator:
    r"""
    A `ResnetGenerator` of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor. Where blocks are padded, `padding_type` is `"reflect"` by default
            and may be `"replicate"`, which no tensor shows. What the tensors show (`input_nc`, `output_nc`, `ngf`,
            `n_blocks`, `norm`, `use_dropout`) need not be given, and must agree with them if it is.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown or at odds with
            the tensors.
    """
    config = checked(config, (*GENERATOR_ARGUMENTS, "n_blocks", "padding_type"))
    if any(key.endswith(".filt") for key in state_dict):
        raise ValueError(
            "This is the generator of CUT with filters against aliasing, which is not converted: only those of "
            "`no_antialias` and `no_antialias_up` have the layout of CycleGAN."
        )
    blocks = sorted({int(match[1]) for key in state_dict if (match := re.match(r"model\.(\d+)\.conv_block\.", key))})
    if not blocks:
        raise ValueError("This is no residual network of CycleGAN, for it has no `model.*.conv_block`.")
    num_downsamplings, num_blocks = (blocks[0] - 4) // 3, len(blocks)
    is_padded, has_dropout, positions = _read_block(state_dict, f"model.{blocks[0]}.conv_block")

    end = blocks[0] + num_blocks
    convs, norms = {"model.1": "layer_in.conv"}, {"model.2": "layer_in.norm"}
    for index in range(num_downsamplings):
        convs |= {f"model.{4 + 3 * index}": f"down_layers.{index}.conv"}
        norms |= {f"model.{5 + 3 * index}": f"down_layers.{index}.norm"}
        convs |= {f"model.{end + 3 * index}": f"up_layers.{index}.conv"}
        norms |= {f"model.{end + 3 * index + 1}": f"up_layers.{index}.norm"}
    for index in range(num_blocks):
        source, target = f"model.{blocks[0] + index}.conv_block", f"blocks.{index}"
        for layer, position in enumerate(positions, 1):
            convs[f"{source}.{position}"] = f"{target}.layer{layer}.conv"
            norms[f"{source}.{position + 1}"] = f"{target}.layer{layer}.norm"
    conv_out = f"model.{end + 3 * num_downsamplings + 1}"
    convs[conv_out] = "conv_out"
    normalization = _read_normalization(state_dict, convs, (conv_out,), norms)
    channels = {
        "in_channels": size_of(state_dict, {"model.1.weight": 1}),
        "out_channels": size_of(state_dict, {f"{conv_out}.weight": 0, f"{conv_out}.bias": 0}),
    }
    width = size_of(state_dict, {"model.1.weight": 0})
    padding_type = config.get("padding_type", "reflect" if is_padded else "zero")
    if padding_type not in PADDING_MODES or is_padded == (padding_type == "zero"):
        possible = "'reflect' or 'replicate'" if is_padded else "'zero'"
        raise ValueError(f"`padding_type` must be {possible} for this checkpoint, but is {padding_type!r}.")
    _check_config(config, normalization, channels, ngf=width, n_blocks=num_blocks, use_dropout=has_dropout)
    return _load(
        ResnetGenerator,
        {
            **channels,
            "base_channels": width,
            "num_downsamplings": num_downsamplings,
            "num_blocks": num_blocks,
            "normalization": normalization,
            "padding_mode": PADDING_MODES[padding_type],
            "dropout": DROPOUT if has_dropout else 0.0,
        },
        convs,
        (conv_out,),
        norms,
        state_dict,
    )


def convert_patch_discriminator(state_dict: Mapping[str, torch.Tensor], **config) -> PatchDiscriminator:
    r"""
    An `NLayerDiscriminator` or `PixelDiscriminator` of https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix.

    Of a conditional one, pix2pix's, the input channels are those of the condition and behind them those of the image.

    Args:
        state_dict (`Mapping`):
            The tensors of the original.
        config:
            Arguments of the original's constructor: `input_nc`, `ndf`, `n_layers`, `norm`. The tensors show them all,
            and they must agree if they are given.

    Raises:
        ValueError: if tensors are missing, unknown or of wrong shapes, or if arguments are unknown or at odds with
            the tensors.
    """
    config = checked(config, ("input_nc", "ndf", "n_layers", "norm"))
    is_pixel = has(state_dict, "net")
    root = "net" if is_pixel else "model"
    last = 2
    while has(state_dict, f"{root}.{last + 3}"):
        last += 3
    convs, norms = {f"{root}.0": "conv_in"}, {}
    for index, position in enumerate(range(2, last, 3)):
        convs[f"{root}.{position}"] = f"blocks.{index}.conv"
        norms[f"{root}.{position + 1}"] = f"blocks.{index}.norm"
    convs[f"{root}.{last}"] = "conv_out"
    biased = ("net.0",) if is_pixel else ("model.0", f"model.{last}")
    normalization = _read_normalization(state_dict, convs, biased, norms)
    num_layers = 0 if is_pixel else len(norms)
    channels, width = (size_of(state_dict, {f"{root}.0.weight": dimension}) for dimension in (1, 0))
    _check_config(config, normalization, {"in_channels": channels}, ndf=width, n_layers=num_layers)
    return _load(
        PatchDiscriminator,
        {
            "in_channels": channels,
            "base_channels": width,
            "num_layers": num_layers,
            "normalization": normalization,
        },
        convs,
        biased,
        norms,
        state_dict,
    )


def _read_block(state_dict: StateDict, block: str) -> tuple[bool, bool, tuple[int, int]]:
    """Whether a residual block has layers of padding, and one of dropout; and where its two convolutions are."""

    def is_conv(position: int) -> bool:
        weight = state_dict.get(f"{block}.{position}.weight")
        return weight is not None and weight.ndim == 4

    layouts = {(1, 5): (True, False), (1, 6): (True, True), (0, 3): (False, False), (0, 4): (False, True)}
    for positions, (is_padded, has_dropout) in layouts.items():
        if all(map(is_conv, positions)):
            return is_padded, has_dropout, positions
    raise ValueError(
        f"{block} is no residual block of CycleGAN, for its two convolutions are not where they should be."
    )


def _read_normalization(state_dict: StateDict, convs: Modules, biased: tuple[str, ...], norms: Modules) -> str:
    """Batch norm has parameters; with instance norm all of `convs` have biases, otherwise only those `biased`."""
    if any(f"{norm}.weight" in state_dict for norm in norms):
        return "batch"
    return "instance" if any(f"{conv}.bias" in state_dict for conv in convs if conv not in biased) else "none"


def _check_config(config: Mapping, normalization: str, channels: dict, **read) -> None:
    if "norm" in config and config["norm"] not in ("batch", "instance", "none"):
        raise ValueError(f"`norm` must be 'batch', 'instance' or 'none', but is {config['norm']!r}.")
    read |= {"norm": normalization, "input_nc": channels["in_channels"]}
    if "out_channels" in channels:
        read["output_nc"] = channels["out_channels"]
    check_agreement(config, config, read)


def _load(
    model_class: type, config: dict, convs: Modules, biased: tuple[str, ...], norms: Modules, state_dict: StateDict
):
    """The network, after what the originals have more than ours or less was evened out."""
    with torch.device("meta"):
        expected = model_class(**config).state_dict()
    tensors = dict(state_dict)
    for source, target in convs.items():
        if config["normalization"] == "instance" and f"{target}.bias" not in expected:
            tensors.pop(f"{source}.bias", None)
        elif config["normalization"] != "instance" and f"{target}.bias" in expected and source not in biased:
            tensors.setdefault(f"{source}.bias", torch.zeros(expected[f"{target}.bias"].shape))
    if config["normalization"] == "instance":
        # statistics that PyTorch before 0.4 kept, and nothing used
        for source in norms:
            for buffer in BUFFERS:
                tensors.pop(f"{source}.{buffer}", None)
    return load_converted(model_class, config, {**convs, **norms}, tensors)
