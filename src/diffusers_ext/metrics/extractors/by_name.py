"""Loads feature extractors by name."""

import importlib
from pathlib import Path

import torch

from diffusers_ext.metrics.extractors.feature_extractor import FeatureExtractor, NetworkExtractor


def load_feature_extractor(name_or_path: str, device: str | torch.device = "cpu") -> FeatureExtractor:
    """The feature extractor with this name.

    Args:
        name_or_path:
            - "digits": a classifier and features for handwritten digits, fitted when it is loaded (`DigitsExtractor`);
            - "inception": torch-fidelity's InceptionV3, which published FID values use (`pip install torch-fidelity`);
            - "torchmetrics": torchmetrics' InceptionV3, which has the same weights but resizes images differently;
            - a local folder or Hub name of a Transformers image model, with its image processor;
            - a local folder of a [`LeNet`];
            - "module:name": your own function or module on uint8 images (N, C, H, W), or a class that is created
              without arguments; see `NetworkExtractor` for what it may return.
        device: where the network runs ("digits" always runs on the CPU).

    Raises:
        ImportError: for an optional library that is not installed, or a module that cannot be imported.
        OSError: for weights or a model that cannot be found.
        ValueError: if "module:name" is not callable, or for a single file.
    """
    # Each kind needs different heavy libraries, which are only imported for the kind that is loaded.
    if name_or_path == "digits":
        from diffusers_ext.metrics.extractors.digits_extractor import DigitsExtractor

        return DigitsExtractor()
    if name_or_path == "inception":
        from diffusers_ext.metrics.extractors.inception import load_inception

        return load_inception(device)
    if name_or_path == "torchmetrics":
        from diffusers_ext.metrics.extractors.inception import load_torchmetrics_inception

        return load_torchmetrics_inception(device)
    if ":" in name_or_path and not Path(name_or_path).is_dir():
        return _load_by_import(name_or_path, device)
    if Path(name_or_path).is_file():
        raise ValueError(
            f"{name_or_path} is a single file, but a feature extractor is a folder or a repository of the Hub, with "
            "the configuration and the image processor of the model beside its weights."
        )
    if (Path(name_or_path) / "config.json").is_file():
        from diffusers_ext.metrics.extractors.lenet_extractor import is_lenet, load_lenet

        if is_lenet(name_or_path):
            return load_lenet(name_or_path, device)
    from diffusers_ext.metrics.extractors.image_models import ImageModelExtractor

    return ImageModelExtractor(name_or_path, device)


def _load_by_import(path: str, device: str | torch.device) -> FeatureExtractor:
    module_name, _, attribute = path.partition(":")
    try:
        network = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise ImportError(
            f'The feature extractor "{path}" cannot be imported ({error}): is its folder on PYTHONPATH?'
        ) from error
    if not callable(network):
        raise ValueError(f'The feature extractor "{path}" must name a function, module or class in {module_name}.')
    if isinstance(network, type):
        network = network()
    return NetworkExtractor(network, name=path, id2label=getattr(network, "id2label", None), device=device)
