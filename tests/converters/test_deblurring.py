"""DeblurGAN-v2's pyramid, DeblurGAN's residual network, DeepDeblur's multi-scale network, and context encoders."""

import pytest
import torch
from scipy.ndimage import gaussian_filter

from diffusers_ext.converters import (
    convert_checkpoint,
    convert_context_encoder,
    convert_dcgan,
    convert_deblurgan,
    convert_deepdeblur,
    convert_fpn_mobilenet,
)
from diffusers_ext.losses import l1_loss, l2_loss
from diffusers_ext.models.modeling_deepdeblur import halve
from diffusers_ext.pipelines import RestorationPipeline
from tests.converters.cases import assert_near, assert_refused, load_case


PARTS = ((0, 2), (2, 4), (4, 7), (7, 11), (11, 16))  # of the backbone, which the original saves once more as enc0..4


def as_published(weights: dict) -> dict:
    """The backbone twice, and the prefix of DataParallel."""
    twice = dict(weights)
    for key, tensor in weights.items():
        if key.startswith("fpn.features."):
            position, rest = key.removeprefix("fpn.features.").split(".", 1)
            for index, (first, end) in enumerate(PARTS):
                if first <= int(position) < end:
                    twice[f"fpn.enc{index}.{int(position) - first}.{rest}"] = tensor
    return {f"module.{key}": tensor for key, tensor in twice.items()}


@torch.no_grad()
def test_golden_case_of_the_pyramid():
    case = load_case("deblurgan_v2", "fpn_mobilenet_instance")
    network = convert_fpn_mobilenet(case.weights, statistics="stored")
    assert_near(network(case.inputs["x"]).sample, case.outputs["restored"])
    by_image = convert_fpn_mobilenet(case.weights)
    assert_near(by_image(case.inputs["x"]).sample, case.outputs["restored_by_statistics_of_the_image"])


@torch.no_grad()
def test_golden_case_of_the_residual_network():
    case = load_case("deblurgan_v2", "resnet_residual")
    network = convert_deblurgan(case.weights, statistics="stored")
    assert_near(network(case.inputs["x"]).sample, case.outputs["restored"])
    assert network.config.normalization == "none" and network.config.dropout == 0.5
    assert convert_deblurgan(case.weights).config.normalization == "instance"


@torch.no_grad()
def test_golden_case_of_the_multi_scale_network():
    case = load_case("deepdeblur", "msresnet_3scales")
    config = {key: value for key, value in case.config.items() if key != "rgb_range"}
    network = convert_deepdeblur(case.weights, rgb_range=255, **config)
    fine, *coarser = (case.inputs[f"blurred.{level}"] / 255 for level in range(3))
    output = network(fine, tuple(coarser))
    levels = [output.sample * 255, *(level * 255 for level in output.coarser)]
    for level, sharp in enumerate(levels):
        assert_near(sharp, case.outputs[f"sharp.{level}"])
    losses = [l1_loss(sharp, case.inputs[f"target.{level}"]) for level, sharp in enumerate(levels)]
    assert_near(sum(losses).mean(), case.outputs["loss_l1"])


@torch.no_grad()
def test_golden_case_of_the_context_encoder():
    case = load_case("context_encoder", "small")
    parts = {
        name: {key.removeprefix(f"{name}."): t for key, t in case.weights.items() if key.startswith(f"{name}.")}
        for name in ("G", "D")
    }
    network = convert_context_encoder(parts["G"])
    images = case.inputs["image_small"].repeat_interleave(4, 2).repeat_interleave(4, 3)
    shown, fill = images.clone(), torch.tensor([117.0, 104.0, 123.0]).view(3, 1, 1) / 127.5 - 1
    shown[..., 36:92, 36:92] = fill
    assert_near(shown[..., 28:40, 28:40], case.outputs["cropped_centre"])
    centre = network.predict_centre(shown)
    assert_near(centre, case.outputs["fake"])
    expected = images.clone()
    expected[..., 36:92, 36:92] = centre[..., 4:60, 4:60]
    assert torch.equal(network(shown).sample, expected)

    true_centre = images[..., 32:96, 32:96]
    weights = torch.full_like(true_centre, 0.998 * 10)
    weights[..., 4:60, 4:60] = 0.998
    squared = l2_loss(centre * weights.sqrt(), true_centre * weights.sqrt()).mean()
    assert_near(squared, case.outputs["loss_g_l2"])
    discriminator = convert_dcgan(parts["D"])
    assert_near(discriminator(true_centre).logits.sigmoid(), case.outputs["d_real"])
    assert_near(discriminator(centre).logits.sigmoid(), case.outputs["d_fake"])


