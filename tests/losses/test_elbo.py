import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Categorical as Weights, Independent, MixtureSameFamily, Normal, kl_divergence

from diffusers_ext.losses import (
    adaptive_weight,
    codebook_loss,
    commitment_loss,
    decompose_kl,
    last_layer_gradient,
    latent_discriminator_loss,
    reconstruction_error,
    shuffle_dimensions,
    standard_normal_kl,
    weighted_kl,
    weighted_kl_parts,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Reconstruction


def test_reconstruction_errors_are_negative_log_likelihoods_up_to_a_constant():
    images, means = normal(3, 2, 4, 5).sigmoid(), normal(3, 2, 4, 5, seed=1).sigmoid()
    gaussian = -Normal(means, 1.0).log_prob(images) - 0.5 * math.log(2 * math.pi)
    laplace = -torch.distributions.Laplace(means, 1.0).log_prob(images) - math.log(2)
    for kind, expected in (("mse", gaussian), ("l1", laplace)):
        torch.testing.assert_close(reconstruction_error(kind, means, images), expected.sum(dim=(1, 2, 3)))
    binary = images.round()
    bernoulli = -torch.distributions.Bernoulli(means).log_prob(binary)
    torch.testing.assert_close(reconstruction_error("bernoulli", means, binary), bernoulli.sum(dim=(1, 2, 3)))


def test_certain_and_wrong_probabilities_stay_finite():
    certain, images = torch.tensor([[0.0, 1.0]], requires_grad=True), torch.tensor([[1.0, 1.0]])
    error = reconstruction_error("bernoulli", certain, images)
    error.sum().backward()
    assert error.item() == 100 and certain.grad.isfinite().all()


def test_reconstruction_errors_are_float32_whatever_the_network_is():
    images = normal(2, 1, 3, 3).sigmoid()
    for kind in ("bernoulli", "mse", "l1"):
        error = reconstruction_error(kind, images.bfloat16(), images)
        assert error.shape == (2,) and error.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "shape", "sentence"),
    [
        ("l2", (2, 1, 3, 3), "loss_type must be one of bernoulli, mse, l1"),
        ("mse", (2, 1, 3, 4), "must have the shape"),
    ],
)
def test_what_is_no_reconstruction_is_refused(kind, shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        reconstruction_error(kind, torch.zeros(shape), torch.zeros(2, 1, 3, 3))


# Divergence


def test_divergence_from_the_prior_in_closed_form():
    mean, logvar = normal(4, 3), normal(4, 3, seed=1)
    posterior, prior = Normal(mean, (0.5 * logvar).exp()), Normal(torch.zeros(4, 3), torch.ones(4, 3))
    torch.testing.assert_close(standard_normal_kl(mean, logvar), kl_divergence(posterior, prior))
    assert standard_normal_kl(torch.zeros(1, 2), torch.zeros(1, 2)).abs().max() == 0


def test_a_divergence_that_is_small_beside_one_is_kept():
    mean, logvar = torch.tensor([1e-5, 0.0, 1e-4]), torch.tensor([0.0, 1e-3, -1e-3])
    exact = 0.5 * (logvar.double().expm1() - logvar.double() + mean.double().square())
    torch.testing.assert_close(standard_normal_kl(mean, logvar).double(), exact, rtol=1e-3, atol=0)


def test_a_capacity_draws_the_divergence_to_it_from_both_sides():
    kl = torch.tensor([1.0, 5.0])
    assert weighted_kl(kl, beta=4.0).tolist() == [4.0, 20.0]
    assert weighted_kl(kl, beta=10.0, capacity=2.0).tolist() == [10.0, 30.0]


def aggregate_posterior(mean, logvar):
    """q(z) and its marginals, which are mixtures over the whole data set."""
    weights = Weights(torch.full((len(mean),), 1 / len(mean)))
    joint = MixtureSameFamily(weights, Independent(Normal(mean, (0.5 * logvar).exp()), 1))
    marginals = [
        MixtureSameFamily(weights, Normal(mean[:, d], (0.5 * logvar[:, d]).exp())) for d in range(mean.shape[1])
    ]
    return joint, marginals


@pytest.fixture
def posteriors():
    mean, logvar = 2 * normal(6, 3), normal(6, 3, seed=1) - 1
    return mean, logvar, mean + (0.5 * logvar).exp() * normal(6, 3, seed=2)


def test_with_all_images_in_the_batch_the_weighted_parts_are_exact_but_for_a_constant(posteriors):
    # All weights are then 1/36, where the mixture has 1/6.
    mean, logvar, latents = posteriors
    parts = decompose_kl(latents, mean, logvar, dataset_size=6, estimator="weighted")
    joint, marginals = aggregate_posterior(mean, logvar)
    log_q = joint.log_prob(latents)
    log_marginals = sum(marginal.log_prob(latents[:, d]) for d, marginal in enumerate(marginals))
    log_conditional = Normal(mean, (0.5 * logvar).exp()).log_prob(latents).sum(dim=1)
    log_prior = Normal(0.0, 1.0).log_prob(latents).sum(dim=1)
    constant = math.log(6)
    torch.testing.assert_close(parts.mutual_information, log_conditional - log_q + constant)
    torch.testing.assert_close(parts.total_correlation, log_q - log_marginals + 2 * constant)
    torch.testing.assert_close(parts.dimension_wise_kl, log_marginals - log_prior - 3 * constant)


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
def test_the_parts_add_up_to_a_draw_of_the_divergence(posteriors, estimator):
    mean, logvar, latents = posteriors
    parts = decompose_kl(latents, mean, logvar, dataset_size=100, estimator=estimator)
    draw = Normal(mean, (0.5 * logvar).exp()).log_prob(latents) - Normal(0.0, 1.0).log_prob(latents)
    torch.testing.assert_close(weighted_kl_parts(parts, beta=1.0), draw.sum(dim=1), rtol=1e-4, atol=1e-4)
    expected = 2 * parts.mutual_information + 6 * parts.total_correlation + 3 * parts.dimension_wise_kl
    torch.testing.assert_close(weighted_kl_parts(parts, beta=6.0, alpha=2.0, gamma=3.0), expected)


def test_stratified_sampling_estimates_the_density_without_bias(posteriors):
    # Chen et al. 2018, appendix C.2: over all batches that hold the image, the mean of the estimate is q(z).
    mean, logvar, latents = (tensor.double().float() for tensor in posteriors)
    estimates = []
    for others in itertools.permutations(range(1, 6), 2):
        rows = torch.tensor([0, *others])
        parts = decompose_kl(latents[:1], mean[rows], logvar[rows], dataset_size=6)
        log_conditional = Normal(mean[:1], (0.5 * logvar[:1]).exp()).log_prob(latents[:1]).sum(dim=1)
        estimates.append((log_conditional - parts.mutual_information).exp())
    joint, _ = aggregate_posterior(mean, logvar)
    torch.testing.assert_close(torch.stack(estimates).mean(), joint.log_prob(latents[0]).exp())


def test_weighted_sampling_is_the_formula_of_the_paper(posteriors):
    mean, logvar, latents = posteriors
    parts = decompose_kl(latents, mean, logvar, dataset_size=50, estimator="weighted")
    densities = Normal(mean, (0.5 * logvar).exp()).log_prob(latents[:, None]).sum(dim=2).exp()
    log_q = (densities.sum(dim=1) / (50 * 6)).log()
    torch.testing.assert_close(parts.mutual_information, densities.diagonal().log() - log_q)


def test_independent_latents_have_no_total_correlation():
    grid = torch.cartesian_prod(torch.linspace(-3, 3, 9), torch.linspace(-3, 3, 9))
    parts = decompose_kl(grid, grid, torch.full_like(grid, -3.0), dataset_size=81)
    assert parts.total_correlation.abs().max() < 0.1
    line = torch.linspace(-3, 3, 81)[:, None].expand(-1, 2)
    parts = decompose_kl(line, line, torch.full_like(line, -3.0), dataset_size=81)
    assert parts.total_correlation.min() > 0.5


def test_rows_of_a_larger_batch_are_judged_by_all_of_it(posteriors):
    mean, logvar, latents = posteriors
    whole = decompose_kl(latents, mean, logvar, dataset_size=20)
    part = decompose_kl(latents[4:], mean, logvar, dataset_size=20, rows=torch.tensor([4, 5]))
    for name, values in vars(part).items():
        torch.testing.assert_close(values, getattr(whole, name)[4:])


@pytest.mark.parametrize(
    ("count", "size", "options", "sentence"),
    [
        (1, 9, {}, r"from batches of 2 to 9 images \(the whole data set\), not of 1"),
        (6, 5, {}, r"2 to 5 images \(the whole data set\), not of 6"),
        (6, 9, {"estimator": "exact"}, "estimator must be one of stratified, weighted"),
    ],
)
def test_batches_that_tell_nothing_are_refused(posteriors, count, size, options, sentence):
    mean, logvar, latents = (tensor[:count] for tensor in posteriors)
    with pytest.raises(ValueError, match=sentence):
        decompose_kl(latents, mean, logvar, dataset_size=size, **options)


# FactorVAE


def test_shuffling_keeps_each_dimension_and_nothing_of_their_relation():
    latents = torch.arange(50.0)[:, None] + torch.tensor([0.0, 100.0])
    shuffled = shuffle_dimensions(latents, normal(50, 2))
    assert torch.equal(shuffled.sort(dim=0).values, latents)
    assert not torch.equal(shuffled[:, 0] + 100, shuffled[:, 1])


def test_the_latent_discriminators_best_logits_are_the_log_ratio():
    # q(z) and the product of marginals on four points: the minimum over logits is log q - log p.
    q, p = torch.tensor([0.4, 0.1, 0.1, 0.4]), torch.full((4,), 0.25)
    logits = (q / p).log().requires_grad_()
    real, shuffled = (
        latent_discriminator_loss(logits, torch.full((4,), -1e9)),
        latent_discriminator_loss(torch.full((4,), 1e9), logits),
    )
    (q * real + p * shuffled).sum().backward()
    assert logits.grad.abs().max() < 1e-6


def test_the_latent_discriminator_is_a_classifier():
    logits, shuffled = normal(5), normal(5, seed=1)
    expected = F.binary_cross_entropy_with_logits(
        torch.stack([logits, shuffled]), torch.tensor([[1.0] * 5, [0.0] * 5]), reduction="none"
    )
    torch.testing.assert_close(latent_discriminator_loss(logits, shuffled), expected.mean(dim=0))


# Codes


def test_commitment_moves_latents_and_the_codebook_loss_moves_codes():
    latents, codes = normal(2, 3, 4, 4).requires_grad_(), normal(2, 3, 4, 4, seed=1).requires_grad_()
    loss = commitment_loss(latents, codes, beta=0.5)
    torch.testing.assert_close(loss, 0.5 * (latents - codes).square().mean(dim=(1, 2, 3)))
    loss.sum().backward()
    assert latents.grad.abs().sum() > 0 and codes.grad is None
    latents.grad = None
    codebook_loss(latents, codes).sum().backward()
    assert codes.grad.abs().sum() > 0 and latents.grad is None


# The adaptive weight


def test_the_adaptive_weight_balances_gradients_at_the_last_layer():
    layer = torch.nn.Linear(3, 2, bias=False)
    output = layer(normal(4, 3))
    reconstruction, adversarial = output.square().mean(), 100 * output.abs().mean()
    gradients = [last_layer_gradient(loss, layer.weight) for loss in (reconstruction, adversarial)]
    weight = adaptive_weight(*gradients)
    torch.testing.assert_close((weight * gradients[1]).norm(), gradients[0].norm(), rtol=1e-4, atol=0)
    assert layer.weight.grad is None
    reconstruction.backward()  # the graph is kept
    assert adaptive_weight(torch.ones(1), torch.zeros(1)) == 1e4
