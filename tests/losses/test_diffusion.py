import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from diffusers_ext.losses import diffusion_loss, loss_weights, noise_levels, prediction_target


VARIANCE_PRESERVING = ["epsilon", "sample", "v_prediction"]


@pytest.fixture
def scheduler():
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2")


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 4, 3, 8, 8, generator=generator)
    return clean, noise, torch.tensor([0, 100, 500, 999])


def clean_from(prediction_type, prediction, noisy, alpha, sigma):
    """The clean image from each parametrisation."""
    if prediction_type == "epsilon":
        return (noisy - sigma * prediction) / alpha
    if prediction_type == "v_prediction":
        return alpha * noisy - sigma * prediction
    return noisy - sigma * prediction if prediction_type == "flow_prediction" else prediction


def test_noise_levels_are_those_of_diffusers(scheduler, images):
    clean, noise, timesteps = images
    alpha, sigma = noise_levels(scheduler, timesteps)
    torch.testing.assert_close(alpha * clean + sigma * noise, scheduler.add_noise(clean, noise, timesteps))
    torch.testing.assert_close(
        prediction_target("v_prediction", clean, noise, alpha, sigma), scheduler.get_velocity(clean, noise, timesteps)
    )


def test_flow_levels_are_those_of_diffusers(images):
    clean, noise, _ = images
    scheduler = FlowMatchEulerDiscreteScheduler()
    timesteps = scheduler.timesteps[[0, 10, 500, 999]]
    alpha, sigma = noise_levels(scheduler, timesteps)
    expected = torch.stack(
        [scheduler.scale_noise(c[None], t[None], n[None])[0] for c, t, n in zip(clean, timesteps, noise, strict=True)]
    )
    torch.testing.assert_close(alpha * clean + sigma * noise, expected)


def test_edm_levels_are_those_of_the_scaled_input(images):
    clean, noise, _ = images
    scheduler = EDMEulerScheduler(sigma_data=0.7)
    sigmas = torch.tensor([0.002, 0.5, 3.0, 80.0])[:, None, None, None]
    timesteps = scheduler.precondition_noise(sigmas.flatten())
    alpha, sigma = noise_levels(scheduler, timesteps)
    expected = scheduler.precondition_inputs(clean + sigmas * noise, sigmas)
    torch.testing.assert_close(alpha * clean + sigma * noise, expected)


def test_a_solver_that_keeps_alphas_cumprod_can_be_one_of_a_flow(images):
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    alpha, sigma = noise_levels(scheduler, torch.tensor([0.0, 250.0]))
    assert alpha.flatten().tolist() == [1.0, 0.75] and sigma.flatten().tolist() == [0.0, 0.25]


@pytest.mark.parametrize("prediction_type", [*VARIANCE_PRESERVING, "flow_prediction"])
def test_the_target_gives_the_clean_image_back(scheduler, images, prediction_type):
    clean, noise, timesteps = images
    if prediction_type == "flow_prediction":
        scheduler = FlowMatchEulerDiscreteScheduler()
    alpha, sigma = noise_levels(scheduler, timesteps[1:3])
    clean, noise = clean[1:3], noise[1:3]
    target = prediction_target(prediction_type, clean, noise, alpha, sigma)
    restored = clean_from(prediction_type, target, alpha * clean + sigma * noise, alpha, sigma)
    torch.testing.assert_close(restored, clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weighting", ["min_snr", "p2"])
@pytest.mark.parametrize("prediction_type", VARIANCE_PRESERVING)
def test_weighted_losses_do_not_depend_on_the_parametrisation(scheduler, images, weighting, prediction_type):
    clean, noise, timesteps = images
    clean, noise, timesteps = clean.double(), noise.double(), timesteps[1:3]
    alpha, sigma = (level.double() for level in noise_levels(scheduler, timesteps))
    noisy = alpha * clean[1:3] + sigma * noise[1:3]
    guess = clean[1:3] + 0.1
    predictions = {
        "sample": guess,
        "epsilon": (noisy - alpha * guess) / sigma,
        "v_prediction": (alpha * noisy - guess) / sigma,
    }
    losses = {}
    for kind in ("sample", prediction_type):
        target = prediction_target(kind, clean[1:3], noise[1:3], alpha, sigma)
        losses[kind] = diffusion_loss(predictions[kind], target, loss_weights(weighting, kind, alpha, sigma))
    torch.testing.assert_close(losses[prediction_type], losses["sample"], rtol=1e-4, atol=0)


def test_published_weights(scheduler):
    alpha, sigma = noise_levels(scheduler, torch.tensor([10, 500, 900]))
    snr = (alpha / sigma).square()
    weight = loss_weights("min_snr", "epsilon", alpha, sigma, snr_gamma=5.0)
    torch.testing.assert_close(weight, torch.clamp(5.0 / snr, max=1.0))
    weight = loss_weights("min_snr", "v_prediction", alpha, sigma, snr_gamma=5.0)
    torch.testing.assert_close(weight, torch.clamp(snr, max=5.0) / (snr + 1))
    weight = loss_weights("p2", "epsilon", alpha, sigma, p2_gamma=0.5, p2_k=2.0)
    torch.testing.assert_close(weight, (2.0 + snr) ** -0.5)


@pytest.mark.parametrize("weighting", ["none", "min_snr", "p2"])
@pytest.mark.parametrize("prediction_type", [*VARIANCE_PRESERVING, "flow_prediction"])
def test_weights_are_finite_at_the_ends_of_the_process(weighting, prediction_type):
    alpha = torch.tensor([0.0, 1.0])[:, None, None, None]
    weights = loss_weights(weighting, prediction_type, alpha, 1 - alpha)
    assert weights.isfinite().all() and (weights >= 0).all()


def test_the_loss_is_float32_and_per_sample():
    prediction = torch.ones(2, 3, 4, 4, dtype=torch.bfloat16)
    weights = torch.tensor([1.0, 2.0])[:, None, None, None]
    loss = diffusion_loss(prediction, torch.zeros(2, 3, 4, 4), weights)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor([1.0, 2.0]))


def test_unknown_names_are_refused(images):
    clean, noise, _ = images
    with pytest.raises(ValueError, match="prediction_type must be one of epsilon"):
        prediction_target("eps", clean, noise, 1, 0)
    with pytest.raises(ValueError, match="loss_weighting must be one of none"):
        loss_weights("snr", "epsilon", torch.ones(1), torch.ones(1))
