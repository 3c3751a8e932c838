import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from diffusers_ext.pipelines.schedules import (
    check_noise_conditioning,
    check_schedule,
    get_noise_levels,
    get_step_arguments,
    reads_variance,
    set_timesteps,
)


CPU = torch.device("cpu")


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), HeunDiscreteScheduler()])
def test_with_a_strength_the_last_steps_are_made(scheduler):
    whole = set_timesteps(scheduler, CPU, 10)
    assert torch.equal(whole, scheduler.timesteps)
    for strength, num_steps in ((0.5, 5), (0.31, 3), (0.001, 1)):
        timesteps = set_timesteps(scheduler, CPU, 10, strength=strength)
        assert torch.equal(timesteps, whole[-len(timesteps) :])
        assert math.ceil(len(timesteps) / scheduler.order) == num_steps


def test_a_given_schedule_replaces_the_default():
    assert len(set_timesteps(DDPMScheduler(), CPU, 10, num_inference_steps=4)) == 4
    assert set_timesteps(DDPMScheduler(), CPU, 10, timesteps=[900, 20]).tolist() == [900, 20]
    assert len(set_timesteps(FlowMatchEulerDiscreteScheduler(), CPU, 10, sigmas=[1.0, 0.5])) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_inference_steps": 4, "timesteps": [3]}, "Only one of"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be a positive integer"),
        ({"timesteps": [3]}, "`timesteps` cannot be given, because DDIMScheduler makes its own"),
        ({"eta": 1.5}, "`eta` must be between 0"),
    ],
)
def test_schedules_that_a_scheduler_cannot_make(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_schedule(DDIMScheduler(), **arguments)
    check_schedule(DDIMScheduler(), num_inference_steps=4, eta=0.5)
    with pytest.raises(ValueError, match="`eta` must be 0, because DDPMScheduler does not have it"):
        check_schedule(DDPMScheduler(), eta=0.5)


def test_noise_levels_are_interpolated():
    scheduler = DDPMScheduler()
    timesteps = torch.tensor([999.0, 10.25, 0.0])
    gammas = scheduler.alphas_cumprod
    expected = torch.stack([gammas[999], torch.lerp(gammas[10], gammas[11], 0.25), gammas[0]])
    assert get_noise_levels(scheduler, timesteps, "timestep") is timesteps
    torch.testing.assert_close(get_noise_levels(scheduler, timesteps, "gamma"), expected)
    torch.testing.assert_close(get_noise_levels(scheduler, timesteps, "sqrt_gamma"), expected.sqrt())


def test_flows_have_no_gamma():
    for scheduler in (
        FlowMatchEulerDiscreteScheduler(),
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    ):
        check_noise_conditioning("timestep", scheduler)
        with pytest.raises(ValueError, match="'gamma', the noise"):
            check_noise_conditioning("gamma", scheduler)
    check_noise_conditioning("gamma", DDPMScheduler())


def test_what_the_step_of_a_scheduler_takes():
    generator = torch.Generator()
    assert get_step_arguments(DDIMScheduler(), eta=0.0, generator=generator) == {"eta": 0.0, "generator": generator}
    assert get_step_arguments(DDPMScheduler(), eta=0.0, generator=generator) == {"generator": generator}


def test_which_schedulers_read_a_learned_variance():
    assert reads_variance(DDPMScheduler(variance_type="learned_range"))
    assert not reads_variance(DDPMScheduler())
    assert not reads_variance(DPMSolverMultistepScheduler(variance_type="learned_range"))
    assert not reads_variance(DDIMScheduler.from_config(DDPMScheduler(variance_type="learned").config))
