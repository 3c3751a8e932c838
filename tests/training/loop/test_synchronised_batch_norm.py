"""Batch norm of several processes is that of one process with the whole batch."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn

from diffusers_ext.training.loop.synchronised_batch_norm import synchronise_batch_norm


PROCESSES = 2


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.LeakyReLU(), nn.BatchNorm2d(3, affine=False, momentum=None)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 2), nn.BatchNorm1d(2)).double()


def images() -> torch.Tensor:
    return torch.randn(6, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 + 2


def losses(outputs: torch.Tensor) -> torch.Tensor:
    return (outputs * torch.tensor([1.0, -2.0], dtype=torch.float64)).exp().sum(dim=1)


def passes(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The gradients after two passes, in which the running statistics move twice."""
    for _ in range(2):
        network.zero_grad()
        losses(network(images)).mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def compare(rank: int, processes: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=processes)
    whole, part = network(), network()
    synchronise_batch_norm(part)
    expected, found = passes(whole, images()), passes(part, images().chunk(processes)[rank])
    dist.all_reduce(found)
    # The statistics are computed in float32.
    torch.testing.assert_close(found / processes, expected, rtol=1e-4, atol=1e-5)
    for name, buffer in whole.named_buffers():
        torch.testing.assert_close(part.get_buffer(name), buffer, rtol=1e-5, atol=1e-6)
    assert part.state_dict().keys() == whole.state_dict().keys()
    torch.testing.assert_close(part.eval()(images()), whole.eval()(images()), rtol=1e-4, atol=1e-5)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    torch.multiprocessing.spawn(compare, (PROCESSES, str(tmp_path)), nprocs=PROCESSES)


def test_layers_stay_what_they_are():
    synchronised = network()
    synchronise_batch_norm(synchronised)
    synchronise_batch_norm(synchronised)
    assert isinstance(synchronised[1], nn.BatchNorm2d) and isinstance(synchronised[6], nn.BatchNorm1d)
    assert repr(synchronised) == repr(network())
    with pytest.raises(ValueError, match="expected 4D input"):
        synchronised[1](torch.zeros(2, 3))
    copied = copy.deepcopy(synchronised).eval()
    assert torch.equal(copied(images()), network().eval()(images()))
