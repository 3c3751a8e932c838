"""A data set of pairs of images, side by side in one file, like the data sets of pix2pix."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from diffusers_ext.data.decoding import UnreadableImageError, image_path
from diffusers_ext.data.image_dataset import ImageDataset
from diffusers_ext.data.indexed import IndexedImageDataset
from diffusers_ext.data.loading import LabelMaps, build_transform, check_label_maps
from diffusers_ext.data.sources import open_source


class SideBySideImageDataset(IndexedImageDataset):
    """A paired set (see `ImageDataset`): the left halves are the conditioning images, the right halves the images."""

    def _decode(self, values: tuple[Any, ...]) -> list[torch.Tensor]:
        (image,) = super()._decode(values)
        width = image.shape[-1]
        if width % 2 != 0:
            raise UnreadableImageError(
                f"a file with two images side by side must have an even width, not {width} pixels",
                image_path(values[0]),
            )
        left, right = image.chunk(2, dim=-1)
        return [right, left]

    def _named(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        right, left = (half.contiguous() for half in images.split(self.channels, dim=1))
        return {"pixel_values": right, "conditioning_pixel_values": left}


def load_side_by_side_dataset(
    resolution: int | Sequence[int] = 256,
    channels: int = 3,
    center_crop: bool = False,
    random_flip: bool = False,
    skip_unreadable_images: bool = False,
    cache_images: bool | None = None,
    verify_images: bool = False,
    load_size: int | Sequence[int] | None = None,
    conditioning_label_maps: LabelMaps | None = None,
    **source,
) -> ImageDataset:
    """Load pairs of images A and B from files that contain both, A | B.

    Args:
        resolution: the resolution of one image.
        channels, center_crop, random_flip, skip_unreadable_images, cache_images, verify_images, load_size: see
            `load_image_dataset`.
        conditioning_label_maps: "colors" or "levels" if A are label maps: they keep their colours or gray levels,
            and are resized without mixing them.
        source: where the files are: `dataset_name`, `train_data_dir`, `split`, `image_column` and so on, see
            `load_image_dataset`.

    Returns:
        A paired `ImageDataset`, in which A is the conditioning image and B the image.

    Raises:
        ValueError, FileNotFoundError: for invalid arguments, and for names that do not exist.
    """
    check_label_maps(conditioning_label_maps, channels)
    transform = build_transform(resolution, center_crop, random_flip, load_size)
    transform = replace(transform, label_maps=conditioning_label_maps)
    return SideBySideImageDataset(
        open_source(**source), transform, channels, skip_unreadable_images, cache_images, verify_images
    )
