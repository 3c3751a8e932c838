"""Options as argparse reads them and as `--help` shows them, from a dataclass whose fields have help texts.

`--help` must not wait for PyTorch (see [`quick_help`]), so nothing here imports it.
"""

import dataclasses
import difflib
import inspect
import json
import shutil
import textwrap
import types
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Literal, Union, get_args, get_origin, get_type_hints


FIRST = "The options that matter first"
# The sections of the help, in their order; before them stand the essential options of all sections.
GROUPS = {
    "data": "Data",
    "network": "Network",
    "objective": "Objective",
    "optimisation": "Optimisation",
    "speed": "Speed and memory",
    "output": "Output",
    "evaluation": "Evaluation",
    "publishing": "Publishing",
}
OWN_GROUP = "objective"  # of the options of a recipe that name no group


class JSONObject(dict):
    """A dict that argparse can build from a JSON text."""

    def __init__(self, value: str | dict = ()):
        super().__init__(json.loads(value) if isinstance(value, str) else value)


def option(default=None, *, help: str, group: str | None = None, essential: bool = False):
    """A dataclass field with a help text; mutable defaults are copied for each instance.

    Args:
        default: the value if the option is not given.
        help (`str`): a sentence for people who don't know the option.
        group (`str`, *optional*): the section of the help, a key of `GROUPS`; by default the `option_group` of the
            class that declares the option, or the section of the option in the base class that it replaces.
        essential (`bool`): whether the option is among the few that the help shows first. An option that replaces an
            essential one is essential.
    """
    metadata = {"help": help, "group": group, "essential": essential}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class OptionParser(ArgumentParser):
    """The parser of a command, which reads the fields of a dataclass; `--an-option` is read like `--an_option`.

    Args:
        config_class (`type`): a dataclass whose fields are made by [`option`].
        description (`str`, *optional*): what the command does.
        prog (`str`, *optional*): the name of the command.
    """

    def __init__(self, config_class: type, description: str | None = None, prog: str | None = None):
        super().__init__(prog, "%(prog)s [--config FILE] [--OPTION VALUE ...]", description, allow_abbrev=False)
        self.config_class = config_class
        self.add_argument("--config", help="A YAML file with any of these options.")
        types_ = get_type_hints(config_class)
        for field_ in dataclasses.fields(config_class):
            self._add_option(field_.name, types_[field_.name], _default(field_))

    def _add_option(self, name: str, type_: type, default) -> None:
        type_ = _without_none(type_)
        keywords = {"type": type_}
        if type_ is bool:
            keywords = {"type": _boolean, "nargs": "?", "const": True}
        elif get_origin(type_) is Literal:
            keywords = {"type": _choice(get_args(type_)), "choices": get_args(type_)}
        elif get_origin(type_) is list:
            keywords = {"type": get_args(type_)[0], "nargs": "+"}
        self.add_argument(*_spellings(name), dest=name, default=default, **keywords)
        if type_ is bool and default is True:
            self.add_argument(*_spellings(f"no_{name}"), dest=name, action="store_false", default=default)

    def parse_args(self, args: list[str] | None = None, namespace=None):
        """As in argparse, but an unknown option is named together with the nearest option that there is."""
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            names = [argument.split("=")[0] for argument in unknown if argument.startswith("--")]
            guesses = [name + nearest(name, self._option_string_actions) for name in names]
            self.error(f"no option is called {', '.join(guesses)}" if names else f"no option takes {unknown[0]!r}")
        return namespace

    def format_help(self) -> str:
        """The help: the usage, what the command does, the essential options, and the others in sections."""
        text = [self.format_usage()]
        if self.description:
            text.append(inspect.cleandoc(self.description) + "\n")
        sections = {FIRST: ["  --config FILE\n" + _indented("A YAML file of options.")]}
        sections |= {title: [] for title in GROUPS.values()}
        types_ = get_type_hints(self.config_class)
        for field_ in dataclasses.fields(self.config_class):
            group, essential = place(self.config_class, field_.name)
            section = FIRST if essential else GROUPS[group]
            sections[section].append(_entry(field_, _without_none(types_[field_.name])))
        text += [f"{title}:\n" + "\n".join(entries) + "\n" for title, entries in sections.items() if entries]
        return "\n".join(text)


def nearest(name: str, known: Iterable[str]) -> str:
    """What to add to an error about an unknown name: the known name that is most like it, if one is."""
    matches = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f" (did you mean {matches[0]}?)" if matches else ""


def place(config_class: type, name: str) -> tuple[str, bool]:
    """The group of an option, and whether it is essential: what the class says that declares it, or its bases."""
    declared, essential = None, False
    for class_ in reversed(config_class.__mro__):
        if name in inspect.get_annotations(class_):
            metadata = class_.__dataclass_fields__[name].metadata
            declared = metadata["group"] or declared or vars(class_).get("option_group")
            essential = essential or metadata["essential"]
    return declared or OWN_GROUP, essential


def _entry(field_: dataclasses.Field, type_: type) -> str:
    default = _default(field_)
    shown = (
        "" if default is None or default in ([], {}) or default is False else f" [{' '.join(as_arguments(default))}]"
    )
    flag = f"--{field_.name}" + (f", --no_{field_.name}" if default is True else f" {_metavar(type_)}".rstrip())
    return f"  {flag}\n" + _indented(field_.metadata["help"] + shown)


def _indented(text: str) -> str:
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    return textwrap.fill(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)


def as_arguments(value) -> list[str]:
    """The arguments after an option's name that set it to this value."""
    values = value if isinstance(value, list) else [value]
    return [json.dumps(part, ensure_ascii=False) if isinstance(part, dict) else str(part) for part in values]


def _metavar(type_: type) -> str:
    if get_origin(type_) is Literal:
        return "|".join(map(str, get_args(type_)))
    if get_origin(type_) is list:
        return f"{_metavar(get_args(type_)[0])} ..."
    names = {bool: "", int: "INTEGER", float: "NUMBER", str: "TEXT"}
    return names.get(type_, "JSON" if issubclass(type_, dict) else type_.__name__.upper())


def _default(field_: dataclasses.Field):
    return field_.default if field_.default_factory is dataclasses.MISSING else field_.default_factory()


def _without_none(type_: type) -> type:
    """`int` of `int | None`."""
    if get_origin(type_) in (Union, types.UnionType):
        (type_,) = (part for part in get_args(type_) if part is not type(None))
    return type_


def _spellings(name: str) -> list[str]:
    return list(dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"]))


def _choice(choices: tuple) -> Callable[[str], object]:
    by_text = {str(choice): choice for choice in choices}
    return lambda text: by_text.get(text, text)  # argparse refuses what is no choice


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("yes", "true", "t", "y", "1"):
        return True
    if lowered in ("no", "false", "f", "n", "0"):
        return False
    raise ArgumentTypeError(f"must be true or false, not {text!r}")
