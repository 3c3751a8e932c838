"""The variational terms and losses, against guided-diffusion's (golden/*/*/case.json says what each output is)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusers_ext.losses.variational import (
    discretized_gaussian_log_likelihood,
    gaussian_diffusion_loss,
    normal_kl,
    prior_bits_per_dim,
    variational_bound_term,
)
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


GOLDEN = Path(__file__).parent / "golden" / "gaussian_diffusion"
PREDICTION_TYPES = {"EPSILON": "epsilon", "START_X": "sample"}
BETA_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


def reference_scheduler(config) -> ExactDDPMScheduler:
    """The process of a golden case."""
    scheduler = ExactDDPMScheduler(
        num_train_timesteps=config["steps"],
        beta_schedule=BETA_SCHEDULES[config["noise_schedule"]],
        prediction_type=PREDICTION_TYPES[config["model_mean_type"]],
        variance_type=config["model_var_type"].lower(),
    )
    if config["timestep_respacing"]:
        scheduler.set_timesteps(respacing=config["timestep_respacing"])
    return scheduler


LOSSES = json.loads((GOLDEN / "training_losses" / "case.json").read_text())["config"]["losses"]


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "training_losses" / "case.safetensors")


@pytest.fixture
def images():
    """8-bit images in [-1, 1], noise, and a possible output of a network."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (4, 1, 4, 4), generator=generator)
    noise, output, variance = torch.randn(3, 4, 1, 4, 4, generator=generator)
    return levels / 127.5 - 1, noise, output, variance.clamp(-1, 1)


def test_the_cases_are_there():
    assert len(LOSSES) == 7


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_the_reference(golden, name):
    config = LOSSES[name]
    scheduler = reference_scheduler(config)
    timesteps = scheduler.timesteps.flip(0)[golden["inputs.t"]]
    clean, noise = golden["inputs.x_start"], golden["inputs.noise"]
    output = golden[f"inputs.{name}.model_output"].requires_grad_()
    noisy = scheduler.q_sample(clean, timesteps, noise)
    result = gaussian_diffusion_loss(config["loss_type"].lower(), output, clean, noisy, noise, timesteps, scheduler)
    result.loss.sum().backward()

    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(result.loss.detach(), golden[f"outputs.{name}.loss"], **close)
    # A KL gradient is the small difference of two means over a tiny variance: the reference's own, in float32, is up
    # to 3e-5 of its size away from that in float64.
    gradient = golden[f"outputs.{name}.grad_model_output"]
    size = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(output.grad / size, gradient / size, rtol=0, atol=1e-4)
    for part in ("mse", "vb"):
        if f"outputs.{name}.{part}" in golden:
            torch.testing.assert_close(getattr(result, part).detach(), golden[f"outputs.{name}.{part}"], **close)


def test_normal_kl_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    mean1, log_variance1, mean2, log_variance2 = torch.randn(4, 100, generator=generator)
    p, q = (
        torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        for mean, log_variance in ((mean1, log_variance1), (mean2, log_variance2))
    )
    expected = torch.distributions.kl_divergence(p, q)
    torch.testing.assert_close(normal_kl(mean1, log_variance1, mean2, log_variance2), expected, rtol=1e-5, atol=1e-6)
    assert normal_kl(mean1, log_variance1, mean1, log_variance1).abs().max() == 0


def test_normal_kl_keeps_what_is_small_beside_one():
    """As in late steps of a long process, where each term of the bound is far below the rounding error of 1."""
    distance, log_ratio = torch.tensor([1e-5, 0.0, 1e-4, 1.0]), torch.tensor([0.0, 1e-3, -1e-3, 1e-6])
    zero = torch.zeros(4)
    exact = 0.5 * (log_ratio.double().expm1() - log_ratio.double() + distance.double().square())
    torch.testing.assert_close(normal_kl(distance, log_ratio, zero, zero).double(), exact, rtol=1e-3, atol=0)


