import pytest
import torch

from diffusers_ext.training.loop.ema import EMA


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
    ema = EMA(network, decay=0.9)
    network.norm(torch.randn(8, 3))
    ema.update(1)
    assert ema.state_dict().keys() == network.state_dict().keys()
    assert torch.equal(ema.state_dict()["norm.running_mean"], network.norm.running_mean)
    assert ema.state_dict()["norm.num_batches_tracked"] == 1


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
