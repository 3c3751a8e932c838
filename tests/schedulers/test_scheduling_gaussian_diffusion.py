"""The exact DDPM and DDIM schedulers: values of the reference, the conventions of diffusers, and other properties."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
    UniPCMultistepScheduler,
)

from diffusers_ext.schedulers.scheduling_edm_heun import EDMHeunScheduler
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import (
    VARIANCE_TYPES,
    ExactDDIMInverseScheduler,
    ExactDDIMScheduler,
    ExactDDPMScheduler,
    space_timesteps,
)
from tests.schedulers.golden_cases import case_names, load_case
from tests.schedulers.testing import (
    SchedulerAddNoiseTesterMixin,
    SchedulerDeterminismTesterMixin,
    SchedulerFromConfigTesterMixin,
    SchedulerSaveLoadTesterMixin,
    SchedulerStepTesterMixin,
    SchedulerTesterConfig,
)


SCHEDULERS = (ExactDDPMScheduler, ExactDDIMScheduler, ExactDDIMInverseScheduler)
SAMPLERS = (ExactDDPMScheduler, ExactDDIMScheduler)
METHODS = {
    "p_sample": ExactDDPMScheduler,
    "ddim_sample": ExactDDIMScheduler,
    "ddim_reverse_sample": ExactDDIMInverseScheduler,
}
FAMILY = "gaussian_diffusion"
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Within `tolerance` of max(1, |expected|)."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs() / expected.abs().clamp(min=1)
    assert error.max() <= tolerance, f"off by {error.max():.1e}"


def output_channels(scheduler, channels: int = 3) -> int:
    return channels * (2 if scheduler.variance_type.startswith("learned") else 1)


# The reference's numbers


def reference_scheduler(scheduler_class, config: dict, clip_sample: bool = True):
    scheduler = scheduler_class(
        num_train_timesteps=config["steps"],
        beta_schedule={"linear": "linear", "cosine": "squaredcos_cap_v2"}[config["noise_schedule"]],
        prediction_type={"EPSILON": "epsilon", "START_X": "sample"}[config["model_mean_type"]],
        variance_type=config["model_var_type"].lower(),
        clip_sample=clip_sample,
    )
    scheduler.set_timesteps(respacing=config["timestep_respacing"])
    return scheduler


def sampler_case(name: str):
    config, inputs, outputs = load_case(FAMILY, name)
    method = config["sampler"]["method"]
    scheduler = reference_scheduler(METHODS[method], config["diffusion"], config["sampler"]["clip_denoised"])

    def arguments(call: int) -> dict:
        kwargs = {"eta": config["sampler"]["eta"]} if method == "ddim_sample" else {}
        for argument, key in (("variance_noise", "noise"), ("condition_gradient", "cond_grad")):
            if key in inputs:
                kwargs[argument] = inputs[key][call]
        return kwargs

    return scheduler, inputs, outputs, arguments


SAMPLER_CASES = case_names(FAMILY, ("p_sample", "ddim", "guided"))


@pytest.mark.parametrize("name", SAMPLER_CASES)
def test_golden_trajectory(name):
    scheduler, inputs, outputs, arguments = sampler_case(name)
    assert sorted(scheduler.timesteps.tolist()) == outputs["timestep_map"].tolist()
    assert scheduler.timesteps.tolist() == outputs["model_timesteps"].tolist()
    stored = outputs.get("stored_calls", torch.arange(len(scheduler.timesteps))).tolist()
    sample = inputs["x_T"]
    for call, timestep in enumerate(scheduler.timesteps):
        step = scheduler.step(inputs["model_output"][call], timestep, sample, **arguments(call))
        sample = step.prev_sample
        if call in stored:
            assert_near(sample, outputs["sample"][stored.index(call)], 1e-4)
            assert_near(step.pred_original_sample, outputs["pred_xstart"][stored.index(call)], 1e-4)


@pytest.mark.parametrize("name", [name for name in SAMPLER_CASES if name != "p_sample_fixed_small_250"])
def test_golden_single_steps(name):
    """Each step starts from the state of the reference."""
    scheduler, inputs, outputs, arguments = sampler_case(name)
    states = torch.cat([inputs["x_T"][None], outputs["sample"]])
    for call, timestep in enumerate(scheduler.timesteps):
        step = scheduler.step(inputs["model_output"][call], timestep, states[call], **arguments(call))
        assert_near(step.prev_sample, states[call + 1], 1e-6)
        moments = scheduler.p_mean_variance(inputs["model_output"][call], timestep, states[call])
        for quantity in {"mean", "variance", "log_variance"} & outputs.keys():
            expected = outputs[quantity][call].expand_as(states[call])
            assert_near(moments[quantity], expected, 1e-6)


@pytest.mark.parametrize("name", case_names(FAMILY, "q_"))
def test_golden_forward_process(name):
    config, inputs, outputs = load_case(FAMILY, name)
    scheduler = reference_scheduler(ExactDDPMScheduler, config["diffusion"])
    clean, timesteps, noise = inputs["x_start"], inputs["t"], inputs["noise"]

    noisy = scheduler.q_sample(clean, timesteps, noise)
    assert_near(noisy, outputs["x_t"], 1e-6)
    assert torch.equal(scheduler.add_noise(clean, noise, timesteps), noisy)
    moments = scheduler.q_mean_variance(clean, timesteps)
    for value, quantity in zip(moments, ("q_mean", "q_variance", "q_log_variance"), strict=True):
        assert_near(
            value,
            outputs[quantity].view(4, *[-1, 1, 1] if value is not moments[0] else [3, 8, 8]).expand_as(clean),
            1e-6,
        )
    posterior = scheduler.q_posterior(clean, outputs["x_t"], timesteps)
    assert_near(posterior[0], outputs["posterior_mean"], 1e-6)
    assert_near(posterior[1][:, 0, 0, 0], outputs["posterior_variance"], 1e-6)
    assert_near(posterior[2][:, 0, 0, 0], outputs["posterior_log_variance_clipped"], 1e-6)

    moments = scheduler.p_mean_variance(inputs["eps"], timesteps, outputs["x_t"], clip_sample=False)
    assert_near(moments.pred_original_sample, outputs["pred_xstart_from_eps"], 1e-6)
    scheduler = ExactDDPMScheduler.from_config(scheduler.config, prediction_type="sample")
    moments = scheduler.p_mean_variance(clean, timesteps, outputs["x_t"], clip_sample=False)
    assert_near(moments.pred_epsilon, outputs["pred_eps_from_xstart"], 1e-6)


def test_golden_tables():
    config, _, outputs = load_case(FAMILY, "tables")
    for schedule, total, respacing in config["schedules"]:
        prefix = f"{schedule}.{total}.{respacing or 'all'}."
        diffusion = {"steps": total, "noise_schedule": schedule, "timestep_respacing": respacing}
        scheduler = reference_scheduler(
            ExactDDPMScheduler, {**diffusion, "model_mean_type": "EPSILON", "model_var_type": "FIXED_SMALL"}
        )
        chain = scheduler.timesteps.flip(0)
        if prefix + "timestep_map" in outputs:
            assert chain.tolist() == outputs[prefix + "timestep_map"].tolist()
        _, variance, log_variance = scheduler.q_posterior(
            torch.zeros(len(chain), 1), torch.zeros(len(chain), 1), chain
        )
        torch.testing.assert_close(
            scheduler.alphas_cumprod[chain], outputs[prefix + "alphas_cumprod"], rtol=1e-6, atol=0
        )
        torch.testing.assert_close(variance[:, 0], outputs[prefix + "posterior_variance"], rtol=1e-6, atol=0)
        torch.testing.assert_close(
            log_variance[:, 0], outputs[prefix + "posterior_log_variance_clipped"], rtol=1e-6, atol=0
        )
        if not respacing:
            torch.testing.assert_close(scheduler.betas, outputs[prefix + "betas"], rtol=1e-6, atol=0)
        if prefix + "posterior_mean_coef1" in outputs:
            ones, zeros = torch.ones(len(chain), 1), torch.zeros(len(chain), 1)
            for clean, sample, name in ((ones, zeros, "coef1"), (zeros, ones, "coef2")):
                mean = scheduler.q_posterior(clean, sample, chain)[0][:, 0]
                torch.testing.assert_close(mean, outputs[f"{prefix}posterior_mean_{name}"], rtol=1e-6, atol=0)


def test_golden_space_timesteps():
    config, _, outputs = load_case(FAMILY, "tables")
    for total, respacing in config["space_timesteps"]:
        assert space_timesteps(total, respacing) == outputs[f"space_timesteps.{total}.{respacing}"].tolist()


# Timesteps


def test_space_timesteps_in_sections():
    """Nichol and Dhariwal 2021: sections are spaced separately; the first ones get the remainder of the division."""
    assert space_timesteps(10, "2,3") == [0, 4, 5, 7, 9]
    assert space_timesteps(11, [1, 0, 2]) == [0, 8, 10]
    assert space_timesteps(7, "") == space_timesteps(7, "7") == list(range(7))
    assert space_timesteps(1000, "ddim27") == list(range(0, 1000, 38))


@pytest.mark.parametrize("respacing", ["x", "ddim", "10,-1", "2.5", "0", "11", "ddim7", "6,6", "-3"])
def test_impossible_respacings_are_refused(respacing):
    with pytest.raises(ValueError, match=respacing):
        space_timesteps(10, respacing)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("total", [10, 100, 1000])
def test_every_number_of_steps(spacing, total):
    scheduler = ExactDDIMScheduler(num_train_timesteps=total, timestep_spacing=spacing, steps_offset=1)
    for count in range(1, total + 1, max(1, total // 60)):
        scheduler.set_timesteps(count)
        timesteps = scheduler.timesteps.tolist()
        assert len(timesteps) == count == scheduler.num_inference_steps
        assert timesteps == sorted(set(timesteps), reverse=True)
        assert timesteps[0] < total and timesteps[-1] >= 0
        if spacing == "trailing":
            assert timesteps[0] == total - 1
    scheduler.set_timesteps(total)
    assert scheduler.timesteps.tolist() == list(range(total))[::-1]


@pytest.mark.parametrize("count", [10, 25, 27, 50, 100, 250])
def test_linspace_is_the_reference_s_respacing(count):
    scheduler = ExactDDPMScheduler(timestep_spacing="linspace")
    scheduler.set_timesteps(count)
    assert scheduler.timesteps.flip(0).tolist() == space_timesteps(1000, str(count))


@pytest.mark.parametrize("timesteps", [[999, 500, 3], torch.tensor([999, 500, 3]), np.array([999, 500, 3])])
@pytest.mark.parametrize("scheduler_class", SCHEDULERS)
def test_custom_timesteps(scheduler_class, timesteps):
    scheduler = scheduler_class()
    scheduler.set_timesteps(timesteps=timesteps)
    assert sorted(scheduler.timesteps.tolist()) == [3, 500, 999]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_inference_steps": 5, "respacing": "5"},
        {"num_inference_steps": 0},
        {"num_inference_steps": 1001},
        {"num_inference_steps": 2.5},
        {"timesteps": []},
        {"timesteps": [3, 500]},
        {"timesteps": [500, 500]},
        {"timesteps": [1000, 3]},
        {"timesteps": [3, -1]},
        {"timesteps": [3.5, 1]},
        {"timesteps": 5},
        {"timesteps": torch.tensor(5)},
        {"respacing": 250},
        {"respacing": 2.5},
    ],
)
def test_bad_timesteps_are_refused(arguments):
    with pytest.raises(ValueError):
        ExactDDPMScheduler().set_timesteps(**arguments)


@pytest.mark.parametrize("scheduler_class", SCHEDULERS)
@pytest.mark.parametrize(
    "timestep", [5, 1000, -1, 10.5, torch.tensor(5), torch.tensor([5, 999]), torch.tensor([-1, 0])]
)
def test_timesteps_outside_the_chain_are_refused(scheduler_class, timestep):
    scheduler = scheduler_class()
    scheduler.set_timesteps(timesteps=[999, 500, 0])
    sample = random(2, 3, 4, 4)
    with pytest.raises(ValueError, match="timestep"):
        scheduler.step(sample, timestep, sample)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_timesteps_outside_the_chain_are_nan_where_nothing_waits_for_a_check(device):
    scheduler = ExactDDPMScheduler()
    scheduler.set_timesteps(timesteps=[998, 500, 0])
    timesteps = torch.tensor([998, 500, 0, -1, -2, -1000, 1, 999, 1000, 10**9], device=device)
    rows = scheduler._steps.gather(timesteps)
    assert rows[:3].isfinite().all() and rows[3:].isnan().all()
    if device == "cuda":
        sample = random(10, 3, 4, 4).to(device)
        step = scheduler.step(sample, timesteps, sample)
        assert step.prev_sample[:3].isfinite().all() and step.prev_sample[3:].isnan().all()


def test_a_wrong_number_of_timesteps_is_refused():
    sample = random(2, 3, 4, 4)
    for timesteps in (torch.tensor([1, 2, 3]), torch.tensor([[1, 2]])):
        with pytest.raises(ValueError, match="one for each"):
            ExactDDPMScheduler().step(sample, timesteps, sample)


# Variances


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("variance_type", VARIANCE_TYPES)
def test_everything_is_finite(variance_type, prediction_type, zero_snr):
    for total, spacings in ((10, ("linspace", "leading", "trailing")), (1000, ("leading",)), (4000, ("trailing",))):
        for spacing in spacings:
            for scheduler_class in SCHEDULERS:
                scheduler = scheduler_class(
                    num_train_timesteps=total,
                    variance_type=variance_type,
                    prediction_type=prediction_type,
                    timestep_spacing=spacing,
                    rescale_betas_zero_snr=zero_snr,
                    clip_sample=False,
                )
                for count in (1, 2, 7) if total > 10 else (1, 2, 10):
                    scheduler.set_timesteps(count)
                    sample, output = random(count, 3, 2, 2), random(count, output_channels(scheduler), 2, 2, seed=1)
                    step = scheduler.step(output, scheduler.timesteps, sample)
                    assert step.prev_sample.isfinite().all()
                    moments = scheduler.p_mean_variance(output, scheduler.timesteps, sample)
                    assert all(value.isfinite().all() and value.shape == sample.shape for value in moments.values())


def test_log_variance_types_are_the_same_process():
    sample = random(2, 3, 4, 4)
    for kind in ("fixed_small", "fixed_large"):
        plain, log = (ExactDDPMScheduler(variance_type=name) for name in (kind, f"{kind}_log"))
        moments = [scheduler.p_mean_variance(sample, 500, sample) for scheduler in (plain, log)]
        assert all(torch.equal(a, b) for a, b in zip(moments[0].values(), moments[1].values(), strict=True))
        torch.testing.assert_close(moments[0].variance.log(), moments[0].log_variance)


def test_learned_range_spans_from_the_posterior_to_beta():
    scheduler = ExactDDPMScheduler(variance_type="learned_range")
    sample = random(1, 3, 4, 4)
    for value, expected in ((-1, scheduler.q_posterior(sample, sample, 500)[2]), (1, scheduler.betas[500].log())):
        output = torch.cat([sample, torch.full_like(sample, value)], dim=1)
        log_variance = scheduler.p_mean_variance(output, 500, sample).log_variance
        torch.testing.assert_close(log_variance, expected.expand_as(sample))


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("variance_type", VARIANCE_TYPES)
def test_the_last_step_adds_no_noise(spacing, variance_type):
    for scheduler_class, kwargs in ((ExactDDPMScheduler, {}), (ExactDDIMScheduler, {"eta": 1.0})):
        scheduler = scheduler_class(
            variance_type=variance_type, timestep_spacing=spacing, steps_offset=1, set_alpha_to_one=False
        )
        scheduler.set_timesteps(7)
        sample, output = random(2, 3, 4, 4), random(2, output_channels(scheduler), 4, 4, seed=1)
        for timestep in (scheduler.timesteps[-1], scheduler.timesteps[-1:], scheduler.timesteps[-1].item()):
            first, second = (
                scheduler.step(output, timestep, sample, generator=torch.Generator().manual_seed(seed), **kwargs)
                for seed in (0, 1)
            )
            assert torch.equal(first.prev_sample, second.prev_sample)
        before = scheduler.timesteps[-2]
        first, second = (
            scheduler.step(output, before, sample, generator=torch.Generator().manual_seed(seed), **kwargs)
            for seed in (0, 1)
        )
        assert not torch.equal(first.prev_sample, second.prev_sample)


def test_outputs_with_a_variance():
    """DDIM and fixed variances ignore a learned variance; learned variances need it; other channels are refused."""
    sample, output = random(2, 3, 4, 4), random(2, 6, 4, 4, seed=1)
    for scheduler in (ExactDDIMScheduler(), ExactDDIMScheduler(variance_type="learned_range"), ExactDDPMScheduler()):
        kwargs = {} if isinstance(scheduler, ExactDDIMScheduler) else {"generator": torch.Generator().manual_seed(0)}
        both = scheduler.step(output, 500, sample, **kwargs).prev_sample
        kwargs = {} if isinstance(scheduler, ExactDDIMScheduler) else {"generator": torch.Generator().manual_seed(0)}
        assert torch.equal(scheduler.step(output[:, :3], 500, sample, **kwargs).prev_sample, both)
    for variance_type in ("learned", "learned_range"):
        with pytest.raises(ValueError, match="twice the sample's channels"):
            ExactDDPMScheduler(variance_type=variance_type).step(sample, 500, sample)
    for wrong in (random(2, 4, 4, 4), random(1, 3, 4, 4), random(2, 3, 4, 5)):
        with pytest.raises(ValueError, match="network's output"):
            ExactDDPMScheduler().step(wrong, 500, sample)


# One step


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large", "learned", "learned_range"])
@pytest.mark.parametrize("scheduler_class", SCHEDULERS)
def test_a_batch_of_different_timesteps_equals_its_rows(scheduler_class, variance_type):
    scheduler = scheduler_class(variance_type=variance_type)
    scheduler.set_timesteps(respacing="7")
    timesteps = scheduler.timesteps[[3, 0, 6, 5]]
    sample, output, noise = random(4, 3, 4, 4), random(4, output_channels(scheduler), 4, 4, seed=1), random(4, 3, 4, 4)
    kwargs = {} if scheduler_class is ExactDDIMInverseScheduler else {"variance_noise": noise}
    if scheduler_class is not ExactDDIMInverseScheduler:
        kwargs["condition_gradient"] = random(4, 3, 4, 4, seed=3)
    options = {"eta": 0.7} if scheduler_class is ExactDDIMScheduler else {}
    together = scheduler.step(output, timesteps, sample, **kwargs, **options)
    moments = scheduler.p_mean_variance(output, timesteps, sample)
    clean_moments = scheduler.q_posterior(sample, noise, timesteps)
    for i, timestep in enumerate(timesteps):
        row = slice(i, i + 1)
        own = {name: value[row] for name, value in kwargs.items()}
        for value in (timestep, timestep.item(), timestep[None]):
            alone = scheduler.step(output[row], value, sample[row], **own, **options)
            assert_near(together.prev_sample[row], alone.prev_sample, 5e-6)
            assert_near(together.pred_original_sample[row], alone.pred_original_sample, 5e-6)
            own_moments = scheduler.p_mean_variance(output[row], value, sample[row])
            for name in moments:
                assert_near(moments[name][row], own_moments[name], 5e-6)
            for a, b in zip(clean_moments, scheduler.q_posterior(sample[row], noise[row], value), strict=True):
                assert_near(a[row], b, 5e-6)


@pytest.mark.parametrize("scheduler_class", SAMPLERS)
def test_steps_in_any_order_are_the_same(scheduler_class):
    """RePaint (Lugmayr et al. 2022) goes back and forth."""
    scheduler = scheduler_class()
    scheduler.set_timesteps(10)
    sample, noise = random(1, 3, 4, 4), random(1, 3, 4, 4, seed=1)

    def step(timestep):
        return scheduler.step(noise, timestep, sample, generator=torch.Generator().manual_seed(0)).prev_sample

    expected = {timestep: step(timestep) for timestep in scheduler.timesteps.tolist()}
    for timestep in (111, 999, 0, 111, 222, 111):
        assert torch.equal(step(timestep), expected[timestep])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scheduler_class", SCHEDULERS)
def test_half_precision_in_and_out_with_float32_between(scheduler_class, dtype):
    scheduler = scheduler_class()
    scheduler.set_timesteps(10)
    sample, output = random(2, 3, 4, 4).to(dtype), random(2, 3, 4, 4, seed=1).to(dtype)
    for timestep in scheduler.timesteps:
        kwargs = {} if scheduler_class is ExactDDIMInverseScheduler else {"variance_noise": random(2, 3, 4, 4)}
        half = scheduler.step(output, timestep, sample, **kwargs)
        single = scheduler.step(output.float(), timestep, sample.float(), **kwargs)
        for name in ("prev_sample", "pred_original_sample"):
            assert half[name].dtype == dtype
            assert torch.equal(half[name], single[name].to(dtype))
        # With a network in half precision, samples keep their precision.
        assert scheduler.step(output, timestep, sample.float(), **kwargs).prev_sample.dtype == torch.float32


@pytest.mark.parametrize("scheduler_class", SAMPLERS)
def test_inputs_are_left_alone(scheduler_class):
    for prediction_type in ("epsilon", "sample", "v_prediction"):
        scheduler = scheduler_class(prediction_type=prediction_type)
        tensors = {name: random(1, 3, 4, 4, seed=i) for i, name in enumerate("osng")}
        kept = {name: value.clone() for name, value in tensors.items()}
        for clip_sample in (True, False):
            scheduler.p_mean_variance(tensors["o"], 500, tensors["s"], clip_sample=clip_sample)
        scheduler.step(tensors["o"], 500, tensors["s"], variance_noise=tensors["n"], condition_gradient=tensors["g"])
        assert all(torch.equal(tensors[name], kept[name]) for name in tensors)


def test_each_sample_has_its_own_generator():
    sample = random(2, 3, 4, 4)
    for scheduler_class, kwargs in ((ExactDDPMScheduler, {}), (ExactDDIMScheduler, {"eta": 1.0})):
        scheduler = scheduler_class()
        scheduler.set_timesteps(10)
        timestep = scheduler.timesteps[3]
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        together = scheduler.step(sample, timestep, sample, generator=generators, **kwargs).prev_sample
        for i in range(2):
            own = torch.Generator().manual_seed(i)
            row = sample[i : i + 1]
            alone = scheduler.step(row, timestep, row, generator=own, **kwargs).prev_sample
            torch.testing.assert_close(together[i : i + 1], alone)


def test_noise_comes_from_one_source():
    sample = random(1, 3, 4, 4)
    with pytest.raises(ValueError, match="variance_noise"):
        ExactDDPMScheduler().step(sample, 5, sample, generator=torch.Generator(), variance_noise=sample)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_is_a_share(eta):
    with pytest.raises(ValueError, match="eta"):
        ExactDDIMScheduler().step(random(1, 3, 4, 4), 5, random(1, 3, 4, 4), eta=eta)


def test_p_mean_variance_has_gradients():
    scheduler = ExactDDPMScheduler(variance_type="learned_range")
    output = random(3, 6, 4, 4).requires_grad_()
    moments = scheduler.p_mean_variance(output, torch.tensor([0, 10, 900]), random(3, 3, 4, 4, seed=1))
    (moments.mean.sum() + moments.log_variance.sum() + moments.variance.sum() + moments.pred_epsilon.sum()).backward()
    assert output.grad.isfinite().all() and output.grad[:, 3:].all()


def test_log_snr():
    scheduler = ExactDDPMScheduler()
    timesteps = torch.tensor([0, 500, 999])
    alphas_cumprod = scheduler.alphas_cumprod[timesteps].double()
    expected = (alphas_cumprod / (1 - alphas_cumprod)).log().float()
    torch.testing.assert_close(scheduler.log_snr(timesteps), expected, rtol=1e-3, atol=0)
    assert scheduler.log_snr(500).shape == ()


def test_inversion_is_ddim_backwards():
    noise = random(2, 3, 8, 8, seed=1)
    for respacing in ("10", "ddim25"):
        up, down = ExactDDIMInverseScheduler(clip_sample=False), ExactDDIMScheduler(clip_sample=False)
        up.set_timesteps(respacing=respacing)
        down.set_timesteps(respacing=respacing)
        clean = random(2, 3, 8, 8).clamp(-1, 1)
        sample = clean
        for timestep in up.timesteps[:-1]:
            sample = up.step(noise, timestep, sample).prev_sample
        for timestep in down.timesteps[:-1]:
            sample = down.step(noise, timestep, sample).prev_sample
        assert_near(sample, clean, 1e-4)


# In place of diffusers


def sample_pair(theirs, ours, count: int, channels: int, **kwargs):
    """Steps of both schedulers from the same states, with the same generator."""
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(count)
    assert theirs.timesteps.tolist() == ours.timesteps.tolist()
    for i, timestep in enumerate(ours.timesteps):
        sample, output = random(2, 3, 4, 4, seed=i), random(2, channels, 4, 4, seed=1000 + i)
        yield [
            scheduler.step(output, timestep, sample, generator=torch.Generator().manual_seed(0), **kwargs)
            for scheduler in (theirs, ours)
        ]


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"variance_type": "fixed_small_log", "beta_schedule": "scaled_linear"},
        {"variance_type": "fixed_large", "beta_schedule": "sigmoid"},
        {"variance_type": "learned_range", "beta_schedule": "squaredcos_cap_v2", "clip_sample_range": 2.0},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "clip_sample": False},
        {"prediction_type": "sample", "thresholding": True, "sample_max_value": 1.5, "beta_schedule": "laplace"},
        {"num_train_timesteps": 4000, "trained_betas": [1e-3] * 4000},
        {"num_train_timesteps": 400},
    ],
)
def test_ddpm_steps_are_those_of_diffusers_where_the_two_agree(config, spacing):
    theirs = DDPMScheduler(**config, timestep_spacing=spacing)
    ours = ExactDDPMScheduler.from_config(theirs.config)
    pairs = list(sample_pair(theirs, ours, 20, output_channels(ours)))
    for i, (expected, step) in enumerate(pairs):
        assert_near(step.pred_original_sample, expected.pred_original_sample, 5e-4)
        # In diffusers, the last step adds noise at a timestep above 0.
        if i < len(pairs) - 1 or theirs.timesteps[-1] == 0:
            assert_near(step.prev_sample, expected.prev_sample, 5e-5)


@pytest.mark.parametrize("clipped", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"clip_sample": False, "beta_schedule": "scaled_linear", "set_alpha_to_one": False, "steps_offset": 1},
        {"prediction_type": "v_prediction", "thresholding": True, "timestep_spacing": "trailing"},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        {"prediction_type": "sample", "num_train_timesteps": 400},
    ],
)
def test_ddim_steps_are_those_of_diffusers_where_the_two_agree(config, clipped):
    theirs = DDIMScheduler(**config)
    ours = ExactDDIMScheduler.from_config(theirs.config)
    for expected, step in sample_pair(theirs, ours, 20, 3, eta=0.5, use_clipped_model_output=clipped):
        assert_near(step.pred_original_sample, expected.pred_original_sample, 5e-4)
        assert_near(step.prev_sample, expected.prev_sample, 2e-5 if config.get("set_alpha_to_one", True) else 1)


def test_stable_diffusion_s_ddim_is_diffusers_own():
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    theirs = DDIMScheduler(**config, set_alpha_to_one=False, steps_offset=1)
    ours = ExactDDIMScheduler.from_config(theirs.config)
    for expected, step in sample_pair(theirs, ours, 50, 3):
        assert_near(step.prev_sample, expected.prev_sample, 2e-5)


@pytest.mark.parametrize("scheduler_class", SAMPLERS)
@pytest.mark.parametrize("other_class", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("config", [{}, {"num_train_timesteps": 4000}, {"num_train_timesteps": 10}])
def test_from_config_keeps_the_process(scheduler_class, other_class, config):
    """Including defaults, which differ between the two."""
    for start, goal in ((scheduler_class, other_class), (other_class, scheduler_class)):
        source = start(**config)
        target = goal.from_config(source.config)
        torch.testing.assert_close(target.alphas_cumprod, source.alphas_cumprod, rtol=1e-3, atol=1e-9)
        for scheduler in (source, target):
            scheduler.set_timesteps(7)
        assert target.timesteps.tolist() == source.timesteps.tolist()


def test_incomplete_configs_have_the_defaults_of_their_class():
    published = {"_class_name": "DDPMScheduler", "num_train_timesteps": 2000, "variance_type": "fixed_large"}
    scheduler = ExactDDPMScheduler.from_config(published)
    assert scheduler.config.timestep_spacing == "leading"
    assert scheduler.config.beta_end == 0.02
    assert scheduler.variance_type == "fixed_large"


@pytest.mark.parametrize("other_class", [DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler])
@pytest.mark.parametrize("variance_type", [None, "learned_range"])
def test_a_solver_without_a_variance_type_has_ours(other_class, variance_type):
    other = other_class(variance_type=variance_type, beta_schedule="squaredcos_cap_v2")
    for scheduler_class in SCHEDULERS:
        scheduler = scheduler_class.from_config(other.config)
        assert scheduler.config.variance_type == scheduler.variance_type == (variance_type or "fixed_small")
        torch.testing.assert_close(scheduler.alphas_cumprod, other.alphas_cumprod, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize(
    "other",
    [
        EDMEulerScheduler(),
        EDMDPMSolverMultistepScheduler(),
        EDMHeunScheduler(),
        FlowMatchEulerDiscreteScheduler(),
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
        UniPCMultistepScheduler(prediction_type="flow_prediction"),
        DPMSolverSinglestepScheduler(use_flow_sigmas=True),
    ],
    ids=lambda other: type(other).__name__,
)
def test_configs_of_other_processes_are_refused(other, tmp_path):
    message = f"belongs to {'EDM' if 'EDM' in type(other).__name__ else 'a flow'}. This scheduler takes only"
    with pytest.raises(ValueError, match=message):
        ExactDDPMScheduler.from_config(other.config)
    other.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        ExactDDIMScheduler.from_pretrained(tmp_path)


@pytest.mark.parametrize("rescale", [False, True])
def test_only_the_last_timestep_is_without_signal(rescale):
    for betas, first in (([0.1, 1.0, 0.1], 1), ([1.0, 0.1], 0), ([0.999] * 200, 107)):
        with pytest.raises(ValueError, match=f"but timestep {first} has none already"):
            ExactDDPMScheduler(len(betas), trained_betas=betas, rescale_betas_zero_snr=rescale)
    scheduler = ExactDDPMScheduler(3, trained_betas=[0.1, 0.2, 1.0], rescale_betas_zero_snr=rescale)
    sample = random(3, 3, 4, 4)
    assert scheduler.alphas_cumprod[-1] == 0
    assert scheduler.step(sample, scheduler.timesteps, sample).prev_sample.isfinite().all()


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "quadratic"},
        {"variance_type": "small"},
        {"prediction_type": "noise"},
        {"timestep_spacing": "even"},
        {"num_train_timesteps": 0},
        {"trained_betas": [0.1]},
        {"num_train_timesteps": 2, "trained_betas": [0.1, 1.1]},
        {"num_train_timesteps": 2, "trained_betas": [0.0, 0.1]},
        {"num_train_timesteps": 10, "beta_end": 2.0},
        {"num_train_timesteps": 1, "rescale_betas_zero_snr": True},
    ],
)
def test_bad_configs_are_refused(config):
    with pytest.raises(ValueError):
        ExactDDPMScheduler(**config)


def tiny_unet(out_channels: int = 3) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        out_channels=out_channels,
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    ).eval()


@pytest.mark.parametrize("variance_type", ["fixed_small", "learned_range"])
def test_in_diffusers_ddpm_pipeline(variance_type):
    pipe = DDPMPipeline(
        tiny_unet(6 if variance_type == "learned_range" else 3), ExactDDPMScheduler(variance_type=variance_type)
    )
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    images = pipe(batch_size=2, num_inference_steps=7, generator=generators, output_type="np").images
    assert images.shape == (2, 8, 8, 3) and np.isfinite(images).all()


def test_in_diffusers_ddim_pipeline():
    pipe = DDIMPipeline(tiny_unet(6), ExactDDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = ExactDDIMScheduler.from_config(pipe.scheduler.config)
    for kwargs in ({}, {"eta": 1.0, "use_clipped_model_output": False}):
        # The pipeline does not clamp the channels of the noise, because they are inputs of the network.
        images = pipe(num_inference_steps=7, generator=torch.Generator().manual_seed(0), output_type="np", **kwargs)
        assert images.images.shape == (1, 8, 8, 3) and np.isfinite(images.images).all()


class DDPMConfig(SchedulerTesterConfig):
    scheduler_class = ExactDDPMScheduler
    config = {"num_train_timesteps": 400, "variance_type": "fixed_large", "clip_sample_range": 2.0}
    compatible_classes = (DDPMScheduler, DDIMScheduler, ExactDDIMScheduler, DPMSolverMultistepScheduler)


class DDIMConfig(SchedulerTesterConfig):
    scheduler_class = ExactDDIMScheduler
    config = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    compatible_classes = (DDIMScheduler, DDPMScheduler, ExactDDPMScheduler)


class TestDDPMSaveLoad(DDPMConfig, SchedulerSaveLoadTesterMixin):
    pass


class TestDDPMFromConfig(DDPMConfig, SchedulerFromConfigTesterMixin):
    pass


class TestDDPMStep(DDPMConfig, SchedulerStepTesterMixin):
    pass


class TestDDPMAddNoise(DDPMConfig, SchedulerAddNoiseTesterMixin):
    pass


class TestDDPMDeterminism(DDPMConfig, SchedulerDeterminismTesterMixin):
    pass


class TestDDIMSaveLoad(DDIMConfig, SchedulerSaveLoadTesterMixin):
    pass


class TestDDIMFromConfig(DDIMConfig, SchedulerFromConfigTesterMixin):
    pass


class TestDDIMStep(DDIMConfig, SchedulerStepTesterMixin):
    pass


class TestDDIMAddNoise(DDIMConfig, SchedulerAddNoiseTesterMixin):
    pass


class TestDDIMDeterminism(DDIMConfig, SchedulerDeterminismTesterMixin):
    pass
