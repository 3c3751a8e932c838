import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.models import DCGANGenerator, PatchDiscriminator, ResnetGenerator, SPADEEncoder, UNetGenerator
from diffusers_ext.pipelines import ImageTranslationPipeline
from diffusers_ext.pipelines.pipeline_image_translation import drop
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineOutputTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
    generators,
)


def unet(**changes) -> UNetGenerator:
    torch.manual_seed(0)
    options = {"in_channels": 1, "out_channels": 3, "block_out_channels": (4, 8, 8), "dropout": 0.5}
    network = UNetGenerator(**{**options, **changes})
    for name, buffer in network.named_buffers():  # statistics of some training
        if name.endswith("running_var"):
            buffer.fill_(0.01)
    return network.eval()


def resnet() -> ResnetGenerator:
    torch.manual_seed(1)
    return ResnetGenerator(in_channels=3, out_channels=1, base_channels=4, num_blocks=1).eval()


def style_encoder(latent_dim=4) -> SPADEEncoder:
    torch.manual_seed(2)
    return SPADEEncoder(8, base_channels=2, latent_dim=latent_dim, normalization="none").eval()


def images(count=2, channels=1, height=16, width=24) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


class TranslationConfig(PipelineTesterConfig):
    """Two generators of several kinds, an encoder of styles, and all that is random."""

    pipeline_class = ImageTranslationPipeline
    output_shape = (2, 3, 16, 24)
    batch_params = ("image",)
    num_images_param = "num_images_per_input"

    def get_components(self):
        return {"generator": unet(latent_dim=4), "reverse_generator": resnet(), "style_encoder": style_encoder()}

    def get_inputs(self):
        return {"image": images(), "dropout": True, "image_statistics": True}


class TestTranslationOutput(TranslationConfig, PipelineOutputTesterMixin):
    pass


class TestTranslationSaveLoad(TranslationConfig, PipelineSaveLoadTesterMixin):
    pass


class TestTranslationBatch(TranslationConfig, PipelineBatchTesterMixin):
    pass


@pytest.fixture
def pipe():
    return ImageTranslationPipeline(unet(), resnet())


@pytest.fixture(scope="module")
def many():
    """Many translations of an image, by latents."""
    return ImageTranslationPipeline(unet(latent_dim=4, dropout=0.0), style_encoder=style_encoder())


def run(pipe, image, **arguments):
    return pipe(image, output_type="pt", **arguments).images


# What it computes


def test_both_directions_are_the_networks(pipe):
    there, back = images() * 2 - 1, images(channels=3) * 2 - 1
    with torch.no_grad():
        assert_equal(run(pipe, images()), (pipe.generator(there).sample / 2 + 0.5).clamp(0, 1))
        expected = (pipe.reverse_generator(back).sample / 2 + 0.5).clamp(0, 1)
    assert_equal(run(pipe, images(channels=3), reverse=True), expected)
    with pytest.raises(ValueError, match="`reverse=True` needs the `reverse_generator`"):
        run(ImageTranslationPipeline(unet()), images(), reverse=True)


@pytest.mark.parametrize("size", [(13, 21), (16, 9), (3, 40), (1, 1)])
def test_any_size_is_padded_and_cropped(pipe, size):
    image = images(height=size[0], width=size[1])
    output = run(pipe, image)
    assert output.shape == (2, 3, *size) and output.isfinite().all()
    with torch.no_grad():
        below, right = (-side % 8 for side in size)
        mode = "reflect" if below < size[0] and right < size[1] else "replicate"
        padded = torch.nn.functional.pad(image * 2 - 1, (0, right, 0, below), mode=mode)
        expected = pipe.generator(padded).sample[..., : size[0], : size[1]]
    assert_equal(output, (expected / 2 + 0.5).clamp(0, 1))


def test_images_of_several_sizes_and_modes(pipe):
    mixed = [
        Image.new("RGB", (20, 12), "red"),
        images()[0],
        np.zeros((12, 20), np.uint8),
        Image.new("RGBA", (20, 12), (0, 0, 0, 0)),
        Image.new("P", (9, 30)),
    ]
    together = pipe(mixed).images
    assert [image.size for image in together] == [(20, 12), (24, 16), (20, 12), (20, 12), (9, 30)]
    for image, output in zip(mixed, together, strict=True):
        (alone,) = pipe(image).images
        # convolutions of a batch may round differently
        assert np.abs(np.asarray(alone, int) - np.asarray(output, int)).max() <= 1
    with pytest.raises(ValueError, match="3 sizes can't be put into one array"):
        pipe(mixed, output_type="np")


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (9, 2)])
def test_tiny_images_are_translated_too(pipe, size):
    for reverse in (False, True):
        assert pipe(Image.new("L", size), reverse=reverse).images[0].size == size


