"""The task "exposure_clipping": a photograph whose bright parts are white, as by too long an exposure."""

import torch

from diffusers_ext.data.corruptions.corruption import Corruption
from diffusers_ext.data.corruptions.levels import from_levels, to_levels
from diffusers_ext.data.corruptions.option_checks import check_number, check_range


def exposure_clipping(
    images: torch.Tensor, draw, *, stops: float | tuple[float, float] = (0.5, 2.0), gamma: float = 2.2
) -> Corruption:
    """Overexposure: light is multiplied by 2^stops and clipped, and the rest is made as dark as before.

    So the known pixels of the degraded image are those of the clean one, and the clipped ones are all equally bright.

    Args:
        images: (N, C, H, W) in [-1, 1]. Transparency stays as it is.
        draw: draws the stops, uniformly.
        stops: the lowest and the highest number of stops, or one fixed number.
        gamma: light is the value to this power; 1 if the values are light already.

    Raises:
        ValueError: for a range that is reversed or negative, or a gamma that is not positive.
    """
    low, high = check_range("stops", stops, 0)
    check_number("gamma", gamma)
    if not gamma > 0:
        raise ValueError(f"gamma must be positive, not {gamma!r}")
    brightest = 2 ** (-(low + (high - low) * draw.uniform()) / gamma).view(-1, 1, 1, 1)
    values = images.float() / 2 + 0.5
    clipped = torch.minimum(values, brightest.to(values))
    if images.shape[1] in (2, 4):
        clipped = torch.cat([clipped[:, :-1], values[:, -1:]], dim=1)
    return Corruption(from_levels(to_levels(clipped * 2 - 1)))
