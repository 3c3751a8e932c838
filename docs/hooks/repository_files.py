"""Files of the repository that a page links to (`../examples/digits.yaml`) become files of the site.

So the links of a page work in the repository and on the site, and a strict build finds those that lead nowhere.
Markdown files are shown as pages, and all others as they are.
"""

import os
import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"""(?P<before>\]\(|(?:src|href)=["'])(?P<target>[^)\s#"'<>]+)""")
PICTURES = {".png", ".jpg", ".gif", ".svg"}


def uri(path: Path) -> str:
    """Where mkdocs finds a file of the repository, seen from docs/."""
    return path.relative_to(DOCS).as_posix() if DOCS in path.parents else f"repository/{path.relative_to(ROOT)}"


def home(file: File) -> Path:
    """The file of the repository that a file of the site was made from."""
    name = file.src_uri.removeprefix("repository/")
    return ROOT / name if name != file.src_uri else DOCS / name


def linked(page: File, target: str) -> Path | None:
    """The file of the repository that a link of a page leads to."""
    path = Path(os.path.normpath(home(page).parent / target))
    return path if path.is_file() and ROOT in path.parents else None


def on_files(files, config):
    pages = [file for file in files if file.is_documentation_page()]
    pages += [add(files, config, ROOT / name) for name in ("README.md", "CONTRIBUTING.md")]
    for page in pages:  # grows while it runs
        for link in LINK.finditer(page.content_string):
            path = linked(page, link["target"])
            if path and uri(path) not in files.src_uris and DOCS not in path.parents:
                file = add(files, config, path)
                pages += [file] if file.is_documentation_page() else []
    return files


def add(files, config, path: Path) -> File:
    file = File.generated(config, uri(path), abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV)
    if path.suffix not in PICTURES | {".md"}:
        file.dest_uri += ".txt"  # browsers show it, instead of saving it
    files.append(file)
    return file


def on_page_markdown(markdown, page, config, files):
    def on_site(link: re.Match) -> str:
        path = linked(page.file, link["target"])
        target = os.path.relpath(uri(path), os.path.dirname(page.file.src_uri)) if path else link["target"]
        return link["before"] + target

    return LINK.sub(on_site, markdown)
