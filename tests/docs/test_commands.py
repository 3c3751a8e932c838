"""Every command that people are told to type knows its options, also where no test runs it."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from .blocks import NAMED_FILE, ROOT, read_blocks
from .commands import calls_of, check_call, parts_in_text, program_of, scripts_of_file, scripts_of_page
from .test_blocks import PAGES as SITE


PAGES = [*SITE, *sorted((ROOT / "examples").rglob("README.md"))]
FILES = [
    file
    for folder in ("examples", "training", "src")
    for suffix in ("yaml", "py")
    for file in sorted((ROOT / folder).rglob(f"*.{suffix}"))
    if list(scripts_of_file(file))
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder: with the examples, and `my.yaml`, by which pages mean a file of the reader."""
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("*.png", "*.jpg", "*.ipynb")
    )
    (tmp_path / "my.yaml").write_text("dataset_name: digits\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_scripts(scripts: Iterable[str], folder: Path, is_complete: bool = True) -> None:
    for script in scripts:
        for call in calls_of(script, folder):
            try:
                program = program_of(call)
                if program is not None:
                    check_call(*program, is_complete)
            except SystemExit as stopped:
                if stopped.code:
                    raise ValueError(f"This command is refused: {' '.join(call)}") from stopped


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_pages(page, folder):
    for block in read_blocks(page):
        named = NAMED_FILE.match(block.code)
        if named:
            (folder / named[1]).write_text(block.code, encoding="utf-8")
    check_scripts(scripts_of_page(page), folder)
    check_scripts(parts_in_text(page), folder, is_complete=False)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_commands_in_comments(file, folder):
    check_scripts(scripts_of_file(file), folder)


def test_all_commands_are_found():
    """Whatever looks like a command of a training is one of those that are checked."""
    count = sum(len(list(scripts_of_file(file))) for file in FILES)
    count += sum(script.count("training/") for page in PAGES for script in scripts_of_page(page))
    assert count > 120


@pytest.mark.parametrize(
    "script",
    [
        "accelerate launch training/train_gan.py --config examples/digits_dcgan.yaml --unknown 1",
        "accelerate launch training/train_gan.py --config examples/unknown.yaml",
        "accelerate launch training/train_gan.py --config examples/digits.yaml",
        "accelerate launch --unknown training/train_gan.py --config examples/digits_dcgan.yaml",
        "accelerate launch -m diffusers_ext.training.train_gan --config examples/digits_dcgan.yaml --learning_rate x",
        "options='--config examples/digits.yaml'\nls | torchrun training/train_diffusion.py $options --wrong",
        "pip install x && python -m diffusers_ext.converters file folder --family unknown",
        "python -m diffusers_ext.demo outputs/digits --ports 1",
        "python examples/cascade.py --wrong",
        "python examples/gan_table.py --wrong",
    ],
)
def test_wrong_commands_are_found(script, folder):
    with pytest.raises(ValueError, match="is refused|does not know"):
        check_scripts([script], folder)


@pytest.mark.parametrize("program", ["training/train_unknown.py", "-m diffusers_ext.unknown"])
def test_programs_that_are_missing_are_found(program, folder):
    with pytest.raises(FileNotFoundError):
        check_scripts([f"python {program}"], folder)


def test_commands_in_the_text_of_a_page(tmp_path, folder):
    page = tmp_path / "page.md"
    page.write_text("As `training/train_gan.py --config\nexamples/digits_dcgan.yaml --wrong` does.\n")
    with pytest.raises(ValueError, match="is refused"):
        check_scripts(parts_in_text(page), folder, is_complete=False)
    page.write_text(
        "`python -m diffusers_ext.training.train_gan` and `training/evaluate_pipeline.py --tasks inpainting`"
    )
    check_scripts(parts_in_text(page), folder, is_complete=False)
