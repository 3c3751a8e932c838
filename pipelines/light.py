"""Light, which has no upper limit, as values for networks and for displays."""

import math

import torch


GAMMA = 2.2  # of displays: light is the value to this power
MU = 5000  # of the mu-law; Kalantari and Ramamoorthi 2017 ("Deep high dynamic range imaging", eq. 5)


def compress_light(light: torch.Tensor, peak: float) -> torch.Tensor:
    """Light in `[0, peak]` as values in `[0, 1]` by the mu-law, in which equal steps look about equally large."""
    return torch.log1p(MU / peak * light) / math.log1p(MU)


def expand_light(values: torch.Tensor, peak: float) -> torch.Tensor:
    """The inverse of [`compress_light`]."""
    return torch.expm1(values * math.log1p(MU)) * (peak / MU)
