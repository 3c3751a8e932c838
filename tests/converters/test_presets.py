"""Each preset with a state dict of the published size: the numbers of parameters are the published ones."""

import math

import pytest
from diffusers import UNet2DModel, VQModel

from diffusers_ext.converters import (
    convert_guided_diffusion,
    convert_guided_diffusion_classifier,
    convert_improved_diffusion,
    convert_latent_diffusion,
    convert_palette,
    convert_sr3,
    convert_vqgan,
)
from diffusers_ext.converters.listing import families
from diffusers_ext.models.modeling_adm_unet import ADMUNet2DModel
from tests.converters.originals import (
    classifier_shapes,
    empty,
    first_stage_shapes,
    palette_shapes,
    sr3_shapes,
    unet_shapes,
)


PRESETS = {name: family.presets for name, family in families().items() if family.presets}
PROCESS = (
    "noise_schedule",
    "timesteps",
    "linear_start",
    "linear_end",
    "schedule",
    "n_timestep",
    "task",
    "l_resolution",
)


def janspiry_shapes(family: str, args: dict) -> dict:
    if family == "palette":
        return palette_shapes(args)
    return sr3_shapes(args, args["channel_multiplier"], args["which_model_G"])


def vqgan_shapes(args: dict) -> dict:
    names = ("ch_mult", "num_res_blocks", "z_channels", "embed_dim", "n_embed")
    levels = [args["resolution"] // 2**level in args["attn_resolutions"] for level in range(len(args["ch_mult"]))]
    return first_stage_shapes(args["ch"], *(args[name] for name in names), attention=levels)


def convert(family: str, name: str):
    args = {key: value for key, value in PRESETS[family][name].items() if key not in PROCESS}
    if family == "guided_diffusion_classifier":
        return convert_guided_diffusion_classifier(empty(classifier_shapes(args)), **args)
    if family == "vqgan":
        return convert_vqgan(empty(vqgan_shapes(args)), **args)
    if family in ("palette", "sr3"):
        convert_janspiry = {"palette": convert_palette, "sr3": convert_sr3}[family]
        return convert_janspiry(empty(janspiry_shapes(family, args)), **args)
    is_superres = "upsample" in name
    shapes = unet_shapes(args | {"in_channels": args["in_channels"] * (2 if is_superres else 1)})
    converters = {
        "guided_diffusion": convert_guided_diffusion,
        "improved_diffusion": convert_improved_diffusion,
        "latent_diffusion": convert_latent_diffusion,
    }
    return converters[family](empty(shapes), **args)


@pytest.mark.parametrize(
    "family, name, millions, model_class",
    [
        ("guided_diffusion", "64x64_diffusion", 295.9, UNet2DModel),
        ("guided_diffusion", "128x128_diffusion", 421.5, ADMUNet2DModel),
        ("guided_diffusion", "256x256_diffusion", 553.8, UNet2DModel),
        ("guided_diffusion", "512x512_diffusion", 559.0, ADMUNet2DModel),
        ("guided_diffusion", "64_256_upsampler", 311.8, ADMUNet2DModel),
        ("guided_diffusion", "128_512_upsampler", 308.8, ADMUNet2DModel),
        ("guided_diffusion_classifier", "64x64_classifier", 65.4, None),
        ("guided_diffusion_classifier", "128x128_classifier", 42.6, None),
        ("guided_diffusion_classifier", "256x256_classifier", 54.1, None),
        ("guided_diffusion_classifier", "512x512_classifier", 54.45, None),
        ("improved_diffusion", "imagenet64_cond_270M_250K", 270, ADMUNet2DModel),
        ("latent_diffusion", "ffhq256", 274.1, UNet2DModel),
        ("vqgan", "vqgan_imagenet_f16_1024", 72.142, VQModel),
        ("vqgan", "vqgan_imagenet_f16_16384", 76.074, VQModel),
    ],
)
def test_number_of_parameters(family, name, millions, model_class):
    network = convert(family, name)
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert parameters == pytest.approx(millions, abs=0.05 if isinstance(millions, float) else 5)
    if model_class is not None:
        assert type(network) is model_class


@pytest.mark.parametrize(
    "family, name, special",
    [
        ("guided_diffusion", "128x128_diffusion", {"num_attention_heads": 4}),
        ("guided_diffusion", "512x512_diffusion", {"time_projection_dim": 256}),
        ("guided_diffusion", "64_256_upsampler", {"num_attention_heads": 4, "low_res_channels": 3, "in_channels": 6}),
        ("guided_diffusion", "128_512_upsampler", {"num_attention_heads": None, "low_res_channels": 3}),
        ("improved_diffusion", "imagenet64_uncond_100M_1500K", {"num_attention_heads": 4, "timestep_scale": 0.25}),
        ("improved_diffusion", "imagenet64_cond_270M_250K", {"num_attention_heads": 4, "timestep_scale": 1.0}),
        ("improved_diffusion", "cifar10_uncond_50M_500K", {"attention_head_dim": 64, "timestep_scale": 0.25}),
        ("latent_diffusion", "lsun_churches256", {"num_attention_heads": 8}),
    ],
)
def test_what_stock_cannot_say(family, name, special):
    network = convert(family, name)
    assert type(network) is ADMUNet2DModel
    assert {key: network.config[key] for key in special} == special


@pytest.mark.parametrize("family, name", [(family, name) for family, names in PRESETS.items() for name in names])
def test_every_preset_builds(family, name):
    network = convert(family, name)
    preset = PRESETS[family][name]
    assert network.config.sample_size == preset.get("image_size", preset.get("resolution"))


@pytest.mark.parametrize("name", ["256x256_diffusion_uncond", "lsun_bedroom", "lsun_horse_nodropout"])
def test_stock_where_its_numbers_are_exact(name):
    network = convert("guided_diffusion", name)
    assert type(network) is UNet2DModel
    assert network.config.dropout == (0.1 if name == "lsun_bedroom" else 0.0)


def test_lsun_of_improved_diffusion_is_stock():
    network = convert("improved_diffusion", "lsun_uncond_100M_1200K_bs128")
    assert type(network) is UNet2DModel
    assert network.config.attention_head_dim == 512


@pytest.mark.parametrize(
    "family, name, millions",
    [
        ("palette", "inpainting_celebahq", 62.6),
        ("sr3", "sr_sr3_16_128", 97.8),
        ("sr3", "sr_sr3_64_512", 155.3),
        ("sr3", "sr_ddpm_16_128", 26.5),
    ],
)
def test_number_of_parameters_of_the_original(family, name, millions):
    """The converted SR3 has more parameters, which are all zeros or duplicates."""
    shapes = janspiry_shapes(family, PRESETS[family][name])
    parameters = sum(math.prod(shape) for key, shape in shapes.items() if not key.endswith("inv_freq"))
    assert parameters / 1e6 == pytest.approx(millions, abs=0.05)
    assert type(convert(family, name)) is UNet2DModel


def test_a_checkpoint_of_another_size_is_refused():
    args = PRESETS["guided_diffusion"]["128x128_diffusion"]
    args = {key: value for key, value in args.items() if key not in PROCESS}
    with pytest.raises(ValueError, match="`model_channels` is given as 256, but the checkpoint has 128"):
        convert_guided_diffusion(empty(unet_shapes(args | {"model_channels": 128})), **args)
