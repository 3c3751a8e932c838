"""SRGAN of leftthomas, and BasicSR's MSRResNet and RRDB networks, in all their layouts."""

import pytest
import torch
from safetensors.torch import save_file

from diffusers_ext.converters import convert_checkpoint, convert_msrresnet, convert_rrdb, convert_srgan
from diffusers_ext.models import MSRResNet, RRDBNet, SRGANDiscriminator, SRResNet
from diffusers_ext.pipelines import RestorationPipeline
from tests.converters.cases import assert_near, assert_refused, load_case


CONVERT = {"msrresnet_x4": convert_msrresnet, "mid_layout": convert_rrdb, "old_layout": convert_rrdb}
# From the names of ESRGAN's repository to those of BasicSR
NEW_NAMES = {
    "RRDB_trunk.": "body.",
    "RDB": "rdb",
    "trunk_conv": "conv_body",
    "upconv": "conv_up",
    "HRconv": "conv_hr",
}


def new_layout(weights: dict) -> dict:
    renamed = {}
    for key, tensor in weights.items():
        for old, new in NEW_NAMES.items():
            key = key.replace(old, new)
        renamed[key] = tensor
    return renamed


@pytest.mark.parametrize("name", CONVERT)
@torch.no_grad()
def test_golden_cases_of_basicsr(name):
    case = load_case("esrgan_rrdb", name)
    arguments = {key: value for key, value in case.config.items() if key != "key_layout"}
    network = CONVERT[name](case.weights, **arguments)
    assert_near(network(case.inputs["lr"]).sample, case.outputs["sr"])
    assert network.scale == 4 and not network.training


@torch.no_grad()
def test_golden_cases_of_srgan():
    case = load_case("srgan", "G_x4")
    network = convert_srgan(case.weights, scale_factor=4)
    assert_near(network(case.inputs["lr"]).sample, case.outputs["sr"])
    assert network.config.trunk_activation and network.config.num_blocks == 5
    case = load_case("srgan", "D")
    assert_near(convert_srgan(case.weights)(case.inputs["img"]).logits.sigmoid(), case.outputs["prob"])


@torch.no_grad()
def test_the_later_generator_of_srgan_has_batch_norm_after_its_blocks():
    weights, width = load_case("srgan", "G_x4").weights, 12
    del weights["block7.1.weight"]
    norm = torch.nn.BatchNorm2d(width)
    norm.running_mean.normal_()
    later = weights | {f"block7.1.{key}": tensor for key, tensor in norm.state_dict().items()}
    network = convert_srgan(later)
    assert not network.config.trunk_activation
    torch.testing.assert_close(network.norm_mid.running_mean, norm.running_mean)
    assert isinstance(network.norm_mid, torch.nn.BatchNorm2d)


@torch.no_grad()
def test_the_layout_of_basicsr_and_its_wrappers(tmp_path):
    case = load_case("esrgan_rrdb", "mid_layout")
    weights = new_layout(case.weights)
    expected = case.outputs["sr"]
    assert_near(convert_rrdb(weights)(case.inputs["lr"]).sample, expected)
    zeros = {key: torch.zeros_like(tensor) for key, tensor in weights.items()}
    files = {"plain": weights, "params": {"params": weights}, "both": {"params": zeros, "params_ema": weights}}
    for name, content in files.items():
        torch.save(content, tmp_path / f"{name}.pth")
        written = convert_checkpoint(tmp_path / f"{name}.pth", tmp_path / name, "rrdb", scale=4)
        assert written == f"RestorationPipeline in {tmp_path / name}"
        assert_near(RestorationPipeline.from_pretrained(tmp_path / name).generator(case.inputs["lr"]).sample, expected)


@pytest.mark.parametrize("factor, scale", [(2, 2), (4, 1)])
@torch.no_grad()
def test_pixels_that_become_channels(factor, scale):
    weights = new_layout(load_case("esrgan_rrdb", "mid_layout").weights)
    weights["conv_first.weight"] = torch.randn(10, 3 * factor**2, 3, 3)
    image = torch.rand(1, 3, 8, 12)
    for arguments in ({}, {"scale": scale}, {"num_in_ch": 3}):
        network = convert_rrdb(weights, **arguments)
        assert (network.config.unshuffle_factor, network.scale) == (factor, scale)
        assert network(image).sample.shape == (1, 3, 8 * scale, 12 * scale)
    # the same channels at the full scale
    assert convert_rrdb(weights, scale=4).config.in_channels == 3 * factor**2


