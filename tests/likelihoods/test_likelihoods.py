"""Bits per dimension: the golden cases of guided-diffusion's bound, and the ODE for known densities."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from safetensors.torch import load_file
from scipy.integrate import solve_ivp

from diffusers_ext.likelihoods import discrete_process, likelihood_rows, ode_bits_per_dim, vlb_bits_per_dim
from diffusers_ext.likelihoods.probability_flow import (
    exact_trace_probes,
    integrate,
    ode_log_likelihood,
    probability_flow,
    step_angles,
)
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDIMScheduler, ExactDDPMScheduler
from tests.tiny_unet import tiny_unet


# The losses are the terms of the bound, so both have the same golden cases.
GOLDEN = Path(__file__).parents[1] / "losses" / "golden" / "gaussian_diffusion"
BETA_SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}

SCHEDULERS = {
    "epsilon": DDPMScheduler(),
    "epsilon_cosine": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
    "sample": ExactDDPMScheduler(prediction_type="sample"),
    "v_zero_snr": DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True),
    "v_unipc": UniPCMultistepScheduler(prediction_type="v_prediction"),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "flow_dpm": DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    "edm": EDMEulerScheduler(),
    "edm_dpm": EDMDPMSolverMultistepScheduler(sigma_data=0.3),
}


class GaussianDenoiser:
    """The exact network of any scheduler for independent normal pixels, whose mean depends on the class."""

    def __init__(self, scheduler, mean=(0.3, -0.2), std=0.5):
        self.scheduler, self.mean, self.std = scheduler, torch.tensor(mean), std

    def means(self, class_labels, count):
        labels = torch.zeros(count, dtype=torch.long) if class_labels is None else class_labels
        return self.mean[labels][:, None, None, None]

    def clean(self, sample, alpha, sigma, mean):
        """E[clean | alpha * clean + sigma * noise]."""
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return mean + gain * (sample - alpha * mean)

    def __call__(self, sample, timesteps, class_labels=None, return_dict=True):
        mean, t, config = self.means(class_labels, len(sample)), timesteps[0].item(), self.scheduler.config
        if isinstance(self.scheduler, (EDMEulerScheduler, EDMDPMSolverMultistepScheduler)):
            sigma, sigma_data = math.exp(4 * t), config.sigma_data
            scale = math.hypot(sigma, sigma_data)
            clean = self.clean(sample * scale, 1, sigma, mean)
            return ((clean - sigma_data**2 / scale * sample) * scale / (sigma * sigma_data),)
        if config.get("prediction_type", "flow_prediction") == "flow_prediction":
            sigma = t / config.num_train_timesteps
            clean = self.clean(sample, 1 - sigma, sigma, mean)
            noise_gain = sigma / ((1 - sigma) ** 2 * self.std**2 + sigma**2)
            return (noise_gain * (sample - (1 - sigma) * mean) - clean,)
        levels = self.scheduler.alphas_cumprod.double().numpy()
        angle = np.interp(t, np.arange(len(levels)), np.arctan2((1 - levels) ** 0.5, levels**0.5))
        alpha, sigma = math.cos(angle), math.sin(angle)
        clean = self.clean(sample, alpha, sigma, mean)
        noise = sigma / (alpha**2 * self.std**2 + sigma**2) * (sample - alpha * mean)
        return ({"epsilon": noise, "sample": clean}.get(config.prediction_type, alpha * noise - sigma * clean),)

    def log_density(self, images, class_labels=None):
        """The log-density of clean images with the smallest noise of the scheduler."""
        return self.pixels(class_labels, len(images)).log_prob(images).sum(dim=(1, 2, 3))

    def log_density_by_the_prior(self, images, class_labels=None):
        """The same if the noisiest samples were exactly standard normal."""
        end, pixels = probability_flow(self.scheduler).end, self.pixels(class_labels, len(images))
        std = math.hypot(math.cos(end) * self.std, math.sin(end))
        noisiest = math.cos(end) * pixels.mean + std * (images - pixels.mean) / pixels.stddev
        log_prior = torch.distributions.Normal(0, 1).log_prob(noisiest)
        return (log_prior + math.log(std) - pixels.stddev.log()).sum(dim=(1, 2, 3))

    def pixels(self, class_labels, count):
        sigma_min = math.tan(probability_flow(self.scheduler).start)
        return torch.distributions.Normal(self.means(class_labels, count), math.hypot(self.std, sigma_min))


def gaussian_images(count=3, shape=(2, 3, 3)):
    return 0.3 + 0.5 * torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["bpd_fixed_large_25_cosine", "bpd_learned_range_25"])
def test_the_bound_is_that_of_the_reference(name):
    config = json.loads((GOLDEN / name / "case.json").read_text())["config"]
    tensors, diffusion = load_file(GOLDEN / name / "case.safetensors"), config["diffusion"]
    scheduler = ExactDDPMScheduler(
        num_train_timesteps=diffusion["steps"],
        beta_schedule=BETA_SCHEDULES[diffusion["noise_schedule"]],
        variance_type=diffusion["model_var_type"].lower(),
        clip_sample=config["clip_denoised"],
    )
    scheduler.set_timesteps(respacing=diffusion["timestep_respacing"])
    calls = []

    def network(sample, timesteps, class_labels, return_dict):
        calls.append(timesteps)
        return (tensors["inputs.model_output"][len(calls) - 1],)

    bound = vlb_bits_per_dim(network, scheduler, tensors["inputs.x_start"], noise=tensors["inputs.noise"])
    assert torch.equal(torch.stack(calls).float(), tensors["outputs.model_timesteps"])
    for part in ("total_bpd", "prior_bpd", "vb", "xstart_mse", "mse"):
        torch.testing.assert_close(getattr(bound, part), tensors[f"outputs.{part}"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_ode_gives_the_density_of_gaussian_data(name):
    """With the exact denoiser, for two classes. Pixels are independent, so any probe of ones gives the exact trace."""
    scheduler, images, labels = SCHEDULERS[name], gaussian_images(), torch.tensor([0, 1, 1])
    network, probes = GaussianDenoiser(scheduler), torch.ones(1, *images.shape)
    result = ode_log_likelihood(network, scheduler, images, probes, labels)
    bits_per_dim = math.log(2) * images[0].numel()
    difference = (result.log_likelihood - network.log_density_by_the_prior(images, labels)).abs() / bits_per_dim
    assert difference.max() < 1e-4
    assert (result.error / bits_per_dim).max() < 1e-4
    # If some signal is left at the end of the process, the error is the difference of its end from a standard normal.
    difference = (result.log_likelihood - network.log_density(images, labels)).abs() / bits_per_dim
    assert difference.max() < (1e-4 if probability_flow(scheduler).end > 1.57 else 5e-3)


def test_an_error_in_the_noise_does_not_make_the_ode_stiff():
    """Its velocity has the factor 1 / cos(angle), which is 20000 at the end of the cosine schedule."""
    scheduler, images = SCHEDULERS["epsilon_cosine"], gaussian_images()
    exact = GaussianDenoiser(scheduler)

    def network(sample, timesteps, class_labels, return_dict):
        return (0.8 * exact(sample, timesteps)[0],)

    result = ode_log_likelihood(network, scheduler, images, torch.ones(1, *images.shape))
    assert (result.error / (math.log(2) * 18)).max() < 5e-3


@pytest.mark.parametrize("name", ["epsilon", "flow", "edm"])
def test_the_density_integrates_to_one(name):
    """A mixture of two narrow modes in one dimension, whose score is far from linear."""
    scheduler = SCHEDULERS[name]

    class Mixture(GaussianDenoiser):
        def clean(self, sample, alpha, sigma, mean):
            scale = math.hypot(alpha * self.std, sigma)
            means = torch.tensor([-0.5, 0.5])
            weights = (-0.5 * ((sample - alpha * means) / scale) ** 2).softmax(dim=-1)
            gain = alpha * self.std**2 / scale**2
            return (weights * (means + gain * (sample - alpha * means))).sum(dim=-1, keepdim=True)

    network = Mixture(scheduler, std=0.15)
    if name != "edm":  # for the others, the noise is computed from the clean image
        plain = network.clean

        class FromClean:
            def __call__(self, sample, timesteps, class_labels, return_dict):
                flow, t = probability_flow(scheduler), timesteps[0].item()
                if name == "flow":
                    alpha, sigma = 1 - t / 1000, t / 1000
                else:
                    angle = np.interp(t, np.arange(1000), flow.angles)
                    alpha, sigma = math.cos(angle), math.sin(angle)
                # at alpha = 0 the sample is the noise; sigma = 0 does not occur
                clean = plain(sample, alpha, sigma, 0)
                noise = (sample - alpha * clean) / sigma
                return (noise if name == "epsilon" else noise - clean,)

        network = FromClean()

    grid = torch.linspace(-2.5, 2.5, 501)
    images = grid.view(-1, 1, 1, 1)
    result = ode_log_likelihood(network, scheduler, images, exact_trace_probes(images), num_steps=100)
    density = result.log_likelihood.exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=2e-3)
    std = math.hypot(0.15, math.tan(probability_flow(scheduler).start))
    modes = torch.distributions.Normal(torch.tensor([-0.5, 0.5]), std)
    torch.testing.assert_close(density, modes.log_prob(grid[:, None]).exp().mean(dim=1), rtol=0, atol=1e-2)


def test_the_solver_agrees_with_scipys():
    """A nonlinear field, by an adaptive method with tight tolerances."""
    scale = torch.linspace(-1, 1, 4, dtype=torch.float64).view(1, 1, 2, 2)

    def velocity(x, angle):
        return torch.sin(3 * x + angle) * scale + 0.5 * x.flip(-1)

    def derivative(angle, state):
        x = torch.from_numpy(state[:4]).view(1, 1, 2, 2)
        divergence = (3 * torch.cos(3 * x + angle) * scale).sum()
        return np.append(velocity(x, angle).numpy().ravel(), divergence.item())

    x = torch.tensor([0.3, -0.7, 1.1, 0.2], dtype=torch.float64).view(1, 1, 2, 2)
    start, end = 0.01, 1.5
    expected = solve_ivp(derivative, (start, end), np.append(x.numpy().ravel(), 0), rtol=1e-10, atol=1e-10).y[:, -1]
    solved, total = integrate(velocity, x, exact_trace_probes(x).double(), step_angles(start, end, 200))
    np.testing.assert_allclose(solved.numpy().ravel(), expected[:4], atol=1e-6)
    assert total.item() == pytest.approx(expected[4], abs=1e-6)


@pytest.fixture
def unet():
    return tiny_unet(in_channels=1, out_channels=1, num_class_embeds=4)


@pytest.fixture
def images():
    return torch.randint(0, 256, (5, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


LABELS = torch.tensor([0, 1, 2, 0, 1])


def short_process(scheduler_class=ExactDDPMScheduler, steps=4, **config):
    scheduler = scheduler_class(**config)
    scheduler.set_timesteps(respacing=str(steps))
    return scheduler


def vlb(unet, images, labels, indices):
    return vlb_bits_per_dim(unet, short_process(), images, labels, seed=3, indices=indices).total_bpd


def ode(unet, images, labels, indices):
    scheduler = FlowMatchEulerDiscreteScheduler()
    options = {"seed": 3, "indices": indices, "num_steps": 2, "num_probes": 2}
    return ode_bits_per_dim(unet, scheduler, images, labels, **options).bits_per_dim


@pytest.mark.parametrize("measure", [vlb, ode])
def test_an_images_value_does_not_depend_on_the_others(unet, images, measure):
    whole = measure(unet, images, LABELS, None)
    parts = [measure(unet, images[rows], LABELS[rows], rows) for rows in ([4], [2, 0], [1, 3])]
    torch.testing.assert_close(whole[[4, 2, 0, 1, 3]], torch.cat(parts), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(whole[[1]], measure(unet, images[[1]], LABELS[[1]], [0]), rtol=1e-4)


@pytest.mark.parametrize("scheduler_class", [ExactDDPMScheduler, ExactDDIMScheduler])
def test_the_bound_is_of_the_chain_and_adds_up(unet, images, scheduler_class):
    scheduler = short_process(scheduler_class, steps=7)
    bound = vlb_bits_per_dim(unet, scheduler, images, LABELS)
    assert bound.vb.shape == bound.mse.shape == bound.xstart_mse.shape == (5, 7)
    torch.testing.assert_close(bound.total_bpd, bound.vb.sum(dim=1) + bound.prior_bpd)
    pixels = images / 127.5 - 1
    torch.testing.assert_close(vlb_bits_per_dim(unet, scheduler, pixels, LABELS).vb, bound.vb)


def test_both_measures_of_gaussian_data_are_its_entropy():
    """With the exact mean and variance of every step, the bound is tight."""
    scheduler = short_process(steps=100, variance_type="learned", clip_sample=False)
    denoiser = GaussianDenoiser(scheduler, mean=(0.1,), std=0.2)
    levels = scheduler.alphas_cumprod[scheduler.timesteps].double()
    previous = torch.cat([levels[1:], torch.ones(1)])
    betas = 1 - levels / previous
    of_clean = 0.2**2 * (1 - levels) / (levels * 0.2**2 + 1 - levels)  # the variance of x_0 given x_t
    variances = (betas * (1 - previous) + (betas * previous.sqrt()).square() * of_clean / (1 - levels)) / (1 - levels)

    def network(sample, timesteps, class_labels, return_dict):
        log_variance = variances[scheduler.timesteps == timesteps[0]].log().float()
        return (torch.cat([denoiser(sample, timesteps)[0], log_variance.expand_as(sample)], dim=1),)

    pixels = 0.1 + 0.2 * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    levels = images / 127.5 - 1
    normal = torch.distributions.Normal(0.1, 0.2)
    entropy = -(normal.cdf(levels + 1 / 255) - normal.cdf(levels - 1 / 255)).log2().mean().item()

    bound = vlb_bits_per_dim(network, scheduler, images).total_bpd.mean().item()
    assert bound == pytest.approx(entropy, abs=0.02)
    bits = ode_bits_per_dim(denoiser, scheduler, images, num_steps=20).bits_per_dim.mean().item()
    assert bits == pytest.approx(entropy, abs=0.01)


def test_more_probes_come_nearer_to_the_exact_trace():
    """A network that mixes the pixels of an image."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    mixing = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    images = torch.tensor([[10, 80], [150, 240]], dtype=torch.uint8).expand(200, 1, 2, 2)

    def network(sample, timesteps, class_labels, return_dict):
        return ((sample.flatten(1) @ mixing).view_as(sample),)

    def bits(**options):
        return ode_bits_per_dim(network, scheduler, images, num_steps=4, **options).bits_per_dim

    # The dequantisation is the same: it is drawn before the probes.
    exact = bits(trace="exact")
    for trace in ("rademacher", "gaussian"):
        one, many = ((bits(trace=trace, num_probes=count) - exact) for count in (1, 16))
        assert abs(many.mean()) < 0.1 * one.std()
        assert 0.15 < many.std() / one.std() < 0.4


