"""Answering `--help` before the imports of a command, which take seconds.

The first import of a command is that of `run` or `parse_config` (the settings of ruff sort it there), and their module
imports this one first. If the program is a command that was asked for help, importing this module prints the help and
ends the process. Nothing else happens here: without this module, the help would be the same, but late.
"""

import ast
import os
import sys
from argparse import ArgumentParser
from pathlib import Path
from types import ModuleType

from diffusers_ext.on_demand import Names
from diffusers_ext.training.loop.options import OptionParser


# Where the class of the options stands among the arguments of the functions that read the command line.
_OPTIONS_OF = {"run": 1, "parse_config": 0}


def command_parser(file: str | Path, prog: str | None = None) -> ArgumentParser | None:
    """The parser of a command, made from its source alone.

    Args:
        file (`str` or `Path`): a Python file. It is a command if it calls `run(..., Config)` or
            `parse_config(Config, ...)`, or has a function `build_parser()`.
        prog (`str`, *optional*): the name of the command in its help.

    Returns:
        `ArgumentParser`, or `None` if the file is no command.
    """
    source = Path(file).read_text(encoding="utf-8")
    tree = ast.parse(source)
    names = Names("__main__", source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _OPTIONS_OF:
            config_class = node.args[_OPTIONS_OF[node.func.id]]
            return OptionParser(names[config_class.id], ast.get_docstring(tree), prog)
        if isinstance(node, ast.FunctionDef) and node.name == "build_parser":
            return names["build_parser"]()
    return None


def answer_help(main: ModuleType, arguments: list[str]) -> None:
    """Print the help of the program `main` and end it, if it is a command, and its arguments ask for that."""
    file = getattr(main, "__file__", None)
    if file is None or not {"-h", "--help"} & set(arguments):
        return
    parser = command_parser(file)
    if parser is not None:
        if os.environ.get("RANK", "0") == "0":
            parser.print_help()
        sys.exit(0)


answer_help(sys.modules["__main__"], sys.argv[1:])
