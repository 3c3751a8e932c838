"""The commands that pages, examples and docstrings tell people to type, and whether they accept their options."""

from diffusers_ext.training.loop.quick_help import command_parser

import argparse
import ast
import importlib
import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.loop.options import OptionParser

from .blocks import ROOT, read_blocks


PROGRAM = r"(?:accelerate launch|torchrun|python)\s"
# A command in a comment or a docstring, with the lines that continue it.
LISTED = re.compile(rf"^(?:# *|    ){PROGRAM}(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
# A part of a command in the text of a page, which may break lines: a program of ours and options.
INLINE = re.compile(r"(?<!`)`[^`]*?(training/\w+\.py|-m\s+diffusers_ext[\w.]*)(\s[^`]*)`")
PLACEHOLDER = re.compile(r"<([\w-]+)>")
# Bash reads the script, and calls this for each command, because it finds no program.
RECORDING = """
command_not_found_handle() { printf '%s\\0' "$@" $'\\x1e' >> "$calls"; }
PATH=/dev/null
"""


def scripts_of_page(page: Path) -> Iterator[str]:
    """The bash blocks of a page, also those that no test runs."""
    return (block.code for block in read_blocks(page) if block.language == "bash")


def parts_in_text(page: Path) -> Iterator[str]:
    """The programs that the text of a page names with options, such as `python training/train_gan.py --loss hinge`."""
    text = re.sub(r"^ *```.*?^ *```|<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for program, options in INLINE.findall(text):
        yield PLACEHOLDER.sub(r"\1", f"python {program} {' '.join(options.split())}")


def scripts_of_file(file: Path) -> Iterator[str]:
    """The commands in the comments and docstrings of a file."""
    for command in LISTED.findall(file.read_text(encoding="utf-8")):
        yield PLACEHOLDER.sub(r"\1", re.sub(r"^[# ]+", "", command, flags=re.MULTILINE))


def calls_of(script: str, folder: Path) -> list[list[str]]:
    """The commands that a bash script would call, each with its arguments. None of them runs."""
    record = folder / "calls"
    record.unlink(missing_ok=True)
    variables = {**os.environ, "HOME": str(folder), "calls": str(record)}
    subprocess.run(["bash", "-uc", RECORDING + script], cwd=folder, env=variables, check=True, capture_output=True)
    if not record.exists():
        return []
    return [call.split("\0")[:-1] for call in record.read_text(encoding="utf-8").split("\x1e\0")[:-1]]


def program_of(call: list[str]) -> tuple[str, list[str]] | None:
    """The file or module that a call runs by Python, and its arguments; `None` for other programs.

    Raises:
        SystemExit: if the launcher does not know its own options.
    """
    name, *arguments = call
    if name == "python" and arguments[:1] == ["-m"]:
        return arguments[1], arguments[2:]
    if name == "python" and arguments[:1] != ["-c"]:
        return arguments[0], arguments[1:]
    if name == "accelerate" and arguments[:1] == ["launch"]:
        launched = launch_command_parser().parse_args(arguments[1:])
    elif name == "torchrun":
        launched = get_args_parser().parse_args(arguments)
    else:
        return None
    return launched.training_script, launched.training_script_args


def check_call(program: str, arguments: list[str], is_complete: bool = True) -> None:
    """Read the arguments of a program of this repository as it would, and do no more.

    Args:
        program (`str`): a file or a module. A module of another package is not checked.
        arguments (`list[str]`): what stands behind it.
        is_complete (`bool`): `False` if options that the program needs may be missing.

    Raises:
        FileNotFoundError: if there is no such program.
        SystemExit: if the program refuses its arguments.
        ValueError: if an option stands nowhere in a program whose parser cannot be had.
    """
    if program.endswith(".py"):
        file = Path(program).resolve() if Path(program).is_file() else ROOT / program
        module = f"diffusers_ext.training.{file.stem}" if program.startswith("training/") else None
    elif program.partition(".")[0] in ("diffusers_ext", "tests"):
        spec = importlib.util.find_spec(program)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{program}.__main__")
        if spec is None:
            raise FileNotFoundError(f"There is no module {program}.")
        file, module = Path(spec.origin), spec.name
    else:
        return
    parser = command_parser(file)
    if isinstance(parser, OptionParser):
        config_class = parser.config_class
        if module is not None:
            # The class of the quick help does not check its values.
            config_class = getattr(importlib.import_module(module), config_class.__name__)
        if is_complete and not {"-h", "--help"} & set(arguments):
            parse_config(config_class, arguments)
        else:
            parser.parse_args(arguments)
    elif isinstance(parser, argparse.ArgumentParser):
        parser.parse_args(arguments)
    else:
        texts = {node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)}
        unknown = [text for text in arguments if text.startswith("--") and text.partition("=")[0] not in texts]
        if unknown:
            raise ValueError(f"{program} does not know {', '.join(unknown)}.")
