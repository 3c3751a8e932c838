import pytest
import torch
from accelerate import cpu_offload_with_hook

from diffusers_ext.models import StyleGAN2Discriminator, StyleGAN2Generator
from diffusers_ext.models.equalized_layers import EqualizedConv2d, EqualizedLinear, append_minibatch_stddev
from diffusers_ext.models.modeling_stylegan2 import StyledConv2d
from diffusers_ext.models.resampling_filters import blur_images, double_images, halve_images, normalized_taps
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTesterMixin,
    ModelTrainingTesterMixin,
)


def tiny_generator(**changes) -> StyleGAN2Generator:
    torch.manual_seed(0)
    arguments = {"sample_size": 16, "latent_dim": 6, "style_dim": 7, "block_out_channels": (8, 6, 4)}
    generator = StyleGAN2Generator(**{**arguments, "num_mapping_layers": 2, **changes}).eval()
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.3)
    return generator


def tiny_discriminator(**changes) -> StyleGAN2Discriminator:
    torch.manual_seed(0)
    arguments = {"sample_size": 16, "block_out_channels": (8, 6, 4)}
    return StyleGAN2Discriminator(**{**arguments, **changes}).eval()


class SkipGeneratorConfig(ModelTesterConfig):
    model_class = StyleGAN2Generator
    output_shape = (3, 4, 16, 16)

    def get_init_dict(self):
        return {
            "sample_size": 16,
            "out_channels": 4,
            "latent_dim": 6,
            "style_dim": 8,
            "block_out_channels": (8, 6, 4),
            "num_mapping_layers": 2,
            "mapping_dim": 10,
            "num_classes": 3,
            "class_embed_dim": 5,
        }

    def get_inputs(self):
        latents = torch.randn((3, 6), generator=torch.Generator().manual_seed(0))
        return {"latents": latents, "class_labels": torch.tensor([2, 0, 1])}


class ResidualGeneratorConfig(SkipGeneratorConfig):
    output_shape = (2, 1, 8, 8)

    def get_init_dict(self):
        changes = {"architecture": "resnet", "sample_size": 8, "block_out_channels": (8, 6), "out_channels": 1}
        return super().get_init_dict() | changes | {"num_classes": None, "conv_clamp": 256.0, "activation": "swish"}

    def get_inputs(self):
        return {"styles": torch.randn((2, 4, 8), generator=torch.Generator().manual_seed(0))}


class PlainGeneratorConfig(SkipGeneratorConfig):
    def get_init_dict(self):
        return super().get_init_dict() | {"architecture": "orig", "use_noise": False, "resample_filter": (1, 2, 1)}


class ResidualDiscriminatorConfig(ModelTesterConfig):
    model_class = StyleGAN2Discriminator
    output_shape = (4,)

    def get_init_dict(self):
        return {
            "sample_size": 16,
            "in_channels": 2,
            "block_out_channels": (8, 6, 4),
            "num_classes": 3,
            "num_mapping_layers": 2,
            "projection_dim": 5,
            "stddev_group_size": 2,
            "num_stddev_channels": 2,
        }

    def get_inputs(self):
        sample = torch.randn((4, 2, 16, 16), generator=torch.Generator().manual_seed(0))
        return {"sample": sample, "class_labels": torch.tensor([2, 0, 1, 2])}


class SkipDiscriminatorConfig(ResidualDiscriminatorConfig):
    def get_init_dict(self):
        changes = {"architecture": "skip", "num_stddev_channels": 0, "conv_clamp": 256.0, "stddev_group_size": None}
        return super().get_init_dict() | changes


class TestSkipGenerator(SkipGeneratorConfig, ModelTesterMixin):
    pass


class TestResidualGenerator(ResidualGeneratorConfig, ModelOutputTesterMixin, ModelSaveLoadTesterMixin):
    pass


class TestPlainGenerator(PlainGeneratorConfig, ModelOutputTesterMixin, ModelTrainingTesterMixin):
    pass


class TestResidualDiscriminator(ResidualDiscriminatorConfig, ModelTesterMixin):
    pass


class TestSkipDiscriminator(
    SkipDiscriminatorConfig, ModelOutputTesterMixin, ModelTrainingTesterMixin, ModelCompileTesterMixin
):
    pass


