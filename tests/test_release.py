"""What is published: the version, the wheel and the sdist, and the commands of an installed wheel."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import diffusers_ext
from tests.training.runs import environment


tomllib = pytest.importorskip("tomllib")  # Python 3.11

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert diffusers_ext.__version__ == PROJECT["version"] == str(citation["version"]) == latest


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_no_cache_is_tracked():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    strays = re.compile(r"\.(lock|bin|pyc|incomplete)$|(^|/)(decoded_images|__pycache__|outputs|assets)/")
    assert not [name for name in tracked.split("\0") if strays.search(name)]


def build(kind: str, source: Path, folder: Path) -> Path:
    """A wheel or an sdist, built by the backend that pip would call."""
    folder.mkdir(parents=True)
    code = f"import setuptools.build_meta as b; b.build_{kind}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Built from the files of the repository, without what git ignores."""
    source = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in tracked.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    return build("sdist", source, tmp_path_factory.mktemp("sdist") / "dist")


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built from the sdist alone."""
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    return build("wheel", source, folder / "dist")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> dict[str, str]:
    """The variables of a process that uses the installed wheel."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, wheel], check=True
    )
    return {**environment(), "PYTHONPATH": str(folder)}


@pytest.mark.slow
def test_what_the_sdist_contains(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "CITATION.cff", "tests/test_release.py", "docs/index.md", "examples/digits.yaml"} <= names
    assert {"training/train_diffusion.py", "pipelines/pipeline_palette.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("outputs")]


@pytest.mark.slow
def test_what_the_wheel_contains(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"diffusers_ext", f"diffusers_ext-{PROJECT['version']}.dist-info"}
    sources = {"pipelines": ROOT / "pipelines", "training": ROOT / "training", "": ROOT / "src" / "diffusers_ext"}
    for room, folder in sources.items():
        for suffix in ("py", "pyi"):
            files = [file for file in folder.rglob(f"*.{suffix}") if "__pycache__" not in file.parts]
            missing = {(Path("diffusers_ext") / room / file.relative_to(folder)).as_posix() for file in files} - names
            assert not missing
    assert {"diffusers_ext/py.typed", "diffusers_ext/examples/digits.yaml"} <= names
    assert {path.name for path in (ROOT / "examples").glob("*.yaml")} <= {Path(name).name for name in names}
    assert not [name for name in names if "test" in name.split("/") or "golden" in name or name.endswith(".png")]
    assert wheel.stat().st_size < 3e6


@pytest.mark.slow
def test_commands_of_the_wheel_in_an_empty_folder(installed, tmp_path):
    def run(*command):
        return subprocess.run(
            [sys.executable, *command], cwd=tmp_path, check=True, capture_output=True, text=True, env=installed
        ).stdout

    where = run("-c", "import diffusers_ext, diffusers_ext.training as t; print(diffusers_ext.__file__, t.__file__)")
    assert all(path.startswith(installed["PYTHONPATH"] + os.sep) for path in where.split())
    module, launch = "diffusers_ext.training.train_diffusion", ["-m", "accelerate.commands.launch", "-m"]
    assert "--prediction_type" in run("-m", module, "--help")
    assert run(*launch, module, "--help") == run("-m", module, "--help")
    assert "--family" in run("-m", "diffusers_ext.converters", "--help")
    short = ["--max_train_steps=2", "--num_evaluation_samples=20", "--num_inference_steps=2"]
    printed = run(*launch, module, "--config", "examples/digits.yaml", *short)
    assert (tmp_path / "outputs" / "digits" / "model_index.json").is_file() and "Publish it:" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


def test_the_page_of_tested_versions_is_up_to_date():
    from tests.write_tested_versions import PAGE, page

    assert PAGE.read_text() == page(), "run python tests/write_tested_versions.py"
