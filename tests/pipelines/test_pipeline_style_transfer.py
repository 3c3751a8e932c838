import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.models import VGG, AdaINStyleNet, FastStyleNet
from diffusers_ext.pipelines import StyleTransferPipeline
from diffusers_ext.pipelines.photographs import (
    guided_filter,
    luminance,
    match_luminance,
    matting_laplacian,
    with_colors_of,
)
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


def gatys() -> StyleTransferPipeline:
    torch.manual_seed(0)
    return quiet(StyleTransferPipeline(feature_network=VGG((4, 6, 8), (2, 1, 2), padding_mode="reflect").eval()))


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

    def test_optional_components_may_be_missing(self, tmp_path):
        """One of the two has to be there."""
        for make, missing in ((adain, "feature_network"), (gatys, "generator")):
            pipe, options = make(), {"num_optimization_steps": 1 if make is gatys else 0}
            pipe.save_pretrained(tmp_path / missing)
            loaded = quiet(StyleTransferPipeline.from_pretrained(tmp_path / missing))
            assert getattr(loaded, missing) is None
            assert_equal(paint(loaded, **self.get_inputs(), **options), paint(pipe, **self.get_inputs(), **options))


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
    mixed = paint(pipe, images(), [first[0], second[0]], style_weights=np.array([2.0, 0.0]))
    torch.testing.assert_close(mixed, paint(pipe, images(), first))
    half = paint(pipe, images(), [first[0], second[0]])
    assert not torch.allclose(half, mixed, atol=1e-4)


def test_colors_may_stay():
    pipe, red = adain(), images(1, 1) * torch.tensor([1.0, 0.1, 0.1]).view(3, 1, 1)
    assert not torch.allclose(paint(pipe, images(), red, preserve_colors=True), paint(pipe, images(), red), atol=1e-4)


def test_only_the_luminance_may_be_painted():
    image = 0.4 + 0.2 * images()
    for pipe, style in ((adain(), [images(1, 1)]), (fast(), [])):
        painted = paint(pipe, image, *style, preserve_colors="luminance")
        unclipped = ((painted > 0) & (painted < 1)).all(dim=1, keepdim=True).expand_as(image)
        assert unclipped.any() and not torch.allclose(painted, image, atol=1e-2)
        colors = [pixels - luminance(pixels) for pixels in (painted, image)]
        torch.testing.assert_close(colors[0][unclipped], colors[1][unclipped], rtol=0, atol=1e-5)


def test_luminance_has_the_statistics_of_the_image():
    matched, wanted = match_luminance(images(1, 1), 0.3 + 0.1 * images(0, 1)), luminance(0.3 + 0.1 * images(0, 1))
    torch.testing.assert_close(matched.mean(), wanted.mean())
    torch.testing.assert_close(matched.std(), wanted.std())
    torch.testing.assert_close(luminance(with_colors_of(images(), luminance(images(3)))), luminance(images(3)))


def test_a_guided_filter_gives_the_edges_of_the_guide():
    """As the formula of one window says; functions of the guide stay, and noise on flat ground goes."""
    guide = images(0, 1, 24, 30)
    linear = guide.flip(1) * 0.5 + 0.1
    torch.testing.assert_close(guided_filter(guide, linear, 3, 1e-8), linear, rtol=0, atol=1e-3)
    flat = torch.full_like(guide, 0.5)
    assert guided_filter(flat, guide, 3).std() < 0.2 * guide.std()
    whole = guided_filter(guide, images(1, 1, 24, 30), 30, 0.01)  # one window: ridge regression over all pixels
    rows, target = guide[0].flatten(1).double(), images(1, 1, 24, 30)[0].flatten(1).double()
    centred = rows - rows.mean(1, keepdim=True)
    covariance = centred @ centred.T / rows.shape[1] + 0.01 * torch.eye(3).double()
    slopes = torch.linalg.solve(covariance, centred @ (target - target.mean(1, keepdim=True)).T / rows.shape[1])
    expected = (slopes.T @ centred + target.mean(1, keepdim=True)).view(3, 24, 30).float()
    torch.testing.assert_close(whole[0], expected, rtol=0, atol=1e-4)


