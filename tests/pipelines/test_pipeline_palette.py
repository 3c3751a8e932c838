import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoGuidance,
    ClassifierFreeGuidance,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    IPNDMScheduler,
    LayerSkipConfig,
    PNDMScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image, ImageCms
from safetensors.torch import load_file

from diffusers_ext.converters import convert_guided_diffusion
from diffusers_ext.guiders import ClassifierGuidance
from diffusers_ext.pipelines import pipeline_palette
from diffusers_ext.pipelines.fills import smooth_fill
from diffusers_ext.pipelines.images import pad_images
from diffusers_ext.pipelines.pipeline_palette import PalettePipeline
from diffusers_ext.schedulers import ExactDDPMScheduler, scheduling_gaussian_diffusion
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
from tests.pipelines.tiny_palette import draw, make_images, make_pipeline, make_unet, note_calls, to_picture


GOLDEN = Path(__file__).parent / "golden" / "palette" / "unet_and_samplers"


class TranslationConfig(PipelineTesterConfig):
    pipeline_class = PalettePipeline
    output_shape = (3, 3, 8, 8)
    batch_params = ("image",)
    num_images_param = "num_images_per_input"

    def get_components(self):
        return {
            "unet": make_unet(),
            "scheduler": DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
            "guider": ClassifierFreeGuidance(guidance_scale=2.0),
            "tasks": ["translation", "inpainting", "uncropping", "super_resolution"],
            "default_num_inference_steps": 4,
            "default_scale_factor": 2,
        }

    def get_inputs(self):
        return {"image": make_images()}


class InpaintingConfig(TranslationConfig):
    """A solver that draws noise in each step, a network that takes gamma and classes, no guider."""

    batch_params = ("image", "class_labels")

    def get_components(self):
        return {
            "unet": make_unet(num_class_embeds=4),
            "scheduler": ExactDDPMScheduler(),
            "noise_conditioning": "gamma",
            "tasks": ("inpainting",),
            "id2label": {0: "zero", 1: "one", 2: "two"},
            "null_class_label": 3,
            "default_num_inference_steps": 4,
        }

    def get_inputs(self):
        return {"image": make_images(), "mask_image": (1, 2, 5, 8), "class_labels": [2, "one", 0]}


class FlowConfig(TranslationConfig):
    """Super-resolution from a partial start, in tiles."""

    output_shape = (2, 3, 16, 16)

    def get_components(self):
        scheduler = FlowMatchHeunDiscreteScheduler()
        return {"unet": make_unet(), "scheduler": scheduler, "default_num_inference_steps": 4}

    def get_inputs(self):
        images = list(map(to_picture, make_images(2)))
        return {"image": images, "scale_factor": 2, "strength": 0.75, "tile_size": 8, "guidance_scale": 2.0}


