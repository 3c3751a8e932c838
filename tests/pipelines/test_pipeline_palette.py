import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
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
    UNet2DModel,
    UniPCMultistepScheduler,
)
from PIL import Image
from safetensors.torch import load_file

from diffusers_ext.converters import convert_guided_diffusion
from diffusers_ext.data.corruptions import CORRUPTIONS
from diffusers_ext.data.corruptions.resampling import resample
from diffusers_ext.guiders import ClassifierGuidance
from diffusers_ext.pipelines import pipeline_palette
from diffusers_ext.pipelines.pipeline_palette import (
    PalettePipeline,
    blend_seam,
    kept_columns,
    layered_fill,
    mirror_fill,
    smooth_fill,
    tile_starts,
)
from diffusers_ext.schedulers import ExactDDPMScheduler, scheduling_gaussian_diffusion
from diffusers_ext.training.loop.draws import Draw
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineCallbackTesterMixin,
    PipelineDtypeTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
    generators,
)
from tests.tiny_unet import tiny_unet


GOLDEN = Path(__file__).parent / "golden" / "palette" / "unet_and_samplers"


def make_unet(seed: int = 0, **changes) -> UNet2DModel:
    return tiny_unet(seed, **{"in_channels": 6, **changes})


def make_images(num_images: int = 3, height: int = 8, width: int = 8, channels: int = 3) -> torch.Tensor:
    """Of whole bytes, `(N, C, H, W)` in `[0, 1]`."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (num_images, channels, height, width), generator=generator) / 255


def to_picture(image: torch.Tensor) -> Image.Image:
    return PalettePipeline.numpy_to_pil(image.permute(1, 2, 0).numpy())[0]


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
    """A solver that draws noise in each step, a network that is told gamma and classes, no guider."""

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


class TestCallback(TranslationConfig, PipelineCallbackTesterMixin):
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


def make_pipeline(**changes) -> PalettePipeline:
    return TranslationConfig().get_pipeline(**{"guider": None, "tasks": None, "default_scale_factor": None, **changes})


def draw(pipe: PalettePipeline, image=None, seed: int = 0, **inputs) -> torch.Tensor:
    image = make_images(1) if image is None else image
    return pipe(image, **{"output_type": "pt", "generator": torch.Generator().manual_seed(seed), **inputs}).images


def note_calls(pipe: PalettePipeline) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Fills with the sample and the noise level of each forward pass of the network to come."""
    calls = []
    pipe.unet.register_forward_pre_hook(lambda unet, args: calls.append(args[:2]))
    return calls


