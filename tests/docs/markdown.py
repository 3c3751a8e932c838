"""Pages taken apart: their text, and the blocks between fences."""

import re
from dataclasses import dataclass
from pathlib import Path


# A block, and on the line above it perhaps a comment that says how it is run.
FENCE = re.compile(
    r"^(?:<!-- run: (?P<mark>[^\n]+?) -->\n)?"
    r'```(?P<language>\w*)(?: title="(?P<title>[^\n"]*)")?\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Block:
    """What stands between fences.

    Attributes:
        language (`str`): such as `python`; empty for a block without.
        code (`str`): the lines, with a line break at the end.
        mark (`str`, *optional*): what the comment above says after `run: `, such as `slow`.
        title (`str`, *optional*): the title that readers see.
    """

    language: str
    code: str
    mark: str | None = None
    title: str | None = None


def pieces(page: Path) -> list[str | Block]:
    """The text and the blocks of a page, in order."""
    text, found, end = page.read_text(encoding="utf-8"), [], 0
    for match in FENCE.finditer(text):
        found += [text[end : match.start()], Block(match["language"], match["code"], match["mark"], match["title"])]
        end = match.end()
    return [piece for piece in [*found, text[end:]] if piece]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [piece for piece in pieces(page) if isinstance(piece, Block)]
