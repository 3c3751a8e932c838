"""CLIP guidance: GLIDE's gradient, the gradient through x_0, cut-outs, and use by a pipeline."""

import pytest
import torch
from diffusers import DDIMScheduler
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from diffusers_ext.converters import convert_glide_clip
from diffusers_ext.guiders import CLIPGuidance
from diffusers_ext.guiders.gradients import input_levels, prediction_shift
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.schedulers import ExactDDPMScheduler
from tests.converters.cases import assert_near, load_case
from tests.guiders.test_guiding_classifier import named, schedulers
from tests.guiders.two_classes import DEVIATION, MEAN, ExactDenoiser, log_posterior


SIDE = 8  # of the images that the CLIP below sees
TOKENS = {"input_ids": torch.tensor([[1, 4, 5, 2], [1, 6, 2, 2]])}
TOWER = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}


def clean_clip() -> tuple[CLIPModel, CLIPImageProcessor]:
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": 8, "max_position_embeddings": 4, "bos_token_id": 1, "eos_token_id": 2}
    vision = {**TOWER, "image_size": SIDE, "patch_size": 4, "num_channels": 1}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    processor = CLIPImageProcessor(crop_size={"height": SIDE, "width": SIDE}, image_mean=[0.4], image_std=[0.3])
    return clip, processor


def clean_guider(scheduler, **options) -> CLIPGuidance:
    guider, (clip, processor) = CLIPGuidance(**options), clean_clip()
    guider.guide_to_texts(clip, scheduler, TOKENS, processor)
    return guider


def similarity(clip: CLIPModel, images: torch.Tensor) -> torch.Tensor:
    """Of images in [-1, 1]."""
    output = clip(pixel_values=((images + 1) / 2 - 0.4) / 0.3, **TOKENS)
    return output.logits_per_image.diagonal().sum()


def guided_step(guider, denoiser, sample, timestep):
    """As in a pipeline."""
    with torch.no_grad():
        (batch,) = guider.prepare_inputs({"sample": sample})
        guider.prepare_models(denoiser)
        batch.noise_pred = denoiser(batch.sample, timestep)[0]
        guider.cleanup_models(denoiser)
        assert not torch.is_grad_enabled()
        return guider([batch]).pred


def test_the_gradient_and_the_mean_are_those_of_glide():
    case = load_case("glide", "noised_clip")
    clip = convert_glide_clip(case.weights, **case.config["clip"])
    guider, scheduler = CLIPGuidance(guidance_scale=case.config["grad_scale"]), ExactDDPMScheduler()
    tokens, lengths = case.inputs["tokens"], case.inputs["token_lens"]
    mask = torch.arange(tokens.shape[1]) < lengths[:, None]
    for row, timestep in enumerate(case.inputs["timesteps"]):
        one = slice(row, row + 1)
        guider.guide_to_texts(clip, scheduler, {"input_ids": tokens[one], "attention_mask": mask[one]})
        guider.set_state(0, 10, timestep)
        guided_step(guider, lambda sample, _: (torch.zeros_like(sample),), case.inputs["x"][one], timestep)
        gradient = guider.condition_gradient
        assert_near(gradient, case.outputs["gradient"][one])
        mean = case.inputs["mean"][one] + case.inputs["variance"][one] * gradient
        assert_near(mean, case.outputs["guided_mean"][one])


def exact_image(sample: torch.Tensor, alpha: float, sigma: float) -> torch.Tensor:
    """x_0 as [`ExactDenoiser`] predicts it, whatever it is asked to predict."""
    p = log_posterior(sample, torch.tensor(alpha), torch.tensor(sigma)).exp()
    mean = (p[:, 1] - p[:, 0]).view(-1, 1, 1, 1) * MEAN
    return mean + alpha * DEVIATION**2 / (alpha**2 * DEVIATION**2 + sigma**2) * (sample - alpha * mean)


