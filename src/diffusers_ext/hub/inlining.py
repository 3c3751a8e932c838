"""The published form of a Python file: with what it imports from files beside it, and on its own in every process.

The pipelines, models and schedulers of this package share parts: `from .labels import look_up_labels`. Diffusers does
not download parts of models from the Hub, and it runs all files with the same name in one module, even from different
repositories. So a published file has no parts, but the definitions that it needs from them above its own. And it
leaves a copy of its module to the next file of its name, which would otherwise replace functions that it still uses.
Its classes keep the text of the file, so that a pipeline which is saved again brings its code along
([`diffusers_ext.hub.resaving`]).
"""

import ast
import builtins
import itertools
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


OWN_MODULE = """\
# When a pipeline is saved again, the text of this file is saved with it.
for published in [value for value in globals().values() if getattr(value, "__module__", None) == __name__]:
    if isinstance(published, type):
        published.published_code = pathlib.Path(__file__).read_text(encoding="utf-8")

# Diffusers runs all files with the same name in one module, even different versions. The next file gets this copy.
sys.modules[__name__] = types.ModuleType(__name__)
vars(sys.modules[__name__]).update(globals())
"""
CLOSING_IMPORTS = ("pathlib", "sys", "types")
RESAVING = Path(__file__).with_name("resaving.py")
LINE_LENGTH = 119
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def inline(file: Path, pipeline_class: str | None = None) -> str:
    """
    The text of a Python file as it is published.

    It begins with the docstring of the file, followed by all imports, the needed definitions of each part in the order
    in which parts depend on each other, and the code of the file. Comments and docstrings are kept.

    Args:
        file (`Path`): the file. It may import parts by `from .name import something` at its top; so may parts.
        pipeline_class (`str`, *optional*): the pipeline class in the file, which then saves its code with itself.

    Raises:
        ValueError: if the result would not work on its own: for imports of this package, and relative imports of
            another form; and if a name would have two meanings in it.
    """
    bundle = Bundle(Source(file))
    if pipeline_class is not None:
        bundle.add(Source(RESAVING), ["keep_code"])
    bundle.check_names()
    imports = format_imports(set().union(*bundle.kept_imports.values()))
    opening = "\n\n".join(text for text in (bundle.main.head, imports) if text)
    closing = OWN_MODULE if pipeline_class is None else f"keep_code({pipeline_class})\n{OWN_MODULE}"
    return "\n\n\n".join([opening, *bundle.format_parts(), format_statements(bundle.main.statements), closing])


@dataclass(frozen=True)
class Import:
    """One name that a file imports: `import module as alias`, or `from module import name as alias`."""

    module: str
    name: str | None
    alias: str | None

    @property
    def bound(self) -> str:
        return self.alias or self.name or self.module.split(".")[0]

    @property
    def meaning(self) -> tuple:
        return (self.module, self.name) if self.alias or self.name else (self.bound, None)


@dataclass(frozen=True, eq=False)
class Statement:
    """
    A statement at the top level of a file.

    Attributes:
        node (`ast.stmt`): the statement.
        text (`str`): the statement as it is written, with the comments above it.
        blank_lines (`int`): the number of blank lines above that.
        previous (`ast.stmt`, *optional*): the statement before it.
    """

    node: ast.stmt
    text: str
    blank_lines: int
    previous: ast.stmt | None

    @cached_property
    def defined_names(self) -> set[str]:
        if isinstance(self.node, DEFINITIONS):
            return {self.node.name}
        nodes = list(ast.walk(self.node))
        stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        return stored | {node.name for node in nodes if isinstance(node, DEFINITIONS)}

    @cached_property
    def used_names(self) -> set[str]:
        return {node.id for node in ast.walk(self.node) if isinstance(node, ast.Name)}


