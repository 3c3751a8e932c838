"""The encoders of encoder4editing, and its editing directions."""

import pytest
import torch

from diffusers_ext import GANPipeline
from diffusers_ext.converters import convert_checkpoint, convert_editing_directions, convert_style_encoder
from diffusers_ext.models import StyleEncoder, StyleGAN2Generator
from diffusers_ext.pipelines.latent_directions import LatentDirections
from tests.converters.cases import assert_near, assert_refused, load_case


OPTIONS = {"e4e": {}, "backbone_into_w": {"num_styles": 8, "sample_size": 32}}


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_the_styles_are_those_of_the_original(name):
    case = load_case("style_encoder", name)
    encoder = convert_style_encoder(case.weights, **OPTIONS[name])
    assert_near(encoder(case.inputs["x"]).styles, case.outputs["codes"])


@torch.no_grad()
def test_a_checkpoint_becomes_an_encoder_with_the_average_style(tmp_path):
    case, average = load_case("style_encoder", "e4e"), torch.randn(8)
    weights = {f"encoder.{name}": value for name, value in case.weights.items()}
    weights["decoder.conv1.conv.weight"] = torch.zeros(1)
    content = {"state_dict": weights, "latent_avg": average, "opts": {"encoder_type": "Encoder4Editing"}}
    torch.save(content, tmp_path / "e4e.pt")
    assert convert_checkpoint(tmp_path / "e4e.pt", tmp_path / "out", "style_encoder").startswith("StyleEncoder in")
    encoder = StyleEncoder.from_pretrained(tmp_path / "out")
    assert_near(encoder(case.inputs["x"]).styles, case.outputs["codes"] + average)


def test_what_is_no_such_encoder_is_refused():
    weights = load_case("style_encoder", "e4e").weights
    less = {name: value for name, value in weights.items() if not name.startswith("body.23.")}
    assert_refused(convert_style_encoder, less, {}, "23 residual units instead of 24")
    assert_refused(convert_style_encoder, weights, {"num_styles": 18}, "`num_styles` is 18, but .* with 10")
    rows = {**weights, "latent_avg": torch.randn(10, 8)}
    assert_refused(convert_style_encoder, rows, {}, "latent_avg")


def generator() -> StyleGAN2Generator:
    torch.manual_seed(0)
    return StyleGAN2Generator(8, 1, 5, 6, block_out_channels=(6, 4), num_mapping_layers=1).eval()


def test_a_direction_of_interfacegan_becomes_a_file(tmp_path):
    smile, pipe = torch.randn(1, 6), GANPipeline(generator())
    torch.save(smile, tmp_path / "smile.pt")
    pipe.save_pretrained(tmp_path / "faces")
    convert_checkpoint(
        tmp_path / "smile.pt", tmp_path / "out", "editing_directions", generator=str(tmp_path / "faces")
    )
    styles = torch.randn(2, 6)
    edited = pipe.edit(tmp_path / "out" / "directions.safetensors", "smile", 2.0, styles=styles).styles
    torch.testing.assert_close(edited, (styles + 2 * smile)[:, None].expand(-1, 4, -1))
    with pytest.raises(ValueError, match="`generator` must be the folder of the converted generator"):
        convert_checkpoint(tmp_path / "smile.pt", tmp_path / "o", "editing_directions", generator=str(tmp_path))
    with pytest.raises(ValueError, match="does not show its `generator`"):
        convert_checkpoint(tmp_path / "smile.pt", tmp_path / "o", "editing_directions")


def test_components_and_factors_are_directions():
    components, deviations = torch.linalg.qr(torch.randn(6, 6))[0], torch.arange(1.0, 7.0)
    content = {"comp": components.view(6, 1, 6), "mean": torch.randn(1, 1, 6), "std": deviations.view(6, 1)}
    directions = convert_editing_directions(content, generator())
    # Written out as in encoder4editing: a strength s moves the first coordinate from c to s.
    style, strength = torch.randn(6), 3.0
    coordinate = (style - content["mean"].flatten()) @ components[1] / deviations[1]
    expected = style + (strength - coordinate) * components[1] * deviations[1]
    torch.testing.assert_close(style + (strength - coordinate) * directions["component_2"], expected)
    factors = convert_editing_directions({"ckpt": "a.pt", "eigvec": components}, generator())
    assert isinstance(factors, LatentDirections) and torch.equal(factors["factor_3"], components[:, 2])


def test_what_are_no_directions_is_refused():
    convert, other = convert_editing_directions, {"generator": generator()}
    assert_refused(convert, {"smile": torch.zeros(7)}, other, r"has the shape \(7,\), but the styles")
    assert_refused(convert, {"note": "text"}, other, "no directions of encoder4editing: the file has note")
    assert_refused(convert, [1], other, "the file holds a list")
    assert_refused(convert, {"eigvec": [[1.0]]}, other, "eigvec must be a tensor, but is a list")
    components = {"comp": torch.ones(3, 6), "mean": torch.zeros(6), "std": torch.ones(2)}
    assert_refused(convert, components, other, "comp has 3 components, but std has the deviations of 2")
    assert_refused(convert, {"smile": torch.full((6,), float("nan"))}, other, "must be a finite tensor")
