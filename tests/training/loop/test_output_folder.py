"""A user's files in the output folder, and two runs in one."""

from diffusers_ext.training.loop.command import run

import errno
import logging
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from filelock import FileLock, Timeout

from diffusers_ext.training.loop import run_lock
from diffusers_ext.training.loop.checkpoints import Checkpoints
from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.loop.metrics_log import MetricsLog
from diffusers_ext.training.loop.output_folder import prepare_output_folder
from diffusers_ext.training.loop.run_lock import only_run_in
from tests.training import runs
from tests.training.pair_recipe import PairConfig, PairRecipe
from tests.training.small_run import small_run


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_only_what_this_program_left_behind_is_cleaned(tmp_path):
    mine = [".old-letters", ".old-letters/1", ".old-checkpoint-7", ".tmp-letters", "checkpoint-old", "photo.png"]
    for name in mine:
        (tmp_path / name).mkdir()
    (tmp_path / ".diffusers_ext-tmp-checkpoint-3").mkdir()
    prepare_output_folder(tmp_path)
    assert names(tmp_path) == sorted(mine)


def test_what_an_earlier_version_moved_aside_comes_back(tmp_path):
    for name in (".old-checkpoint-3", ".old-checkpoint-6", "checkpoint-6"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training_state.json").write_text(name)
    prepare_output_folder(tmp_path)
    assert (tmp_path / "checkpoint-3" / "training_state.json").read_text() == ".old-checkpoint-3"
    assert (tmp_path / "checkpoint-6" / "training_state.json").read_text() == "checkpoint-6"


@pytest.mark.parametrize("name", ["checkpoint-5/model.bin", "model_index.json", "pytorch_lora_weights.safetensors"])
def test_a_model_of_another_program_is_not_replaced(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = names(tmp_path)
    with pytest.raises(ValueError, match=f"has {name.split('/')[0]}, which no run of this program wrote"):
        prepare_output_folder(tmp_path)
    assert names(tmp_path) == before


def test_the_model_of_an_earlier_run_is_replaced(tmp_path):
    (tmp_path / "model_index.json").write_text("{}")
    with MetricsLog(tmp_path / "logs", resume_step=0):
        pass
    prepare_output_folder(tmp_path)


@pytest.mark.parametrize("option", ["--output_dir", "--train_data_dir", "--cache_dir"])
def test_an_empty_path_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        parse_config(PairConfig, [option, ""])
    assert f"{option} must name a folder, not be empty" in capsys.readouterr().err


HOLD = """
import sys
from diffusers_ext.training.loop.run_lock import only_run_in
with only_run_in(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_by_another_process(folder):
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        try:
            yield
        finally:
            other.stdin.close()


@pytest.mark.slow
def test_a_second_run_in_a_folder_is_refused_in_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_lock, "PATIENCE", 0.0)
    command = ["--dataset_name", "digits", "--output_dir", str(tmp_path)]
    with held_by_another_process(tmp_path):
        before = names(tmp_path)
        with pytest.raises(SystemExit) as stop:
            run(PairRecipe, PairConfig, command)
        assert stop.value.code == 2 and names(tmp_path) == before
        # A script with a trainer is refused, too.
        with pytest.raises(ValueError, match=f"Another run writes into --output_dir {tmp_path}"):
            small_run(tmp_path)
        assert names(tmp_path) == before
    error = capsys.readouterr().err
    assert f"error: Another run writes into --output_dir {tmp_path}: wait until it has ended" in error
    with only_run_in(tmp_path):
        pass


@pytest.mark.slow
def test_of_two_runs_at_once_in_one_folder_one_is_refused_and_the_other_undisturbed(tmp_path):
    command = runs.arguments(tmp_path / "both", max_train_steps=300, checkpointing_steps=100)
    logs = [tmp_path / f"{number}.log" for number in range(2)]
    both = [runs.start(command, log) for log in logs]
    for process in both:
        process.join(1800)
    assert sorted(process.exitcode for process in both) == [0, 2]
    (refused,) = [log for process, log in zip(both, logs, strict=True) if process.exitcode == 2]
    assert refused.read_text().splitlines()[-1].startswith("error: Another run writes into --output_dir")
    alone = runs.arguments(tmp_path / "alone", max_train_steps=300, checkpointing_steps=100)
    assert runs.finish(alone) == 0
    found, expected = (runs.tensors(tmp_path / name, 300) for name in ("both", "alone"))
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def is_locked(folder) -> bool:
    """Whether another process would be refused."""
    lock = FileLock(folder / run_lock.LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def test_a_trainer_locks_its_folder_until_the_training_ends(tmp_path):
    training = small_run(tmp_path)
    assert is_locked(tmp_path)
    training.train()
    assert not is_locked(tmp_path)


@pytest.mark.parametrize("moment", ["set_aside", "save"])
def test_a_trainer_that_fails_gives_its_folder_back(tmp_path, monkeypatch, moment):
    def fail(*arguments, **keywords):
        raise ArithmeticError

    monkeypatch.setattr(Checkpoints, moment, fail)
    with pytest.raises(ArithmeticError) as kept:
        small_run(tmp_path).train()
    assert kept.tb is not None  # the traceback keeps the trainer alive
    assert not is_locked(tmp_path)


def test_a_folder_that_can_not_be_written_to_is_refused(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(
        ValueError, match=r"can't be written to \(Read-only file system\): make it writable, or choose"
    ):
        with only_run_in(tmp_path / "new"):
            raise AssertionError("the block must not run")


def test_a_broken_line_of_the_log_is_left_out_and_kept(tmp_path, caplog):
    file = tmp_path / "metrics.jsonl"
    text = '{"step": 1}\n{"step": 2, "lo\x00\n[1]\nnull\n{"loss": 1}\n{"step": "x"}\n\n{"step": 3}\n{"step": 9}\n{"st'
    file.write_text(text)
    with caplog.at_level(logging.WARNING), MetricsLog(tmp_path, resume_step=3) as log:
        log.write(4, loss=0.5)
    assert file.read_text() == '{"step": 1}\n{"step": 3}\n{"step": 4, "loss": 0.5}\n'
    assert (tmp_path / "metrics-damaged.jsonl").read_text() == text
    assert f"lines of {file} can't be read and are left out" in caplog.text
