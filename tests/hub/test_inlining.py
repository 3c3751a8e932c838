"""A published file has what it imports from parts beside it, and nothing else of them."""

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from diffusers_ext.hub.inlining import OWN_MODULE, inline


ROOT = Path(__file__).parents[2]
FILES = [
    *(ROOT / "pipelines").glob("pipeline_*.py"),
    *(ROOT / "src" / "diffusers_ext").glob("models/modeling_*.py"),
    *(ROOT / "src" / "diffusers_ext").glob("schedulers/scheduling_*.py"),
    *(ROOT / "src" / "diffusers_ext").glob("guiders/guiding_*.py"),
]

MAIN = '''# Licence

"""What it does."""

import math

import numpy as np

from .shapes import area, rounded  # the parts


# Twice the size
DOUBLE = 2


class Painter:
    """Paints."""

    def paint(self, width):
        return rounded(DOUBLE * area(width)) + np.float64(math.pi)  # a comment


# the end
'''
SHAPES = '''"""Sizes of shapes.

They are in pixels.
"""

from __future__ import annotations

import os
import math
from collections.abc import Callable

from .numbers_of_old import PI, rounded


Size = float  # in pixels


def area(width: Size) -> float:
    """Of a circle."""
    return square(width) * PI


@staticmethod
# squares are common
def square(width):
    return width**2


def unused(function: Callable):
    return os.getcwd(), math.tau
'''
NUMBERS = '''"""Numbers."""

from __future__ import annotations

import math as mathematics


PI = 3

E = mathematics.e


def rounded(number):
    return round(number)
'''
END = f"\n\n{OWN_MODULE}"
FUTURE = "from __future__ import annotations\n\n"


@pytest.fixture
def write(tmp_path):
    """Writes files, and returns the first one."""

    def write(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        return tmp_path / f"{next(iter(files))}.py"

    return write


def test_the_needed_definitions_stand_above_the_file_s_own(write):
    main = MAIN.replace("import math\n", FUTURE + "import math\n", 1)
    text = inline(write(main=main, shapes=SHAPES, numbers_of_old=NUMBERS))
    assert (
        text
        == '''# Licence

"""What it does."""

from __future__ import annotations

import math
import pathlib
import sys
import types

import numpy as np


# numbers_of_old.py: Numbers.


PI = 3


def rounded(number):
    return round(number)


# shapes.py: Sizes of shapes.
#
# They are in pixels.


Size = float  # in pixels


def area(width: Size) -> float:
    """Of a circle."""
    return square(width) * PI


@staticmethod
# squares are common
def square(width):
    return width**2


# Twice the size
DOUBLE = 2


class Painter:
    """Paints."""

    def paint(self, width):
        return rounded(DOUBLE * area(width)) + np.float64(math.pi)  # a comment


# the end
'''
        + END
    )


def test_the_result_works_alone(write, tmp_path):
    main = MAIN.replace("import math\n", FUTURE + "import math\n", 1)
    text = inline(write(main=main, shapes=SHAPES.replace("@staticmethod\n", ""), numbers_of_old=NUMBERS))
    (tmp_path / "published_main.py").write_text(text)
    namespace = {"__name__": "published_main", "__file__": str(tmp_path / "published_main.py")}
    exec(compile(text, "main.py", "exec"), namespace)
    assert namespace["Painter"].published_code == text
    assert sys.modules.pop("published_main").Painter is namespace["Painter"]
    assert namespace["Painter"]().paint(3) == pytest.approx(2 * 27 + 3.14159, abs=1e-4)


def test_a_file_without_parts_keeps_its_code(write):
    text = inline(write(main="import torch\nfrom math import pi\n\nx = pi  # odd\ny = torch\n"))
    imports = "import pathlib\nimport sys\nimport types\nfrom math import pi\n\nimport torch\n"
    assert text == f"{imports}\n\nx = pi  # odd\ny = torch\n{END}"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"main": "import diffusers_ext.models\n"}, "main.py can't be published, because it imports diffusers_ext.m"),
        (
            {"main": "def f():\n    from diffusers_ext import x\n"},
            "because it imports diffusers_ext; a published",
        ),
        ({"main": "from .part import x\n", "part": "import diffusers_ext\nx = 1\n"}, "part.py can't be published"),
        ({"main": "from .nowhere import x\n"}, "main.py can't be published, because it imports .nowhere in another"),
        ({"main": "from . import part\n", "part": ""}, "imports . in another form"),
        ({"main": "from ..part import x\n", "part": "x = 1\n"}, "imports ..part in another form"),
        ({"main": "from .part import *\n", "part": "x = 1\n"}, "imports .part in another form"),
        ({"main": "from .part import x as y\n", "part": "x = 1\n"}, "imports .part in another form"),
        ({"main": "def f():\n    from .part import x\n", "part": "x = 1\n"}, "imports .part in another form"),
        ({"main": "from .part import x\n", "part": "y = 1\n"}, "main.py can't be published, because part.py has no x"),
        (
            {"main": "from .a import x\nfrom .b import y\nz = x, y\n", "a": "w = 1\nx = w\n", "b": "w = 2\ny = w\n"},
            "because w has another meaning in b.py than elsewhere",
        ),
        (
            {"main": "from .a import x\ndef helper(): pass\n", "a": "def helper(): pass\nx = helper()\n"},
            "because helper has another meaning in a.py than elsewhere",
        ),
        (
            {"main": "import math\nfrom .a import x\n", "a": "from cmath import sin as math\nx = math(1)\n"},
            "because math has another meaning in a.py than elsewhere",
        ),
        ({"main": "from math import sin as types\n"}, "because types has another meaning in main.py"),
        ({"main": "from .a import x\n", "a": "def sum(y): pass\nx = sum(1)\n"}, "because sum has another meaning"),
        ({"main": "from .a import x\n", "a": f"{FUTURE}x = 1\n"}, "different imports from __future__"),
        (
            {"main": "from .a import x\n", "a": "from .b import y\nx = y\nz = 1\n", "b": "from .a import z\ny = z\n"},
            "import from each other in a circle: main.py, a.py, b.py",
        ),
    ],
)
def test_what_would_not_work_alone_is_refused_in_one_sentence(write, files, sentence):
    main = write(**files)
    with pytest.raises(ValueError) as error:
        inline(main)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_names_that_are_not_needed_do_not_collide(write):
    text = inline(write(main="from .a import x\nw = 1\n", a="w = 2\nx = 3\n"))
    assert text == f"import pathlib\nimport sys\nimport types\n\n\n# a.py\n\n\nx = 3\n\n\nw = 1\n{END}"


