"""The mini text-to-image model of examples/, its new digit and its control: by the commands of its README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.runs import environment


ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "mini_text_to_image"
README = (EXAMPLE / "README.md").read_text()


def commands() -> list[str]:
    """The lines of the first block of the README, those that go on after a backslash joined."""
    block = re.search(r"```bash\n(.*?)```", README, re.DOTALL).group(1)
    return block.replace("\\\n", " ").splitlines()


def execute(command: str, folder: Path) -> str:
    """A command of the README, run in `folder`: what it prints."""
    words = command.split()
    words = words[2:] if words[0] == "accelerate" else words[1:]
    words = [str(ROOT / word) if word.startswith(("examples/", "training/")) else word for word in words]
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment(), capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    return done.stdout


def rows(table: str) -> dict[str, dict[str, str]]:
    """The cells of a table by row and column."""
    lines = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines() if "|" in line]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """What the last command, the judge's, says of the results of all others."""
    folder = tmp_path_factory.mktemp("mini")
    *others, judge = commands()
    for command in others:
        execute(command, folder)
    return rows(execute(f"{judge} --count 40", folder))


@pytest.mark.slow
def test_the_mini_model_draws_the_digits_it_was_trained_on(table):
    assert float(table["model"]["all of these"]) >= 95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth_lora", "dreambooth"])
def test_the_held_out_digit_is_learned_from_five_images(table, name):
    assert float(table[name]["nine"]) >= 80 > float(table["model"]["nine"])
    # Textual inversion changes nothing but the new word, and prior preservation keeps the others.
    assert float(table[name]["all of these"]) >= float(table["model"]["all of these"]) - 2


@pytest.mark.slow
def test_samples_follow_edges_while_they_show_the_digit(table):
    with_control, without = re.findall(r"[\d.]+", table["controlnet"]["edge F1 (without)"])
    assert float(with_control) >= 2 * float(without)
    assert float(table["controlnet"]["all of these"]) >= 95
