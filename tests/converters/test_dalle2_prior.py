"""The prior of DALLE2-pytorch: the original's predictions, guided samples and loss, its pipeline, refusals."""

import pytest
import torch
from diffusers import ClassifierFreeGuidance
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from diffusers_ext.converters import convert_checkpoint, convert_dalle2_prior
from diffusers_ext.converters.lucidrains_dalle2.prior import PRIOR, dalle2_prior_scheduler
from diffusers_ext.models import MultiQueryPriorTransformer
from diffusers_ext.pipelines import UnCLIPPriorPipeline
from diffusers_ext.pipelines.clip_embeddings import PromptEmbeddings
from diffusers_ext.pipelines.image_priors import sample_image_embeds
from diffusers_ext.schedulers import ExactDDPMScheduler
from diffusers_ext.training.text_and_image.caption_tokenizer import make_caption_tokenizer
from tests.converters.cases import Case, assert_near, assert_refused, load_case
from tests.converters.originals import empty


@pytest.fixture(scope="module")
def case() -> Case:
    return load_case("dalle2_prior", "default_x0")


@pytest.fixture(scope="module")
def prior(case) -> MultiQueryPriorTransformer:
    return convert_dalle2_prior(case.weights, **case.config["network"])


@pytest.fixture(scope="module")
def text(case) -> PromptEmbeddings:
    """The original sees padding by states that are zero."""
    states = F.pad(case.inputs["text_encodings"], (0, 0, 0, 1))
    return PromptEmbeddings(case.inputs["text_embed"], states, (states != 0).any(dim=2))


@torch.no_grad()
def test_predictions(case, prior, text):
    x, timesteps = case.inputs["x"], case.inputs["timesteps"]
    given = prior(x, timesteps, *text).predicted_image_embedding
    assert_near(given, case.outputs["prediction"])
    longer = PromptEmbeddings(3 * text.embeds, *text[1:])
    assert_near(prior(x, timesteps, *longer, return_dict=False)[0], case.outputs["prediction"])
    without = text._replace(mask=torch.zeros_like(text.mask))
    empty_text = prior(x, timesteps, *without).predicted_image_embedding
    assert_near(empty_text, case.outputs["prediction_null"])
    scale = case.config["cond_scale"]
    assert_near(empty_text + scale * (given - empty_text), case.outputs["prediction_guided"])


@torch.no_grad()
def test_loss(case, prior, text):
    scheduler, scale = dalle2_prior_scheduler(12), 32**0.5
    torch.testing.assert_close(scheduler.alphas_cumprod.float(), case.outputs["alphas_cumprod"], rtol=1e-5, atol=0)
    image, timesteps = scale * case.inputs["image_embed"], case.inputs["timesteps"]
    noisy = scheduler.add_noise(image, case.inputs["train_noise"], timesteps)
    predicted = prior(noisy, timesteps, *text).predicted_image_embedding
    assert_near(F.mse_loss(predicted, image), case.outputs["loss"])
    torch.testing.assert_close(prior.post_process_latents(image), case.inputs["image_embed"])


@torch.no_grad()
def test_samples(case, prior, text):
    """Of one candidate, with guidance: without a prompt, the prior's learned embeddings stand for it."""
    first, *noise = case.inputs["ddpm_noise"].unsqueeze(2)
    scheduler = dalle2_prior_scheduler(12)
    draws, make_step = iter(noise), scheduler.step
    scheduler.step = lambda *args, generator=None, **kwargs: make_step(*args, variance_noise=next(draws), **kwargs)
    guider = ClassifierFreeGuidance(guidance_scale=case.config["cond_scale"])
    found = sample_image_embeds(prior, scheduler, guider, text, text, first, 12, None, lambda timesteps: timesteps)
    expected = case.outputs["ddpm_sample"]
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def prior_shapes(args: dict) -> dict:
    width, head, inner = args["dim"], args["dim_head"], args["ff_mult"] * args["dim"]
    shapes = {
        "to_time_embeds.0.weight": (args["num_timesteps"], width),
        "learned_query": (width,),
        "null_text_encodings": (1, args["max_text_len"], width),
        "null_text_embeds": (1, 1, width),
        "null_image_embed": (1, width),
        "causal_transformer.rel_pos_bias.relative_attention_bias.weight": (32, args["heads"]),
        "causal_transformer.norm.g": (width,),
        "causal_transformer.project_out.weight": (width, width),
    }
    for layer in (f"causal_transformer.layers.{i}" for i in range(args["depth"])):
        shapes |= {
            f"{layer}.0.norm.g": (width,),
            f"{layer}.0.null_kv": (2, head),
            f"{layer}.0.to_q.weight": (args["heads"] * head, width),
            f"{layer}.0.to_kv.weight": (2 * head, width),
            f"{layer}.0.to_out.0.weight": (width, args["heads"] * head),
            f"{layer}.0.to_out.1.g": (width,),
            f"{layer}.1.0.g": (width,),
            f"{layer}.1.1.weight": (2 * inner, width),
            f"{layer}.1.3.g": (inner,),
            f"{layer}.1.5.weight": (width, inner),
        }
    return {f"net.{name}": shape for name, shape in shapes.items()}


def test_the_preset():
    tensors = empty(prior_shapes(PRIOR))
    prior = convert_dalle2_prior(tensors, **PRIOR)
    assert prior.config.norm_in_feed_forward
    assert sum(parameter.numel() for parameter in prior.parameters()) == sum(t.numel() for t in tensors.values())


def test_a_file_becomes_a_pipeline(case, tmp_path):
    torch.save({"ema_model": case.weights, "model": {}}, tmp_path / "prior.pth")
    convert_checkpoint(tmp_path / "prior.pth", tmp_path / "prior", "dalle2_prior")
    tokenizer = make_caption_tokenizer(["a red picture"], 520)
    tokenizer.model_max_length = 6
    tower = {"hidden_size": 32, "projection_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=6, **tower)
    torch.manual_seed(0)
    pipe = UnCLIPPriorPipeline(
        prior=MultiQueryPriorTransformer.from_pretrained(tmp_path / "prior" / "prior"),
        scheduler=ExactDDPMScheduler.from_pretrained(tmp_path / "prior" / "scheduler"),
        text_encoder=CLIPTextModelWithProjection(config).eval(),
        tokenizer=tokenizer,
        default_num_inference_steps=3,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path / "pipeline")
    pipe = UnCLIPPriorPipeline.from_pretrained(tmp_path / "pipeline")
    embeds = pipe(["a red picture", "a"], guidance_scale=2.0).image_embeds
    assert embeds.shape == (2, 32) and embeds.isfinite().all()


def test_refusals(case):
    assert_refused(convert_dalle2_prior, {}, {}, "not a prior of DALLE2-pytorch")
    assert_refused(convert_dalle2_prior, case.weights, {"heads": 4}, "`heads` is given as 4, but the checkpoint has 2")
    assert_refused(convert_dalle2_prior, case.weights, {"self_cond": True}, "`self_cond` must be False")
    continuous = {key: value for key, value in case.weights.items() if "to_time_embeds" not in key}
    assert_refused(convert_dalle2_prior, continuous, {}, "has no to_time_embeds")
