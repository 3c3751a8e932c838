import pytest
import torch

from diffusers_ext.models import AutoencoderConv, DCGANGenerator, MLPGenerator, ResnetGenerator, UNetGenerator
from diffusers_ext.training.loop.ema import EMA, running_statistics


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)
        self.norm = torch.nn.BatchNorm1d(3)


def test_the_average_follows_its_equation():
    network = Network()
    ema = EMA(network, decay=0.5)
    expected = network.linear.weight.detach().clone()
    for step in range(1, 20):
        with torch.no_grad():
            network.linear.weight.normal_()
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network.linear.weight.detach()
    torch.testing.assert_close(ema.state_dict()["linear.weight"], expected)


def test_buffers_come_along():
    network = Network()
    network.register_buffer("codes", torch.zeros(2))
    ema = EMA(network, decay=0.9)
    network.norm(torch.randn(8, 3))
    network.codes.fill_(3.0)
    ema.update(1)
    assert ema.state_dict().keys() == network.state_dict().keys()
    assert torch.equal(ema.state_dict()["codes"], network.codes)
    assert ema.state_dict()["norm.num_batches_tracked"] == 1


def test_statistics_of_norms_are_averaged_as_the_weights_are():
    network = Network()
    ema = EMA(network, decay=0.5)
    mean, variance = network.norm.running_mean.clone(), network.norm.running_var.clone()
    for step in range(1, 20):
        network.norm(torch.randn(8, 3) * step + step)
        ema.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * network.norm.running_mean
        variance = decay * variance + (1 - decay) * network.norm.running_var
    with ema.applied():
        torch.testing.assert_close(network.norm.running_mean, mean)
        torch.testing.assert_close(network.norm.running_var, variance)
    assert not torch.allclose(network.norm.running_mean, mean)


@pytest.mark.parametrize(
    "network",
    [
        DCGANGenerator(sample_size=8, latent_dim=4, channels=8),
        MLPGenerator(sample_size=8, latent_dim=4, hidden_dims=(8,), normalization="batch"),
        UNetGenerator(sample_size=8, block_out_channels=(4, 4), normalization="batch"),
        ResnetGenerator(sample_size=8, base_channels=4, num_blocks=1, normalization="batch"),
        AutoencoderConv(sample_size=8, block_out_channels=(4, 8), normalization="batch"),
    ],
    ids=lambda network: type(network).__name__,
)
def test_the_statistics_of_our_networks_are_found(network):
    expected = {name for name, _ in network.named_buffers() if "running_" in name}
    assert expected and running_statistics(network).keys() == expected
    assert expected <= EMA(network, 0.9).averages.keys()


def test_half_precision_weights_are_averaged_in_float32():
    network = Network().to(torch.bfloat16)
    with torch.no_grad():
        network.linear.weight.fill_(1.0)
    ema = EMA(network, decay=0.999)
    with torch.no_grad():
        network.linear.weight.fill_(2.0)
    for step in range(10_000, 10_010):
        ema.update(step)
    # In bfloat16 a step of 0.001 from 1 would be lost.
    torch.testing.assert_close(ema.state_dict()["linear.weight"], torch.full((3, 3), 2 - 0.999**10))


def test_applying_gives_the_own_weights_back_exactly_even_after_an_error():
    network = Network()
    average = network.linear.weight.detach().clone()
    ema = EMA(network, decay=0.9)
    with torch.no_grad():
        network.linear.weight.add_(1)
    own = network.linear.weight.detach().clone()
    with pytest.raises(KeyError), ema.applied():
        assert torch.equal(network.linear.weight, average)
        raise KeyError
    assert torch.equal(network.linear.weight, own)


def test_another_networks_average_is_refused():
    with pytest.raises(ValueError, match="another network: .*norm.weight.* are missing"):
        EMA(Network(), 0.9).load_state_dict(EMA(torch.nn.Linear(3, 3), 0.9).state_dict())