@torch.no_grad()
def test_other_scales_of_the_first_layout():
    weights = load_case("esrgan_rrdb", "old_layout").weights
    rename = {"model.3": "model.3", "model.8": "model.5", "model.10": "model.7"}  # without the second doubling
    half = {key: tensor for key, tensor in weights.items() if key.startswith(("model.0", "model.1."))}
    for old, new in rename.items():
        half |= {f"{new}.{kind}": weights[f"{old}.{kind}"] for kind in ("weight", "bias")}
    network = convert_rrdb(half)
    assert network.scale == 2
    torch.testing.assert_close(network.conv_hr.weight, weights["model.8.weight"])


@pytest.mark.parametrize("upscale, factor", [(2, 4), (3, 9)])
def test_scales_of_msrresnet(upscale, factor):
    weights = load_case("esrgan_rrdb", "msrresnet_x4").weights
    del weights["upconv2.weight"], weights["upconv2.bias"]
    weights |= {"upconv1.weight": torch.zeros(8 * factor, 8, 3, 3), "upconv1.bias": torch.zeros(8 * factor)}
    assert convert_msrresnet(weights, upscale=upscale).scale == upscale
    older = {key.replace("body", "recon_trunk").replace("conv_hr", "HRconv"): t for key, t in weights.items()}
    assert convert_msrresnet(older).scale == upscale


def test_files_become_pipelines_and_networks(tmp_path):
    cases = [
        ("srgan", "G_x4", "srgan", RestorationPipeline),
        ("srgan", "D", "srgan", SRGANDiscriminator),
        ("esrgan_rrdb", "msrresnet_x4", "msrresnet", RestorationPipeline),
        ("esrgan_rrdb", "old_layout", "rrdb", RestorationPipeline),
    ]
    networks = []
    for folder, name, family, expected in cases:
        save_file(load_case(folder, name).weights, tmp_path / f"{name}.safetensors")
        convert_checkpoint(tmp_path / f"{name}.safetensors", tmp_path / name, family)
        loaded = expected.from_pretrained(tmp_path / name)
        networks.append(type(getattr(loaded, "generator", loaded)))
    assert networks == [SRResNet, SRGANDiscriminator, MSRResNet, RRDBNet]


@pytest.mark.parametrize(
    "convert, family, name, options, message",
    [
        (
            convert_srgan,
            "srgan",
            "G_x4",
            {"scale_factor": 2},
            "`scale_factor` is given as 2, but the checkpoint has 4",
        ),
        (convert_srgan, "srgan", "D", {"scale_factor": 2}, "is for generators"),
        (convert_srgan, "esrgan_rrdb", "mid_layout", {}, "This is not a network of SRGAN: it has no block1.0"),
        (convert_msrresnet, "srgan", "G_x4", {}, "This is not an MSRResNet of BasicSR: it has no conv_first"),
        (convert_msrresnet, "esrgan_rrdb", "msrresnet_x4", {"num_block": 4}, "`num_block` is given as 4"),
        (convert_rrdb, "esrgan_rrdb", "msrresnet_x4", {}, "This is not an RRDB network: it has no conv_body"),
        (
            convert_rrdb,
            "esrgan_rrdb",
            "mid_layout",
            {"scale": 3},
            "`scale` is given as 3, but the checkpoint enlarges",
        ),
        (convert_rrdb, "esrgan_rrdb", "mid_layout", {"num_grow_ch": 32}, "`num_grow_ch` is given as 32"),
    ],
)
def test_other_networks_and_arguments_are_refused(convert, family, name, options, message):
    assert_refused(convert, load_case(family, name).weights, options, message)


@pytest.mark.parametrize(
    "convert, family, name", [(convert_srgan, "srgan", "G_x4"), (convert_rrdb, "esrgan_rrdb", "old_layout")]
)
def test_missing_and_unknown_tensors_are_named(convert, family, name):
    weights = load_case(family, name).weights
    lost = [key for key in weights if key.endswith("conv2.weight") or key.endswith("conv2.0.weight")][1]
    del weights[lost]
    assert_refused(convert, weights | {"extra.weight": torch.zeros(1)}, {}, f"1 missing: {lost}; 1 unknown: extra")