@pytest.mark.parametrize("scheduler", list(schedulers()), ids=named)
def test_a_clean_clip_sees_the_predicted_image(scheduler):
    """Its gradient goes back through the denoiser, whatever this predicts."""
    denoiser, (clip, _) = ExactDenoiser(), clean_clip()
    denoiser.scheduler = scheduler
    sample = torch.randn(2, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(10)
    timestep = scheduler.timesteps[5]
    alpha, sigma = input_levels(scheduler, float(timestep))
    guider = clean_guider(scheduler)
    guider.set_state(5, 10, timestep)
    guided = guided_step(guider, denoiser, sample, timestep)
    assert not guided.requires_grad

    noisy = sample.clone().requires_grad_()
    gradient = torch.autograd.grad(similarity(clip, exact_image(noisy, alpha, sigma)), noisy)[0]
    wanted = denoiser(sample, timestep)[0]
    if guider.condition_gradient is None:
        wanted = wanted + prediction_shift(scheduler, alpha, sigma) * gradient
    else:
        torch.testing.assert_close(guider.condition_gradient, gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max())
    torch.testing.assert_close(guided, wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max().item())


def test_cut_outs_are_squares_of_the_side_that_clip_sees():
    images = torch.rand(2, 1, 3 * SIDE, 2 * SIDE)
    guider = clean_guider(DDIMScheduler(), num_cutouts=5, cutout_power=0.5)

    def cut_outs(step):
        guider.set_state(step, 10, torch.tensor(500))
        return torch.stack(guider._cut_out(images, SIDE))

    first = cut_outs(0)
    assert first.shape == (5, 2, 1, SIDE, SIDE) and torch.equal(first, cut_outs(0))
    assert not torch.equal(first, cut_outs(1)) and not torch.equal(first[0], first[1])
    assert torch.equal(guider._cut_out(images[..., :SIDE, :SIDE], SIDE)[0], images[..., :SIDE, :SIDE])


def test_cut_outs_that_show_the_same_give_its_gradient():
    """A mean over cut-outs: that of equal ones is one of them."""
    scheduler = DDIMScheduler()
    denoiser = ExactDenoiser()
    denoiser.scheduler = scheduler
    sample = torch.full((2, 1, 2 * SIDE, 2 * SIDE), 0.3)

    def guided(count):
        guider = clean_guider(scheduler, num_cutouts=count, cutout_power=0)  # of the whole image
        guider.set_state(5, 10, torch.tensor(300))
        return guided_step(guider, denoiser, sample, torch.tensor(300))

    torch.testing.assert_close(guided(3), guided(1))


@torch.no_grad()
def test_a_pipeline_follows_the_texts():
    scheduler, denoiser = DDIMScheduler(clip_sample=False), ExactDenoiser(sample_size=SIDE)
    (clip, processor), guider = clean_clip(), CLIPGuidance(guidance_scale=1.0)
    denoiser.scheduler = scheduler
    pipe = ClassConditionalPipeline(denoiser, scheduler, guider)
    pipe.set_progress_bar_config(disable=True)

    def fit(**call):
        images = pipe(
            batch_size=2,
            num_inference_steps=8,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
            **call,
        ).images
        return similarity(clip, images * 2 - 1).item()

    plain = fit()
    guider.guide_to_texts(clip, scheduler, TOKENS, processor)
    assert fit() > plain
    assert fit(guidance_scale=0) == plain
    # The copy with another scale has the same texts.
    assert plain < fit(guidance_scale=0.1) != fit()


def test_combines_with_classifier_free_guidance():
    scheduler = DDIMScheduler()
    sample, conditional, unconditional = torch.randn(3, 2, 1, SIDE, SIDE)

    def guided(**scales):
        guider = clean_guider(scheduler, **scales)
        guider.set_state(0, 10, torch.tensor(300))
        with torch.no_grad():
            batches = guider.prepare_inputs({"sample": sample})
            for batch, prediction in zip(batches, (conditional, unconditional), strict=False):
                guider.prepare_models(None)
                batch.noise_pred = prediction + 0.1 * batch.sample
                assert batch.noise_pred.requires_grad == (guider.is_conditional and guider.config.guidance_scale != 0)
                guider.cleanup_models(None)
            return guider(batches).pred

    first, second = (prediction + 0.1 * sample for prediction in (conditional, unconditional))
    free, shift = second + 3 * (first - second), guided(guidance_scale=2.0) - first
    assert shift.abs().max() > 1e-3
    torch.testing.assert_close(guided(guidance_scale=0.0, classifier_free_guidance_scale=3.0), free)
    torch.testing.assert_close(guided(guidance_scale=2.0, classifier_free_guidance_scale=3.0), free + shift)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"guidance_scale": float("nan")}, "`guidance_scale` must be a finite number"),
        ({"num_cutouts": 0}, "`num_cutouts` must be at least 1, but is 0"),
        ({"cutout_power": -1.0}, "`cutout_power` must be at least 0, but is -1.0"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        CLIPGuidance(**options)


def test_a_clean_clip_needs_its_image_processor():
    with pytest.raises(ValueError, match="CLIPModel sees clean images: give its `image_processor`"):
        CLIPGuidance().guide_to_texts(clean_clip()[0], DDIMScheduler(), TOKENS)


def test_saved_and_loaded(tmp_path):
    CLIPGuidance(guidance_scale=4.0, num_cutouts=3, cutout_seed=5).save_pretrained(tmp_path)
    config = CLIPGuidance.from_pretrained(tmp_path).config
    assert (config.guidance_scale, config.num_cutouts, config.cutout_seed) == (4.0, 3, 5)
