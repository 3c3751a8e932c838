"""Captions of a data set: a column with one text, or several texts, per image."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from datasets import ClassLabel, Features, LargeList, List, Value

from diffusers_ext.data.decoding import image_path
from diffusers_ext.data.randomness import derive_seed


class MissingCaptionError(ValueError):
    """Some images have no caption."""

    def __init__(self, what: str, column: str, first: str | None = None):
        where = f"column {column!r}" + (f", first {first}" if first else "")
        super().__init__(f"{what} in {where}: add the captions, remove the images, or choose another column")


@dataclass(frozen=True)
class Captions:
    """The texts that describe each image.

    Attributes:
        texts: all different texts, in the order of their first appearance.
        ids: int64 (M,), the indices into `texts` of the captions of all images, one image after the other.
        starts: int64 (N,), where the captions of each image start in `ids`.
        counts: int64 (N,), the number of captions of each image, at least one.
    """

    texts: list[str]
    ids: torch.Tensor
    starts: torch.Tensor
    counts: torch.Tensor

    @classmethod
    def of_rows(cls, rows: Iterable[Sequence[str]]) -> "Captions":
        """Captions from the texts of each image."""
        known: dict[str, int] = {}
        ids, counts = [], []
        for texts in rows:
            ids += [known.setdefault(text, len(known)) for text in texts]
            counts.append(len(texts))
        counts = torch.tensor(counts, dtype=torch.int64)
        return cls(list(known), torch.tensor(ids, dtype=torch.int64), counts.cumsum(0) - counts, counts)

    def select(self, rows: Sequence[int]) -> "Captions":
        """The captions of the images `rows`; `texts` does not change."""
        return replace(self, starts=self.starts[rows], counts=self.counts[rows])

    def of_row(self, row: int) -> list[str]:
        """All texts of an image."""
        start = self.starts[row]
        return [self.texts[index] for index in self.ids[start : start + self.counts[row]].tolist()]

    def first(self, rows: torch.Tensor) -> torch.Tensor:
        """The index into `texts` of the first caption of each image in `rows`: int64, of the shape of `rows`."""
        return self.ids[self.starts[rows]]

    def draw(self, rows: torch.Tensor, epochs: Sequence[int], seed: int) -> torch.Tensor:
        """A random caption for each visit to an image, as an index into `texts`: int64 (B,)."""
        counts, chosen = self.counts[rows].tolist(), []
        for row, epoch, count in zip(rows.tolist(), epochs, counts, strict=True):
            chosen.append(choose(count, seed, epoch, row))
        return self.ids[self.starts[rows] + torch.tensor(chosen, dtype=torch.int64)]


def choose(count: int, seed: int, epoch: int, index: int) -> int:
    """Chooses one of `count` captions for image `index` in an epoch: uniformly, as a function of the arguments."""
    return derive_seed(seed, "caption", epoch, index) * count >> 63 if count > 1 else 0


def check_caption_column(features: Features, caption_column: str) -> None:
    """Raises ValueError unless the column exists and has texts, lists of texts, or classes with names."""
    if caption_column not in features:
        raise ValueError(
            f"there is no caption column {caption_column!r}, the columns are {', '.join(features)}; the captions of a "
            f"folder of images are read from metadata.jsonl or .csv, or from a .txt file beside each image (column "
            f"'text')"
        )
    feature = features[caption_column]
    if isinstance(feature, ClassLabel) or _is_text(feature):
        return
    if not (isinstance(feature, (List, LargeList)) and _is_text(feature.feature)):
        raise ValueError(f"the caption column {caption_column!r} has {feature}, not text or lists of text")


def _is_text(feature: Any) -> bool:
    return isinstance(feature, Value) and re.fullmatch(r"(large_)?string", feature.dtype) is not None


def read_captions(value: Any, feature: Any) -> list[str]:
    """The texts of a row, unchanged; null and texts of white space only are left out."""
    if isinstance(feature, ClassLabel):
        return [] if value is None or value < 0 else [feature.int2str(value)]
    texts = value if isinstance(value, list) else [value]
    return [text for text in texts if text is not None and text.strip()]


def load_captions(values: Sequence[Any], feature: Any, column: str, images: Sequence[Any]) -> Captions:
    """The captions of all rows.

    Args:
        values: the values of the column.
        feature: the type of the column.
        column: the name of the column.
        images: the values of the image column.

    Raises:
        MissingCaptionError: if an image has no caption.
    """
    rows = [read_captions(value, feature) for value in values]
    missing = [row for row, texts in enumerate(rows) if not texts]
    if missing:
        first = image_path(images[missing[0]]) or f"row {missing[0]}"
        raise MissingCaptionError(f"{len(missing)} of {len(rows)} images have no caption", column, first)
    return Captions.of_rows(rows)
