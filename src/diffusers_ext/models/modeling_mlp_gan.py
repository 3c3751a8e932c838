"""The generator and the discriminator of the first GAN: dense layers from noise to pixels, from pixels to a score."""

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
NORMALIZATIONS = ("batch", "layer", "none")
NEGATIVE_SLOPE = 0.2  # of the discriminator's leaky ReLU
CODE_HIDDEN_DIM = 128  # of the head that predicts InfoGAN's code


@dataclass
class MLPGeneratorOutput(BaseOutput):
    """
    The output of [`MLPGenerator`].

    Args:
        sample (`torch.Tensor` of shape `(N, out_channels, H, W)`):
            Images in `[-1, 1]`.
    """

    sample: torch.Tensor


@dataclass
class MLPDiscriminatorOutput(BaseOutput):
    """
    The output of [`MLPDiscriminator`].

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


def check_choice(name: str, value: str | None, choices: tuple[str | None, ...]):
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {choices}, but is {value!r}.")


# Copied from diffusers_ext.models.modeling_dcgan.check_positive
def check_positive(**numbers: int):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, but is {number}.")


# Copied from diffusers_ext.models.modeling_dcgan.check_conditioning
def check_conditioning(conditioning: str | None, num_classes: int | None, needs_classes: bool):
    """Whether `num_classes` is given exactly where something needs it."""
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1, but is {num_classes}.")
    if needs_classes and num_classes is None:
        raise ValueError(f"`num_classes` must be given for a network with classes, whose {conditioning=}.")
    if num_classes is not None and not needs_classes:
        raise ValueError(f"`num_classes` is {num_classes}, but nothing needs it: choose a `conditioning`.")


# Copied from diffusers_ext.models.modeling_dcgan.check_code
def check_code(num_categories: int, num_continuous_codes: int):
    if num_categories < 0 or num_categories == 1 or num_continuous_codes < 0:
        raise ValueError(
            "`num_categories` must be 0 or at least 2, and `num_continuous_codes` at least 0, but they are "
            f"{num_categories} and {num_continuous_codes}."
        )


# Copied from diffusers_ext.models.modeling_dcgan.check_labels
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


def make_norm(normalization: str, features: int) -> nn.Module:
    if normalization == "batch":
        return nn.BatchNorm1d(features)
    return nn.LayerNorm(features) if normalization == "layer" else nn.Identity()


class MLPGenerator(ModelMixin, ConfigMixin):
    r"""
    Makes images of noise by dense layers.

    The generator of "Generative Adversarial Networks" (Goodfellow et al. 2014, https://huggingface.co/papers/1406.2661):
    ReLU inside, and tanh behind the last layer. With `conditioning` it is that of conditional GANs (Mirza & Osindero
    2014, https://huggingface.co/papers/1411.1784), with a code that of InfoGAN (Chen et al. 2016,
    https://huggingface.co/papers/1606.03657).

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 28):
            Height and width of the images.
        out_channels (`int`, defaults to 1):
            Channels of the images.
        latent_dim (`int`, defaults to 64):
            The length of a latent vector, a code at its end included.
        hidden_dims (`tuple[int, ...]`, defaults to `(256, 256)`):
            The width of each hidden layer.
        normalization (`str`, defaults to `"none"`):
            Between a hidden layer and its activation: `"batch"`, `"layer"` or `"none"`.
        num_classes (`int`, *optional*):
            The number of classes of a conditional generator.
        conditioning (`str`, *optional*):
            What goes into the first layer beside the latents: `"concat"`, the class as a one-hot vector, or
            `"embedding"`, a learned vector of the class.
        class_embed_dim (`int`, defaults to 32):
            The length of that vector.
        num_categories (`int`, defaults to 0):
            Categories of the code, which is the end of the latents: `[noise, one-hot category, continuous codes]`.
        num_continuous_codes (`int`, defaults to 0):
            Continuous codes, each uniform in `[-1, 1]`.
        latent_distribution (`str`, defaults to `"normal"`):
            What the noise is drawn from: `"normal"`, or `"uniform"` in `[-1, 1]`.

    Raises:
        ValueError: if the arguments do not fit one another.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 28,
        out_channels: int = 1,
        latent_dim: int = 64,
        hidden_dims: tuple[int, ...] = (256, 256),
        normalization: str = "none",
        num_classes: int | None = None,
        conditioning: str | None = None,
        class_embed_dim: int = 32,
        num_categories: int = 0,
        num_continuous_codes: int = 0,
        latent_distribution: str = "normal",
    ):
        super().__init__()
        height, width = height_and_width(sample_size)
        check_positive(sample_size=min(height, width))
        check_positive(out_channels=out_channels, latent_dim=latent_dim, class_embed_dim=class_embed_dim)
        check_positive(hidden_dims=min(hidden_dims, default=1))
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
            self.class_embedding = nn.Embedding(num_classes, class_embed_dim)
            features += class_embed_dim
        self.layers = nn.ModuleList()
        for hidden_dim in hidden_dims:
            self.layers.append(
                nn.Sequential(nn.Linear(features, hidden_dim), make_norm(normalization, hidden_dim), nn.ReLU())
            )
            features = hidden_dim
        self.proj_out = nn.Linear(features, out_channels * height * width)

    def forward(
        self, latents: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> MLPGeneratorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`):
                The noise, and at its end the code where there is one.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each image, for a conditional generator.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`MLPGeneratorOutput`] instead of a tuple.

        Returns:
            [`MLPGeneratorOutput`] or `tuple`: the images `(N, out_channels, H, W)` in `[-1, 1]`.

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
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        sample = self.proj_out(hidden_states).tanh()
        sample = sample.unflatten(1, (config.out_channels, *height_and_width(config.sample_size)))

        if not return_dict:
            return (sample,)
        return MLPGeneratorOutput(sample=sample)


class MLPDiscriminator(ModelMixin, ConfigMixin):
    r"""
    Tells real images from generated ones by dense layers.

    The discriminator of "Generative Adversarial Networks" (Goodfellow et al. 2014,
    https://huggingface.co/papers/1406.2661), with leaky ReLU (slope 0.2) in place of maxout.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 28):
            Height and width of the images.
        in_channels (`int`, defaults to 1):
            Channels of the images.
        hidden_dims (`tuple[int, ...]`, defaults to `(256, 256)`):
            The width of each hidden layer.
        normalization (`str`, defaults to `"none"`):
            Between a hidden layer and its activation: `"batch"`, `"layer"` or `"none"`.
        dropout (`float`, defaults to 0.0):
            The dropout probability behind each hidden layer.
        spectral_norm (`bool`, defaults to `False`):
            Whether the weights that make the score are divided by their largest singular value (Miyato et al. 2018,
            https://huggingface.co/papers/1802.05957). The heads for classes and codes are left as they are.
        num_classes (`int`, *optional*):
            The number of classes of a conditional discriminator, or of its auxiliary classifier.
        conditioning (`str`, *optional*):
            How the class enters: `"concat"`, a one-hot vector beside the pixels; `"embedding"`, a learned vector
            beside them; `"projection"`, a learned vector times the last features, added to the score (Miyato & Koyama
            2018, eq. 3, https://huggingface.co/papers/1802.05637).
        class_embed_dim (`int`, defaults to 32):
            The length of the vector of `"embedding"`.
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
        sample_size: int | tuple[int, int] = 28,
        in_channels: int = 1,
        hidden_dims: tuple[int, ...] = (256, 256),
        normalization: str = "none",
        dropout: float = 0.0,
        spectral_norm: bool = False,
        num_classes: int | None = None,
        conditioning: str | None = None,
        class_embed_dim: int = 32,
        auxiliary_classifier: bool = False,
        num_categories: int = 0,
        num_continuous_codes: int = 0,
    ):
        super().__init__()
        height, width = height_and_width(sample_size)
        check_positive(sample_size=min(height, width))
        check_positive(in_channels=in_channels, class_embed_dim=class_embed_dim)
        check_positive(hidden_dims=min(hidden_dims, default=1))
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_choice("conditioning", conditioning, DISCRIMINATOR_CONDITIONINGS)
        check_conditioning(conditioning, num_classes, conditioning is not None or auxiliary_classifier)
        check_code(num_categories, num_continuous_codes)

        def normalized(module: nn.Module) -> nn.Module:
            return nn.utils.parametrizations.spectral_norm(module) if spectral_norm else module

        features = in_channels * height * width
        if conditioning == "concat":
            features += num_classes
        elif conditioning == "embedding":
            self.class_embedding = nn.Embedding(num_classes, class_embed_dim)
            features += class_embed_dim
        self.layers = nn.ModuleList()
        for hidden_dim in hidden_dims:
            layer = [normalized(nn.Linear(features, hidden_dim)), make_norm(normalization, hidden_dim)]
            self.layers.append(nn.Sequential(*layer, nn.LeakyReLU(NEGATIVE_SLOPE), nn.Dropout(dropout)))
            features = hidden_dim
        self.proj_out = normalized(nn.Linear(features, 1))
        if conditioning == "projection":
            class_embedding = nn.Embedding(num_classes, features)
            nn.init.normal_(class_embedding.weight, std=features**-0.5)
            self.class_embedding = normalized(class_embedding)
        if auxiliary_classifier:
            self.class_head = nn.Linear(features, num_classes)
        if num_categories + num_continuous_codes > 0:
            self.code_head = nn.Sequential(
                nn.Linear(features, CODE_HIDDEN_DIM),
                nn.LeakyReLU(NEGATIVE_SLOPE),
                nn.Linear(CODE_HIDDEN_DIM, num_categories + num_continuous_codes),
            )

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> MLPDiscriminatorOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each image, for a conditional discriminator.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`MLPDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`MLPDiscriminatorOutput`] or `tuple`: the scores `(N,)`, and what the heads say where there are any.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        config = self.config
        shape = (config.in_channels, *height_and_width(config.sample_size))
        if tuple(sample.shape[1:]) != shape:
            raise ValueError(f"`sample` must be (N, {', '.join(map(str, shape))}), but is {tuple(sample.shape)}.")
        check_labels(class_labels, len(sample), config.conditioning, config.num_classes)
        check_batch(self, len(sample))

        hidden_states = sample.flatten(1)
        if config.conditioning == "concat":
            one_hot = F.one_hot(class_labels.long(), config.num_classes).to(sample.dtype)
            hidden_states = torch.cat([hidden_states, one_hot], dim=1)
        elif config.conditioning == "embedding":
            hidden_states = torch.cat([hidden_states, self.class_embedding(class_labels)], dim=1)
        for layer in self.layers:
            hidden_states = layer(hidden_states)

        logits = self.proj_out(hidden_states).squeeze(1)
        if config.conditioning == "projection":
            logits = logits + (self.class_embedding(class_labels) * hidden_states).sum(dim=1)
        class_logits = self.class_head(hidden_states) if config.auxiliary_classifier else None
        code = self.code_head(hidden_states) if config.num_categories + config.num_continuous_codes > 0 else None

        if not return_dict:
            return tuple(output for output in (logits, class_logits, code) if output is not None)
        return MLPDiscriminatorOutput(logits=logits, class_logits=class_logits, code=code)
