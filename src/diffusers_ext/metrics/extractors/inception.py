"""InceptionV3 features, the measure that published FID and KID values use.

Two resizings to 299x299 are in use, and they give different numbers: torch-fidelity follows TensorFlow 1 (as the first
FID code did), torchmetrics smooths before it shrinks. torch.hub downloads the weights (about 90 MB) on first use.
"""

from urllib.error import URLError

import torch

from diffusers_ext.metrics.extractors.feature_extractor import FeatureOutput, NetworkExtractor, to_rgb


LAYERS = ["2048", "logits_unbiased"]


def load_inception(device: str | torch.device = "cpu") -> NetworkExtractor:
    """torch-fidelity's InceptionV3: 2048 pooled features, and its logits without bias (those of its Inception Score).

    Its 1008 classes are TensorFlow's numbering of ImageNet without names: they judge no classes.

    Raises:
        ImportError: if torch-fidelity (and with it torchvision) isn't installed.
        OSError: if the weights can't be downloaded.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError(_missing("inception", "torch-fidelity", "fidelity")) from error

    _load_weights()
    network = FeatureExtractorInceptionV3("inception-v3-compat", LAYERS)
    return NetworkExtractor(network, "torch-fidelity inception-v3-compat", preprocess=to_rgb, device=device)


def load_torchmetrics_inception(device: str | torch.device = "cpu") -> NetworkExtractor:
    """torchmetrics' InceptionV3: the same weights and outputs as `load_inception`, images resized with antialiasing.

    Raises:
        ImportError: if torchmetrics or torch-fidelity isn't installed.
        OSError: if the weights can't be downloaded.
    """
    try:
        import torch_fidelity  # noqa: F401 -- torchmetrics imports without it, but has no network then
        from torchmetrics.image.fid import NoTrainInceptionV3
    except ImportError as error:
        raise ImportError(_missing("torchmetrics", "torchmetrics with torch-fidelity", "torchmetrics")) from error

    _load_weights()
    network = NoTrainInceptionV3("inception-v3-compat", LAYERS[:1]).to(device)

    def extract(images: torch.Tensor) -> FeatureOutput:
        features = network(images)
        return FeatureOutput(features, features @ network.fc.weight.T)

    return NetworkExtractor(extract, "torchmetrics inception-v3-compat", preprocess=to_rgb, device=device)


def _load_weights():
    """Downloads the weights unless torch.hub has them, and refuses a file that holds anything but tensors.

    torch-fidelity itself unpickles the file without that restriction.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    try:
        torch.hub.load_state_dict_from_url(URL_INCEPTION_V3, map_location="cpu", weights_only=True)
    except URLError as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise OSError(
            f"The InceptionV3 weights can't be downloaded ({error.reason}): put {URL_INCEPTION_V3} into {folder}, or "
            "name another feature extractor."
        ) from error


def _missing(name: str, library: str, extra: str) -> str:
    return f'The feature extractor "{name}" needs {library}: pip install "diffusers_ext[{extra}]".'