@pytest.fixture(scope="module")
def golden():
    """The network of the reference, with its sampler's schedule, and the recorded tensors."""
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
        """The latents of all steps and the result in [-1, 1], the recorded noise standing for what would be drawn."""
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
            [case["y_cond"], *case["noise"]],  # where pixels are unknown, the conditioning image is noise
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
        # The recorded condition is not gray: it goes in by the name of a task that leaves it alone.
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
    def test_unknown_pixels_are_noise_and_known_ones_clean(self, scheduler):
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
        """A one-channel map in, colour out, with a learned variance."""
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
        with pytest.raises(ValueError, match="`strength` must be 1, for IPNDMScheduler"):
            draw(make_pipeline(scheduler=IPNDMScheduler()), strength=0.5)

    def test_a_little_strength_changes_a_little(self):
        # a network that predicts no noise: each step gives back what it gets, but for its scale
        pipe = make_pipeline(scheduler=FlowMatchEulerDiscreteScheduler())
        for parameter in pipe.unet.parameters():
            parameter.data.zero_()
        image = make_images(1)
        weak = draw(pipe, image, strength=0.02, num_inference_steps=50)
        strong = draw(pipe, image, strength=0.5, num_inference_steps=50)
        assert (weak - image).abs().mean() < 0.02 < (strong - image).abs().mean()

    @pytest.mark.parametrize("strength", [1.0, 0.5])
    def test_a_flow_from_the_image(self, strength):
        # a network that predicts no velocity: what comes out is what the flow starts from
        pipe = make_pipeline(scheduler=FlowMatchEulerDiscreteScheduler(), source_noise=0.25)
        for parameter in pipe.unet.parameters():
            parameter.data.zero_()
        image, noise = make_images(1), torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        inputs = {"image": image, "latents": noise, "num_inference_steps": 10, "strength": strength}
        result = draw(pipe, **inputs)
        time = pipe.scheduler.sigmas[-1 - pipe.num_timesteps]
        torch.testing.assert_close(result, (image + time * 0.125 * noise).clamp(0, 1), rtol=0, atol=1e-6)
        if strength == 1:  # what is unknown starts from what is around it, whatever it shows
            unknown = torch.zeros(1, 1, 8, 8)
            unknown[..., :4] = 1
            hole = draw(pipe, **inputs, mask_image=(0, 0, 4, 8))[..., :4]
            expected = (smooth_fill(image, unknown) + 0.125 * noise).clamp(0, 1)[..., :4]
            torch.testing.assert_close(hole, expected, rtol=0, atol=1e-6)

    def test_a_flow_from_the_image_is_no_diffusion(self):
        with pytest.raises(ValueError, match="starts from the image, and .* DDIMScheduler is for diffusion"):
            draw(make_pipeline(source_noise=0.25))

    @pytest.mark.parametrize("scheduler", [HeunDiscreteScheduler(), FlowMatchHeunDiscreteScheduler()])
    def test_second_order_steps_stay_whole(self, scheduler):
        pipe = make_pipeline(scheduler=scheduler)
        draw(pipe, num_inference_steps=10, strength=0.3)
        assert pipe.num_timesteps == 5

    def test_hole_is_filled_by_the_first_guess(self):
        """What is masked is no condition, but it is what a partial start starts from."""
        pipe = make_pipeline()
        image, guess = make_images(1), make_images(1)
        guess[..., :4] = 1 - guess[..., :4]
        box = (0, 0, 4, 8)
        assert_equal(draw(pipe, image, mask_image=box), draw(pipe, guess, mask_image=box))
        assert not torch.equal(
            draw(pipe, image, mask_image=box, strength=0.5), draw(pipe, guess, mask_image=box, strength=0.5)
        )


class TestSmoothFill:
    @pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 5), (16, 64)])
    def test_known_pixels_stay_and_others_lie_between_them(self, shape):
        images = make_images(2, *shape)
        unknown = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0)) < 0.7
        unknown[:, :, 0, 0] = False
        filled = smooth_fill(images, unknown)
        torch.testing.assert_close(torch.where(unknown, images, filled), images, rtol=0, atol=0)
        lowest, highest = images.masked_fill(unknown, 1).amin((2, 3)), images.masked_fill(unknown, 0).amax((2, 3))
        assert (filled.amin((2, 3)) >= lowest - 1e-6).all() and (filled.amax((2, 3)) <= highest + 1e-6).all()
        assert_equal(filled[1:], smooth_fill(images[1:], unknown[1:]))

    def test_a_gap_is_a_ramp_from_edge_to_edge(self):
        images, unknown = torch.full((1, 1, 32, 32), 0.8), torch.zeros(1, 1, 32, 32)
        images[..., :8], unknown[..., 8:24] = 0.2, 1
        ramp = torch.linspace(0.2, 0.8, 18)[1:-1].expand(1, 1, 32, 16)
        torch.testing.assert_close(smooth_fill(images, unknown)[..., 8:24], ramp, rtol=0, atol=0.03)

    def test_a_horizon_goes_on_and_softens(self):
        images, unknown = torch.zeros(1, 1, 32, 64), torch.zeros(1, 1, 32, 64)
        images[:, :, :16], unknown[..., 32:] = 1, 1
        contrast = smooth_fill(images, unknown)[:, :, (0, -1)].diff(dim=2).abs().flatten()
        assert contrast[31] == 1 and (contrast[32:].diff() <= 1e-3).all() and 0.05 < contrast[-1] < 0.5

    @pytest.mark.parametrize(("name", "fill"), [("smooth", smooth_fill), ("mirror", mirror_fill)])
    def test_a_network_may_be_shown_it(self, tmp_path, name, fill):
        make_pipeline(conditioning_fill=name).save_pretrained(tmp_path)
        pipe = PalettePipeline.from_pretrained(tmp_path)
        calls, image, unknown = note_calls(pipe), make_images(1), torch.zeros(1, 1, 8, 8)
        unknown[..., :3] = 1
        draw(pipe, image, mask_image=(0, 0, 3, 8))
        torch.testing.assert_close(calls[0][0][:, :3], fill(image * 2 - 1, unknown))

    def test_layers_go_on_further_sideways(self):
        images, unknown = torch.zeros(1, 1, 32, 64), torch.zeros(1, 1, 32, 64)
        images[:, :, :16], unknown[..., 32:] = 1, 1
        contrasts = [
            fill(images, unknown)[:, :, (0, -1)].diff(dim=2).abs().flatten()[32:]
            for fill in (smooth_fill, layered_fill)
        ]
        assert (contrasts[1] > contrasts[0])[4:].all() and contrasts[1][-1] > 2 * contrasts[0][-1]
        assert_equal(layered_fill(images, unknown)[..., :32], images[..., :32])

    @pytest.mark.parametrize("padding", [(1, 0, 0, 0), (3, 2, 1, 5), (0, 0, 9, 0), (0, 7, 0, 0)])
    def test_layers_of_one_colour_are_of_one_colour(self, padding):
        padded, unknown = make_pipeline()._uncrop(torch.full((2, 3, 3, 2), 0.3), padding)
        torch.testing.assert_close(padded, torch.full_like(padded, 0.3))
        assert unknown.sum() == padded[:, :1].numel() - 12

    def test_nothing_unknown_is_nothing_to_do_and_nothing_known_is_grey(self):
        images = make_images(1)
        assert smooth_fill(images, torch.zeros(1, 1, 8, 8)) is images
        assert_equal(smooth_fill(images, torch.ones(1, 1, 8, 8)), torch.zeros_like(images))