def test_a_learned_variance_is_no_part_of_the_ode(images):
    scheduler = DDPMScheduler(variance_type="learned_range")
    network = GaussianDenoiser(scheduler)

    def with_variance(sample, timesteps, class_labels, return_dict):
        return (torch.cat([network(sample, timesteps)[0], sample.exp()], dim=1),)

    plain, doubled = (ode_bits_per_dim(n, scheduler, images, num_steps=4) for n in (network, with_variance))
    assert torch.equal(plain.bits_per_dim, doubled.bits_per_dim)


def rows_of(pipeline, images, labels, batch_size, **options):
    batches = (
        {"pixel_values": images[i : i + batch_size], "class_labels": labels[i : i + batch_size]}
        for i in range(0, len(images), batch_size)
    )
    return likelihood_rows(pipeline, batches, num_vlb_steps=4, num_ode_steps=4, **options)


def test_the_rows_of_a_pipeline(unet, images):
    pipeline = ClassConditionalPipeline(unet, DDPMScheduler(), id2label={0: "a", 1: "b", 2: "c"}, null_class_label=3)
    bound, flow = rows_of(pipeline, images, LABELS, 5)
    assert bound["likelihood"] == "vlb" and flow["likelihood"] == "ode"
    assert bound["provenance"] == {"num_images": 5, "num_steps": 4, "variance_type": "fixed_small", "seed": 0}
    assert flow["provenance"]["num_function_evaluations"] == 24 and flow["provenance"]["solver"] == "rk4"
    expected = vlb_bits_per_dim(unet, short_process(), images, LABELS)
    assert bound["bits_per_dim"] == pytest.approx(expected.total_bpd.mean().item(), rel=1e-5)
    assert bound["decoder_bits_per_dim"] == pytest.approx(expected.vb[:, -1].mean().item(), rel=1e-5)
    assert bound["standard_error"] == pytest.approx(expected.total_bpd.std().item() / 5**0.5, rel=1e-4)
    json.dumps([bound, flow], allow_nan=False)


