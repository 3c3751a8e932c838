"""Writes docs/tested_versions.md: the versions of the dependencies that the tests last ran with.

    python tests/write_tested_versions.py

They are read from `tests/tested_versions.txt`, and the lowest allowed versions from `pyproject.toml`.
"""

import re
from pathlib import Path

import tomllib


ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tested_versions.md"
INTRODUCTION = """# Tested versions

The tests last ran with these versions, on Linux, on a CPU, with Python 3.11. To install them in a clone:
`pip install -c tests/tested_versions.txt -e .`. [tests/tested_versions.txt](../tests/tested_versions.txt) also has the
packages that these depend on.

| package | tested | lowest allowed |
|---|---|---|
"""


def page() -> str:
    """The text of the page."""
    lines = (ROOT / "tests" / "tested_versions.txt").read_text().splitlines()
    tested = dict(line.lower().replace("_", "-").split("==") for line in lines if re.match(r"[\w.-]+==", line))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    rows = []
    for dependency in project["dependencies"]:
        name, lowest = re.fullmatch(r"([\w.-]+)(?:>=([\d.]+))?", dependency).groups()
        rows.append(f"| {name} | {tested[name.lower().replace('_', '-')]} | {lowest or 'any'} |")
    return INTRODUCTION + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
