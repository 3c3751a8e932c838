"""Images of a GAN are moved to prompts: by StyleCLIP's optimisation, from random starts, and by its latent mapper."""

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import GANPipeline
from diffusers_ext.models import DCGANGenerator, LatentMapper, MLPGenerator
from diffusers_ext.pipelines import StyleCLIPMapperPipeline, StyleCLIPPipeline
from diffusers_ext.pipelines.clip_scores import random_squares
from diffusers_ext.pipelines.latent_optimization import ramped
from tests.pipelines.test_pipeline_gan_inversion import generator, quiet, seeded
from tests.pipelines.testing import PipelineSaveLoadTesterMixin, PipelineTesterConfig
from tests.tiny_clip import tiny_clip


PROMPTS = ["a red picture", "a green picture"]


def clip_components() -> dict:
    return dict(zip(("clip", "tokenizer", "image_processor"), tiny_clip(), strict=True))


def pipeline(network=None) -> StyleCLIPPipeline:
    return quiet(StyleCLIPPipeline(network or generator(), **clip_components()))


class StyleCLIPConfig(PipelineTesterConfig):
    pipeline_class = StyleCLIPPipeline
    output_shape = (2, 1, 8, 8)

    def get_components(self):
        return {"generator": generator(), **clip_components()}

    def get_inputs(self):
        return {"prompt": PROMPTS, "num_optimization_steps": 2, "num_candidates": 2}


class TestStyleCLIPSaveLoad(StyleCLIPConfig, PipelineSaveLoadTesterMixin):
    pass


def test_an_edit_is_the_optimisation_of_styleclip():
    """Written out as in the reference, orpatashnik/StyleCLIP: Adam, its ramp, and the sum of squares."""
    pipe, steps, weight = pipeline(), 6, 0.008
    start = torch.randn(2, 4, 6, generator=seeded(3))
    edited = pipe(PROMPTS, styles=start, num_optimization_steps=steps, output_type="pt")
    clip, processor = pipe.clip, pipe.image_processor
    tokens = pipe.tokenizer(PROMPTS, padding="max_length", truncation=True, return_tensors="pt")
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (processor.image_mean, processor.image_std))
    styles = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([styles], lr=0.1)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.1 * ramped(step / steps)
        images = pipe.generator(styles=styles).sample.expand(-1, 3, -1, -1)
        output = clip(pixel_values=((images + 1) / 2 - mean) / std, **tokens)
        cosines = output.logits_per_image.diagonal() / clip.logit_scale.exp()
        loss = (1 - cosines + weight * (styles - start).square().sum(dim=(1, 2))).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(edited.styles, styles.detach(), rtol=1e-4, atol=1e-5)
    again = GANPipeline(pipe.generator)(styles=edited.styles, output_type="pt").images
    torch.testing.assert_close(edited.images, again, rtol=1e-4, atol=1e-5)


def test_images_move_to_the_prompt_and_stay_near_what_they_are_compared_with():
    pipe = pipeline()
    start = GANPipeline(pipe.generator)(batch_size=2, generator=seeded(), output_type="pt")
    options = {"styles": start.styles, "num_optimization_steps": 12, "output_type": "pt"}
    before = pipe(PROMPTS, **{**options, "num_optimization_steps": 0})
    free = pipe(PROMPTS, latent_weight=0.0, num_cutouts=2, **options)
    assert (free.scores > before.scores).all()

    def distance(first, second):
        return (first - second).abs().mean(dim=(1, 2, 3))

    for terms in ({"pixel_weight": 10.0}, {"distance": distance, "distance_weight": 10.0}):
        near = pipe(PROMPTS, image=start.images[:1], latent_weight=0.0, **terms, **options)
        assert distance(near.images, start.images[:1]).mean() < distance(free.images, start.images[:1]).mean()


def test_the_best_of_random_starts_is_kept():
    pipe, options = pipeline(), {"num_optimization_steps": 0}
    few, many = (  # the first candidate is the same
        pipe(PROMPTS, num_candidates=count, generator=[seeded(1), seeded(2)], **options) for count in (1, 9)
    )
    assert (many.scores > few.scores - 1e-6).all() and many.scores.sum() > few.scores.sum() + 1e-3
    alone = pipe(PROMPTS[1], num_candidates=9, generator=[seeded(2)], **options)
    torch.testing.assert_close(alone.scores, many.scores[1:])
    with_classes = pipeline(generator(num_classes=3))
    given = with_classes(PROMPTS, class_labels=[2, 0], num_candidates=2, **options)
    assert given.class_labels.tolist() == [2, 0] and with_classes(PROMPTS, **options).class_labels.shape == (2,)