def test_the_pyramid_of_images_is_a_gaussian_one():
    """As `skimage.transform.pyramid_gaussian`: a Gaussian of 2/3 pixels, then linear interpolation in the middle."""
    image = torch.rand(1, 2, 6, 10, generator=torch.Generator().manual_seed(0))
    smooth = gaussian_filter(image.double().numpy(), (0, 0, 2 / 3, 2 / 3), mode="reflect")
    expected = torch.from_numpy(smooth).unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)).float()
    torch.testing.assert_close(halve(image), expected)


@torch.no_grad()
def test_files_become_pipelines(tmp_path):
    case = load_case("deblurgan_v2", "fpn_mobilenet_instance")
    residual, multi_scale = load_case("deblurgan_v2", "resnet_residual"), load_case("deepdeblur", "msresnet_3scales")
    generator = {
        k.removeprefix("G."): t for k, t in load_case("context_encoder", "small").weights.items() if k[0] == "G"
    }
    files = {
        "fpn.h5": ("deblurgan_v2", {"model": as_published(case.weights)}),
        "resnet.h5": ("deblurgan_v2", {"model": {f"module.{k}": t for k, t in residual.weights.items()}}),
        "msresnet.pt": ("deepdeblur", {"G": multi_scale.weights, "D": {"dense.weight": torch.zeros(1)}}),
        "netG.pth": ("context_encoder", {"epoch": 1, "state_dict": generator}),
    }
    for name, (family, content) in files.items():
        torch.save(content, tmp_path / name)
        folder = tmp_path / name.replace(".", "_")
        convert_checkpoint(tmp_path / name, folder, family)
        pipe = RestorationPipeline.from_pretrained(folder)
        assert pipe(torch.rand(3, 70, 66), output_type="pt").images.shape == (1, 3, 70, 66)


@pytest.mark.parametrize(
    "convert, family, name, options, message",
    [
        (convert_fpn_mobilenet, "deblurgan_v2", "resnet_residual", {}, "not an FPNMobileNet of DeblurGAN-v2"),
        (convert_deblurgan, "deepdeblur", "msresnet_3scales", {}, "not a residual network of CycleGAN"),
        (
            convert_deblurgan,
            "deblurgan_v2",
            "resnet_residual",
            {"statistics": "batch"},
            "`statistics` must be 'image'",
        ),
        (convert_deepdeblur, "deepdeblur", "msresnet_3scales", {"n_feats": 5}, "`n_feats` is given as 5"),
        (convert_deepdeblur, "deblurgan_v2", "resnet_residual", {}, "not an MSResNet of DeepDeblur-PyTorch"),
        (convert_context_encoder, "deepdeblur", "msresnet_3scales", {}, "not a generator of context_encoder_pytorch"),
    ],
)
def test_other_networks_and_arguments_are_refused(convert, family, name, options, message):
    assert_refused(convert, load_case(family, name).weights, options, message)


def test_missing_tensors_are_named():
    weights = load_case("deblurgan_v2", "fpn_mobilenet_instance").weights
    del weights["smooth.0.bias"]
    assert_refused(convert_fpn_mobilenet, weights, {"statistics": "stored"}, "missing: smooth.0.bias")
