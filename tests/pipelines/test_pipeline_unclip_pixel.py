"""DALL-E 2 in pixels: what every pipeline promises, and its variations, interpolations, differences and inversion."""

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel

from diffusers_ext.models import UnCLIPConditioner
from diffusers_ext.pipelines import UnCLIPPixelPipeline as PublishedPipeline
from diffusers_ext.pipelines.pipeline_unclip_pixel import UnCLIPPixelPipeline
from tests.pipelines.test_pipeline_unclip_prior import prior_scheduler, tiny_prior
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
)
from tests.tiny_clip import SIZE, WIDTH, clip_parts


def tiny_decoder() -> dict:
    torch.manual_seed(0)
    decoder = UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=8,
        class_embed_type="identity",
    )
    conditioner = UnCLIPConditioner(clip_embeddings_dim=WIDTH, time_embed_dim=32, cross_attention_dim=8)
    with torch.no_grad():
        conditioner.learned_classifier_free_guidance_embeddings.normal_()
    return {"decoder": decoder.eval(), "conditioner": conditioner.eval()}


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


class UnCLIPConfig(PipelineTesterConfig):
    pipeline_class = UnCLIPPixelPipeline
    output_shape = (2, 3, SIZE, SIZE)
    batch_params = ("image",)
    num_images_param = "num_images_per_prompt"

    def get_components(self):
        scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
        prior = {"prior": tiny_prior(), "prior_scheduler": prior_scheduler()}
        return {**tiny_decoder(), **clip_parts(), **prior, "scheduler": scheduler, "default_num_inference_steps": 3}

    def get_inputs(self):
        return {"image": list(pictures()), "guidance_scale": 2.0}


class TestOutput(UnCLIPConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(UnCLIPConfig, PipelineSaveLoadTesterMixin):
    def test_with_and_without_this_package(self, tmp_path):
        pipe = self.get_pipeline()
        PublishedPipeline(**pipe.components, default_num_inference_steps=3).save_pretrained(tmp_path)
        loaded = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
        assert type(loaded).__module__.startswith("diffusers_modules")
        assert_equal(self.run_loaded(loaded), self.run(pipe))


class TestRandomness(UnCLIPConfig, PipelineRandomnessTesterMixin):
    pass


class TestBatch(UnCLIPConfig, PipelineBatchTesterMixin):
    pass


class TestCallback(UnCLIPConfig, PipelineCallbackTesterMixin, PipelineGuidanceCallbackTesterMixin):
    pass


class TestDtype(UnCLIPConfig, PipelineDtypeTesterMixin):
    pass


@pytest.fixture(scope="module")
def pipe():
    return UnCLIPConfig().get_pipeline()


def draw(pipe, *arguments, seed=0, **options) -> torch.Tensor:
    return pipe(*arguments, generator=torch.Generator().manual_seed(seed), output_type="pt", **options).images


def test_a_prompt_is_drawn_by_the_prior(pipe):
    images = draw(pipe, ["a red picture", "green"], num_images_per_prompt=2, prior_num_inference_steps=2)
    assert images.shape == (4, 3, SIZE, SIZE)
    assert not torch.equal(images, draw(pipe, ["a red picture", "green"], num_images_per_prompt=2))


def test_variations_are_drawn_from_the_embedding_alone(pipe):
    image, other = pictures()
    embeds = pipe.embed_images(image)
    assert_equal(draw(pipe, image=image), draw(pipe, image_embeds=embeds))
    assert not torch.equal(draw(pipe, image=image), draw(pipe, image=other))
    assert not torch.equal(draw(pipe, image=image), draw(pipe, "red", image=image))


def test_interpolation_begins_and_ends_with_the_images(pipe):
    start, end = pictures()
    between = pipe.interpolate(start, end, 5)
    torch.testing.assert_close(between[[0, -1]], pipe.embed_images([start, end]))
    cosines = torch.nn.functional.cosine_similarity(between, between[:1])
    assert (cosines.diff() < 0).all()


def test_a_text_difference_turns_embeddings_towards_the_text(pipe):
    embeds = pipe.embed_images(pictures())
    moved = pipe.move(embeds, "a red picture", "a green picture", 0.5)
    torch.testing.assert_close(moved.norm(dim=1), embeds.norm(dim=1))
    torch.testing.assert_close(pipe.move(embeds, "red", "green", 0.0), embeds)
    whole = pipe.move(embeds, "a red picture", "a green picture", 1.0)
    cosine = torch.nn.functional.cosine_similarity
    assert (cosine(moved, whole) > cosine(embeds, whole)).all()


@pytest.mark.slow
def test_inverted_noise_draws_the_image_again(pipe):
    images = pictures() * 0.2 + 0.4
    latents = pipe.invert(images, num_inference_steps=200)
    again = draw(pipe, image=list(images), latents=latents, num_inference_steps=200)
    chance = (draw(pipe, image=list(images), num_inference_steps=200) - images).abs().mean()
    assert (again - images).abs().mean() < 0.2 * chance


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "Give a `prompt`, an `image` or `image_embeds`"),
        ({"image": pictures(1), "image_embeds": torch.zeros(1, WIDTH)}, "not both"),
        (
            {"image_embeds": torch.zeros(1, 3)},
            r"`image_embeds` must be a tensor of the shape \(N, 16\), but is \(1, 3\)",
        ),
        ({"image": pictures(2), "prompt": ["a"] * 3}, "`prompt` must be one text or a list of 2, but is a list of 3"),
        ({"prompt": 3}, "`prompt` must be a text or a list of texts"),
        ({"prompt": "a", "prior_guidance_scale": "x"}, "`guidance_scale` must be a finite number"),
        ({"prompt": "a", "num_inference_steps": 0}, "`num_inference_steps` must be a positive integer"),
    ],
)
def test_what_a_call_refuses(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(**options)


def test_parts_that_do_not_fit_are_refused():
    config = UnCLIPConfig()
    with pytest.raises(ValueError, match="is for embeddings of 8 channels, but `text_encoder` has 16"):
        proj = UnCLIPConditioner(clip_embeddings_dim=8, time_embed_dim=32, cross_attention_dim=8)
        config.get_pipeline(conditioner=proj)
    with pytest.raises(ValueError, match="`prior` and `prior_scheduler` belong together"):
        config.get_pipeline(prior=None)
    with pytest.raises(ValueError, match="The prior is for another CLIP"):
        config.get_pipeline(prior=tiny_prior(embedding_dim=24))
    without = config.get_pipeline(prior=None, prior_scheduler=None)
    with pytest.raises(ValueError, match="A `prompt` alone needs the `prior` component"):
        without("a red picture")
    with pytest.raises(ValueError, match=r"`image` must have the shape \(3, 8, 8\)"):
        without.invert(torch.zeros(3, 4, 4))
