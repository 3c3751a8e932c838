import pytest
import torch

from diffusers_ext.models.modeling_mlp_gan import MLPDiscriminator, MLPGenerator
from tests.models.gans import GANTesterMixin
from tests.models.testing import ModelOutputTesterMixin, ModelSaveLoadTesterMixin, ModelTesterConfig, ModelTesterMixin


class GeneratorConfig(ModelTesterConfig):
    model_class = MLPGenerator
    output_shape = (3, 2, 5, 7)

    def get_init_dict(self):
        return {
            "sample_size": (5, 7),
            "out_channels": 2,
            "latent_dim": 9,
            "hidden_dims": (16, 12, 20),
            "normalization": "batch",
            "num_classes": 5,
            "conditioning": "embedding",
            "class_embed_dim": 6,
            "num_categories": 3,
            "num_continuous_codes": 1,
        }

    def get_inputs(self):
        latents = torch.randn((3, 9), generator=torch.Generator().manual_seed(0))
        return {"latents": latents, "class_labels": torch.tensor([4, 0, 4])}


class DiscriminatorConfig(ModelTesterConfig):
    model_class = MLPDiscriminator
    output_shape = (3,)

    def get_init_dict(self):
        return {
            "sample_size": (5, 7),
            "in_channels": 2,
            "hidden_dims": (16, 12),
            "normalization": "layer",
            "spectral_norm": True,
            "num_classes": 5,
            "conditioning": "projection",
        }

    def get_inputs(self):
        sample = torch.randn((3, 2, 5, 7), generator=torch.Generator().manual_seed(0))
        return {"sample": sample, "class_labels": torch.tensor([4, 0, 4])}


class HeadedDiscriminatorConfig(DiscriminatorConfig):
    """With the heads of AC-GAN and InfoGAN, which get no gradient from the score."""

    def get_init_dict(self):
        changes = {"conditioning": "embedding", "auxiliary_classifier": True, "num_categories": 3}
        return super().get_init_dict() | changes


class TestGenerator(GeneratorConfig, ModelTesterMixin):
    pass


class TestDiscriminator(DiscriminatorConfig, ModelTesterMixin):
    pass


class TestHeadedDiscriminator(HeadedDiscriminatorConfig, ModelOutputTesterMixin, ModelSaveLoadTesterMixin):
    pass


class TestPair(GANTesterMixin):
    image_shape = (1, 4, 4)
    body = "layers"

    def make_generator(self, **options):
        return MLPGenerator(4, latent_dim=6, **options)

    def make_discriminator(self, **options):
        return MLPDiscriminator(4, **options)

    def scoring_weights(self, discriminator):
        return [*(layer[0].weight for layer in discriminator.layers), discriminator.proj_out.weight]


@pytest.mark.parametrize("size", [1, 28, (1, 2), [3, 5]])
@pytest.mark.parametrize("hidden_dims", [(), (4,), (4, 5, 6)])
@torch.no_grad()
def test_every_size_and_depth(size, hidden_dims):
    height, width = (size, size) if isinstance(size, int) else size
    sample = MLPGenerator(size, latent_dim=3, hidden_dims=hidden_dims)(torch.randn(2, 3)).sample
    assert sample.shape == (2, 1, height, width) and sample.abs().max() <= 1
    assert MLPDiscriminator(size, hidden_dims=hidden_dims)(sample).logits.shape == (2,)


@torch.no_grad()
def test_dropout_is_for_training():
    torch.manual_seed(0)
    discriminator, sample = MLPDiscriminator(4, dropout=0.5), torch.randn(2, 1, 4, 4)
    assert not torch.equal(discriminator.train()(sample).logits, discriminator(sample).logits)
    assert torch.equal(discriminator.eval()(sample).logits, discriminator(sample).logits)


@pytest.mark.parametrize(
    "model_class, arguments, message",
    [
        (MLPGenerator, {"sample_size": (4, 0)}, "`sample_size` must be at least 1"),
        (MLPGenerator, {"latent_dim": 0}, "`latent_dim` must be at least 1"),
        (MLPGenerator, {"hidden_dims": (4, 0)}, "`hidden_dims` must be at least 1"),
        (MLPGenerator, {"normalization": "instance"}, "`normalization` must be one of"),
        (MLPGenerator, {"conditioning": "projection", "num_classes": 3}, "`conditioning` must be one of"),
        (MLPGenerator, {"latent_distribution": "cauchy"}, "`latent_distribution` must be one of"),
        (MLPGenerator, {"num_classes": 3}, "nothing needs it"),
        (MLPGenerator, {"latent_dim": 9, "num_categories": 10}, "must have room"),
        (MLPDiscriminator, {"hidden_dims": (0,)}, "`hidden_dims` must be at least 1"),
        (MLPDiscriminator, {"conditioning": "concat"}, "`num_classes` must be given"),
        (MLPDiscriminator, {"auxiliary_classifier": True}, "`num_classes` must be given"),
        (MLPDiscriminator, {"num_categories": 1}, "must be 0 or at least 2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(model_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        model_class(**arguments)
