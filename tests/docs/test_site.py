"""The documentation site builds without a warning, needs nothing from the network, and has no dead link."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from diffusers_ext.exports import exports


ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """The anchors of a page, its links, and what a browser fetches to show it."""

    def __init__(self, file: Path):
        super().__init__()
        self.anchors, self.links, self.fetched = set(), set(), set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag == "a" and attributes.get("href"):
            self.links.add(attributes["href"])
        is_link = tag == "link" and attributes["rel"] != "canonical"
        sources = [attributes.get("src"), attributes.get("href") if is_link else None]
        self.fetched |= {source for source in sources if source}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html") if file.name != "404.html"}


def test_nothing_is_fetched_from_the_network(pages):
    assert not {source for page in pages.values() for source in page.fetched if urlsplit(source).netloc}


def test_no_link_is_dead(pages):
    dead = []
    for file, page in pages.items():
        for link in page.links | page.fetched:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(address.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                dead.append(f"{file.name}: {link}")
    assert not dead


def test_every_public_name_is_in_the_api(site):
    written = "".join(file.read_text(encoding="utf-8") for file in (site / "api").glob("*.html"))
    anchors = set(re.findall(r'id="(diffusers_ext\.[\w.]+)"', written))
    assert {name.rpartition(".")[2] for name in anchors} >= set(exports("diffusers_ext"))


def test_every_page_can_be_reached(site, pages):
    start = site / "index.html"
    navigation = {(site / urlsplit(link).path).resolve() for link in pages[start].links}
    assert {file for file in pages if file.relative_to(site).parts[0] != "repository"} <= navigation
