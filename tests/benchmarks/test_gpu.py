"""The program that measures a GPU runs without one, so that no time of a GPU is lost on its mistakes."""

import json
import math
import subprocess
import sys
import time

import pytest
import torch

from tests.benchmarks.gpu.table import Measure, Row, print_rows
from tests.training.runs import environment


def measure(*options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tests.benchmarks.gpu", *options]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=1800)


def test_a_table_goes_on_after_errors_and_ends_in_time(tmp_path, capsys):
    def fails():
        raise ValueError("a\nb")

    rows = [
        Row("good", lambda: Measure(2.0, "steps/s", 1.5, "remark"), seconds=0.1),
        Row("bad", fails, seconds=0.1),
        Row("long", lambda: time.sleep(20), seconds=0.1),
        Row("late", fails, seconds=0.1),
    ]
    cleaned = []
    print_rows(rows, 1.0, lambda: cleaned.append(None), tmp_path / "rows.jsonl")
    _, good, bad, long, late = capsys.readouterr().out.splitlines()
    assert good.split() == ["good", "2", "steps/s", "1.50", "remark"] and bad.endswith("ValueError: a b")
    assert long.endswith("TimeoutError: the time was used up") and "left out" in late and len(cleaned) == 4
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 4


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_machine_without_a_gpu_is_refused():
    done = measure()
    assert done.returncode == 2 and "error: this measures a GPU, and PyTorch finds none" in done.stderr


@pytest.mark.slow
def test_each_row_gives_a_number(tmp_path):
    done = measure("--device=cpu", "--seconds=0.05", f"--output={tmp_path / 'rows.jsonl'}")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) >= 50 and len({row["name"] for row in rows}) == len(rows)
    assert not [row for row in rows if "error" in row]
    for row in rows:
        assert math.isfinite(row["value"]) and row["value"] >= 0, row
        assert (row["value"] == 0) == row["name"].endswith("host waits"), row
