"""The latent spaces of a GANPipeline whose generator has styles."""

import pytest
import torch

from diffusers_ext import GANPipeline
from diffusers_ext.models import DCGANGenerator, StyleGAN2Generator


def pipeline(num_classes: int | None = None) -> GANPipeline:
    torch.manual_seed(0)
    generator = StyleGAN2Generator(
        8, 1, 5, 6, block_out_channels=(8, 4), num_mapping_layers=2, num_classes=num_classes
    ).eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    generator.measure_style_average()
    pipe = GANPipeline(generator)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_what_comes_out_goes_in_again():
    pipe = pipeline(num_classes=3)
    out = pipe(
        [0, 2], 2, generator=seeded(), noise="random", truncation_psi=0.7, truncation_cutoff=2, output_type="pt"
    )
    assert out.latents.shape == (4, 5) and out.styles.shape == (4, 4, 6)
    assert [tuple(values.shape) for values in out.noise] == [(4, *shape) for shape in pipe.generator.noise_shapes]
    again = pipe(styles=out.styles, noise=out.noise, output_type="pt")
    torch.testing.assert_close(again.images, out.images)
    assert again.latents is None and torch.equal(again.styles, out.styles)
    cut = {"truncation_psi": 0.7, "truncation_cutoff": 2}
    from_latents = pipe([0, 2], 2, latents=out.latents, noise=out.noise, output_type="pt", **cut)
    torch.testing.assert_close(from_latents.images, out.images)
    assert pipe(styles=out.styles[:, 0], output_type="pt").images.shape == (4, 1, 8, 8)  # w for all layers


def test_noise():
    pipe, latents = pipeline(), torch.randn(2, 5)
    constant, again = (pipe(latents=latents, output_type="pt").images for _ in range(2))
    assert torch.equal(constant, again)
    none = pipe(latents=latents, noise="none", output_type="pt").images
    random = [pipe(latents=latents, noise="random", generator=seeded(i), output_type="pt").images for i in (0, 0, 1)]
    assert torch.equal(random[0], random[1])
    for other in (none, random[0], random[2]):
        assert not torch.allclose(constant, other)
    assert not torch.allclose(random[0], random[2])
    # an image depends on its own generator alone
    pair = pipe(batch_size=2, noise="random", generator=[seeded(3), seeded(4)], output_type="pt").images
    alone = pipe(noise="random", generator=[seeded(4)], output_type="pt").images
    torch.testing.assert_close(pair[1:], alone, rtol=1e-4, atol=1e-5)


def test_truncation_to_the_average():
    pipe = pipeline()
    images = pipe(batch_size=3, truncation_psi=0.0, output_type="pt").images
    average = pipe(styles=pipe.generator.style_average[None], output_type="pt").images
    torch.testing.assert_close(images, average.expand_as(images), rtol=1e-4, atol=1e-5)


def test_mixed_styles():
    pipe = pipeline()
    rows, columns = pipe(batch_size=2, generator=seeded()).styles, pipe(batch_size=3, generator=seeded(1)).styles
    images = pipe.mix_styles(rows, columns, layers=[1, 2], output_type="pt").images
    assert images.shape == (2, 3, 1, 8, 8)
    styles = torch.stack([rows[1, 0], columns[2, 1], columns[2, 2], rows[1, 3]])[None]
    torch.testing.assert_close(images[1, 2], pipe(styles=styles, output_type="pt").images[0], rtol=1e-4, atol=1e-5)
    assert pipe.mix_styles(rows, columns, range(4)).grid().size == (3 * 8, 2 * 8)
    assert not rows.isnan().any() and torch.equal(rows, pipe(batch_size=2, generator=seeded()).styles)


