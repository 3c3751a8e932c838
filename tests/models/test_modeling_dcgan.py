import pytest
import torch

from diffusers_ext.models.modeling_dcgan import NORMALIZATIONS, DCGANDiscriminator, DCGANGenerator
from tests.models.gans import GANTesterMixin
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTesterMixin,
    ModelTrainingTesterMixin,
)


class GeneratorConfig(ModelTesterConfig):
    model_class = DCGANGenerator
    output_shape = (3, 2, 16, 24)

    def get_init_dict(self):
        return {
            "sample_size": (16, 24),
            "out_channels": 2,
            "latent_dim": 9,
            "channels": 8,
            "num_classes": 5,
            "conditioning": "concat",
            "num_categories": 3,
            "num_continuous_codes": 1,
            "latent_distribution": "uniform",
        }

    def get_inputs(self):
        latents = torch.randn((3, 9), generator=torch.Generator().manual_seed(0))
        return {"latents": latents, "class_labels": torch.tensor([4, 0, 4])}


class ResizeGeneratorConfig(GeneratorConfig):
    def get_init_dict(self):
        changes = {"upsample_type": "resize", "normalization": "instance", "conditioning": "embedding"}
        return super().get_init_dict() | changes


class DiscriminatorConfig(ModelTesterConfig):
    model_class = DCGANDiscriminator
    output_shape = (3,)

    def get_init_dict(self):
        return {
            "sample_size": (16, 24),
            "in_channels": 2,
            "channels": 8,
            "normalization": "layer",
            "spectral_norm": True,
            "num_classes": 5,
            "conditioning": "projection",
        }

    def get_inputs(self):
        sample = torch.randn((3, 2, 16, 24), generator=torch.Generator().manual_seed(0))
        return {"sample": sample, "class_labels": torch.tensor([4, 0, 4])}


class BatchNormDiscriminatorConfig(DiscriminatorConfig):
    def get_init_dict(self):
        changes = {"normalization": "batch", "spectral_norm": False, "conditioning": "embedding"}
        return super().get_init_dict() | changes


class HeadedDiscriminatorConfig(DiscriminatorConfig):
    """With the heads of AC-GAN and InfoGAN, which get no gradient from the score."""

    def get_init_dict(self):
        changes = {"auxiliary_classifier": True, "num_categories": 3, "num_continuous_codes": 1}
        return super().get_init_dict() | changes


class TestGenerator(GeneratorConfig, ModelTesterMixin):
    pass


class TestResizeGenerator(
    ResizeGeneratorConfig, ModelSaveLoadTesterMixin, ModelTrainingTesterMixin, ModelCompileTesterMixin
):
    pass


class TestDiscriminator(DiscriminatorConfig, ModelTesterMixin):
    pass


class TestBatchNormDiscriminator(BatchNormDiscriminatorConfig, ModelTrainingTesterMixin):
    pass


class TestHeadedDiscriminator(
    HeadedDiscriminatorConfig, ModelOutputTesterMixin, ModelSaveLoadTesterMixin, ModelCompileTesterMixin
):
    pass


class TestPair(GANTesterMixin):
    image_shape = (3, 8, 8)
    body = "blocks"

    def make_generator(self, **options):
        return DCGANGenerator(8, latent_dim=6, channels=4, **options)

    def make_discriminator(self, **options):
        return DCGANDiscriminator(8, channels=4, **options)

    def scoring_weights(self, discriminator):
        return [*(block[0].weight for block in discriminator.blocks), discriminator.conv_out.weight]


def make_pair(size, **changes) -> tuple[DCGANGenerator, DCGANDiscriminator]:
    torch.manual_seed(0)
    generator = DCGANGenerator(size, out_channels=1, latent_dim=6, channels=4, **changes)
    return generator, DCGANDiscriminator(size, in_channels=1, channels=4)


@pytest.mark.parametrize(
    "size, doublings, coarsest",
    [
        (8, 1, (4, 4)),
        (12, 1, (6, 6)),
        (16, 2, (4, 4)),
        (28, 2, (7, 7)),
        (32, 3, (4, 4)),
        (36, 2, (9, 9)),
        (64, 4, (4, 4)),
        (128, 5, (4, 4)),
        ((48, 64), 3, (6, 8)),
        ((64, 48), 3, (8, 6)),
        ((8, 64), 1, (4, 32)),
        ([28, 32], 2, (7, 8)),
    ],
)
@pytest.mark.parametrize("upsample_type", ["transposed", "resize"])
@torch.no_grad()
def test_depth_follows_from_the_size(size, doublings, coarsest, upsample_type):
    generator, discriminator = make_pair(size, upsample_type=upsample_type)
    height, width = (size, size) if isinstance(size, int) else size
    sample = generator(torch.randn(2, 6)).sample
    assert sample.shape == (2, 1, height, width)
    assert len(generator.blocks) == len(discriminator.blocks) == doublings
    assert generator.blocks[0][0].kernel_size == discriminator.conv_out.kernel_size == coarsest
    assert discriminator(sample).logits.shape == (2,)


