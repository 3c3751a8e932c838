import pytest
import torch
from torch import nn

from diffusers_ext.losses import clip_weights, gradient_penalty, pixel_gradient_penalty, r1_penalty, r2_penalty


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 2, 6, 6, generator=generator).unbind()


def linear(gain: float) -> nn.Module:
    """A score with the same gradient everywhere, whose norm is `gain` for images of 2x6x6."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(72, 1))
    nn.init.constant_(network[1].weight, gain / 72**0.5)
    return network


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, 2, 1),
        nn.Softplus(),
        nn.Conv2d(8, 4, 3, 2, 1),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(16, 1),
    )


def test_penalties_of_a_score_with_a_known_gradient(images):
    real, fake = images
    network = linear(3.0)
    weights = torch.tensor([0.0, 0.3, 0.7, 1.0])
    torch.testing.assert_close(gradient_penalty(network, real, fake, weights), torch.full((4,), 4.0))
    torch.testing.assert_close(gradient_penalty(network, real, fake, weights, center=0.0), torch.full((4,), 9.0))
    real.requires_grad_()
    torch.testing.assert_close(r1_penalty(network(real), real), torch.full((4,), 4.5))
    torch.testing.assert_close(r2_penalty([network(real), network(real)], real), torch.full((4,), 18.0))


def test_the_mixture_lies_where_the_weights_say(images):
    real, fake = images
    seen = []

    def score(mixed):
        seen.append(mixed)
        return mixed.flatten(1).sum(dim=1)

    gradient_penalty(score, real, fake, torch.tensor([0.0, 0.25, 0.5, 1.0]))
    (mixed,) = seen
    torch.testing.assert_close(mixed[0], fake[0])
    torch.testing.assert_close(mixed[1], 0.25 * real[1] + 0.75 * fake[1])
    torch.testing.assert_close(mixed[3], real[3])


@pytest.mark.parametrize("kind", ["gradient", "r1"])
def test_weights_get_the_gradient_of_the_penalty(images, kind):
    real, fake = (batch.double() for batch in images)
    network = small_network().double()
    weight = network[2].weight

    def penalty():
        if kind == "gradient":
            return gradient_penalty(network, real, fake, torch.full((4,), 0.4)).sum()
        samples = real.clone().requires_grad_()
        return r1_penalty(network(samples), samples).sum()

    # Because penalties are rounded to float32, the step of the differences is not tiny.
    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction, step = torch.randn_like(weight), 2e-3
    with torch.no_grad():
        weight += step * direction
    above = penalty().item()
    with torch.no_grad():
        weight -= 2 * step * direction
    slope = (above - penalty().item()) / (2 * step)
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=1e-2)


def test_no_gradient_reaches_the_generator(images):
    real, fake = images
    fake = fake.clone().requires_grad_()
    penalty = gradient_penalty(small_network(), real, fake, torch.rand(4)).sum()
    assert torch.autograd.grad(penalty, fake, allow_unused=True) == (None,)


def test_a_flat_score_has_a_penalty_with_a_gradient(images):
    network = linear(0.0)
    penalty = gradient_penalty(network, *images, torch.rand(4))
    torch.testing.assert_close(penalty, torch.ones(4))
    penalty.sum().backward()
    assert network[1].weight.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_penalties_of_mixed_precision_are_close_to_those_of_float32(images, dtype):
    real, fake = images
    network, weights = small_network(), torch.rand(4)
    real.requires_grad_()
    exact = gradient_penalty(network, real, fake, weights), r1_penalty(network(real), real)
    with torch.autocast("cpu", dtype):
        mixed = gradient_penalty(network, real, fake, weights), r1_penalty(network(real), real)
    for close, expected in zip(mixed, exact, strict=True):
        assert close.dtype == torch.float32
        torch.testing.assert_close(close, expected, rtol=0.03, atol=1e-5)


def test_weights_are_clipped_in_place():
    network = linear(30.0)
    storage = network[1].weight.data_ptr()
    clip_weights(network, 0.01)
    assert network[1].weight.data_ptr() == storage
    assert network[1].weight.eq(0.01).all() and network[1].bias.abs().le(0.01).all()


def test_the_penalty_of_pixels_does_not_depend_on_the_size_of_the_image():
    def critic(images):  # a score for each pixel, whose gradient there is (3, 4)
        return images @ torch.tensor([3.0, 4.0])

    for size in (2, 5):
        real, fake = torch.rand(3, 2, size, size), torch.rand(3, 2, size, size)
        penalty = pixel_gradient_penalty(lambda x: critic(x.movedim(1, -1)), real, fake, torch.rand(3))
        torch.testing.assert_close(penalty, torch.full((3,), 16.0))
