"""A published file stands alone, so some code is there several times: copies say where they come from, and are true.

As in diffusers, `# Copied from <module>.<name>` stands above the copy. What is changed is changed in both.
"""

import ast
import re
from pathlib import Path
from textwrap import dedent

import pytest


ROOT = Path(__file__).parents[1]
FOLDERS = {
    "diffusers_ext.models": ROOT / "src" / "diffusers_ext" / "models",
    "diffusers_ext.pipelines": ROOT / "pipelines",
}
COPIED = re.compile(r"\s*# Copied from (\S+)$")


def definitions(path: Path):
    """Functions and classes of a file, and their methods: the name, the line before, and the text."""
    source = path.read_text()
    lines, tree = source.splitlines(), ast.parse(source)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    named = [("", node) for node in tree.body] + [(f"{owner.name}.", node) for owner in classes for node in owner.body]
    for prefix, node in named:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
            yield prefix + node.name, lines[start - 1], dedent("\n".join(lines[start : node.end_lineno]))


TEXTS, COPIES = {}, []
for module, folder in FOLDERS.items():
    for file in sorted(folder.glob("*_*.py")):
        for name, line_before, text in definitions(file):
            TEXTS[f"{module}.{file.stem}.{name}"] = text
            if match := COPIED.match(line_before):
                COPIES.append(pytest.param(match.group(1), text, id=f"{file.stem}.{name}"))


@pytest.mark.parametrize(("origin", "text"), COPIES)
def test_a_copy_is_what_it_was_copied_from(origin, text):
    assert text == TEXTS[origin]
