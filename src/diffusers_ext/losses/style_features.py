"""The networks whose layers measure content and style: a VGG, an AdaIN encoder, or any image model of Transformers."""

import json
from pathlib import Path

import torch
from torch import nn

from diffusers_ext.metrics.extractors.image_models import ImageModelExtractor
from diffusers_ext.metrics.perceptual_distances import DeepFeatureDistance
from diffusers_ext.models import VGG


class ImageModelFeatures:
    """The stages of an image model of Transformers, such as one of `examples/train_feature_network.py`.

    Args:
        name_or_path (`str`): its folder, or its name on the Hub.
        device: where it runs.

    Attributes:
        layers (`tuple[str, ...]`): the names of the stages.

    Raises:
        OSError, ValueError: if there is no such model, or its stages are no maps.
    """

    def __init__(self, name_or_path: str, device: str | torch.device = "cpu"):
        self._extractor = ImageModelExtractor(name_or_path, device)
        self._extractor.model.requires_grad_(False)
        self._modules = DeepFeatureDistance(self._extractor).layers
        self.name, self.layers = self._extractor.name, tuple(self._modules)
        processor = self._extractor.processor
        self._statistics = (processor.image_mean, processor.image_std) if processor.do_normalize else ([0.0], [1.0])
        with torch.no_grad():
            self.encode(torch.zeros(1, 3, 64, 64, device=device))  # a network without maps is refused now

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The maps of the stages for images `(N, 3, H, W)` in `[0, 1]`, with gradients."""
        if self._extractor.is_grayscale:
            images = (images * images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True)
        mean, std = (images.new_tensor(values).view(-1, 1, 1) for values in self._statistics)
        found = {}

        def keep(name):
            return lambda module, args, output: found.__setitem__(name, getattr(output, "last_hidden_state", output))

        hooks = [module.register_forward_hook(keep(name)) for name, module in self._modules.items()]
        try:
            self._extractor.model(pixel_values=(images - mean) / std)
        finally:
            for hook in hooks:
                hook.remove()
        maps = [found.get(name) for name in self.layers]
        if any(not torch.is_tensor(features) or features.ndim != 4 for features in maps):
            raise ValueError(f"{self.name} has no stages of maps (N, C, H, W), which the style of images is seen in.")
        return maps


def load_style_features(name_or_path: str, device: str | torch.device = "cpu") -> VGG | ImageModelFeatures:
    """The network of this name, frozen: `encode(images)` returns the maps of its `layers`; images are in `[0, 1]`.

    Args:
        name_or_path (`str`): the folder of a [`VGG`] (from `examples/train_vgg.py`, or converted from torchvision), or
            the folder or the Hub name of an image model of Transformers.
        device: where it runs.

    Raises:
        OSError, ValueError: if there is no such network, or it has no maps.
    """
    config = Path(name_or_path) / "config.json"
    if config.is_file() and json.loads(config.read_text()).get("_class_name") == "VGG":
        return VGG.from_pretrained(name_or_path).requires_grad_(False).eval().to(device)
    return ImageModelFeatures(name_or_path, device)


@torch.no_grad()
def normalize_activations(network: VGG, images: torch.Tensor) -> None:
    """Scale the channels of all layers, so that their mean square over images and positions is 1.

    As all layers are followed by a ReLU, the network computes the same up to these factors, and each channel counts
    equally in a loss. Gatys et al. (2016, section 2) do it with the mean; but a channel that is rarely active then has
    peaks that rule the loss of a small network. Channels that are 0 everywhere stay as they are.

    Args:
        network ([`VGG`]): the network, which is changed.
        images (`torch.Tensor` of shape `(N, 3, H, W)`): in `[0, 1]`.
    """
    convs = [conv for block in network.blocks for conv in block]
    roots = [features.square().mean(dim=(0, 2, 3)).sqrt() for features in network.encode(images)]
    before = torch.ones_like(convs[0].weight[0, :, 0, 0])
    for conv, root in zip(convs, roots, strict=True):
        factor = torch.where(root > 0, root, 1.0)
        conv.weight *= before.view(1, -1, 1, 1) / factor.view(-1, 1, 1, 1)
        conv.bias /= factor
        before = factor
    if isinstance(network.classifier, nn.Linear):
        network.classifier.weight *= before