@pytest.mark.parametrize("size", [7, 9, 4, 6, (8, 9), (9, 8), (4, 64), 0, -8])
def test_sizes_that_the_strides_do_not_allow_are_refused(size):
    for model_class in (DCGANGenerator, DCGANDiscriminator):
        with pytest.raises(ValueError, match="`sample_size` must be even and at least 8"):
            model_class(size)


def test_the_published_size_has_the_published_number_of_parameters():
    generator, discriminator = DCGANGenerator(), DCGANDiscriminator()
    assert sum(parameter.numel() for parameter in generator.parameters()) == 3_576_704
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 2_765_568


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@torch.no_grad()
def test_initial_weights(normalization):
    torch.manual_seed(0)
    for model in (DCGANGenerator(normalization=normalization), DCGANDiscriminator(normalization=normalization)):
        for name, parameter in model.named_parameters():
            if parameter.ndim == 4 and normalization != "none":
                assert abs(parameter.std() - 0.02) < 0.002, name
        # signals are neither damped nor amplified
        inputs = torch.randn(8, 100) if isinstance(model, DCGANGenerator) else torch.randn(8, 3, 64, 64)
        assert 1e-3 < model(inputs)[0].std() < 3


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@torch.no_grad()
def test_images_see_each_other_through_batch_normalization_only(normalization):
    torch.manual_seed(0)
    generator = DCGANGenerator(16, latent_dim=6, channels=4, normalization=normalization).train()
    latents = torch.randn(4, 6)
    together, fewer = generator(latents).sample[:2], generator(latents[:2]).sample
    assert torch.allclose(together, fewer, atol=1e-5) == (normalization != "batch")


@torch.no_grad()
def test_projection_is_the_inner_product_of_miyato_and_koyama():
    torch.manual_seed(0)
    discriminator = DCGANDiscriminator(8, channels=4, num_classes=3, conditioning="projection").eval()
    sample, labels = torch.randn(2, 3, 8, 8), torch.tensor([2, 0])
    features = sample
    for block in discriminator.blocks:
        features = block(features)
    embedded = discriminator.class_embedding.weight[labels]
    expected = discriminator.conv_out(features)[:, 0, 0, 0] + torch.einsum("nc,nchw->n", embedded, features)
    torch.testing.assert_close(discriminator(sample, labels).logits, expected)


def test_spectral_norm_is_differentiated_twice():
    discriminator = DCGANDiscriminator(8, channels=4, normalization="layer", spectral_norm=True).train()
    sample = torch.randn(2, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(discriminator(sample).logits.sum(), sample, create_graph=True)
    gradient.square().sum().backward()
    assert discriminator.blocks[0][0].parametrizations.weight.original.grad.any()


@pytest.mark.parametrize(
    "model_class, arguments, message",
    [
        (DCGANGenerator, {"channels": 0}, "`channels` must be at least 1"),
        (DCGANGenerator, {"normalization": "group"}, "`normalization` must be one of"),
        (DCGANGenerator, {"upsample_type": "bilinear"}, "`upsample_type` must be one of"),
        (DCGANGenerator, {"conditioning": "projection", "num_classes": 3}, "`conditioning` must be one of"),
        (DCGANGenerator, {"latent_distribution": "cauchy"}, "`latent_distribution` must be one of"),
        (DCGANGenerator, {"conditioning": "concat"}, "`num_classes` must be given"),
        (DCGANGenerator, {"num_classes": 3}, "nothing needs it"),
        (DCGANGenerator, {"num_classes": 0, "conditioning": "concat"}, "`num_classes` must be at least 1"),
        (DCGANGenerator, {"num_categories": 1}, "must be 0 or at least 2"),
        (DCGANGenerator, {"latent_dim": 11, "num_categories": 10, "num_continuous_codes": 2}, "must have room"),
        (DCGANDiscriminator, {"in_channels": 0}, "`in_channels` must be at least 1"),
        (DCGANDiscriminator, {"conditioning": "sum", "num_classes": 3}, "`conditioning` must be one of"),
        (DCGANDiscriminator, {"auxiliary_classifier": True}, "`num_classes` must be given"),
        (DCGANDiscriminator, {"num_classes": 3}, "nothing needs it"),
        (DCGANDiscriminator, {"num_continuous_codes": -1}, "at least 0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(model_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        model_class(**{"sample_size": 8, **arguments})
