"""The prior's pipeline: embeddings of prompts by seed, guidance, candidates, loading, and what it refuses."""

import pytest
import torch
from diffusers import DDPMScheduler, DiffusionPipeline, PriorTransformer

from diffusers_ext.pipelines import UnCLIPPriorPipeline
from diffusers_ext.training.text_and_image.caption_tokenizer import make_caption_tokenizer
from tests.pipelines.testing import assert_equal, generators
from tests.tiny_clip import LENGTH, WIDTH, clip_parts


PROMPTS = ["a red picture", "green"]


def tiny_prior(**changes) -> PriorTransformer:
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "embedding_dim": WIDTH}
    prior = PriorTransformer(**{**sizes, "num_embeddings": LENGTH, **changes}).eval()
    with torch.no_grad():
        prior.clip_mean.normal_()
        prior.clip_std.fill_(2.0)
    return prior


def prior_scheduler() -> DDPMScheduler:
    return DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="sample",
        clip_sample_range=10.0,
        timestep_spacing="linspace",
    )


def prior_pipeline(**changes) -> UnCLIPPriorPipeline:
    clip = clip_parts()
    parts = {"prior": tiny_prior(), "scheduler": prior_scheduler(), "default_num_inference_steps": 3}
    pipe = UnCLIPPriorPipeline(
        **{**parts, "text_encoder": clip["text_encoder"], "tokenizer": clip["tokenizer"], **changes}
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, seed=0, prompt=PROMPTS, **options) -> torch.Tensor:
    return pipe(prompt, **{"generator": torch.Generator().manual_seed(seed), **options}).image_embeds


@pytest.fixture(scope="module")
def pipe():
    return prior_pipeline()


def test_it_makes_an_embedding_for_each_prompt(pipe):
    found = run(pipe, num_images_per_prompt=3)
    assert found.shape == (6, WIDTH) and found.dtype == torch.float32 and not found.requires_grad
    assert torch.equal(found, run(pipe, num_images_per_prompt=3))
    assert not torch.equal(found, run(pipe, num_images_per_prompt=3, seed=1))
    assert torch.equal(found, pipe(PROMPTS, 3, generator=torch.Generator().manual_seed(0), return_dict=False)[0])


def test_an_embedding_depends_on_its_generator_alone(pipe):
    together = run(pipe, generator=generators([3, 4]), guidance_scale=2.0)
    alone = run(pipe, prompt="green", generator=generators([4]), guidance_scale=2.0)
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-5)


def test_guidance_moves_away_from_the_empty_prompt(pipe):
    plain, guided = run(pipe), run(pipe, guidance_scale=3.0)
    assert not torch.allclose(plain, guided)
    of_nothing = run(pipe, prompt=["", ""])
    assert_equal(run(pipe, prompt=["", ""], guidance_scale=3.0), of_nothing)


def test_the_candidate_nearest_to_the_prompt_is_kept(pipe):
    latents = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    # its steps have no noise, so that candidates don't depend on each other
    pipe = prior_pipeline(
        scheduler=prior_scheduler().from_config(prior_scheduler().config, variance_type="fixed_small")
    )
    one_step = {"num_inference_steps": 1}
    best = run(pipe, latents=latents, num_candidates=4, **one_step)
    each = torch.stack([run(pipe, latents=latents[:, [i]], num_candidates=1, **one_step) for i in range(4)], dim=1)
    tokens = pipe.tokenizer(PROMPTS, padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids
    with torch.no_grad():
        texts = pipe.text_encoder(tokens).text_embeds
    expected = (each * texts[:, None]).sum(dim=-1).argmax(dim=1)
    torch.testing.assert_close(best, each[torch.arange(2), expected], rtol=0, atol=1e-5)


def test_both_ways_of_loading_draw_the_same(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    for pipeline_class, options in ((UnCLIPPriorPipeline, {}), (DiffusionPipeline, {"trust_remote_code": True})):
        loaded = pipeline_class.from_pretrained(tmp_path, **options)
        loaded.set_progress_bar_config(disable=True)
        assert_equal(run(loaded), run(pipe))
        assert loaded.config.default_num_inference_steps == 3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prompt": []}, "`prompt` must be a text or a list of texts"),
        ({"num_candidates": 0}, "`num_candidates` must be a positive integer"),
        ({"generator": generators([1])}, "`generator` must be one generator or a list of 2"),
        ({"latents": torch.zeros(2, WIDTH)}, r"`latents` must be a tensor of the shape \(2, 2, 16\)"),
        ({"guidance_scale": "high"}, "`guidance_scale` must be a finite number"),
    ],
)
def test_what_a_call_refuses(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        run(pipe, **options)


def test_a_prior_for_another_clip_is_refused():
    with pytest.raises(ValueError, match="for another CLIP: it works with 24 channels, but the embeddings of this"):
        prior_pipeline(prior=tiny_prior(embedding_dim=24))
    with pytest.raises(ValueError, match="for another CLIP: it reads texts of 7 tokens, but this CLIP makes 12"):
        prior_pipeline(prior=tiny_prior(num_embeddings=7))


def test_a_tokenizer_with_other_tokens_is_refused():
    tokenizer = make_caption_tokenizer(["a red picture", "two green pictures of something else"], 600)
    with pytest.raises(ValueError, match=f"`tokenizer` has {len(tokenizer)} tokens, but `text_encoder` knows only"):
        prior_pipeline(tokenizer=tokenizer)
