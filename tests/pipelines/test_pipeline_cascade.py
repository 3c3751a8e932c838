import pytest
import torch
from diffusers import (
    AutoGuidance,
    ClassifierFreeGuidance,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    LayerSkipConfig,
    ModelMixin,
    UNet2DModel,
    UniPCMultistepScheduler,
)
from diffusers.configuration_utils import ConfigMixin, register_to_config

from diffusers_ext import ADMUNet2DModel, CascadePipeline, ClassConditionalPipeline, PalettePipeline
from diffusers_ext.guiders import ClassifierGuidance
from diffusers_ext.schedulers import EDMHeunScheduler, ExactDDPMScheduler
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


NAMES = {0: "zero", 1: "one", 2: "two"}


def make_unet(size=4, in_channels=3, unet_class=UNet2DModel, **changes) -> UNet2DModel:
    return tiny_unet(size, unet_class, **{"sample_size": size, "in_channels": in_channels, **changes})


def make_base(**changes) -> ClassConditionalPipeline:
    components = {
        "unet": make_unet(num_class_embeds=4),
        "scheduler": ExactDDPMScheduler(),
        "id2label": NAMES,
        "null_class_label": 3,
        "default_num_inference_steps": 3,
    }
    return quiet(ClassConditionalPipeline(**{**components, **changes}))


def make_super_resolver(size=8, level=0.0, unet=None, **changes) -> PalettePipeline:
    components = {
        "unet": unet or make_unet(size, 7 if level else 6),
        "scheduler": DDIMScheduler(),
        "tasks": ["super_resolution"],
        "default_num_inference_steps": 2,
        "default_scale_factor": 2,
        "conditioning_augmentation": level,
    }
    return quiet(PalettePipeline(**{**components, **changes}))


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_cascade(*super_resolvers, **base) -> CascadePipeline:
    return quiet(CascadePipeline.from_pipelines(make_base(**base), *(super_resolvers or [make_super_resolver()])))


class CascadeConfig(PipelineTesterConfig):
    """A guided, ancestral, class-conditional base and a super-resolver that takes the class and a noise level."""

    pipeline_class = CascadePipeline
    output_shape = (3, 3, 8, 8)
    batch_params = ("class_labels",)
    num_images_param = "num_images_per_label"

    def get_components(self):
        return {
            "unet": make_unet(num_class_embeds=4),
            "scheduler": ExactDDPMScheduler(),
            "guider": ClassifierFreeGuidance(guidance_scale=2.0),
            "unet_2": make_unet(8, 7, num_class_embeds=3),
            "scheduler_2": DDIMScheduler(prediction_type="v_prediction"),
            "guider_2": ClassifierFreeGuidance(guidance_scale=1.5),
            "id2label": NAMES,
            "stages": {
                "unet": {"default_num_inference_steps": 4, "null_class_label": 3},
                "unet_2": {"default_num_inference_steps": 3, "conditioning_augmentation": 0.6},
            },
        }

    def get_inputs(self):
        return {"class_labels": [2, "one", 0]}


class TruncatedConfig(CascadeConfig):
    """Three stages, unconditional, truncated."""

    output_shape = (3, 3, 16, 16)
    batch_params = ()

    def get_components(self):
        return {
            "unet": make_unet(),
            "scheduler": FlowMatchEulerDiscreteScheduler(),
            "unet_2": make_unet(8, 7),
            "scheduler_2": DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"),
            "unet_3": make_unet(16, 6),
            "scheduler_3": DDPMScheduler(),
            "stages": {
                "unet": {"default_num_inference_steps": 8},
                "unet_2": {"default_num_inference_steps": 8, "conditioning_augmentation": 0.9},
                "unet_3": {"default_num_inference_steps": 2, "noise_conditioning": "sqrt_gamma"},
            },
        }

    def get_inputs(self):
        return {"batch_size": 3, "truncated": True, "conditioning_noise_level": [None, 0.3]}


