"""EDM's stochastic Heun sampler: the values of the reference, and the loop of diffusers."""

import math

import pytest
import torch
from diffusers import EDMEulerScheduler

from diffusers_ext.schedulers.scheduling_edm_heun import EDMHeunScheduler
from tests.schedulers.golden_cases import case_names, load_case
from tests.schedulers.testing import (
    SchedulerAddNoiseTesterMixin,
    SchedulerDeterminismTesterMixin,
    SchedulerFromConfigTesterMixin,
    SchedulerSaveLoadTesterMixin,
    SchedulerStepTesterMixin,
    SchedulerTesterConfig,
)


CHURN = {"s_churn": 4.0, "s_tmin": 0.05, "s_tmax": 20.0, "s_noise": 1.007}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def standard_normal_network(model_input: torch.Tensor, timestep: torch.Tensor, sigma_data: float = 0.5):
    """The F whose denoiser is that of standard normal images, D(x; sigma) = x / (1 + sigma^2).

    It sees what a network does: the scaled sample and log(sigma) / 4.
    """
    variance, data_variance = (8 * timestep.double()).exp(), sigma_data**2
    sample = model_input.double() * (variance + data_variance).sqrt()
    c_skip = data_variance / (variance + data_variance)
    c_out = variance.sqrt() * sigma_data / (variance + data_variance).sqrt()
    return ((sample / (1 + variance) - c_skip * sample) / c_out).to(model_input.dtype)


def sample_loop(scheduler, sample: torch.Tensor, generator=None) -> torch.Tensor:
    """The sampling loop of pipelines."""
    for timestep in scheduler.timesteps:
        output = standard_normal_network(scheduler.scale_model_input(sample, timestep), timestep)
        sample = scheduler.step(output, timestep, sample, generator=generator).prev_sample
    return sample


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", case_names("edm_sampler"))
def test_golden_trajectory(name, dtype):
    config, inputs, outputs = load_case("edm_sampler", name)
    arguments = config["args"]
    churn = {"S_churn": "s_churn", "S_min": "s_tmin", "S_max": "s_tmax", "S_noise": "s_noise"}
    scheduler = EDMHeunScheduler(
        **{key: arguments[key] for key in ("sigma_min", "sigma_max", "rho")},
        **{ours: arguments[theirs] for theirs, ours in churn.items() if theirs in arguments},
    )
    scheduler.set_timesteps(arguments["num_steps"])
    torch.testing.assert_close(scheduler.sigmas[:-1], outputs["denoiser_sigma"], rtol=1e-6, atol=0)
    torch.testing.assert_close(scheduler.timesteps, outputs["denoiser_sigma"].log() / 4, rtol=1e-5, atol=1e-6)

    sample = inputs["latents"].to(dtype) * scheduler.init_noise_sigma
    for call, timestep in enumerate(scheduler.timesteps):
        torch.testing.assert_close(sample.float(), outputs["denoiser_x"][call], rtol=1e-5, atol=1e-5)
        output = standard_normal_network(scheduler.scale_model_input(sample, timestep), timestep)
        noise = inputs["noise"][(call + 1) // 2] if "noise" in inputs and call % 2 else None
        sample = scheduler.step(output, timestep, sample, variance_noise=noise).prev_sample
    torch.testing.assert_close(sample.float(), outputs["final"], rtol=1e-5, atol=1e-5)


def test_heun_is_of_second_order():
    """Standard normal images: the exact path scales the sample by sqrt((1 + sigma^2) / (1 + sigma_max^2))."""
    start = random(1, 3, 8, 8).double()
    errors = []
    for steps in (16, 32):
        scheduler = EDMHeunScheduler(sigma_max=10.0, final_sigmas_type="sigma_min")
        scheduler.set_timesteps(steps)
        exact = start * 10 * math.sqrt((1 + 0.002**2) / (1 + 10**2))
        errors.append((sample_loop(scheduler, start * 10) - exact).abs().max())
    assert 3 < errors[0] / errors[1] < 6


def test_churn_keeps_the_distribution():
    """Also if it raises the first noise level, which the initial sample must have already."""
    scheduler = EDMHeunScheduler(s_churn=100.0)
    scheduler.set_timesteps(100)
    assert scheduler.init_noise_sigma == pytest.approx(80 * math.sqrt(2), rel=1e-6)
    assert scheduler.sigmas[0] == pytest.approx(80 * math.sqrt(2), rel=1e-6)
    start = random(32, 3, 16, 16) * scheduler.init_noise_sigma
    assert sample_loop(scheduler, start, torch.Generator().manual_seed(0)).std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_preconditioning_is_that_of_diffusers(prediction_type):
    theirs = EDMEulerScheduler(prediction_type=prediction_type)
    ours = EDMHeunScheduler.from_config(theirs.config)
    sample, output, sigma = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1), torch.tensor(3.0)
    for name, arguments in (
        ("precondition_inputs", (sample, sigma)),
        ("precondition_noise", (sigma,)),
        ("precondition_outputs", (sample, output, sigma)),
    ):
        torch.testing.assert_close(getattr(ours, name)(*arguments), getattr(theirs, name)(*arguments))
    for schedule in ("karras", "exponential"):
        theirs = EDMEulerScheduler(sigma_schedule=schedule)
        ours = EDMHeunScheduler.from_config(theirs.config)
        theirs.set_timesteps(10)
        ours.set_timesteps(10)
        torch.testing.assert_close(ours.sigmas[::2], theirs.sigmas[:-1], rtol=1e-5, atol=0)


