"""Degradations with gradients, through which images are inverted: what an old film, a lens and a file did to them."""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .checks import check_choice, check_positive, check_positive_int


# How much of red, green and blue each kind of film sees.
FILM_WEIGHTS = {
    "panchromatic": (0.299, 0.587, 0.114),  # gray
    "orthochromatic": (0.0, 0.5, 0.5),
    "blue_sensitive": (0.0, 0.0, 1.0),
}
DARKEST = -0.99  # the smallest value whose power has a finite gradient


class FilmResponse(nn.Module):
    """
    The gray image that a film takes of colours: Luo et al. 2021, section 3.4.

    Args:
        film (`str`): `"panchromatic"`, after 1906; `"orthochromatic"`, which does not see red; `"blue_sensitive"`,
            before 1873.
    """

    def __init__(self, film: str = "panchromatic"):
        super().__init__()
        check_choice("film", film, FILM_WEIGHTS)
        self.film = film

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Of images `(N, 3, H, W)` in `[-1, 1]`, with three equal channels; gray ones stay as they are."""
        if images.shape[1] == 1:
            return images
        weights = images.new_tensor(FILM_WEIGHTS[self.film]).view(3, 1, 1)
        return (images * weights).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)


class CameraResponse(nn.Module):
    """
    `offset + gain * light**gamma`, for light in `[0, 1]`. The three numbers are learned with the image.

    Args:
        num_images (`int`, defaults to 1): for how many images there are numbers of their own; 1 is for all alike.
    """

    def __init__(self, num_images: int = 1):
        super().__init__()
        check_positive_int("num_images", num_images)
        self.gamma = nn.Parameter(torch.ones(num_images, 1, 1, 1))
        self.offset = nn.Parameter(torch.zeros(num_images, 1, 1, 1))
        self.gain = nn.Parameter(torch.ones(num_images, 1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Of images `(N, C, H, W)` in `[-1, 1]`; the result may leave this range."""
        light = (1 + images.clamp(DARKEST, 1)) / 2
        return 2 * (self.offset + self.gain * light**self.gamma) - 1


class GaussianBlur(nn.Module):
    """
    Blur by a Gaussian, cut off at two standard deviations; beyond the borders, the outermost pixels are repeated.

    Args:
        sigma (`float`): the standard deviation, in pixels.
    """

    def __init__(self, sigma: float):
        super().__init__()
        check_positive("sigma", sigma)
        radius = max(1, round(2 * sigma))
        taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
        self.register_buffer("taps", taps / taps.sum())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Of images `(N, C, H, W)`, in the same shape."""
        channels, radius = images.shape[1], len(self.taps) // 2
        images = F.pad(images, (radius,) * 4, mode="replicate")
        for shape in ((-1, 1), (1, -1)):
            kernel = self.taps.to(images).view(1, 1, *shape).expand(channels, -1, -1, -1)
            images = F.conv2d(images, kernel, groups=channels)
        return images


class Downsample(nn.Module):
    """
    Fewer pixels, without aliasing.

    Args:
        size (`int` or `tuple[int, int]`): height and width.
    """

    def __init__(self, size: int | tuple[int, int]):
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        for side in self.size:
            check_positive_int("size", side)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From `(N, C, H, W)` to `(N, C, *size)`."""
        return F.interpolate(images, self.size, mode="bilinear", antialias=True)


class AntiquePhoto(nn.Sequential):
    r"""
    What an old camera makes of a scene: blur, fewer pixels, the film, and the response of the camera, in this order.

    The degradation of "Time-Travel Rephotography" (Luo et al. 2021, section 3.4,
    https://huggingface.co/papers/2012.12261).

    Args:
        film (`str`, defaults to `"panchromatic"`): see [`FilmResponse`].
        blur (`float`, defaults to 0.0): the standard deviation of the blur, in pixels of the generator.
        size (`int` or `tuple[int, int]`, *optional*): height and width of the photograph, where it has fewer pixels.
        num_images (`int`, defaults to 1): see [`CameraResponse`].
    """

    def __init__(
        self,
        film: str = "panchromatic",
        blur: float = 0.0,
        size: int | tuple[int, int] | None = None,
        num_images: int = 1,
    ):
        parts = [] if blur == 0 else [GaussianBlur(blur)]
        parts += [] if size is None else [Downsample(size)]
        super().__init__(*parts, FilmResponse(film), CameraResponse(num_images))


class StraightThrough(nn.Module):
    """
    Any degradation that keeps the shape, such as compression as JPEG: its gradient is taken for that of the identity
    (Bengio et al. 2013, https://huggingface.co/papers/1308.3432).

    Args:
        function (`Callable`): from images `(N, C, H, W)` in `[-1, 1]` to their degraded form, the same in each call.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Of images `(N, C, H, W)`, in the same shape."""
        with torch.no_grad():
            degraded = self.function(images.clamp(-1, 1))
        if degraded.shape != images.shape:
            raise ValueError(f"The function must keep the shape {tuple(images.shape)}, not {tuple(degraded.shape)}.")
        return images + (degraded - images).detach()


class FunctionDegradation(nn.Module):
    """A function of images, as a module without parameters."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.function = function

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.function(images)


def copy_degradation(degradation: Callable[[torch.Tensor], torch.Tensor] | None, device: torch.device) -> nn.Module:
    """A copy of a module, whose parameters can be learned; a function as a module; the identity for `None`."""
    if degradation is None:
        return nn.Identity()
    if isinstance(degradation, nn.Module):
        return copy.deepcopy(degradation).to(device)
    if not callable(degradation):
        raise ValueError(f"`degradation` must be a function of images, but is {degradation!r}.")
    return FunctionDegradation(degradation)


@torch.no_grad()
def degraded_shape(
    degradation: nn.Module, number: int, shape: tuple[int, int, int], device: torch.device
) -> tuple[int, int, int]:
    """The shape `(C, H, W)` of `number` degraded images of this shape; refuses a degradation that can't be right."""
    try:
        made = degradation(torch.zeros(number, *shape, device=device))
    except RuntimeError as error:
        raise ValueError(f"`degradation` can't take {number} images of the shape {shape}: {error}") from error
    if not torch.is_tensor(made) or made.ndim != 4 or len(made) != number:
        found = tuple(made.shape) if torch.is_tensor(made) else type(made).__name__
        raise ValueError(f"`degradation` must make an image of each, but makes {found} of {number} images.")
    return tuple(made.shape[1:])
