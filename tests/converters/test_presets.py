"""Each preset with a state dict of the published size: the numbers of parameters are the published ones."""

import math

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel, VQModel

from diffusers_ext.converters import (
    convert_dit,
    convert_guided_diffusion,
    convert_guided_diffusion_classifier,
    convert_improved_diffusion,
    convert_latent_diffusion,
    convert_latent_diffusion_first_stage,
    convert_palette,
    convert_sr3,
    convert_vqgan,
)
from diffusers_ext.converters.listing import families
from diffusers_ext.models.modeling_adm_unet import ADMUNet2DModel
from tests.converters.originals import (
    classifier_shapes,
    dit_shapes,
    empty,
    first_stage_shapes,
    palette_shapes,
    sr3_shapes,
    unet_shapes,
)


PRESETS = {name: family.presets for name, family in families().items() if family.presets}
BUILT_HERE = (  # the others have other layouts, in test files of their own
    *("guided_diffusion", "guided_diffusion_classifier", "improved_diffusion"),
    *("latent_diffusion", "latent_diffusion_first_stage", "vqgan", "dit", "palette", "sr3"),
)
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
STAGES = ("n_classes", "n_stages", "null_class_label", "cond_stage_key")  # of latent diffusion, before the U-Net


def janspiry_shapes(family: str, args: dict) -> dict:
    if family == "palette":
        return palette_shapes(args)
    return sr3_shapes(args, args["channel_multiplier"], args["which_model_G"])


def autoencoder_shapes(args: dict) -> dict:
    args = {"n_embed": None, "attn_type": "vanilla", **args}
    names = ("ch_mult", "num_res_blocks", "z_channels", "embed_dim", "n_embed")
    levels = [args["resolution"] // 2**level in args["attn_resolutions"] for level in range(len(args["ch_mult"]))]
    middle = args["attn_type"] == "vanilla"
    return first_stage_shapes(args["ch"], *(args[name] for name in names), levels, middle_attention=middle)


def latent_arguments(args: dict) -> dict:
    args = {key: value for key, value in args.items() if key not in (*STAGES, "scale_factor")}
    tensors = {f"model.diffusion_model.{key}": tensor for key, tensor in empty(unet_shapes(args)).items()}
    return {"state_dict": tensors, **args}


def convert(family: str, name: str):
    args = {key: value for key, value in PRESETS[family][name].items() if key not in PROCESS}
    if family == "guided_diffusion_classifier":
        return convert_guided_diffusion_classifier(empty(classifier_shapes(args)), **args)
    if family == "vqgan":
        return convert_vqgan(empty(autoencoder_shapes(args)), **args)
    if family == "latent_diffusion_first_stage":
        return convert_latent_diffusion_first_stage(empty(autoencoder_shapes(args)), **args)
    if family == "latent_diffusion":
        return convert_latent_diffusion(**latent_arguments(args))
    if family == "dit":
        args = {"in_channels": 4, "num_classes": 1000, "learn_sigma": True, "input_size": 32, **args}
        return convert_dit(empty(dit_shapes(args)), **args)
    if family in ("palette", "sr3"):
        convert_janspiry = {"palette": convert_palette, "sr3": convert_sr3}[family]
        return convert_janspiry(empty(janspiry_shapes(family, args)), **args)
    is_superres = "upsample" in name
    shapes = unet_shapes(args | {"in_channels": args["in_channels"] * (2 if is_superres else 1)})
    converters = {
        "guided_diffusion": convert_guided_diffusion,
        "improved_diffusion": convert_improved_diffusion,
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
    "name, number, model_class",
    [
        ("celeba256", 274_056_163, UNet2DModel),
        ("lsun_churches256", 294_966_916, ADMUNet2DModel),
        ("cin256", 394_984_196, UNet2DConditionModel),
        ("cin256-v2", 400_920_579, UNet2DConditionModel),
        ("text2img256", 403_623_939, UNet2DConditionModel),
        ("txt2img-1p4B", 872_300_484, UNet2DConditionModel),
        ("layout2img-openimages256", 246_277_379, UNet2DConditionModel),
        ("inpainting_big", 387_245_827, ADMUNet2DModel),
        ("semantic_synthesis256", 215_229_315, UNet2DModel),
        ("semantic_synthesis512", 215_229_315, UNet2DModel),
        ("bsr_sr", 113_622_563, UNet2DModel),
    ],
)
def test_number_of_parameters_of_latent_diffusion(name, number, model_class):
    """Exactly those of the original's UNetModel with the published configuration."""
    network = convert("latent_diffusion", name)
    assert sum(parameter.numel() for parameter in network.parameters()) == number
    assert type(network) is model_class


@pytest.mark.parametrize(
    "name, number, model_class",
    [
        ("kl-f4", 55_312_063, AutoencoderKL),
        ("kl-f8", 83_653_863, AutoencoderKL),
        ("kl-f16", 69_610_963, AutoencoderKL),
        ("kl-f32", 103_880_131, AutoencoderKL),
        ("vq-f4", 55_322_782, VQModel),
        ("vq-f4-noattn", 53_219_486, VQModel),
        ("vq-f8", 67_717_295, VQModel),
        ("vq-f8-n256", 67_652_783, VQModel),
        ("vq-f16", 69_593_371, VQModel),
    ],
)
def test_number_of_parameters_of_first_stages(name, number, model_class):
    network = convert("latent_diffusion_first_stage", name)
    assert sum(parameter.numel() for parameter in network.parameters()) == number
    assert type(network) is model_class and network.config.scaling_factor == 1.0


@pytest.mark.parametrize(
    "name, number",
    [
        ("DiT-XL-2-256x256", 675_129_632),
        ("DiT-XL-2-512x512", 676_014_368),
        ("DiT-S/2", 32_963_360),
        ("DiT-B/2", 130_512_416),
        ("DiT-L/2", 458_102_816),
    ],
)
def test_number_of_parameters_of_dit(name, number):
    """Those of the original, which embeds classes and timesteps once; 33, 130, 458 and 675 million in the paper."""
    network = convert("dit", name)
    copies = [name for name, _ in network.named_parameters() if "norm1.emb" in name and "_blocks.0." not in name]
    numbers = {name: parameter.numel() for name, parameter in network.named_parameters() if name not in copies}
    assert sum(numbers.values()) + network.pos_embed.pos_embed.numel() == number


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
        ("latent_diffusion", "inpainting_big", {"num_attention_heads": 8}),
    ],
)
def test_what_stock_cannot_say(family, name, special):
    network = convert(family, name)
    assert type(network) is ADMUNet2DModel
    assert {key: network.config[key] for key in special} == special


@pytest.mark.parametrize(
    "family, name",
    [(family, name) for family in BUILT_HERE for name in PRESETS[family]],
)
def test_every_preset_builds(family, name):
    network = convert(family, name)
    preset = PRESETS[family][name]
    sizes = [preset[name] for name in ("image_size", "resolution", "input_size") if name in preset]
    assert network.config.sample_size == (sizes[0] if sizes else 32)


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