def test_custom_noise_levels_and_a_later_start():
    scheduler = EDMHeunScheduler()
    scheduler.set_timesteps(sigmas=[10.0, 1.0, 0.1])
    torch.testing.assert_close(scheduler.sigmas, torch.tensor([10.0, 1.0, 1.0, 0.1, 0.1, 0.0]))
    start = random(1, 3, 4, 4)
    expected = start
    scheduler.set_begin_index(2)
    for timestep in scheduler.timesteps[2:]:
        output = standard_normal_network(scheduler.scale_model_input(expected, timestep), timestep)
        expected = scheduler.step(output, timestep, expected).prev_sample
    scheduler.set_timesteps(sigmas=[10.0, 1.0, 0.1])
    sample = start
    for timestep in scheduler.timesteps[2:]:
        output = standard_normal_network(scheduler.scale_model_input(sample, timestep), timestep)
        sample = scheduler.step(output, timestep, sample).prev_sample
    assert torch.equal(sample, expected)


def test_bad_use_is_refused():
    for config in ({"sigma_schedule": "linear"}, {"prediction_type": "sample"}, {"final_sigmas_type": "one"}):
        with pytest.raises(ValueError, match="must be one of"):
            EDMHeunScheduler(**config)
    scheduler = EDMHeunScheduler()
    for arguments in ({}, {"num_inference_steps": 0}, {"sigmas": []}, {"sigmas": [1.0, 2.0]}, {"sigmas": [1.0, 0.0]}):
        with pytest.raises(ValueError):
            scheduler.set_timesteps(**arguments)
    scheduler.set_timesteps(3)
    sample = random(1, 3, 4, 4)
    with pytest.raises(ValueError, match="not one of the scheduler's timesteps"):
        scheduler.step(sample, 17.0, sample)
    sample_loop(scheduler, sample)
    with pytest.raises(ValueError, match="All steps are done"):
        scheduler.step(sample, scheduler.timesteps[-1], sample)


class HeunConfig(SchedulerTesterConfig):
    scheduler_class = EDMHeunScheduler
    config = {"sigma_max": 50.0}
    compatible_classes = (EDMEulerScheduler,)


class ChurnConfig(HeunConfig):
    config = {"sigma_max": 50.0, **CHURN}


class TestHeunSaveLoad(ChurnConfig, SchedulerSaveLoadTesterMixin):
    pass


class TestHeunFromConfig(ChurnConfig, SchedulerFromConfigTesterMixin):
    pass


class TestHeunStep(HeunConfig, SchedulerStepTesterMixin):
    pass


class TestHeunAddNoise(HeunConfig, SchedulerAddNoiseTesterMixin):
    pass


class TestHeunDeterminism(ChurnConfig, SchedulerDeterminismTesterMixin):
    pass
