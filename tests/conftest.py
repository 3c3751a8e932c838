"""Several test workers (`pytest -n`) share the cores of the machine: each keeps to its own."""

import os

import huggingface_hub.constants
import pytest


def pytest_configure(config):
    # Waiting threads that spin take the core from those they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None and hasattr(os, "sched_setaffinity"):
        number, count = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        cores = sorted(os.sched_getaffinity(0))
        # PyTorch, and processes that a test starts, count the cores that they may use.
        os.sched_setaffinity(0, cores[number::count] or cores)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Decoded images of the tests, and of processes that they start, are not kept in the cache of the user."""
    assets = str(tmp_path_factory.mktemp("assets"))
    os.environ["HF_ASSETS_CACHE"] = assets
    huggingface_hub.constants.HF_ASSETS_CACHE = assets
