"""Weight decay that spares vectors: equal to AdamW over two groups, and continued bit for bit."""

import copy

import pytest
import torch
from accelerate import Accelerator

from diffusers_ext.training.loop.configuration import TrainingConfig
from diffusers_ext.training.loop.flat_adamw import FlatAdamW
from diffusers_ext.training.loop.optimizers import build_optimizer


CONFIG = TrainingConfig(dataset_name="digits", learning_rate=1e-2, adam_weight_decay=5.0)


def network(of_two_dtypes: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 1))
    return net.append(torch.nn.Linear(1, 1).double()) if of_two_dtypes else net


def build(net: torch.nn.Module, **options) -> torch.optim.Optimizer:
    return build_optimizer(net, CONFIG, Accelerator(cpu=True), **options)


def train(net, optimizer, seeds) -> None:
    for seed in seeds:
        torch.manual_seed(seed)
        net[:3](torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("of_two_dtypes", [False, True])
def test_it_is_adamw_over_two_groups(of_two_dtypes):
    net, other = network(of_two_dtypes), network(of_two_dtypes)
    optimizer = build(net, decays_vectors=False)
    assert isinstance(optimizer, FlatAdamW) != of_two_dtypes
    groups = [[p for p in other.parameters() if (p.ndim > 1) == is_matrix] for is_matrix in (True, False)]
    options = {"lr": CONFIG.learning_rate, "betas": (CONFIG.adam_beta1, CONFIG.adam_beta2), "eps": CONFIG.adam_epsilon}
    expected = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": CONFIG.adam_weight_decay}, {"params": groups[1], "weight_decay": 0.0}],
        **options,
    )
    train(net, optimizer, range(10))
    train(other, expected, range(10))
    for found, wanted in zip(net[:3].parameters(), other[:3].parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    decayed = network(of_two_dtypes)
    train(decayed, build(decayed), range(10))
    assert (decayed[1].weight - net[1].weight).abs().min() > 0.1  # a gain


def test_training_goes_on_bit_for_bit():
    net, new = network(), network()
    optimizer, continued = build(net, decays_vectors=False), build(new, decays_vectors=False)
    train(net, optimizer, range(5))
    new.load_state_dict(copy.deepcopy(net.state_dict()))
    continued.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(net, optimizer, range(5, 10))
    train(new, continued, range(5, 10))
    assert all(torch.equal(tensor, new.state_dict()[name]) for name, tensor in net.state_dict().items())
