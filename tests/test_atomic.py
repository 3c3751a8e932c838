import errno
import itertools
import multiprocessing
import os
import shutil
import time

import pytest

from diffusers_ext.atomic import beside, move_into, remove_leftovers, write_text_atomically, written_beside


def test_a_folder_appears_whole(tmp_path):
    final = tmp_path / "runs" / "checkpoint-1"
    with written_beside(final) as folder:
        assert (
            folder == beside(final) and folder.parent == final.parent and folder.name.startswith(".diffusers_ext-tmp-")
        )
        (folder / "states").mkdir()
        (folder / "states" / "rank-0").write_text("state")
        assert not final.exists()
    assert (final / "states" / "rank-0").read_text() == "state"
    assert os.listdir(final.parent) == ["checkpoint-1"]


def test_a_failure_leaves_nothing(tmp_path):
    final = tmp_path / "checkpoint-1"
    with pytest.raises(KeyboardInterrupt), written_beside(final) as folder:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_folder_with_content_is_refused_and_stays(tmp_path):
    final = tmp_path / "mine"
    final.mkdir()
    with written_beside(final) as folder:  # an empty one is filled
        (folder / "first").write_text("first")
    with pytest.raises(FileExistsError, match="is not an empty folder"), written_beside(final):
        raise AssertionError("the block must not run")
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(FileExistsError, match="choose another name"),
        written_beside(tmp_path / "file"),
    ):
        raise AssertionError("the block must not run")
    assert os.listdir(final) == ["first"] and sorted(os.listdir(tmp_path)) == ["file", "mine"]


def test_the_first_error_is_told_if_nothing_can_be_removed_either(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.raises(OSError, match="No space left"), written_beside(tmp_path / "checkpoint-1"):
        monkeypatch.setattr(shutil, "rmtree", refuse)
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_relative_path_needs_no_working_directory_tricks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with written_beside("checkpoint-1/") as folder:
        (folder / "state").write_text("state")
    write_text_atomically("note.txt", "words")
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-1", "note.txt"]


def test_only_leftovers_of_this_program_are_removed(tmp_path):
    (tmp_path / ".diffusers_ext-tmp-checkpoint-2").mkdir()
    (tmp_path / ".diffusers_ext-tmp-note.txt-12").write_text("half")
    mine = [".old-checkpoint-1", ".tmp-data", "checkpoint-3"]
    for name in mine:
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == mine
    remove_leftovers(tmp_path / "missing")


def test_text_is_replaced_whole(tmp_path):
    path = tmp_path / "folder" / "card.md"
    write_text_atomically(path, "α\n")
    write_text_atomically(path, "β\n")
    assert path.read_text(encoding="utf-8") == "β\n" and os.listdir(path.parent) == ["card.md"]
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "β\n" and os.listdir(path.parent) == ["card.md"]


def test_moving_into_a_folder_keeps_what_is_there_and_ends_with_the_index(tmp_path, monkeypatch):
    source, folder = tmp_path / "source", tmp_path / "folder"
    for name in ("index.json", "unet/weights.fp16", "zeta"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("new")
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights").write_text("old")
    (folder / "zeta").write_text("old")
    moved, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (moved.append(os.path.basename(new)), replace(old, new)))

    move_into(source, folder, last="index.json")

    assert moved[-1] == "index.json" and len(moved) == 3 and not source.exists()
    assert (folder / "zeta").read_text() == "new" and (folder / "unet" / "weights").read_text() == "old"
    assert (folder / "unet" / "weights.fp16").read_text() == "new"


def write_again_and_again(parent, ready):
    for number in itertools.count():
        with written_beside(parent / f"checkpoint-{number}") as folder:
            for part in range(8):
                (folder / f"part-{part}").write_text(str(number) * 5_000)
        ready.set()


def test_a_killed_writer_never_leaves_half_a_folder(tmp_path):
    processes = multiprocessing.get_context("fork")
    for moment in range(4):
        parent, ready = tmp_path / str(moment), processes.Event()
        writer = processes.Process(target=write_again_and_again, args=(parent, ready))
        writer.start()
        assert ready.wait(timeout=1800)
        time.sleep(0.0061 * moment)
        writer.kill()
        writer.join()
        remove_leftovers(parent)
        for folder in parent.iterdir():
            parts = [(folder / f"part-{part}").read_text() for part in range(8)]
            assert len(set(parts)) == 1 and len(parts[0]) == 5_000 * len(folder.name.removeprefix("checkpoint-"))
