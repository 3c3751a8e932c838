"""The first stages of latent-diffusion (taming-transformers' autoencoders), as autoencoders of diffusers."""

from collections.abc import Mapping

from diffusers import AutoencoderKL, VQModel

from diffusers_ext.converters.original_arguments import (
    boolean,
    check_agreement,
    checked,
    numbers,
    one_of,
    positive_integer,
    positive_number,
    probability,
)
from diffusers_ext.converters.state_dicts import StateDict, check_parts, count_blocks, has, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted


VQGAN_ARGUMENTS = {
    "n_embed": positive_integer,
    "embed_dim": positive_integer,
    "double_z": boolean,
    "z_channels": positive_integer,
    "resolution": positive_integer,
    "in_channels": positive_integer,
    "out_ch": positive_integer,
    "ch": positive_integer,
    "ch_mult": numbers,
    "num_res_blocks": positive_integer,
    "attn_resolutions": numbers,
    "dropout": probability,
}
FIRST_STAGE_ARGUMENTS = {
    **VQGAN_ARGUMENTS,
    "attn_type": one_of("vanilla", "none"),
    "scale_factor": positive_number,
}
RESOLUTION = 256  # of all published networks: no tensor shows it


def convert_vqgan(state_dict: StateDict, **config) -> VQModel:
    r"""
    A VQGAN of https://github.com/CompVis/taming-transformers (Esser et al. 2021,
    https://huggingface.co/papers/2012.09841): its first stage, without discriminator.

    Args:
        state_dict (`Mapping`):
            The tensors of the original; those of its training loss (`loss.*`) are ignored.
        config:
            Arguments of the original's network: `n_embed`, `embed_dim` and its whole `ddconfig`. No tensor shows
            `resolution`, the size of the images that the network was trained on. It is 256 by default; the network
            takes other sizes too. What the tensors show need not be given, and must agree with them if it is.

    Returns:
        `VQModel`: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, VQGAN_ARGUMENTS)
    if has(state_dict, "quantize.embed") or has(state_dict, "quantize.proj"):
        raise ValueError("This is a VQGAN with Gumbel softmax, but only those with a codebook are converted.")
    check_parts(state_dict, "a VQGAN", "quantize")
    model = convert_first_stage(state_dict, sample_size=config.get("resolution", RESOLUTION))
    _check_arguments(model, config)
    return model


def convert_latent_diffusion_first_stage(state_dict: StateDict, **config) -> VQModel | AutoencoderKL:
    r"""
    A first stage of https://github.com/CompVis/latent-diffusion (Rombach et al. 2022,
    https://huggingface.co/papers/2112.10752): an autoencoder with a codebook or with a KL penalty, without
    discriminator.

    Args:
        state_dict (`Mapping`):
            The tensors of the original; those of its training loss (`loss.*`) are ignored.
        config:
            Arguments of the original's network: the arguments of [`convert_vqgan`], `attn_type`, and the diffusion
            model's `scale_factor`, by which it multiplies the latents (by default 1). What the
            tensors show need not be given, and must agree with them if it is.

    Returns:
        [`VQModel`] if there is a codebook, otherwise [`AutoencoderKL`]: in eval mode, in float32. A `VQModel` encodes
        to latents that are not quantized, and quantizes when it decodes, as a latent diffusion model needs it.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes, or if arguments are unknown or contradict
            the tensors.
    """
    config = checked(config, FIRST_STAGE_ARGUMENTS)
    scaling_factor = config.pop("scale_factor", 1.0)
    model = convert_first_stage(state_dict, scaling_factor, config.get("resolution", RESOLUTION))
    _check_arguments(model, config)
    return model


def _check_arguments(model: VQModel | AutoencoderKL, config: Mapping) -> None:
    """Refuses an argument that contradicts the network, which has the architecture that the tensors show."""
    widths = model.config.block_out_channels
    runs = [block.startswith("Attn") for block in model.config.down_block_types]
    read = {
        "n_embed": model.config.get("num_vq_embeddings"),
        "embed_dim": model.config.get("vq_embed_dim", model.config.latent_channels),
        "double_z": isinstance(model, AutoencoderKL),
        "z_channels": model.config.latent_channels,
        "in_channels": model.config.in_channels,
        "out_ch": model.config.out_channels,
        "num_res_blocks": model.config.layers_per_block,
        "attn_type": "vanilla" if model.config.mid_block_add_attention else "none",
    }
    given = dict(config)
    if "ch" in config:
        read["ch_mult"] = [width / config["ch"] for width in widths]
    if "attn_resolutions" in config:
        sizes = [model.config.sample_size // 2**level for level in range(len(widths))]
        given["attn_resolutions"] = [size for size in sizes if size in config["attn_resolutions"]]
        read["attn_resolutions"] = [size for size, attention in zip(sizes, runs, strict=True) if attention]
    check_agreement(config, given, read)


def convert_first_stage(
    state_dict: StateDict, scaling_factor: float = 1.0, sample_size: int = 256
) -> VQModel | AutoencoderKL:
    r"""
    A `VQModel` or `AutoencoderKL` of https://github.com/CompVis/latent-diffusion (Rombach et al. 2022,
    https://huggingface.co/papers/2112.10752).

    Args:
        state_dict (`Mapping`): the tensors of the original; those of its training loss (`loss.*`) are ignored.
        scaling_factor (`float`): the original's `scale_factor`, which multiplies the latents before the diffusion.
        sample_size (`int`): height and width of the images.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes.
    """
    state_dict = {key: tensor for key, tensor in state_dict.items() if not key.startswith("loss.")}
    levels = count_blocks(state_dict, "encoder.down")
    if not levels or not has(state_dict, "decoder.up"):
        raise ValueError("This first stage is not an autoencoder of latent-diffusion: it lacks an encoder or decoder.")
    layers = count_blocks(state_dict, "encoder.down.0.block")
    is_quantized = has(state_dict, "quantize")
    config = {
        "in_channels": size_of(state_dict, {"encoder.conv_in.weight": 1}),
        "out_channels": size_of(state_dict, {"decoder.conv_out.weight": 0, "decoder.conv_out.bias": 0}),
        "latent_channels": size_of(state_dict, {"decoder.conv_in.weight": 1}),
        "block_out_channels": tuple(
            size_of(state_dict, {f"encoder.down.{level}.block.0.{name}": 0 for name in ("conv1.bias", "conv2.bias")})
            for level in range(levels)
        ),
        "layers_per_block": layers,
        "down_block_types": tuple(
            "AttnDownEncoderBlock2D" if has(state_dict, f"encoder.down.{level}.attn") else "DownEncoderBlock2D"
            for level in range(levels)
        ),
        "up_block_types": tuple(
            "AttnUpDecoderBlock2D" if has(state_dict, f"decoder.up.{level}.attn") else "UpDecoderBlock2D"
            for level in reversed(range(levels))
        ),
        "mid_block_add_attention": has(state_dict, "encoder.mid.attn_1"),
        "sample_size": sample_size,
        "scaling_factor": scaling_factor,
    }
    if not is_quantized:
        _check_latent_channels(state_dict)
    else:
        config["num_vq_embeddings"] = size_of(state_dict, {"quantize.embedding.weight": 0})
        config["vq_embed_dim"] = size_of(state_dict, {"quantize.embedding.weight": 1})
    return load_converted(VQModel if is_quantized else AutoencoderKL, config, _modules(levels, layers), state_dict)


def _check_latent_channels(state_dict: StateDict) -> None:
    """Refuses what AutoencoderKL can't express, before shapes are compared."""
    z_channels = size_of(state_dict, {"decoder.conv_in.weight": 1})
    embed_dim = size_of(state_dict, {"post_quant_conv.weight": 1})
    if embed_dim != z_channels:
        raise ValueError(
            f"`embed_dim` is {embed_dim} and `z_channels` is {z_channels}, but AutoencoderKL has one number for both."
        )


