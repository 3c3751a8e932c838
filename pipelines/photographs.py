"""What keeps a painted photograph a photograph: its own edges, and its own colours."""

from collections.abc import Callable

import torch
from torch.nn import functional as F


# The weights of red, green and blue in the luminance (ITU-R 601)
LUMINANCE = (0.299, 0.587, 0.114)


def guided_filter(guide: torch.Tensor, images: torch.Tensor, radius: int, epsilon: float = 1e-3) -> torch.Tensor:
    """
    Images that are, in each window, a linear function of a coloured guide: they have its edges and no others.

    "Guided Image Filtering" (He et al. 2013, eq. 19 to 21). It is also the model of the matting Laplacian, by which
    Luan et al. (2017, "Deep Photo Style Transfer", section 3.1) keep photographs realistic.

    Args:
        guide (`torch.Tensor` of shape `(N, 3, H, W)`): in `[0, 1]`.
        images (`torch.Tensor` of shape `(N, C, H, W)`): what is filtered.
        radius (`int`): windows have sides of 2 * radius + 1 pixels.
        epsilon (`float`): the variance below which a window of the guide counts as flat.

    Returns:
        `torch.Tensor` of shape `(N, C, H, W)`.
    """

    def mean(maps: torch.Tensor) -> torch.Tensor:
        averaged = F.avg_pool2d(maps.flatten(1, -3), 2 * radius + 1, 1, radius, count_include_pad=False)
        return averaged.view_as(maps)

    guide_mean, image_mean = mean(guide), mean(images)
    variances = mean(guide[:, :, None] * guide[:, None]) - guide_mean[:, :, None] * guide_mean[:, None]
    covariances = mean(guide[:, :, None] * images[:, None]) - guide_mean[:, :, None] * image_mean[:, None]
    # A system of 3x3 numbers for each pixel
    variances = variances.permute(0, 3, 4, 1, 2) + epsilon * torch.eye(3, device=guide.device)
    slopes = torch.linalg.solve(variances, covariances.permute(0, 3, 4, 1, 2)).permute(0, 3, 4, 1, 2)
    offsets = image_mean - (slopes * guide_mean[:, :, None]).sum(1)
    return (mean(slopes) * guide[:, :, None]).sum(1) + mean(offsets)


def matting_laplacian(guide: torch.Tensor, epsilon: float = 1e-7) -> Callable[[torch.Tensor], torch.Tensor]:
    """
    The matting Laplacian L of a photograph: a function from images V to L V, one for each channel of V.

    V^T L V is the squared error of the best linear functions of the photograph's colours, one in each window of 3x3
    pixels, added over all windows: "A Closed-Form Solution to Natural Image Matting" (Levin et al. 2008, eq. 12). It
    is the photorealism term of "Deep Photo Style Transfer" (Luan et al. 2017, eq. 2).

    Args:
        guide (`torch.Tensor` of shape `(N, C, H, W)`): the photograph in `[0, 1]`, of at least 3x3 pixels.
        epsilon (`float`): the weight of the squared slopes, which decides where a window has one colour.

    Returns:
        `Callable`: from `(N, C', H, W)` to the same shape; linear, symmetric, and positive semi-definite.
    """
    windows = F.unfold(guide.double(), 3).unflatten(1, (guide.shape[1], 9)).permute(0, 3, 1, 2)
    centred = windows - windows.mean(3, keepdim=True)  # of each window, (C, 9)
    spreads = centred @ centred.mT + epsilon * torch.eye(guide.shape[1], dtype=torch.double, device=guide.device)
    # The window's own part of L is what projects on its constants and on these C rows, taken from the identity. Their
    # products are at most 1, which float32 is enough for, while inverses of `spreads` have far larger numbers.
    rows = torch.linalg.solve_triangular(torch.linalg.cholesky(spreads), centred, upper=False).to(guide.dtype)

    def apply(images: torch.Tensor) -> torch.Tensor:
        values = F.unfold(images, 3).unflatten(1, (images.shape[1], 9)).permute(0, 3, 2, 1)
        values = values - values.mean(2, keepdim=True)
        errors = values - rows.mT @ (rows @ values)
        return F.fold(errors.permute(0, 3, 2, 1).flatten(1, 2), images.shape[2:], 3)

    return apply


def luminance(images: torch.Tensor) -> torch.Tensor:
    """The luminance of `(N, 3, H, W)` as gray images of three channels."""
    weights = images.new_tensor(LUMINANCE).view(3, 1, 1)
    return (images * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def match_luminance(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The luminance of `source`, with the mean and the deviation of that of `target`.

    Gatys et al. 2016, "Preserving Color in Neural Artistic Style Transfer", eq. 10.
    """
    gray, wanted = luminance(source), luminance(target)
    centred = (gray - gray.mean()) / gray.std().clamp(min=1e-6)
    return (centred * wanted.std() + wanted.mean()).clamp(0, 1)


def with_colors_of(photograph: torch.Tensor, gray: torch.Tensor) -> torch.Tensor:
    """A photograph with another luminance: what differs from gray in its pixels stays."""
    return photograph - luminance(photograph) + luminance(gray)
