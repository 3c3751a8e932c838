import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.models import DCGANGenerator, MSRResNet, ResnetGenerator, RRDBNet, SRResNet
from diffusers_ext.pipelines import RestorationPipeline
from tests.pipelines.testing import PipelineSaveLoadTesterMixin, PipelineTesterConfig, assert_equal


def msrresnet(**changes) -> MSRResNet:
    torch.manual_seed(0)
    network = MSRResNet(**{"base_channels": 4, "num_blocks": 1, "scale": 2, **changes})
    for module in network.modules():  # more than nothing is added to the interpolation
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data.mul_(5)
    return network.eval()


def image(channels=3, height=9, width=14) -> torch.Tensor:
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def pipe():
    return quiet(RestorationPipeline(msrresnet()))


def quiet(pipe: RestorationPipeline) -> RestorationPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def restore(pipe, image, **arguments):
    return pipe(image, **{"output_type": "pt", **arguments}).images


class TestRestorationSaveLoad(PipelineTesterConfig, PipelineSaveLoadTesterMixin):
    pipeline_class = RestorationPipeline
    output_shape = (1, 3, 18, 28)

    def get_components(self):
        return {"generator": msrresnet(), "black": -1.0}

    def get_inputs(self):
        return {"image": image()}

    def run(self, pipe, seed=0, **changes):
        return restore(pipe, **self.get_inputs())


def test_it_is_the_network(pipe):
    with torch.no_grad():
        expected = pipe.generator(image()[None]).sample.clamp(0, 1)
        signed = (pipe.generator(image()[None] * 2 - 1).sample / 2 + 0.5).clamp(0, 1)
    assert_equal(restore(pipe, image()), expected)
    torch.testing.assert_close(restore(quiet(RestorationPipeline(pipe.generator, black=-1)), image()), signed)
    assert_equal(pipe(image(), output_type="pt", return_dict=False)[0], expected)
    assert expected.std() > 0.1 and not restore(pipe, image()).requires_grad


