"""DCGAN: a generator that doubles noise up to an image by convolutions, and a discriminator that halves images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .gan_checks import (
    check_batch_size,
    check_choice,
    check_discriminator_arguments,
    check_generator_arguments,
    check_images,
    check_labels,
    check_latents,
    check_positive,
    height_and_width,
)
from .spectral_normalization import with_spectral_norm


@dataclass
class DCGANGeneratorOutput(BaseOutput):
    """
    The output of [`DCGANGenerator`].

    Args:
        sample (`torch.Tensor` of shape `(N, out_channels, H, W)`):
            Images in `[-1, 1]`.
    """

    sample: torch.Tensor


@dataclass
class DCGANDiscriminatorOutput(BaseOutput):
    """
    The output of [`DCGANDiscriminator`].

    Args:
        logits (`torch.Tensor` of shape `(N,)`):
            Scores before any sigmoid: the higher, the more real.
        class_logits (`torch.Tensor` of shape `(N, num_classes)`, *optional*):
            Unnormalised log-probabilities of the classes, from an auxiliary classifier.
        code (`torch.Tensor` of shape `(N, num_categories + num_continuous_codes)`, *optional*):
            The prediction of InfoGAN's code from the image: first the unnormalised log-probabilities of the
            categories, then the means of the continuous codes.
    """

    logits: torch.Tensor
    class_logits: torch.Tensor | None = None
    code: torch.Tensor | None = None


class DCGANGenerator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Generates images from noise by convolutions, each of which doubles height and width.

    The generator of "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks"
    (Radford et al. 2016, https://huggingface.co/papers/1511.06434) as in pytorch/examples, for any image size. The
    number of doublings follows from the size: the size is divided by 2 as often as it is even and the result is at
    least 4x4. So 64 is 4 doubled four times, 28 is 7 doubled twice, and 48x64 is 6x8 doubled three times. Each
    doubling halves the number of channels, down to `channels`.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 64):
            Height and width of the images: even, and at least 8.
        out_channels (`int`, defaults to 3):
            Channels of the images.
        latent_dim (`int`, defaults to 100):
            The length of a latent vector, including the code at its end if there is one.
        channels (`int`, defaults to 64):
            The channels of the finest features. The coarsest features have at most 8 times as many.
        upsample_type (`str`, defaults to `"transposed"`):
            How features are doubled: `"transposed"`, by a transposed convolution, or `"resize"`, by repeating pixels
            before a convolution, which avoids checkerboard patterns (Odena et al. 2016,
            https://distill.pub/2016/deconv-checkerboard).
        normalization (`str`, defaults to `"batch"`):
            The normalization between a convolution and its ReLU: `"batch"`, `"instance"`, `"layer"` (over all channels
            and positions) or `"none"`.
        num_classes (`int`, *optional*):
            The number of classes of a conditional generator.
        conditioning (`str`, *optional*):
            The input of the first layer besides the latents: `"concat"`, the class as a one-hot vector (Mirza &
            Osindero 2014, https://huggingface.co/papers/1411.1784), or `"embedding"`, a learned vector of the class.
        class_embed_dim (`int`, defaults to 32):
            The length of the learned vector.
        num_categories (`int`, defaults to 0):
            The number of categories of InfoGAN's code (Chen et al. 2016, https://huggingface.co/papers/1606.03657).
            The
            code is at the end of the latents: `[noise, one-hot category, continuous codes]`.
        num_continuous_codes (`int`, defaults to 0):
            The number of continuous codes, each uniform in `[-1, 1]`.
        latent_distribution (`str`, defaults to `"normal"`):
            The distribution of the noise: `"normal"`, or `"uniform"` in `[-1, 1]`, as in the paper.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 64,
        out_channels: int = 3,
        latent_dim: int = 100,
        channels: int = 64,
        upsample_type: str = "transposed",
        normalization: str = "batch",
        num_classes: int | None = None,
        conditioning: str | None = None,
        class_embed_dim: int = 32,
        num_categories: int = 0,
        num_continuous_codes: int = 0,
        latent_distribution: str = "normal",
    ):
        super().__init__()
        num_blocks = count_halvings(sample_size)
        check_positive(
            out_channels=out_channels, latent_dim=latent_dim, channels=channels, class_embed_dim=class_embed_dim
        )
        check_choice("upsample_type", upsample_type, UPSAMPLE_TYPES)
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_generator_arguments(
            latent_dim, conditioning, num_classes, num_categories, num_continuous_codes, latent_distribution
        )

        features = latent_dim
        if conditioning == "concat":
            features += num_classes
        elif conditioning == "embedding":
            features += class_embed_dim
        bias = normalization == "none"  # a normalization would cancel a bias
        coarsest_size = tuple(side // 2**num_blocks for side in height_and_width(sample_size))
        *finer_widths, width = block_widths(channels, num_blocks)

        conv_in = nn.ConvTranspose2d(features, width, kernel_size=coarsest_size, bias=bias)
        self.blocks = nn.ModuleList([nn.Sequential(conv_in, make_norm(normalization, width), nn.ReLU())])
        for out_width in reversed(finer_widths):
            upsample = make_upsample(upsample_type, width, out_width, bias)
            self.blocks.append(nn.Sequential(upsample, make_norm(normalization, out_width), nn.ReLU()))
            width = out_width
        self.conv_out = make_upsample(upsample_type, width, out_channels, bias)
        init_weights(self, normalization)
        if conditioning == "embedding":
            self.class_embedding = nn.Embedding(num_classes, class_embed_dim)

    def forward(
        self, latents: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> DCGANGeneratorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`):
                The noise, with the code at its end if there is one.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each image, for a conditional generator.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DCGANGeneratorOutput`] instead of a tuple.

        Returns:
            [`DCGANGeneratorOutput`] or `tuple`: the images `(N, out_channels, H, W)` in `[-1, 1]`.

        Raises:
            ValueError: if the latents or the labels do not fit the network.
        """
        config = self.config
        check_latents(latents, config.latent_dim)
        check_labels(class_labels, latents.shape[0], config.conditioning, config.num_classes)
        check_batch_size(self, latents.shape[0])

        hidden_states = latents
        if config.conditioning == "concat":
            one_hot = F.one_hot(class_labels.long(), config.num_classes).to(latents.dtype)
            hidden_states = torch.cat([latents, one_hot], dim=1)
        elif config.conditioning == "embedding":
            hidden_states = torch.cat([latents, self.class_embedding(class_labels)], dim=1)
        hidden_states = hidden_states[:, :, None, None]
        for block in self.blocks:
            hidden_states = block(hidden_states)
        sample = self.conv_out(hidden_states).tanh()

        if not return_dict:
            return (sample,)
        return DCGANGeneratorOutput(sample=sample)


class DCGANDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Distinguishes real images from generated ones by convolutions, each of which halves height and width.

    The discriminator of DCGAN (Radford et al. 2016, https://huggingface.co/papers/1511.06434) as in pytorch/examples,
    for any image size. It mirrors [`DCGANGenerator`], with leaky ReLU (slope 0.2) and no normalization after the first
    convolution.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 64):
            Height and width of the images: even, and at least 8.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        channels (`int`, defaults to 64):
            The channels of the finest features. The coarsest features have at most 8 times as many.
        normalization (`str`, defaults to `"batch"`):
            The normalization between a convolution and its activation: `"batch"`, `"instance"`, `"layer"` (over all
            channels and positions, for gradient penalties) or `"none"`.
        spectral_norm (`bool`, defaults to `False`):
            Whether the weights of the layers for the score are divided by their largest singular value (Miyato et al.
            2018, https://huggingface.co/papers/1802.05957). The heads for classes and codes are not affected.
        num_classes (`int`, *optional*):
            The number of classes of a conditional discriminator, or of its auxiliary classifier.
        conditioning (`str`, *optional*):
            How the class is used: `"concat"`, one-hot maps are added to the channels of the image; `"embedding"`, a
            learned map with the size of the image is added to its channels; `"projection"`, the product of a learned
            vector and the coarsest features, summed over all positions, is added to the score (Miyato & Koyama 2018,
            eq. 3, https://huggingface.co/papers/1802.05637).
        auxiliary_classifier (`bool`, defaults to `False`):
            Whether a head predicts the class of the image (AC-GAN, Odena et al. 2017,
            https://huggingface.co/papers/1610.09585).
        num_categories (`int`, defaults to 0):
            The number of categories of InfoGAN's code, which a separate head predicts from the image.
        num_continuous_codes (`int`, defaults to 0):
            The number of continuous codes that this head predicts.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 64,
        in_channels: int = 3,
        channels: int = 64,
        normalization: str = "batch",
        spectral_norm: bool = False,
        num_classes: int | None = None,
        conditioning: str | None = None,
        auxiliary_classifier: bool = False,
        num_categories: int = 0,
        num_continuous_codes: int = 0,
    ):
        super().__init__()
        num_blocks = count_halvings(sample_size)
        check_positive(in_channels=in_channels, channels=channels)
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_discriminator_arguments(
            conditioning, num_classes, auxiliary_classifier, num_categories, num_continuous_codes
        )

        height, width = height_and_width(sample_size)
        coarsest_size = (height // 2**num_blocks, width // 2**num_blocks)
        bias = normalization == "none"  # a normalization would cancel a bias
        features = in_channels + {"concat": num_classes, "embedding": 1}.get(conditioning, 0)
        self.blocks = nn.ModuleList()
        for level, out_features in enumerate(block_widths(channels, num_blocks)):
            conv = nn.Conv2d(features, out_features, kernel_size=4, stride=2, padding=1, bias=bias)
            norm = nn.Identity() if level == 0 else make_norm(normalization, out_features)
            self.blocks.append(nn.Sequential(conv, norm, nn.LeakyReLU(NEGATIVE_SLOPE)))
            features = out_features
        self.conv_out = nn.Conv2d(features, 1, kernel_size=coarsest_size, bias=bias)
        init_weights(self, normalization)

        if conditioning == "embedding":
            self.class_embedding = nn.Embedding(num_classes, height * width)
        elif conditioning == "projection":
            self.class_embedding = nn.Embedding(num_classes, features)
            nn.init.normal_(self.class_embedding.weight, std=INIT_STD)
        if spectral_norm:
            scoring = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
            for module in scoring + ([self.class_embedding] if conditioning == "projection" else []):
                with_spectral_norm(module)

        num_flat_features = features * coarsest_size[0] * coarsest_size[1]
        if auxiliary_classifier:
            self.class_head = nn.Linear(num_flat_features, num_classes)
        if num_categories + num_continuous_codes > 0:
            self.code_head = nn.Sequential(
                nn.Linear(num_flat_features, CODE_HIDDEN_DIM),
                nn.LeakyReLU(NEGATIVE_SLOPE),
                nn.Linear(CODE_HIDDEN_DIM, num_categories + num_continuous_codes),
            )

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> DCGANDiscriminatorOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each image, for a conditional discriminator.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DCGANDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`DCGANDiscriminatorOutput`] or `tuple`: the scores `(N,)`, and the outputs of the heads if there are any.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        config = self.config
        height, width = height_and_width(config.sample_size)
        check_images(sample, (config.in_channels, height, width))
        check_labels(class_labels, sample.shape[0], config.conditioning, config.num_classes)
        check_batch_size(self, sample.shape[0])

        hidden_states = sample
        if config.conditioning == "concat":
            one_hot = F.one_hot(class_labels.long(), config.num_classes).to(sample.dtype)
            maps = one_hot[:, :, None, None].expand(-1, -1, height, width)
            hidden_states = torch.cat([sample, maps], dim=1)
        elif config.conditioning == "embedding":
            maps = self.class_embedding(class_labels).unflatten(1, (1, height, width))
            hidden_states = torch.cat([sample, maps], dim=1)
        for block in self.blocks:
            hidden_states = block(hidden_states)

        logits = self.conv_out(hidden_states).flatten()
        if config.conditioning == "projection":
            logits = logits + (self.class_embedding(class_labels) * hidden_states.sum(dim=(2, 3))).sum(dim=1)
        flat = hidden_states.flatten(1)
        class_logits = self.class_head(flat) if config.auxiliary_classifier else None
        code = self.code_head(flat) if config.num_categories + config.num_continuous_codes > 0 else None

        if not return_dict:
            return tuple(output for output in (logits, class_logits, code) if output is not None)
        return DCGANDiscriminatorOutput(logits=logits, class_logits=class_logits, code=code)


NORMALIZATIONS = ("batch", "instance", "layer", "none")
UPSAMPLE_TYPES = ("transposed", "resize")
SMALLEST_SIDE = 4  # the coarsest features have at least this height and width
MAX_MULTIPLIER = 8  # the coarsest features have at most this many times the channels of the finest
NEGATIVE_SLOPE = 0.2  # of the discriminator's leaky ReLU
CODE_HIDDEN_DIM = 128  # of the head that predicts InfoGAN's code
INIT_STD = 0.02


def make_norm(normalization: str, channels: int) -> nn.Module:
    if normalization == "batch":
        return nn.BatchNorm2d(channels)
    if normalization == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    # a single group normalizes over all channels and positions of an image, as in WGAN-GP
    return nn.GroupNorm(1, channels) if normalization == "layer" else nn.Identity()


def make_upsample(upsample_type: str, in_channels: int, out_channels: int, bias: bool) -> nn.Module:
    """A layer that doubles height and width."""
    if upsample_type == "transposed":
        return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=bias)
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias),
    )


