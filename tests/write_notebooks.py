"""Writes the notebooks of examples/notebooks from tutorials: `python -m tests.write_notebooks`.

The text of a tutorial becomes text, and its blocks become cells. Whoever opens a notebook has the installed package,
and no clone: commands run as `-m diffusers_ext.training.train_x`, and cells in front of them write the files of
examples/ that they need.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.blocks import NAMED_FILE, ROOT, Block, read_blocks


FOLDER = ROOT / "examples" / "notebooks"

# The tutorial of each notebook, and which of its sections the notebook leaves out.
NOTEBOOKS = {
    "digits_from_noise": ("digits_from_noise", ()),
    "palette_photos": ("palette_photos", ()),
    "gan_latent_walk": ("gan_latent_walk", ("WGAN-GP",)),
    "dreambooth_lora": ("personalisation", ("Textual inversion", "ControlNet")),
    "publish": ("publish", ()),
}

INSTALL = "%pip install -q diffusers_ext"
HEADER = "*Made from [{page}]({link}). In Colab, choose a runtime with a GPU; a CPU takes some minutes.*"
EXAMPLE_FILE = re.compile(r"examples/[\w./]+\.(?:yaml|py)")
RECIPE = re.compile(r"training/(\w+)\.py")
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#]+)")


def notebook(page: Path, left_out: tuple[str, ...]) -> dict:
    """The notebook of a tutorial, in the format of Jupyter."""
    header = HEADER.format(page=page.stem, link=os.path.relpath(page, FOLDER))
    cells, written, is_kept = [text_cell(header), code_cell(INSTALL, "install")], set(), True
    for piece in pieces(page):
        if isinstance(piece, Block):
            cells += block_cells(piece, written) if is_kept else []
            continue
        for section in re.split(r"^(?=#+ )", piece, flags=re.MULTILINE):
            title = re.match(r"#+ (.+)", section)
            is_kept = title[1] not in left_out if title else is_kept
            if is_kept and section.strip():
                cells.append(text_cell(LINK.sub(lambda match: moved(match[1], page), section)))
    cells = [{**cell, "id": f"cell-{number}"} for number, cell in enumerate(cells)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def pieces(page: Path) -> Iterator[str | Block]:
    """The text and the blocks of a page, in order."""
    lines, end = page.read_text(encoding="utf-8").splitlines(keepends=True), 0
    for block in read_blocks(page):
        yield "".join(lines[end : block.line - 1 - (block.mark is not None)])
        yield block
        end = block.line + block.code.count("\n") + 1
    yield "".join(lines[end:])


def moved(target: str, page: Path) -> str:
    """A link of a page, as a link of a notebook."""
    return os.path.relpath(page.parent / target, FOLDER)


def file_cells(name: str, written: set[str]) -> list[dict]:
    """Cells that write a file of examples/, and before it the files that it imports; none if they did so before."""
    if name in written:
        return []
    written.add(name)
    source = (ROOT / name).read_text(encoding="utf-8")
    folder = os.path.dirname(name)
    neighbours = [f"{folder}/{module}.py" for module in re.findall(r"^from (\w+) import", source, re.MULTILINE)]
    cells = []
    for neighbour in neighbours:
        if (ROOT / neighbour).is_file():
            cells += file_cells(neighbour, written)
    return [*cells, code_cell(f"import os\n\nos.makedirs({folder!r}, exist_ok=True)"), writing_cell(name, source)]


def block_cells(block: Block, written: set[str]) -> list[dict]:
    """The cells of a block. What is not to be run stays text."""
    name = NAMED_FILE.match(block.code)
    if block.mark == "no" or (block.language == "yaml" and not name):
        return [text_cell(f"```{block.language}\n{block.code}```")]
    if name:
        return [writing_cell(name[1], block.code)]
    tags = ["hub"] if block.mark == "hub" else []
    if block.language == "python":
        return [code_cell(block.code, *tags)]
    files = [cell for file in EXAMPLE_FILE.findall(block.code) for cell in file_cells(file, written)]
    command = RECIPE.sub(r"-m diffusers_ext.training.\1", block.code)
    return [*files, code_cell(f"%%bash\n{command}", *tags)]


def writing_cell(name: str, content: str) -> dict:
    return code_cell(f"%%writefile {name}\n{content}")


def text_cell(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": lines(text)}


def code_cell(code: str, *tags: str) -> dict:
    metadata = {"tags": list(tags)} if tags else {}
    return {"cell_type": "code", "execution_count": None, "metadata": metadata, "outputs": [], "source": lines(code)}


def lines(text: str) -> list[str]:
    return text.strip().splitlines(keepends=True)


def written_notebooks() -> dict[Path, str]:
    """The text of each notebook's file."""
    found = {}
    for name, (page, left_out) in NOTEBOOKS.items():
        content = notebook(ROOT / "docs" / "tutorials" / f"{page}.md", left_out)
        found[FOLDER / f"{name}.ipynb"] = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return found


if __name__ == "__main__":
    for path, text in written_notebooks().items():
        path.write_text(text, encoding="utf-8")
