import logging
import math

import numpy as np
import pytest
import torch
from diffusers import (
    AdaptiveProjectedGuidance,
    AutoGuidance,
    BaseGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LayerSkipConfig,
    LMSDiscreteScheduler,
    PerturbedAttentionGuidance,
    PNDMScheduler,
    SkipLayerGuidance,
    TangentialClassifierFreeGuidance,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from diffusers.configuration_utils import register_to_config

from diffusers_ext.pipelines.pipeline_class_conditional import ClassConditionalPipeline
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineCallbackTesterMixin,
    PipelineDtypeTesterMixin,
    PipelineGuidanceCallbackTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
    generators,
)
from tests.tiny_unet import tiny_unet


NAMES = {0: "zero", 1: "one", 2: "two", 3: "three"}


def make_unet(num_class_embeds: int | None = 5, seed: int = 0, **changes) -> UNet2DModel:
    return tiny_unet(seed, num_class_embeds=num_class_embeds, **changes)


class ClassConditionalConfig(PipelineTesterConfig):
    pipeline_class = ClassConditionalPipeline
    output_shape = (3, 3, 8, 8)
    batch_params = ("class_labels",)
    num_images_param = "num_images_per_label"

    def get_components(self):
        return {
            "unet": make_unet(),
            "scheduler": DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
            "guider": ClassifierFreeGuidance(guidance_scale=2.0),
            "id2label": NAMES,
            "null_class_label": 4,
            "default_num_inference_steps": 4,
        }

    def get_inputs(self):
        return {"class_labels": [3, "one", 3]}


class StochasticConfig(ClassConditionalConfig):
    """A solver that draws noise in each step, no guider."""

    def get_components(self):
        return {**super().get_components(), "scheduler": DDPMScheduler(), "guider": None}


class FlowConfig(ClassConditionalConfig):
    def get_components(self):
        return {**super().get_components(), "scheduler": FlowMatchHeunDiscreteScheduler(), "guider": None}

    def get_inputs(self):
        return {**super().get_inputs(), "guidance_scale": 2.0}


class UnconditionalConfig(ClassConditionalConfig):
    batch_params = ()
    num_images_param = None

    def get_components(self):
        return {"unet": make_unet(None), "scheduler": UniPCMultistepScheduler(), "default_num_inference_steps": 4}

    def get_inputs(self):
        return {"batch_size": 3}


class TestOutput(ClassConditionalConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(ClassConditionalConfig, PipelineSaveLoadTesterMixin):
    pass


class TestRandomness(ClassConditionalConfig, PipelineRandomnessTesterMixin):
    pass


class TestBatch(ClassConditionalConfig, PipelineBatchTesterMixin):
    pass


class TestCallback(ClassConditionalConfig, PipelineCallbackTesterMixin, PipelineGuidanceCallbackTesterMixin):
    pass


class TestDtype(ClassConditionalConfig, PipelineDtypeTesterMixin):
    pass


class TestStochasticRandomness(StochasticConfig, PipelineRandomnessTesterMixin):
    pass


class TestStochasticBatch(StochasticConfig, PipelineBatchTesterMixin):
    pass


class TestFlowSaveLoad(FlowConfig, PipelineSaveLoadTesterMixin):
    pass


class TestFlowBatch(FlowConfig, PipelineBatchTesterMixin):
    pass


class TestUnconditionalOutput(UnconditionalConfig, PipelineOutputTesterMixin):
    pass


class TestUnconditionalSaveLoad(UnconditionalConfig, PipelineSaveLoadTesterMixin):
    pass


class TestUnconditionalCallback(UnconditionalConfig, PipelineCallbackTesterMixin):
    pass


@pytest.fixture
def diffusers_log(caplog, monkeypatch):
    """What diffusers logs, which does not propagate by default, goes to `caplog`."""
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)


def make_pipeline(**changes) -> ClassConditionalPipeline:
    return ClassConditionalConfig().get_pipeline(**{"guider": None, **changes})


def draw(pipe: ClassConditionalPipeline, seed: int = 0, **inputs) -> torch.Tensor:
    inputs = {"class_labels": [3, 1], "output_type": "pt", **inputs}
    return pipe(generator=torch.Generator().manual_seed(seed), **inputs).images