class Source:
    """
    A Python file, taken apart.

    Attributes:
        head (`str`): the docstring, with comments above it, or the comments above the first import.
        statements (`list[Statement]`): all but the docstring and imports.
        imports (`list[Import]`): the imports of other packages.
        parts (`dict[str, Path]`): the part that each name is imported from.
    """

    def __init__(self, path: Path):
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.head, self.statements, self.imports, self.parts = "", [], [], {}
        tree, lines, end = ast.parse(self.text), self.text.splitlines(), 0
        self._check_imports(tree)
        self.docstring = ast.get_docstring(tree)
        for i, node in enumerate(tree.body):
            text = "\n".join(lines[end : node.end_lineno] if i + 1 < len(tree.body) else lines[end:])
            blank_lines = len(text) - len(text.lstrip("\n"))
            text, end = text.strip("\n"), node.end_lineno
            if i == 0 and isinstance(node, (ast.Import, ast.ImportFrom)):
                self.head = "\n".join(lines[: node.lineno - 1]).strip("\n")
            if i == 0 and self.docstring is not None:
                self.head = text
            elif isinstance(node, ast.Import):
                self.imports += [Import(alias.name, None, alias.asname) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                self.imports += [Import(node.module, alias.name, alias.asname) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                self.parts |= {alias.name: path.with_name(f"{node.module}.py") for alias in node.names}
            else:
                self.statements.append(Statement(node, text, blank_lines, tree.body[i - 1] if i > 0 else None))

    def _check_imports(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = ["." * node.level + (node.module or "")]
            for module in modules:
                if module.split(".")[0] == "diffusers_ext":
                    raise ValueError(
                        f"{self.path.name} can't be published, because it imports {module}; a published file stands "
                        "alone: it imports torch, diffusers, transformers, PIL, numpy, and parts beside it only."
                    )
                if module.startswith(".") and not self._is_part_import(node, tree):
                    raise ValueError(
                        f"{self.path.name} can't be published, because it imports {module} in another form than "
                        "`from .part import name` at its top, for a file part.py beside it."
                    )

    def _is_part_import(self, node: ast.ImportFrom, tree: ast.Module) -> bool:
        is_file = node.module is not None and self.path.with_name(f"{node.module}.py").is_file()
        has_plain_names = all(alias.name != "*" and alias.asname is None for alias in node.names)
        return node.level == 1 and is_file and has_plain_names and node in tree.body

    def definitions(self, name: str) -> list[Statement]:
        return [statement for statement in self.statements if name in statement.defined_names]


class Bundle:
    """A file with what it needs of its parts, and what those need of theirs."""

    def __init__(self, main: Source):
        self.main = main
        self.sources = {main.path: main}
        self.kept_imports = {main: {*main.imports, *(Import(name, None, None) for name in CLOSING_IMPORTS)}}
        self.kept_statements = {main: set(main.statements)}
        self._need(main, {name for statement in main.statements for name in statement.used_names} | {*main.parts})
        self.parts = [source for source in self._in_order(main, ()) if source is not main]

    def add(self, part: Source, names: list[str]) -> None:
        """Adds definitions of a part that no file imports."""
        self.sources[part.path], self.kept_imports[part], self.kept_statements[part] = part, set(), set()
        self._need(part, names)
        self.parts.append(part)

    def _need(self, source: Source, names: Iterable[str]) -> None:
        for name in names:
            if name in source.parts:
                self._need_of_part(self._part(source.parts[name]), name)
            self.kept_imports[source].update(imported for imported in source.imports if imported.bound == name)
            for statement in source.definitions(name):
                if statement not in self.kept_statements[source]:
                    self.kept_statements[source].add(statement)
                    self._need(source, statement.used_names)

    def _need_of_part(self, part: Source, name: str) -> None:
        imported = [imported.bound for imported in part.imports]
        if name not in imported and name not in part.parts and not part.definitions(name):
            raise ValueError(f"{self.main.path.name} can't be published, because {part.path.name} has no {name}.")
        self._need(part, [name])

    def _part(self, path: Path) -> Source:
        if path not in self.sources:
            part = self.sources[path] = Source(path)
            self.kept_imports[part] = {imported for imported in part.imports if imported.module == "__future__"}
            self.kept_statements[part] = set()
            if self.kept_imports[part] != {i for i in self.main.imports if i.module == "__future__"}:
                raise ValueError(
                    f"{self.main.path.name} can't be published, because it and {path.name} have different imports "
                    "from __future__, which are for a whole file."
                )
        return self.sources[path]

    def _in_order(self, source: Source, importing: tuple[Source, ...]) -> list[Source]:
        """A file and all parts that it needs, each after the parts that it imports from."""
        if source in importing:
            names = ", ".join(part.path.name for part in importing)
            raise ValueError(
                f"{self.main.path.name} can't be published, because files import from each other in a circle: {names}."
            )
        ordered = []
        for path in dict.fromkeys(source.parts.values()):
            if path in self.sources:
                ordered += self._in_order(self.sources[path], (*importing, source))
        return list(dict.fromkeys([*ordered, source]))

    def check_names(self) -> None:
        """Refuses names that mean different things in different files."""
        meanings = {}
        for source in (self.main, *self.parts):
            kept = [(imported.bound, imported.meaning) for imported in self.kept_imports[source]]
            defined = {name for statement in self.kept_statements[source] for name in statement.defined_names}
            for name, meaning in [*kept, *((name, source.path) for name in defined)]:
                is_hiding = source is not self.main and name in defined and hasattr(builtins, name)
                if meanings.setdefault(name, meaning) != meaning or is_hiding:
                    raise ValueError(
                        f"{self.main.path.name} can't be published, because {name} has another meaning in "
                        f"{source.path.name} than elsewhere in the file: give it a name of its own."
                    )

    def format_parts(self) -> Iterator[str]:
        for part in self.parts:
            statements = [statement for statement in part.statements if statement in self.kept_statements[part]]
            if statements:
                yield f"{format_title(part)}\n\n\n{format_statements(statements)}"


def format_statements(statements: list[Statement]) -> str:
    """Statements one below the other, with as many blank lines between neighbours as in their file."""
    texts = [statements[0].text]
    for above, statement in itertools.pairwise(statements):
        blank_lines = statement.blank_lines if statement.previous is above.node else 2
        texts.append("\n" * (blank_lines + 1) + statement.text)
    return "".join(texts)


def format_title(part: Source) -> str:
    """The name and the docstring of a part as a comment."""
    lines = (f"{part.path.name}: {part.docstring}" if part.docstring else part.path.name).splitlines()
    wrapped = [textwrap.wrap(line, LINE_LENGTH - 2) or [""] for line in lines]
    return "\n".join(f"# {line}".rstrip() for lines in wrapped for line in lines)


def format_imports(imports: set[Import]) -> str:
    """Import statements in the order of isort: `__future__`, the standard library, other packages."""
    sections = [[], [], []]
    for imported in imports:
        root = imported.module.split(".")[0]
        sections[0 if root == "__future__" else 1 if root in sys.stdlib_module_names else 2].append(imported)
    return "\n\n".join("\n".join(format_section(section)) for section in sections if section)


def format_section(imports: list[Import]) -> Iterator[str]:
    for imported in sorted((i for i in imports if i.name is None), key=lambda i: i.module.lower()):
        yield f"import {imported.module}" + (f" as {imported.alias}" if imported.alias else "")
    for module in sorted({i.module for i in imports if i.name is not None}, key=str.lower):
        names = sorted((i for i in imports if i.module == module and i.name is not None), key=import_order)
        names = [i.name + (f" as {i.alias}" if i.alias else "") for i in names]
        line = f"from {module} import {', '.join(names)}"
        if len(line) > LINE_LENGTH:
            line = "\n".join([f"from {module} import (", *(f"    {name}," for name in names), ")"])
        yield line


def import_order(imported: Import) -> tuple:
    """Constants, then classes, then functions, as isort sorts them."""
    name = imported.name
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name.lower(), name)
