"""BigGAN and BigGAN-deep: class-conditional residual networks, with statistics for each truncation of the latents."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .gan_checks import check_choice, check_images, check_latents, check_positive
from .spectral_normalization import with_spectral_norm
from .style_mapping import check_style_labels


@dataclass
class BigGANGeneratorOutput(BaseOutput):
    """
    The output of [`BigGANGenerator`].

    Args:
        sample (`torch.Tensor` of shape `(N, out_channels, H, W)`):
            Images in `[-1, 1]`.
    """

    sample: torch.Tensor


@dataclass
class BigGANDiscriminatorOutput(BaseOutput):
    """
    The output of [`BigGANDiscriminator`].

    Args:
        logits (`torch.Tensor` of shape `(N,)`):
            Scores: the higher, the more real.
    """

    logits: torch.Tensor


class BigGANGenerator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Generates images of classes by residual blocks whose batch normalizations depend on the class and on the latent.

    The generators of "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (Brock et al. 2019,
    https://huggingface.co/papers/1809.11096): BigGAN-deep (appendix B.2, as in huggingface/pytorch-pretrained-BigGAN)
    and BigGAN (appendix B.1).

    Batch normalizations have no running averages. In training they use the batch. Afterwards they use the statistics
    of many random latents, which [`~BigGANGenerator.measure_statistics`] stores for several truncations.

    Args:
        sample_size (`int`, defaults to 128):
            Height and width of the images: a power of two, at least 8.
        out_channels (`int`, defaults to 3):
            Channels of the images.
        latent_dim (`int`, defaults to 128):
            The length of a latent.
        num_classes (`int`, *optional*):
            The number of classes, or the length of a label of real numbers; without it, blocks depend on latents
            alone.
        class_embed_dim (`int`, defaults to 128):
            The length of the embedding of a class, which all blocks share.
        deep (`bool`, defaults to `True`):
            BigGAN-deep: blocks of four convolutions, each of which sees the whole latent. Otherwise BigGAN: blocks of
            two convolutions, where the latent is cut into a part for the first layer and one for each block.
        block_out_channels (`tuple[int, ...]`, *optional*):
            The channels at 4x4, and after each block; by default those of the paper for images of 32, 64, 128, 256 or
            512 pixels.
        block_doubles (`tuple[bool, ...]`, *optional*):
            Whether each block doubles height and width; by default every second one of a deep network, and all
            otherwise.
        attention_size (`int`, *optional*, defaults to 64):
            The features of this height and width attend to each other; `None` for none.
        spectral_norm (`bool`, defaults to `True`):
            Whether weights are divided by their largest singular value (Miyato et al. 2018,
            https://huggingface.co/papers/1802.05957). Converted checkpoints have weights that are divided already.
        num_truncations (`int`, defaults to 51):
            For how many truncations, evenly from 0 to 2, statistics are stored.
        latent_distribution (`str`, defaults to `"normal"`):
            What latents are: `"normal"`, of which a truncation resamples larger values, as in the paper; or
            `"truncated_normal"`, within 2, which a truncation multiplies by its half, as in released checkpoints.
        norm_eps (`float`, defaults to 1e-4):
            What is added to variances, and to singular values.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        out_channels: int = 3,
        latent_dim: int = 128,
        num_classes: int | None = None,
        class_embed_dim: int = 128,
        deep: bool = True,
        block_out_channels: tuple[int, ...] | None = None,
        block_doubles: tuple[bool, ...] | None = None,
        attention_size: int | None = 64,
        spectral_norm: bool = True,
        num_truncations: int = 51,
        latent_distribution: str = "normal",
        norm_eps: float = 1e-4,
    ):
        super().__init__()
        check_positive(out_channels=out_channels, latent_dim=latent_dim, class_embed_dim=class_embed_dim)
        check_choice("latent_distribution", latent_distribution, ("normal", "truncated_normal"))
        if num_truncations < 2:
            raise ValueError(f"`num_truncations` must be at least 2, but is {num_truncations}.")
        widths = biggan_widths(sample_size, deep, block_out_channels)
        doubles = block_doubles or [not deep or block % 2 == 1 for block in range(len(widths) - 1)]
        sizes = block_sizes("block_doubles", doubles, widths, sample_size)
        attention_block = find_attention(attention_size, sizes)
        parts = 1 if deep else len(widths)
        if latent_dim % parts != 0:
            raise ValueError(
                f"`latent_dim` must be a multiple of {parts}, because BigGAN cuts latents into {parts} parts, but is "
                f"{latent_dim}."
            )

        part_dim = latent_dim // parts
        condition_dim = part_dim + (0 if num_classes is None else class_embed_dim)
        self.linear_in = nn.Linear(condition_dim if deep else part_dim, widths[0] * COARSEST_SIZE**2)
        self.class_embedding = None if num_classes is None else nn.Linear(num_classes, class_embed_dim, bias=False)
        block_class = BigGANDeepGeneratorBlock if deep else BigGANGeneratorBlock
        self.blocks = nn.ModuleList(
            block_class(before, after, condition_dim, is_doubling, num_truncations, norm_eps)
            for (before, after), is_doubling in zip(pairwise(widths), doubles, strict=True)
        )
        self.attention_block = attention_block
        self.attention = None if attention_block is None else BigGANAttention(widths[attention_block + 1])
        self.norm_out = StandingBatchNorm(widths[-1], num_truncations, norm_eps)
        self.scale_out = nn.Parameter(torch.ones(widths[-1]))
        self.offset_out = nn.Parameter(torch.zeros(widths[-1]))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        prepare_weights(self, spectral_norm, norm_eps, unnormalized=self.class_embedding)

    def forward(
        self,
        latents: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        truncation: float | None = None,
        return_dict: bool = True,
    ) -> BigGANGeneratorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`):
                Noise, which is truncated already.
            class_labels (`torch.Tensor` of shape `(N,)` or `(N, num_classes)`, *optional*):
                The class of each image, or the shares of classes in it, for a conditional generator.
            truncation (`float`, *optional*):
                The largest absolute value of the noise, whose statistics are used; without it, those of noise that
                is not truncated (or within 2, with `latent_distribution="truncated_normal"`).
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`BigGANGeneratorOutput`] instead of a tuple.

        Returns:
            [`BigGANGeneratorOutput`] or `tuple`: the images `(N, out_channels, H, W)` in `[-1, 1]`.

        Raises:
            ValueError: if the inputs do not fit the network.
        """
        config = self.config
        check_latents(latents, config.latent_dim)
        check_style_labels(class_labels, latents.shape[0], config.num_classes)
        if self.training and latents.shape[0] == 1:
            raise ValueError("Batch normalization cannot be trained on a batch of one image: use two or more images.")
        if truncation is not None and not 0 < truncation <= self.largest_truncation:
            raise ValueError(f"`truncation` must be from 0 to {self.largest_truncation}, but is {truncation}.")

        embedded = ()
        if config.num_classes is not None:
            if not class_labels.is_floating_point():
                class_labels = F.one_hot(class_labels.long(), config.num_classes)
            embedded = (self.class_embedding(class_labels.to(self.class_embedding.weight.dtype)),)
        if config.deep:
            first = torch.cat([latents, *embedded], dim=1)
            conditions = [first] * len(self.blocks)
        else:
            first, *parts = latents.chunk(1 + len(self.blocks), dim=1)
            conditions = [torch.cat([part, *embedded], dim=1) for part in parts]

        hidden_states = self.linear_in(first).unflatten(1, (-1, COARSEST_SIZE, COARSEST_SIZE))
        for position, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            hidden_states = block(hidden_states, condition, truncation)
            if position == self.attention_block:
                hidden_states = self.attention(hidden_states)
        hidden_states = self.norm_out(hidden_states, truncation)
        hidden_states = hidden_states * self.scale_out[:, None, None] + self.offset_out[:, None, None]
        sample = self.conv_out(hidden_states.relu()).tanh()

        if not return_dict:
            return (sample,)
        return BigGANGeneratorOutput(sample=sample)

    @property
    def largest_truncation(self) -> float:
        """The largest truncation of latents: any number, unless they are within 2 anyway."""
        return LARGEST_TRUNCATION if self.config.latent_distribution == "truncated_normal" else math.inf

    @torch.no_grad()
    def measure_statistics(self, num_batches: int = 16, batch_size: int = 64, seed: int = 0) -> None:
        """Stores the standing statistics of each truncation (appendix A of the paper): the means over batches of
        random latents, of all classes alike, each of which is normalized by itself.

        Args:
            num_batches (`int`): how many batches for each truncation.
            batch_size (`int`): latents in a batch.
            seed (`int`): of the latents.
        """
        config, moments = self.config, {}

        def normalize_by_batch(norm: StandingBatchNorm, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
            variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3), correction=0)
            moments[norm] = moments.get(norm, 0) + torch.stack([mean, variance])
            return F.batch_norm(inputs[0], mean.to(output.dtype), variance.to(output.dtype), eps=norm.norm.eps)

        was_training = self.training
        self.eval()
        norms = [module for module in self.modules() if isinstance(module, StandingBatchNorm)]
        hooks = [norm.register_forward_hook(normalize_by_batch) for norm in norms]
        try:
            for row in range(config.num_truncations):
                moments.clear()
                random = torch.Generator().manual_seed(seed)
                for _ in range(num_batches):
                    uniform = torch.rand(batch_size, config.latent_dim, generator=random)
                    latents = self.truncated_latents(uniform, row).to(self.device, self.dtype)
                    labels = None
                    if config.num_classes is not None:
                        labels = torch.arange(batch_size, device=self.device) % config.num_classes
                    self(latents, labels)
                for norm, (means, variances) in moments.items():
                    norm.means[row], norm.variances[row] = means / num_batches, variances / num_batches
        finally:
            for hook in hooks:
                hook.remove()
            self.train(was_training)

    def truncated_latents(self, uniform: torch.Tensor, row: int) -> torch.Tensor:
        """The latents of a row of the statistics, from uniform numbers, by the inverse of their distribution."""
        truncation = LARGEST_TRUNCATION * row / (self.config.num_truncations - 1)
        scale, bound = 1.0, truncation
        if self.config.latent_distribution == "truncated_normal":
            scale, bound = truncation / LARGEST_TRUNCATION, LARGEST_TRUNCATION
        elif row == self.config.num_truncations - 1:
            bound = UNTRUNCATED
        return scale * math.sqrt(2) * ((2 * uniform - 1) * math.erf(bound / math.sqrt(2))).erfinv()


class BigGANDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Distinguishes real images of classes from generated ones by residual blocks; it mirrors [`BigGANGenerator`].

    The discriminators of BigGAN and BigGAN-deep (Brock et al. 2019, appendix B,
    https://huggingface.co/papers/1809.11096). The product of the last features, summed over all positions, and of a
    vector of the class is added to the score (Miyato & Koyama 2018, eq. 3, https://huggingface.co/papers/1802.05637).

    Args:
        sample_size (`int`, defaults to 128):
            Height and width of the images: a power of two, at least 8.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        num_classes (`int`, *optional*):
            The number of classes, or the length of a label of real numbers.
        deep (`bool`, defaults to `True`):
            The discriminator of BigGAN-deep instead of that of BigGAN.
        block_out_channels (`tuple[int, ...]`, *optional*):
            The channels after each block, and for a deep network, before them, those of its first convolution; by
            default those of the paper.
        block_halves (`tuple[bool, ...]`, *optional*):
            Whether each block halves height and width; by default every second one of a deep network, beginning with
            the first, and all but the last otherwise.
        attention_size (`int`, *optional*, defaults to 64):
            The features of this height and width attend to each other; `None` for none.
        spectral_norm (`bool`, defaults to `True`):
            Whether weights are divided by their largest singular value.
        norm_eps (`float`, defaults to 1e-4):
            What is added to singular values.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        in_channels: int = 3,
        num_classes: int | None = None,
        deep: bool = True,
        block_out_channels: tuple[int, ...] | None = None,
        block_halves: tuple[bool, ...] | None = None,
        attention_size: int | None = 64,
        spectral_norm: bool = True,
        norm_eps: float = 1e-4,
    ):
        super().__init__()
        check_positive(in_channels=in_channels)
        if block_out_channels is None:
            mirrored = biggan_widths(sample_size, deep, None)[::-1]
            block_out_channels = mirrored if deep else [*mirrored[:-1], mirrored[-2]]
        widths = list(block_out_channels) if deep else [in_channels, *block_out_channels]
        num_blocks = len(widths) - 1
        halves = block_halves or [block % 2 == 0 if deep else block < num_blocks - 1 for block in range(num_blocks)]
        coarsest_size = sample_size >> sum(halves)
        sizes = block_sizes("block_halves", halves[::-1], widths, sample_size, coarsest_size)[::-1]
        sizes = [*sizes[1:], coarsest_size]
        attention_block = find_attention(attention_size, sizes)

        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1) if deep else None
        self.blocks = nn.ModuleList()
        for position, ((before, after), is_halving) in enumerate(zip(pairwise(widths), halves, strict=True)):
            if deep:
                self.blocks.append(BigGANDeepDiscriminatorBlock(before, after, is_halving))
            else:
                self.blocks.append(BigGANDiscriminatorBlock(before, after, is_halving, is_first=position == 0))
        self.attention_block = attention_block
        self.attention = None if attention_block is None else BigGANAttention(widths[attention_block + 1])
        self.linear_out = nn.Linear(widths[-1], 1)
        self.class_embedding = None if num_classes is None else nn.Linear(num_classes, widths[-1], bias=False)
        prepare_weights(self, spectral_norm, norm_eps)

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> BigGANDiscriminatorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`.
            class_labels (`torch.Tensor` of shape `(N,)` or `(N, num_classes)`, *optional*):
                The class of each image, or the shares of classes in it, for a conditional discriminator.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`BigGANDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`BigGANDiscriminatorOutput`] or `tuple`: the scores `(N,)`.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        config = self.config
        check_images(sample, (config.in_channels, config.sample_size, config.sample_size))
        check_style_labels(class_labels, sample.shape[0], config.num_classes)

        hidden_states = sample if self.conv_in is None else self.conv_in(sample)
        for position, block in enumerate(self.blocks):
            hidden_states = block(hidden_states)
            if position == self.attention_block:
                hidden_states = self.attention(hidden_states)
        features = hidden_states.relu().sum(dim=(2, 3))
        logits = self.linear_out(features)[:, 0]
        if config.num_classes is not None:
            if not class_labels.is_floating_point():
                class_labels = F.one_hot(class_labels.long(), config.num_classes)
            logits = logits + (self.class_embedding(class_labels.to(features.dtype)) * features).sum(dim=1)

        if not return_dict:
            return (logits,)
        return BigGANDiscriminatorOutput(logits=logits)


