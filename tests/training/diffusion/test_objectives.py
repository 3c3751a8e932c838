import math

import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler

from diffusers_ext.losses import pred_original_sample
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler
from diffusers_ext.training.diffusion.objectives import (
    EDM,
    DiscreteDiffusion,
    RectifiedFlow,
    prediction_type,
)
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_diffusion import DiffusionConfig


def objective(**options):
    return DiffusionConfig(dataset_name="digits", **options).objective()


@pytest.fixture
def images():
    clean, noise = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return clean.clamp(-1, 1), noise


def draw(rows=5000):
    return Draw(0, torch.device("cpu")).begin(0, range(rows))


ALL = {
    "epsilon": DiscreteDiffusion,
    "sample": DiscreteDiffusion,
    "v_prediction": DiscreteDiffusion,
    "flow_prediction": RectifiedFlow,
    "edm": EDM,
}


def perfect_output(target, clean, noisy, noise, timesteps):
    """The output without loss: the loss is a mean of squares, so one Newton step from anywhere leads there."""
    output = torch.zeros_like(clean, requires_grad=True)
    losses = target.losses(output, clean, noisy, noise, timesteps)
    assert losses.shape == (len(clean),)
    (gradient,) = torch.autograd.grad(losses.sum(), output)
    output = -gradient * clean[0].numel() / 2
    assert target.losses(output, clean, noisy, noise, timesteps).max() < 1e-8
    return output


@pytest.mark.parametrize("kind", ALL)
def test_with_a_perfect_network_the_sampler_gives_the_image_back(images, kind):
    clean, noise = images
    target = objective(prediction_type=kind)
    assert type(target) is ALL[kind]
    sampler = target.sampling_scheduler()
    assert prediction_type(sampler) == kind
    sampler.set_timesteps(50)
    seen = target.add_noise(clean, noise, sampler.timesteps[30].expand(4))
    sampler.set_begin_index(30)
    noisy = seen / sampler.scale_model_input(torch.ones(1), sampler.timesteps[30])
    for timestep in sampler.timesteps[30:]:
        timesteps = timestep.expand(4)
        alpha, sigma = target.levels(timesteps)
        seen = sampler.scale_model_input(noisy, timestep)
        output = perfect_output(target, clean, seen, (seen - alpha * clean) / sigma, timesteps)
        noisy = sampler.step(output, timestep, noisy).prev_sample
    assert (noisy - clean).square().mean().sqrt() < 0.01


def test_edm_is_table_1_of_its_paper(images):
    clean, noise = images
    edm, reference = objective(prediction_type="edm"), EDMEulerScheduler()
    timesteps = edm.draw_timesteps(draw())
    log_sigma = 4 * timesteps
    assert abs(log_sigma.mean() + 1.2) < 0.05 and abs(log_sigma.std() - 1.2) < 0.05
    for sigma in (0.01, 0.5, 20.0):
        t = torch.full((4,), math.log(sigma) / 4)
        noisy = clean + sigma * noise
        torch.testing.assert_close(edm.add_noise(clean, noise, t), noisy / math.sqrt(sigma**2 + 0.25))
        # The loss of the network's output is the error of the denoiser, weighted by lambda(sigma).
        output = torch.randn(4, 3, 8, 8)
        denoised = reference.precondition_outputs(noisy, output, torch.tensor(sigma))
        weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
        expected = weight * (denoised - clean).square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(edm.losses(output, clean, noisy, noise, t), expected, rtol=1e-4, atol=1e-5)
    # The input and the target have unit variance if the data has sigma_data.
    data = 0.5 * torch.randn(4, 3, 64, 64)
    noise = torch.randn(4, 3, 64, 64)
    noisy = edm.add_noise(data, noise, t)
    assert abs(noisy.std() - 1) < 0.02
    assert abs(edm.losses(torch.zeros_like(data), data, noisy, noise, t).mean() - 1) < 0.03


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_discrete_diffusion_is_that_of_diffusers(images, kind):
    clean, noise = images
    found = objective(prediction_type=kind, beta_schedule="linear")
    scheduler = DDPMScheduler()
    timesteps = torch.tensor([0, 10, 500, 999])
    noisy = found.add_noise(clean, noise, timesteps)
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, timesteps))
    target = {"epsilon": noise, "sample": clean, "v_prediction": scheduler.get_velocity(clean, noise, timesteps)}[kind]
    output = torch.randn_like(clean)
    losses = found.losses(output, clean, noisy, noise, timesteps)
    torch.testing.assert_close(losses, (output - target).square().mean(dim=(1, 2, 3)))