def test_outputs_are_the_same_values(pipe):
    expected = restore(pipe, image())[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(restore(pipe, image(), output_type="np")[0], expected)
    levels = restore(pipe, image(), output_type="levels")[0]
    np.testing.assert_array_equal(levels, (expected * 255).round().astype("uint8"))
    np.testing.assert_array_equal(np.asarray(restore(pipe, image(), output_type="pil")[0]), levels)


# Tiles


@pytest.mark.parametrize("size", [(40, 61), (16, 50), (17, 17), (100, 12)])
@pytest.mark.parametrize("make, overlap", [(msrresnet, 32), (lambda: msrresnet(scale=1), 32)])
def test_tiles_are_the_whole_where_the_overlap_is_four_times_what_the_network_sees(make, overlap, size):
    pipe = quiet(RestorationPipeline(make()))  # it sees 6 pixels of its input around a pixel
    whole = restore(pipe, image(3, *size))
    tiled = restore(pipe, image(3, *size), tile_size=40, tile_overlap=overlap, batch_size=3)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("overlap", [0, 1, 5, 15, None])
def test_any_overlap_covers_every_pixel(pipe, overlap):
    with torch.no_grad():
        for parameter in pipe.generator.parameters():
            parameter.zero_()
    gray = torch.full((3, 37, 50), 0.5)
    assert_equal(restore(pipe, gray, tile_size=16, tile_overlap=overlap), torch.full((1, 3, 74, 100), 0.5))


def test_only_a_row_of_tiles_is_seen_at_once(pipe):
    shapes = []
    pipe.generator.register_forward_hook(lambda network, args, output: shapes.append(tuple(args[0].shape)))
    restore(pipe, image(3, 64, 24), tile_size=16, tile_overlap=4, batch_size=2)
    assert set(shapes) == {(2, 3, 16, 16)} and len(shapes) == 5


# What images keep


def test_gray_stays_gray_and_colours_may_be_restored_one_by_one(pipe):
    gray = image(1)
    with torch.no_grad():
        color = pipe.generator(gray.expand(3, -1, -1)[None]).sample.clamp(0, 1)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    torch.testing.assert_close(restore(pipe, gray), (color * weights).sum(1, keepdim=True), rtol=0, atol=1e-5)
    one = quiet(RestorationPipeline(msrresnet(in_channels=1, out_channels=1)))
    each = torch.cat([restore(one, image()[[c]]) for c in range(3)], dim=1)
    torch.testing.assert_close(restore(one, image()), each, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels, mode", [(2, "LA"), (4, "RGBA")])
def test_transparency_is_kept(pipe, channels, mode):
    picture = Image.fromarray((image(channels).permute(1, 2, 0).numpy() * 255).astype("uint8"))
    assert picture.mode == mode
    (large,) = pipe(picture).images
    assert large.mode == ("RGBA" if mode == "LA" else mode) and large.size == (28, 18)  # as `read_picture` reads LA
    (same,) = quiet(RestorationPipeline(msrresnet(scale=1)))(picture, tile_size=8).images
    np.testing.assert_array_equal(np.asarray(same)[..., -1], np.asarray(picture)[..., -1])


def test_16_bits_are_kept(pipe):
    array = (image(1)[0].numpy() * 65535).round().astype("uint16")
    expected = restore(pipe, array.astype("float32") / 65535)[0, 0].numpy() * 65535
    (picture,) = pipe(Image.fromarray(array)).images
    assert picture.mode == "I;16"
    np.testing.assert_array_equal(np.asarray(picture), expected.round())
    colors = (image(4).permute(1, 2, 0).numpy() * 65535).round().astype("uint16")
    for tile_size in (None, 8):
        (levels,) = restore(pipe, colors, output_type="levels", tile_size=tile_size)
        assert levels.dtype == np.uint16 and levels.shape == (18, 28, 4) and len(np.unique(levels % 257)) > 200
    with pytest.raises(ValueError, match="no pictures of 16 bits with colours"):
        pipe(colors)


def test_light_has_no_upper_limit():
    network = msrresnet(scale=1)
    pipe = quiet(RestorationPipeline(network, peak=8.0))
    with torch.no_grad():
        seen = torch.log1p(5000 * image()[None] ** 2.2 / 8) / np.log1p(5000)
        expected = 8 * torch.expm1(network(seen).sample.clamp(0, 1) * np.log1p(5000)) / 5000
    light = restore(pipe, image())
    torch.testing.assert_close(light, expected)
    assert light.max() > 1
    (levels,) = restore(pipe, image(), output_type="levels")
    shown = (expected[0].permute(1, 2, 0).numpy() / 8) ** (1 / 2.2) * 255
    assert np.abs(levels - shown).max() <= 0.51
    with pytest.raises(ValueError, match="`peak` must be at least 1, with `black` 0"):
        RestorationPipeline(network, black=-1, peak=8.0)
    with pytest.raises(ValueError, match="`noise_generator` must have `noise_channels`"):
        RestorationPipeline(network, noise_generator=network)


def test_lists_of_any_images(pipe, tmp_path):
    Image.new("RGB", (5, 3), "red").save(tmp_path / "red.png")
    mixed = [
        Image.new("1", (4, 7)),
        tmp_path / "red.png",
        image(4),
        Image.new("P", (1, 1)),
        np.zeros((3, 3), "uint16"),
    ]
    outputs = pipe(mixed).images
    assert [picture.size for picture in outputs] == [(8, 14), (10, 6), (28, 18), (2, 2), (6, 6)]
    assert [picture.mode for picture in outputs] == ["L", "RGB", "RGBA", "RGB", "I;16"]
    with pytest.raises(ValueError, match="can't be put into one array"):
        pipe(mixed, output_type="np")


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (9, 2), (13, 21)])
def test_sizes_that_the_network_cannot_have_are_padded(size):
    for network in (
        RRDBNet(base_channels=4, growth_channels=2, num_blocks=1, unshuffle_factor=4),
        ResnetGenerator(base_channels=4, num_blocks=1),
        SRResNet(base_channels=4, num_blocks=1, scale=1).eval(),
    ):
        assert restore(quiet(RestorationPipeline(network)), image(3, *size)).shape == (1, 3, *size)


# Publishing and bad input


def test_loads_without_this_package(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    other = quiet(DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True))
    assert type(other).__module__.startswith("diffusers_modules")
    assert_equal(restore(other, image(), tile_size=8), restore(pipe, image(), tile_size=8))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image": []}, "is empty"),
        ({"image": "photo.png"}, "no file 'photo.png'"),
        ({"image": image() * 3}, "values from 0 to 1"),
        ({"image": image(5)}, "must have 3 channels, but has 5"),
        ({"tile_overlap": 3}, "`tile_overlap` needs `tile_size`"),
        ({"tile_size": 8, "tile_overlap": 8}, "`tile_overlap` must be from 0 to less than `tile_size`"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"output_type": "latent"}, "`output_type` must be one of pil, levels, np, pt"),
    ],
)
def test_bad_input_is_refused(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        pipe(**{"image": image(), **arguments})


@pytest.mark.parametrize(
    "network, black, message",
    [
        (msrresnet(in_channels=1), 0, "makes 3 from 1"),
        (DCGANGenerator(8, channels=4), 0, "as many channels as it takes"),
        (msrresnet(), 0.5, "`black` must be 0 or -1"),
    ],
)
def test_networks_of_something_else_are_refused(network, black, message):
    with pytest.raises(ValueError, match=message):
        RestorationPipeline(network, black=black)