def test_the_bound_takes_the_schedulers_of_diffusers(unet, images):
    trained = DDPMScheduler(num_train_timesteps=5, trained_betas=[0.01, 0.05, 0.2, 0.5, 0.9])
    bound = vlb_bits_per_dim(unet, trained, images, LABELS)
    assert bound.vb.shape == (5, 5)
    assert torch.equal(bound.vb, vlb_bits_per_dim(unet, discrete_process(trained), images, LABELS).vb)
    with pytest.raises(ValueError, match="which FlowMatchEulerDiscreteScheduler does not have"):
        vlb_bits_per_dim(unet, FlowMatchEulerDiscreteScheduler(), images, LABELS)


def test_processes_and_batch_sizes_change_nothing(unet, images):
    pipeline = ClassConditionalPipeline(unet, DDPMScheduler(), null_class_label=3)
    whole = rows_of(pipeline, images, LABELS, 5)
    shares = []
    for process in (0, 1):
        share = {"process_index": process, "num_processes": 2, "gather": lambda own: shares.append(own) or own[0]}
        rows_of(pipeline, images[process::2], LABELS[process::2], 2, kinds=["vlb", "ode"], **share)
    for kind, row in enumerate(whole):
        values = torch.cat([torch.cat(shares[kind]), torch.cat(shares[2 + kind])])
        assert values[:, 0].mean().item() == pytest.approx(row["bits_per_dim"], rel=1e-4)


