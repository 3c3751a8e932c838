import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from diffusers_ext.pipelines.conditioning_augmentation import get_forward_step, to_noisy_image


@pytest.mark.parametrize(("level", "wanted_level"), [(0.0, 0.0), (0.0, 0.6), (0.3, 0.6), (0.6, 0.6)])
def test_the_process_goes_on_to_the_wanted_level(level, wanted_level):
    kept, added = get_forward_step(level, wanted_level)
    assert (kept * (1 - level**2) ** 0.5) ** 2 == pytest.approx(1 - wanted_level**2)
    assert (kept * level) ** 2 + added**2 == pytest.approx(wanted_level**2)
    assert (added == 0) == (level == wanted_level)


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), FlowMatchEulerDiscreteScheduler()], ids=["diffusion", "flow"])
def test_latents_become_noisy_images_of_unit_variance(scheduler):
    image, noise = torch.linspace(-1, 1, 12).view(1, 3, 2, 2), torch.randn(1, 3, 2, 2)
    scheduler.set_timesteps(10)
    timestep = scheduler.timesteps[4]
    if hasattr(scheduler, "scale_noise"):
        latents = scheduler.scale_noise(image, timestep[None], noise)
    else:
        latents = scheduler.add_noise(image, noise, timestep[None])
    noisy_image, level = to_noisy_image(latents, scheduler, timestep)
    assert 0 < level < 1
    torch.testing.assert_close(noisy_image, (1 - level**2) ** 0.5 * image + level * noise)
