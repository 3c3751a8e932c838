import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from diffusers_ext.guiders import ClassifierGuidance
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.schedulers import EDMHeunScheduler, ExactDDIMScheduler
from tests.guiders.two_classes import MEAN, ExactClassifier, ExactDenoiser


def schedulers():
    for prediction_type in ("epsilon", "sample", "v_prediction"):
        yield DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    yield UniPCMultistepScheduler(prediction_type="epsilon")
    yield EulerDiscreteScheduler(prediction_type="v_prediction")
    yield FlowMatchEulerDiscreteScheduler()
    yield DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    yield EDMEulerScheduler(sigma_max=20.0)
    yield EDMHeunScheduler(sigma_max=20.0)


def named(scheduler) -> str:
    return f"{type(scheduler).__name__}-{scheduler.config.get('prediction_type')}"


def exact_models(scheduler) -> tuple[ExactDenoiser, ExactClassifier]:
    denoiser, classifier = ExactDenoiser(), ExactClassifier()
    denoiser.scheduler = classifier.scheduler = scheduler
    return denoiser, classifier


@pytest.mark.parametrize("scheduler", list(schedulers()), ids=named)
def test_guided_prediction_is_that_of_the_class(scheduler):
    """grad log p(x) + grad log p(y | x) = grad log p(x | y), so scale 1 is exact."""
    denoiser, classifier = exact_models(scheduler)
    scheduler.set_timesteps(10)
    labels = torch.tensor([0, 1, 1])
    sample = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    guider = ClassifierGuidance()
    guider.guide(classifier, scheduler, labels)
    for step, timestep in enumerate(scheduler.timesteps[1:]):
        guider.set_state(step, len(scheduler.timesteps), timestep)
        (batch,) = guider.prepare_inputs({"sample": sample})
        batch.noise_pred = denoiser(batch.sample, timestep)[0]
        wanted = denoiser(sample, timestep, class_labels=labels)[0]
        torch.testing.assert_close(guider([batch]).pred, wanted, rtol=1e-4, atol=1e-4 * max(1, wanted.abs().max()))


@pytest.mark.parametrize("scheduler", list(schedulers()), ids=named)
def test_an_unconditional_model_draws_the_class(scheduler):
    denoiser, classifier = exact_models(scheduler)
    pipe = ClassConditionalPipeline(denoiser, scheduler, ClassifierGuidance(), classifier)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    call = {"class_labels": [0, 1], "num_images_per_label": 200, "num_inference_steps": 40, "output_type": "pt"}
    images = pipe(**call, generator=generator).images * 2 - 1
    for label, sign in ((0, -1), (1, 1)):
        assert images[label * 200 :][:200].mean().item() == pytest.approx(sign * MEAN, abs=0.05)
    unguided = pipe(**call, generator=generator, guidance_scale=0).images * 2 - 1
    drawn = unguided.mean(dim=(1, 2, 3)) > 0
    assert 0.35 < drawn.float().mean() < 0.65


def test_silent_without_a_class_outside_its_interval_and_when_disabled():
    scheduler = DDIMScheduler()
    denoiser, classifier = exact_models(scheduler)
    sample, labels = torch.randn(2, 1, 4, 4), torch.tensor([0, 1])

    def guided(guider, labels, step):
        guider.guide(classifier, scheduler, labels)
        guider.set_state(step, 10, torch.tensor(500))
        (batch,) = guider.prepare_inputs({"sample": sample})
        batch.noise_pred = denoiser(sample, 500)[0]
        return guider([batch]).pred

    plain = denoiser(sample, 500)[0]
    assert torch.equal(guided(ClassifierGuidance(), None, 0), plain)
    assert torch.equal(guided(ClassifierGuidance(enabled=False), labels, 0), plain)
    interval = ClassifierGuidance(start=0.2, stop=0.5)
    changed = [not torch.equal(guided(interval, labels, step), plain) for step in range(10)]
    assert changed == [2 <= step < 5 for step in range(10)]


def test_pure_noise_has_no_class():
    """There the gradient is only the classifier's error, and DDIM would divide it by zero signal."""
    scheduler = ExactDDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    denoiser, classifier = exact_models(scheduler)
    guider, asked = ClassifierGuidance(), []
    classifier.register_forward_hook(lambda *_: asked.append(True))
    guider.guide(classifier, scheduler, torch.tensor([0, 1]))
    for step, timestep in enumerate((999, 998)):
        guider.set_state(step, 10, torch.tensor(timestep))
        (batch,) = guider.prepare_inputs({"sample": torch.randn(2, 1, 4, 4)})
        batch.noise_pred = torch.randn(2, 1, 4, 4)
        guider([batch])
        assert len(asked) == step and (guider.condition_gradient is None) == (timestep == 999)


def test_combines_with_classifier_free_guidance():
    scheduler = DDIMScheduler()
    _, classifier = exact_models(scheduler)
    sample, labels = torch.randn(2, 1, 4, 4), torch.tensor([0, 1])
    conditional, unconditional = torch.randn(2, 2, 1, 4, 4)

    def guided(**scales):
        guider = ClassifierGuidance(**scales)
        guider.guide(classifier, scheduler, labels)
        guider.set_state(0, 10, torch.tensor(500))
        batches = guider.prepare_inputs({"sample": sample, "class_labels": (labels, torch.tensor([2, 2]))})
        assert [batch.class_labels.tolist() for batch in batches] == [[0, 1], [2, 2]][: guider.num_conditions]
        predictions = (conditional, unconditional)[: guider.num_conditions]
        for batch, prediction in zip(batches, predictions, strict=True):
            batch.noise_pred = prediction
        return guider(batches).pred

    free = unconditional + 3 * (conditional - unconditional)
    gradient = guided(guidance_scale=2.0) - conditional
    assert gradient.abs().max() > 0.01
    torch.testing.assert_close(guided(guidance_scale=0.0, classifier_free_guidance_scale=3.0), free)
    torch.testing.assert_close(guided(guidance_scale=2.0, classifier_free_guidance_scale=3.0), free + gradient)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), "2.0", None])
def test_bad_scales_are_refused(scale):
    for name in ("guidance_scale", "classifier_free_guidance_scale"):
        with pytest.raises(ValueError, match=f"`{name}` must be a finite number, but is {scale!r}"):
            ClassifierGuidance(**{name: scale})


def test_saved_and_loaded(tmp_path):
    guider = ClassifierGuidance(guidance_scale=4.0, classifier_free_guidance_scale=1.5, start=0.1, stop=0.9)
    guider.save_pretrained(tmp_path)
    loaded = ClassifierGuidance.from_pretrained(tmp_path)
    names = ("guidance_scale", "classifier_free_guidance_scale", "start", "stop", "enabled")
    assert {name: loaded.config[name] for name in names} == {name: guider.config[name] for name in names}
