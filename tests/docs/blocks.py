"""The fenced blocks of a page of the documentation, and how they are run (docs/how_to/write_a_page.md)."""

import linecache
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import yaml


ROOT = Path(__file__).parents[2]
LINKED = ("examples", "pipelines", "tests", "training")
MARKS = {"slow", "hub", "gpu", "no"}
LANGUAGES = {"python", "bash", "yaml"}
OTHER_NAMES = {"py": "python", "python3": "python", "sh": "bash", "shell": "bash", "yml": "yaml"}
FENCE = re.compile(r"( *)(`{3,}|~{3,}) *([^\s`]*)")
MARK = re.compile(r" *<!-- *run: *(\w+)(?:, *(.*?))? *-->")
NAMED_FILE = re.compile(r"# file: ([\w.-]+)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: its place, its mark (`None`: run by the fast tests), and the reason of a `no`."""

    page: Path
    line: int
    language: str
    code: str
    mark: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """The python, bash and yaml blocks of a page.

    Raises:
        ValueError: for an unknown mark, a mark without a block, a `no` without a reason, another name of a language,
            or a block that does not end.
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    blocks, mark, reason, number = [], None, None, 0
    while number < len(lines):
        place = f"{page.name}:{number + 1}"
        fence = FENCE.match(lines[number])
        if fence:
            indent, marker, language = fence.groups()
            closing = [n for n in range(number + 1, len(lines)) if lines[n].strip() == marker]
            if not closing:
                raise ValueError(f"{place}: this block does not end.")
            if language in OTHER_NAMES:
                raise ValueError(f"{place}: write {OTHER_NAMES[language]} instead of {language}.")
            code = "".join(line.removeprefix(indent) + "\n" for line in lines[number + 1 : closing[0]])
            if language in LANGUAGES:
                blocks.append(Block(page, number + 1, language, code, mark, reason))
            elif mark:
                raise ValueError(f"{place}: blocks of {language or 'no language'} are never run and need no mark.")
            mark, reason, number = None, None, closing[0]
        elif mark:
            raise ValueError(f"{place}: the line above is the mark of a block, and no block begins here.")
        elif re.match(r" *<!-- *run\b", lines[number]):
            mark, reason = read_mark(lines[number], place)
        number += 1
    return blocks


def read_mark(line: str, place: str) -> tuple[str, str | None]:
    found = MARK.fullmatch(line)
    if not found or found[1] not in MARKS:
        raise ValueError(f"{place}: a mark is <!-- run: X --> with slow, hub, gpu, or `no, REASON`.")
    if (found[1] == "no") != bool(found[2]):
        raise ValueError(f"{place}: `no` needs a reason, and the other marks take none.")
    return found[1], found[2]


def run_page(blocks: list[Block], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run blocks in their order in a folder that has `training/`, `examples/` and the like of the repository.

    These are copies, so that nothing is written into the repository.
    """
    for name in LINKED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "golden"))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    page = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)
    for block in blocks:
        named = NAMED_FILE.match(block.code)
        if named:
            Path(named[1]).write_text(block.code, encoding="utf-8")
        if block.language == "yaml":
            yaml.safe_load(block.code)
        elif block.language == "bash":
            subprocess.run(["bash", "-euo", "pipefail", "-c", block.code], check=True)
        elif not named:
            # Tracebacks and `inspect.getsource` show the lines of the page.
            linecache.cache[str(block)] = (len(block.code), None, block.code.splitlines(keepends=True), str(block))
            exec(compile(block.code, str(block), "exec"), vars(page))


def check_syntax(block: Block) -> None:
    """What can be checked of a block that is not run here; one that is never run may be a part of a file."""
    if block.mark == "no":
        return
    if block.language == "python":
        compile(block.code, str(block), "exec")
    elif block.language == "yaml":
        list(yaml.safe_load_all(block.code))
    else:
        subprocess.run(["bash", "-n", "-c", block.code], check=True)
