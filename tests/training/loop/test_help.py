"""`--help`: quick, equal to what the imported options say, in sections, and each option once."""

from diffusers_ext.training.loop.quick_help import command_parser

import importlib
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from diffusers_ext.training.loop.options import FIRST, GROUPS, OptionParser, option
from tests.training.runs import environment


ROOT = Path(__file__).parents[3]
COMMANDS = {
    file.relative_to(ROOT).as_posix(): module
    for folder, package in (
        ("training", "diffusers_ext.training"),
        ("src/diffusers_ext/converters", "diffusers_ext.converters"),
        ("src/diffusers_ext/converters/kohya", "diffusers_ext.converters.kohya"),
    )
    for file in sorted((ROOT / folder).glob("*.py"))
    for module in [f"{package}.{file.stem}"]
    if '__name__ == "__main__"' in file.read_text()
}
WITH_OPTIONS = [file for file in COMMANDS if isinstance(command_parser(ROOT / file), OptionParser)]


def sections(text: str) -> dict[str, list[str]]:
    """The options of a help text by the title of their section."""
    found, title = {}, None
    for line in text.splitlines():
        if line.removesuffix(":") in (FIRST, *GROUPS.values()):
            title = line.removesuffix(":")
        elif title is not None and line.startswith("  --"):
            found.setdefault(title, []).append(re.match(r"  --(\w+)", line)[1])
    return found


def test_the_commands_are_found():
    assert len(WITH_OPTIONS) >= 12 and "training/evaluate_pipeline.py" in WITH_OPTIONS
    assert {"training/reconstruct_ema.py", "src/diffusers_ext/converters/__main__.py"} < set(COMMANDS)


@pytest.mark.parametrize("file", COMMANDS)
def test_the_quick_help_is_that_of_the_imported_options(file):
    quick = command_parser(ROOT / file)
    module = importlib.import_module(COMMANDS[file])
    if isinstance(quick, OptionParser):
        config_class = getattr(module, quick.config_class.__name__)
        assert quick.config_class is not config_class
        whole = OptionParser(config_class, module.__doc__, quick.prog)
    else:
        whole = module.build_parser()
    assert quick.format_help() == whole.format_help()


def test_no_help_imports_torch():
    """If this fails for a new option: what its default, its type or its help text says at import needs PyTorch."""
    code = "import sys; from diffusers_ext.training.loop.quick_help import command_parser\n"
    code += "for file in sys.argv[1:]:\n    command_parser(file).format_help()\n"
    code += "    assert 'torch' not in sys.modules, file"
    subprocess.run([sys.executable, "-c", code, *COMMANDS], cwd=ROOT, check=True)


@pytest.mark.parametrize("file", WITH_OPTIONS)
def test_each_option_stands_once_in_a_section(file):
    parser = command_parser(ROOT / file)
    found = sections(parser.format_help())
    names = [name for section in found.values() for name in section]
    assert sorted(names) == sorted(["config", *(field.name for field in fields(parser.config_class))])
    assert set(found) >= {FIRST, "Data", "Evaluation"}
    assert 5 <= len(found[FIRST]) <= 15 and found[FIRST][0] == "config"


@pytest.mark.parametrize(
    "command",
    [
        ["training/train_gan.py"],
        ["-m", "diffusers_ext.training.train_gan"],
        pytest.param(["-m", "accelerate.commands.launch", "training/train_gan.py"], marks=pytest.mark.slow),
        pytest.param(
            ["-m", "accelerate.commands.launch", "-m", "diffusers_ext.training.train_gan"], marks=pytest.mark.slow
        ),
    ],
    ids=["script", "module", "launched script", "launched module"],
)
def test_a_command_prints_its_help_before_its_imports(command):
    timed = [sys.executable, "-X", "importtime", *command, "--help"]
    done = subprocess.run(timed, cwd=ROOT, check=True, capture_output=True, text=True, env=environment())
    assert done.stdout.startswith("usage: train_gan.py [--config FILE]")
    assert "--generator JSON" in done.stdout
    assert "accelerate.commands.launch" in command or not re.search(r"\| +torch$", done.stderr, re.MULTILINE)


def test_what_was_not_asked_for_help_runs(monkeypatch, capsys, tmp_path):
    """The early answer changes nothing but the time: a file that calls `run` later is executed."""
    script = tmp_path / "own.py"
    script.write_text(
        "from diffusers_ext.training.loop.command import run\n"
        "from diffusers_ext.training import TrainingConfig\n\n"
        "if __name__ == '__main__':\n    run(None, TrainingConfig)\n"
    )
    monkeypatch.setattr(sys, "argv", [str(script), "--learning_rate=-1"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(script), run_name="__main__")
    assert stopped.value.code == 2 and "--learning_rate must be positive" in capsys.readouterr().err


@dataclass
class Base:
    option_group = "network"

    width: int = option(8, help="The width.")
    path: str = option("here", help="The path.", group="output", essential=True)


@dataclass
class Own(Base):
    path: str = option("there", help="Another path.")
    width: int = option(9, help="Another width.")
    weight: float = option(0.5, help="100% of the weight.")
    sizes: list[int] = option([1, 2], help="Some sizes.")
    shown: bool = option(True, help="Whether it is shown.")


def test_an_option_stays_where_its_base_put_it():
    found = sections(OptionParser(Own).format_help())
    assert found == {FIRST: ["config", "path"], "Network": ["width"], "Objective": ["weight", "sizes", "shown"]}


def test_the_texts_of_options():
    text = OptionParser(Own, "What it does.", "own.py").format_help()
    assert text.startswith("usage: own.py [--config FILE] [--OPTION VALUE ...]\n\nWhat it does.\n")
    for part in (
        "  --weight NUMBER\n      100% of the weight. [0.5]\n",
        "  --sizes INTEGER ...\n      Some sizes. [1 2]\n",
        "  --shown, --no_shown\n      Whether it is shown. [True]\n",
        "  --path TEXT\n      Another path. [there]\n",
    ):
        assert part in text


def test_dashes_are_read_like_underscores():
    parsed = OptionParser(Own).parse_args(["--no-shown", "--sizes", "3", "4"])
    assert not parsed.shown and parsed.sizes == [3, 4]
    with pytest.raises(SystemExit):
        OptionParser(Own).parse_args(["--shown", "maybe"])
