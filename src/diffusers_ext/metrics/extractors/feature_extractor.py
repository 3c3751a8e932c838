"""The interface of feature extractors, and a wrapper that makes any network one."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass
class FeatureOutput:
    """Features of images.

    Attributes:
        features: (N, D).
        logits: (N, K) class scores before the softmax, or None if the extractor does not classify.
    """

    features: torch.Tensor
    logits: torch.Tensor | None = None


class FeatureExtractor(Protocol):
    """A callable on uint8 images (N, C, H, W) that returns a `FeatureOutput` in float32, on the images' device.

    Attributes:
        name: the name of the network, which is reported with every number computed with it.
        id2label: class names by logit index, or None if its logits do not classify.

    A classifier may also have `accuracy`, its accuracy from 0 to 1 on held-out images, which is reported with the
    class accuracies that it measures.
    """

    name: str
    id2label: dict[int, str] | None

    def __call__(self, images: torch.Tensor) -> FeatureOutput: ...


def check_images(images: torch.Tensor) -> torch.Tensor:
    """Returns `images` if they are uint8 (N, 1 or 3, H, W); raises a ValueError otherwise."""
    if not torch.is_tensor(images) or images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        found = f"{images.dtype} of shape {tuple(images.shape)}" if torch.is_tensor(images) else type(images).__name__
        raise ValueError(f"Images must be a uint8 tensor (N, 1 or 3, H, W) with values from 0 to 255, not {found}.")
    return images


def to_rgb(images: torch.Tensor) -> torch.Tensor:
    """uint8 images (N, 1 or 3, H, W) as (N, 3, H, W)."""
    return check_images(images).expand(-1, 3, -1, -1)


def to_grayscale(images: torch.Tensor) -> torch.Tensor:
    """uint8 images (N, 1 or 3, H, W) as luma (ITU-R BT.601, like PIL's "L"), float32 (N, 1, H, W) from 0 to 255."""
    images = check_images(images).float()
    if images.shape[1] == 1:
        return images
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)
    return (images * weights[:, None, None]).sum(dim=1, keepdim=True)


class NetworkExtractor:
    """Any feature network as a `FeatureExtractor`.

    Args:
        network: a module or function from uint8 images (N, C, H, W) to features (N, D), to a pair (features, logits),
            or to a `FeatureOutput`. A module is moved to `device` and put in evaluation mode.
        name: the name that is reported with every number; by default the name of the class or function.
        id2label: class names by logit index, if the logits classify.
        preprocess: a function from uint8 images to the network's input, if that is different.
        device: where images are moved to.
    """

    def __init__(
        self,
        network: Callable,
        name: str | None = None,
        id2label: Mapping[int, str] | None = None,
        preprocess: Callable[[torch.Tensor], torch.Tensor] | None = None,
        device: str | torch.device = "cpu",
    ):
        if isinstance(network, torch.nn.Module):
            network = network.to(device).eval()
        self.network, self.preprocess, self.device = network, preprocess, device
        self.name = name or getattr(network, "__name__", type(network).__name__)
        self.id2label = None if id2label is None else dict(id2label)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> FeatureOutput:
        inputs = check_images(images).to(self.device)
        result = self.network(inputs if self.preprocess is None else self.preprocess(inputs))
        if torch.is_tensor(result):
            result = FeatureOutput(result)
        elif isinstance(result, tuple) and len(result) == 2:
            result = FeatureOutput(*result)
        elif not isinstance(result, FeatureOutput):
            raise ValueError(
                f"The feature network {self.name} must return a tensor, a pair (features, logits) or a FeatureOutput, "
                f"not {type(result).__name__}."
            )
        for kind, values in (("features", result.features), ("logits", result.logits)):
            if values is not None and (values.ndim != 2 or len(values) != len(images)):
                raise ValueError(
                    f"The feature network {self.name} must return {kind} of shape ({len(images)}, D) for "
                    f"{len(images)} images, not {tuple(values.shape)}."
                )
        logits = None if result.logits is None else result.logits.float().to(images.device)
        return FeatureOutput(result.features.float().to(images.device), logits)


def extract_features(
    extractor: FeatureExtractor, images: torch.Tensor | Iterable[torch.Tensor], batch_size: int = 64
) -> FeatureOutput:
    """Features of all images, on the CPU.

    Args:
        extractor: the result of `load_feature_extractor`, or any other `FeatureExtractor`.
        images: uint8 (N, C, H, W), or an iterable of such batches (for sets that do not fit into memory).
        batch_size: the number of images per call if `images` is one tensor.

    Raises:
        ValueError: if there are no images.
    """
    batches = images.split(batch_size) if torch.is_tensor(images) else images
    outputs = [extractor(batch) for batch in batches if len(batch)]
    if not outputs:
        raise ValueError("There are no images to extract features from.")
    features = torch.cat([output.features.cpu() for output in outputs])
    if outputs[0].logits is None:
        return FeatureOutput(features)
    return FeatureOutput(features, torch.cat([output.logits.cpu() for output in outputs]))