@pytest.mark.parametrize("mean", [-1.2, -0.3, 0.9])
@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
def test_the_probabilities_of_all_levels_sum_to_one(mean, scale):
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    mean, log_scale = torch.tensor(mean).double(), torch.tensor(scale).double().log()
    probabilities = discretized_gaussian_log_likelihood(levels, mean, log_scale).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-9)
    exact = torch.distributions.Normal(mean, scale)
    inner = exact.cdf(levels + 1 / 255) - exact.cdf(levels - 1 / 255)
    torch.testing.assert_close(probabilities[1:-1], inner[1:-1], rtol=0, atol=5e-4)


def test_extreme_predictions_have_finite_gradients():
    """For distant means and tiny scales, the probability is 1e-12 and not NaN."""
    images = torch.tensor([-1.0, 0.0, 1.0]).repeat(3)
    means = torch.tensor([0.0, 5.0, -1e4]).repeat_interleave(3).requires_grad_()
    log_scales = torch.full((9,), -40.0, requires_grad=True)
    log_likelihood = discretized_gaussian_log_likelihood(images, means, log_scales)
    log_likelihood.sum().backward()
    assert log_likelihood.isfinite().all() and log_likelihood.min() >= -27.7
    assert means.grad.isfinite().all() and log_scales.grad.isfinite().all()


def test_a_perfect_prediction_costs_nothing_but_the_first_step(images):
    """The KL terms of the true posterior are zero; the decoder term is not."""
    clean, noise, _, _ = images
    scheduler = ExactDDPMScheduler(variance_type="fixed_small")
    timesteps = torch.tensor([0, 1, 500, 999])
    noisy = scheduler.q_sample(clean, timesteps, noise)
    term = variational_bound_term(
        noise, clean, noisy, timesteps, ExactDDPMScheduler(variance_type="fixed_small", clip_sample=False)
    )
    assert term.bits_per_dim[0] > 1
    assert term.bits_per_dim[1:].abs().max() < 1e-4
    torch.testing.assert_close(term.pred_original_sample[:3], clean[:3], rtol=0, atol=1e-4)


def test_the_first_step_is_the_chains_own(images):
    """In a respaced chain, the decoder term is at the first timestep of the chain, here 100."""
    clean, noise, output, _ = images
    scheduler = ExactDDPMScheduler()
    scheduler.set_timesteps(timesteps=[900, 500, 100])
    timesteps = torch.full((4,), 100)
    noisy = scheduler.q_sample(clean, timesteps, noise)
    term = variational_bound_term(output, clean, noisy, timesteps, scheduler)
    predicted = scheduler.p_mean_variance(output, timesteps, noisy)
    nll = -discretized_gaussian_log_likelihood(clean, predicted.mean, 0.5 * predicted.log_variance)
    torch.testing.assert_close(term.bits_per_dim, nll.mean(dim=(1, 2, 3)) / torch.tensor(2.0).log())


def test_the_prior_term(images):
    """KL(N(alpha x, sigma^2) || N(0, 1)) written out."""
    clean = images[0]
    scheduler = ExactDDPMScheduler()
    signal = scheduler.alphas_cumprod[-1].double()
    nats = 0.5 * (signal * clean.double().square() - signal - torch.log1p(-signal))
    expected = nats.mean(dim=(1, 2, 3)) / torch.tensor(2.0).double().log()
    torch.testing.assert_close(prior_bits_per_dim(clean, scheduler).double(), expected, rtol=1e-2, atol=1e-8)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large", "learned", "learned_range"])