class TestMirrorFill:
    @pytest.mark.parametrize("sides", [(0, 0, 5, 0), (9, 0, 9, 0), (0, 2, 0, 30), (3, 1, 4, 7)])
    def test_it_pads_as_numpy_does(self, sides):
        left, top, right, bottom = sides
        images = make_images(2, 4, 3)
        padded, unknown = (F.pad(x, (left, right, top, bottom), value=1.0) for x in (images, 0 * images[:, :1]))
        expected = np.pad(images.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="symmetric")
        assert_equal(mirror_fill(padded, unknown), torch.from_numpy(expected))

    def test_padding_is_first_filled_with_the_outermost_quarters(self):
        images = make_images(2, 4, 8)
        padded, unknown = make_pipeline(conditioning_fill="mirror")._uncrop(images, (5, 2, 3, 0))
        columns = torch.tensor([0, 0, 1, 1, 0, *range(8), 7, 6, 6])
        assert_equal(padded, images[..., columns][..., [0, 0, *range(4)], :])
        assert unknown.sum() == 2 * (6 * 16 - 32)

    def test_each_image_has_its_own_box_and_holes_are_filled_smoothly_first(self):
        images, unknown = make_images(3), torch.zeros(3, 1, 8, 8)
        unknown[0, ..., 4:], unknown[1, :, :6], unknown[2, :, 3:5, 2:4] = 1, 1, 1
        filled = mirror_fill(images, unknown)
        assert_equal(filled[0], torch.cat([images[0, ..., :4], images[0, ..., :4].flip(2)], dim=2))
        assert_equal(filled[1], torch.cat([images[1, :, 6:].flip(1), images[1, :, 6:]] * 2, dim=1))
        assert_equal(filled[2], smooth_fill(images, unknown)[2])

    def test_nothing_unknown_is_nothing_to_do_and_nothing_known_is_grey(self):
        images = make_images(1)
        assert_equal(mirror_fill(images, torch.zeros(1, 1, 8, 8)), images)
        assert_equal(mirror_fill(images, torch.ones(1, 1, 8, 8)), torch.zeros_like(images))


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


