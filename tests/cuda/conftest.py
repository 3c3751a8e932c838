"""Tests that need a GPU are skipped without one.

With the environment variable CUDA_TESTS_ON_CPU=1 those that can run on a CPU do, which tries the tests themselves: no
time of a GPU is lost on their mistakes.
"""

import os
from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState


# Read by cuBLAS at its first call: sums are in the same order in each run.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(autouse=True)
def device() -> torch.device:
    """Where a test runs."""
    is_tried = os.environ.get("CUDA_TESTS_ON_CPU") == "1"
    if not torch.cuda.is_available() and not is_tried:
        pytest.skip("needs a GPU")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def cuda(device):
    """For tests that make no sense on a CPU."""
    if device.type == "cpu":
        pytest.skip("needs a GPU, and can't be tried without one")


@pytest.fixture(autouse=True)
def new_accelerator():
    """All accelerators of a process share the precision of the first one."""
    AcceleratorState._reset_state()


@pytest.fixture(autouse=True)
def nothing_is_compiled_on_a_cpu(device) -> Iterator[None]:
    stance = "force_eager" if device.type == "cpu" else "default"
    with torch.compiler.set_stance(stance):
        yield


@pytest.fixture
def deterministic() -> Iterator[None]:
    """In this test operations give the same bits each time, if there is a way to compute them so."""
    chosen = torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.backends.cudnn.benchmark = chosen[0]
    torch.use_deterministic_algorithms(chosen[1])
