import pytest
import torch

from diffusers_ext.models.modeling_mlp_gan import NORMALIZATIONS, MLPDiscriminator, MLPGenerator
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelDtypeTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTrainingTesterMixin,
)


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
    """AC-GAN's and InfoGAN's heads, which no gradient of the score reaches."""

    def get_init_dict(self):
        changes = {"conditioning": "embedding", "auxiliary_classifier": True, "num_categories": 3}
        return super().get_init_dict() | changes


class TestGeneratorOutput(GeneratorConfig, ModelOutputTesterMixin):
    pass


class TestGeneratorSaveLoad(GeneratorConfig, ModelSaveLoadTesterMixin):
    pass


class TestGeneratorDtype(GeneratorConfig, ModelDtypeTesterMixin):
    pass


class TestGeneratorTraining(GeneratorConfig, ModelTrainingTesterMixin):
    pass


class TestGeneratorCompile(GeneratorConfig, ModelCompileTesterMixin):
    pass


class TestDiscriminatorOutput(DiscriminatorConfig, ModelOutputTesterMixin):
    pass


class TestDiscriminatorSaveLoad(DiscriminatorConfig, ModelSaveLoadTesterMixin):
    loaded_tolerance = 1e-6  # spectral norm is a dot product


class TestDiscriminatorDtype(DiscriminatorConfig, ModelDtypeTesterMixin):
    pass


class TestDiscriminatorTraining(DiscriminatorConfig, ModelTrainingTesterMixin):
    pass


class TestDiscriminatorCompile(DiscriminatorConfig, ModelCompileTesterMixin):
    pass


class TestHeadedDiscriminatorOutput(HeadedDiscriminatorConfig, ModelOutputTesterMixin):
    pass


class TestHeadedDiscriminatorSaveLoad(HeadedDiscriminatorConfig, ModelSaveLoadTesterMixin):
    loaded_tolerance = 1e-6  # spectral norm is a dot product


@pytest.mark.parametrize("size", [1, 28, (1, 2), [3, 5]])
@pytest.mark.parametrize("hidden_dims", [(), (4,), (4, 5, 6)])
@torch.no_grad()
def test_every_size_and_depth(size, hidden_dims):
    height, width = (size, size) if isinstance(size, int) else size
    sample = MLPGenerator(size, latent_dim=3, hidden_dims=hidden_dims)(torch.randn(2, 3)).sample
    assert sample.shape == (2, 1, height, width) and sample.abs().max() <= 1
    assert MLPDiscriminator(size, hidden_dims=hidden_dims)(sample).logits.shape == (2,)


@pytest.mark.parametrize("conditioning", ["concat", "embedding", "projection"])
@torch.no_grad()
def test_the_class_counts(conditioning):
    torch.manual_seed(0)
    discriminator = MLPDiscriminator(4, num_classes=3, conditioning=conditioning)
    logits = discriminator(torch.randn(1, 1, 4, 4).expand(3, -1, -1, -1), torch.tensor([0, 1, 2])).logits
    assert logits.unique().numel() == 3
    if conditioning != "projection":
        generator = MLPGenerator(4, num_classes=3, conditioning=conditioning)
        images = generator(torch.randn(1, 64).expand(3, -1), torch.tensor([0, 1, 2])).sample
        assert not torch.allclose(images[0], images[1]) and not torch.allclose(images[1], images[2])


@torch.no_grad()
def test_spectral_norm_bounds_the_weights_of_the_score_only():
    torch.manual_seed(0)
    discriminator = MLPDiscriminator(
        4, spectral_norm=True, num_classes=3, conditioning="projection", auxiliary_classifier=True
    ).train()
    for _ in range(100):  # each pass in training makes one step of the power iteration
        discriminator(torch.randn(2, 1, 4, 4), torch.tensor([0, 1]))
    discriminator.eval()
    scoring = [layer[0].weight for layer in discriminator.layers]
    scoring += [discriminator.proj_out.weight, discriminator.class_embedding.weight]
    for weight in scoring:
        assert abs(torch.linalg.matrix_norm(weight, ord=2) - 1) < 1e-3
    assert not hasattr(discriminator.class_head, "parametrizations")


def test_heads_learn_and_are_of_their_sizes():
    config = HeadedDiscriminatorConfig()
    discriminator = config.get_model().train()
    output = discriminator(**config.get_inputs())
    assert output.class_logits.shape == (3, 5) and output.code.shape == (3, 3)
    (output.class_logits.square().sum() + output.code.square().sum()).backward()
    for name, parameter in discriminator.named_parameters():
        if "head" in name or "layers" in name:
            assert parameter.grad is not None and parameter.grad.any(), name
    plain = MLPDiscriminator(4)(torch.randn(2, 1, 4, 4))
    assert plain.class_logits is None and plain.code is None


@torch.no_grad()
def test_dropout_is_for_training():
    torch.manual_seed(0)
    discriminator, sample = MLPDiscriminator(4, dropout=0.5), torch.randn(2, 1, 4, 4)
    assert not torch.equal(discriminator.train()(sample).logits, discriminator(sample).logits)
    assert torch.equal(discriminator.eval()(sample).logits, discriminator(sample).logits)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_batch_of_one_is_refused_under_batch_normalization_only(normalization):
    generator = MLPGenerator(4, latent_dim=6, normalization=normalization)
    discriminator = MLPDiscriminator(4, normalization=normalization)
    for model, inputs in ((generator, torch.randn(1, 6)), (discriminator, torch.randn(1, 1, 4, 4))):
        model.eval()(inputs)
        model.train()
        if normalization == "batch":
            with pytest.raises(ValueError, match="batch of one"):
                model(inputs)
        else:
            model(inputs)


@pytest.mark.parametrize(
    "labels, message",
    [
        (None, "must be given"),
        (torch.tensor([0, 5]), "from 0 to 4, but hold 5"),
        (torch.tensor([0]), r"of the shape \(2,\)"),
        (torch.tensor([0.0, 1.0]), "must be integers"),
    ],
)
def test_bad_labels_are_refused(labels, message):
    generator = MLPGenerator(4, latent_dim=6, num_classes=5, conditioning="concat")
    discriminator = MLPDiscriminator(4, num_classes=5, conditioning="projection")
    for model, inputs in ((generator, torch.randn(2, 6)), (discriminator, torch.randn(2, 1, 4, 4))):
        with pytest.raises(ValueError, match=message):
            model(inputs, labels)


def test_inputs_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`latents` must be \(N, 7\)"):
        MLPGenerator(4, latent_dim=7)(torch.randn(2, 6))
    with pytest.raises(ValueError, match=r"`sample` must be \(N, 1, 4, 4\), but is \(2, 3, 4, 4\)"):
        MLPDiscriminator(4)(torch.randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match="takes none"):
        MLPDiscriminator(4)(torch.randn(2, 1, 4, 4), torch.tensor([0, 1]))


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