class TestTasks:
    ALL = ["colorization", "inpainting", "uncropping", "jpeg_restoration", "super_resolution"]

    @pytest.mark.parametrize(
        ("tasks", "inputs", "task"),
        [
            (ALL, {"mask_image": (0, 0, 4, 4)}, "inpainting"),
            (ALL, {"padding": (4, 0, 0, 0)}, "uncropping"),
            (ALL, {"scale_factor": 2}, "super_resolution"),
            (ALL, {"height": 16, "width": 16}, "super_resolution"),
            (ALL, {}, "jpeg_restoration"),
            (ALL, {"image": make_images(1, channels=1)}, "colorization"),
            (ALL, {"image": make_images(1, channels=1).repeat(1, 3, 1, 1)}, "colorization"),
            (ALL, {"task": "colorization"}, "colorization"),
            (["colorization", "inpainting"], {}, "colorization"),
            (ALL, {"task": "uncropping", "mask_image": (0, 0, 4, 8)}, "uncropping"),
            (["uncropping"], {"mask_image": (0, 0, 4, 8)}, "uncropping"),
            (["deblurring"], {}, "deblurring"),
            (["deblurring", "denoising"], {"task": "denoising"}, "denoising"),
            (["my_module:my_holes"], {"mask_image": (0, 0, 4, 8)}, "my_module:my_holes"),
            (["my_module:my_holes"], {}, "my_module:my_holes"),
            (None, {}, "translation"),
            (None, {"mask_image": (0, 0, 4, 4)}, "inpainting"),
            (None, {"task": "denoising"}, "denoising"),
        ],
    )
    def test_inference(self, tasks, inputs, task):
        pipe = make_pipeline(tasks=tasks)
        assert pipe.prepare_images(**{"image": make_images(1), **inputs})[0] == task
        assert draw(pipe, **inputs).isfinite().all()

    def test_colorization_makes_gray(self):
        pipe, image = make_pipeline(), make_images(1)
        picture = to_picture(image[0])
        expected = draw(pipe, picture.convert("L"), task="colorization")
        assert_equal(draw(pipe, picture, task="colorization"), expected)
        assert_equal(draw(pipe, picture.convert("L").convert("RGB"), task="translation"), expected)

    def test_conditions_are_those_of_training(self):
        images = make_images(2, 16, 16) * 2 - 1
        random = Draw(0, torch.device("cpu")).begin(0, [0, 1])
        pipe = make_pipeline(tasks=list(CORRUPTIONS))
        small = resample((images + 1) * 127.5, (4, 4)) / 255
        for task, inputs in {
            "colorization": {"image": images / 2 + 0.5},
            "super_resolution": {"image": small, "scale_factor": 4},
        }.items():
            expected = CORRUPTIONS[task](images, random).conditioning_image
            _, condition, unknown = pipe.prepare_images(task=task, **inputs)
            torch.testing.assert_close(condition * 2 - 1, expected, rtol=0, atol=1e-6)
            assert unknown is None

    def test_combinations(self):
        tasks = ["colorization+inpainting", "super_resolution+denoising", "inpainting+uncropping"]
        pipe, image = make_pipeline(tasks=tasks), make_images(1)
        inputs = {"task": tasks[0], "mask_image": (0, 0, 4, 8)}
        calls = note_calls(pipe)
        result = draw(pipe, image, **inputs)
        gray = pipe.prepare_images(image, **inputs)[1]
        assert torch.equal(gray[:, 0], gray[:, 1])
        for sample, _ in calls:
            torch.testing.assert_close(sample[:, :3, :, 4:], gray[..., 4:] * 2 - 1)
            assert not torch.allclose(sample[:, 3:, :, 4:], gray[..., 4:] * 2 - 1, atol=0.1)
        assert not (result[..., 4:] == gray[..., 4:]).any()

        assert draw(pipe, image, scale_factor=2).shape[2:] == (16, 16)
        assert_equal(draw(pipe, image, task=tasks[2], mask_image=(0, 0, 4, 8))[..., 4:], image[..., 4:])
        with pytest.raises(ValueError, match="needs `mask_image`"):
            draw(pipe, image, task=tasks[0])
        with pytest.raises(ValueError, match="no task"):
            draw(make_pipeline(), image, task="denoising+sharpening")

    def test_super_resolution(self):
        pipe = make_pipeline(default_scale_factor=2)
        picture = Image.fromarray(np.add.outer(np.arange(8), np.arange(6)).astype(np.uint8) * 10 + 50)
        image = pipe.prepare_images(picture, scale_factor=4)[1]
        expected = np.asarray(picture.resize((24, 32), Image.Resampling.BICUBIC))
        np.testing.assert_allclose(image[0, 0] * 255, expected, atol=1.01)
        assert draw(pipe, picture, task="super_resolution").shape[2:] == (16, 12)
        assert draw(pipe, picture, height=10, width=18).shape[2:] == (10, 18)
        assert draw(pipe, make_images(1, 4, 4), scale_factor=1.5).shape[2:] == (6, 6)
        # the condition itself, where someone has made it already
        assert_equal(pipe.prepare_images(make_images(1), scale_factor=1)[1], make_images(1))

    @pytest.mark.parametrize(
        ("tasks", "inputs", "message"),
        [
            (["colorization"], {"task": "inpainting", "mask_image": (0, 0, 4, 4)}, "not trained.*colorization"),
            (["colorization"], {"mask_image": (0, 0, 4, 4)}, "not trained.*'inpainting'"),
            (["colorization"], {"padding": (4, 0, 0, 0)}, "not trained.*'uncropping'"),
            (["colorization"], {"task": "deblurring"}, "not trained"),
            (None, {"task": "inpaintng"}, "no task 'inpaintng'"),
            (ALL, {"task": "inpainting"}, "needs `mask_image`"),
            (["inpainting"], {}, "needs `mask_image`"),
            (["uncropping"], {}, "needs `padding`"),
            (["uncropping"], {"padding": (2, 0, 0, 0), "mask_image": (0, 0, 2, 2)}, "or else"),
            (["super_resolution"], {}, "scale_factor"),
            (["super_resolution"], {"height": 16}, "both"),
            (["super_resolution"], {"height": 16, "width": 16, "scale_factor": 2}, "either"),
            (["super_resolution"], {"scale_factor": 0.5}, "scale_factor"),
            (["super_resolution"], {"scale_factor": "2"}, "scale_factor"),
            (["super_resolution"], {"height": 4, "width": 16}, "height"),
            (["deblurring", "denoising"], {}, "pass `task`, one of deblurring, denoising"),
            (ALL, {"task": "colorization", "mask_image": (0, 0, 2, 2)}, "`mask_image`.*colorization"),
            (ALL, {"task": "inpainting", "padding": (2, 0, 0, 0)}, "`padding`.*inpainting"),
            (ALL, {"task": "jpeg_restoration", "scale_factor": 2}, "`scale_factor`.*jpeg"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tasks, inputs, message):
        with pytest.raises(ValueError, match=message) as caught:
            draw(make_pipeline(tasks=tasks), **inputs)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)

    @pytest.mark.parametrize("tasks", ["inpainting", [], [1]])
    def test_bad_tasks(self, tasks):
        with pytest.raises(ValueError, match="`tasks`"):
            make_pipeline(tasks=tasks)


class TestKnownPixels:
    @pytest.mark.parametrize("scheduler", [DDPMScheduler(), EulerDiscreteScheduler()], ids=["ddpm", "euler"])
    def test_pictures_keep_every_byte(self, scheduler):
        pipe = make_pipeline(scheduler=scheduler)
        values = np.arange(256, dtype=np.uint8).reshape(16, 16)
        array = np.stack([values, values[::-1], values.T], axis=2)
        result = np.array(draw(pipe, Image.fromarray(array), mask_image=(4, 0, 12, 8), output_type="pil")[0])
        changed = (result != array).any(axis=2)
        assert not changed[8:].any() and not changed[:, :4].any() and not changed[:, 12:].any()
        assert changed[:8, 4:12].mean() > 0.9

    def test_tensors_keep_every_bit(self):
        pipe, image = make_pipeline(), torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        images = draw(pipe, image, mask_image=(0, 0, 4, 8), num_images_per_input=2)
        assert_equal(images[..., 4:], image.repeat_interleave(2, dim=0)[..., 4:])
        assert not torch.equal(images[0], images[1])

    def test_forms_of_a_mask(self):
        pipe, images = make_pipeline(), make_images(2)
        array = np.zeros((8, 8), dtype=np.float32)
        array[2:8, 1:5] = 1
        picture = Image.fromarray((array * 255).astype(np.uint8))
        drawing = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
        drawing.paste((255, 255, 255, 255), (1, 2, 5, 8))
        expected = draw(pipe, images, mask_image=(1, 2, 5, 8))
        for mask in (
            [1, 2, 5, 8],
            picture,
            picture.convert("RGB"),
            picture.convert("1"),
            drawing,
            array,
            array.astype(bool),
            array.astype(np.uint8),
            Image.fromarray(array.astype(np.uint8)),
            array.astype(">f4"),
            array[:, :, None],
            torch.from_numpy(array),
            torch.from_numpy(array)[None, None],
            [(1, 2, 5, 8), picture],
            [[(1, 2, 5, 6), (1, 4, 5, 8)], array],
        ):
            assert_equal(draw(pipe, images, mask_image=mask), expected)
        alone = draw(pipe, images[:1], mask_image=(1, 2, 5, 8))
        assert_equal(draw(pipe, images[:1], mask_image=[(1, 2, 5, 6), (1, 4, 5, 8)]), alone)

    def test_a_mask_for_each_image(self):
        images = make_images(2)
        results = draw(make_pipeline(), images, mask_image=[(0, 0, 4, 8), (4, 0, 8, 8)])
        assert_equal(results[0, ..., 4:], images[0, ..., 4:])
        assert_equal(results[1, ..., :4], images[1, ..., :4])
        assert not (results == images).all(dim=1)[0, :, :4].any()

    def test_nothing_to_make(self):
        image = make_images(1)
        assert_equal(draw(make_pipeline(), image, mask_image=np.zeros((8, 8))), image)

    @pytest.mark.parametrize("padding", [(4, 0, 0, 0), (0, 2, 0, 0), (0, 0, 6, 0), (0, 0, 0, 4), (2, 4, 4, 2)])
    @pytest.mark.parametrize("strength", [1.0, 0.5])
    def test_uncropping(self, padding, strength):
        pipe, image = make_pipeline(), make_images(1, 10, 8)
        left, top, right, bottom = padding
        wider = draw(pipe, image, padding=padding, strength=strength)
        assert wider.shape[2:] == (10 + top + bottom, 8 + left + right)
        assert_equal(wider[:, :, top : top + 10, left : left + 8], image)

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"mask_image": np.ones((8, 6))}, "size of the image, 8 x 8 pixels, but has 6 x 8"),
            ({"mask_image": Image.new("L", (4, 4))}, "4 x 4"),
            ({"mask_image": [np.ones((8, 8))] * 2}, "1, one per image, but is 2"),
            ({"mask_image": (0, 0, 9, 8)}, r"\(0, 0, 9, 8\).*8 x 8"),
            ({"mask_image": (4, 0, 4, 8)}, "does not lie"),
            ({"mask_image": (-1, 0, 4, 8)}, "does not lie"),
            ({"mask_image": [(0, 0, 4, 8), (0, 0, 4)]}, "`mask_image`"),
            ({"mask_image": [[(0, 0, 4)]]}, "left, top, right, bottom"),
            ({"mask_image": "mask.png"}, "str"),
            ({"mask_image": []}, "empty"),
            ({"mask_image": np.full((8, 8), 2.0)}, "from 0 to 1"),
            ({"padding": (0, 0, 0, 0)}, "padding"),
            ({"padding": (-2, 0, 4, 0)}, "padding"),
            ({"padding": 4}, "padding"),
            ({"padding": (1, 0, 0, 0)}, "width.*multiple of 2.*9"),
        ],
    )
    def test_bad_masks_are_refused(self, inputs, message):
        with pytest.raises(ValueError, match=message) as caught:
            draw(make_pipeline(), **inputs)
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


