"""The generator and the discriminator of DCGAN: convolutions that double noise up to an image and halve it again."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn


GENERATOR_CONDITIONINGS = (None, "concat", "embedding")
DISCRIMINATOR_CONDITIONINGS = (None, "concat", "embedding", "projection")
LATENT_DISTRIBUTIONS = ("normal", "uniform")
NORMALIZATIONS = ("batch", "instance", "layer", "none")
UPSAMPLE_TYPES = ("transposed", "resize")
SMALLEST_MAP = 4  # height and width of the coarsest features, at least
WIDEST = 8  # the coarsest features have at most so many times the channels of the finest
NEGATIVE_SLOPE = 0.2  # of the discriminator's leaky ReLU
CODE_HIDDEN_DIM = 128  # of the head that predicts InfoGAN's code
INIT_STD = 0.02


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
            What InfoGAN's Q reads in the image: the unnormalised log-probabilities of the categories, and behind them
            the means of the continuous codes.
    """

    logits: torch.Tensor
    class_logits: torch.Tensor | None = None
    code: torch.Tensor | None = None


def height_and_width(sample_size: int | tuple[int, int]) -> tuple[int, int]:
    return (sample_size, sample_size) if isinstance(sample_size, int) else tuple(sample_size)


def halvings(sample_size: int | tuple[int, int]) -> int:
    """How often an image is halved: as long as both sides are even, and then at least 4. 28 is 7 times 2 times 2.

    Raises:
        ValueError: if it cannot be halved at all.
    """
    height, width = height_and_width(sample_size)
    count = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 2 * SMALLEST_MAP:
        height, width, count = height // 2, width // 2, count + 1
    if count == 0:
        raise ValueError(
            f"`sample_size` must be even and at least {2 * SMALLEST_MAP}, in height and width, because the network "
            f"doubles features of {SMALLEST_MAP}x{SMALLEST_MAP} or more, but is {sample_size}."
        )
    return count


def widths(channels: int, count: int) -> list[int]:
    """The channels of the features, from fine to coarse."""
    return [channels * min(2**level, WIDEST) for level in range(count)]


def check_choice(name: str, value: str | None, choices: tuple[str | None, ...]):
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}, but is {value!r}.")


def check_positive(**numbers: int):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, but is {number}.")


def check_conditioning(conditioning: str | None, num_classes: int | None, needs_classes: bool):
    """Whether `num_classes` is given exactly where something needs it."""
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1, but is {num_classes}.")
    if needs_classes and num_classes is None:
        raise ValueError(f"`num_classes` must be given for a network with classes, whose {conditioning=}.")
    if num_classes is not None and not needs_classes:
        raise ValueError(f"`num_classes` is {num_classes}, but nothing needs it: choose a `conditioning`.")


def check_code(num_categories: int, num_continuous_codes: int):
    if num_categories < 0 or num_categories == 1 or num_continuous_codes < 0:
        raise ValueError(
            "`num_categories` must be 0 or at least 2, and `num_continuous_codes` at least 0, but they are "
            f"{num_categories} and {num_continuous_codes}."
        )


def check_labels(
    class_labels: torch.Tensor | None, num_samples: int, conditioning: str | None, num_classes: int | None
):
    """Refuses labels that the network cannot take. Values are looked at on the CPU only, where it costs nothing."""
    if conditioning is None:
        if class_labels is not None:
            raise ValueError("`class_labels` are given, but the network takes none: its `conditioning` is None.")
        return
    if class_labels is None:
        raise ValueError(f"`class_labels` must be given, for the network is conditional on {num_classes} classes.")
    if class_labels.shape != (num_samples,) or class_labels.is_floating_point():
        raise ValueError(
            f"`class_labels` must be integers of the shape ({num_samples},), but are {class_labels.dtype} of the "
            f"shape {tuple(class_labels.shape)}."
        )
    if class_labels.device.type == "cpu" and not torch.compiler.is_compiling():
        outside = class_labels[(class_labels < 0) | (class_labels >= num_classes)]
        if len(outside) > 0:
            raise ValueError(f"`class_labels` must be from 0 to {num_classes - 1}, but hold {outside[0]}.")


def check_batch(module: nn.Module, num_samples: int):
    if module.training and module.config.normalization == "batch" and num_samples == 1:
        raise ValueError("Batch normalization cannot be trained on a batch of one image: give it two or more.")


def make_norm(normalization: str, channels: int) -> nn.Module:
    if normalization == "batch":
        return nn.BatchNorm2d(channels)
    if normalization == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    # one group: over all channels and positions of an image, as in WGAN-GP
    return nn.GroupNorm(1, channels) if normalization == "layer" else nn.Identity()