COARSEST_SIZE = 4  # of the features where a generator starts
LARGEST_TRUNCATION = 2.0  # for which statistics are stored; 95% of normal noise is within it
UNTRUNCATED = 5.0  # a bound that noise in float32 hardly reaches
BOTTLENECK = 4  # how many times fewer channels the inner convolutions of deep blocks have

# The channels of each resolution from 4x4 to the image, in multiples of 96, or 128 in deep networks: tables 4 to 9 of
# the paper, and those for 32 and 64 pixels of ajbrock/BigGAN-PyTorch.
PAPER_MULTIPLIERS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
PAPER_CHANNELS = {False: 96, True: 128}


def biggan_widths(sample_size: int, deep: bool, block_out_channels: tuple[int, ...] | None) -> list[int]:
    """The channels at 4x4 and after each block of a generator.

    Raises:
        ValueError: if the paper has none for this size, or they are not positive.
    """
    if block_out_channels is not None:
        if len(block_out_channels) < 2 or min(block_out_channels) < 1:
            raise ValueError(f"`block_out_channels` must be positive numbers, but is {tuple(block_out_channels)}.")
        return list(block_out_channels)
    if sample_size not in PAPER_MULTIPLIERS:
        raise ValueError(
            f"`block_out_channels` must be given for `sample_size` {sample_size}: the paper has "
            f"{', '.join(map(str, PAPER_MULTIPLIERS))}."
        )
    widths = [multiplier * PAPER_CHANNELS[deep] for multiplier in PAPER_MULTIPLIERS[sample_size]]
    if not deep:
        return widths
    # In front of each block that changes the size there is one that keeps it.
    return [widths[0], *(width for pair in pairwise(widths) for width in pair)]