def _modules(levels: int, layers: int) -> Modules:
    modules = {name: name for name in ("quant_conv", "post_quant_conv", "quantize.embedding")}
    for part in ("encoder", "decoder"):
        modules |= {f"{part}.conv_in": f"{part}.conv_in", f"{part}.conv_out": f"{part}.conv_out"}
        modules |= {f"{part}.norm_out": f"{part}.conv_norm_out"}
        modules |= _resnet(f"{part}.mid.block_1", f"{part}.mid_block.resnets.0")
        modules |= _attention(f"{part}.mid.attn_1", f"{part}.mid_block.attentions.0")
        modules |= _resnet(f"{part}.mid.block_2", f"{part}.mid_block.resnets.1")
    for level in range(levels):
        # The original numbers the levels from the largest images on, in the decoder too.
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{levels - 1 - level}"
        modules[f"encoder.down.{level}.downsample.conv"] = f"{down}.downsamplers.0.conv"
        modules[f"decoder.up.{level}.upsample.conv"] = f"{up}.upsamplers.0.conv"
        for layer in range(layers + 1):  # the decoder has one more
            modules |= _resnet(f"encoder.down.{level}.block.{layer}", f"{down}.resnets.{layer}")
            modules |= _attention(f"encoder.down.{level}.attn.{layer}", f"{down}.attentions.{layer}")
            modules |= _resnet(f"decoder.up.{level}.block.{layer}", f"{up}.resnets.{layer}")
            modules |= _attention(f"decoder.up.{level}.attn.{layer}", f"{up}.attentions.{layer}")
    return modules


def _resnet(source: str, target: str) -> Modules:
    names = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"nin_shortcut": "conv_shortcut"}
    return {f"{source}.{original}": f"{target}.{counterpart}" for original, counterpart in names.items()}


def _attention(source: str, target: str) -> Modules:
    names = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
    return {f"{source}.{original}": f"{target}.{counterpart}" for original, counterpart in names.items()}