def test_labels_of_a_pipeline(unet, images):
    pipeline = ClassConditionalPipeline(unet, DDPMScheduler(), null_class_label=3)
    options = {"kinds": ["vlb"], "num_vlb_steps": 4}
    (unlabelled,) = likelihood_rows(pipeline, [{"pixel_values": images}], **options)
    null = vlb_bits_per_dim(unet, short_process(), images, torch.full((5,), 3)).total_bpd.mean().item()
    assert unlabelled["bits_per_dim"] == pytest.approx(null, rel=1e-5)
    pipeline = ClassConditionalPipeline(unet, DDPMScheduler())
    with pytest.raises(ValueError, match="needs class labels"):
        likelihood_rows(pipeline, [{"pixel_values": images}], **options)
    with pytest.raises(ValueError, match="There is no class 7"):
        likelihood_rows(pipeline, [{"pixel_values": images, "class_labels": LABELS + 7}], **options)


def test_other_schedulers_give_their_process():
    trained = DDPMScheduler(
        num_train_timesteps=500, beta_schedule="squaredcos_cap_v2", variance_type="learned_range", clip_sample=False
    )
    for scheduler in (trained, UniPCMultistepScheduler.from_config(trained.config)):
        process = discrete_process(scheduler)
        torch.testing.assert_close(process.alphas_cumprod, trained.alphas_cumprod, rtol=1e-4, atol=0)
        assert process.config.variance_type == "learned_range" and len(process.timesteps) == 500


