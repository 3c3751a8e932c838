"""A LeNet as a classifier of small images, such as csinva's for MNIST (`--family mnist_lenet` of the converters)."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

from diffusers_ext.metrics.extractors.feature_extractor import NetworkExtractor, to_grayscale, to_rgb
from diffusers_ext.models import LeNet


def is_lenet(name_or_path: str) -> bool:
    """Whether this is a folder with a [`LeNet`]."""
    config = Path(name_or_path) / "config.json"
    return config.is_file() and json.loads(config.read_text()).get("_class_name") == "LeNet"


def load_lenet(path: str, device: str | torch.device = "cpu") -> NetworkExtractor:
    """An extractor of the last hidden layer and the logits of a saved [`LeNet`].

    Images of other sizes are resized bilinearly, and rounded to 8 bits like the images that it was trained on.
    """
    network = LeNet.from_pretrained(path).to(device).eval()
    config = network.config
    low, high = config.sample_range

    def prepare(images: torch.Tensor) -> torch.Tensor:
        pixels = to_grayscale(images) if config.in_channels == 1 else to_rgb(images).float()
        if pixels.shape[2:] != (config.sample_size, config.sample_size):
            pixels = F.interpolate(pixels, (config.sample_size,) * 2, mode="bilinear", antialias=True).round()
        return low + (high - low) * pixels / 255

    def classify(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = network(samples)
        return output.features, output.logits

    id2label = config.id2label or {label: str(label) for label in range(config.num_classes)}
    names = {int(label): name for label, name in id2label.items()}
    return NetworkExtractor(classify, Path(path).resolve().name, names, prepare, device)
