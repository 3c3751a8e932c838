import pytest
import torch

from diffusers_ext.schedulers import LangevinScheduler


def test_the_halves_of_a_step():
    sample, noise, gradient = torch.tensor([0.5, -0.99]), torch.tensor([1.0, -2.0]), torch.tensor([0.02, 0.5])
    scheduler = LangevinScheduler(step_size=10.0, noise_std=0.1, max_gradient=0.03)
    noisy = scheduler.perturb(sample, 0, noise)
    torch.testing.assert_close(noisy, torch.tensor([0.6, -1.0]))
    torch.testing.assert_close(scheduler.step(gradient, 0, noisy, noise).prev_sample, torch.tensor([0.4, -1.0]))
    free = LangevinScheduler(step_size=10.0, noise_std=0.1, max_gradient=None, noise_order="after", clip_sample=False)
    assert torch.equal(free.perturb(sample, 0, noise), sample)
    torch.testing.assert_close(free.step(gradient, 0, sample, noise)[0], torch.tensor([0.4, -6.19]))
    loose = LangevinScheduler(noise_std=0.1, clip_noisy_sample=False)
    torch.testing.assert_close(loose.perturb(sample, 0, noise), torch.tensor([0.6, -1.19]))


def test_noise_decays_geometrically():
    scheduler = LangevinScheduler(3, noise_std=0.4, final_noise_std=0.1)
    assert scheduler.timesteps.tolist() == [2, 1, 0]
    assert [scheduler.noise_std_at(t) for t in (2, 1, 0)] == pytest.approx([0.4, 0.2, 0.1])
    scheduler.set_timesteps(5)
    assert scheduler.noise_std_at(2) == pytest.approx(0.2)
    assert LangevinScheduler(3, noise_std=0.4).noise_std_at(1) == 0.4


@torch.no_grad()
def test_chains_draw_from_a_gaussian_if_noise_and_steps_belong_together():
    """The energy x^2 / 2 s^2 has the gradient x / s^2; with a step e the noise has the variance 2 e."""
    step, std = 0.02, 0.3
    scheduler = LangevinScheduler(400, step * std**2, (2 * step) ** 0.5 * std, max_gradient=None, clip_sample=False)
    generator = torch.Generator().manual_seed(0)
    sample = torch.rand(4000, generator=generator) * 2 - 1
    for timestep in scheduler.timesteps:
        noise = torch.randn(4000, generator=generator)
        sample = scheduler.perturb(sample, timestep, noise)
        sample = scheduler.step(sample / std**2, timestep, sample, noise).prev_sample
    assert sample.mean().abs() < 0.02 and sample.std().item() == pytest.approx(std, rel=0.05)


def test_it_is_saved_with_its_arguments(tmp_path):
    LangevinScheduler(7, 3.0, noise_order="after").save_pretrained(tmp_path)
    loaded = LangevinScheduler.from_pretrained(tmp_path)
    assert len(loaded.timesteps) == 7 and loaded.config.step_size == 3.0 and loaded.config.noise_order == "after"


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"noise_order": "between"}, "`noise_order` must be 'before' or 'after'"),
        ({"step_size": 0}, "must be positive"),
        ({"noise_std": 0.1, "final_noise_std": 0.2}, "`final_noise_std` above 0 and at most `noise_std`"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be at least 1"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        LangevinScheduler(**arguments)