def block_sizes(
    name: str, changes: list[bool], widths: list[int], sample_size: int, coarsest_size: int = COARSEST_SIZE
) -> list[int]:
    """The height and width after each block, from coarse to fine.

    Raises:
        ValueError: if there are more or fewer blocks than widths between which they are, or they do not end at
            `sample_size`.
    """
    if len(changes) != len(widths) - 1:
        raise ValueError(
            f"`{name}` must have an entry for each of the {len(widths) - 1} blocks between `block_out_channels`, but "
            f"has {len(changes)}."
        )
    sizes = [coarsest_size << sum(changes[: block + 1]) for block in range(len(changes))]
    if sizes[-1] != sample_size:
        raise ValueError(
            f"`block_out_channels` and `{name}` must be those of `sample_size` {sample_size}: the blocks go from "
            f"{coarsest_size}x{coarsest_size} to {sizes[-1]}x{sizes[-1]}."
        )
    return sizes


def find_attention(attention_size: int | None, sizes: list[int]) -> int | None:
    """The first block whose features have this size.

    Raises:
        ValueError: if none has it.
    """
    if attention_size is None:
        return None
    if attention_size not in sizes:
        known = ", ".join(map(str, dict.fromkeys(sizes)))
        raise ValueError(f"`attention_size` must be None or one of {known}, but is {attention_size}.")
    return sizes.index(attention_size)


