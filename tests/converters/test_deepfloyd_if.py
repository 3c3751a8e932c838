"""Stages I and II of DeepFloyd IF: the original's outputs and samples, diffusers' pipelines, sizes, refusals."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import IFPipeline, IFSuperResolutionPipeline, UNet2DConditionModel
from transformers import T5Config, T5EncoderModel

from diffusers_ext.converters import convert_checkpoint, convert_deepfloyd_if
from diffusers_ext.converters.deepfloyd_if.presets import STAGE_I
from diffusers_ext.converters.deepfloyd_if.stages import if_scheduler
from diffusers_ext.pipelines import TextToImagePixelPipeline
from diffusers_ext.schedulers import ExactDDPMScheduler
from tests.converters.cases import Case, assert_near, assert_refused, load_case
from tests.converters.originals import empty, layer, unet_shapes
from tests.pipelines.tiny_text import tiny_tokenizer


OPTIONS = {"activation": "gelu", "att_pool_heads": 4, "num_head_channels": 16}
WITHOUT_CHECKS = {"safety_checker": None, "feature_extractor": None, "watermarker": None}


@pytest.fixture(scope="module")
def first() -> Case:
    return load_case("deepfloyd_if", "stage_1")


@pytest.fixture(scope="module")
def second() -> Case:
    return load_case("deepfloyd_if", "stage_2_aug_level")


def noised_low_res(case: Case, noise: torch.Tensor) -> torch.Tensor:
    """The small images, enlarged, with the noise of the case's `aug_level`."""
    enlarged = F.interpolate(case.inputs["low_res"], noise.shape[2:], mode="bilinear", align_corners=True)
    level = torch.tensor(int(1000 * case.config["aug_level"]))
    return ExactDDPMScheduler(beta_schedule="squaredcos_cap_v2").add_noise(enlarged, noise, level)


def assert_same_samples(trajectory: list[torch.Tensor], case: Case) -> None:
    expected = case.outputs["trajectory"]
    assert (torch.stack(trajectory) - expected).abs().max() < 1e-4 * expected.abs().max()


# The original's numbers


@torch.no_grad()
def test_stage_1(first):
    unet, inputs = convert_deepfloyd_if(first.weights, **first.args), first.inputs
    output = unet(inputs["x"], inputs["timesteps"], encoder_hidden_states=inputs["text_emb"])
    assert_near(output.sample, first.outputs["model_output"])


@torch.no_grad()
def test_stage_2_with_levels_of_different_depths(second):
    unet, inputs = convert_deepfloyd_if(second.weights, **second.args), second.inputs
    assert unet.config.layers_per_block == [1, 2]
    seen = torch.cat([inputs["x"], noised_low_res(second, inputs["aug_noise"])], dim=1)
    level = torch.full((2,), 250)
    output = unet(seen, inputs["timesteps"], encoder_hidden_states=inputs["text_emb"], class_labels=level)
    assert_near(output.sample, second.outputs["model_output"])


@torch.no_grad()
def test_a_level_that_looks_at_the_text_alone():
    case = load_case("deepfloyd_if", "text_attention")
    unet, inputs = convert_deepfloyd_if(case.weights, **case.args), case.inputs
    assert unet.config.only_cross_attention == [True, False] and not unet.config.mid_block_only_cross_attention
    output = unet(inputs["x"], inputs["timesteps"], encoder_hidden_states=inputs["text_emb"])
    assert_near(output.sample, case.outputs["model_output"])


