"""InceptionV3 features, which published FID and KID values use.

Two ways to resize images to 299x299 are in use, and they give different values: torch-fidelity resizes as TensorFlow 1
does (like the first FID code), torchmetrics smooths images before it makes them smaller. torch.hub downloads the
weights (about 90 MB) on first use.
"""

from urllib.error import URLError

import torch

from diffusers_ext.metrics.extractors.feature_extractor import FeatureOutput, NetworkExtractor, to_rgb


LAYERS = ["2048", "logits_unbiased"]


def load_inception(device: str | torch.device = "cpu") -> NetworkExtractor:
    """torch-fidelity's InceptionV3: 2048 pooled features, and logits without bias (as its Inception Score uses them).

    It cannot be used to measure class accuracy: its 1008 classes are TensorFlow's numbering of ImageNet, without
    names.

    Raises:
        ImportError: if torch-fidelity (and with it torchvision) is not installed.
        OSError: if the weights cannot be downloaded.
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
        ImportError: if torchmetrics or torch-fidelity is not installed.
        OSError: if the weights cannot be downloaded.
    """
    try:
        import torch_fidelity  # noqa: F401 -- without it torchmetrics can be imported, but has no network
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
    """Downloads the weights unless torch.hub has them, and refuses a file with anything but tensors.

    torch-fidelity itself would unpickle any file.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    try:
        torch.hub.load_state_dict_from_url(URL_INCEPTION_V3, map_location="cpu", weights_only=True)
    except URLError as error:
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise OSError(
            f"The InceptionV3 weights cannot be downloaded ({error.reason}): put {URL_INCEPTION_V3} into {folder}, or "
            "use another feature extractor."
        ) from error


def _missing(name: str, library: str, extra: str) -> str:
    return f'The feature extractor "{name}" needs {library}: pip install "diffusers_ext[{extra}]".'