class LatentsTesterMixin(PipelineRandomnessTesterMixin):
    def test_latents_are_the_first_noise(self):
        pipe, latents = self.get_pipeline(), torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(5))
        assert_equal(self.run(pipe, latents=latents), self.run(pipe, latents=latents.clone()))
        assert not torch.equal(self.run(pipe, latents=latents), self.run(pipe, latents=-latents))


class StageCallbackTesterMixin(PipelineCallbackTesterMixin):
    def test_callback_sees_each_step(self):
        pipe, steps = self.get_pipeline(), []
        planned = [stage["default_num_inference_steps"] for stage in pipe.config.stages.values()]

        def callback(pipe, step, timestep, callback_kwargs):
            steps.append((pipe.stage, step))
            assert list(callback_kwargs) == pipe._callback_tensor_inputs
            suffix = ("", "_2", "_3")[pipe.stage]
            assert timestep == getattr(pipe, f"scheduler{suffix}").timesteps[step]
            assert pipe.num_timesteps == planned[pipe.stage]
            return callback_kwargs

        names = list(pipe._callback_tensor_inputs)
        images = self.run(pipe, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
        made = [sum(stage == i for stage, _ in steps) for i in range(pipe.num_stages)]
        assert steps == [(stage, step) for stage, count in enumerate(made) for step in range(count)]
        is_truncated = self.get_inputs().get("truncated", False)
        assert all(0 < a < b if is_truncated else a == b for a, b in zip(made[:-1], planned[:-1], strict=True))
        assert made[-1] == planned[-1]
        assert_equal(images, self.run(pipe))


class TestOutput(CascadeConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(CascadeConfig, PipelineSaveLoadTesterMixin):
    pass


class TestRandomness(CascadeConfig, LatentsTesterMixin):
    pass


class TestBatch(CascadeConfig, PipelineBatchTesterMixin):
    pass


class TestCallback(CascadeConfig, StageCallbackTesterMixin, PipelineGuidanceCallbackTesterMixin):
    pass


class TestDtype(CascadeConfig, PipelineDtypeTesterMixin):
    pass


class TestTruncatedOutput(TruncatedConfig, PipelineOutputTesterMixin):
    pass


class TestTruncatedSaveLoad(TruncatedConfig, PipelineSaveLoadTesterMixin):
    # Without its third stage it is another cascade.
    test_optional_components_may_be_missing = None


class TestTruncatedRandomness(TruncatedConfig, LatentsTesterMixin):
    pass


class TestTruncatedCallback(TruncatedConfig, StageCallbackTesterMixin):
    pass


def test_without_noise_it_is_one_pipeline_after_the_other():
    base, first = make_base(), make_super_resolver()
    second = make_super_resolver(16, 0.5, make_unet(16, 7, num_class_embeds=3))
    pipe = quiet(CascadePipeline.from_pipelines(base, first, second))
    arguments = {"conditioning_noise_level": 0, "output_type": "pt", "output_stage_images": True}
    output = pipe(["two", 0], generator=generators([1, 2]), **arguments)

    own = generators([1, 2])
    small = base(["two", 0], generator=own, output_type="pt").images
    middle = first(small, generator=own, output_type="pt").images
    large = second(middle, class_labels=[2, 0], generator=own, output_type="pt").images
    for images, expected in zip(output.stage_images, (small, middle, large), strict=True):
        assert_equal(images, expected)
    assert_equal(output.images, large)
    assert pipe(0, return_dict=False, output_stage_images=True)[1][0][0].size == (4, 4)
    assert pipe(0).stage_images is None


def test_what_evaluation_asks_for():
    pipe = make_cascade(make_super_resolver(16, default_scale_factor=4))
    assert pipe.pipeline_tag == "unconditional-image-generation"
    assert pipe.image_shape == (3, 16, 16) and pipe.samples_from_noise


def test_every_image_depends_on_its_own_generator_whatever_the_stage_draws():
    pipe = make_cascade(make_super_resolver(8, 0.6, scheduler=DDPMScheduler()))
    together = pipe([0, 1, 0], generator=generators([4, 5, 6]), output_type="pt").images
    alone = pipe([1], generator=generators([5]), output_type="pt").images
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


class Recorder(ModelMixin, ConfigMixin):
    """Records its inputs, and always predicts the same image, or the flow to it."""

    @register_to_config
    def __init__(self, sample_size=8, in_channels=7, out_channels=3, is_flow=False):
        super().__init__()
        self.image = torch.nn.Parameter(torch.linspace(-0.9, 0.9, 3 * sample_size**2).view(1, 3, *[sample_size] * 2))

    def forward(self, sample, timestep, class_labels=None, return_dict=True):
        self.seen, self.labels = sample, class_labels
        noisy, image = sample[:, -3:], self.image.expand(len(sample), -1, -1, -1)
        return ((noisy - image) / (timestep.view(-1, 1, 1, 1) / 1000) if self.config.is_flow else image,)


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(prediction_type="sample", clip_sample=False),
        DPMSolverMultistepScheduler(prediction_type="sample"),
        UniPCMultistepScheduler(prediction_type="sample"),
        EulerDiscreteScheduler(prediction_type="sample"),
        HeunDiscreteScheduler(prediction_type="sample"),
        FlowMatchEulerDiscreteScheduler(),
        FlowMatchHeunDiscreteScheduler(),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_truncated_conditioning_is_the_image_and_what_is_left_of_the_noise(scheduler):
    """If the network predicts one image, solvers go along a straight line from the noise to it."""
    network = Recorder(4, 3, is_flow=hasattr(scheduler, "scale_noise"))
    pipe = quiet(CascadePipeline(network, scheduler, Recorder(), DDIMScheduler()))
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    base = pipe._stages[0]
    latents, level = pipe._run_stage(
        base,
        noise,
        {"class_labels": (None, None), "conditioning": (None, None)},
        guidance_scale=None,
        num_inference_steps=20,
        stop_level=0.5,
        generator=None,
        callback_on_step_end=None,
        tensor_names=["latents"],
    )
    assert 0.25 < level <= 0.5
    expected = (1 - level**2) ** 0.5 * network.image + level * noise
    torch.testing.assert_close(latents, expected, rtol=0, atol=0.02)


def test_super_resolvers_are_told_the_noise_that_they_see():
    torch.manual_seed(0)
    recorder = Recorder()
    base = Recorder(4, 3)
    pipe = CascadePipeline(
        base,
        DDIMScheduler(prediction_type="sample"),
        recorder,
        DDIMScheduler(prediction_type="sample"),
        stages={"unet_2": {"conditioning_augmentation": 0.8, "default_num_inference_steps": 1}},
    )
    quiet(pipe)
    assert pipe.config.stages["unet_2"]["conditioning_noise_level"] == 0.4
    clean = torch.nn.functional.interpolate(base.image, (8, 8), mode="bicubic", antialias=True)
    enlarged_noise = torch.nn.functional.interpolate(torch.randn(500, 3, 4, 4), (8, 8), mode="bicubic", antialias=True)
    for truncated in (False, True):
        for level in (0.0, 0.3, 0.8) if not truncated else (0.3, 0.8):
            pipe(
                batch_size=500,
                conditioning_noise_level=level,
                truncated=truncated,
                num_inference_steps=[20, None],
                output_type="pt",
                generator=torch.Generator().manual_seed(0),
            )
            shown, told = recorder.seen[:, :3], recorder.seen[:, 3]
            assert torch.equal(told, torch.full_like(told, level))
            noise = shown - (1 - level**2) ** 0.5 * clean
            assert noise.mean().abs() < 0.01
            torch.testing.assert_close(noise.std(), level * enlarged_noise.std(), rtol=0.02, atol=0.004)


def test_truncated_stages_make_fewer_steps():
    pipe, steps = make_cascade(make_super_resolver(8, 0.9)), []

    def callback(pipe, step, timestep, callback_kwargs):
        steps.append(pipe.stage)

    pipe(0, num_inference_steps=[10, 2], callback_on_step_end=callback, conditioning_noise_level=0.8, truncated=True)
    assert 0 < steps.count(0) < 10 and steps.count(1) == 2


def test_stages_have_steps_and_guidance_of_their_own():
    pipe = make_cascade(make_super_resolver(guider=ClassifierFreeGuidance(guidance_scale=1.0)))
    steps = []
    pipe([0], num_inference_steps=[4, 3], callback_on_step_end=lambda p, *_: steps.append(p.stage))
    assert (steps.count(0), steps.count(1)) == (4, 3)

    def run(scale):
        output = pipe(
            [0, 1], guidance_scale=scale, generator=generators([0, 1]), output_type="pt", output_stage_images=True
        )
        return output.stage_images

    plain, base_only, resolver_only = run(None), run(3.0), run([None, 3.0])
    assert not torch.equal(plain[0], base_only[0])
    assert_equal(plain[0], resolver_only[0])
    assert not torch.equal(plain[1], resolver_only[1])
    assert_equal(run([3.0, 1.0])[1], base_only[1])


def test_labels_go_to_the_stages_that_take_them():
    recorder = Recorder(in_channels=6)
    pipe = quiet(CascadePipeline(make_unet(num_class_embeds=4), DDIMScheduler(), recorder, DDIMScheduler()))
    pipe([3, 1], num_images_per_label=2, num_inference_steps=1)
    assert recorder.labels is None
    recorder.register_to_config(num_class_embeds=4)
    pipe([3, 1], num_images_per_label=2, num_inference_steps=1)
    assert recorder.labels.tolist() == [3, 3, 1, 1]


def test_an_unconditional_base_of_diffusers_and_a_resolver_by_class():
    base = DDPMPipeline(make_unet(), DDPMScheduler())
    resolver = make_super_resolver(unet=make_unet(8, 6, num_class_embeds=3), id2label=NAMES)
    pipe = quiet(CascadePipeline.from_pipelines(base, resolver))
    assert pipe("two", num_inference_steps=2).images[0].size == (8, 8)
    with pytest.raises(ValueError, match="`class_labels` must be given, because `unet_2` has classes"):
        pipe()


def test_an_upsampler_of_adm_is_given_the_small_image():
    upsampler = make_unet(8, 6, ADMUNet2DModel, low_res_channels=3, out_channels=6)
    base = make_unet(out_channels=6)
    scheduler = ExactDDPMScheduler(variance_type="learned_range")
    pipe = quiet(CascadePipeline(base, scheduler, upsampler, ExactDDPMScheduler(variance_type="learned_range")))
    arguments = {"num_inference_steps": 1, "output_type": "pt", "output_stage_images": True}
    seen = {}
    upsampler.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs, sample=args[0]), with_kwargs=True
    )
    small = pipe(generator=torch.Generator().manual_seed(0), **arguments).stage_images[0]
    expected = torch.nn.functional.interpolate(small * 2 - 1, (8, 8), mode="bilinear")
    torch.testing.assert_close(seen["low_res"].clamp(-1, 1), expected, rtol=0, atol=0.3)
    assert seen["sample"].shape == (1, 3, 8, 8)


