"""The pages of the API: one for each room, with all names that it exports, found by listing."""

import ast
import functools
import re
import tempfile
from pathlib import Path

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File

from diffusers_ext.exports import exports


ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "diffusers_ext"
folder = None  # keeps the temporary folder of a build


def rooms() -> list[str]:
    return sorted({module.removeprefix("diffusers_ext.") for module in exports("diffusers_ext").values()})


@event_priority(100)  # before mkdocstrings reads its options
def on_config(config):
    """mkdocstrings reads files without importing them: here the package lies as it does where it is installed."""
    global folder
    folder = tempfile.TemporaryDirectory()
    package = Path(folder.name) / "diffusers_ext"
    package.mkdir()
    for path in [*PACKAGE.iterdir(), ROOT / "pipelines", ROOT / "training"]:
        if path.suffix != ".pyi":
            (package / path.name).symlink_to(path)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [folder.name]
    for entry in config.nav:
        if entry.get("API") == "api/":
            entry["API"] = [{room: f"api/{room}.md"} for room in rooms()]
    return config


def on_files(files, config):
    for room in rooms():
        files.append(File.generated(config, f"api/{room}.md", content=page(room)))
    return files


def page(room: str) -> str:
    text = f"# {room}\n\n{ast.get_docstring(tree(room))}\n"
    for name, path in paths(room).items():
        text += f"\n::: {path}\n    options:\n      heading: {name}\n"
    return text


def on_page_content(html, page, config, files):
    """diffusers' way to name a class in a docstring, [`GANPipeline`], becomes a link to it."""
    anchors = {name: path for room in rooms() for name, path in paths(room).items()}
    homes = {name: room for room in rooms() for name in paths(room)}

    def link(found: re.Match) -> str:
        name = found[1]
        return (
            f'<a href="{homes[name]}.html#{anchors[name]}"><code>{name}</code></a>'
            if name in homes
            else f"<code>{name}</code>"
        )

    return re.sub(r"\[<code>~?([\w.]+)</code>\]", link, html) if page.file.src_uri.startswith("api/") else html


@functools.cache
def paths(room: str) -> dict[str, str]:
    """The public names of a room, and where each is written; constants come last."""
    modules = exports(f"diffusers_ext.{room}")
    names = sorted(modules, key=lambda name: (name.isupper(), name.lower()))
    return {name: completed(room).get(name, f"{modules[name]}.{name}") for name in names}


def completed(room: str) -> dict[str, str]:
    """Classes that a room only completes (`class X(Mixin, module.X): ...`), and the class that says what they do."""
    classes = [node for node in tree(room).body if isinstance(node, ast.ClassDef)]
    bases = {node.name: base for node in classes for base in node.bases if isinstance(base, ast.Attribute)}
    return {name: f"diffusers_ext.{room}.{ast.unparse(base)}" for name, base in bases.items()}


def tree(room: str) -> ast.Module:
    folder = ROOT if (ROOT / room).is_dir() else PACKAGE
    return ast.parse((folder / room / "__init__.py").read_text(encoding="utf-8"))