def find_pipeline_class(file: Path) -> str:
    classes = [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)]
    (name,) = (name for name in classes if name.endswith("Pipeline"))
    return name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_published_file_is_readable_and_alone(file, tmp_path):
    pipeline_class = find_pipeline_class(file) if file.name.startswith("pipeline_") else None
    text = inline(file, pipeline_class)
    published = tmp_path / file.name
    published.write_text(text)
    tree = ast.parse(text)
    assert ast.get_docstring(tree) == ast.get_docstring(ast.parse(file.read_text()))
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
    if shutil.which("ruff"):
        for command in (["check"], ["format", "--diff"]):
            options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", str(published)]
            checked = subprocess.run(["ruff", *command, *options], capture_output=True, text=True)
            assert checked.returncode == 0, checked.stdout + checked.stderr
    spec = importlib.util.spec_from_file_location(f"published_{file.stem}", published)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    del sys.modules[spec.name]


def brighter(folder: Path) -> Path:
    """The pipelines of another version, which differs in a part: its images are brighter by a half."""
    copy = Path(shutil.copytree(ROOT / "pipelines", folder))
    images = copy / "images.py"
    old = "return (images / 2 + 0.5).clamp(0, 1)"
    assert images.read_text().count(old) == 1
    images.write_text(images.read_text().replace(old, "return (images / 2 + 0.5).clamp(0, 1) / 2 + 0.5"))
    return copy


@pytest.mark.slow
def test_two_versions_in_one_process_without_the_package(hub, alice, bob, tmp_path):
    """The shared part of one repository differs: old and new instances of both keep their own."""
    this, other = tmp_path / "this", tmp_path / "other"
    alice.run(
        """
import torch
from diffusers_ext import DCGANGenerator, GANPipeline
torch.manual_seed(0)
GANPipeline(DCGANGenerator(8, out_channels=1, latent_dim=4, channels=4)).save_pretrained(folder)
""",
        folder=str(this),
    )
    shutil.copytree(this, other)
    (other / "pipeline_gan.py").write_text(inline(brighter(tmp_path / "pipelines") / "pipeline_gan.py", "GANPipeline"))
    for folder in (this, other):
        alice.run(
            "from diffusers_ext import hub; hub.publish_folder(folder, name)",
            folder=str(folder),
            name=f"alice/{folder.name}-version",
        )
    code = """
import torch
from diffusers import DiffusionPipeline

def load(address):
    return DiffusionPipeline.from_pretrained(address, trust_remote_code=True)

def draw(pipe):
    return pipe(batch_size=2, generator=torch.Generator().manual_seed(0), output_type="pt").images

first_of_this = load(this)
expected = draw(first_of_this)
first_of_other = load(other)
again = draw(first_of_this), draw(load(this)), draw(first_of_this)
brighter = draw(first_of_other), draw(load(other)), draw(first_of_other)
result = [
    expected.std().item(),
    [torch.equal(images, expected) for images in again],
    [torch.equal(images, expected / 2 + 0.5) for images in brighter],
]
"""
    addresses = [(str(this), str(other)), ("alice/this-version", "alice/other-version")]
    for this_address, other_address in addresses:
        spread, again, brighter_ones = bob.run(code, this=this_address, other=other_address)
        assert spread > 1e-4 and again == [True] * 3 and brighter_ones == [True] * 3
    # Each is saved again with its own code.
    saving = (
        "for pipe, folder in (first_of_this, this), (first_of_other, other): pipe.save_pretrained(folder + '-again')"
    )
    bob.run(code + saving, this=str(this), other=str(other))
    for folder in (this, other):
        again = folder.with_name(f"{folder.name}-again")
        for name in ("pipeline_gan.py", "generator/modeling_dcgan.py"):
            assert (again / name).read_text() == (folder / name).read_text()
    # With the package, both have the code of the package, and run none of their own.
    code = code.replace("from diffusers import DiffusionPipeline", "from diffusers_ext import GANPipeline")
    code = code.replace("DiffusionPipeline.from_pretrained", "GANPipeline.from_pretrained")
    code = code.replace(", trust_remote_code=True", "")
    spread, again, brighter_ones = alice.run(code, this=addresses[1][0], other=addresses[1][1])
    assert spread > 1e-4 and again == [True] * 3 and brighter_ones == [False] * 3
    assert json.loads((other / "model_index.json").read_text())["_class_name"] == ["pipeline_gan", "GANPipeline"]
