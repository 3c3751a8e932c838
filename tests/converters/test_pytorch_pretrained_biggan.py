"""The BigGAN-deep of huggingface/pytorch-pretrained-BigGAN."""

import json

import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.converters import convert_biggan_deep, convert_checkpoint
from diffusers_ext.models import BigGANGenerator
from diffusers_ext.pipelines import GANPipeline
from tests.converters.cases import Case, assert_near, assert_refused, every_case, load_case


def load_biggan(name: str) -> Case:
    """A case whose computed weights have positive variances, and vectors that belong to their matrices."""
    case = load_case("biggan_deep", name)
    case.weights = with_consistent_statistics(case.weights)
    return case


def with_consistent_statistics(weights: dict) -> dict:
    completed = dict(weights)
    for key, tensor in weights.items():
        if key.endswith("running_vars"):
            completed[key] = 0.5 + tensor.abs()
        if key.endswith("weight_orig"):
            name, matrix = key.removesuffix("_orig"), tensor.flatten(1)
            left = F.normalize(weights[f"{name}_u"], dim=0)
            for _ in range(2):  # some steps of the power method, as a training leaves them
                right = F.normalize(left @ matrix, dim=0)
                left = F.normalize(matrix @ right, dim=0)
            completed[f"{name}_u"], completed[f"{name}_v"] = left, right
    return completed


@pytest.mark.parametrize("family, name", every_case("biggan_deep"))
@torch.no_grad()
def test_golden_cases(family, name):
    case = load_biggan(name)
    truncations = {key: float(key.removeprefix("img_truncation_")) for key in case.outputs}
    assert truncations
    config = {key: value for key, value in case.config.items() if key not in ("truncations", "computed_weights")}
    generator = convert_biggan_deep(case.weights, **config)
    for key, truncation in truncations.items():
        inputs = case.inputs["z"], case.inputs["class_label"]
        assert_near(generator(*inputs, truncation=2 * truncation).sample, case.outputs[key])


@torch.no_grad()
def test_a_folder_becomes_a_pipeline(tmp_path):
    case = load_biggan("small_16")
    torch.save(case.weights, tmp_path / "pytorch_model.bin")
    settings = {key: value for key, value in case.config.items() if key not in ("truncations", "computed_weights")}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    names = {0: "cat", 1: "dog", 2: "owl"}
    convert_checkpoint(tmp_path, tmp_path / "out", "biggan_deep", id2label=names)
    pipe = GANPipeline.from_pretrained(tmp_path / "out")
    output = pipe(["owl", "cat"], truncation=0.8, generator=torch.Generator().manual_seed(0), output_type="pt")
    assert output.latents.abs().max() <= 0.8 and output.images.shape == (2, 3, 16, 16)
    again = pipe(["owl", "cat"], truncation=0.8, latents=output.latents, output_type="pt")
    assert torch.equal(again.images, output.images)
    other = pipe(["owl", "cat"], latents=output.latents, output_type="pt")  # with the statistics of untruncated noise
    assert not torch.allclose(other.images, output.images)


@pytest.mark.parametrize("size, millions", [(128, 50.4), (256, 55.9), (512, 56.2)])
def test_the_released_sizes_have_the_published_numbers_of_parameters(size, millions):
    with torch.device("meta"):
        generator = BigGANGenerator(size, num_classes=1000, spectral_norm=False)
    number = sum(parameter.numel() for parameter in generator.parameters())
    # The originals' last convolution makes 128 channels, of which three are the image.
    number += (128 - 3) * (128 * 9 + 1)
    assert number / 1e6 == pytest.approx(millions, abs=0.05)


def test_what_does_not_fit_is_refused():
    weights = load_biggan("small_16").weights
    assert_refused(convert_biggan_deep, {"fc.weight": torch.zeros(2, 2)}, {}, "it has no embeddings")
    assert_refused(convert_biggan_deep, weights, {"z_dim": 7}, "`z_dim` is given as 7, but the checkpoint has 6")
    assert_refused(convert_biggan_deep, weights, {"layers": [[1, 2]]}, "`layers` must be a list of")
    assert_refused(convert_biggan_deep, weights, {"layers": [[True, 4, 4]]}, "`layers` is given as")
    assert_refused(convert_biggan_deep, {**weights, "x": torch.zeros(2)}, {}, "1 unknown: x")
    del weights["generator.layers.0.conv_0.weight_v"]
    assert_refused(convert_biggan_deep, weights, {}, "1 missing: generator.layers.0.conv_0.weight")
