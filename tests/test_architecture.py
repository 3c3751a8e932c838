"""What each room of the package may import; `tests/training/test_layout.py` has the rules inside of training."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "diffusers_ext"
ROOMS = {file.parent.name: file.parent for file in PACKAGE.glob("*/__init__.py")}
ROOMS |= {room: ROOT / room for room in ("pipelines", "training")}

# Modules beside the rooms, which every room may import.
FOUNDATION = {"diffusers_ext", "atomic", "exports", "on_demand", "pixels", "registration"}

# Commands beside the rooms, which no file imports, and the rooms that each may import.
COMMANDS = {"restore": {"data", "hub", "pipelines"}, "volumes": {"data", "hub", "metrics", "pipelines"}}

# The rooms that each room may import, besides itself and the foundation. Training may import all of them.
ALLOWED = {
    "models": set(),
    "schedulers": set(),
    "guiders": set(),
    "hub": set(),
    "data": set(),
    "metrics": {"data", "models"},
    "losses": {"metrics", "models"},
    "likelihoods": {"data", "losses", "metrics", "schedulers"},
    "pipelines": {"hub"},
    "demo": {"data", "hub", "pipelines"},
    "converters": {"models", "schedulers", "hub", "pipelines"},
}

# Files of these rooms are published, so they only import these packages, and parts beside them.
PUBLISHED = ("models", "schedulers", "guiders", "pipelines")
AVAILABLE = {"torch", "numpy", "PIL", "diffusers", "transformers", "safetensors", *sys.stdlib_module_names}


def files(room: str) -> list[Path]:
    return sorted(ROOMS[room].rglob("*.py"))


def imports(file: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """All import statements of a file, also those inside of functions."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return (node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)))


def imported_rooms(file: Path) -> set[str]:
    """The rooms of the package, and the modules beside them, that a file imports from."""
    modules = set()
    for node in imports(file):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif node.module == "diffusers_ext":
            modules |= {f"diffusers_ext.{alias.name}" for alias in node.names}
        elif node.level == 0:
            modules.add(node.module)
    parts = [module.split(".") for module in modules]
    return {names[min(1, len(names) - 1)] for names in parts if names[0] == "diffusers_ext"}


def test_every_room_has_a_rule():
    assert {*ALLOWED, "training"} == set(ROOMS)


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_only_imports_rooms_below(room):
    for file in files(room):
        wrong = imported_rooms(file) - FOUNDATION - ALLOWED[room] - {room}
        assert not wrong, f"{file.relative_to(ROOT)} must not import from {', '.join(sorted(wrong))}"


def test_no_rooms_import_each_other():
    remaining = {room: set().union(*map(imported_rooms, files(room))) & set(ROOMS) - {room} for room in ROOMS}
    while remaining:
        lowest = [room for room, others in remaining.items() if not others & set(remaining)]
        assert lowest, f"a circle of imports: {remaining}"
        for room in lowest:
            del remaining[room]


def test_the_foundation_imports_no_room():
    for file in PACKAGE.glob("*.py"):
        assert not imported_rooms(file) & set(ROOMS) - COMMANDS.get(file.stem, set()), file.name


@pytest.mark.parametrize("room", PUBLISHED)
def test_published_files_stand_alone(room):
    published = [file for file in files(room) if file.name != "__init__.py"]
    parts = {file.stem for file in published}
    for file in published:
        for node in imports(file):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1 and node.module in parts, f"{file.name}: {ast.unparse(node)}"
                continue
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            assert {module.split(".")[0] for module in modules} <= AVAILABLE, f"{file.name}: {ast.unparse(node)}"
