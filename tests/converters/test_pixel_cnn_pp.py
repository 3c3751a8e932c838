"""PixelCNN++ of pclucas14/pixel-cnn-pp."""

import pytest
import torch

from diffusers_ext.converters import convert_checkpoint, convert_pixel_cnn_pp
from diffusers_ext.pipelines import AutoregressivePipeline
from tests.converters.cases import assert_near, assert_refused, load_case, save


@torch.no_grad()
def test_logits_and_likelihoods_are_those_of_the_original():
    case = load_case("pixel_cnn_pp", "network_grey")
    model = convert_pixel_cnn_pp(case.weights, **case.config)
    parameters = model(case.inputs["x"]).parameters
    assert_near(parameters, case.outputs["logits"])
    assert_near(-model.log_prob(parameters, case.inputs["x"]).sum(dim=(1, 2)), case.outputs["loss_per_image"])


@pytest.mark.parametrize("use_cache", [True, False])
def test_an_image_is_drawn_as_by_the_original(tmp_path, use_cache):
    case = load_case("pixel_cnn_pp", "raster_rgb")
    written = convert_checkpoint(save(case, tmp_path / "model.pth"), tmp_path / "out", "pixel_cnn_pp", image_size=4)
    assert written == f"AutoregressivePipeline in {tmp_path / 'out'}"
    pipe = AutoregressivePipeline.from_pretrained(tmp_path / "out")
    numbers = torch.cat([case.inputs["uniform_mix"], case.inputs["uniform_value"]], dim=-1)
    latents = numbers.movedim(0, 1).unflatten(1, (4, 4))[:, :, :, None]
    images = pipe(batch_size=2, latents=latents, use_cache=use_cache, output_type="pt").images
    assert_near(2 * images - 1, case.outputs["image"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"nr_filters": 7}, "`nr_filters` is given as 7, but the checkpoint has 6"),
        ({"nr_resnet": 2}, "`nr_resnet` is given as 2, but the checkpoint has 1"),
        ({"dropout": 0.5}, "no argument 'dropout'"),
    ],
)
def test_arguments_at_odds_with_the_tensors(options, message):
    assert_refused(convert_pixel_cnn_pp, load_case("pixel_cnn_pp", "raster_rgb").weights, options, message)


def test_other_networks_and_tensors():
    weights = load_case("pixel_cnn_pp", "raster_rgb").weights
    assert_refused(convert_pixel_cnn_pp, {"fc1.weight": torch.zeros(2, 2)}, {}, "it has no u_init")
    assert_refused(convert_pixel_cnn_pp, {**weights, "x.bias": torch.zeros(2)}, {}, "1 unknown: x.bias")
    shape = {**weights, "nin_out.lin_a.weight_v": weights["nin_out.lin_a.weight_v"][:, :-1]}
    assert_refused(convert_pixel_cnn_pp, shape, {}, r"nin_out\.lin_a\.weight_v \(20, 5\) instead of \(20, 6\)")
    del weights["up_layers.1.u_stream.0.conv_out.conv.weight_g"]
    assert_refused(convert_pixel_cnn_pp, weights, {}, "1 missing: up_layers.1.u_stream.0.conv_out.conv.weight_g")
