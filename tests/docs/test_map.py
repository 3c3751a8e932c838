"""The README and the table of all systems keep up with the package."""

import re
from pathlib import Path

import pytest

from diffusers_ext.converters.listing import described_families
from diffusers_ext.exports import exports


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = [line for line in (ROOT / "docs" / "index.md").read_text(encoding="utf-8").splitlines() if line[:1] == "|"][2:]


def column(name: str) -> set[str]:
    """The names in code of a column of the table of systems."""
    number = ["system", "page", "command", "pipeline", "converter", "measured"].index(name)
    cells = [line.strip("|").split("|")[number] for line in TABLE]
    return {word for cell in cells for code in re.findall("`([^`]+)`", cell) for word in code.split()[:1]}


def commands() -> set[str]:
    return {file.stem for file in (ROOT / "training").glob("train_*.py")}


def test_the_table_has_every_command():
    assert column("command") == commands() | {"evaluate_pipeline"}


def test_the_table_has_every_pipeline():
    assert column("pipeline") == {name for name in exports("diffusers_ext.pipelines") if name.endswith("Pipeline")}


def test_the_table_has_every_converter():
    packages = (ROOT / "src" / "diffusers_ext" / "converters").glob("*/__init__.py")
    assert column("converter") == {file.parent.name for file in packages}


def test_the_page_of_converters_has_every_family():
    page = (ROOT / "docs" / "how_to" / "convert_checkpoints.md").read_text(encoding="utf-8")
    first_cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")][1:]
    named = set(re.findall("`([^`]+)`", "".join(first_cells)))
    assert named == set(described_families()), "the table in docs/how_to/convert_checkpoints.md is outdated"


def test_every_row_says_what_was_measured():
    assert not [line for line in TABLE if not line.strip("|").split("|")[-1].strip()]


def test_the_zoo_has_every_recipe():
    zoo = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert not [file.name for file in (ROOT / "examples").glob("*.yaml") if file.name not in zoo]


@pytest.mark.parametrize(("table", "columns"), [("zoo", ("time", "figures")), ("results", ("figure",))])
def test_figures_are_those_of_the_linked_pages(table, columns):
    page = ROOT / "docs" / f"{table}.md"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    titles = [cell.strip() for cell in rows[0].strip("|").split("|")]
    outdated = []
    for row in rows[1:]:
        cells = row.strip("|").split("|")
        linked = [page.parent / link for link in re.findall(r"\]\(([^)#]+\.md)", row)]
        if len(cells) != len(titles) or not linked:
            continue  # a row of another table, or one whose page is this one
        texts = " ".join(path.read_text(encoding="utf-8") for path in linked)
        figures = re.findall(r"(?<![\w.,])-?\d+(?:[.,]\d+)*", " ".join(cells[titles.index(name)] for name in columns))
        outdated += [f"{cells[0].strip()}: {figure}" for figure in figures if figure not in texts]
    assert not outdated


def test_the_readme_has_every_job():
    assert commands() <= set(re.findall(r"\btrain_\w+", README))


def test_the_readme_has_two_screens():
    assert len(README.splitlines()) <= 150


def test_the_links_of_the_readme_lead_to_files():
    links = {link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link}
    assert len(links) > 20 and not {link for link in links if not (ROOT / link).is_file()}


def test_the_picture_of_the_readme_is_small():
    assert (ROOT / "examples" / "contact_sheet.jpg").stat().st_size < 300_000
