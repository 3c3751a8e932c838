"""A disk that is full, or becomes read-only, at any moment of a run."""

import errno
import multiprocessing
import os
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusers_ext.training.loop import checkpoints
from diffusers_ext.training.loop.file_hashes import check_files
from diffusers_ext.training.loop.metrics_log import MetricsLog
from diffusers_ext.training.loop.write_errors import CantWriteError, writing
from tests.training.runs import tensors
from tests.training.small_run import small_run


# What writes, renames or flushes.
OPERATIONS = [
    (os, "mkdir"),
    (os, "rename"),
    (os, "replace"),
    (os, "fsync"),
    (Path, "write_bytes"),
    (Path, "write_text"),
    (torch, "save"),
    (checkpoints, "save_file"),
]


class Disk:
    """A disk that takes a number of operations, and then refuses all."""

    def __init__(self, monkeypatch, capacity, number):
        self.used = 0
        for module, name in OPERATIONS:
            monkeypatch.setattr(module, name, self.limited(getattr(module, name), capacity, number))
        write = self.limited(lambda file, line: file.write(line), capacity, number)
        monkeypatch.setattr(MetricsLog, "__enter__", entering(write))

    def limited(self, operation, capacity, number):
        def act(*arguments, **keywords):
            self.used += 1
            if self.used > capacity:
                raise OSError(number, os.strerror(number))
            return operation(*arguments, **keywords)

        return act


class Log:
    """A file whose lines are written by `write`."""

    def __init__(self, file, write):
        self.file, self.close, self.write = file, file.close, lambda line: write(file, line)


def entering(write, enter=MetricsLog.__enter__):
    def __enter__(log):
        enter(log)
        log._file = Log(log._file, write)
        return log

    return __enter__


def start(folder, resume=None):
    return small_run(folder, resume_from_checkpoint=resume, logging_steps=1)


def train(folder, resume=None):
    start(folder, resume).train()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The folder of a run on a disk with space, and how many operations it took."""
    folder = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Disk(monkeypatch, 10**9, errno.ENOSPC)
        train(folder)
    return folder, disk.used


FULL = [pytest.param(errno.ENOSPC, i, marks=[] if i in (1, 5, 9) else pytest.mark.slow) for i in range(10)]


@pytest.mark.parametrize(("number", "moment"), [*FULL, (errno.EROFS, 4)])
def test_what_was_whole_stays_whole_and_the_run_can_go_on(expected, tmp_path, number, moment):
    folder, operations = expected
    with pytest.MonkeyPatch.context() as monkeypatch:
        trainer = start(tmp_path)
        Disk(monkeypatch, operations * moment // 10, number)
        with pytest.raises(CantWriteError) as error:
            trainer.train()
    sentence = str(error.value)
    assert f"can't be written ({os.strerror(number)}); everything written before is whole" in sentence
    assert "--resume_from_checkpoint latest" in sentence and "\n" not in sentence
    for checkpoint in trainer.checkpoints.saved():
        check_files(checkpoint, checkpoints._read_state(checkpoint)["files"])
    if (tmp_path / "player.safetensors").exists():
        load_file(tmp_path / "player.safetensors")

    train(tmp_path, "latest")
    found, wanted = tensors(tmp_path, 6), tensors(folder, 6)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert (tmp_path / "player.safetensors").read_bytes() == (folder / "player.safetensors").read_bytes()
    assert not list(tmp_path.glob(".diffusers_ext-tmp-*"))


@pytest.mark.parametrize("name", ["samples.png", "metrics.json", "training_config.yaml", "README.md"])
def test_no_space_for_one_of_the_outputs(expected, tmp_path, monkeypatch, name):
    write = Path.write_bytes

    def refuse(path, content):
        if f"{name}-" in path.name:  # the file's name until it is complete
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", refuse)
        with pytest.raises(CantWriteError, match=f"The samples, metrics and card in {tmp_path} can't be written"):
            train(tmp_path)
    assert not (tmp_path / name).exists() and not list(tmp_path.glob(".diffusers_ext-tmp-*"))
    train(tmp_path, "latest")
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in expected[0].iterdir()}


def write_too_much(folder, answers):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    tensors = {"a": torch.zeros(100_000)}
    writers = [
        lambda: save_file(tensors, folder / "a.safetensors"),
        lambda: torch.save(tensors, folder / "a.bin"),
        lambda: (folder / "a.txt").write_text("a" * 100_000),
    ]
    for write in writers:
        try:
            with writing("A file", "go on"):
                write()
            answers.put("no error")
        except CantWriteError as error:
            answers.put(str(error))


def test_the_errors_of_real_writers_are_recognised(tmp_path):
    """The size of files is limited, so that the system refuses to write as it does on a full disk."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    process = context.Process(target=write_too_much, args=(tmp_path, answers))
    process.start()
    for _ in range(3):
        sentence = answers.get(timeout=1800)
        assert sentence.startswith("A file can't be written (") and sentence.endswith("and go on.")
    process.join()


def test_mistakes_in_the_program_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shapes differ"), writing("A file", "go on"):
        raise RuntimeError("shapes differ")