def note_batch_sizes(pipe: ClassConditionalPipeline) -> list[int]:
    """Fills with the batch size of each forward pass of the network to come."""
    sizes = []
    pipe.unet.register_forward_pre_hook(lambda unet, args: sizes.append(len(args[0])))
    return sizes


class TestNumerics:
    @pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
    @torch.no_grad()
    def test_equals_ddim_with_two_passes(self, guidance_scale):
        pipe = make_pipeline()
        latents = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        labels, null = torch.tensor([3, 1]), torch.tensor([4, 4])

        scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        scheduler.set_timesteps(10)
        sample = latents
        for t in scheduler.timesteps:
            cond = pipe.unet(sample, t, class_labels=labels).sample
            uncond = pipe.unet(sample, t, class_labels=null).sample
            sample = scheduler.step(uncond + guidance_scale * (cond - uncond), t, sample).prev_sample
        expected = (sample / 2 + 0.5).clamp(0, 1)

        images = draw(pipe, latents=latents, guidance_scale=guidance_scale, num_inference_steps=10)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_equals_diffusers_unconditional_pipeline(self):
        unet = make_unet(None)
        theirs = DDPMPipeline(unet, DDPMScheduler())
        theirs.set_progress_bar_config(disable=True)
        ours = ClassConditionalPipeline(unet, DDPMScheduler())
        ours.set_progress_bar_config(disable=True)
        inputs = {"batch_size": 2, "num_inference_steps": 5, "output_type": "np"}
        expected = theirs(generator=torch.Generator().manual_seed(0), **inputs).images
        images = ours(generator=torch.Generator().manual_seed(0), **inputs).images
        np.testing.assert_allclose(images, expected, atol=1e-5)

    def test_eta_adds_noise_to_ddim(self):
        pipe = make_pipeline()
        assert not torch.equal(draw(pipe, eta=1.0), draw(pipe, eta=0.0))
        assert_equal(draw(pipe, eta=1.0), draw(pipe, eta=1.0))


class TestSchedulers:
    @pytest.mark.parametrize(
        "scheduler",
        [
            DDPMScheduler(),
            DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"),
            DEISMultistepScheduler(),
            DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"),
            DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"),
            DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=0.5),
            DPMSolverSinglestepScheduler(),
            EulerAncestralDiscreteScheduler(),
            EulerDiscreteScheduler(),
            FlowMatchEulerDiscreteScheduler(),
            FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
            FlowMatchHeunDiscreteScheduler(),
            HeunDiscreteScheduler(beta_schedule="scaled_linear"),
            LMSDiscreteScheduler(),
            PNDMScheduler(),
            UniPCMultistepScheduler(prediction_type="sample"),
        ],
        ids=lambda scheduler: type(scheduler).__name__,
    )
    def test_any_scheduler_fits_and_stays_usable(self, scheduler):
        pipe = make_pipeline(scheduler=scheduler)
        inputs = {"guidance_scale": 2.0, "num_inference_steps": 6}
        expected = draw(pipe, **inputs)
        assert expected.isfinite().all()

        def stop(pipe, step, timestep, callback_kwargs):
            pipe._interrupt = step == 2

        draw(pipe, seed=1, num_inference_steps=9, callback_on_step_end=stop)
        assert_equal(draw(pipe, **inputs), expected)

        together = pipe(class_labels=[3, 1], generator=generators([5, 6]), output_type="pt", **inputs).images
        alone = pipe(class_labels=[1], generator=generators([6]), output_type="pt", **inputs).images
        torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-4)

    def test_custom_timesteps(self):
        pipe = make_pipeline(scheduler=DDPMScheduler())
        draw(pipe, timesteps=[900, 500, 20])
        assert pipe.num_timesteps == 3
        assert pipe.scheduler.timesteps.tolist() == [900, 500, 20]

    def test_custom_sigmas(self):
        pipe = make_pipeline(scheduler=FlowMatchEulerDiscreteScheduler())
        assert_equal(draw(pipe, sigmas=[1.0, 0.75, 0.5, 0.25]), draw(pipe, sigmas=np.linspace(1, 0.25, 4)))
        assert pipe.num_timesteps == 4

    def test_steps_default_to_the_pipeline_s(self):
        pipe = make_pipeline()
        draw(pipe)
        assert pipe.num_timesteps == 4

    @pytest.mark.parametrize(
        "scheduler",
        [
            DDIMScheduler(),
            DDPMScheduler(variance_type="learned_range"),
            DPMSolverMultistepScheduler(variance_type="learned_range"),
            UniPCMultistepScheduler(),
        ],
        ids=lambda scheduler: type(scheduler).__name__,
    )
    @pytest.mark.parametrize("channels", [1, 3])
    def test_learned_variance(self, scheduler, channels):
        unet = make_unet(in_channels=channels, out_channels=2 * channels)
        pipe = make_pipeline(unet=unet, scheduler=scheduler)
        images = draw(pipe, guidance_scale=2.0)
        assert images.shape == (2, channels, 8, 8)

        # the last channels are the variance: only a scheduler that learned to use it sees them change
        with torch.no_grad():
            unet.conv_out.bias[channels:] += 1
        reads_variance = isinstance(scheduler, DDPMScheduler)
        assert torch.equal(draw(pipe, guidance_scale=2.0), images) != reads_variance