class TestTiles:
    def test_starts_cover_and_overlap(self):
        for length in range(1, 60):
            for overlap in range(8):
                starts = tile_starts(length, 8, overlap)
                ends = [start + min(8, length) for start in starts]
                assert starts[0] == 0 and ends[-1] == length
                assert all(end - start >= overlap for end, start in zip(ends[:-1], starts[1:], strict=True))

    def test_an_image_of_tile_size_is_whole(self):
        pipe = make_pipeline()
        assert_equal(draw(pipe, tile_size=8), draw(pipe))
        assert_equal(draw(pipe, tile_size=16), draw(pipe))

    def test_tiles_of_a_pointwise_network_are_the_whole(self):
        pipe = make_pipeline()
        pipe.unet.register_forward_hook(lambda unet, args, output: (args[0][:, 3:] * 0.5 - args[0][:, :3],))
        calls = note_calls(pipe)
        image = make_images(2, 20, 28)
        whole = draw(pipe, image, guidance_scale=2.0)
        calls.clear()
        tiled = draw(pipe, image, tile_size=8, tile_overlap=3, tile_batch_size=5, guidance_scale=2.0)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)
        assert max(len(sample) for sample, _ in calls) == 5
        assert all(sample.shape[2:] == (8, 8) for sample, _ in calls)

    def test_tiles_see_their_part_of_the_condition(self):
        pipe = make_pipeline()
        calls = note_calls(pipe)
        image = make_images(1, 8, 14)
        draw(pipe, image, tile_size=8, tile_overlap=2, num_inference_steps=1)
        ((sample, _),) = calls
        for tile, start in zip(sample[:, :3], (0, 6), strict=True):
            torch.testing.assert_close(tile, image[0, :, :, start : start + 8] * 2 - 1)

    def test_with_classes_masks_and_batches(self):
        pipe = make_pipeline(unet=make_unet(num_class_embeds=3))
        image = make_images(2, 13, 21)
        inputs = {"mask_image": (0, 0, 11, 13), "tile_size": 8}
        together = draw(pipe, image, class_labels=[0, 2], generator=generators([1, 2]), **inputs)
        alone = draw(pipe, image[1:], class_labels=2, generator=generators([2]), tile_batch_size=1, **inputs)
        torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-5)
        assert_equal(together[..., 11:], image[..., 11:])


