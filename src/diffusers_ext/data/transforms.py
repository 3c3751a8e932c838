"""Resize, crop and flip on uint8 tensors.

Resizing is bicubic with antialiasing, in torch's integer arithmetic for uint8. On photographs brought to 32, 64 and
400 pixels it is within 2 of Pillow's BICUBIC everywhere and equal in over 99% of the values, in a tenth to a third of
Pillow's time (torch's float32 path differs in 7-18% of them, by up to 9, because Pillow too rounds between its two
passes). Bicubic rather than bilinear, because it keeps more of the detail and because FID is measured on images
resized this way (Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation").
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from diffusers_ext.data.buckets import Size, nearest_bucket


@dataclass(frozen=True)
class ImageTransform:
    """What happens to a decoded image: `fit`, then `crop` or `center`, and a flip of the whole batch.

    `fit` is the deterministic part, done once per image; what it returns is what a cache keeps.

    Attributes:
        resolution: (height, width) of the result.
        center_crop: crop the middle rather than a random place.
        random_flip: mirror half of the images, at random.
        buckets: other (height, width) of the result, of which an image gets the nearest to its own shape; its middle
            is taken.
        label_maps: whether all images but the first are label maps, whose values must not be mixed.
        load_size: (height, width) that images are fitted to, so that there is more than one crop; by default the
            resolution.
    """

    resolution: Size
    center_crop: bool = False
    random_flip: bool = False
    buckets: tuple[Size, ...] = ()
    label_maps: bool = False
    load_size: Size | None = None

    def target(self, size: Size) -> Size:
        """The (height, width) that an image of `size` ends with."""
        return nearest_bucket(size, self.buckets) if self.buckets else self.resolution

    def _fitted_size(self, size: Size) -> Size:
        return cover_size(size, self.load_size or self.target(size))

    def fit(self, *images: torch.Tensor) -> torch.Tensor:
        """(C, h, w) uint8, any size -> (C, h', w') uint8 that the crop fits in, or the crop, if it is the middle.

        Several images of one scene become one of so many times the channels; the size is that of the first.
        """
        size = self._fitted_size(images[0].shape[-2:])
        resize_other = resize_labels if self.label_maps else resize
        image = torch.cat([resize(images[0], size), *(resize_other(image, size) for image in images[1:])])
        if self.center_crop or self.buckets:
            image = center(image, self.target(images[0].shape[-2:]))
        return image.contiguous()

    def crop(self, image: torch.Tensor, draw: int) -> torch.Tensor:
        """The crop of a fitted image that `draw` (a 63-bit integer, uniform) chooses: a (C, H, W) view."""
        if self.buckets:
            return image
        height, width = self.resolution
        top, left = self._corner(image.shape[-2:], draw)
        return image[..., top : top + height, left : left + width]

    def _corner(self, size: Size, draw: int) -> tuple[int, int]:
        # Bits 1..31 and 32..62; bit 0 belongs to the flip. Taking the high part of a product keeps them uniform.
        top = ((draw >> 1 & 0x7FFFFFFF) * (size[0] - self.resolution[0] + 1)) >> 31
        left = ((draw >> 32) * (size[1] - self.resolution[1] + 1)) >> 31
        return top, left

    def center(self, image: torch.Tensor) -> torch.Tensor:
        """The middle of a fitted image: a (C, H, W) view."""
        return image if self.buckets else center(image, self.resolution)

    def time_ids(self, size: Size, draw: int | None = None) -> tuple[int, ...]:
        """What SDXL is told of an image of `size` (Podell et al. 2023, section 2.2), in pixels.

        Args:
            size: (height, width) before it was fitted.
            draw: what chose crop and flip; None for the middle.

        Returns:
            The height and width before, top and left of the crop in the resized (and mirrored) image, and the height
            and width now.
        """
        target, fitted = self.target(size), self._fitted_size(size)
        if draw is None or self.center_crop or self.buckets:
            top, left = middle(fitted, target)
        else:
            top, left = self._corner(fitted, draw)
        if draw is not None and self.random_flip and draw & 1:
            left = fitted[1] - target[1] - left
        return (*size, top, left, *target)

    def flip(self, images: torch.Tensor, draws: list[int]) -> torch.Tensor:
        """(B, C, H, W), mirrored in place where `random_flip` is set and the draw is odd."""
        if not self.random_flip:
            return images
        rows = torch.tensor([row for row, draw in enumerate(draws) if draw & 1], dtype=torch.int64)
        return images.index_copy_(0, rows, images.index_select(0, rows).flip(-1))


def middle(size: Size, part: Size) -> tuple[int, int]:
    """Where the upper left corner of the middle of an image is."""
    return (size[0] - part[0]) // 2, (size[1] - part[1]) // 2


def center(image: torch.Tensor, size: Size) -> torch.Tensor:
    """The middle (C, H, W) of an image that is at least of `size`, as a view."""
    height, width = size
    top, left = middle(image.shape[-2:], size)
    return image[..., top : top + height, left : left + width]


def cover_size(size: Size, resolution: Size) -> Size:
    """The smallest (height, width) of the aspect ratio of `size` that covers `resolution`, exact on the tight side."""
    height, width = size
    if height * resolution[1] <= width * resolution[0]:
        return resolution[0], max(resolution[1], round(width * resolution[0] / height))
    return max(resolution[0], round(height * resolution[1] / width)), resolution[1]


def resize_labels(image: torch.Tensor, size: Size) -> torch.Tensor:
    """Resize a (C, h, w) uint8 label map to `size`: each pixel has the label of the nearest one."""
    return F.interpolate(image[None], size=tuple(size), mode="nearest-exact")[0]


def resize(image: torch.Tensor, size: Size) -> torch.Tensor:
    """Resize a (C, h, w) uint8 image to `size`; an image of that size is returned as it is.

    With an alpha channel (2 or 4 channels) colours are weighted by it, so that what transparent pixels hide does not
    bleed into the edges: Pillow does the same.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    if image.shape[0] in (1, 3):
        return _interpolate(image, size)
    colour, alpha = image[:-1].float(), image[-1:].float()
    image = _interpolate(torch.cat([(colour * alpha / 255).round(), alpha]).to(torch.uint8), size)
    colour, alpha = image[:-1].float(), image[-1:].float()
    colour = (colour * 255 / alpha.clamp(min=1)).round().clamp(max=255)
    return torch.cat([colour, alpha]).to(torch.uint8)


def _interpolate(image: torch.Tensor, size: Size) -> torch.Tensor:
    return F.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0]


def to_pixel_values(images: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 -> float32 in [-1, 1], of the same shape."""
    return images.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)
