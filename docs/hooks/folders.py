"""A folder in the navigation (`tutorials/`) stands for its pages: a new page needs no line in mkdocs.yml."""

import re
from pathlib import Path


INDEXES = ("index.md", "README.md")


def on_config(config):
    entries = [(title, path) for entry in config.nav for title, path in entry.items()]
    listed = {path for _, path in entries if isinstance(path, str)}
    docs = Path(config.docs_dir)
    nav = [(title, pages(docs, path, listed) if str(path).endswith("/") else path) for title, path in entries]
    config.nav = [{title: path} for title, path in nav if path]
    return config


def pages(docs: Path, folder: str, listed: set[str]) -> list[str]:
    """The pages of a folder that have no own entry: those that its index links to, in that order, then others."""
    names = sorted(file.name for file in (docs / folder).glob("*.md"))
    order = [name for name in INDEXES if name in names]
    if order:
        order += re.findall(r"\]\((\w+\.md)", (docs / folder / order[0]).read_text(encoding="utf-8"))
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    return [path for name in names if (path := f"{folder}{name}".removeprefix("./")) not in listed]
