import pytest
import torch

from diffusers_ext.models.modeling_stargan import StarGANDiscriminator, StarGANGenerator
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTrainingTesterMixin,
)


LABELS = torch.eye(3)[:2]


def images(*size: int) -> torch.Tensor:
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


class GeneratorConfig(ModelTesterConfig):
    model_class = StarGANGenerator
    output_shape = (2, 3, 8, 12)

    def get_init_dict(self):
        return {"sample_size": (8, 12), "num_domains": 3, "base_channels": 2, "num_blocks": 1}

    def get_inputs(self):
        return {"sample": images(8, 12), "domain_labels": LABELS}


class DiscriminatorConfig(ModelTesterConfig):
    model_class = StarGANDiscriminator
    output_shape = (2, 1, 2, 3)

    def get_init_dict(self):
        return {"sample_size": (8, 12), "num_domains": 3, "base_channels": 2, "num_layers": 2}

    def get_inputs(self):
        return {"sample": images(8, 12)}


class TestGenerator(
    GeneratorConfig,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTrainingTesterMixin,
    ModelCompileTesterMixin,
):
    pass


class TestDiscriminator(
    DiscriminatorConfig, ModelOutputTesterMixin, ModelSaveLoadTesterMixin, ModelCompileTesterMixin
):
    pass


@torch.no_grad()
def test_the_domain_counts_and_other_sizes_work():
    model = GeneratorConfig().get_model()
    sample = images(16, 8)
    first, second = model(sample, LABELS).sample, model(sample, LABELS.flip(0)).sample
    assert first.shape == sample.shape and first.abs().max() <= 1 and not torch.allclose(first, second)


def test_both_heads_of_the_discriminator_learn():
    model = DiscriminatorConfig().get_model().train()
    output = model(images(8, 12))
    assert output.domain_logits.shape == (2, 3)
    (output.logits.square().sum() + output.domain_logits.square().sum()).backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: StarGANGenerator(num_domains=0), "`num_domains` must be at least 1"),
        (lambda: StarGANGenerator(num_blocks=-1), "must be at least 0"),
        (lambda: StarGANDiscriminator(16, num_layers=5), "`sample_size` must be at least 32 for `num_layers=5`"),
        (lambda: GeneratorConfig().get_model()(images(8, 10), LABELS), "multiples of 4 and at least 8"),
        (lambda: GeneratorConfig().get_model()(images(8, 8), LABELS[:1]), r"of the shape \(2, 3\)"),
        (lambda: GeneratorConfig().get_model()(images(8, 8)[:, :1], LABELS), r"\(N, 3, H, W\)"),
        (lambda: DiscriminatorConfig().get_model()(images(8, 8)), r"`sample` must be \(N, 3, 8, 12\)"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
