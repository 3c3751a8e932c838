import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from diffusers_ext.losses import ADVERSARIAL_LOSSES, discriminator_loss, fake_loss, generator_loss, real_loss
from diffusers_ext.losses.discriminator_regularizers import gradient_penalty


GOLDEN = Path(__file__).parent / "golden" / "gan_losses"


@pytest.fixture(scope="module")
def golden():
    tensors = load_file(GOLDEN / "case.safetensors")
    config = json.loads((GOLDEN / "case.json").read_text())["config"]
    return tensors, config


@pytest.mark.parametrize(
    ("kind", "name"), [("minimax", "vanilla"), ("least_squares", "lsgan"), ("wasserstein", "wgangp")]
)
def test_batch_means_are_those_of_the_reference(golden, kind, name):
    tensors, _ = golden
    logits = tensors["inputs.logits"]
    torch.testing.assert_close(real_loss(kind, logits).mean(), tensors[f"outputs.{name}_real"].squeeze())
    torch.testing.assert_close(fake_loss(kind, logits).mean(), tensors[f"outputs.{name}_fake"].squeeze())


def test_losses_of_single_images_are_those_of_the_reference(golden):
    tensors, _ = golden
    logits = tensors["inputs.logits"]
    torch.testing.assert_close(real_loss("nonsaturating", logits), tensors["outputs.nonsaturating_real"])
    torch.testing.assert_close(fake_loss("nonsaturating", logits), tensors["outputs.nonsaturating_fake"])
    torch.testing.assert_close(generator_loss("nonsaturating", logits), tensors["outputs.nonsaturating_real"])


def test_soft_labels_are_those_of_the_reference(golden):
    tensors, config = golden
    logits = tensors["inputs.logits"]
    real = real_loss("least_squares", logits, config["lsgan_soft_target_real_label"])
    fake = fake_loss("least_squares", logits, config["lsgan_soft_target_fake_label"])
    torch.testing.assert_close(real.mean(), tensors["outputs.lsgan_soft_real"].squeeze())
    torch.testing.assert_close(fake.mean(), tensors["outputs.lsgan_soft_fake"].squeeze())


def test_smoothed_labels_are_those_of_binary_cross_entropy():
    logits = torch.linspace(-30, 30, 13)
    expected = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 0.9), reduction="none")
    torch.testing.assert_close(real_loss("nonsaturating", logits, 0.9), expected)


def reference_discriminator(tensors) -> nn.Module:
    """The NLayerDiscriminator of the golden case, with two levels and instance norm."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(4, 8, 4, 2, 1),
        nn.InstanceNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 16, 4, 1, 1),
        nn.InstanceNorm2d(16),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 1, 4, 1, 1),
    )
    prefix = "weights.model."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return network


@pytest.mark.parametrize(("name", "weight"), [("real", 1.0), ("fake", 0.0)])
def test_the_gradient_penalty_is_that_of_the_reference(golden, name, weight):
    tensors, config = golden
    real, fake = tensors["inputs.real"], tensors["inputs.fake"]
    penalty = gradient_penalty(reference_discriminator(tensors), real, fake, torch.full((len(real),), weight))
    expected = tensors[f"outputs.gradient_penalty_{name}"].squeeze()
    torch.testing.assert_close(config["gradient_penalty"]["lambda_gp"] * penalty.mean(), expected)


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_discriminator_and_generator_pull_in_opposite_directions(kind):
    logits = torch.tensor([-0.5, 0.1, 0.3], requires_grad=True)

    label = [-1.0] if kind == "least_squares" else []  # so that all logits are above it

    def slope(losses):
        return torch.autograd.grad(losses.sum(), logits)[0]

    assert (slope(real_loss(kind, logits)) < 0).all() and (slope(fake_loss(kind, logits, *label)) > 0).all()
    assert (slope(generator_loss(kind, logits)) < 0).all()


def test_the_forms_are_those_of_the_papers():
    logits = torch.tensor([-2.0, -0.5, 0.5, 2.0])
    probability = logits.sigmoid()
    torch.testing.assert_close(real_loss("minimax", logits), -probability.log())
    torch.testing.assert_close(fake_loss("minimax", logits), -(1 - probability).log())
    torch.testing.assert_close(generator_loss("minimax", logits), (1 - probability).log())
    torch.testing.assert_close(generator_loss("nonsaturating", logits), -probability.log())
    assert real_loss("hinge", logits).tolist() == [3.0, 1.5, 0.5, 0.0]
    assert fake_loss("hinge", logits).tolist() == [0.0, 0.5, 1.5, 3.0]
    assert generator_loss("hinge", logits).tolist() == [2.0, 0.5, -0.5, -2.0]
    assert discriminator_loss("wasserstein", logits, -logits).tolist() == [4.0, 1.0, -1.0, -4.0]
    assert discriminator_loss("least_squares", logits, logits).tolist() == [13.0, 2.5, 0.5, 5.0]


def test_maps_and_scales_are_averaged_per_image():
    fine, coarse = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 2, 2)
    both = real_loss("hinge", [fine, coarse])
    torch.testing.assert_close(both, (real_loss("hinge", fine) + real_loss("hinge", coarse)) / 2)
    torch.testing.assert_close(real_loss("hinge", fine)[1], (1 - fine[1]).clamp(min=0).mean())


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_losses_of_half_precision_are_in_float32(kind):
    logits = torch.tensor([200.0, -300.0], dtype=torch.float16)
    losses = discriminator_loss(kind, logits, logits)
    assert losses.dtype == torch.float32 and losses.isfinite().all()


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="must be one of minimax, .*, not lsgan"):
        real_loss("lsgan", torch.zeros(2))
    with pytest.raises(ValueError, match="must be one of"):
        generator_loss("gan", torch.zeros(2))
    with pytest.raises(ValueError, match="hinge loss has no label"):
        discriminator_loss("hinge", torch.zeros(2), torch.zeros(2), real_label=0.9)
