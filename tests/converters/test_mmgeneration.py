"""The Progressive GAN of mmgeneration."""

import re

import pytest
import torch

from diffusers_ext.converters import convert_checkpoint, convert_progressive_gan
from diffusers_ext.models import ProgressiveDiscriminator, ProgressiveGenerator
from diffusers_ext.pipelines import GANPipeline
from tests.converters.cases import assert_near, every_case, load_case


@pytest.mark.parametrize("family, name", every_case("progressive_gan"))
@torch.no_grad()
def test_golden_cases(family, name):
    case = load_case(family, name)
    fused = {key: case.config[key] for key in ("fused_upconv", "fused_convdown") if key in case.config}
    network = convert_progressive_gan(case.weights, **fused)
    assert case.outputs
    for key, expected in case.outputs.items():
        kind, size, weight = re.fullmatch(r"(img|score)_scale(\d+)_weight([\d.]+)", key).groups()
        if kind == "img":
            assert_near(network(case.inputs["noise"], resolution=int(size), fade=float(weight)).sample, expected)
        else:
            assert_near(network(case.inputs[f"img{size}"], fade=float(weight)).logits, expected)


@torch.no_grad()
def test_a_checkpoint_becomes_a_pipeline(tmp_path):
    generator, judge = load_case("progressive_gan", "G_32_fused"), load_case("progressive_gan", "D_32_fused")
    tensors = {f"generator_ema.{key}": tensor for key, tensor in generator.weights.items()}
    tensors |= {f"generator.{key}": tensor + 1 for key, tensor in generator.weights.items()}
    tensors |= {f"discriminator.{key}": tensor for key, tensor in judge.weights.items()}
    torch.save({"meta": {"epoch": 1}, "state_dict": tensors}, tmp_path / "pggan.pth")
    convert_checkpoint(tmp_path / "pggan.pth", tmp_path / "out", "progressive_gan", noise_size=12, in_scale=32)
    pipe = GANPipeline.from_pretrained(tmp_path / "out")
    images = pipe(latents=generator.inputs["noise"], output_type="pt").images
    torch.testing.assert_close(images, (generator.outputs["img_scale32_weight1.0"] / 2 + 0.5).clamp(0, 1))
    assert_near(pipe.discriminator(judge.inputs["img32"]).logits, judge.outputs["score_scale32_weight1.0"])


def test_what_does_not_fit_is_refused():
    weights = load_case("progressive_gan", "G_32_fused").weights
    for changed, config, message in (
        (weights, {"noise_size": 13}, "`noise_size` is given as 13, but the checkpoint has 12"),
        (weights, {"fused_upconv": False}, "conv_blocks.5.conv.weight_orig .* instead of"),
        ({**weights, "x": torch.zeros(1)}, {}, "1 unknown: x"),
        ({"main.0.weight": torch.zeros(1)}, {}, "This is no Progressive GAN of mmgeneration"),
    ):
        with pytest.raises(ValueError, match=message):
            convert_progressive_gan(changed, **config)


def test_the_classes_are_those_of_the_networks():
    assert type(convert_progressive_gan(load_case("progressive_gan", "G_32_fused").weights)) is ProgressiveGenerator
    assert (
        type(convert_progressive_gan(load_case("progressive_gan", "D_32_fused").weights)) is ProgressiveDiscriminator
    )