def init_weights(network: nn.Module, normalization: str) -> None:
    """Radford et al. 2016, section 4; for normalizations as in pytorch/examples.

    Without normalization, PyTorch's default scale of the weights is kept, which neither damps nor amplifies signals.
    """
    for layer in network.modules() if normalization != "none" else ():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, std=INIT_STD)
        elif isinstance(layer, (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)):
            nn.init.normal_(layer.weight, mean=1.0, std=INIT_STD)


def block_widths(channels: int, num_blocks: int) -> list[int]:
    """The channels of the features, from fine to coarse."""
    return [channels * min(2**level, MAX_MULTIPLIER) for level in range(num_blocks)]


def count_halvings(sample_size: int | tuple[int, int]) -> int:
    """How often both sides of an image can be halved to integers of at least 4: twice for 28, which is 7 * 2 * 2.

    Raises:
        ValueError: if it cannot be halved at all.
    """
    height, width = height_and_width(sample_size)
    count = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 2 * SMALLEST_SIDE:
        height, width, count = height // 2, width // 2, count + 1
    if count == 0:
        raise ValueError(
            f"`sample_size` must be even and at least {2 * SMALLEST_SIDE}, in height and width, because the network "
            f"doubles features of {SMALLEST_SIDE}x{SMALLEST_SIDE} or more, but is {sample_size}."
        )
    return count
