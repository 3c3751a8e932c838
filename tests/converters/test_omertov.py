"""The encoders of encoder4editing."""

import pytest
import torch

from diffusers_ext.converters import convert_checkpoint, convert_style_encoder
from diffusers_ext.models import StyleEncoder
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