def test_a_generator_without_styles():
    torch.manual_seed(0)
    pipe = pipeline(DCGANGenerator(8, 3, latent_dim=5, channels=4).eval())
    first, last = (pipe(PROMPTS, num_optimization_steps=n, generator=seeded()) for n in (0, 10))
    assert (last.scores > first.scores).all() and last.styles is None and last.latents.shape == (2, 5)
    edited = pipe(PROMPTS, latents=first.latents, num_optimization_steps=5)
    assert (edited.scores > first.scores).all()
    codes = MLPGenerator(8, 3, latent_dim=8, num_categories=3, hidden_dims=(8,)).eval()
    with pytest.raises(ValueError, match="this generator has codes beside random latents"):
        pipeline(codes)("a red picture")


def test_squares_are_inside_and_of_the_sides_asked_for():
    images = torch.arange(60.0).view(1, 1, 6, 10)
    squares = random_squares(images, 20, 0.5, seeded())
    sides = {square.shape[2] for square in squares}
    assert all(square.shape[2] == square.shape[3] for square in squares) and sides <= {3, 4, 5, 6} and len(sides) > 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"prompt": 3}, "`prompt` must be a text"),
        ({"prompt": ["a"] * 3, "styles": torch.zeros(2, 6)}, "`prompt` must be one text for all images or 2"),
        ({"styles": torch.zeros(2, 7)}, "`styles` must be a finite tensor of the shape"),
        ({"styles": torch.zeros(2, 6), "latents": torch.zeros(2, 5)}, "give one of them"),
        ({"latents": torch.zeros(2, 5), "space": "w"}, "`space` is w, but what is given is latents"),
        ({"styles": torch.zeros(2, 6), "num_candidates": 3}, "`num_candidates` is for random starts"),
        ({"num_cutouts": -1}, "`num_cutouts` must be an integer of at least 0"),
        ({"smallest_cutout": 0}, "`smallest_cutout` must be above 0"),
        ({"pixel_weight": 1.0}, "are for images to edit"),
        ({"styles": torch.zeros(2, 6), "image": torch.zeros(1, 8, 8)}, "`image` is what `distance` or"),
        ({"class_labels": 1}, "class_labels"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as error:
        pipeline()(**{"prompt": "a red picture", "num_optimization_steps": 1, **options})
    assert "\n" not in str(error.value)


def test_components_that_do_not_fit_are_refused():
    torch.manual_seed(0)
    two_channels = DCGANGenerator(8, 2, latent_dim=5, channels=4)
    with pytest.raises(ValueError, match="`clip` sees images of 3 channels, but the generator makes 2"):
        StyleCLIPPipeline(two_channels, **clip_components())
    with pytest.raises(ValueError, match="`clip` must be a CLIPModel of transformers, but is a DCGANGenerator"):
        StyleCLIPPipeline(generator(), **{**clip_components(), "clip": two_channels})
    with pytest.raises(ValueError, match="`mapper` must fit the generator"):
        StyleCLIPMapperPipeline(generator(), LatentMapper(5, 6))
    with pytest.raises(ValueError, match="`mapper` changes styles, but a DCGANGenerator has none"):
        StyleCLIPMapperPipeline(two_channels, LatentMapper(4, 6))


def test_a_mapper_adds_its_offsets_and_loads_in_both_ways(tmp_path):
    torch.manual_seed(0)
    pipe = StyleCLIPMapperPipeline(generator(), LatentMapper(4, 6).eval(), prompt="a red picture")
    styles = torch.randn(2, 4, 6)
    edited = pipe(styles, output_type="pt")
    torch.testing.assert_close(edited.styles, styles + 0.1 * pipe.mapper(styles).offsets)
    expected = GANPipeline(pipe.generator)(styles=edited.styles, output_type="pt").images
    torch.testing.assert_close(edited.images, expected, rtol=1e-4, atol=1e-5)
    pipe.save_pretrained(tmp_path)
    for load in (StyleCLIPMapperPipeline.from_pretrained, DiffusionPipeline.from_pretrained):
        loaded = load(tmp_path, **({} if load.__self__ is StyleCLIPMapperPipeline else {"trust_remote_code": True}))
        assert torch.equal(loaded(styles, output_type="pt").images, edited.images)
        assert loaded.config.prompt == "a red picture"
    with pytest.raises(ValueError, match="`strength` must be a finite number"):
        pipe(styles, strength=float("nan"))
