"""The first GAN: a generator of dense layers from noise to pixels, and a discriminator from pixels to a score."""

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
            The prediction of InfoGAN's code from the image: first the unnormalised log-probabilities of the
            categories, then the means of the continuous codes.
    """

    logits: torch.Tensor
    class_logits: torch.Tensor | None = None
    code: torch.Tensor | None = None


class MLPGenerator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Generates images from noise by dense layers.

    The generator of "Generative Adversarial Networks" (Goodfellow et al. 2014,
    https://huggingface.co/papers/1406.2661), with ReLU in hidden layers and tanh after the last layer. With
    `conditioning` it is the generator of conditional GANs (Mirza & Osindero 2014,
    https://huggingface.co/papers/1411.1784), and with a code the generator of InfoGAN (Chen et al. 2016,
    https://huggingface.co/papers/1606.03657).

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 28):
            Height and width of the images.
        out_channels (`int`, defaults to 1):
            Channels of the images.
        latent_dim (`int`, defaults to 64):
            The length of a latent vector, including the code at its end if there is one.
        hidden_dims (`tuple[int, ...]`, defaults to `(256, 256)`):
            The width of each hidden layer.
        normalization (`str`, defaults to `"none"`):
            The normalization between a hidden layer and its activation: `"batch"`, `"layer"` or `"none"`.
        num_classes (`int`, *optional*):
            The number of classes of a conditional generator.
        conditioning (`str`, *optional*):
            The input of the first layer besides the latents: `"concat"`, the class as a one-hot vector, or
            `"embedding"`, a learned vector of the class.
        class_embed_dim (`int`, defaults to 32):
            The length of the learned vector.
        num_categories (`int`, defaults to 0):
            The number of categories of the code, which is at the end of the latents: `[noise, one-hot category,
            continuous codes]`.
        num_continuous_codes (`int`, defaults to 0):
            The number of continuous codes, each uniform in `[-1, 1]`.
        latent_distribution (`str`, defaults to `"normal"`):
            The distribution of the noise: `"normal"`, or `"uniform"` in `[-1, 1]`.

    Raises:
        ValueError: if the arguments do not fit together.
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
        check_generator_arguments(
            latent_dim, conditioning, num_classes, num_categories, num_continuous_codes, latent_distribution
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
                The noise, with the code at its end if there is one.
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
        check_latents(latents, config.latent_dim)
        check_labels(class_labels, latents.shape[0], config.conditioning, config.num_classes)
        check_batch_size(self, latents.shape[0])

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


class MLPDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Distinguishes real images from generated ones by dense layers.

    The discriminator of "Generative Adversarial Networks" (Goodfellow et al. 2014,
    https://huggingface.co/papers/1406.2661), with leaky ReLU (slope 0.2) instead of maxout.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 28):
            Height and width of the images.
        in_channels (`int`, defaults to 1):
            Channels of the images.
        hidden_dims (`tuple[int, ...]`, defaults to `(256, 256)`):
            The width of each hidden layer.
        normalization (`str`, defaults to `"none"`):
            The normalization between a hidden layer and its activation: `"batch"`, `"layer"` or `"none"`.
        dropout (`float`, defaults to 0.0):
            The dropout probability after each hidden layer.
        spectral_norm (`bool`, defaults to `False`):
            Whether the weights of the layers for the score are divided by their largest singular value (Miyato et al.
            2018, https://huggingface.co/papers/1802.05957). The heads for classes and codes are not affected.
        num_classes (`int`, *optional*):
            The number of classes of a conditional discriminator, or of its auxiliary classifier.
        conditioning (`str`, *optional*):
            How the class is used: `"concat"`, a one-hot vector is added to the pixels; `"embedding"`, a learned vector
            is added to the pixels; `"projection"`, the product of a learned vector and the last features is added to
            the score (Miyato & Koyama 2018, eq. 3, https://huggingface.co/papers/1802.05637).
        class_embed_dim (`int`, defaults to 32):
            The length of the learned vector of `"embedding"`.
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
        check_discriminator_arguments(
            conditioning, num_classes, auxiliary_classifier, num_categories, num_continuous_codes
        )

        def normalized(module: nn.Module) -> nn.Module:
            return with_spectral_norm(module) if spectral_norm else module

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
            [`MLPDiscriminatorOutput`] or `tuple`: the scores `(N,)`, and the outputs of the heads if there are any.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        config = self.config
        check_images(sample, (config.in_channels, *height_and_width(config.sample_size)))
        check_labels(class_labels, sample.shape[0], config.conditioning, config.num_classes)
        check_batch_size(self, sample.shape[0])

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


NORMALIZATIONS = ("batch", "layer", "none")
NEGATIVE_SLOPE = 0.2  # of the discriminator's leaky ReLU
CODE_HIDDEN_DIM = 128  # of the head that predicts InfoGAN's code


def make_norm(normalization: str, features: int) -> nn.Module:
    if normalization == "batch":
        return nn.BatchNorm1d(features)
    return nn.LayerNorm(features) if normalization == "layer" else nn.Identity()
