import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.losses import pulling_away_loss
from diffusers_ext.models import EBGANDiscriminator, EBGANGenerator
from tests.converters.cases import assert_near, load_case
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class EBGANGeneratorConfig(ModelTesterConfig):
    model_class = EBGANGenerator
    output_shape = (3, 2, 8, 8)

    def get_init_dict(self):
        return {"sample_size": 8, "out_channels": 2, "latent_dim": 6, "block_out_channels": (6, 4)}

    def get_inputs(self):
        return {"latents": torch.randn((3, 6), generator=torch.Generator().manual_seed(0))}


class EBGANDiscriminatorConfig(ModelTesterConfig):
    model_class = EBGANDiscriminator
    output_shape = (3,)

    def get_init_dict(self):
        return {"sample_size": 8, "in_channels": 2, "channels": 4, "embedding_dim": 5}

    def get_inputs(self):
        return {"sample": torch.randn((3, 2, 8, 8), generator=torch.Generator().manual_seed(0))}


class TestEBGANGenerator(EBGANGeneratorConfig, ModelTesterMixin):
    pass


class TestEBGANDiscriminator(EBGANDiscriminatorConfig, ModelTesterMixin):
    pass


# Ours by the names of eriklindernoren/PyTorch-GAN.
OF_GENERATOR = {
    "l1.0": "linear_in",
    "conv_blocks.1": "convs.0",
    "conv_blocks.2": "norms.0",
    "conv_blocks.5": "convs.1",
    "conv_blocks.6": "norms.1",
    "conv_blocks.8": "conv_out",
}
OF_DISCRIMINATOR = {
    "down.0": "conv_in",
    "embedding": "linear_in",
    "fc.0": "norm_in",
    "fc.2": "linear_out",
    "fc.3": "norm_out",
    "up.1": "conv_out",
}


def with_weights(network: torch.nn.Module, weights: dict, prefix: str, names: dict) -> torch.nn.Module:
    renamed = {}
    for key, tensor in weights.items():
        module, _, kind = key.rpartition(".")
        if key.startswith(prefix):
            renamed[f"{names[module.removeprefix(prefix)]}.{kind}"] = tensor
    network.load_state_dict(renamed)
    return network.train()


@torch.no_grad()
def test_golden_case():
    """In training mode, with the cosines of the reference, and its hinge of the mean energy."""
    case = load_case("ebgan", "small")
    generator = EBGANGenerator(16, 1, latent_dim=6, block_out_channels=(6, 4), norm_eps=0.8)
    discriminator = EBGANDiscriminator(16, 1, channels=4, embedding_dim=5, norm_eps=0.8)
    with_weights(generator, case.weights, "G.", OF_GENERATOR)
    with_weights(discriminator, case.weights, "D.", OF_DISCRIMINATOR)
    fake = generator(case.inputs["z"]).sample
    assert_near(fake, case.outputs["fake"])
    on_fake, on_real = discriminator(fake), discriminator(case.inputs["x"])
    assert_near(on_fake.sample, case.outputs["reconstruction_fake"])
    assert_near(on_fake.embedding, case.outputs["embedding_fake"])
    assert_near(on_real.sample, case.outputs["reconstruction_real"])
    assert_near(on_real.energy.mean(), case.outputs["energy_real"])
    similarity = pulling_away_loss(on_fake.embedding, squared=False).mean()
    assert_near(similarity, case.outputs["pull_away"])
    assert_near(on_fake.energy.mean() + 0.1 * similarity, case.outputs["loss_g"])
    hinge = F.relu(case.config["margin"] - on_fake.energy.mean())
    assert_near(on_real.energy.mean() + hinge, case.outputs["loss_d"])


def test_the_pulling_away_term_is_the_mean_of_the_squares_of_the_cosines():
    embeddings = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, -1.0]])
    torch.testing.assert_close(pulling_away_loss(embeddings), torch.tensor([0.25, 0.25, 0.5]))
    with pytest.raises(ValueError, match="must be two or more"):
        pulling_away_loss(embeddings[:1])


def test_what_does_not_fit_is_refused():
    for build, message in (
        (lambda: EBGANGenerator(10), "`sample_size` must be a multiple of 4, but is 10"),
        (lambda: EBGANGenerator(8, block_out_channels=(4,)), "must be two positive numbers"),
        (lambda: EBGANDiscriminator(9), "`sample_size` must be a multiple of 2"),
        (lambda: EBGANGeneratorConfig().get_model()(torch.zeros(2, 6), torch.zeros(2)), "an EBGAN has no classes"),
    ):
        with pytest.raises(ValueError, match=message):
            build()