@pytest.mark.parametrize("size, styles", [(8, 4), (32, 8), (64, 10)])
@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@torch.no_grad()
def test_depth_follows_from_the_size(size, styles, architecture):
    widths = (4,) * (styles // 2)
    generator = StyleGAN2Generator(
        size, 1, latent_dim=3, style_dim=4, block_out_channels=widths, architecture=architecture
    )
    images, found = generator(torch.randn(2, 3), return_dict=False)
    assert images.shape == (2, 1, size, size) and found.shape == (2, styles, 4)
    assert generator.noise_shapes[0] == (1, 4, 4) and generator.noise_shapes[-1] == (1, size, size)
    assert len(generator.noise_shapes) == styles - 1
    discriminator = StyleGAN2Discriminator(size, 1, block_out_channels=widths, architecture=architecture)
    assert discriminator(images).logits.shape == (2,)


def test_the_published_networks_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        for size, published in ((64, (27_032_600, 26_488_833)), (1024, (30_370_060, 29_012_513))):
            pair = StyleGAN2Generator(size), StyleGAN2Discriminator(size)
            assert tuple(sum(p.numel() for p in network.parameters()) for network in pair) == published


@torch.no_grad()
def test_the_spaces_agree():
    generator, latents = tiny_generator(), torch.randn(3, 6)
    styles = generator.map_latents(latents)
    expected = generator(latents).sample
    for given in (
        {"latents": latents[:, None].expand(-1, 6, -1)},
        {"styles": styles},
        {"styles": generator.broadcast_styles(styles)},
    ):
        torch.testing.assert_close(generator(**given).sample, expected)
    # styles are normalized in length, so that the length of a latent does not count
    torch.testing.assert_close(generator(3 * latents).sample, expected)


@torch.no_grad()
def test_one_image_is_as_in_a_batch():
    """For a single image the weights are scaled, and otherwise the features."""
    generator, latents = tiny_generator(), torch.randn(3, 6)
    alone = torch.cat([generator(latent[None]).sample for latent in latents])
    torch.testing.assert_close(alone, generator(latents).sample, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_noise_is_the_given_one():
    generator, latents = tiny_generator(), torch.randn(2, 6)
    assert len(generator.noise_shapes) == 5
    stored = [conv.noise[None, None] for block in generator.blocks for conv in block.convs]
    torch.testing.assert_close(generator(latents, noise=stored).sample, generator(latents).sample)
    zeros = [torch.zeros(1, *shape) for shape in generator.noise_shapes]
    torch.testing.assert_close(generator(latents, noise=zeros).sample, generator(latents, noise="none").sample)
    assert not torch.allclose(generator(latents).sample, generator(latents, noise="none").sample)


@torch.no_grad()
def test_truncation_moves_styles_to_their_average():
    generator, latents = tiny_generator(num_classes=2), torch.randn(4, 6)
    labels = torch.tensor([0, 1, 0, 1])
    assert not generator.style_average.any()
    generator.measure_style_average()
    many = generator.map_latents(torch.randn(20_000, 6), torch.arange(20_000) % 2)
    torch.testing.assert_close(generator.style_average, many.mean(dim=0), rtol=0, atol=0.05)
    styles = generator(latents, labels).styles
    assert torch.equal(generator.truncate(styles, 1.0), styles)
    assert torch.equal(generator.truncate(styles, 0.0), generator.style_average.expand_as(styles))
    partly = generator.truncate(styles, 0.5, cutoff=2)
    assert torch.equal(partly[:, 2:], styles[:, 2:])
    torch.testing.assert_close(partly[:, :2], (styles[:, :2] + generator.style_average) / 2)


@torch.no_grad()
def test_a_label_of_real_numbers():
    for network, inputs in (
        (tiny_generator(num_classes=3), torch.randn(2, 6)),
        (tiny_discriminator(num_classes=3), torch.randn(2, 3, 16, 16)),
    ):
        one_hot = torch.eye(3)[[2, 0]]
        torch.testing.assert_close(network(inputs, one_hot)[0], network(inputs, torch.tensor([2, 0]))[0])
        assert not torch.allclose(network(inputs, one_hot)[0], network(inputs, 0.5 * one_hot.flip(0))[0])


def test_equalized_layers_keep_the_variance():
    torch.manual_seed(0)
    inputs = torch.randn(64, 200)
    assert abs(EqualizedLinear(200, 300, lr_multiplier=0.01)(inputs).std() - 1) < 0.1
    assert abs(EqualizedConv2d(50, 60, 3)(torch.randn(2, 50, 16, 16))[..., 1:-1, 1:-1].std() - 1) < 0.1


def test_minibatch_stddev_is_that_of_each_group():
    torch.manual_seed(0)
    features = torch.randn(6, 4, 2, 2)
    statistics = append_minibatch_stddev(features, group_size=3, num_channels=2)[:, 4:]
    for image in range(6):
        group = features[image % 2 :: 2]  # every second image
        expected = (group.var(dim=0, correction=0) + 1e-8).sqrt().unflatten(0, (2, 2)).mean(dim=(1, 2, 3))
        torch.testing.assert_close(statistics[image], expected[:, None, None].expand(2, 2, 2))
    with pytest.raises(ValueError, match="must be a multiple of the 4 images"):
        append_minibatch_stddev(features, group_size=4)


@pytest.mark.parametrize("taps", [(1,), (1, 1), (1, 2, 1), (1, 3, 3, 1), (4, 2, 1), (1, 5, 10, 10, 5, 1)])
def test_filters_keep_brightness_and_size(taps):
    taps, images = normalized_taps(taps), torch.full((1, 2, 16, 16), 0.7)
    for changed, size in ((double_images(images, taps), 32), (halve_images(images, taps), 8)):
        assert changed.shape == (1, 2, size, size)
        inside = changed[..., 4 : size - 4, 4 : size - 4] if size == 32 else changed[..., 3:5, 3:5]
        if len(taps) > 1:  # a filter of one tap leaves the zeros between pixels
            torch.testing.assert_close(inside, torch.full_like(inside, 0.7)) if len(taps) % 2 == 0 else None
        torch.testing.assert_close(inside.mean(), torch.tensor(0.7))


def test_filters_convolve():
    taps = normalized_taps((4, 2, 1))
    impulse = torch.zeros(1, 1, 5, 5)
    impulse[..., 2, 2] = 1
    torch.testing.assert_close(blur_images(impulse, taps, 1, 1)[0, 0, 1:4, 1:4], torch.outer(taps, taps))


@pytest.mark.parametrize(
    "make, changes, message",
    [
        (tiny_generator, {"sample_size": 24}, "must be a power of two and at least 8, but is 24"),
        (tiny_discriminator, {"sample_size": 4}, "must be a power of two and at least 8, but is 4"),
        (tiny_generator, {"sample_size": 32}, "must be 4 positive numbers"),
        (tiny_generator, {"block_out_channels": (4, 0, 4)}, "must be 3 positive numbers"),
        (tiny_generator, {"architecture": "dense"}, "`architecture` must be one of"),
        (tiny_discriminator, {"activation": "gelu"}, "`activation` must be one of"),
        (tiny_discriminator, {"num_stddev_channels": 3}, "must divide the 8 channels"),
        (tiny_generator, {"resample_filter": ()}, "`resample_filter` must be numbers"),
        (tiny_generator, {"latent_dim": 0}, "`latent_dim` must be at least 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({}, "Either `latents` or `styles`"),
        ({"latents": torch.zeros(2, 6), "styles": torch.zeros(2, 7)}, "Either `latents` or `styles`"),
        ({"latents": torch.zeros(2, 5)}, r"`latents` must be \(N, 6\) or \(N, 6, 6\)"),
        ({"styles": torch.zeros(2, 5, 7)}, r"`styles` must be \(N, 7\) or \(N, 6, 7\)"),
        ({"latents": torch.zeros(2, 6), "class_labels": torch.tensor([0, 0])}, "takes none"),
        ({"styles": torch.zeros(2, 7), "class_labels": torch.tensor([0, 0])}, "are mapped already"),
        ({"latents": torch.zeros(2, 6), "noise": "random"}, '`noise` must be "constant", "none"'),
        ({"latents": torch.zeros(2, 6), "noise": [torch.zeros(1, 1, 4, 4)]}, "`noise` must be maps of the shapes"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        tiny_generator()(**inputs)


def test_labels_that_do_not_fit_are_refused():
    discriminator, sample = tiny_discriminator(num_classes=3), torch.zeros(2, 3, 16, 16)
    for labels, message in (
        (None, "must be given"),
        (torch.tensor([0, 3]), "from 0 to 2, but hold 3"),
        (torch.tensor([0]), "must be integers of the shape"),
        (torch.zeros(2, 4), "or real numbers of the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            discriminator(sample, labels)
    with pytest.raises(ValueError, match=r"`sample` must be \(N, 3, 16, 16\)"):
        discriminator(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))


def test_an_offloaded_network_is_moved_before_it_maps_latents():
    """As for a forward pass; a pipeline with `enable_model_cpu_offload` may map latents first."""
    network = tiny_generator()
    cpu_offload_with_hook(network, "meta")
    assert network.map_latents(torch.zeros(2, 6, device="meta")).shape == (2, 7)
    assert network.device.type == "meta"


def test_weights_may_be_scaled_before_they_are_demodulated():
    """As by rosinality: the small number that is added to variances then weighs more beside small weights."""
    features, style, taps = torch.randn(2, 8, 4, 4), torch.randn(2, 7), torch.ones(4) / 4
    torch.manual_seed(0)
    conv = StyledConv2d(8, 5, 7, 4, use_noise=False, activation="linear", clamp=None, scaled=True)
    usual = StyledConv2d(8, 5, 7, 4, use_noise=False, activation="linear", clamp=None, scaled=False)
    with torch.no_grad():
        conv.weight.mul_(1e-4)
        usual.load_state_dict(conv.state_dict())
        differing = usual(features, style, None, taps)
        usual.weight.mul_((8 * 3 * 3) ** -0.5)
        found, expected = (layer(features, style, None, taps) for layer in (conv, usual))
    torch.testing.assert_close(found, expected)
    assert (found - differing).abs().max() > 0.01 * found.abs().max()
    assert tiny_generator(demodulates_scaled_weights=True).blocks[0].convs[0].epsilon > 1e-8