class TestOutput(TranslationConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(TranslationConfig, PipelineSaveLoadTesterMixin):
    pass


class TestRandomness(TranslationConfig, PipelineRandomnessTesterMixin):
    pass


class TestBatch(TranslationConfig, PipelineBatchTesterMixin):
    pass


class TestCallback(TranslationConfig, PipelineCallbackTesterMixin, PipelineGuidanceCallbackTesterMixin):
    pass


class TestDtype(TranslationConfig, PipelineDtypeTesterMixin):
    pass


class TestInpaintingOutput(InpaintingConfig, PipelineOutputTesterMixin):
    pass


class TestInpaintingSaveLoad(InpaintingConfig, PipelineSaveLoadTesterMixin):
    pass


class TestInpaintingRandomness(InpaintingConfig, PipelineRandomnessTesterMixin):
    pass


class TestInpaintingBatch(InpaintingConfig, PipelineBatchTesterMixin):
    pass


class TestFlowSaveLoad(FlowConfig, PipelineSaveLoadTesterMixin):
    pass


class TestFlowRandomness(FlowConfig, PipelineRandomnessTesterMixin):
    pass


class TestFlowBatch(FlowConfig, PipelineBatchTesterMixin):
    pass


class TestFlowDtype(FlowConfig, PipelineDtypeTesterMixin):
    pass


@pytest.fixture(scope="module")
def golden():
    """A pipeline with the reference's network and schedule, and the recorded tensors."""
    tensors = load_file(GOLDEN / "case.safetensors")
    prefix = "weights.denoise_fn."
    weights = {
        name.removeprefix(prefix).replace("cond_embed", "time_embed"): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    schedule = json.loads((GOLDEN / "case.json").read_text())["config"]["beta_schedule"]["test"]
    betas = np.linspace(schedule["linear_start"], schedule["linear_end"], schedule["n_timestep"])
    pipe = PalettePipeline(
        convert_guided_diffusion(weights, in_channels=6, num_head_channels=16),
        ExactDDPMScheduler(num_train_timesteps=len(betas), trained_betas=betas, variance_type="fixed_small"),
        noise_conditioning="gamma",
        default_num_inference_steps=len(betas),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe, tensors


class TestReference:
    def replay(self, monkeypatch, pipe, noises, **inputs) -> tuple[torch.Tensor, torch.Tensor]:
        """The latents of all steps and the result in [-1, 1], with the recorded noise in place of drawn noise."""
        noises, trajectory = list(noises), []
        for module in (pipeline_palette, scheduling_gaussian_diffusion):
            monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: noises.pop(0))

        def record(pipe, step, timestep, callback_kwargs):
            trajectory.append(callback_kwargs["latents"])

        images = pipe(**inputs, output_type="pt", callback_on_step_end=record).images
        assert noises == []
        return torch.stack(trajectory), images * 2 - 1

    def test_inpainting(self, monkeypatch, golden):
        pipe, tensors = golden
        case = {name: tensors[f"inputs.inpainting.{name}"] for name in ("y_0", "mask", "y_T", "y_cond", "noise")}
        trajectory, final = self.replay(
            monkeypatch,
            pipe,
            [case["y_cond"], *case["noise"]],  # where pixels are hidden, the conditioning image is noise
            image=case["y_0"] / 2 + 0.5,
            mask_image=case["mask"],
            latents=case["y_T"],
        )
        expected = tensors["outputs.inpainting.trajectory"]
        torch.testing.assert_close(trajectory, expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(final, tensors["outputs.inpainting.final"], rtol=0, atol=1e-4)

    def test_colorization(self, monkeypatch, golden):
        pipe, tensors = golden
        case = {name: tensors[f"inputs.colorization.{name}"] for name in ("y_T", "y_cond", "noise")}
        # The recorded condition is not gray, so the task is one that leaves it unchanged.
        inputs = {"image": case["y_cond"] / 2 + 0.5, "task": "translation", "latents": case["y_T"]}
        trajectory, final = self.replay(monkeypatch, pipe, case["noise"], **inputs)
        expected = tensors["outputs.colorization.trajectory"]
        torch.testing.assert_close(trajectory, expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(final, tensors["outputs.colorization.final"], rtol=0, atol=1e-4)


class TestNetworkInput:
    def test_condition_comes_first(self):
        pipe = make_pipeline()
        calls = note_calls(pipe)
        image, latents = make_images(2), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        draw(pipe, image, latents=latents)
        for sample, _ in calls:
            torch.testing.assert_close(sample[:, :3], image * 2 - 1)
        assert_equal(calls[0][0][:, 3:], latents)

    @pytest.mark.parametrize("scheduler", [DDIMScheduler(), EulerDiscreteScheduler()], ids=["ddim", "euler"])
    def test_hidden_pixels_are_noise_and_visible_ones_clean(self, scheduler):
        pipe = make_pipeline(scheduler=scheduler)
        calls = note_calls(pipe)
        image = make_images(1, 32, 32)
        draw(pipe, image, mask_image=(0, 0, 16, 32))
        for sample, _ in calls:
            torch.testing.assert_close(sample[..., 16:], (image * 2 - 1).repeat(1, 2, 1, 1)[..., 16:])
            assert_equal(sample[:, :3], calls[0][0][:, :3])
        noise = calls[0][0][..., :16]
        assert noise.std() == pytest.approx(1, abs=0.05) and noise.mean().abs() < 0.05
        assert not torch.allclose(noise[:, :3], noise[:, 3:], atol=0.1)

    @pytest.mark.parametrize("noise_conditioning", ["timestep", "gamma", "sqrt_gamma"])
    def test_noise_conditioning(self, noise_conditioning):
        scheduler = DDPMScheduler(num_train_timesteps=10, beta_start=1e-4, beta_end=0.5)
        pipe = make_pipeline(scheduler=scheduler, noise_conditioning=noise_conditioning)
        calls = note_calls(pipe)
        draw(pipe, make_images(2), num_inference_steps=10)
        gammas = np.cumprod(1 - np.linspace(1e-4, 0.5, 10))[::-1]
        expected = {"timestep": np.arange(10)[::-1], "gamma": gammas, "sqrt_gamma": gammas**0.5}[noise_conditioning]
        levels = torch.stack([level for _, level in calls])
        assert levels.shape == (10, 2)
        np.testing.assert_allclose(levels[:, 0], expected, rtol=1e-5)
        assert_equal(levels[:, 0], levels[:, 1])

    def test_gamma_between_timesteps(self):
        pipe = make_pipeline(scheduler=EulerDiscreteScheduler(use_karras_sigmas=True), noise_conditioning="gamma")
        calls = note_calls(pipe)
        draw(pipe, num_inference_steps=8)
        assert pipe.scheduler.timesteps.frac().any()
        # x = x_0 + sigma noise, divided by sqrt(1 + sigma^2), has alpha_bar = 1 / (1 + sigma^2)
        expected = 1 / (1 + pipe.scheduler.sigmas[:-1] ** 2)
        torch.testing.assert_close(torch.cat([level for _, level in calls]), expected, rtol=1e-2, atol=1e-6)

    @pytest.mark.parametrize(
        "scheduler",
        [FlowMatchEulerDiscreteScheduler(), UniPCMultistepScheduler(use_flow_sigmas=True)],
        ids=["flow", "flow sigmas"],
    )
    def test_flows_have_no_gamma(self, scheduler):
        with pytest.raises(ValueError, match="gamma"):
            draw(make_pipeline(scheduler=scheduler, noise_conditioning="gamma"))

    def test_other_condition_than_image(self):
        """Makes colour images from a map of one channel, with a learned variance."""
        unet = make_unet(in_channels=4, out_channels=6)
        pipe = make_pipeline(unet=unet, scheduler=DDPMScheduler(variance_type="learned_range"))
        images = draw(pipe, make_images(1, channels=1))
        assert images.shape == (1, 3, 8, 8)
        with torch.no_grad():
            unet.conv_out.bias[3:] += 1
        assert not torch.equal(draw(pipe, make_images(1, channels=1)), images)
        with pytest.raises(ValueError, match="keep pixels"):
            draw(pipe, mask_image=(0, 0, 4, 4))
        with pytest.raises(ValueError, match="strength"):
            draw(pipe, strength=0.5)

    def test_channels_that_the_defaults_mistake(self):
        unet = make_unet(in_channels=4, out_channels=2)
        pipe = make_pipeline(unet=unet, scheduler=DDPMScheduler(variance_type="learned"), image_channels=1)
        assert draw(pipe).shape == (1, 1, 8, 8)
        for in_channels, out_channels in ((3, 3), (3, 8)):
            with pytest.raises(ValueError, match=f"{in_channels} input and {out_channels} output"):
                make_pipeline(unet=make_unet(in_channels=in_channels, out_channels=out_channels), image_channels=3)


def test_what_evaluation_asks_for():
    pipe = make_pipeline(unet=make_unet(sample_size=(8, 12), in_channels=4))
    assert (pipe.pipeline_tag, pipe.image_shape, pipe.samples_from_noise) == ("image-to-image", (3, 8, 12), False)


class TestGuidance:
    @torch.no_grad()
    def test_equals_ddim_with_two_passes(self):
        pipe = make_pipeline()
        image = make_images(2)
        latents = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        scheduler.set_timesteps(5)
        sample = latents
        for t in scheduler.timesteps:
            cond = pipe.unet(torch.cat([image * 2 - 1, sample], 1), t).sample
            uncond = pipe.unet(torch.cat([torch.zeros_like(image), sample], 1), t).sample
            sample = scheduler.step(uncond + 3 * (cond - uncond), t, sample).prev_sample
        images = draw(pipe, image, latents=latents, guidance_scale=3.0, num_inference_steps=5)
        torch.testing.assert_close(images, (sample / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)

    def test_one_pass_for_both_and_none_wasted(self):
        pipe = make_pipeline()
        calls = note_calls(pipe)
        draw(pipe, guidance_scale=2.0)
        assert [len(sample) for sample, _ in calls] == [2] * 4
        draw(pipe)
        assert [len(sample) for sample, _ in calls[4:]] == [1] * 4

    def test_classes_stay_in_the_unconditional_prediction(self):
        unet, labels = make_unet(num_class_embeds=3), []
        pipe = make_pipeline(unet=unet, id2label={0: "cat", 1: "dog"}, null_class_label=2)
        unet.register_forward_pre_hook(
            lambda unet, args, kwargs: labels.append(kwargs["class_labels"].tolist()), with_kwargs=True
        )
        images = draw(pipe, make_images(2), class_labels=["dog", 0], guidance_scale=2.0, num_inference_steps=1)
        draw(pipe, make_images(2), class_labels="dog", num_images_per_input=2, num_inference_steps=1)
        draw(pipe, num_inference_steps=1)
        assert labels == [[1, 0, 1, 0], [1] * 4, [2]]
        assert not torch.equal(draw(pipe, make_images(2), class_labels=[0, 0], num_inference_steps=1), images)

    def test_a_guider_that_needs_a_classifier_is_refused(self):
        with pytest.raises(ValueError, match="ClassifierGuidance needs a classifier"):
            draw(make_pipeline(guider=ClassifierGuidance()))

    def test_a_guider_that_changes_the_network(self):
        skip = LayerSkipConfig([0], fqn="mid_block.attentions", skip_attention=True, skip_ff=False)
        pipe = make_pipeline(guider=AutoGuidance(2.0, auto_guidance_config=skip))
        images = draw(pipe)
        assert_equal(draw(pipe), images)
        assert not torch.allclose(images, draw(make_pipeline(), guidance_scale=2.0), atol=1e-4)


class TestSchedulers:
    @pytest.mark.parametrize("strength", [1.0, 0.5])
    @pytest.mark.parametrize(
        "scheduler",
        [
            DDPMScheduler(),
            DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2"),
            DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=0.5),
            EulerAncestralDiscreteScheduler(),
            ExactDDPMScheduler(),
            FlowMatchEulerDiscreteScheduler(),
            FlowMatchHeunDiscreteScheduler(),
            HeunDiscreteScheduler(),
            PNDMScheduler(),
            UniPCMultistepScheduler(),
        ],
        ids=lambda scheduler: type(scheduler).__name__,
    )
    def test_any_scheduler_fits(self, scheduler, strength):
        pipe = make_pipeline(scheduler=scheduler)
        inputs = {"mask_image": (2, 2, 6, 6), "num_inference_steps": 6, "strength": strength}
        images = draw(pipe, make_images(2), **inputs, generator=generators([5, 6]))
        assert images.isfinite().all()
        alone = draw(pipe, make_images(2)[1:], **inputs, generator=generators([6]))
        torch.testing.assert_close(images[1:], alone, rtol=0, atol=1e-4)

    def test_custom_timesteps(self):
        pipe = make_pipeline(scheduler=DDPMScheduler())
        draw(pipe, timesteps=[900, 500, 20])
        assert pipe.num_timesteps == 3

    def test_eta_adds_noise_to_ddim(self):
        pipe = make_pipeline()
        assert not torch.equal(draw(pipe, eta=1.0), draw(pipe, eta=0.0))
        with pytest.raises(ValueError, match="DDPMScheduler"):
            draw(make_pipeline(scheduler=DDPMScheduler()), eta=0.5)


class TestStrength:
    @torch.no_grad()
    def test_starts_from_the_noisy_image(self):
        pipe = make_pipeline()
        image, noise = make_images(2), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        clean = image * 2 - 1
        scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        scheduler.set_timesteps(10)
        timesteps = scheduler.timesteps[-3:]
        sample = scheduler.add_noise(clean, noise, timesteps[0])
        for t in timesteps:
            sample = scheduler.step(pipe.unet(torch.cat([clean, sample], 1), t).sample, t, sample).prev_sample
        images = draw(pipe, image, latents=noise, num_inference_steps=10, strength=0.3)
        torch.testing.assert_close(images, (sample / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-5)
        assert pipe.num_timesteps == 3

    def test_needs_a_scheduler_that_adds_noise(self):
        with pytest.raises(ValueError, match="`strength` must be 1, because IPNDMScheduler"):
            draw(make_pipeline(scheduler=IPNDMScheduler()), strength=0.5)

    def test_a_little_strength_changes_a_little(self):
        # The network predicts no noise: a step only scales its input.
        pipe = make_pipeline(scheduler=FlowMatchEulerDiscreteScheduler())
        for parameter in pipe.unet.parameters():
            parameter.data.zero_()
        image = make_images(1)
        weak = draw(pipe, image, strength=0.02, num_inference_steps=50)
        strong = draw(pipe, image, strength=0.5, num_inference_steps=50)
        assert (weak - image).abs().mean() < 0.02 < (strong - image).abs().mean()

    @pytest.mark.parametrize("strength", [1.0, 0.5])
    def test_a_flow_from_the_image(self, strength):
        # The network predicts no velocity: the result is what the flow starts from.
        pipe = make_pipeline(scheduler=FlowMatchEulerDiscreteScheduler(), source_noise=0.25)
        for parameter in pipe.unet.parameters():
            parameter.data.zero_()
        image, noise = make_images(1), torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        inputs = {"image": image, "latents": noise, "num_inference_steps": 10, "strength": strength}
        result = draw(pipe, **inputs)
        time = pipe.scheduler.sigmas[-1 - pipe.num_timesteps]
        torch.testing.assert_close(result, (image + time * 0.125 * noise).clamp(0, 1), rtol=0, atol=1e-6)
        if strength == 1:  # hidden pixels start from their surroundings, whatever the image shows there
            hidden = torch.zeros(1, 1, 8, 8)
            hidden[..., :4] = 1
            hole = draw(pipe, **inputs, mask_image=(0, 0, 4, 8))[..., :4]
            expected = (smooth_fill(image, hidden) + 0.125 * noise).clamp(0, 1)[..., :4]
            torch.testing.assert_close(hole, expected, rtol=0, atol=1e-6)

    def test_a_flow_from_the_image_is_no_diffusion(self):
        with pytest.raises(ValueError, match="starts from the image, but .* DDIMScheduler is for diffusion"):
            draw(make_pipeline(source_noise=0.25))

    @pytest.mark.parametrize("scheduler", [HeunDiscreteScheduler(), FlowMatchHeunDiscreteScheduler()])
    def test_second_order_steps_stay_whole(self, scheduler):
        pipe = make_pipeline(scheduler=scheduler)
        draw(pipe, num_inference_steps=10, strength=0.3)
        assert pipe.num_timesteps == 5

    def test_hole_is_filled_by_the_first_guess(self):
        """Masked pixels are no condition, but a partial start begins with them."""
        pipe = make_pipeline()
        image, guess = make_images(1), make_images(1)
        guess[..., :4] = 1 - guess[..., :4]
        box = (0, 0, 4, 8)
        assert_equal(draw(pipe, image, mask_image=box), draw(pipe, guess, mask_image=box))
        assert not torch.equal(
            draw(pipe, image, mask_image=box, strength=0.5), draw(pipe, guess, mask_image=box, strength=0.5)
        )


class TestImages:
    def test_pictures_arrays_and_tensors_mean_the_same(self):
        pipe, images = make_pipeline(), make_images(2)
        expected = draw(pipe, images)
        pictures = [to_picture(image) for image in images]
        arrays = images.permute(0, 2, 3, 1).numpy()
        for same in (list(images), pictures, arrays, list(arrays), (arrays * 255).round().astype(np.uint8)):
            torch.testing.assert_close(draw(pipe, same), expected, rtol=0, atol=1e-6)
        assert_equal(draw(pipe, pictures[0]), draw(pipe, [pictures[0]]))
        assert_equal(draw(pipe, images[0]), draw(pipe, images[:1]))

    def condition(self, picture, **changes) -> torch.Tensor:
        return make_pipeline(**changes).prepare_images(picture)[1]

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I"])
    def test_modes(self, mode):
        picture = Image.new("L", (8, 8), 255)
        picture.paste(0, (0, 0, 4, 8))
        if mode.startswith("I"):
            picture = Image.fromarray(np.asarray(picture).astype({"I": np.int32, "I;16": np.uint16}[mode]) * 257)
        else:
            picture = picture.convert(mode)
        assert picture.mode == mode
        image = self.condition(picture)
        assert image.shape == (1, 3, 8, 8) and (image[..., :4] == 0).all() and (image[..., 4:] == 1).all()

    def test_transparency_lies_over_white(self):
        picture = Image.new("RGBA", (8, 8), (10, 20, 30, 255))
        assert_equal(self.condition(picture)[0, :, 0, 0], torch.tensor([10, 20, 30]) / 255)
        picture.putalpha(0)
        assert (self.condition(picture) == 1).all()
        unet = make_unet(in_channels=8, out_channels=4)
        assert_equal(self.condition(picture, unet=unet)[0, :, 0, 0], torch.tensor([10, 20, 30, 0]) / 255)
        assert (self.condition(picture.convert("RGB"), unet=unet)[:, 3] == 1).all()

    def test_gray_is_that_of_pillow(self):
        picture = to_picture(make_images(1)[0])
        gray = self.condition(picture, unet=make_unet(in_channels=2, out_channels=1))
        np.testing.assert_array_equal((gray[0, 0] * 255).round(), np.asarray(picture.convert("L")))

    def test_pictures_are_turned_upright(self):
        picture = to_picture(make_images(1, 8, 12)[0])
        turned = picture.transpose(Image.Transpose.ROTATE_90)
        turned.getexif()[0x0112] = 6
        assert_equal(self.condition(turned), self.condition(picture))

    def test_input_is_left_alone(self):
        image = make_images(1)
        kept = image.clone()
        draw(make_pipeline(), image, mask_image=(0, 0, 4, 4))
        assert_equal(image, kept)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": []}, "empty"),
        ({"image": "photo.png"}, "no file 'photo.png'"),
        ({"image": 0.5}, "float"),
        ({"image": [make_images(1)[0], make_images(1, 8, 10)[0]]}, r"one size.*\(8, 8\), \(10, 8\)"),
        ({"image": torch.zeros(2, 2, 2, 8, 8)}, r"\(2, 2, 2, 8, 8\)"),
        ({"image": torch.zeros(5, 8, 8)}, "3 channels, but has 5"),
        ({"image": np.zeros((8, 0, 3))}, r"\(8, 0, 3\)"),
        ({"image": -make_images(1)}, "from 0 to 1"),
        ({"image": make_images(1) * math.nan}, "from 0 to 1"),
        ({"image": np.zeros((8, 8, 3), dtype=int)}, "int64"),
        ({"image": np.zeros((8, 8, 3), dtype=object)}, "object"),
        ({"image": np.full((8, 8, 3), 1.0000001, dtype=np.float32)}, "1.0000001"),
        ({"task": 3}, "`task` must be one name"),
        ({"task": ["inpainting"]}, "`task` must be one name"),
        ({"image": Image.new("F", (8, 8))}, "float picture"),
        ({"num_images_per_input": 0}, "num_images_per_input"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 2, "timesteps": [3]}, "Only one"),
        ({"timesteps": [3, 2]}, "DDIMScheduler"),
        ({"guidance_scale": math.nan}, "guidance_scale"),
        ({"strength": 0}, "strength"),
        ({"strength": 1.5}, "strength"),
        ({"eta": 1.5}, "eta"),
        ({"tile_size": 7}, "tile_size.*multiple of 2"),
        ({"tile_size": 8, "tile_overlap": 8}, "tile_overlap"),
        ({"tile_overlap": 2}, "tile_overlap"),
        ({"tile_size": 8, "tile_batch_size": 0}, "tile_batch_size"),
        ({"latents": torch.zeros(2, 3, 8, 8)}, r"\(1, 3, 8, 8\)"),
        ({"class_labels": 1}, "no classes"),
        ({"output_type": "jpg"}, "output_type"),
    ],
)
def test_bad_input_is_refused(inputs, message):
    with pytest.raises(ValueError, match=message) as caught:
        draw(make_pipeline(), **inputs)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", [3, -1, 2, "dgo", "cat", [0, 0], True, 1.0])
def test_bad_labels_are_refused(labels):
    pipe = make_pipeline(unet=make_unet(num_class_embeds=3), id2label={0: "cat", 1: "cat"}, null_class_label=2)
    with pytest.raises(ValueError, match="class|labels"):
        draw(pipe, class_labels=labels)


def test_missing_labels_are_refused():
    with pytest.raises(ValueError, match="null_class_label"):
        draw(make_pipeline(unet=make_unet(num_class_embeds=3)))


@pytest.mark.parametrize(
    "config",
    [
        {"noise_conditioning": "sigma"},
        {"conditioning_fill": "mean"},
        {"source_noise": 0},
        {"source_noise": 0.25, "unet": make_unet(in_channels=4)},
        {"image_channels": 6},
        {"default_scale_factor": 0},
        {"default_num_inference_steps": 0},
        {"id2label": {"three": 3}},
    ],
)
def test_bad_configuration_is_refused(config):
    with pytest.raises(ValueError, match=next(iter(config)) if "image_channels" not in config else "channels"):
        make_pipeline(**config)


def test_sides_that_can_not_be_halved_are_padded_and_cropped():
    pipe, image = make_pipeline(), make_images(2, 9, 7)
    padded = draw(pipe, image.new_tensor(pad_images(image, 10, 8).numpy()))
    assert_equal(draw(pipe, image), padded[..., :9, :7])
    filled = draw(pipe, image, mask_image=(0, 0, 3, 9))
    assert filled.shape == image.shape
    assert_equal(filled[..., 3:], image[..., 3:])
    wider = draw(pipe, image, padding=(0, 0, 4, 0), latents=torch.randn(2, 3, 9, 11))
    assert_equal(wider[..., :7], image)
    assert draw(pipe, image, tile_size=8, tile_overlap=2).shape == image.shape
    assert draw(pipe, make_images(1, 9, 17), tile_size=16).shape == (1, 3, 9, 17)


def test_pictures_keep_their_colour_profile():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = to_picture(make_images(1)[0])
    picture.info["icc_profile"] = profile
    other = to_picture(make_images(1)[0])
    filled = draw(
        make_pipeline(), [picture, other], mask_image=(0, 0, 4, 8), num_images_per_input=2, output_type="pil"
    )
    assert [image.info.get("icc_profile") for image in filled] == [profile, profile, None, None]
    gray = picture.convert("L")
    gray.info["icc_profile"] = profile[:16] + b"GRAY" + profile[20:]
    assert "icc_profile" not in draw(make_pipeline(), gray, output_type="pil")[0].info
    pipe = make_pipeline()
    pipe.set_progress_bar_config(disable=True)
    wide = pipe.panorama(picture, width=12, num_inference_steps=1).images[0]
    assert wide.info["icc_profile"] == profile
