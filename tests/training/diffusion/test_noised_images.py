import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from diffusers_ext.training.diffusion.noised_images import noised_images


def test_images_are_noised_as_the_diffusion_model_sees_them():
    clean, noise = torch.randn(2, 3, 1, 8, 8)
    level = torch.tensor([0.0, 0.5, 0.99])

    scheduler = DDIMScheduler()
    images, timesteps = noised_images(clean, level, noise, scheduler)
    assert timesteps.tolist() == [0, 500, 990]
    torch.testing.assert_close(images, scheduler.add_noise(clean, noise, timesteps))

    for scheduler in (
        FlowMatchEulerDiscreteScheduler(),
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    ):
        images, timesteps = noised_images(clean, level, noise, scheduler)
        time = level[:, None, None, None]
        assert timesteps.tolist() == [0, 500, 990]
        torch.testing.assert_close(images, (1 - time) * clean + time * noise)

    scheduler = EDMEulerScheduler(sigma_min=0.1, sigma_max=10.0)
    images, timesteps = noised_images(clean, level, noise, scheduler)
    sigmas = (0.1 * 100**level)[:, None, None, None]
    torch.testing.assert_close(timesteps, sigmas.flatten().log() / 4)
    torch.testing.assert_close(images, scheduler.precondition_inputs(clean + sigmas * noise, sigmas))
