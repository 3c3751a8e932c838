"""The notebooks are those of their tutorials, and run from top to bottom."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.hub.hub_server import HubServer
from tests.write_notebooks import FOLDER, NOTEBOOKS, written_notebooks


def test_notebooks_are_those_of_their_tutorials():
    written = written_notebooks()
    assert set(FOLDER.glob("*.ipynb")) == set(written)
    for path, text in written.items():
        nbformat.validate(nbformat.reads(text, as_version=4))
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is outdated: python -m tests.write_notebooks"


def test_the_install_is_first_and_sections_are_left_out():
    for path, (_, left_out) in NOTEBOOKS.items():
        cells = nbformat.read(FOLDER / f"{path}.ipynb", as_version=4).cells
        assert [cell.source for cell in cells if "install" in cell.metadata.get("tags", ())] == [cells[1].source]
        text = "\n".join(cell.source for cell in cells)
        assert not [title for title in left_out if f"## {title}" in text]
        commands = [cell.source for cell in cells if cell.source.startswith("%%bash")]
        assert commands and not [command for command in commands if " training/" in command]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_runs(tmp_path, monkeypatch, name):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_user")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    with HubServer(tokens={"hf_user": "user"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}})
        client.execute()
    assert hub.repositories or not has_hub_cells(notebook)


def has_hub_cells(notebook) -> bool:
    return any("hub" in cell.metadata.get("tags", ()) for cell in notebook.cells)