def test_guiders_that_change_the_network_work_in_every_stage():
    config = LayerSkipConfig(
        indices=[0], fqn="mid_block.attentions", skip_attention=False, skip_attention_scores=True, skip_ff=False
    )
    guided = make_cascade(make_super_resolver(guider=AutoGuidance(3.0, auto_guidance_config=config)))
    plain = make_cascade()
    inputs = {"class_labels": [0], "output_type": "pt"}
    images = [pipe(generator=torch.Generator().manual_seed(0), **inputs).images for pipe in (guided, plain)]
    assert not torch.equal(*images)
    assert_equal(guided(generator=torch.Generator().manual_seed(0), **inputs).images, images[0])


def test_one_repository_loads_with_its_own_code_too(tmp_path):
    resolvers = make_super_resolver(8, 0.6), make_super_resolver(16)
    pipe = make_cascade(*resolvers, guider=ClassifierFreeGuidance(2.0))
    pipe.save_pretrained(tmp_path)
    other = quiet(DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True))
    assert type(other).__module__.startswith("diffusers_modules.") and other.num_stages == 3
    assert type(other.scheduler).__name__ == "ExactDDPMScheduler" and other.parameters == pipe.parameters
    images = [p(["two"], generator=torch.Generator().manual_seed(0), output_type="pt").images for p in (pipe, other)]
    torch.testing.assert_close(*images, rtol=0, atol=1e-5)