class TestLabels:
    def test_names_ids_and_tensors_mean_the_same(self):
        pipe = make_pipeline()
        expected = draw(pipe, class_labels=[3, 1])
        for labels in (
            ["three", "one"],
            ["three", 1],
            (3, 1),
            torch.tensor([3, 1]),
            np.array([3, 1]),
            np.array(["three", "one"]),
        ):
            assert_equal(draw(pipe, class_labels=labels), expected)

    @pytest.mark.parametrize("label", [3, "three", np.int64(3), torch.tensor(3), torch.tensor([3]), [torch.tensor(3)]])
    def test_a_single_label(self, label):
        pipe = make_pipeline()
        assert_equal(draw(pipe, class_labels=label), draw(pipe, class_labels=[3]))

    def test_labels_matter_and_may_repeat(self):
        images = draw(make_pipeline(), class_labels=[3, 3, 1], latents=torch.ones(3, 3, 8, 8))
        torch.testing.assert_close(images[0], images[1])
        assert not torch.allclose(images[0], images[2], atol=1e-3)

    def test_no_labels_is_the_null_label(self):
        pipe = make_pipeline()
        pipe.unet.class_embedding.weight.data[4] = pipe.unet.class_embedding.weight.data[2]
        expected = draw(pipe, class_labels=[2, 2])
        assert_equal(draw(pipe, class_labels=None, batch_size=2), expected)
        assert draw(pipe, class_labels=None).shape == (1, 3, 8, 8)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([], "empty"),
            (torch.zeros(0, dtype=torch.long), "empty"),
            (4, "no class"),
            (5, "There is no class 5: the class ids are 0 to 3"),
            (-1, "There is no class -1"),
            (True, "True"),
            (torch.tensor([True]), "True"),
            (1.0, "1.0"),
            (np.array([1.0]), "1.0"),
            ([[1, 2]], r"\[1, 2\]"),
            (torch.zeros(1, 1, dtype=torch.long), "one dimension|holds"),
            ({1, 2}, "holds"),
            ([None], "None"),
            ("thre", "did you mean one of 'three'"),
            ("Three", "'three'"),
            ("3", "no class named '3'"),
            ("xyzzy", "'zero', 'one', 'two', 'three'"),
        ],
    )
    def test_bad_labels_are_refused(self, labels, message):
        with pytest.raises(ValueError, match=message):
            draw(make_pipeline(), class_labels=labels)

    def test_ambiguous_and_missing_names_are_refused(self):
        with pytest.raises(ValueError, match=r"\[0, 2\]"):
            draw(make_pipeline(id2label={0: "crane", 1: "dog", 2: "crane"}), class_labels="crane")
        with pytest.raises(ValueError, match="id2label"):
            draw(make_pipeline(id2label=None), class_labels="three")

    @pytest.mark.parametrize(
        "config",
        [{"id2label": {5: "five"}}, {"id2label": {"three": 3}}, {"null_class_label": 5}, {"null_class_label": -1}],
    )
    def test_labels_that_the_network_lacks_are_refused(self, config):
        with pytest.raises(ValueError, match=next(iter(config))):
            make_pipeline(**config)

    def test_conditional_and_unconditional_networks_are_told_apart(self):
        with pytest.raises(ValueError, match="no classes"):
            draw(make_pipeline(unet=make_unet(None), id2label=None, null_class_label=None))
        with pytest.raises(ValueError, match="null_class_label"):
            draw(make_pipeline(null_class_label=None), class_labels=None)


