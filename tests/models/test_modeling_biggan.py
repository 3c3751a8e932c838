import pytest
import torch

from diffusers_ext.models import BigGANDiscriminator, BigGANGenerator
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


def parameters_of(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class BigGANGeneratorConfig(ModelTesterConfig):
    model_class = BigGANGenerator
    output_shape = (3, 2, 16, 16)

    def get_init_dict(self):
        arguments = {"sample_size": 16, "out_channels": 2, "latent_dim": 6, "num_classes": 3, "class_embed_dim": 4}
        return arguments | {"deep": False, "block_out_channels": (8, 8, 4), "attention_size": 8, "num_truncations": 3}

    def get_inputs(self):
        latents = torch.randn((3, 6), generator=torch.Generator().manual_seed(0))
        return {"latents": latents, "class_labels": torch.tensor([2, 0, 1]), "truncation": 0.7}


class SmallBigGANGeneratorConfig(BigGANGeneratorConfig):
    output_shape = (3, 2, 8, 8)

    def get_init_dict(self):
        return super().get_init_dict() | {"sample_size": 8, "block_out_channels": (8, 4), "attention_size": None}


class BigGANDeepGeneratorConfig(BigGANGeneratorConfig):
    output_shape = (3, 2, 8, 8)

    def get_init_dict(self):
        arguments = {"sample_size": 8, "deep": True, "block_out_channels": (8, 8, 4), "attention_size": None}
        return super().get_init_dict() | arguments


class BigGANDiscriminatorConfig(ModelTesterConfig):
    model_class = BigGANDiscriminator
    output_shape = (3,)

    def get_init_dict(self):
        arguments = {"sample_size": 16, "in_channels": 2, "num_classes": 3, "deep": False}
        return arguments | {"block_out_channels": (8, 8, 8), "attention_size": 8}

    def get_inputs(self):
        sample = torch.randn((3, 2, 16, 16), generator=torch.Generator().manual_seed(0))
        return {"sample": sample, "class_labels": torch.tensor([2, 0, 1])}


class BigGANDeepDiscriminatorConfig(BigGANDiscriminatorConfig):
    def get_init_dict(self):
        return super().get_init_dict() | {"deep": True, "block_out_channels": (4, 8, 8), "attention_size": 8}


class TestBigGANGenerator(SmallBigGANGeneratorConfig, ModelTesterMixin):
    pass


@pytest.mark.slow  # like the other one; converters reproduce its outputs
class TestBigGANDeepGenerator(BigGANDeepGeneratorConfig, ModelTesterMixin):
    pass


class TestBigGANDiscriminator(BigGANDiscriminatorConfig, ModelTesterMixin):
    pass


@pytest.mark.slow  # like the other one
class TestBigGANDeepDiscriminator(BigGANDeepDiscriminatorConfig, ModelTesterMixin):
    pass


def test_the_networks_of_the_paper_have_its_numbers_of_parameters():
    """Those that google/compare_gan asserts."""
    options = {"sample_size": 128, "num_classes": 1000, "deep": False, "spectral_norm": False}
    with torch.device("meta"):
        assert parameters_of(BigGANGenerator(latent_dim=120, **options)) == 70_433_988
        assert parameters_of(BigGANDiscriminator(**options)) == 87_982_370


@torch.no_grad()
def test_each_block_of_a_biggan_sees_its_own_part_of_the_latent():
    model, inputs = BigGANGeneratorConfig().get_model(), BigGANGeneratorConfig().get_inputs()
    changed = inputs["latents"].clone()
    changed[:, 4:] += 1  # the part of the last block
    features = []
    hook = model.blocks[0].register_forward_hook(lambda module, args, output: features.append(output))
    images = [model(**{**inputs, "latents": latents}).sample for latents in (inputs["latents"], changed)]
    hook.remove()
    assert torch.equal(*features) and not torch.allclose(*images)


@torch.no_grad()
def test_standing_statistics_are_those_of_many_latents():
    model = BigGANGeneratorConfig().get_model()
    model.train()
    vectors = {name: value.clone() for name, value in model.state_dict().items() if "_u" in name}
    model.measure_statistics(num_batches=4, batch_size=48)
    assert model.training and all(torch.equal(model.state_dict()[name], vectors[name]) for name in vectors)
    latents = torch.randn(600, 6, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(600) % 3
    by_batch = model(latents, labels).sample
    stored = model.eval()(latents, labels).sample
    assert (by_batch - stored).abs().mean() < 0.2 * by_batch.std()
    small = model(latents.clamp(-0.1, 0.1), labels, truncation=0.1).sample
    assert not torch.allclose(small, model(latents.clamp(-0.1, 0.1), labels).sample)
    # the rows of the statistics: of noise that is 0, of noise within 1, and of any noise
    uniform = torch.rand(1000, 6, generator=torch.Generator().manual_seed(2))
    largest = [model.truncated_latents(uniform, row).abs().max().item() for row in range(3)]
    assert largest[0] == 0 and 0.9 < largest[1] <= 1 and largest[2] > 3


def test_arguments_and_inputs_that_do_not_fit_are_refused():
    small = {"sample_size": 8, "latent_dim": 4, "attention_size": None}
    for model_class, options, message in (
        (BigGANGenerator, {"sample_size": 48}, "`block_out_channels` must be given for `sample_size` 48"),
        (BigGANGenerator, {**small, "block_out_channels": (8, 8)}, "the blocks go from 4x4 to 4x4"),
        (BigGANGenerator, {**small, "block_out_channels": (8, 8, 16)}, "never rise, but a block goes from 8 to 16"),
        (BigGANGenerator, {**small, "block_out_channels": (8, 8, 4), "attention_size": 16}, "None or one of 4, 8"),
        (BigGANGenerator, {**small, "block_out_channels": (8, 4), "block_doubles": (True, True)}, "each of the 1 bl"),
        (BigGANGenerator, {**small, "latent_dim": 5, "deep": False, "block_out_channels": (8, 4)}, "a multiple of 2"),
        (BigGANGenerator, {**small, "num_truncations": 1}, "`num_truncations` must be at least 2"),
        (BigGANDiscriminator, {"sample_size": 8, "block_out_channels": (4, 8, 4)}, "`attention_size` must be None"),
    ):
        with pytest.raises(ValueError, match=message):
            model_class(**options)
    model, inputs = BigGANGeneratorConfig().get_model(), BigGANGeneratorConfig().get_inputs()
    with pytest.raises(ValueError, match="`truncation` must be from 0 to inf, but is -1"):
        model(**{**inputs, "truncation": -1})
    with pytest.raises(ValueError, match="`class_labels` must be given"):
        model(inputs["latents"])
    with pytest.raises(ValueError, match="use two or more images"):
        model.train()(inputs["latents"][:1], torch.tensor([0]))
