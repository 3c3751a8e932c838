"""Loads a data set of images for training or evaluation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from diffusers_ext.data.buckets import Size
from diffusers_ext.data.decoding import MODES
from diffusers_ext.data.films import FilmDataset, FilmTransform
from diffusers_ext.data.image_dataset import ImageDataset
from diffusers_ext.data.indexed import IndexedImageDataset
from diffusers_ext.data.sources import open_source
from diffusers_ext.data.streamed import StreamedImageDataset
from diffusers_ext.data.transforms import ImageTransform


# How the numbers in label maps become images; see `load_image_dataset`.
LabelMaps = Literal["colors", "levels"]


def load_image_dataset(
    dataset_name: str | None = None,
    dataset_config_name: str | None = None,
    train_data_dir: str | None = None,
    split: str = "train",
    image_column: str = "image",
    conditioning_image_column: str | None = None,
    conditioning_image_dir: str | None = None,
    conditioning_label_maps: LabelMaps | None = None,
    conditioning_num_labels: int | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    resolution: int | Sequence[int] = 64,
    channels: int = 3,
    center_crop: bool = False,
    random_flip: bool = False,
    streaming: bool = False,
    shuffle_buffer_size: int = 1000,
    skip_unreadable_images: bool = False,
    max_image_pixels: int | None = None,
    cache_dir: str | None = None,
    cache_images: bool | None = None,
    verify_images: bool = False,
    buckets: Sequence[Size] | None = None,
    load_size: int | Sequence[int] | None = None,
    num_frames: int | None = None,
    frame_stride: int = 1,
    instance_map_column: str | None = None,
    instance_map_dir: str | None = None,
) -> ImageDataset:
    """Load a data set of images or films, with class labels if there are any, and with captions if a column is given.

    Args:
        dataset_name: the name of a data set on the Hub, a local folder, or "digits", the handwritten digits of
            scikit-learn (8x8 pixels, grayscale; "./digits" is a folder with this name).
        dataset_config_name: the configuration of a Hub data set that has several.
        train_data_dir: a local folder, instead of `dataset_name`. It has image files, which are all in the folder
            itself, in a folder for each class, or described by `metadata.csv`, `.jsonl` or `.parquet` (see
            `diffusers_ext.data.image_folder`), or files that `datasets` can read (parquet, webdataset, `save_to_disk`
            ...). Nothing is written to it.
        split: the split; a folder without splits only has the split "train".
        image_column: the column with the images: an Image, encoded bytes, paths, or integer arrays.
        conditioning_image_column: the column with the conditioning images of a paired set, such as
            "conditioning_image": the inputs from which a model generates the images. In a folder of images, a metadata
            file names them in the column `conditioning_image_file_name`. They are read, resized, cropped and flipped
            like the images. They can have another size, but need the same aspect ratio.
        conditioning_image_dir: a local folder with the conditioning images, instead of a column: files with the paths
            of the images in their folder, up to the extension, such as "b/1.png" for "b/1.jpg".
        conditioning_label_maps: "colors" or "levels" if the conditioning images are label maps, which show a class per
            pixel. They are resized without mixing classes. "colors" keeps their colours, and colours label maps of
            numbers, see `decode_label_colors`. "levels" makes numbers from 0 to 255 the levels of all channels, even
            if a palette shows them as colours.
        conditioning_num_labels: how many labels there are: maps of "levels" with a label that is not below are
            unreadable images. None allows all.
        label_column: the column with the classes: a ClassLabel, strings or integers (numbered in sorted order). None
            uses the column "label" if it exists, and no labels otherwise; "none" never uses labels.
        caption_column: the column with the captions: strings; lists of strings, from which one is drawn each time the
            image is used; or a ClassLabel, whose names are the captions. The captions of a folder of images are in a
            metadata file, or in text files beside the images, which become the column "text". None uses no captions.
        resolution: in pixels, one number for height and width, or (H, W). Images are resized, up or down, to the
            smallest size that contains the crop.
        channels: 1 (grayscale), 2 (with alpha), 3 (RGB) or 4 (RGBA).
        center_crop: crop the middle instead of a random place.
        random_flip: mirror half of the images, at random.
        streaming: read the set from front to back, for sets that do not fit on this machine.
        shuffle_buffer_size: the number of rows that a stream keeps to draw from at random. A larger buffer mixes
            better and needs more memory.
        skip_unreadable_images: leave out images that cannot be decoded, and count them in `num_skipped`.
        max_image_pixels: images with more pixels are refused, because small files can claim huge sizes; by default
            twice `PIL.Image.MAX_IMAGE_PIXELS`, which is 179 million pixels.
        cache_dir: where `datasets` stores its downloads and converted files, and where decoded images are kept; by
            default in the cache of Hugging Face.
        cache_images: keep all decoded images in a file on the disk, which is mapped into memory, and which processes
            and later runs share. None does so if they need at most half of the free memory.
        verify_images: decode all images before the first batch, to find those that are unreadable, even if they are
            not kept.
        buckets: sizes (H, W), as returned by `aspect_ratio_buckets`, instead of `resolution`: each image is resized
            and cropped in the middle to the size with the nearest aspect ratio, and each batch has images of one size.
        load_size: in pixels, like `resolution`: images are resized to this size, keeping their aspect ratio, before
            the random crop of `resolution`, so that different crops are possible (jitter). Reference batches have the
            middle crop.
        num_frames: the images are films (GIF, animated WebP or PNG ...), from which clips of so many frames are drawn;
            see `FilmDataset`. None reads the first frame only.
        frame_stride: with `num_frames`, every so many-th frame of a film is a frame of the clip.
        instance_map_column, instance_map_dir: for label maps, the column or the folder with maps in which each object
            has a value or a colour of its own; they are found, resized, cropped and flipped as the label maps are.

    Returns:
        An `ImageDataset`. Its images are not decoded before `prepare` is called, or the first batch is read.

    Raises:
        ValueError, FileNotFoundError: for invalid arguments, and for names that do not exist.
    """
    transform = build_transform(resolution, center_crop, random_flip, load_size, buckets)
    if channels not in MODES:
        raise ValueError(f"channels must be 1 (grayscale), 2 (with alpha), 3 (RGB) or 4 (RGBA), not {channels!r}")
    if streaming and (cache_images or verify_images):
        raise ValueError(
            "a stream is not read in advance: leave out --streaming, or --cache_images and --verify_images"
        )
    if shuffle_buffer_size < 1:
        raise ValueError(f"shuffle_buffer_size must be at least 1, not {shuffle_buffer_size}")
    if streaming and buckets:
        raise ValueError(
            "the image sizes of a stream are not known in advance: leave out --streaming or --aspect_ratio_buckets"
        )
    if conditioning_label_maps and conditioning_image_column is None and conditioning_image_dir is None:
        raise ValueError(
            "--conditioning_label_maps needs label maps: name them by --conditioning_image_column or "
            "--conditioning_image_dir"
        )
    check_label_maps(conditioning_label_maps, channels)
    if (instance_map_column or instance_map_dir) and not conditioning_label_maps:
        raise ValueError("instance maps are for label maps: give --conditioning_label_maps too")
    if conditioning_num_labels is not None and (conditioning_label_maps != "levels" or conditioning_num_labels < 1):
        raise ValueError(
            "--conditioning_num_labels must be positive, and is for label maps of numbers: --conditioning_label_maps "
            "levels"
        )
    if num_frames is not None:
        _check_films(num_frames, frame_stride, streaming, conditioning_image_column or conditioning_image_dir, buckets)
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
        conditioning_image_dir,
        max_image_pixels,
        instance_map_column,
        instance_map_dir,
    )
    transform = replace(transform, label_maps=conditioning_label_maps, num_labels=conditioning_num_labels)
    if num_frames is not None:
        transform = FilmTransform(
            **vars(transform), channels=channels, num_frames=num_frames, frame_stride=frame_stride
        )
        return FilmDataset(source, transform, channels, skip_unreadable_images, cache_images, verify_images)
    if streaming:
        return StreamedImageDataset(source, transform, channels, skip_unreadable_images, shuffle_buffer_size)
    return IndexedImageDataset(source, transform, channels, skip_unreadable_images, cache_images, verify_images)


def _check_films(
    num_frames: int,
    frame_stride: int,
    streaming: bool,
    conditioning_images: str | None,
    buckets: Sequence[Size] | None,
) -> None:
    """Raises ValueError for clips that films don't have, and for what films are not made for."""
    if min(num_frames, frame_stride) < 1:
        raise ValueError(f"--num_frames and --frame_stride must be at least 1, not {num_frames} and {frame_stride}")
    if streaming:
        raise ValueError("films can't be streamed: leave out --streaming")
    if conditioning_images or buckets:
        raise ValueError("films have no conditioning images and no buckets: leave out these options")