def levin_matrix(guide: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Levin et al. 2008, eq. 12, entry by entry: (H * W, H * W)."""
    channels, height, width = guide.shape
    numbers, matrix = torch.arange(height * width).view(height, width), torch.zeros(height * width, height * width)
    matrix = matrix.double()
    for top in range(height - 2):
        for left in range(width - 2):
            colours = guide[:, top : top + 3, left : left + 3].flatten(1).double()
            centred = colours - colours.mean(1, keepdim=True)
            spread = centred @ centred.T / 9 + epsilon / 9 * torch.eye(channels).double()
            own = torch.eye(9).double() - (1 + centred.T @ torch.linalg.inv(spread) @ centred) / 9
            rows = numbers[top : top + 3, left : left + 3].flatten()
            matrix[rows[:, None], rows] += own
    return matrix


@pytest.mark.parametrize("channels, epsilon", [(3, 1e-7), (3, 0.1), (1, 1e-7)])
def test_the_matting_laplacian_is_the_matrix_of_levin(channels, epsilon):
    guide = images(0, 1, 6, 7)[:, :channels]
    guide[..., :4] = 0.25  # windows of one colour
    laplacian = matting_laplacian(guide, epsilon)
    columns = laplacian(torch.eye(42).view(42, 1, 6, 7).transpose(0, 1))[0].flatten(1)  # each unit image is a channel
    torch.testing.assert_close(columns.double(), levin_matrix(guide[0], epsilon), rtol=0, atol=1e-5)
    torch.testing.assert_close(columns, columns.T, rtol=0, atol=1e-5)
    assert torch.linalg.eigvalsh(columns.double())[0] > -1e-5


def test_affine_images_of_a_photograph_have_no_energy():
    """Levin et al. 2008, section 4: what is a linear function of the colours in each window costs nothing."""
    guide = images(0, 1, 12, 15)
    laplacian = matting_laplacian(guide)
    mixed = torch.einsum("dc,nchw->ndhw", torch.tensor([[0.5, 0.2, -0.3], [1.0, 0.0, 0.0]]), guide) + 0.1
    other = images(1, 1, 12, 15)
    energies = [(image * laplacian(image)).sum() for image in (mixed, torch.ones_like(guide), other)]
    assert energies[0].abs() < 1e-4 and energies[1].abs() < 1e-4 and energies[2] > 1


def test_the_photorealism_weight_keeps_an_image_locally_affine():
    pipe, image, style = gatys(), images(count=1), images(1, 1) ** 4
    laplacian, options = matting_laplacian(image), {"num_optimization_steps": 10, "style_weight": 1e4}
    free, held = (paint(pipe, image, style, **options, photorealism_weight=weight).clone() for weight in (0.0, 1e6))
    assert (held * laplacian(held)).sum() < 0.5 * (free * laplacian(free)).sum()
    assert not torch.equal(held, image)


def test_photographs_stay_photographs():
    pipe, style = adain(), images(1, 1)
    image = torch.nn.functional.interpolate(images(0, 1, 3, 4), (24, 32), mode="bilinear")
    painted, smooth = paint(pipe, image, style), paint(pipe, image, style, guided_filter_radius=4)
    assert smooth.diff(dim=3).abs().mean() < 0.7 * painted.diff(dim=3).abs().mean()


@pytest.mark.parametrize("make", [adain, gatys])
def test_optimisation_lowers_the_loss_of_gatys(make):
    pipe, image, style = make(), images(count=1), images(1, 1) ** 4
    painted = paint(pipe, image, style, num_optimization_steps=20, style_weight=1e4)
    network = pipe.feature_network or pipe.generator
    used = [index for index, name in enumerate(network.layers) if name.endswith("_1")]

    def style_error(candidate):
        with torch.no_grad():
            maps = [network.encode(picture) for picture in (candidate, style)]
            return sum((gram_matrix(maps[0][i]) - gram_matrix(maps[1][i])).square().mean() for i in used)

    assert style_error(painted) < 0.5 * style_error(image)
    assert not painted.requires_grad and not any(p.grad is not None for p in network.parameters())


def test_layers_of_the_optimisation_may_be_chosen():
    pipe, image, style = gatys(), images(count=1), images(1, 1)
    usual = paint(pipe, image, style, num_optimization_steps=3)
    named = {"content_layer": "relu3_2", "style_layers": ["relu1_1", "relu2_1", "relu3_1"]}
    assert_equal(paint(pipe, image, style, num_optimization_steps=3, **named), usual)
    named["style_layers"] = ["relu1_2"]
    assert not torch.equal(paint(pipe, image, style, num_optimization_steps=3, **named), usual)


@pytest.mark.parametrize("make", [adain, fast])
def test_any_size_and_mode(make):
    pipe = make()
    style = [images(1, 1)] if make is adain else []
    for picture in (Image.new("L", (3, 40)), Image.new("RGBA", (1, 1)), np.zeros((9, 30, 3), np.uint8)):
        (painted,) = pipe(picture, *style).images
        size = picture.size if isinstance(picture, Image.Image) else (30, 9)
        assert painted.size == size and painted.mode == "RGB"


def test_loads_without_this_package(tmp_path):
    for make, style in ((adain, [images(1, 1)]), (fast, []), (gatys, [images(1, 1)])):
        pipe, folder = make(), tmp_path / make.__name__
        pipe.save_pretrained(folder)
        other = quiet(DiffusionPipeline.from_pretrained(folder, trust_remote_code=True))
        assert type(other).__module__.startswith("diffusers_modules")
        options = {"num_optimization_steps": 1} if make is gatys else {"guided_filter_radius": 2}
        assert_equal(paint(other, images(), *style, **options), paint(pipe, images(), *style, **options))


@pytest.mark.parametrize(
    "make, arguments, message",
    [
        (adain, {}, "`style_image` is required"),
        (
            adain,
            {"style_image": images(1, 1), "photorealism_weight": 1.0},
            "is for `num_optimization_steps`, which is",
        ),
        (adain, {"style_image": images(1, 1), "photorealism_weight": -1.0}, "`photorealism_weight` must be a number"),
        (fast, {"style_image": images(1, 1)}, "has a style of its own"),
        (fast, {"preserve_colors": True}, "`preserve_colors` must be 'luminance' for a network that takes no style"),
        (fast, {"preserve_colors": "hue"}, "`preserve_colors` must be one of coral, luminance"),
        (fast, {"guided_filter_radius": 1.5}, "`guided_filter_radius` must be an integer"),
        (gatys, {"style_image": images(1, 1)}, "`num_optimization_steps` must be above 0"),
        (gatys, {"num_optimization_steps": 1}, "`style_image` is required"),
        (adain, {"style_image": images(1, 1), "content_layer": "relu1_1"}, "`content_layer` is for"),
        (
            gatys,
            {"style_image": images(1, 1), "num_optimization_steps": 1, "style_layers": ["relu9_9"]},
            "`style_layers` must be of relu1_1, relu1_2",
        ),
        (fast, {"num_optimization_steps": 3}, "`num_optimization_steps` needs a network with features"),
        (adain, {"style_image": images(1, 1), "style_weights": [1, 2]}, "`style_weights` must be 1 numbers"),
        (adain, {"style_image": images(1, 1), "style_weights": [0]}, "not all 0"),
        (
            adain,
            {"style_image": images(1, 1), "num_optimization_steps": 1, "style_weight": float("nan")},
            "`style_weight` must be a number of at least 0, but is nan",
        ),
        (adain, {"style_image": images(1, 1), "num_optimization_steps": 1, "strength": 0.5}, "paint in one pass"),
        (adain, {"style_image": images(1, 1), "strength": 1.5}, "`strength` must be from 0 to 1"),
        (adain, {"style_image": images(1, 1), "num_optimization_steps": -1}, "an integer of at least 0"),
        (adain, {"style_image": images(1, 1), "output_type": "latent"}, "`output_type`"),
    ],
)
def test_bad_input_is_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make()(images(), **arguments)


def test_a_pipeline_without_networks_is_refused():
    with pytest.raises(ValueError, match="needs a `generator`, a `feature_network`, or both"):
        StyleTransferPipeline()
