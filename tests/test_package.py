import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import diffusers_ext
from diffusers_ext.exports import exports

from .write_stubs import converters_stub


PACKAGE = Path(diffusers_ext.__file__).parent
ROOMS = {module.removeprefix("diffusers_ext.") for module in exports("diffusers_ext").values()}


def loaded_after(code: str) -> set[str]:
    """The top-level modules of a fresh process that ran `code`."""
    code += "; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_imports_none_of_its_dependencies():
    dependencies = {"torch", "diffusers", "transformers", "numpy", "PIL"}
    assert not loaded_after("import diffusers_ext; diffusers_ext.__all__; dir(diffusers_ext)") & dependencies


def test_torchvision_is_not_needed():
    blocked = "import sys; sys.modules['torchvision'] = None; import diffusers_ext; "
    blocked += "[getattr(diffusers_ext, name) for name in diffusers_ext.__all__]"
    assert "diffusers" in loaded_after(blocked)


def test_public_names_come_from_their_room():
    for name, room in exports("diffusers_ext").items():
        assert getattr(diffusers_ext, name) is getattr(importlib.import_module(room), name), name
    assert {*diffusers_ext.__all__} == {*exports("diffusers_ext")} <= {*dir(diffusers_ext)}


def test_no_two_rooms_export_the_same_name():
    names = [name for room in ROOMS for name in exports(f"diffusers_ext.{room}")]
    assert len(names) == len(set(names)) == len(diffusers_ext.__all__) > 170


def test_type_checkers_see_all_rooms():
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")} | {"pipelines", "training"}
    assert folders == ROOMS
    assert (PACKAGE / "py.typed").exists() and (PACKAGE / "__init__.pyi").exists()


def test_the_stub_of_the_converters_is_up_to_date():
    stub = exports("diffusers_ext.converters")
    assert stub == converters_stub(), "run python tests/write_stubs.py"


def test_rooms_and_unknown_names():
    assert diffusers_ext.training.__name__ == "diffusers_ext.training"
    assert diffusers_ext.training.Trainer is diffusers_ext.Trainer
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        diffusers_ext.Nothing  # noqa: B018
    with pytest.raises(AttributeError, match="module 'diffusers_ext.training' has no attribute 'Nothing'"):
        diffusers_ext.training.Nothing  # noqa: B018


def test_every_room_is_packaged():
    import setuptools

    assert ROOMS <= {*setuptools.find_packages(str(PACKAGE)), "pipelines", "training"}
