"""Single definitions of this package's modules, executed without the imports that their modules begin with.

The options of a training command are plain dataclasses, but their modules import PyTorch, Diffusers and more, which
takes seconds. `--help` needs the dataclasses alone: [`definition`] executes the class, and each name that its
statement uses when that name is looked up, here or in the module that it is imported from.

A class that is made in this way is another one than the class of the imported module: use it to read it.
"""

import ast
import builtins
import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from diffusers_ext.exports import exports


PACKAGE = __name__.partition(".")[0]


def definition(module: str, name: str) -> Any:
    """What `name` is in `module`: a class, a function or another value.

    Args:
        module (`str`): a module of this package, which is read and not imported; any other module is imported.
        name (`str`): a name that a statement at the top of the module binds.

    Raises:
        ImportError, AttributeError: if there is no such module or name.
    """
    names = _names(module)
    return getattr(importlib.import_module(module), name) if names is None else names[name]


class Names(dict):
    """The names of a module, each of which is made when it is looked up for the first time.

    Args:
        module (`str`): the name of the module.
        source (`str`): its text.
    """

    def __init__(self, module: str, source: str):
        tree = ast.parse(source)
        super().__init__(__name__=module, __doc__=ast.get_docstring(tree), __builtins__=builtins)
        self._statements: dict[str, list[ast.stmt]] = {}
        for statement in tree.body:
            for name in _bound(statement):
                self._statements.setdefault(name, []).append(statement)

    def __missing__(self, name: str) -> Any:
        if name not in self._statements:
            if hasattr(builtins, name):
                raise KeyError(name)
            # Bound in another way, for example by an `if`, a loop or a `__getattr__` of the module.
            self[name] = getattr(importlib.import_module(self["__name__"]), name)
            return self[name]
        for statement in self._statements[name]:
            if isinstance(statement, ast.ImportFrom):
                self[name] = self._imported(statement, name)
            else:
                self._execute(statement)
        return self[name]

    def _imported(self, statement: ast.ImportFrom, name: str) -> Any:
        module = importlib.util.resolve_name("." * statement.level + (statement.module or ""), self._package())
        original = next(alias.name for alias in statement.names if name in (alias.asname, alias.name))
        return definition(module, original)

    def _package(self) -> str:
        module = self["__name__"]
        file = _file(module)
        return module if file is not None and file.name == "__init__.py" else module.rpartition(".")[0]

    def _execute(self, statement: ast.stmt) -> None:
        statement = _WithoutUnusedTypes().visit(statement)
        # The body of a class looks names up in its globals without asking `__missing__`.
        for used in _used_at_once(statement):
            if used in self._statements and used not in self:
                self[used]
        code = compile(ast.Module([statement], type_ignores=[]), self["__name__"], "exec", dont_inherit=True)
        exec(code, self)


class _WithoutUnusedTypes(ast.NodeTransformer):
    """Removes the types of arguments, results and constants, which would import what they name."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        # The types of a dataclass's fields are used.
        node.body = [child if isinstance(child, ast.AnnAssign) else self.visit(child) for child in node.body]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.Assign:
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node


def _bound(statement: ast.stmt) -> list[str]:
    """The names that a statement at the top of a module binds."""
    if isinstance(statement, ast.Import):
        return [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        return [alias.asname or alias.name for alias in statement.names]
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return []


def _used_at_once(statement: ast.stmt) -> list[str]:
    """The names that a statement uses when it is executed: all but those in the bodies of functions."""
    found, nodes = [], [statement]
    while nodes:
        node = nodes.pop(0)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.append(node.id)
        body = node.body if isinstance(node, ast.FunctionDef) else ()
        nodes += [child for child in ast.iter_child_nodes(node) if child not in body]
    return found


@functools.cache
def _names(module: str) -> Names | None:
    """The names of a module of this package; `None` for any other module."""
    file = _file(module)
    if file is None:
        return None
    names = Names(module, file.read_text(encoding="utf-8"))
    if file.with_suffix(".pyi").is_file():
        for name, source in exports(module).items():
            names._statements.setdefault(name, [ast.ImportFrom(source, [ast.alias(name)], level=0)])
    return names


def _file(module: str) -> Path | None:
    """The file of a module of this package, found without importing it or the packages that it is in."""
    package, _, path = module.partition(".")
    if package != PACKAGE or not path:
        return None
    room, *rest = path.split(".")
    spec = importlib.util.find_spec(f"{package}.{room}")
    if spec is None or not spec.submodule_search_locations:
        return Path(spec.origin) if spec is not None and not rest else None
    for folder in spec.submodule_search_locations:
        for file in (Path(folder, *rest, "__init__.py"), Path(folder, *rest).with_suffix(".py")):
            if file.is_file():
                return file
    return None
