import os

import pytest

from diffusers_ext.training.loop import accelerator
from diffusers_ext.training.loop.accelerator import default_cpu_threads


@pytest.fixture(autouse=True)
def unlaunched(monkeypatch):
    for name in ("OMP_NUM_THREADS", "ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("text", "threads"), [("1", 1), ("3", 3), ("4,2", 4), (" 2 ", 2)])
def test_the_users_number_counts(monkeypatch, text, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert default_cpu_threads() == threads


@pytest.mark.parametrize("text", ["", "many", "0", "-1", ","])
def test_what_is_no_number_is_ignored_as_openmp_does(monkeypatch, text):
    default = default_cpu_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert default_cpu_threads() == default >= 1


@pytest.mark.parametrize("launched_by", ["ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"])
def test_the_launchers_1_is_ignored_unless_the_user_had_set_it(monkeypatch, launched_by):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(accelerator.psutil, "cpu_count", lambda logical: 8)
    monkeypatch.setenv(launched_by, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(accelerator, "_launcher_environment", dict)
    assert default_cpu_threads() == 8
    monkeypatch.setattr(accelerator, "_launcher_environment", lambda: {"OMP_NUM_THREADS": "1"})
    assert default_cpu_threads() == 1


def test_the_launchers_own_variables_can_be_read():
    assert "PATH" in accelerator._launcher_environment()