def test_gray_pictures_come_out_gray(pipe):
    (output,) = pipe(Image.new("L", (16, 16)), reverse=True).images
    assert output.mode == "L"


# What is random


def test_nothing_is_random_unless_asked(pipe):
    assert_equal(run(pipe, images()), run(pipe, images()))
    noisy = run(pipe, images(), dropout=True, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(noisy, run(pipe, images()))
    assert_equal(run(pipe, images()), run(pipe, images()))  # and not afterwards


def test_dropout_comes_from_the_generator(pipe):
    state = torch.get_rng_state()
    first, again, other = (
        run(pipe, images(), dropout=True, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert_equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())
    # without one it is torch's
    torch.manual_seed(0)
    assert not torch.equal(run(pipe, images(), dropout=True), run(pipe, images(), dropout=True))


def test_dropout_drops_what_training_drops():
    # A value is gone, or as much larger as others are gone.
    hidden = torch.ones(4, 10, 10, 10)
    layer = torch.nn.Dropout(0.75)
    dropped = drop(layer, hidden, generators(range(4)))
    assert set(dropped.unique().tolist()) == {0.0, 4.0}
    assert abs((dropped == 0).float().mean() - 0.75) < 0.03
    assert_equal(dropped[1:2], drop(layer, hidden[:1], generators([1])))


def test_image_statistics_are_a_training_batch_of_one(pipe):
    before = {name: buffer.clone() for name, buffer in pipe.generator.named_buffers()}
    outputs = run(pipe, images(), image_statistics=True)
    for name, buffer in pipe.generator.named_buffers():
        assert torch.equal(buffer, before[name])
    model = unet(dropout=0.0).train()
    for image, output in zip(images(), outputs, strict=True):
        with torch.no_grad():
            expected = model(image[None] * 2 - 1).sample / 2 + 0.5
        torch.testing.assert_close(output[None], expected.clamp(0, 1), rtol=0, atol=1e-5)
    assert not torch.allclose(outputs, run(pipe, images()), atol=1e-2)


# Latents


def test_latents_choose_the_translation(many):
    latents = torch.randn(4, 4, generator=torch.Generator().manual_seed(3))
    outputs = run(many, images(), num_images_per_input=2, latents=latents)
    with torch.no_grad():
        expected = many.generator(images().repeat_interleave(2, dim=0) * 2 - 1, latents).sample / 2 + 0.5
    assert_equal(outputs, expected.clamp(0, 1))
    drawn, again = (run(many, images(), num_images_per_input=2, generator=generators(range(4))) for _ in range(2))
    assert_equal(drawn, again)
    assert not torch.equal(drawn[0], drawn[1])
    torch.testing.assert_close(run(many, images()[1], generator=generators([3])), drawn[3:], rtol=0, atol=1e-5)
    mixed = many([images()[0], Image.new("L", (9, 30))], num_images_per_input=2, latents=latents, batch_size=1).images
    assert [image.size for image in mixed] == [(24, 16)] * 2 + [(9, 30)] * 2
    tiled = run(many, images(height=17, width=40), latents=latents[1:3], tile_size=16)
    assert tiled.shape == (2, 3, 17, 40) and tiled.isfinite().all()


def test_a_style_image_gives_the_latents(many):
    style, noise = images(1, channels=3, height=10), torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        posterior = many.style_encoder(style * 2 - 1).latent_dist
    outputs = run(many, images(), style_image=style[0], generator=torch.Generator().manual_seed(0))
    assert_equal(outputs, run(many, images(), latents=posterior.mean + posterior.std * noise))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"latents": torch.zeros(1, 4)}, "`latents` must be a tensor of the shape"),
        ({"style_image": torch.rand(3, 3, 8, 8)}, "one image or 2, one for each input, not 3"),
        ({"style_image": torch.rand(3, 8, 8), "latents": torch.zeros(2, 4)}, "both give the style"),
    ],
)
def test_wrong_styles_are_refused(many, arguments, message):
    with pytest.raises(ValueError, match=message):
        many(images(), **arguments)