class TestGuidance:
    def test_guidance_scale_is_plain_classifier_free_guidance(self):
        expected = draw(make_pipeline(guider=ClassifierFreeGuidance(guidance_scale=2.0)))
        assert_equal(draw(make_pipeline(), guidance_scale=2.0), expected)

    def test_conditional_and_unconditional_share_one_forward(self):
        pipe = make_pipeline()
        batch_sizes = note_batch_sizes(pipe)
        draw(pipe, guidance_scale=2.0)
        assert batch_sizes == [4, 4, 4, 4]

    @pytest.mark.parametrize("guidance_scale", [None, 1.0])
    def test_nothing_is_spent_without_guidance(self, guidance_scale):
        pipe = make_pipeline(null_class_label=None)
        batch_sizes = note_batch_sizes(pipe)
        draw(pipe, guidance_scale=guidance_scale)
        assert batch_sizes == [2, 2, 2, 2]

    def test_interval_counts_scheduler_steps(self):
        """Heun takes 2n - 1 steps: the fractions are of these."""
        pipe = make_pipeline(
            scheduler=FlowMatchHeunDiscreteScheduler(), guider=ClassifierFreeGuidance(2.0, start=0.2, stop=0.6)
        )
        batch_sizes = note_batch_sizes(pipe)
        draw(pipe, num_inference_steps=3)
        assert batch_sizes == [2, 4, 4, 2, 2]

    def test_guidance_scale_of_the_call_wins_and_changes_no_component(self):
        guider = AdaptiveProjectedGuidance(guidance_scale=2.0, eta=0.5)
        pipe = make_pipeline(guider=guider)
        expected = draw(make_pipeline(guider=AdaptiveProjectedGuidance(guidance_scale=5.0, eta=0.5)))
        before = draw(pipe)
        assert_equal(draw(pipe, guidance_scale=5.0), expected)
        assert pipe.guider is guider and guider.guidance_scale == 2.0
        assert_equal(draw(pipe), before)

    @pytest.mark.parametrize(
        "make_guider",
        [
            lambda: ClassifierFreeGuidance(2.0, guidance_rescale=0.7),
            lambda: ClassifierFreeGuidance(2.0, start=0.3, stop=0.8),
            lambda: AdaptiveProjectedGuidance(2.0, adaptive_projected_guidance_momentum=-0.5),
            lambda: ClassifierFreeZeroStarGuidance(2.0),
            lambda: TangentialClassifierFreeGuidance(2.0),
        ],
        ids=["rescale", "interval", "apg", "cfg-zero", "tcfg"],
    )
    def test_guiders_that_leave_the_network_alone(self, make_guider):
        pipe = make_pipeline(guider=make_guider())
        batch_sizes = note_batch_sizes(pipe)
        images = draw(pipe)
        assert len(batch_sizes) == 4
        assert not torch.equal(images, draw(make_pipeline(), guidance_scale=2.0))
        assert_equal(draw(pipe), images)

    @pytest.mark.parametrize(
        ("make_guider", "num_passes"),
        [
            (lambda skip: AutoGuidance(2.0, auto_guidance_config=skip), 2),
            (
                lambda skip: SkipLayerGuidance(
                    2.0, skip_layer_config=skip, skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0
                ),
                3,
            ),
            (
                lambda skip: PerturbedAttentionGuidance(
                    2.0,
                    perturbed_guidance_config=LayerSkipConfig(
                        skip.indices, fqn=skip.fqn, skip_attention=False, skip_attention_scores=True, skip_ff=False
                    ),
                    perturbed_guidance_start=0.0,
                    perturbed_guidance_stop=1.0,
                ),
                3,
            ),
        ],
        ids=["autoguidance", "skip-layer", "perturbed-attention"],
    )
    def test_guiders_that_change_the_network(self, make_guider, num_passes):
        skip = LayerSkipConfig([0], fqn="mid_block.attentions", skip_attention=True, skip_ff=False)
        plain = draw(make_pipeline(), guidance_scale=2.0)
        pipe = make_pipeline(guider=make_guider(skip))
        batch_sizes = note_batch_sizes(pipe)
        images = draw(pipe)
        # each prediction on its own; the last step is within the range of every guider
        assert batch_sizes[-num_passes:] == [2] * num_passes
        assert not torch.allclose(images, plain, atol=1e-4)

        # and the network is again what it was
        assert_equal(draw(pipe), images)
        pipe.guider = None
        assert_equal(draw(pipe, guidance_scale=2.0), plain)

    def test_a_guider_comes_back_from_disk(self, tmp_path):
        skip = LayerSkipConfig([0], fqn="mid_block.attentions", skip_attention=True, skip_ff=False)
        pipe = make_pipeline(guider=AutoGuidance(2.0, auto_guidance_config=skip))
        pipe.save_pretrained(tmp_path)
        loaded = ClassConditionalPipeline.from_pretrained(tmp_path)
        loaded.set_progress_bar_config(disable=True)
        assert_equal(draw(loaded), draw(pipe))
        assert_equal(draw(loaded, guidance_scale=3.0), draw(pipe, guidance_scale=3.0))

    def test_the_network_is_cleaned_up_after_an_error(self):
        def fail(unet, args, kwargs):
            if (kwargs["class_labels"] == 4).all():
                raise RuntimeError("the unconditional pass")

        skip = LayerSkipConfig([0], fqn="mid_block.attentions", skip_attention=True, skip_ff=False)
        pipe = make_pipeline(guider=AutoGuidance(2.0, auto_guidance_config=skip))
        pipe.unet.register_forward_pre_hook(fail, with_kwargs=True)
        with pytest.raises(RuntimeError, match="unconditional pass"):
            draw(pipe)
        assert not pipe.unet.mid_block.attentions[0]._diffusers_hook.hooks

    def test_guiders_read_the_sample_and_the_labels(self):
        """What a classifier guider needs: the noisy image as the network sees it, and the class."""

        class Recorder(ClassifierFreeGuidance):
            def __call__(self, data):
                self.data = [(batch.sample, batch.class_labels) for batch in data]
                return super().__call__(data)

        pipe = make_pipeline(guider=Recorder(2.0))
        draw(pipe)
        (sample, labels), (null_sample, null_labels) = pipe.guider.data
        assert sample.shape == null_sample.shape == (2, 3, 8, 8) and sample.dtype == torch.float32
        assert labels.tolist() == [3, 1] and null_labels.tolist() == [4, 4]

    def test_unconditional_images_pass_any_guider(self):
        pipe = make_pipeline(guider=ClassifierFreeGuidance(3.0))
        expected = draw(make_pipeline(), class_labels=None, batch_size=2)
        torch.testing.assert_close(draw(pipe, class_labels=None, batch_size=2), expected)

    def test_guidance_without_null_label_is_refused(self):
        with pytest.raises(ValueError, match="null_class_label"):
            draw(make_pipeline(null_class_label=None), guidance_scale=2.0)
        pipe = make_pipeline(null_class_label=None, guider=ClassifierFreeGuidance(2.0, start=0.5))
        batch_sizes = note_batch_sizes(pipe)
        with pytest.raises(ValueError, match="null_class_label"):
            draw(pipe)
        assert batch_sizes == []

    def test_only_chosen_guiders_warn(self, caplog, diffusers_log):
        pipe = make_pipeline()
        caplog.clear()
        draw(pipe, guidance_scale=2.0)
        assert caplog.text == ""
        ClassifierFreeGuidance()
        assert "experimental" in caplog.text

    def test_scale_that_the_guider_lacks_is_refused(self):
        class FixedGuidance(ClassifierFreeGuidance):
            @register_to_config
            def __init__(self):
                BaseGuidance.__init__(self)

        with pytest.raises(ValueError, match="FixedGuidance"):
            draw(make_pipeline(guider=FixedGuidance()), guidance_scale=2.0)