def test_a_stage_is_replaced_while_loading(tmp_path):
    make_cascade().save_pretrained(tmp_path)
    other = make_unet(8, 6, layers_per_block=2)
    loaded = CascadePipeline.from_pretrained(tmp_path, unet_2=other, scheduler_2=UniPCMultistepScheduler())
    assert loaded.unet_2 is other and isinstance(loaded.scheduler_2, UniPCMultistepScheduler)


def two_stages(**changes) -> CascadePipeline:
    components = {"unet": make_unet(), "unet_2": make_unet(8, 6)}
    schedulers = {"scheduler": DDIMScheduler(), "scheduler_2": DDIMScheduler()}
    return quiet(CascadePipeline(**{**components, **schedulers, **changes}))


def a_resolver_with(**changes) -> CascadePipeline:
    return make_cascade(make_super_resolver(**changes))


def any_size() -> PalettePipeline:
    return make_super_resolver(default_scale_factor=None)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CascadePipeline.from_pipelines(make_base()), "1 to 4 super-resolvers, but got 0"),
        (lambda: make_cascade(*[any_size()] * 5), "1 to 4 super-resolvers, but got 5"),
        (lambda: CascadePipeline.from_pipelines(make_base(), torch.nn.Module()), "Stage 2 .Module. has no `unet`"),
        (lambda: a_resolver_with(size=16), "of 16 x 16 pixels, and does not fit stage 1, which makes 4 x 4"),
        (lambda: a_resolver_with(source_noise=0.2), "Stage 2 has a `source_noise`, to start from images"),
        (lambda: a_resolver_with(tasks=["inpainting"]), "Stage 2 was not trained for super_resolution"),
        (lambda: make_cascade(any_size(), any_size()), "`unet_3` must make larger images"),
        (lambda: a_resolver_with(unet=make_unet(8, 2, out_channels=1)), "must have 6 or 7 input and 3 or 6 output"),
        (lambda: two_stages(unet=make_unet(sample_size=None)), "must have a `sample_size`"),
        (lambda: a_resolver_with(id2label={0: "cat"}), "The classes of stage 2"),
        (lambda: make_super_resolver(8, 1.0), "`conditioning_augmentation` must be from 0 to less than 1"),
        (lambda: two_stages(unet_2=None), "A cascade needs a base model, `unet`, and a super-resolver, `unet_2`"),
        (lambda: two_stages(scheduler_2=None), "there is only `unet_2`"),
        (lambda: two_stages(unet_4=make_unet(16, 6), scheduler_4=DDIMScheduler()), "`unet_4`, but no `unet_3`"),
        (lambda: two_stages(stages={"unet_3": {}}), r"must name networks of the cascade, \['unet', 'unet_2'\]"),
        (lambda: two_stages(stages={"unet_2": {"steps": 3}}), r"unknown options of `unet_2`, \['steps'\]"),
        (lambda: two_stages(stages={"unet_2": {"noise_conditioning": "sigma"}}), "must be one of timestep, gamma"),
        (lambda: two_stages(stages={"unet_2": {"conditioning_augmentation": 1}}), "from 0 to less than 1, but is 1"),
        (lambda: two_stages(id2label={"one": 1}), "`id2label` must map class ids to names"),
        (
            lambda: two_stages(unet=make_unet(num_class_embeds=2), id2label=NAMES),
            "`id2label` has the label 2, but `unet` has 2 classes",
        ),
    ],
)
def test_stages_that_do_not_fit_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"class_labels": 3}, "The label 3 stands for no class"),
        ({"class_labels": "four"}, "no class named 'four': did you mean one of 'zero', 'one', 'two'"),
        ({"class_labels": []}, "`class_labels` is empty"),
        ({"class_labels": 1.5}, "must hold class ids"),
        ({"class_labels": 0, "batch_size": 2}, "`batch_size` is for unconditional images"),
        ({"num_images_per_label": 2}, "`num_images_per_label` needs `class_labels`"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"num_inference_steps": [2, 3, 4]}, "`num_inference_steps` must be one or a list of 2, but is a list of 3"),
        ({"num_inference_steps": [2, 0]}, "`num_inference_steps` must be a positive integer, but is 0"),
        ({"guidance_scale": 2.0}, "needs `class_labels` to guide the base model to"),
        ({"guidance_scale": [2.0]}, "`guidance_scale` must be one or a list of 2"),
        ({"guidance_scale": float("nan")}, "finite number"),
        ({"conditioning_noise_level": 0.7}, "at most 0.6, what `unet_2` was trained for, but is 0.7"),
        ({"conditioning_noise_level": -0.1}, "from 0 to less than 1, but is -0.1"),
        ({"conditioning_noise_level": [0.1, 0.1]}, "a list of 1, but is a list of 2"),
        ({"conditioning_noise_level": 0, "truncated": True}, "`truncated` needs a `conditioning_noise_level` above 0"),
        ({"generator": generators(range(2))}, "must be one generator or a list of 1"),
        ({"latents": torch.zeros(1, 3, 8, 8)}, r"`latents` must be a tensor of the shape \(1, 3, 4, 4\)"),
        ({"output_type": "latent"}, "must be 'pil', 'np' or 'pt'"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(arguments, sentence):
    pipe = make_cascade(make_super_resolver(8, 0.6))
    with pytest.raises(ValueError, match=sentence):
        pipe(**arguments)


def test_what_components_cannot_do_is_refused():
    pipe = make_cascade(make_super_resolver(8, 0.6), null_class_label=None)
    with pytest.raises(ValueError, match="`class_labels` must be given, because `unet` has classes"):
        pipe()
    with pytest.raises(ValueError, match="Guidance needs predictions without class"):
        pipe(0, guidance_scale=2.0)
    pipe.guider = ClassifierGuidance()
    with pytest.raises(ValueError, match="ClassifierGuidance needs a classifier"):
        pipe(0)
    with pytest.raises(ValueError, match="`class_labels` must be left out, because no stage has classes"):
        two_stages()(class_labels=0)
    told_gamma = {"unet_2": {"noise_conditioning": "gamma"}}
    with pytest.raises(ValueError, match="`unet_2`, which is given 'gamma', the noise level of a diffusion process"):
        two_stages(scheduler_2=FlowMatchEulerDiscreteScheduler(), stages=told_gamma)()


def test_edm_tells_its_noise_levels_too():
    pipe = make_cascade(make_super_resolver(8, 0.9), scheduler=EDMHeunScheduler())
    count = []
    pipe(0, num_inference_steps=[8, 1], truncated=True, callback_on_step_end=lambda p, *_: count.append(p.stage))
    assert 0 < count.count(0) < 15