class TestPanorama:
    def extend(self, pipe, image, width, **inputs):
        generator = torch.Generator().manual_seed(0)
        return pipe.panorama(image, width, generator=generator, **{"output_type": "pt", **inputs}).images

    @pytest.mark.parametrize(("side", "left"), [("both", 9), ("left", 19), ("right", 0)])
    def test_the_image_is_in_it(self, side, left):
        image = make_images(2, 6, 8)
        panorama = self.extend(make_pipeline(), image, 27, side=side)
        assert panorama.shape == (2, 3, 6, 27)
        assert_equal(panorama[..., left : left + 8], image)
        assert not (panorama[..., :1] == panorama[..., 1:2]).all()

    def test_windows_overlap_by_half(self):
        pipe = make_pipeline(tasks=["uncropping"])
        calls = note_calls(pipe)
        panorama = self.extend(pipe, make_images(1), 24, side="right", num_inference_steps=1) * 2 - 1
        assert len(calls) == 5  # the outermost of four new columns is made again, but for the last window's
        for i, (sample, _) in enumerate(calls):
            start = 4 + 3 * i
            torch.testing.assert_close(sample[..., :3, :, :4], panorama[..., start : start + 4], rtol=0, atol=1e-6)

    def test_pictures_classes_and_several_of_each(self):
        pipe = make_pipeline(unet=make_unet(num_class_embeds=3))
        pictures = [to_picture(image) for image in make_images(2)]
        inputs = {"class_labels": [0, 2], "num_images_per_input": 2, "output_type": "pil", "tile_size": 8}
        panoramas = self.extend(pipe, pictures, 16, **inputs)
        assert [panorama.size for panorama in panoramas] == [(16, 8)] * 4
        for panorama, picture in zip(panoramas, [pictures[0]] * 2 + [pictures[1]] * 2, strict=True):
            np.testing.assert_array_equal(np.asarray(panorama)[:, 4:12], np.asarray(picture))
        assert panoramas[0] != panoramas[1]

    @pytest.mark.parametrize("new", [1, 3, 4, 32])
    def test_windows_give_what_is_missing_and_all_but_the_last_keep_back_a_quarter(self, new):
        for missing in range(100):
            kept = kept_columns(missing, new)
            assert sum(kept) == missing and all(count == new - new // 4 for count in kept[:-1])
            assert all(0 < count <= new for count in kept)

    def test_colours_go_on_at_the_seam_and_the_difference_fades(self):
        edge, new = torch.full((2, 3, 6, 1), 0.7), torch.full((2, 3, 6, 9), 0.5)
        edge[1] = 0.2
        blended = blend_seam(new, edge, 3.0)
        torch.testing.assert_close(blended[..., 2] - 0.5, (edge[..., 0] - 0.5) / math.e)
        assert (blended - new).abs()[..., -1].max() < 0.03
        assert blend_seam(new, edge, 0) is new

    def test_what_fades_solves_the_screened_poisson_equation(self):
        """Five-point differences of it are it, divided by the squared width, where it is smooth."""
        rows = torch.linspace(0, math.pi, 65, dtype=torch.float64)[:-1] + math.pi / 128
        edge = 0.5 + 0.2 * rows.cos()[:, None].expand(1, 1, -1, 1)
        added = blend_seam(torch.full((1, 1, 64, 32), 0.5, dtype=torch.float64), edge, 10.0) - 0.5
        inner = added[..., 1:-1, 1:-1]
        neighbours = added[..., 2:, 1:-1] + added[..., :-2, 1:-1] + added[..., 1:-1, 2:] + added[..., 1:-1, :-2]
        torch.testing.assert_close(neighbours - 4 * inner, inner / 10**2, atol=1e-5, rtol=0)

    def test_the_grain_of_an_edge_makes_no_streaks(self):
        grain = torch.tensor([0.4, 0.6]).repeat(8)[None, None, :, None]
        added = blend_seam(torch.full((1, 1, 16, 8), 0.5), grain, 4.0) - 0.5
        assert added[..., 4:-4, 2:].abs().max() < 2e-3  # of 0.1
        assert added[..., 4:-4, 0].abs().max() > 2e-3

    def test_blending_leaves_the_image_alone_and_brings_its_neighbours_nearer(self):
        image = make_images(2, 6, 8)
        plain, blended = (
            self.extend(make_pipeline(), image, 14, num_inference_steps=1, blend_width=width) for width in (0, 4)
        )
        assert_equal(blended[..., 3:11], image)
        for known, new in ((3, 2), (10, 11)):
            steps = [(made[..., known] - made[..., new]).abs().mean() for made in (plain, blended)]
            assert steps[1] < steps[0]

    def test_mirrored_grain_goes_on_and_passes_into_what_is_made(self):
        pipe, image = make_pipeline(conditioning_fill="mirror"), make_images(2, 8, 8)
        plain, far, near = (
            self.extend(pipe, image, 14, num_inference_steps=1, blend_width=width) for width in (0, 1000, 1e-3)
        )
        for wide in (plain, far, near):
            assert_equal(wide[..., 3:11], image)
        torch.testing.assert_close(far[..., :3], image[..., :1].expand(-1, -1, -1, 3), rtol=0, atol=0.02)
        torch.testing.assert_close(far[..., 11:], image[..., -1:].expand(-1, -1, -1, 3), rtol=0, atol=0.02)
        torch.testing.assert_close(near, plain)

    def test_no_wider_is_no_work(self):
        assert_equal(self.extend(make_pipeline(), make_images(1), 8), make_images(1))

    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ({"width": 4}, "`width`"),
            ({"width": "wide"}, "`width`"),
            ({"side": "top"}, "`side`"),
            ({"window_width": 32}, "at least 16 pixels"),
            ({"window_width": 0}, "window_width"),
            ({"blend_width": -1}, "blend_width"),
            ({"blend_width": math.nan}, "blend_width"),
            ({"blend_width": "wide"}, "blend_width"),
            ({"output_type": "jpg"}, "output_type"),
            ({"class_labels": 1}, "no classes"),
        ],
    )
    def test_bad_input_is_refused(self, inputs, message):
        with pytest.raises(ValueError, match=message):
            self.extend(make_pipeline(), **{"image": make_images(1), "width": 16, **inputs})

    def test_needs_a_network_that_uncrops(self):
        with pytest.raises(ValueError, match="not trained.*'uncropping'"):
            self.extend(make_pipeline(tasks=["inpainting"]), make_images(1), 16)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": []}, "empty"),
        ({"image": "photo.png"}, "str"),
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
        ({"image": make_images(1, 9, 8)}, "height.*multiple of 2.*9"),
        ({"image": make_images(1, 9, 17), "tile_size": 16}, "height"),
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
