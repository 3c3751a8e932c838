import copy

import pytest
import torch
from accelerate import Accelerator

from diffusers_ext.training.loop.configuration import TrainingConfig
from diffusers_ext.training.loop.flat_adamw import FlatAdamW
from diffusers_ext.training.loop.optimizers import build_optimizer


OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1, "fused": True}


def network(memory_format=torch.contiguous_format):
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 5, 3), torch.nn.SiLU(), torch.nn.Conv2d(5, 7, 1), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(7 * 9, 1)).to(memory_format=memory_format)


def flat(net):
    return FlatAdamW(net.parameters(), **OPTIONS)


def backward(net, seed):
    torch.manual_seed(seed)
    net(torch.randn(4, 3, 5, 5)).square().mean().backward()


def train(net, optimizer, seeds, max_norm=0.05):
    """Some clipped updates; the norms before clipping."""
    weights = [optimizer.flat] if isinstance(optimizer, FlatAdamW) else list(net.parameters())
    norms = []
    for seed in seeds:
        backward(net, seed)
        norms.append(torch.nn.utils.clip_grad_norm_(weights, max_norm))
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(norms)


def assert_views(net, optimizer):
    for parameter in net.parameters():
        assert parameter.untyped_storage().data_ptr() == optimizer.flat.untyped_storage().data_ptr()
        assert parameter.grad.untyped_storage().data_ptr() == optimizer.flat.grad.untyped_storage().data_ptr()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_is_adamw_over_separate_tensors(memory_format):
    net, other = network(memory_format), network()
    optimizer = flat(net)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in net.state_dict().items())
    assert net[0].weight.is_contiguous(memory_format=memory_format)
    norms = train(net, optimizer, range(20))
    expected = train(other, torch.optim.AdamW(other.parameters(), **OPTIONS), range(20))
    assert expected.min() > 0.05  # clipping acts in each of these updates
    torch.testing.assert_close(norms, expected)
    torch.testing.assert_close(net.state_dict(), other.state_dict(), rtol=1e-4, atol=1e-5)
    assert_views(net, optimizer)


def test_gradients_accumulate_and_are_zeroed_in_place():
    net, other = network(), network()
    optimizer = flat(net)
    for seed in (1, 2):
        backward(net, seed)
        backward(other, seed)
    torch.testing.assert_close([p.grad for p in net.parameters()], [p.grad for p in other.parameters()])
    optimizer.zero_grad()
    assert not any(parameter.grad.any() for parameter in net.parameters())
    assert_views(net, optimizer)


def test_a_frozen_layer_stays_as_it_is():
    net = network()
    net[0].requires_grad_(False)
    weight = net[0].weight.detach().clone()
    optimizer = build_optimizer(net, TrainingConfig(dataset_name="digits"), Accelerator(cpu=True))
    assert isinstance(optimizer, FlatAdamW)
    train(net, optimizer, range(3))
    assert torch.equal(net[0].weight, weight) and net[0].weight.grad is None
    assert optimizer.state_dict()["param_groups"][0]["params"] == [0, 1, 2, 3]


def test_the_state_is_that_of_separate_tensors_whatever_the_memory_format():
    net, other = network(torch.channels_last), network()
    optimizer, separate = flat(net), torch.optim.AdamW(other.parameters(), **OPTIONS)
    train(net, optimizer, range(5))
    train(other, separate, range(5))
    found, expected = optimizer.state_dict(), separate.state_dict()
    assert found["param_groups"] == expected["param_groups"]
    torch.testing.assert_close(found["state"], expected["state"], rtol=1e-4, atol=1e-6)
    assert all(state["exp_avg"].is_contiguous() for state in found["state"].values())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("old_class", [FlatAdamW, torch.optim.AdamW])
def test_training_goes_on_from_a_state(tmp_path, memory_format, old_class):
    old = network()
    old_optimizer = old_class(old.parameters(), **OPTIONS)
    train(old, old_optimizer, range(5))
    torch.save(old_optimizer.state_dict(), tmp_path / "optimizer.bin")
    new = network(memory_format)
    optimizer = flat(new)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    optimizer.load_state_dict(torch.load(tmp_path / "optimizer.bin", weights_only=True))
    assert_views(new, optimizer)
    train(new, optimizer, range(5, 10))
    train(old, old_optimizer, range(5, 10))
    same_arithmetic = old_class is FlatAdamW and memory_format == torch.contiguous_format
    tolerance = {"rtol": 0, "atol": 0} if same_arithmetic else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(new.state_dict(), old.state_dict(), **tolerance)


def test_a_state_before_the_first_update_has_no_moments():
    optimizer = flat(network())
    state = optimizer.state_dict()
    assert state["state"] == {}
    optimizer.load_state_dict(state)


def test_the_state_of_another_network_is_refused():
    state = torch.optim.AdamW(torch.nn.Linear(2, 2).parameters()).state_dict()
    with pytest.raises(ValueError, match="has 2 parameters, but the optimizer has 6"):
        flat(network()).load_state_dict(state)


def test_replaced_gradients_are_an_error():
    net = network()
    optimizer = flat(net)
    net.zero_grad()
    backward(net, 0)
    with pytest.raises(RuntimeError, match="gradient was replaced"):
        optimizer.step()


def test_moved_weights_are_an_error():
    net = network()
    optimizer = flat(net)
    net.to("cpu:0")  # to PyTorch another device than "cpu"
    backward(net, 0)
    with pytest.raises(RuntimeError, match="moved out of the flat tensor"):
        optimizer.step()


def test_weights_of_two_dtypes_get_the_ordinary_optimizer():
    net = network()
    net[4].to(torch.bfloat16)
    optimizer = build_optimizer(net, TrainingConfig(dataset_name="digits"), Accelerator(cpu=True))
    assert type(optimizer) is torch.optim.AdamW


def test_the_state_of_a_single_number_is_kept():
    scale, other = (torch.nn.Parameter(torch.tensor(2.0)) for _ in range(2))
    matrix, other_matrix = (torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2))
    optimizer, continued = FlatAdamW([scale, matrix], **OPTIONS), FlatAdamW([other, other_matrix], **OPTIONS)

    def update(weights, optimizer):
        (weights[0] * weights[1]).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    update((scale, matrix), optimizer)
    with torch.no_grad():
        other.copy_(scale), other_matrix.copy_(matrix)
    continued.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(3):
        update((scale, matrix), optimizer)
        update((other, other_matrix), continued)
    assert torch.equal(scale, other) and torch.equal(matrix, other_matrix)