# Precision and publishing


def test_bfloat16_is_nearly_the_same(pipe):
    expected = run(pipe, images())
    output = run(pipe.to(torch.bfloat16), images())
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, expected, rtol=0, atol=0.05)


def test_loads_without_this_package(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(other).__module__.startswith("diffusers_modules")
    assert type(other.reverse_generator).__module__.startswith("diffusers_modules")
    for reverse, channels in ((False, 1), (True, 3)):
        image = images(channels=channels)
        assert_equal(run(other, image, reverse=reverse), run(pipe, image, reverse=reverse))


# Bad input


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image": []}, "is empty"),
        ({"image": "photo.png"}, "no file 'photo.png'"),
        ({"image": 3}, "must be a PIL image, a path, an array or a tensor, but is of the type int"),
        ({"image": images() * 3}, "values from 0 to 1"),
        ({"image": images(channels=5)}, "must have 1 channels, but has 5"),
        ({"num_images_per_input": 2}, "needs a generator with `latent_dim`, or `dropout=True`"),
        ({"latents": torch.zeros(2, 4)}, "`latents` needs a generator with `latent_dim`"),
        ({"style_image": torch.rand(3, 8, 8)}, "`style_image` needs the `style_encoder`"),
        ({"num_images_per_input": 0, "dropout": True}, "positive integer"),
        ({"dropout": True, "generator": generators(range(3))}, "one generator or a list of 2"),
        ({"dropout": True, "generator": 0}, "`generator` must be a torch.Generator or a list of them, but has 0"),
        ({"reverse": True, "dropout": True}, "this one has none"),
        ({"output_type": "latent"}, "`output_type`"),
    ],
)
def test_bad_input_is_refused(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**{"image": images(), **arguments})


def test_generators_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="makes 3 channels from 1, so `reverse_generator` must make 1 from 3"):
        ImageTranslationPipeline(unet(), unet())
    with pytest.raises(ValueError, match="makes latents of length 3, but `generator` takes none"):
        ImageTranslationPipeline(unet(), style_encoder=style_encoder(3))


def test_generators_of_something_else_are_refused():
    with pytest.raises(ValueError, match="`generator` must make images from images, .* but is a DCGANGenerator"):
        ImageTranslationPipeline(DCGANGenerator(8, channels=4))
    with pytest.raises(ValueError, match="`reverse_generator` must make images from images, .* but is a PatchDiscrim"):
        ImageTranslationPipeline(unet(), PatchDiscriminator(base_channels=4, num_layers=1))


# Memory


def test_forward_passes_have_batch_size_images_or_tiles(pipe):
    seen = []
    pipe.generator.register_forward_pre_hook(lambda network, args: seen.append(tuple(args[0].shape)))
    whole = pipe(images(3), output_type="pt").images
    seen.clear()
    batches = pipe(images(3), batch_size=2, output_type="pt").images
    torch.testing.assert_close(batches, whole, rtol=0, atol=1e-5)
    assert [shape[0] for shape in seen] == [2, 1]
    seen.clear()
    tiled = pipe(images(1, height=17, width=40), tile_size=16, batch_size=3, output_type="pt").images
    assert tiled.shape == (1, 3, 17, 40)
    assert {shape[2:] for shape in seen} == {(16, 16)} and max(shape[0] for shape in seen) == 3


def test_tiles_of_a_pointwise_generator_are_the_whole(pipe):
    pipe.generator.register_forward_hook(lambda network, args, output: (args[0].expand(-1, 3, -1, -1) * 0.5,))
    image = images(1, height=30, width=44)
    tiled = pipe(image, tile_size=16, tile_overlap=3, output_type="pt").images
    torch.testing.assert_close(tiled, pipe(image, output_type="pt").images, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"tile_size": 12}, "`tile_size` must be a multiple of 8"),
        ({"tile_overlap": 2}, "`tile_overlap` needs `tile_size`"),
        ({"tile_size": 16, "dropout": True}, "`tile_size` needs `dropout=False`"),
    ],
)
def test_wrong_tiles_are_refused(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(images(), **arguments)