class TestSizes:
    @pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
    def test_picture_mode_follows_the_channels(self, channels, mode):
        pipe = make_pipeline(unet=make_unet(in_channels=channels, out_channels=channels))
        image = draw(pipe, class_labels=2, output_type="pil")[0]
        assert image.mode == mode and image.size == (8, 8)

    def test_channels_that_no_picture_has(self):
        pipe = make_pipeline(unet=make_unet(in_channels=5, out_channels=5))
        assert draw(pipe).shape == (2, 5, 8, 8)
        with pytest.raises(ValueError, match="5 channels"):
            draw(pipe, output_type="pil")

    def test_size_of_the_network_or_of_the_call(self):
        assert draw(make_pipeline(unet=make_unet(sample_size=(8, 12)))).shape[2:] == (8, 12)
        assert draw(make_pipeline(), height=16).shape[2:] == (16, 8)
        assert draw(make_pipeline(), class_labels=1, width=10, output_type="pil")[0].size == (10, 8)
        with pytest.raises(ValueError, match="height"):
            draw(make_pipeline(unet=make_unet(sample_size=None)))


class TestComponents:
    def check_compiled(self, guider: BaseGuidance):
        torch.compiler.reset()
        pipe = make_pipeline(guider=guider)
        expected = draw(pipe)
        pipe.unet = torch.compile(pipe.unet, backend="eager")
        torch.testing.assert_close(draw(pipe), expected, rtol=0, atol=1e-5)

    @pytest.mark.slow
    def test_a_compiled_network_draws_the_same(self):
        self.check_compiled(ClassifierFreeGuidance(2.0))

    @pytest.mark.slow
    def test_a_compiled_network_can_still_be_changed(self):
        skip = LayerSkipConfig([0], fqn="mid_block.attentions", skip_attention=True, skip_ff=False)
        self.check_compiled(AutoGuidance(2.0, auto_guidance_config=skip))

    def test_from_pipe_of_a_diffusers_pipeline(self):
        theirs = DDPMPipeline(make_unet(), DDPMScheduler())
        pipe = ClassConditionalPipeline.from_pipe(theirs, id2label=NAMES, null_class_label=4)
        pipe.set_progress_bar_config(disable=True)
        assert pipe.unet is theirs.unet
        assert draw(pipe, class_labels="two", num_inference_steps=2).isfinite().all()

    def test_config_keys_are_integers(self, tmp_path):
        make_pipeline().save_pretrained(tmp_path)
        assert ClassConditionalPipeline.from_pretrained(tmp_path).config.id2label == NAMES
        other = ClassConditionalPipeline.from_pretrained(tmp_path, default_num_inference_steps=2)
        other.set_progress_bar_config(disable=True)
        draw(other)
        assert other.num_timesteps == 2

    def test_loading_warns_of_nothing(self, tmp_path, caplog, diffusers_log):
        make_pipeline().save_pretrained(tmp_path)
        caplog.clear()
        ClassConditionalPipeline.from_pretrained(tmp_path)
        assert caplog.text == ""

    def test_generators_for_one_image(self):
        pipe = make_pipeline(scheduler=DDPMScheduler())
        inputs = {"class_labels": 2, "output_type": "pt"}
        one = pipe(generator=torch.Generator().manual_seed(3), **inputs).images
        assert_equal(pipe(generator=generators([3]), **inputs).images, one)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"num_images_per_label": 0}, "num_images_per_label"),
        ({"num_images_per_label": 1.5}, "num_images_per_label"),
        ({"batch_size": 2}, "num_images_per_label"),
        ({"class_labels": None, "num_images_per_label": 2}, "batch_size"),
        ({"class_labels": None, "batch_size": 0}, "batch_size"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": True}, "num_inference_steps"),
        ({"num_inference_steps": 2, "timesteps": [3]}, "Only one"),
        ({"timesteps": [3, 2]}, "DDIMScheduler"),
        ({"sigmas": [1.0, 0.5]}, "DDIMScheduler"),
        ({"guidance_scale": math.nan}, "guidance_scale"),
        ({"guidance_scale": "2"}, "guidance_scale"),
        ({"guidance_scale": True}, "guidance_scale"),
        ({"class_labels": None, "guidance_scale": 2.0}, "class_labels"),
        ({"eta": 1.5}, "eta"),
        ({"eta": "0.5"}, "eta"),
        ({"height": 9}, "`height` must be a multiple of 2, because .*: 8 and 10 are nearest"),
        ({"width": 0}, "width"),
        ({"latents": torch.zeros(1, 3, 8, 8)}, r"\(2, 3, 8, 8\)"),
        ({"latents": torch.zeros(2, 3, 8, 8), "height": 16}, "latents"),
        ({"output_type": "jpg"}, "output_type"),
    ],
)
def test_bad_input_is_refused(inputs, message):
    with pytest.raises(ValueError, match=message) as caught:
        draw(make_pipeline(), **inputs)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_eta_needs_a_scheduler_that_knows_it():
    with pytest.raises(ValueError, match="DDPMScheduler"):
        draw(make_pipeline(scheduler=DDPMScheduler()), eta=0.5)