def test_fewer_timesteps_are_no_shorter_process():
    """Ho et al.'s betas are for T = 1000; others are rescaled, so that the noise ends at the same level."""
    ends = [objective(prediction_type="epsilon", beta_schedule="linear", num_train_timesteps=t) for t in (200, 1000)]
    short, full = (o.levels(torch.tensor([o.num_train_timesteps - 1]))[0].item() for o in ends)
    assert abs(math.log(short) - math.log(full)) < 0.5 and short < 0.02
    sampler = ends[0].sampling_scheduler()
    torch.testing.assert_close(sampler.alphas_cumprod, ends[0].scheduler.alphas_cumprod, rtol=1e-4, atol=1e-6)


def test_a_learned_variance_is_taught_by_the_bound_only(images):
    clean, noise = images
    found = objective(prediction_type="epsilon", variance_type="learned_range", loss_weighting="min_snr")
    assert found.outputs_per_channel == 2
    timesteps = torch.tensor([0, 100, 500, 900])
    noisy = found.add_noise(clean, noise, timesteps)
    output = torch.randn(4, 6, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(found.losses(output, clean, noisy, noise, timesteps).sum(), output)
    alpha, sigma = found.levels(timesteps)
    weights = (5 * sigma**2 / alpha**2).clamp(max=1)
    torch.testing.assert_close(gradient[:, :3], weights * 2 * (output[:, :3].detach() - noise) / clean[0].numel())
    assert (gradient[:, 3:].flatten(1).norm(dim=1) > 0).all()


def test_the_ancestral_sampler_is_in_the_samplers_configuration():
    found = objective(prediction_type="v_prediction", variance_type="learned_range", num_train_timesteps=200)
    again = ExactDDPMScheduler.from_config(found.sampling_scheduler().config)
    assert again.config.variance_type == "learned_range" and again.config.prediction_type == "v_prediction"
    torch.testing.assert_close(again.betas, found.scheduler.betas)


def test_timesteps_are_drawn_as_asked():
    assert objective(prediction_type="epsilon", num_train_timesteps=7).draw_timesteps(draw()).unique().tolist() == [
        *range(7)
    ]
    flow = objective(timestep_sampling="logit_normal").draw_timesteps(draw()) / 1000
    assert 0 <= flow.min() and flow.max() <= 1 and abs(flow.logit().std() - 1) < 0.05


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"loss_type": "kl"},
            "--loss_type kl is for epsilon, sample and v_prediction, not for --prediction_type flow",
        ),
        ({"prediction_type": "edm", "variance_type": "learned"}, "--variance_type learned is for epsilon"),
        ({"timestep_sampling": "loss_second_moment"}, "needs discrete timesteps, which flow_prediction does not have"),
        ({"prediction_type": "edm", "loss_weighting": "p2"}, "leave out --timestep_sampling and --loss_weighting"),
        (
            {"prediction_type": "epsilon", "loss_type": "kl", "loss_weighting": "min_snr"},
            "--loss_type kl has no squared error for --loss_weighting min_snr to weight",
        ),
        ({"prediction_type": "edm", "sigma_data": 0}, "--sigma_data must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        DiffusionConfig(dataset_name="digits", **options)


def test_larger_images_are_sampled_at_higher_noise():
    shifts = [
        objective(resolution=size).sampling_scheduler().config.flow_shift for size in ([4], [8], [64], [32, 128])
    ]
    assert shifts == pytest.approx([0.5, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("kind", ALL)
def test_the_clean_image_is_found_in_a_perfect_prediction(images, kind):
    clean, noise = images
    target = objective(prediction_type=kind)
    timesteps = target.draw_timesteps(draw(4))
    noisy, levels = target.add_noise(clean, noise, timesteps), target.levels(timesteps)
    prediction = target.target(clean, noise, timesteps)
    found = pred_original_sample(kind, prediction, noisy, *levels)
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-3)


def test_a_prediction_type_must_be_known():
    image = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="prediction_type must be edm or one of epsilon, .* not noise"):
        pred_original_sample("noise", image, image, image, image)