def init_weights(module: nn.Module, normalization: str):
    """Radford et al. 2016, section 4; the normalizations as in the implementation of pytorch/examples.

    Without normalization the weights keep the scale that PyTorch gives them, by which signals neither fade nor grow.
    """
    for layer in module.modules() if normalization != "none" else ():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, std=INIT_STD)
        elif isinstance(layer, (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)):
            nn.init.normal_(layer.weight, mean=1.0, std=INIT_STD)


def make_upsample(upsample_type: str, in_channels: int, out_channels: int, bias: bool) -> nn.Module:
    """Doubles height and width."""
    if upsample_type == "transposed":
        return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=bias)
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=bias),
    )


class DCGANGenerator(ModelMixin, ConfigMixin):
    r"""
    Makes images of noise by convolutions, each of which doubles height and width.

    The generator of "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks"
    (Radford et al. 2016, https://huggingface.co/papers/1511.06434) as pytorch/examples has it, at any size. How many
    times the image is doubled follows from its size: the first features are as small as they can be with an even
    division by 2 and at least 4x4 (64 is 4 doubled four times, 28 is 7 doubled twice, and 48x64 is 6x8 doubled three
    times), and the channels are halved with each doubling, down to `channels`.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 64):
            Height and width of the images: even, and at least 8.
        out_channels (`int`, defaults to 3):
            Channels of the images.
        latent_dim (`int`, defaults to 100):
            The length of a latent vector, a code at its end included.
        channels (`int`, defaults to 64):
            The channels of the finest features; the coarsest have at most 8 times as many.
        upsample_type (`str`, defaults to `"transposed"`):
            What doubles: `"transposed"`, a transposed convolution, or `"resize"`, repetition of the nearest pixel and
            a convolution, which leaves no checkerboard (Odena et al. 2016,
            https://distill.pub/2016/deconv-checkerboard).
        normalization (`str`, defaults to `"batch"`):
            Between a convolution and its ReLU: `"batch"`, `"instance"`, `"layer"` (over all channels and positions) or
            `"none"`.
        num_classes (`int`, *optional*):
            The number of classes of a conditional generator.
        conditioning (`str`, *optional*):
            What goes into the first layer beside the latents: `"concat"`, the class as a one-hot vector (Mirza &
            Osindero 2014, https://huggingface.co/papers/1411.1784), or `"embedding"`, a learned vector of the class.
        class_embed_dim (`int`, defaults to 32):
            The length of that vector.
        num_categories (`int`, defaults to 0):
            Categories of InfoGAN's code (Chen et al. 2016, https://huggingface.co/papers/1606.03657), which is the end
            of the latents: `[noise, one-hot category, continuous codes]`.
        num_continuous_codes (`int`, defaults to 0):
            Continuous codes, each uniform in `[-1, 1]`.
        latent_distribution (`str`, defaults to `"normal"`):
            What the noise is drawn from: `"normal"`, or `"uniform"` in `[-1, 1]`, as in the paper.

    Raises:
        ValueError: if the arguments do not fit one another.
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
        count = halvings(sample_size)
        check_positive(
            out_channels=out_channels, latent_dim=latent_dim, channels=channels, class_embed_dim=class_embed_dim
        )
        check_choice("upsample_type", upsample_type, UPSAMPLE_TYPES)
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_choice("conditioning", conditioning, GENERATOR_CONDITIONINGS)
        check_choice("latent_distribution", latent_distribution, LATENT_DISTRIBUTIONS)
        check_conditioning(conditioning, num_classes, needs_classes=conditioning is not None)
        check_code(num_categories, num_continuous_codes)
        if num_categories + num_continuous_codes > latent_dim:
            raise ValueError(
                f"`latent_dim` must have room for the code of {num_categories} categories and {num_continuous_codes} "
                f"continuous codes, but is {latent_dim}."
            )

        features = latent_dim
        if conditioning == "concat":
            features += num_classes
        elif conditioning == "embedding":
            features += class_embed_dim
        bias = normalization == "none"  # a normalization would take it away again
        coarsest = tuple(size // 2**count for size in height_and_width(sample_size))
        *finer, width = widths(channels, count)
        conv_in = nn.ConvTranspose2d(features, width, kernel_size=coarsest, bias=bias)
        self.blocks = nn.ModuleList([nn.Sequential(conv_in, make_norm(normalization, width), nn.ReLU())])
        for out_width in reversed(finer):
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
                The noise, and at its end the code where there is one.
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
        if latents.ndim != 2 or latents.shape[1] != config.latent_dim:
            raise ValueError(f"`latents` must be (N, {config.latent_dim}), but are {tuple(latents.shape)}.")
        check_labels(class_labels, len(latents), config.conditioning, config.num_classes)
        check_batch(self, len(latents))

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


class DCGANDiscriminator(ModelMixin, ConfigMixin):
    r"""
    Tells real images from generated ones by convolutions, each of which halves height and width.

    The discriminator of DCGAN (Radford et al. 2016, https://huggingface.co/papers/1511.06434) as pytorch/examples has
    it, at any size: the mirror image of [`DCGANGenerator`], with leaky ReLU (slope 0.2) and no normalization behind
    the first convolution.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 64):
            Height and width of the images: even, and at least 8.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        channels (`int`, defaults to 64):
            The channels of the finest features; the coarsest have at most 8 times as many.
        normalization (`str`, defaults to `"batch"`):
            Between a convolution and its activation: `"batch"`, `"instance"`, `"layer"` (over all channels and
            positions, for gradient penalties) or `"none"`.
        spectral_norm (`bool`, defaults to `False`):
            Whether the weights that make the score are divided by their largest singular value (Miyato et al. 2018,
            https://huggingface.co/papers/1802.05957). The heads for classes and codes are left as they are.
        num_classes (`int`, *optional*):
            The number of classes of a conditional discriminator, or of its auxiliary classifier.
        conditioning (`str`, *optional*):
            How the class enters: `"concat"`, one-hot maps beside the channels of the image; `"embedding"`, a learned
            map of the image's size beside them; `"projection"`, a learned vector times the sum of the coarsest
            features over all positions, added to the score (Miyato & Koyama 2018, eq. 3,
            https://huggingface.co/papers/1802.05637).
        auxiliary_classifier (`bool`, defaults to `False`):
            Whether a head tells the class of the image (AC-GAN, Odena et al. 2017,
            https://huggingface.co/papers/1610.09585).
        num_categories (`int`, defaults to 0):
            Categories of InfoGAN's code, which a head of its own reads in the image.
        num_continuous_codes (`int`, defaults to 0):
            Continuous codes that this head reads.

    Raises:
        ValueError: if the arguments do not fit one another.
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
        count = halvings(sample_size)
        check_positive(in_channels=in_channels, channels=channels)
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_choice("conditioning", conditioning, DISCRIMINATOR_CONDITIONINGS)
        check_conditioning(conditioning, num_classes, conditioning is not None or auxiliary_classifier)
        check_code(num_categories, num_continuous_codes)

        height, width = height_and_width(sample_size)
        coarsest = (height // 2**count, width // 2**count)
        bias = normalization == "none"  # a normalization would take it away again
        features = in_channels + {"concat": num_classes, "embedding": 1}.get(conditioning, 0)
        self.blocks = nn.ModuleList()
        for level, out_features in enumerate(widths(channels, count)):
            conv = nn.Conv2d(features, out_features, kernel_size=4, stride=2, padding=1, bias=bias)
            norm = nn.Identity() if level == 0 else make_norm(normalization, out_features)
            self.blocks.append(nn.Sequential(conv, norm, nn.LeakyReLU(NEGATIVE_SLOPE)))
            features = out_features
        self.conv_out = nn.Conv2d(features, 1, kernel_size=coarsest, bias=bias)
        init_weights(self, normalization)

        if conditioning == "embedding":
            self.class_embedding = nn.Embedding(num_classes, height * width)
        elif conditioning == "projection":
            self.class_embedding = nn.Embedding(num_classes, features)
            nn.init.normal_(self.class_embedding.weight, std=INIT_STD)
        if spectral_norm:
            scoring = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
            for module in scoring + ([self.class_embedding] if conditioning == "projection" else []):
                nn.utils.parametrizations.spectral_norm(module)

        flat = features * coarsest[0] * coarsest[1]
        if auxiliary_classifier:
            self.class_head = nn.Linear(flat, num_classes)
        if num_categories + num_continuous_codes > 0:
            self.code_head = nn.Sequential(
                nn.Linear(flat, CODE_HIDDEN_DIM),
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
            [`DCGANDiscriminatorOutput`] or `tuple`: the scores `(N,)`, and what the heads say where there are any.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        config = self.config
        height, width = height_and_width(config.sample_size)
        if tuple(sample.shape[1:]) != (config.in_channels, height, width):
            raise ValueError(
                f"`sample` must be (N, {config.in_channels}, {height}, {width}), but is {tuple(sample.shape)}."
            )
        check_labels(class_labels, len(sample), config.conditioning, config.num_classes)
        check_batch(self, len(sample))

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
