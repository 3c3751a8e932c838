"""What keeps a painted photograph a photograph: its own edges, and its own colours."""

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