def check_label_maps(label_maps: LabelMaps | None, channels: int) -> None:
    """Raises ValueError unless label maps can become images with this number of channels."""
    known = get_args(LabelMaps)
    if label_maps is not None and label_maps not in known:
        raise ValueError(f"--conditioning_label_maps must be {' or '.join(known)}, not {label_maps!r}")
    if label_maps == "colors" and channels != 3:
        raise ValueError(f"--conditioning_label_maps colors needs images of 3 channels, not of {channels}")


def build_transform(
    resolution: int | Sequence[int],
    center_crop: bool = False,
    random_flip: bool = False,
    load_size: int | Sequence[int] | None = None,
    buckets: Sequence[Size] | None = None,
) -> ImageTransform:
    """The resizing, cropping and flipping of the images of a set; see `load_image_dataset`."""
    resolution = check_resolution(resolution)
    sizes = tuple(check_resolution(tuple(bucket)) for bucket in buckets or ())
    if load_size is None:
        return ImageTransform(resolution, center_crop, random_flip, sizes)
    if sizes:
        raise ValueError(
            "--aspect_ratio_buckets crop the middle of images, not a random place: leave out --load_size or "
            "--aspect_ratio_buckets"
        )
    load_size = check_resolution(load_size, "load_size")
    if center_crop:
        raise ValueError("--load_size is for random crops: leave out --load_size or --center_crop")
    if load_size[0] < resolution[0] or load_size[1] < resolution[1]:
        raise ValueError(f"load_size must be at least the resolution, {resolution}, not {load_size}")
    return ImageTransform(resolution, random_flip=random_flip, load_size=load_size)


def check_resolution(resolution: int | Sequence[int], name: str = "resolution") -> Size:
    """(height, width) from one number for both (possibly in a list) or two numbers.

    Raises:
        ValueError: about the argument `name`, for anything else.
    """
    size = tuple(resolution) if isinstance(resolution, (list, tuple)) else (resolution,)
    size = 2 * size if len(size) == 1 else size
    if len(size) != 2 or not all(isinstance(pixels, int) and pixels >= 1 for pixels in size):
        raise ValueError(f"{name} must be a positive number of pixels or (height, width), not {resolution!r}")
    return size