@pytest.mark.parametrize("name", ["flow", "flow_dpm", "edm"])
def test_the_bound_refuses_what_has_no_discrete_process(unet, images, name):
    pipeline = ClassConditionalPipeline(unet, SCHEDULERS[name], null_class_label=3)
    with pytest.raises(ValueError, match="needs a discrete variance-preserving process"):
        likelihood_rows(pipeline, [{"pixel_values": images}], ["vlb"])


@pytest.mark.parametrize("scheduler_class", [DDIMScheduler, ExactDDPMScheduler])
def test_the_ode_refuses_noise_prediction_at_zero_terminal_snr(unet, images, scheduler_class):
    scheduler = scheduler_class(rescale_betas_zero_snr=True)
    with pytest.raises(ValueError, match="At zero terminal SNR a network that predicts the noise has no ODE"):
        ode_bits_per_dim(unet, scheduler, images, LABELS)


def test_bad_input_is_refused(unet, images):
    scheduler, flow = short_process(), FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match=r"in \[-1, 1\]"):
        vlb_bits_per_dim(unet, scheduler, images.float(), LABELS)
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\)"):
        ode_bits_per_dim(unet, flow, images[0])
    for measure, process in ((vlb_bits_per_dim, scheduler), (ode_bits_per_dim, flow)):
        with pytest.raises(ValueError, match=r"at least one image, but images have the shape \(0, 1, 8, 8\)"):
            measure(unet, process, images[:0], LABELS[:0])
    with pytest.raises(ValueError, match="one index for each of the 5 images, not 2"):
        vlb_bits_per_dim(unet, scheduler, images, LABELS, indices=[0, 1])
    with pytest.raises(ValueError, match=r"noise must have the shape \(4, 5, 1, 8, 8\)"):
        vlb_bits_per_dim(unet, scheduler, images, LABELS, noise=torch.randn(5, 1, 8, 8))
    with pytest.raises(ValueError, match="even number of at least 2, not 5"):
        ode_bits_per_dim(unet, flow, images, LABELS, num_steps=5)
    with pytest.raises(ValueError, match="trace must be one of"):
        ode_bits_per_dim(unet, flow, images, LABELS, trace="hutchinson")
    with pytest.raises(ValueError, match="num_probes must be at least 1"):
        ode_bits_per_dim(unet, flow, images, LABELS, num_probes=0)
    with pytest.raises(ValueError, match="is one of vlb, ode, not nll"):
        likelihood_rows(ClassConditionalPipeline(unet, flow), [], ["nll"])
    with pytest.raises(ValueError, match="is not finite"):
        ode_bits_per_dim(lambda x, t, class_labels, return_dict: (x / 0,), flow, images, num_steps=2)