def prepare_weights(network: nn.Module, spectral_norm: bool, eps: float, unnormalized: nn.Module | None = None):
    """Orthogonal weights and no biases to begin with (appendix C.1), and spectral norm of all layers but one."""
    for layer in [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]:
        nn.init.orthogonal_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if spectral_norm and layer is not unnormalized:
            with_spectral_norm(layer, eps)


class StandingBatchNorm(nn.Module):
    """Normalizes by the statistics of the batch in training, and otherwise by those stored for a truncation."""

    def __init__(self, channels: int, num_truncations: int, eps: float):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, affine=False, track_running_stats=False)
        self.register_buffer("means", torch.zeros(num_truncations, channels))
        self.register_buffer("variances", torch.ones(num_truncations, channels))

    def forward(self, hidden_states: torch.Tensor, truncation: float | None) -> torch.Tensor:
        if self.training:
            return self.norm(hidden_states)
        mean, variance = at_truncation(self.means, truncation), at_truncation(self.variances, truncation)
        return F.batch_norm(hidden_states, mean, variance, eps=self.norm.eps)


def at_truncation(rows: torch.Tensor, truncation: float | None) -> torch.Tensor:
    """The statistics of a truncation, from those of the two next to it.

    The reference, huggingface/pytorch-pretrained-BigGAN, gives each of the two the weight of the other. Checkpoints
    were released with these images, so that the weights are the same here; neighbours hardly differ.
    """
    if truncation is None or truncation >= LARGEST_TRUNCATION:
        return rows[-1]
    position = truncation / LARGEST_TRUNCATION / (1.0 / (len(rows) - 1))
    before = int(position)
    fraction = position - before
    return rows[before] if fraction == 0 else rows[before] * fraction + rows[before + 1] * (1 - fraction)


class ConditionalBatchNorm(nn.Module):
    """A batch normalization with a factor and an offset for each channel that depend on a vector."""

    def __init__(self, channels: int, condition_dim: int, num_truncations: int, eps: float):
        super().__init__()
        self.norm = StandingBatchNorm(channels, num_truncations, eps)
        self.scale = nn.Linear(condition_dim, channels, bias=False)
        self.offset = nn.Linear(condition_dim, channels, bias=False)

    def forward(self, hidden_states: torch.Tensor, condition: torch.Tensor, truncation: float | None) -> torch.Tensor:
        scale, offset = self.scale(condition)[:, :, None, None], self.offset(condition)[:, :, None, None]
        return self.norm(hidden_states, truncation) * (1 + scale) + offset


class BigGANGeneratorBlock(nn.Module):
    """Two convolutions of 3x3, and a shortcut by one of 1x1 (figure 15 b)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition_dim: int,
        is_doubling: bool,
        num_truncations: int,
        eps: float,
    ):
        super().__init__()
        self.norm1 = ConditionalBatchNorm(in_channels, condition_dim, num_truncations, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = ConditionalBatchNorm(out_channels, condition_dim, num_truncations, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)
        self.is_doubling = is_doubling

    def forward(self, hidden_states: torch.Tensor, condition: torch.Tensor, truncation: float | None) -> torch.Tensor:
        residual = self.shortcut(hidden_states)
        hidden_states = self.norm1(hidden_states, condition, truncation).relu()
        if self.is_doubling:
            residual, hidden_states = doubled(residual), doubled(hidden_states)
        hidden_states = self.conv1(hidden_states)
        hidden_states = self.conv2(self.norm2(hidden_states, condition, truncation).relu())
        return residual + hidden_states


class BigGANDeepGeneratorBlock(nn.Module):
    """Two convolutions of 3x3 between two of 1x1, and a shortcut that drops the last channels (figure 16 b)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        condition_dim: int,
        is_doubling: bool,
        num_truncations: int,
        eps: float,
    ):
        super().__init__()
        if out_channels > in_channels or in_channels < BOTTLENECK:
            raise ValueError(
                f"`block_out_channels` of a deep generator must be at least {BOTTLENECK} and never rise, but a block "
                f"goes from {in_channels} to {out_channels}."
            )
        inner = in_channels // BOTTLENECK
        self.norms = nn.ModuleList(
            ConditionalBatchNorm(channels, condition_dim, num_truncations, eps)
            for channels in (in_channels, inner, inner, inner)
        )
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(in_channels, inner, 1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, out_channels, 1),
            ]
        )
        self.is_doubling, self.out_channels = is_doubling, out_channels

    def forward(self, hidden_states: torch.Tensor, condition: torch.Tensor, truncation: float | None) -> torch.Tensor:
        residual = hidden_states[:, : self.out_channels]
        if self.is_doubling:
            residual = doubled(residual)
        for position, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            hidden_states = norm(hidden_states, condition, truncation).relu()
            if self.is_doubling and position == 1:
                hidden_states = doubled(hidden_states)
            hidden_states = conv(hidden_states)
        return residual + hidden_states


