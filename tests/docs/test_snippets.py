"""The lines of our code that pages show are in our files.

A block below `<!-- run: no, from training/train_gan.py -->` shows lines of that file, whose name is the title of the
block. A line of dots stands for lines that are left out. White space does not count.
"""

from pathlib import Path

import pytest

from .blocks import ROOT, read_blocks


PREFIX = "from "
SHOWN = [
    block
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for block in read_blocks(page)
    if block.reason is not None and block.reason.startswith(PREFIX)
]


def without_white_space(text: str) -> str:
    return "".join(text.split())


def first_missing_passage(code: str, file: Path) -> str | None:
    """The first passage of a block that a file does not have, behind those before it."""
    rest = without_white_space(file.read_text(encoding="utf-8"))
    passages = [[]]
    for line in code.splitlines():
        if line.strip() == "...":
            passages.append([])
        else:
            passages[-1].append(line)
    for passage in ("\n".join(lines) for lines in passages):
        _, found, rest = rest.partition(without_white_space(passage))
        if not found:
            return passage
    return None


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_the_lines_are_in_the_file(block):
    name = block.reason.removeprefix(PREFIX)
    missing = first_missing_passage(block.code, ROOT / name)
    assert missing is None, f"{block} shows lines that are not in {name}:\n{missing}"
    fence = block.page.read_text(encoding="utf-8").splitlines()[block.line - 1]
    assert f'title="{name}"' in fence, f"{block}: readers don't see that the lines are from {name}"


@pytest.mark.parametrize(
    "code, missing",
    [
        ("b = 2\n", None),
        ("    b = 2\nc = 3\n", None),
        ("a = 1\n...\nc = 3\n", None),
        ("a = 1\nc = 3\n", "a = 1\nc = 3"),
        ("c = 3\n...\na = 1\n", "a = 1"),
        ("a = 1\n...\nb = 3\n", "b = 3"),
    ],
)
def test_lines_that_are_not_in_the_file_are_found(tmp_path, code, missing):
    (tmp_path / "code.py").write_text("a = 1\nif a:\n    b = 2\n    c = 3\n")
    assert first_missing_passage(code, tmp_path / "code.py") == missing
