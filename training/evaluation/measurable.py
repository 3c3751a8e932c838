"""The feature network that measures images, tried before the training."""

from collections.abc import Sequence

import torch

from diffusers_ext.metrics import load_feature_extractor
from diffusers_ext.metrics.compute import check_measurable
from diffusers_ext.metrics.extractors import FeatureExtractor


def load_measuring_extractor(
    name: str | None,
    metrics: Sequence[str] | None,
    *,
    shape: tuple[int, int, int],
    num_real: int | None,
    num_generated: int,
    device: torch.device,
) -> FeatureExtractor | None:
    """The feature extractor that `--feature_extractor` names, or None without a name.

    Args:
        name (`str`, *optional*): see [`load_feature_extractor`].
        metrics (`list[str]`, *optional*): what will be measured.
        shape: (C, H, W) of an image.
        num_real, num_generated: how many images there will be; `num_real` is None if it is unknown.
        device (`torch.device`): where the network runs.

    Raises:
        ValueError, OSError, ImportError: if it is not available, it can't be used for such images, or there will be
            too few of them for a metric.
    """
    if name is None:
        return None
    extractor = load_feature_extractor(name, device=device)
    check_measurable(extractor, shape, metrics, num_real, num_generated)
    return extractor
