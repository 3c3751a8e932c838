"""Shared code exists once: nothing is copied, and a name has one meaning in a room whose files share parts."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
# The rooms whose files share parts, and what the names of their published files begin with
ROOMS = {ROOT / "pipelines": "pipeline_", ROOT / "src" / "diffusers_ext" / "models": "modeling_"}
FOLDERS = [ROOT / folder for folder in ("src", "pipelines", "training", "examples")]
SOURCES = sorted(file for folder in FOLDERS for file in folder.rglob("*.py"))


def definitions(file: Path) -> dict[str, str]:
    """The functions, classes and constants of a file by name, and the kind of each."""
    defined = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = type(node).__name__
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {target.id: "constant" for target in targets if isinstance(target, ast.Name)}
    return defined


def private_methods(file: Path) -> list[tuple[str, str]]:
    """The private methods and properties of a file, as the name and the class of each."""
    classes = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef)]
    methods = [
        (node.name, owner.name) for owner in classes for node in owner.body if isinstance(node, ast.FunctionDef)
    ]
    return [(name, owner) for name, owner in methods if name.startswith("_") and not name.endswith("__")]


def repeated(places: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: files for name, files in places.items() if len(files) > 1}


def test_a_function_or_class_of_pipelines_has_a_name_of_its_own():
    places = defaultdict(list)
    for file in sorted((ROOT / "pipelines").glob("[a-z]*.py")):
        for name, kind in definitions(file).items():
            if kind != "constant":
                places[name].append(file.name)
    assert repeated(places) == {}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_name_of_a_part_has_one_meaning_in_all_parts_of_its_room(room):
    """So that any of them can be inlined into one file."""
    places = defaultdict(list)
    for file in sorted(room.glob("[a-z]*.py")):
        for name in definitions(file) if not file.name.startswith(ROOMS[room]) else ():
            places[name].append(file.name)
    assert repeated(places) == {}


def test_a_private_method_of_a_pipeline_has_a_name_of_its_own():
    """What two pipelines need is a part. Public methods are what a pipeline promises, and differ."""
    places = defaultdict(list)
    for file in sorted((ROOT / "pipelines").glob("pipeline_*.py")):
        for name, owner in private_methods(file):
            places[name].append(f"{file.name}: {owner}")
    assert repeated(places) == {}


def test_nothing_is_copied():
    assert [file for file in SOURCES if "# Copied" + " from" in file.read_text(encoding="utf-8")] == []
