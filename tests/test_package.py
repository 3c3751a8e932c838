import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import diffusers_ext


def loaded_after(code: str) -> set[str]:
    """The top-level modules of a fresh process that ran `code`."""
    code += "; import sys; print(*{name.split('.')[0] for name in sys.modules})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_imports_none_of_its_dependencies():
    assert not loaded_after("import diffusers_ext") & {"torch", "diffusers", "transformers", "numpy", "PIL"}


def test_torchvision_is_not_needed():
    blocked = "import sys; sys.modules['torchvision'] = None; import diffusers_ext; "
    blocked += "[getattr(diffusers_ext, name) for name in diffusers_ext.__all__]"
    assert "diffusers" in loaded_after(blocked)


@pytest.mark.parametrize("name", diffusers_ext.__all__)
def test_public_names_come_from_their_module(name):
    module = importlib.import_module(f"diffusers_ext.{diffusers_ext._MODULE_OF[name]}")
    assert getattr(diffusers_ext, name) is getattr(module, name) and name in dir(diffusers_ext)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(diffusers_ext.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {node.module.removeprefix("diffusers_ext."): [alias.asname for alias in node.names] for node in block.body}
    assert seen == diffusers_ext._PUBLIC_NAMES
    assert (Path(diffusers_ext.__file__).parent / "py.typed").exists()


def test_rooms_and_unknown_names():
    assert diffusers_ext.training.__name__ == "diffusers_ext.training"
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        diffusers_ext.Nothing  # noqa: B018


def test_every_room_is_packaged():
    import setuptools

    assert set(diffusers_ext._ROOMS) <= {
        *setuptools.find_packages(str(Path(diffusers_ext.__file__).parent)),
        "pipelines",
        "training",
    }
