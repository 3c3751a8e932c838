import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.models import AdaINStyleNet, FastStyleNet
from diffusers_ext.pipelines import StyleTransferPipeline
from diffusers_ext.pipelines.pipeline_style_transfer import gram_matrix
from tests.pipelines.testing import PipelineSaveLoadTesterMixin, PipelineTesterConfig, assert_equal


def adain() -> StyleTransferPipeline:
    torch.manual_seed(0)
    network = AdaINStyleNet((4, 4, 6, 8)).eval()
    for module in network.modules():  # as if it were trained: features of about one size, and images of middle gray
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    torch.nn.init.constant_(network.decoder[-1][-1].conv.bias, 0.5)
    return quiet(StyleTransferPipeline(network))


def fast() -> StyleTransferPipeline:
    torch.manual_seed(0)
    return quiet(StyleTransferPipeline(FastStyleNet(block_out_channels=(4, 6, 8), num_blocks=1).eval()))


def quiet(pipe: StyleTransferPipeline) -> StyleTransferPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(seed=0, count=2, height=19, width=26) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def paint(pipe, *arguments, **keywords):
    return pipe(*arguments, **{"output_type": "pt", **keywords}).images


class TestStyleTransferSaveLoad(PipelineTesterConfig, PipelineSaveLoadTesterMixin):
    pipeline_class = StyleTransferPipeline
    output_shape = (2, 3, 19, 26)

    def get_components(self):
        return dict(adain().components)

    def get_inputs(self):
        return {"image": images(), "style_image": images(1, 1)}

    def run(self, pipe, seed=0, **changes):
        return paint(quiet(pipe), **self.get_inputs())


@torch.no_grad()
def test_it_is_the_network():
    pipe, style = adain(), images(1, 1, 12, 30)
    both = [pipe.generator(image[None], style, strength=0.7).sample[..., :19, :26] for image in images()]
    torch.testing.assert_close(paint(pipe, images(), style, strength=0.7), torch.cat(both).clamp(0, 1))
    pipe = fast()
    expected = torch.cat([pipe.generator(image[None]).sample[..., :19, :26] for image in images()]).clamp(0, 1)
    torch.testing.assert_close(paint(pipe, images()), expected)
    assert_equal(paint(pipe, images(), strength=0.0), images())


def test_several_styles_are_mixed_by_their_weights():
    pipe, first, second = adain(), images(1, 1), images(2, 1, 30, 20)
    mixed = paint(pipe, images(), [first[0], second[0]], style_weights=[2, 0])
    torch.testing.assert_close(mixed, paint(pipe, images(), first))
    half = paint(pipe, images(), [first[0], second[0]])
    assert not torch.allclose(half, mixed, atol=1e-4)


def test_colors_may_stay():
    pipe, red = adain(), images(1, 1) * torch.tensor([1.0, 0.1, 0.1]).view(3, 1, 1)
    assert not torch.allclose(paint(pipe, images(), red, preserve_colors=True), paint(pipe, images(), red), atol=1e-4)


def test_optimisation_lowers_the_loss_of_gatys():
    pipe, image, style = adain(), images(count=1), images(1, 1) ** 4
    painted = paint(pipe, image, style, num_optimization_steps=20, style_weight=1e4)

    def style_error(candidate):
        with torch.no_grad():
            pairs = zip(pipe.generator.encode(candidate), pipe.generator.encode(style), strict=True)
            return sum((gram_matrix(own) - gram_matrix(wanted)).square().mean() for own, wanted in pairs)

    assert style_error(painted) < 0.5 * style_error(image)
    assert not painted.requires_grad and not any(p.grad is not None for p in pipe.generator.parameters())


@pytest.mark.parametrize("make", [adain, fast])
def test_any_size_and_mode(make):
    pipe = make()
    style = [images(1, 1)] if make is adain else []
    for picture in (Image.new("L", (3, 40)), Image.new("RGBA", (1, 1)), np.zeros((9, 30, 3), np.uint8)):
        (painted,) = pipe(picture, *style).images
        size = picture.size if isinstance(picture, Image.Image) else (30, 9)
        assert painted.size == size and painted.mode == "RGB"


def test_loads_without_this_package(tmp_path):
    for make, style in ((adain, [images(1, 1)]), (fast, [])):
        pipe, folder = make(), tmp_path / make.__name__
        pipe.save_pretrained(folder)
        other = quiet(DiffusionPipeline.from_pretrained(folder, trust_remote_code=True))
        assert type(other).__module__.startswith("diffusers_modules")
        assert_equal(paint(other, images(), *style), paint(pipe, images(), *style))


@pytest.mark.parametrize(
    "make, arguments, message",
    [
        (adain, {}, "`style_image` is required"),
        (fast, {"style_image": images(1, 1)}, "has a style of its own"),
        (fast, {"preserve_colors": True}, "`preserve_colors` needs a network that takes style images"),
        (fast, {"num_optimization_steps": 3}, "`num_optimization_steps` needs a network with features"),
        (adain, {"style_image": images(1, 1), "style_weights": [1, 2]}, "`style_weights` must be 1 numbers"),
        (adain, {"style_image": images(1, 1), "style_weights": [0]}, "not all 0"),
        (adain, {"style_image": images(1, 1), "strength": 1.5}, "`strength` must be from 0 to 1"),
        (adain, {"style_image": images(1, 1), "num_optimization_steps": -1}, "an integer of at least 0"),
        (adain, {"style_image": images(1, 1), "output_type": "latent"}, "`output_type`"),
    ],
)
def test_bad_input_is_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make()(images(), **arguments)