@pytest.mark.parametrize("loss_type", ["mse", "rescaled_mse", "kl", "rescaled_kl"])
def test_every_parametrisation(images, prediction_type, variance_type, loss_type):
    """Equal predictions of the clean image give equal variational terms, with gradients for all parametrisations."""
    clean, noise, error, variance = images
    # Near enough for a probability above 1e-12 at the first step: below it, as in the reference, nothing is learned.
    guess = clean + 0.01 * error
    timesteps = torch.tensor([0, 10, 300, 700])
    scheduler = ExactDDPMScheduler(prediction_type=prediction_type, variance_type=variance_type)
    levels = scheduler.alphas_cumprod[timesteps].view(4, 1, 1, 1)
    alpha, sigma = levels.sqrt(), (1 - levels).sqrt()
    noisy = scheduler.q_sample(clean, timesteps, noise)
    outputs = {
        "epsilon": (noisy - alpha * guess) / sigma,
        "sample": guess,
        "v_prediction": (alpha * noisy - guess) / sigma,
    }
    is_learned = variance_type.startswith("learned")

    def loss(kind, process):
        output = torch.cat([outputs[kind], variance], dim=1) if is_learned else outputs[kind].clone()
        output.requires_grad_()
        result = gaussian_diffusion_loss(loss_type, output, clean, noisy, noise, timesteps, process)
        assert result.loss.shape == (4,) and result.loss.dtype == torch.float32
        result.loss.sum().backward()
        return result, output.grad

    result, gradient = loss(prediction_type, scheduler)
    assert gradient.isfinite().all() and (gradient.flatten(2).abs().sum(dim=2) > 0).all()
    if result.vb is not None:
        reference = ExactDDPMScheduler(prediction_type="sample", variance_type=variance_type)
        torch.testing.assert_close(result.vb, loss("sample", reference)[0].vb, rtol=2e-3, atol=1e-4)
    if result.mse is not None:
        target = {"epsilon": noise, "sample": clean, "v_prediction": alpha * noise - sigma * clean}[prediction_type]
        expected = (outputs[prediction_type] - target).square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(result.mse, expected, rtol=1e-5, atol=1e-6)


def test_the_variational_term_teaches_only_the_variance(images):
    clean, noise, mean, variance = images
    scheduler = ExactDDPMScheduler(variance_type="learned_range")
    timesteps = torch.tensor([0, 10, 300, 700])
    output = torch.cat([mean, variance], dim=1).requires_grad_()
    noisy = scheduler.q_sample(clean, timesteps, noise)
    result = gaussian_diffusion_loss("rescaled_mse", output, clean, noisy, noise, timesteps, scheduler)
    result.vb.sum().backward()
    assert (output.grad[:, 0] == 0).all() and (output.grad[:, 1] != 0).any()


def test_half_precision_is_computed_in_float32(images):
    clean, noise, mean, variance = images
    scheduler = ExactDDPMScheduler(variance_type="learned_range")
    timesteps = torch.tensor([0, 10, 300, 700])
    noisy = scheduler.q_sample(clean, timesteps, noise)
    output = torch.cat([mean, variance], dim=1).bfloat16()
    arguments = (clean, noisy, noise, timesteps, scheduler)
    expected = gaussian_diffusion_loss("rescaled_mse", output.float(), *arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = gaussian_diffusion_loss("rescaled_mse", output, *arguments)
    for part in ("loss", "mse", "vb"):
        assert torch.equal(getattr(result, part), getattr(expected, part))


def test_bad_input_is_refused(images):
    clean, noise, output, _ = images
    scheduler, timesteps = ExactDDPMScheduler(), torch.tensor([0, 1, 2, 3])
    arguments = (clean, clean, noise, timesteps)
    with pytest.raises(ValueError, match="loss_type must be one of mse, rescaled_mse, kl, rescaled_kl, not l2"):
        gaussian_diffusion_loss("l2", output, *arguments, scheduler)
    with pytest.raises(ValueError, match="must have 2 channels, not 1"):
        gaussian_diffusion_loss("kl", output, *arguments, ExactDDPMScheduler(variance_type="learned_range"))
    with pytest.raises(ValueError, match="must have 1 channels, not 2"):
        gaussian_diffusion_loss("mse", torch.cat([output, output], dim=1), *arguments, scheduler)
