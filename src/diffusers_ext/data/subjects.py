"""A captioned data set of one or several subjects: the few photographs for the personalisation of a model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from datasets import Dataset, concatenate_datasets

from diffusers_ext.data.buckets import Size
from diffusers_ext.data.captions import Captions
from diffusers_ext.data.indexed import IndexedImageDataset
from diffusers_ext.data.loading import build_transform
from diffusers_ext.data.sources import Source, open_source


@dataclass(frozen=True)
class Subject:
    """A subject, such as a pet or a style, and where its images are.

    Attributes:
        prompt: the caption of the images, if they have no captions of their own.
        train_data_dir, dataset_name, dataset_config_name: where the images are, as in `load_image_dataset`.
    """

    prompt: str | None
    train_data_dir: str | None = None
    dataset_name: str | None = None
    dataset_config_name: str | None = None


def load_subjects(
    subjects: Sequence[Subject],
    resolution: int | Sequence[int] = 64,
    channels: int = 3,
    center_crop: bool = False,
    random_flip: bool = False,
    skip_unreadable_images: bool = False,
    cache_images: bool | None = None,
    verify_images: bool = False,
    buckets: Sequence[Size] | None = None,
    load_size: int | Sequence[int] | None = None,
    caption_column: str | None = None,
    **where,
) -> IndexedImageDataset:
    """Load the images of all subjects as one data set, whose `class_labels` are the numbers of the subjects.

    All arguments apply to all subjects; see `load_image_dataset` for those that are not listed here.

    Args:
        subjects: at least one subject.
        caption_column: the column with captions of the images; None uses the prompts of the subjects.
        where: `split`, `image_column` and `cache_dir` of `load_image_dataset`.

    Raises:
        ValueError: if a subject has neither a prompt nor captions, or if images are stored in different ways.
        FileNotFoundError: see `load_image_dataset`.
    """
    sources = [_open(subject, caption_column, where) for subject in subjects]
    counts = torch.tensor([len(source.rows) for source in sources])
    names = [subject.prompt or subject.train_data_dir or subject.dataset_name for subject in subjects]
    merged = replace(
        sources[0],
        rows=_rows(sources),
        labels=torch.repeat_interleave(torch.arange(len(sources)), counts),
        id2label=dict(enumerate(names)) if len(subjects) > 1 else None,
        captions=Captions.of_rows(
            texts for source in sources for texts in map(source.captions.of_row, range(len(source.rows)))
        ),
    )
    transform = build_transform(resolution, center_crop, random_flip, load_size, buckets)
    return IndexedImageDataset(merged, transform, channels, skip_unreadable_images, cache_images, verify_images)


def _open(subject: Subject, caption_column: str | None, where: dict) -> Source:
    source = open_source(
        subject.dataset_name,
        subject.dataset_config_name,
        subject.train_data_dir,
        label_column="none",
        caption_column=caption_column,
        **where,
    )
    if caption_column is not None:
        return source
    if not (subject.prompt or "").strip():
        raise ValueError(
            f"the images of {subject.train_data_dir or subject.dataset_name!r} need a prompt or a column of captions"
        )
    return replace(source, captions=Captions.of_rows([subject.prompt] for _ in range(len(source.rows))))


def _captions(source: Source) -> Iterable[list[str]]:
    return map(source.captions.of_row, range(len(source.rows)))


def _rows(sources: list[Source]) -> Dataset:
    """The rows of all sources, one source after the other."""
    features = [source.rows.features for source in sources]
    if any(other != features[0] for other in features[1:]):
        raise ValueError(f"the images of all subjects must be stored in the same way; only some are {features[0]}")
    return concatenate_datasets([source.rows for source in sources])
