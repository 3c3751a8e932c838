"""The one way to a data set, for recipes and measures."""

from collections.abc import Sequence
from dataclasses import replace

from diffusers_ext.data.buckets import Size
from diffusers_ext.data.decoding import MODES
from diffusers_ext.data.image_dataset import ImageDataset
from diffusers_ext.data.indexed import IndexedImageDataset
from diffusers_ext.data.sources import open_source
from diffusers_ext.data.streamed import StreamedImageDataset
from diffusers_ext.data.transforms import ImageTransform


def load_image_dataset(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    train_data_dir: str | None = None,
    split: str = "train",
    image_column: str = "image",
    conditioning_image_column: str | None = None,
    conditioning_label_maps: bool = False,
    label_column: str | None = None,
    caption_column: str | None = None,
    resolution: int | Sequence[int] = 64,
    channels: int = 3,
    center_crop: bool = False,
    random_flip: bool = False,
    streaming: bool = False,
    shuffle_buffer_size: int = 1000,
    skip_unreadable_images: bool = False,
    cache_dir: str | None = None,
    cache_images: bool | None = None,
    buckets: Sequence[Size] | None = None,
    load_size: int | Sequence[int] | None = None,
) -> ImageDataset:
    """Load images, with class labels if there are any, and captions if they are wanted, ready to be drawn in batches.

    Args:
        dataset_name: the name of a data set on the Hub, a local folder, or "digits", the handwritten digits of
            scikit-learn (8x8 pixels, grayscale; "./digits" is a folder of that name).
        dataset_config_name: the configuration of a Hub data set that has several.
        train_data_dir: a local folder instead: image files, flat or in a folder per class or described by
            `metadata.csv`, `.jsonl` or `.parquet` (see `diffusers_ext.data.folders`), or what `datasets` can read
            (parquet, webdataset, `save_to_disk` ...). Nothing is written to it.
        split: which split; a folder without splits is all "train".
        image_column: the column with the images: an Image, encoded bytes, paths, or integer arrays.
        conditioning_image_column: the column with the other images of a paired set, such as "conditioning_image": what
            is seen of a scene when the image has to be made of it. In a folder of images a metadata file names them,
            as `conditioning_image_file_name`. They are read, resized, cropped and flipped as the images are; their
            size may be another, of the same aspect ratio.
        conditioning_label_maps: whether the conditioning images are label maps: the class of each pixel as a number up
            to 255, also where a palette shows it as a colour. Resizing does not mix these numbers, and they come as
            the levels of all channels.
        label_column: the column with the classes: a ClassLabel, strings or integers (numbered in sorted order). None
            takes "label" if there is such a column and trains without labels otherwise; "none" never takes labels.
        caption_column: the column with the captions: strings, lists of strings, of which every visit to an image draws
            one, or a ClassLabel, whose names are the captions. A folder of images has its captions in a metadata file,
            or in text files beside the images, which are the column "text". None takes none.
        resolution: pixels, H and W in one or as (H, W). Images are resized, up or down, so that the crop just fits.
        channels: 1 (grayscale), 2 (with alpha), 3 (RGB) or 4 (RGBA).
        center_crop: crop the middle instead of a random place.
        random_flip: mirror half of the images, at random.
        streaming: read the set from front to back, for sets that do not fit on this machine.
        shuffle_buffer_size: rows that a stream holds to draw from at random; more mixes better and takes more memory.
        skip_unreadable_images: leave out images that cannot be decoded, and count them in `num_skipped`.
        cache_dir: where `datasets` keeps what it downloads and converts.
        cache_images: keep all images decoded in memory. None does so if they take at most half of the free memory,
            shared by the processes of this machine.
        buckets: sizes (H, W) in the place of `resolution`, such as `aspect_ratio_buckets` gives: each image is resized
            and its middle cropped to that of the nearest aspect ratio, and each batch has images of one size.
        load_size: pixels, as `resolution`, that images are resized to, keeping their aspect ratio, before the random
            crop of `resolution`, so that it has room to move (jitter). Reference batches show the middle.

    Returns:
        An `ImageDataset`.

    Raises:
        UnreadableImagesError: naming all images that cannot be decoded (a stream names them when it meets them).
        ValueError, FileNotFoundError: for arguments that are impossible or name what is not there.
    """
    transform = build_transform(resolution, center_crop, random_flip, load_size, buckets)
    if channels not in MODES:
        raise ValueError(f"channels must be 1 (grayscale), 2 (with alpha), 3 (RGB) or 4 (RGBA), not {channels!r}")
    if streaming and cache_images:
        raise ValueError("a stream is not kept in memory: pass either streaming or cache_images")
    if shuffle_buffer_size < 1:
        raise ValueError(f"shuffle_buffer_size must be at least 1, not {shuffle_buffer_size}")
    if streaming and buckets:
        raise ValueError("the shapes of the images of a stream are not known before: pass either streaming or buckets")
    if conditioning_label_maps and conditioning_image_column is None:
        raise ValueError("conditioning_label_maps needs a column of label maps, conditioning_image_column")
    source = open_source(
        dataset_name,
        dataset_config_name,
        train_data_dir,
        split,
        image_column,
        conditioning_image_column,
        label_column,
        caption_column,
        streaming,
        cache_dir,
    )
    transform = replace(transform, label_maps=conditioning_label_maps)
    if streaming:
        return StreamedImageDataset(source, transform, channels, skip_unreadable_images, shuffle_buffer_size)
    return IndexedImageDataset(source, transform, channels, skip_unreadable_images, cache_images)


def build_transform(
    resolution: int | Sequence[int],
    center_crop: bool = False,
    random_flip: bool = False,
    load_size: int | Sequence[int] | None = None,
    buckets: Sequence[Size] | None = None,
) -> ImageTransform:
    """What happens to the images of a set; see `load_image_dataset`."""
    resolution = check_resolution(resolution)
    sizes = tuple(check_resolution(tuple(bucket)) for bucket in buckets or ())
    if load_size is None:
        return ImageTransform(resolution, center_crop, random_flip, sizes)
    if sizes:
        raise ValueError("buckets have the middle of an image, and no random crop: pass either load_size or buckets")
    load_size = check_resolution(load_size, "load_size")
    if center_crop:
        raise ValueError("load_size makes room for random crops, and center_crop leaves none: pass either")
    if load_size[0] < resolution[0] or load_size[1] < resolution[1]:
        raise ValueError(f"load_size must be the resolution, {resolution}, or more, not {load_size}")
    return ImageTransform(resolution, random_flip=random_flip, load_size=load_size)


def check_resolution(resolution: int | Sequence[int], name: str = "resolution") -> Size:
    """Height and width, of one number for both, also in a list, or of two; a ValueError about `name` for others."""
    size = tuple(resolution) if isinstance(resolution, (list, tuple)) else (resolution,)
    size = 2 * size if len(size) == 1 else size
    if len(size) != 2 or not all(isinstance(pixels, int) and pixels >= 1 for pixels in size):
        raise ValueError(f"{name} must be a positive number of pixels or (height, width), not {resolution!r}")
    return size
