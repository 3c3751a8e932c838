import math

import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.losses import discriminator_loss, r1_penalty
from diffusers_ext.models.modeling_latent_discriminator import LatentDiscriminator
from tests.converters.cases import assert_near, load_case
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class LatentDiscriminatorConfig(ModelTesterConfig):
    model_class = LatentDiscriminator
    output_shape = (3,)

    def get_init_dict(self):
        return {"latent_dim": 4, "hidden_dim": 16, "num_hidden_layers": 3}

    def get_inputs(self):
        return {"latents": torch.randn((3, 4), generator=torch.Generator().manual_seed(0))}


class TestLatentDiscriminator(LatentDiscriminatorConfig, ModelTesterMixin):
    pass


@pytest.mark.parametrize("name", ["latent_discriminator", "latent_discriminator_3"])
def test_the_critic_of_styles_of_e4e(name):
    case = load_case("latent_discriminator", name)
    width, number = case.config["style_dim"], case.config["n_mlp"] - 1
    model = LatentDiscriminator(width, width, number)
    layers = {f"mlp.{2 * position}": f"layers.{position}" for position in range(number)}
    layers[f"mlp.{2 * number}"] = "to_logits"
    renamed = {key.rpartition("."): value for key, value in case.weights.items()}
    model.load_state_dict({f"{layers[module]}.{kind}": value for (module, _, kind), value in renamed.items()})
    real = case.inputs["real_w"].requires_grad_(True)
    on_real, on_fake = model(real).logits, model(case.inputs["fake_w"]).logits
    assert_near(on_real, case.outputs["real"])
    assert_near(on_fake, case.outputs["fake"])
    assert_near(discriminator_loss("nonsaturating", on_real, on_fake).mean(), case.outputs["loss_d"])
    assert_near(2 * r1_penalty(on_real, real).mean(), case.outputs["r1"])


def test_it_learns_the_total_correlation():
    """For two normal variables with correlation r it is -log(1 - r^2) / 2."""
    torch.manual_seed(0)
    correlation = 0.9
    model = LatentDiscriminator(latent_dim=2, hidden_dim=64, num_hidden_layers=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def draw(n):
        first, second = torch.randn(2, n)
        return torch.stack([first, correlation * first + (1 - correlation**2) ** 0.5 * second], dim=1)

    for _ in range(300):
        joint, other = draw(512), draw(512)
        product = torch.stack([other[:, 0], other[:, 1].roll(1)], dim=1)
        loss = F.softplus(-model(joint).logits).mean() + F.softplus(model(product).logits).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        estimate = model(draw(8192)).logits.mean()
    expected = -0.5 * math.log(1 - correlation**2)
    assert estimate.item() == pytest.approx(expected, abs=0.15)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"`latents` must be of the shape \(N, 10\), but is of \(2, 9\)"):
        LatentDiscriminator()(torch.zeros(2, 9))
    with pytest.raises(ValueError, match="must be positive, but are 10, 0 and 5"):
        LatentDiscriminator(hidden_dim=0)
