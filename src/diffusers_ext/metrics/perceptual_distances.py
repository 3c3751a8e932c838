"""Perceptual distances between images: Palette's PD, LPIPS, and the formula of LPIPS on the layers of any network.

LPIPS and the distance of deep features are callables. They take two batches of images of shape (N, C, H, W), uint8 or
floats in [-1, 1], and return one distance per pair: float64 of shape (N,) on the CPU. Images are rounded to 8 bits
first, as they would be saved.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import combinations
from typing import Protocol
from urllib.error import URLError

import torch

from diffusers_ext.metrics.arrays import check_image_pair
from diffusers_ext.metrics.extractors import FeatureExtractor
from diffusers_ext.metrics.extractors.feature_extractor import to_rgb
from diffusers_ext.pixels import as_pixel_values, as_uint8


# For each network the torchvision weights that the lpips package uses, and the smallest image side that all its layers
# can process.
LPIPS_NETWORKS = {
    "alex": ("AlexNet_Weights.IMAGENET1K_V1", 31),
    "vgg": ("VGG16_Weights.IMAGENET1K_V1", 16),
    "squeeze": ("SqueezeNet1_1_Weights.IMAGENET1K_V1", 17),
}

# Avoids a division by zero for features of length zero; the lpips package uses the same value.
EPSILON = 1e-10


class ImageDistance(Protocol):
    """A distance between images.

    Attributes:
        metric: the name of its column in a table.
        name: the network it is measured with, which is reported with every number.
    """

    metric: str
    name: str

    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor: ...


class LPIPS:
    """The Learned Perceptual Image Patch Similarity of Zhang et al. (2018), computed by the authors' package.

    Args:
        network: "alex" (the one that most publications report), "vgg" or "squeeze".
        device: where the network runs.

    Raises:
        ImportError: if lpips (and with it torchvision) is not installed.
        OSError: if the weights of torchvision's network cannot be downloaded.
        ValueError: for another network. A call raises it for images of different shapes, out of range, neither
            grayscale nor RGB, or smaller than the network accepts.
    """

    metric = "lpips"

    def __init__(self, network: str = "alex", device: str | torch.device = "cpu"):
        if network not in LPIPS_NETWORKS:
            raise ValueError(f"The network of LPIPS must be one of {', '.join(LPIPS_NETWORKS)}, not {network!r}.")
        try:
            import lpips
        except ImportError as error:
            raise ImportError('LPIPS needs the package lpips: pip install "diffusers_ext[lpips]".') from error

        weights, self.min_size = LPIPS_NETWORKS[network]
        _download(weights)
        self.network = lpips.LPIPS(net=network, verbose=False).to(device)
        self.name = f"lpips {version('lpips')} {network}"
        self.device = device

    @torch.no_grad()
    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        first, second = check_image_pair(first, second)
        if min(first.shape[2:]) < self.min_size:
            raise ValueError(
                f"{self.name} needs images of at least {self.min_size} pixels a side, not {tuple(first.shape[2:])}."
            )
        first, second = (as_pixel_values(to_rgb(as_uint8(images))).to(self.device) for images in (first, second))
        return self.network(first, second).flatten().cpu().double()


class DeepFeatureDistance:
    """The formula of LPIPS on the layers of any network, with weight one for every channel. Its values are not LPIPS.

    The features of each layer are scaled to unit length at each position. Squared differences are summed over channels
    and layers, and averaged over positions: Zhang et al. (2018), equation 1 with w = 1, which is the "baseline" of
    their package. A layer contributes at most 4 (2 after a ReLU). Whether this distance ranks images as people do
    depends on the network.

    Args:
        extractor: the result of `load_feature_extractor` for a Transformers image model or Inception, or a
            `NetworkExtractor` around a torch module. It also prepares the images.
        layers: the names of the submodules whose outputs are compared: maps (N, C, H, W), tokens (N, T, C) or vectors
            (N, C). By default these are the entries of the network's first `ModuleList`: the stages of a ResNet, the
            layers of a ViT.

    Raises:
        ValueError: if the extractor's network is not a torch module, or has no such layers. A call raises it for
            images of different shapes or out of range, and for layers that do not run or return no features.
    """

    metric = "deep_feature_distance"

    def __init__(self, extractor: FeatureExtractor, layers: Sequence[str] | None = None):
        self.extractor = extractor
        network = _network_of(extractor)
        names = _stages(network, extractor.name) if layers is None else list(layers)
        modules = dict(network.named_modules())
        strangers = [name for name in names if name not in modules]
        if strangers or not names:
            some = ", ".join([name for name in modules if name][:5])
            raise ValueError(
                f"The layers of {extractor.name} to compare should be some of its modules ({some} ...), "
                f"not {', '.join(strangers) or 'none'}."
            )
        self.layers = {name: modules[name] for name in names}
        self.name = f"{extractor.name} ({', '.join(names)})"

    @torch.no_grad()
    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        first, second = check_image_pair(first, second)
        images = torch.cat([as_uint8(first), as_uint8(second).to(first.device)])
        features = self.unit_features(lambda: self.extractor(images), len(images))
        pairs = [layer.chunk(2) for layer in features]
        return torch.stack([(a - b).square().sum(dim=1).mean(dim=1) for a, b in pairs]).sum(dim=0).cpu().double()

    def unit_features(self, run: Callable[[], object], num_images: int) -> list[torch.Tensor]:
        """The outputs of the layers while `run()` calls the network on N images, of unit length along C.

        Returns:
            A tensor (N, C, positions) for each layer.

        Raises:
            ValueError: for layers that do not run or return no features.
        """
        found = {}

        def keep(name):
            # Scaled immediately, because the next layer may overwrite its input.
            return lambda module, args, output: found.__setitem__(name, self._scale(name, output, num_images))

        hooks = [module.register_forward_hook(keep(name)) for name, module in self.layers.items()]
        try:
            run()
        finally:
            for hook in hooks:
                hook.remove()
        idle = [name for name in self.layers if name not in found]
        if idle:
            raise ValueError(f"The layers {', '.join(idle)} of {self.extractor.name} do not run when it sees images.")
        return [found[name] for name in self.layers]

    def _scale(self, name: str, output, num_images: int) -> torch.Tensor:
        features = output if torch.is_tensor(output) else output[0]
        if features.ndim not in (2, 3, 4) or len(features) != num_images:
            raise ValueError(
                f"The layer {name} of {self.extractor.name} should give maps (N, C, H, W), tokens (N, T, C) or "
                f"vectors (N, C) for N = {num_images} images, not {tuple(features.shape)}."
            )
        features = features.float()
        features = features.transpose(1, 2) if features.ndim == 3 else features.reshape(*features.shape[:2], -1)
        # Clamped, because the square root has no gradient at zero.
        return features / (features.square().sum(dim=1, keepdim=True).clamp(min=EPSILON**2).sqrt() + EPSILON)


def perceptual_distance(first_features: torch.Tensor, second_features: torch.Tensor) -> torch.Tensor:
    """The Euclidean distance between two sets of features (N, D), row by row: float64 (N,). Its mean is Palette's PD.

    Saharia et al. (2022, section 4) use features of InceptionV1. Values of different networks cannot be compared.
    """
    return (first_features.double() - second_features.double()).norm(dim=1)


def pairwise_diversity(
    samples: torch.Tensor, distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """How much several restorations of one input differ: the mean distance of all pairs.

    Saharia et al. (2022) measure diversity this way, with LPIPS.

    Args:
        samples (`torch.Tensor` of shape (N, K, ...)): K restorations of each of N inputs, or their features.
        distance: a function from two batches of shape (N, ...) to (N,): `LPIPS()` for images, `perceptual_distance`
            for features.

    Returns:
        `torch.Tensor` of shape (N,).

    Raises:
        ValueError: for fewer than two restorations.
    """
    if samples.ndim < 3 or samples.shape[1] < 2:
        raise ValueError(
            f"Diversity needs at least two restorations of each input, (N, K, ...), not {tuple(samples.shape)}."
        )
    pairs = [distance(samples[:, i], samples[:, j]) for i, j in combinations(range(samples.shape[1]), 2)]
    return torch.stack(pairs).mean(dim=0)


def _network_of(extractor: FeatureExtractor) -> torch.nn.Module:
    for attribute in ("network", "model"):
        network = getattr(extractor, attribute, None)
        if isinstance(network, torch.nn.Module):
            return network
    raise ValueError(
        f"The layers of the feature extractor {extractor.name} cannot be compared: its network is not a torch module."
    )


def _stages(network: torch.nn.Module, name: str) -> list[str]:
    for path, module in network.named_modules():
        if isinstance(module, torch.nn.ModuleList):
            return [f"{path}.{i}" if path else str(i) for i in range(len(module))]
    raise ValueError(f"The network {name} has no list of stages: name the layers to compare.")


def _download(weights: str) -> None:
    """Downloads the weights with torchvision before lpips needs them; checks the hash and unpickles only tensors."""
    import torchvision

    weights = torchvision.models.get_weight(weights)
    try:
        weights.get_state_dict(check_hash=True, weights_only=True)
    except URLError as error:
        raise OSError(
            f"The network of LPIPS cannot be downloaded ({error.reason}): put {weights.url} into "
            f"{torch.hub.get_dir()}/checkpoints, or measure with a feature network of your own."
        ) from error
