"""TextToImagePixelPipeline: base models, super-resolvers and inpainting models, and GLIDE's samples."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from diffusers_ext.converters import convert_glide
from diffusers_ext.converters.openai_glide.text_to_image import glide_scheduler
from diffusers_ext.pipelines import TextToImagePixelPipeline
from diffusers_ext.schedulers import ExactDDPMScheduler
from tests.converters.cases import load_case
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineCallbackTesterMixin,
    PipelineDtypeTesterMixin,
    PipelineGuidanceCallbackTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
)
from tests.pipelines.tiny_text import tiny_text_encoder, tiny_text_unet, tiny_tokenizer


PROMPTS = ["a red seven", "two blue threes", ""]


def components(scheduler=None, **unet) -> dict:
    tokenizer = tiny_tokenizer()
    return {
        "unet": tiny_text_unet(**unet),
        "scheduler": scheduler or FlowMatchEulerDiscreteScheduler(),
        "tokenizer": tokenizer,
        "text_encoder": tiny_text_encoder(len(tokenizer)),
        "default_num_inference_steps": 3,
    }


def make(scheduler=None, unet=None, **options) -> TextToImagePixelPipeline:
    pipe = TextToImagePixelPipeline(**components(scheduler, **(unet or {})), **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def super_resolver(**options) -> TextToImagePixelPipeline:
    unet = {"in_channels": 6, "class_embed_type": "timestep"}
    return make(unet=unet, conditioning_augmentation=0.5, **options)


def draw(pipe, prompt="a red seven", **arguments) -> torch.Tensor:
    return pipe(prompt, generator=torch.Generator().manual_seed(0), output_type="pt", **arguments).images


class Config(PipelineTesterConfig):
    pipeline_class = TextToImagePixelPipeline
    output_shape = (3, 3, 8, 8)
    batch_params = ("prompt",)
    num_images_param = "num_images_per_prompt"

    def get_components(self):
        return components()

    def get_inputs(self):
        return {"prompt": PROMPTS, "guidance_scale": 2.0}


class TestOutput(Config, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(Config, PipelineSaveLoadTesterMixin):
    pass


class TestRandomness(Config, PipelineRandomnessTesterMixin):
    pass


class TestBatch(Config, PipelineBatchTesterMixin):
    pass


class TestCallback(Config, PipelineCallbackTesterMixin, PipelineGuidanceCallbackTesterMixin):
    pass


class TestDtype(Config, PipelineDtypeTesterMixin):
    pass


def test_the_text_changes_the_image():
    pipe = make()
    image = draw(pipe)
    assert not torch.equal(image, draw(pipe, "two blue threes"))
    # at scale 1 there is no prediction without text
    assert torch.equal(draw(pipe, guidance_scale=1.0), draw(pipe, negative_prompt="two", guidance_scale=1.0))
    assert not torch.equal(draw(pipe, guidance_scale=3.0), draw(pipe, negative_prompt="two", guidance_scale=3.0))


def test_a_super_resolver_enlarges_with_noise_of_a_level():
    pipe, small = super_resolver(), Image.new("RGB", (4, 4), (200, 0, 0))
    assert pipe.is_super_resolver
    images = [draw(pipe, low_res_image=small, conditioning_noise_level=level) for level in (0.0, 0.25, 0.5)]
    assert images[0].shape == (1, 3, 8, 8)
    assert not torch.equal(images[0], images[1]) and not torch.equal(images[1], images[2])
    assert torch.equal(images[1], draw(pipe, low_res_image=small))
    other = draw(pipe, low_res_image=Image.new("RGB", (4, 4)), conditioning_noise_level=0.0)
    assert not torch.equal(images[0], other)


@pytest.mark.parametrize("prediction_type", ["flow_prediction", "epsilon", "v_prediction", "sample"])
def test_an_inpainting_model_keeps_what_is_known(prediction_type):
    """After the last step, which removes all noise, known pixels are those of the image."""
    scheduler = None
    if prediction_type != "flow_prediction":
        scheduler = DDPMScheduler(prediction_type=prediction_type, clip_sample=False)
    pipe = make(scheduler, unet={"in_channels": 7}, shows_known_pixels=True)
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(8, 8)
    mask[2:6, 2:6] = 1
    filled = draw(pipe, image=image, mask_image=mask)[0]
    torch.testing.assert_close(filled[:, mask == 0], image[:, mask == 0], rtol=0, atol=2e-5)
    assert (filled[:, mask == 1] - image[:, mask == 1]).abs().mean() > 0.01
    assert draw(pipe).shape == (1, 3, 8, 8)  # nothing is known


def test_dynamic_thresholding_is_an_option_of_the_scheduler():
    options = {"prediction_type": "sample", "clip_sample": False}
    plain, dynamic = (
        DDPMScheduler(**options),
        DDPMScheduler(**options, thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=100.0),
    )
    clipped = DDPMScheduler(**options, thresholding=True, dynamic_thresholding_ratio=0.9)
    images = [draw(make(scheduler), guidance_scale=20.0) for scheduler in (plain, clipped, dynamic)]
    outside = [((image == 0) | (image == 1)).float().mean() for image in images]
    assert outside[2] < outside[1]


@pytest.mark.parametrize(
    "call, message",
    [
        ({"prompt": []}, "`prompt` must be a text"),
        ({"prompt": 3}, "`prompt` must be a text"),
        ({"negative_prompt": ["a", "b"]}, "`negative_prompt` must be one text or a list of 1"),
        ({"low_res_image": Image.new("RGB", (4, 4))}, "no super-resolver"),
        ({"image": Image.new("RGB", (8, 8))}, "no inpainting model"),
        ({"height": 9}, "`height` must be a multiple of 2"),
        ({"conditioning_noise_level": 0.5}, "`conditioning_noise_level` must be at most 0.0"),
        ({"num_images_per_prompt": 0}, "`num_images_per_prompt` must be a positive integer"),
    ],
)
def test_impossible_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        make()(**{"prompt": "a red seven", **call})
    assert "\n" not in str(refusal.value)


def test_a_long_prompt_is_cut_with_a_warning(caplog):
    pipe = make()
    images = draw(pipe, "a red seven " * 9)
    assert "tokens, but only 8 are read: its end has no effect" in caplog.text
    assert torch.equal(images, draw(pipe, "a red seven " * 8))


def test_missing_images_are_refused():
    with pytest.raises(ValueError, match="`low_res_image` is missing"):
        super_resolver()("a red seven")
    inpainting = make(unet={"in_channels": 7}, shows_known_pixels=True)
    with pytest.raises(ValueError, match="`image` and `mask_image` need each other"):
        inpainting("a red seven", image=Image.new("RGB", (8, 8)))


@pytest.mark.parametrize(
    "unet, options, message",
    [
        ({"in_channels": 5}, {}, "no base model, super-resolver or inpainting model"),
        ({"cross_attention_dim": 16}, {}, "states of 8 channels, but `unet` attends to 16"),
        ({}, {"conditioning_augmentation": 0.5}, "is for a super-resolver"),
        ({}, {"max_prompt_length": 9}, "`max_prompt_length` is 9, but the text encoder reads 8"),
    ],
)
def test_parts_that_do_not_fit_are_refused(unet, options, message):
    with pytest.raises(ValueError, match=message):
        make(unet=unet, **options)


def test_a_tokenizer_with_more_tokens_is_refused():
    parts = components()
    parts["text_encoder"] = tiny_text_encoder(500)
    with pytest.raises(ValueError, match="knows only 500 of them"):
        TextToImagePixelPipeline(**parts)


# GLIDE's own samples


def number_tokenizer() -> PreTrainedTokenizerFast:
    """The token of a number is the number, so that prompts can say the token ids of a case; 39 is padding."""
    words = Tokenizer(WordLevel({str(number): number for number in range(40)}))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="39", model_max_length=6)


@pytest.mark.parametrize("name", ["text2im_base", "upsampler", "inpaint_base", "inpaint_upsampler"])
def test_glide_s_samples(name, monkeypatch):
    case = load_case("glide", name)
    unet, text_encoder = convert_glide(case.weights, **case.args, image_size=case.config["image_size"])
    scheduler = glide_scheduler(unet, case.config["noise_schedule"], 1000)
    if name == "inpaint_upsampler":  # the case has the ancestral sampler
        scheduler = ExactDDPMScheduler.from_config(scheduler.config)
    pipe = TextToImagePixelPipeline(
        unet, scheduler, number_tokenizer(), text_encoder, shows_known_pixels="inpaint" in name
    )
    pipe.set_progress_bar_config(disable=True)
    noise, trajectory = iter(case.inputs["noise"]), []
    monkeypatch.setattr(
        "diffusers_ext.schedulers.scheduling_gaussian_diffusion.randn_tensor", lambda *a, **k: next(noise)
    )
    images = {}
    if "low_res" in case.inputs:
        images["low_res_image"] = case.inputs["low_res"] / 2 + 0.5
    if "inpaint_image" in case.inputs:
        images |= {"image": case.inputs["inpaint_image"] / 2 + 0.5, "mask_image": 1 - case.inputs["inpaint_mask"]}
    pipe(
        [" ".join(str(token) for token in row if token != 39) for row in case.inputs["tokens"].tolist()],
        timesteps=case.outputs["sampler_timesteps"].flip(0).tolist(),
        guidance_scale=case.config["guidance_scale"],
        latents=case.inputs["x_T"],
        callback_on_step_end=lambda pipe, i, t, tensors: trajectory.append(tensors["latents"]),
        output_type="pt",
        **images,
    )
    expected = case.outputs["trajectory"]
    error = (torch.stack(trajectory) - expected).abs().max() / expected.abs().max()
    # Known pixels become noise and x_0 again, which float32 divides by an alpha of 5e-5 at the noisiest timestep.
    assert error < (1e-3 if name == "inpaint_base" else 1e-4)