def test_diffusers_pipeline_draws_the_original_s_samples(first, monkeypatch):
    """With dynamic thresholding, by guidance of scale 7."""
    unet, inputs = convert_deepfloyd_if(first.weights, **first.args), first.inputs
    scheduler, noise, trajectory = if_scheduler(unet), iter(inputs["noise"]), []
    pipe = IFPipeline(None, None, unet, scheduler, **WITHOUT_CHECKS, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    monkeypatch.setattr(
        "diffusers.pipelines.deepfloyd_if.pipeline_if.randn_tensor", lambda *a, **k: inputs["x_T"].clone()
    )
    monkeypatch.setattr(
        "diffusers_ext.schedulers.scheduling_gaussian_diffusion.randn_tensor", lambda *a, **k: next(noise)[:2]
    )
    pipe(
        prompt_embeds=inputs["text_emb"],
        negative_prompt_embeds=inputs["null_text_emb"],
        num_inference_steps=first.config["steps"],
        guidance_scale=first.config["guidance_scale"],
        callback=lambda i, t, images: trajectory.append(images),
        output_type="pt",
    )
    assert scheduler.timesteps.flip(0).tolist() == first.outputs["sampler_timesteps"].tolist()
    assert_same_samples(trajectory, first)


@torch.no_grad()
def test_samples_of_stage_2(second):
    """The original draws the noise of small images anew for each step and for each half of guidance."""
    unet, inputs = convert_deepfloyd_if(second.weights, **second.args), second.inputs
    scheduler, sample, trajectory = if_scheduler(unet), inputs["x_T"], []
    scheduler.set_timesteps(second.config["steps"])
    for t, noise, aug_noise in zip(scheduler.timesteps, inputs["noise"], inputs["aug_noise_sampling"], strict=True):
        given, empty_text = (
            unet(
                torch.cat([sample, noised_low_res(second, half)], dim=1),
                t,
                encoder_hidden_states=inputs[text],
                class_labels=torch.full((2,), 250),
            ).sample
            for text, half in zip(("text_emb", "null_text_emb"), aug_noise.chunk(2), strict=True)
        )
        epsilon = empty_text[:, :3] + second.config["guidance_scale"] * (given - empty_text)[:, :3]
        output = torch.cat([epsilon, given[:, 3:]], dim=1)
        sample = scheduler.step(output, t, sample, variance_noise=noise[:2]).prev_sample
        trajectory.append(sample)
    assert_same_samples(trajectory, second)


def test_diffusers_pipeline_enlarges(second):
    unet, inputs = convert_deepfloyd_if(second.weights, **second.args), second.inputs
    noising = ExactDDPMScheduler(beta_schedule="squaredcos_cap_v2")
    pipe = IFSuperResolutionPipeline(
        None, None, unet, if_scheduler(unet), noising, **WITHOUT_CHECKS, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    text = {"prompt_embeds": inputs["text_emb"], "negative_prompt_embeds": inputs["null_text_emb"]}
    images = pipe(image=inputs["low_res"], **text, height=16, width=16, num_inference_steps=2, output_type="pt").images
    assert images.shape == (2, 3, 16, 16) and images.isfinite().all()


# Files


def test_a_file_becomes_a_pipeline(first, tmp_path):
    torch.save(first.weights, tmp_path / "pytorch_model.bin")
    options = {**OPTIONS, "image_size": 8, "attention_resolutions": "8"}
    written = convert_checkpoint(tmp_path / "pytorch_model.bin", tmp_path / "out", "deepfloyd_if", **options)
    assert written.endswith("assuming efficient_activation=False, scale_skip_connection=False")
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(tokenizer), d_model=24, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    pipe = TextToImagePixelPipeline(
        unet=UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet"),
        scheduler=ExactDDPMScheduler.from_pretrained(tmp_path / "out" / "scheduler"),
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(config).eval(),
    )
    images = [
        pipe(
            prompt,
            guidance_scale=7.0,
            num_inference_steps=2,
            output_type="pt",
            generator=torch.Generator().manual_seed(0),
        ).images
        for prompt in ("a red seven", "two blue threes")
    ]
    assert images[0].shape == (1, 3, 8, 8) and not torch.equal(*images)


def stage_1_shapes(args: dict) -> dict:
    """`UNetModel` of IF, whose embedding of the timestep has another width than elsewhere."""
    text, width, model_channels = args["encoder_dim"], args["encoder_channels"], args["model_channels"]
    time_width = 4 * model_channels  # the largest of `channel_mult` is 4
    shapes = unet_shapes({**args, "channel_mult": (1, 2, 3, 4), "attention_resolutions": (2, 4, 8)})
    for name in [name for name in shapes if name.endswith(".qkv.weight")]:
        shapes |= layer(name.replace(".qkv.weight", ".encoder_kv"), 2 * shapes[name][1], width, 1)
        shapes |= layer(name.replace(".qkv.weight", ".norm_encoder"), width)
    for name in "qkv":
        shapes |= layer(f"encoder_pooling.1.{name}_proj", text, text)
    shapes["encoder_pooling.1.positional_embedding"] = (1, text)
    shapes |= layer("encoder_pooling.0", text) | layer("encoder_pooling.2", time_width, text)
    return shapes | layer("encoder_pooling.3", time_width) | layer("encoder_proj", width, text)


@pytest.mark.parametrize(
    "name, number",
    [("IF-I-M-v1.0", 371_605_830), ("IF-I-L-v1.0", 935_365_830), ("IF-I-XL-v1.0", 4_304_695_110)],
)
def test_presets_have_the_published_size(name, number):
    """400M, 900M and 4.3B in the original's table, and exactly those of its constructor."""
    unet = convert_deepfloyd_if(empty(stage_1_shapes(STAGE_I[name])), **STAGE_I[name])
    assert sum(parameter.numel() for parameter in unet.parameters()) == number
    assert unet.config.sample_size == 64 and unet.config.layers_per_block == 3


def test_refusals(first, second):
    def refused(weights: dict, options: dict, message: str) -> None:
        assert_refused(convert_deepfloyd_if, weights, options, message)

    refused(first.weights, {**OPTIONS, "att_pool_heads": 5}, "`att_pool_heads` must divide the 24 channels")
    refused(first.weights, {"num_head_channels": 16, "activation": "gelu"}, "does not show its `att_pool_heads`")
    refused(first.weights, {**OPTIONS, "activation": "gelu_jit"}, "`activation` must be 'silu' or 'gelu'")
    refused(first.weights, {**OPTIONS, "channel_mult": "1,x"}, "`channel_mult` must be a list of numbers")
    refused(first.weights, {**OPTIONS, "attention_resolutions": "8"}, "does not show its `image_size`")
    refused(second.weights, {**OPTIONS, "num_res_blocks": [2, 1]}, r"the checkpoint has \[1, 2\]")
    refused(second.weights, {**OPTIONS, "num_res_blocks": 1}, r"the checkpoint has \[1, 2\]")
    without = {key: tensor for key, tensor in first.weights.items() if "encoder_pooling" not in key}
    refused(without, OPTIONS, "not a stage of DeepFloyd IF: it has no encoder_pooling")
