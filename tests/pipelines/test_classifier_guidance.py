"""The class-conditional pipeline with a classifier of noisy images."""

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from diffusers_ext.guiders import ClassifierGuidance
from diffusers_ext.models import NoisyClassifier
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.schedulers import ExactDDIMScheduler, ExactDDPMScheduler
from tests.pipelines.test_pipeline_class_conditional import NAMES, ClassConditionalConfig, make_unet
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineDtypeTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
)


def make_classifier(num_classes: int = 4) -> NoisyClassifier:
    torch.manual_seed(1)
    classifier = NoisyClassifier(
        in_channels=3,
        num_classes=num_classes,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
    )
    return classifier.eval()


def make_pipeline(scheduler=None, **components) -> ClassConditionalPipeline:
    components = {
        "unet": make_unet(None),
        "guider": ClassifierGuidance(guidance_scale=5.0),
        "classifier": make_classifier(),
        "id2label": NAMES,
        "default_num_inference_steps": 4,
        **components,
    }
    pipe = ClassConditionalPipeline(scheduler=scheduler or ExactDDIMScheduler(), **components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class GuidedUnconditionalConfig(ClassConditionalConfig):
    def get_components(self):
        components = make_pipeline(ExactDDIMScheduler(prediction_type="v_prediction", clip_sample=False)).components
        return {**components, "id2label": NAMES, "default_num_inference_steps": 4}


class GuidedConditionalConfig(ClassConditionalConfig):
    """Both kinds of guidance at once, and a solver that knows nothing of gradients."""

    def get_components(self):
        return {
            **super().get_components(),
            "scheduler": UniPCMultistepScheduler(prediction_type="v_prediction"),
            "guider": ClassifierGuidance(guidance_scale=5.0, classifier_free_guidance_scale=2.0),
            "classifier": make_classifier(),
        }


class TestOutput(GuidedUnconditionalConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(GuidedUnconditionalConfig, PipelineSaveLoadTesterMixin):
    test_optional_components_may_be_missing = None  # without them there are no classes to ask for


class TestRandomness(GuidedUnconditionalConfig, PipelineRandomnessTesterMixin):
    pass


class TestDtype(GuidedUnconditionalConfig, PipelineDtypeTesterMixin):
    pass


class TestConditionalSaveLoad(GuidedConditionalConfig, PipelineSaveLoadTesterMixin):
    pass


class TestConditionalBatch(GuidedConditionalConfig, PipelineBatchTesterMixin):
    pass


def sample(pipe, **arguments) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return pipe(**{"class_labels": [0, 3], "generator": generator, "output_type": "pt", **arguments}).images


@pytest.mark.parametrize("variance_type", ["fixed_small", "learned_range"])
def test_ancestral_scheduler_is_given_the_gradient(variance_type):
    """Dhariwal and Nichol 2021, algorithm 1, written out."""
    scheduler = ExactDDPMScheduler(variance_type=variance_type)
    channels = 6 if variance_type == "learned_range" else 3
    pipe = make_pipeline(scheduler, unet=make_unet(None, out_channels=channels))
    images = sample(pipe)

    generator, labels = torch.Generator().manual_seed(0), torch.tensor([0, 3])
    x = torch.randn(2, 3, 8, 8, generator=generator)
    for t in scheduler.timesteps:
        at = x.clone().requires_grad_()
        chosen = pipe.classifier(at, t).logits.log_softmax(dim=1)[[0, 1], labels].sum()
        (gradient,) = torch.autograd.grad(chosen, at)
        with torch.no_grad():
            p = scheduler.p_mean_variance(pipe.unet(x, t).sample, t, x)
        x = p.mean + p.variance * 5.0 * gradient
        if t > scheduler.timesteps[-1]:
            x = x + (0.5 * p.log_variance).exp() * torch.randn(x.shape, generator=generator)
    torch.testing.assert_close(images, (x / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scheduler", [ExactDDIMScheduler, ExactDDPMScheduler, DPMSolverMultistepScheduler])
def test_scale_zero_is_no_guidance_and_scales_matter(scheduler):
    pipe = make_pipeline(scheduler())
    plain = sample(pipe, guidance_scale=0)
    unguided = make_pipeline(scheduler(), guider=None, classifier=None)
    assert torch.equal(plain, sample(unguided, class_labels=None, batch_size=2))
    assert not torch.equal(sample(pipe, guidance_scale=5), plain)


def test_without_a_class_there_is_no_guidance():
    pipe = make_pipeline()
    assert torch.equal(
        sample(pipe, class_labels=None, batch_size=2), sample(pipe, class_labels=[0, 3], guidance_scale=0)
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="ClassifierGuidance needs the `classifier` component"):
        sample(make_pipeline(classifier=None))
    with pytest.raises(ValueError, match="There is no class 4: the class ids are 0 to 3"):
        sample(make_pipeline(), class_labels=[4])
    with pytest.raises(ValueError, match="the network has no classes"):
        sample(make_pipeline(guider=None))