class BigGANDiscriminatorBlock(nn.Module):
    """Two convolutions of 3x3, and a shortcut by one of 1x1 if anything changes (figure 15 c).

    Args:
        is_first (`bool`): whether its input are images, which have no activation and are halved before the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, is_halving: bool, is_first: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        is_same = in_channels == out_channels and not is_halving
        self.shortcut = nn.Identity() if is_same else nn.Conv2d(in_channels, out_channels, 1)
        self.is_halving, self.is_first = is_halving, is_first

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = hidden_states
        hidden_states = self.conv1(hidden_states if self.is_first else hidden_states.relu())
        hidden_states = self.conv2(hidden_states.relu())
        if not self.is_halving:
            return self.shortcut(residual) + hidden_states
        if self.is_first:
            return self.shortcut(F.avg_pool2d(residual, 2)) + F.avg_pool2d(hidden_states, 2)
        return F.avg_pool2d(self.shortcut(residual) + hidden_states, 2)


class BigGANDeepDiscriminatorBlock(nn.Module):
    """Two convolutions of 3x3 between two of 1x1; a convolution of 1x1 makes the shortcut's further channels (figure
    16 c)."""

    def __init__(self, in_channels: int, out_channels: int, is_halving: bool):
        super().__init__()
        if out_channels < in_channels or out_channels < BOTTLENECK:
            raise ValueError(
                f"`block_out_channels` of a deep discriminator must be at least {BOTTLENECK} and never fall, but a "
                f"block goes from {in_channels} to {out_channels}."
            )
        inner = out_channels // BOTTLENECK
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(in_channels, inner, 1),
                nn.Conv2d(inner, inner, 3, padding=1),
                nn.Conv2d(inner, inner, 3, padding=1),
            ]
        )
        self.conv_out = nn.Conv2d(inner, out_channels, 1)
        more = out_channels - in_channels
        self.shortcut = nn.Conv2d(in_channels, more, 1) if more > 0 else None
        self.is_halving = is_halving

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = F.avg_pool2d(hidden_states, 2) if self.is_halving else hidden_states
        if self.shortcut is not None:
            residual = torch.cat([residual, self.shortcut(residual)], dim=1)
        for conv in self.convs:
            hidden_states = conv(hidden_states.relu())
        hidden_states = hidden_states.relu()
        if self.is_halving:
            hidden_states = F.avg_pool2d(hidden_states, 2)
        return residual + self.conv_out(hidden_states)


class BigGANAttention(nn.Module):
    """Each position attends to the largest of every four positions (Zhang et al. 2019, section 3,
    https://huggingface.co/papers/1805.08318)."""

    def __init__(self, channels: int):
        super().__init__()
        if channels < 8:
            raise ValueError(f"Features that attend to each other must have 8 channels or more, but have {channels}.")
        self.query = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.key = nn.Conv2d(channels, channels // 8, 1, bias=False)
        self.value = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.conv_out = nn.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        key, value = F.max_pool2d(self.key(hidden_states), 2), F.max_pool2d(self.value(hidden_states), 2)
        query, key, value = (maps.flatten(2).transpose(1, 2) for maps in (self.query(hidden_states), key, value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        attended = attended.transpose(1, 2).unflatten(2, hidden_states.shape[2:])
        return hidden_states + self.gamma * self.conv_out(attended)


def doubled(hidden_states: torch.Tensor) -> torch.Tensor:
    """Each pixel four times."""
    return F.interpolate(hidden_states, scale_factor=2, mode="nearest")