@pytest.mark.parametrize("space", ["latents", "styles"])
def test_walks_in_each_space(space):
    pipe, latents = pipeline(num_classes=3), torch.randn(2, 2, 5)
    frames = pipe.interpolate([1, 2], num_frames=5, latents=latents, space=space, output_type="pt").images
    assert frames.shape == (2, 5, 1, 8, 8)
    labels = [1, 1, 2, 2]
    ends = pipe(labels, latents=latents.flatten(0, 1), output_type="pt")
    torch.testing.assert_close(frames[:, [0, -1]].flatten(0, 1), ends.images, rtol=1e-4, atol=1e-5)
    middle = ends.styles.unflatten(0, (2, 2)).mean(dim=1)
    in_the_middle = pipe(styles=middle, output_type="pt").images
    assert torch.allclose(frames[:, 2], in_the_middle, rtol=1e-4, atol=1e-5) == (space == "styles")
    if space == "styles":
        given = pipe.interpolate(num_frames=5, styles=ends.styles.unflatten(0, (2, 2)), output_type="pt").images
        torch.testing.assert_close(given, frames, rtol=1e-4, atol=1e-5)


def test_a_closed_walk_with_random_noise_and_truncation():
    pipe, options = pipeline(), {"noise": "random", "truncation_psi": 0.5, "output_type": "np"}
    images = pipe.walk(batch_size=2, num_frames=6, num_points=3, generator=seeded(), **options).images
    assert images.shape == (2, 6, 8, 8, 1)
    with_w = pipe.walk(styles=torch.randn(1, 3, 6), num_frames=6).images
    assert len(with_w) == 1 and len(with_w[0]) == 6


@pytest.mark.parametrize(
    "options, message",
    [
        ({"styles": torch.zeros(2, 7)}, r"`styles` must be a finite tensor of the shape \(N, 6\) or \(N, 4, 6\)"),
        ({"styles": torch.full((1, 6), torch.nan)}, "`styles` must be a finite tensor"),
        ({"styles": torch.zeros(2, 6), "latents": torch.zeros(2, 5)}, "`latents` must be left out, because `styles`"),
        ({"styles": torch.zeros(2, 6), "batch_size": 3}, "`styles` are 2, but `batch_size` is 3"),
        ({"noise": "loud"}, "`noise` must be one of"),
        ({"noise": [torch.zeros(1, 1, 4, 4)]}, "one map of each of the shapes"),
        ({"truncation_psi": float("nan")}, "`truncation_psi` must be a number"),
        ({"truncation_psi": 0.5, "truncation_cutoff": 5}, "`truncation_cutoff` must be an integer from 0 to 4"),
        ({"truncation_cutoff": 2}, "`truncation_cutoff` is for a `truncation_psi`"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message) as error:
        pipeline()(**options)
    assert "\n" not in str(error.value)


def test_a_generator_without_styles_refuses_them():
    pipe = GANPipeline(DCGANGenerator(8, 1, latent_dim=5, channels=4).eval())
    for options, name in (
        ({"styles": torch.zeros(1, 6)}, "styles"),
        ({"noise": "none"}, "noise"),
        ({"truncation_psi": 0.5}, "truncation_psi"),
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be left out, because a DCGANGenerator has no styles"):
            pipe(**options)
    with pytest.raises(ValueError, match="`space` must be left out"):
        pipe.walk(space="styles")
    with pytest.raises(ValueError, match="has no styles"):
        pipe.mix_styles(torch.zeros(1, 6), torch.zeros(1, 6), layers=[0])
    assert pipe(batch_size=2, output_type="pt").styles is None


def test_walks_and_mixtures_that_do_not_fit_are_refused():
    pipe = pipeline()
    with pytest.raises(ValueError, match='`space` must be "latents" or "styles"'):
        pipe.walk(space="w")
    with pytest.raises(ValueError, match="`layers` must be some of 0 to 3"):
        pipe.mix_styles(torch.zeros(1, 6), torch.zeros(1, 6), layers=[4])
    with pytest.raises(ValueError, match="`styles` must hold the two ends"):
        pipe.interpolate(styles=torch.zeros(1, 3, 6))
