"""Perceptual losses: the distances of `diffusers_ext.metrics.perceptual_distances`, with gradients."""

import torch

from diffusers_ext.metrics.extractors import NetworkExtractor, load_feature_extractor
from diffusers_ext.metrics.extractors.image_models import ImageModelExtractor
from diffusers_ext.metrics.perceptual_distances import LPIPS, DeepFeatureDistance


class PerceptualLoss:
    """LPIPS, or its formula on the layers of another network (Zhang et al. 2018, eq. 1).

    Unlike the metrics, it does not round images. Images are not resized either, so the network must accept their size.

    Args:
        distance ([`LPIPS`] or [`DeepFeatureDistance`]): defines the network and its layers. The network is frozen.

    Raises:
        ValueError: if the network has no gradients. A call raises it for images of different shapes.
    """

    def __init__(self, distance: LPIPS | DeepFeatureDistance):
        self.distance, self.name = distance, distance.name
        if isinstance(distance, DeepFeatureDistance):
            extractor = distance.extractor
            if not isinstance(extractor, (ImageModelExtractor, NetworkExtractor)):
                raise ValueError(
                    f"{extractor.name} has no gradients: use lpips, an image model of Transformers or a module."
                )
            network = extractor.model if isinstance(extractor, ImageModelExtractor) else extractor.network
        else:
            network = distance.network
        self.network = network.requires_grad_(False).eval()

    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The distance of each pair.

        Args:
            first, second (`torch.Tensor` of shape (N, C, H, W)): grayscale or RGB images in [-1, 1].

        Returns:
            `torch.Tensor` of shape (N,), float32.
        """
        if first.shape != second.shape or first.ndim != 4 or first.shape[1] not in (1, 3):
            raise ValueError(
                f"Images must be two batches (N, 1 or 3, H, W) of the same shape, not {tuple(first.shape)} and "
                f"{tuple(second.shape)}."
            )
        first, second = first.float(), second.float()
        if isinstance(self.distance, LPIPS):
            return self.network(first.expand(-1, 3, -1, -1), second.expand(-1, 3, -1, -1)).flatten()
        images = torch.cat([first, second])
        features = self.distance.unit_features(lambda: self._run(images), len(images))
        pairs = [layer.chunk(2) for layer in features]
        return torch.stack([(one - other).square().sum(dim=1).mean(dim=1) for one, other in pairs]).sum(dim=0)

    def _run(self, images: torch.Tensor) -> None:
        extractor = self.distance.extractor
        if isinstance(extractor, NetworkExtractor):  # its network expects values from 0 to 255
            levels = (images + 1) * 127.5
            self.network(levels if extractor.preprocess is None else extractor.preprocess(levels))
            return
        levels = images / 2 + 0.5
        if extractor.is_grayscale and images.shape[1] == 3:
            weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)[:, None, None]
            levels = (levels * weights).sum(dim=1, keepdim=True)
        elif not extractor.is_grayscale:
            levels = levels.expand(-1, 3, -1, -1)
        if extractor.processor.do_normalize:
            mean, std = (
                torch.tensor(value, device=images.device).view(-1, 1, 1)
                for value in (extractor.processor.image_mean, extractor.processor.image_std)
            )
            levels = (levels - mean) / std
        forward = getattr(self.network, "get_image_features", self.network)
        forward(pixel_values=levels)


def load_perceptual_loss(
    name: str, device: str | torch.device = "cpu", image_shape: tuple[int, int, int] | None = None
) -> PerceptualLoss:
    """The perceptual loss with this name.

    Args:
        name: "lpips" (with VGG, as in latent diffusion), or the name of an image model for [`load_feature_extractor`].
        device: the device of the images.
        image_shape: channels, height and width of the images, if the network is to be tried on a blank one: then one
            that can't process them is found now, and not in the first step of a training.

    Raises:
        ImportError, OSError, ValueError: if there is no such network, or it has no gradients, or the trial fails.
    """
    if name == "lpips":
        loss = PerceptualLoss(LPIPS("vgg", device))
    else:
        loss = PerceptualLoss(DeepFeatureDistance(load_feature_extractor(name, device)))
    if image_shape is not None:
        blank = torch.zeros(1, *image_shape, device=device)
        try:
            loss(blank, blank)
        except (RuntimeError, ValueError) as error:
            channels, height, width = image_shape
            raise ValueError(
                f"{loss.name} can't compare images of {height}x{width} pixels and {channels} channels: {error}"
            ) from error
    return loss
