"""DVD-GAN: films of classes by a recurrent generator, and critics of single frames and of motion."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .gan_checks import check_labels, check_latents, check_positive
from .spectral_normalization import with_spectral_norm


@dataclass
class DVDGANGeneratorOutput(BaseOutput):
    """
    The output of [`DVDGANGenerator`].

    Args:
        sample (`torch.Tensor` of shape `(N, out_channels, F, H, W)`):
            Films in `[-1, 1]`.
    """

    sample: torch.Tensor


@dataclass
class DVDGANDiscriminatorOutput(BaseOutput):
    """
    The output of [`DVDGANSpatialDiscriminator`] and [`DVDGANTemporalDiscriminator`].

    Args:
        logits (`torch.Tensor` of shape `(N,)`):
            Scores: the higher, the more real.
    """

    logits: torch.Tensor


class DVDGANGenerator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Generates films of a class from one latent.

    The generator of "Adversarial Video Generation on Complex Datasets" (Clark et al. 2019,
    https://huggingface.co/papers/1907.06571, appendix A) as in https://github.com/Harrypotterrrr/DVD-GAN. The latent
    and the class become features of 2x2 or 4x4 positions. In each stage a convolutional GRU goes through the frames,
    and two residual blocks process each of them, of which the second doubles the size. Latent and class also set the
    scales and shifts of all batch normalizations, the same for all frames of a film.

    Args:
        num_frames (`int`, defaults to 8):
            The frames of a film of a call without `num_frames`.
        base_size (`int`, defaults to 4):
            Height and width of the first features. Each stage doubles them.
        out_channels (`int`, defaults to 3):
            Channels of the frames.
        latent_dim (`int`, defaults to 120):
            The length of a latent, and of the embedding of a class.
        num_classes (`int`, *optional*):
            The number of classes; by default the films have none.
        block_out_channels (`tuple[int, ...]`, defaults to `(256, 256, 128, 64)`):
            The channels behind each stage; before the first stage they are those behind it.
        gru_channel_multiples (`tuple[int, ...]`, defaults to `(1, 2, 1)`):
            The channels of the layers of each GRU, in those that come in; the last one must be 1.
        gru_kernel_sizes (`tuple[tuple[int, ...], ...]`, *optional*):
            The kernels of the layers of each GRU, odd; by default the original's: 3, 5 and 3, of the last GRU 3, 5
            and 5.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        num_frames: int = 8,
        base_size: int = 4,
        out_channels: int = 3,
        latent_dim: int = 120,
        num_classes: int | None = None,
        block_out_channels: tuple[int, ...] = (256, 256, 128, 64),
        gru_channel_multiples: tuple[int, ...] = (1, 2, 1),
        gru_kernel_sizes: tuple[tuple[int, ...], ...] | None = None,
    ):
        super().__init__()
        check_positive(num_frames=num_frames, base_size=base_size, out_channels=out_channels, latent_dim=latent_dim)
        num_stages, num_layers = len(block_out_channels), len(gru_channel_multiples)
        if num_stages == 0 or min(block_out_channels) < 1:
            raise ValueError(f"`block_out_channels` must be positive numbers, but is {tuple(block_out_channels)}.")
        if num_layers == 0 or min(gru_channel_multiples) < 1 or gru_channel_multiples[-1] != 1:
            raise ValueError(
                f"`gru_channel_multiples` must be positive numbers that end with 1, but is {gru_channel_multiples}."
            )
        if gru_kernel_sizes is None:
            gru_kernel_sizes = usual_gru_kernels(num_stages, num_layers)
        if [len(kernels) for kernels in gru_kernel_sizes] != [num_layers] * num_stages:
            raise ValueError(
                f"`gru_kernel_sizes` must be {num_layers} numbers for each of {num_stages} stages, but is "
                f"{gru_kernel_sizes}."
            )
        self.class_embedding = None if num_classes is None else nn.Embedding(num_classes, latent_dim)
        condition_dim = latent_dim * (1 if num_classes is None else 2)
        width = block_out_channels[0]
        self.linear_in = nn.Linear(condition_dim, width * base_size**2)
        self.grus, self.blocks = nn.ModuleList(), nn.ModuleList()
        for after, kernels in zip(block_out_channels, gru_kernel_sizes, strict=True):
            self.grus.append(ConvGRU(width, [width * multiple for multiple in gru_channel_multiples], kernels))
            pair = [FrameBlock(width, width, condition_dim), FrameBlock(width, after, condition_dim, upsamples=True)]
            self.blocks.append(nn.ModuleList(pair))
            width = after
        self.conv_out = with_spectral_norm(nn.Conv2d(width, out_channels, 3, padding=1))

    @property
    def sample_size(self) -> int:
        """Height and width of the frames."""
        return self.config.base_size * 2 ** len(self.config.block_out_channels)

    def forward(
        self,
        latents: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        num_frames: int | None = None,
        return_dict: bool = True,
    ) -> DVDGANGeneratorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`):
                Normal noise.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each film, for a generator with classes.
            num_frames (`int`, *optional*, defaults to the configuration's):
                How many frames each film has; the GRUs can go on.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DVDGANGeneratorOutput`] instead of a tuple.

        Returns:
            [`DVDGANGeneratorOutput`] or `tuple`: the films `(N, out_channels, F, H, W)`.

        Raises:
            ValueError: if the inputs do not fit the network.
        """
        config = self.config
        check_latents(latents, config.latent_dim)
        check_film_classes(class_labels, latents.shape[0], config.num_classes)
        num_frames = config.num_frames if num_frames is None else num_frames
        condition = latents
        if self.class_embedding is not None:
            condition = torch.cat([latents, self.class_embedding(class_labels)], dim=1)

        start = self.linear_in(condition).unflatten(1, (-1, config.base_size, config.base_size))
        frames = [start] * num_frames  # of the first GRU: the same features in each step
        per_frame = condition_of_frames(condition, num_frames)
        for gru, blocks in zip(self.grus, self.blocks, strict=True):
            hidden_states = torch.stack(gru(frames), dim=1).flatten(0, 1)
            for block in blocks:
                hidden_states = block(hidden_states, per_frame)
            frames = hidden_states.unflatten(0, (-1, num_frames)).unbind(dim=1)
        sample = torch.tanh(self.conv_out(F.relu(hidden_states)))
        sample = sample.unflatten(0, (-1, num_frames)).transpose(1, 2)
        if not return_dict:
            return (sample,)
        return DVDGANGeneratorOutput(sample=sample)


class DVDGANSpatialDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Scores a film by some of its frames, each by itself, whose features are added up.

    The spatial discriminator of Clark et al. 2019 (section 3.2) with the projection of Miyato & Koyama 2018.

    Args:
        in_channels (`int`, defaults to 3):
            Channels of the frames.
        num_classes (`int`, *optional*):
            The number of classes.
        block_out_channels (`tuple[int, ...]`, defaults to `(64, 128, 256, 512)`):
            The channels of the blocks, each of which halves the size.

    Raises:
        ValueError: if the arguments do not make a network.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int | None = None,
        block_out_channels: tuple[int, ...] = (64, 128, 256, 512),
    ):
        super().__init__()
        check_critic(in_channels, block_out_channels)
        widths = [in_channels, *block_out_channels]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.blocks = nn.ModuleList(
            [CriticBlock(before, after, is_first=number == 0) for number, (before, after) in enumerate(pairs)]
        )
        self.head = ProjectionHead(widths[-1], num_classes)

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> DVDGANDiscriminatorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, F, H, W)`):
                Frames of films in `[-1, 1]`, whose sides the blocks can halve.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each film, for a discriminator with classes.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`DVDGANDiscriminatorOutput`] instead of a tuple.

        Returns:
            [`DVDGANDiscriminatorOutput`] or `tuple`: the scores `(N,)`.

        Raises:
            ValueError: if the inputs do not fit the network.
        """
        config = self.config
        check_films(sample, config.in_channels, 2 ** len(config.block_out_channels))
        check_film_classes(class_labels, sample.shape[0], config.num_classes)
        hidden_states = sample.transpose(1, 2).flatten(0, 1)
        for block in self.blocks:
            hidden_states = block(hidden_states)
        hidden_states = F.relu(hidden_states).sum(dim=(2, 3))
        features = hidden_states.unflatten(0, (-1, sample.shape[2])).sum(dim=1)
        logits = self.head(features, class_labels)
        if not return_dict:
            return (logits,)
        return DVDGANDiscriminatorOutput(logits=logits)


class DVDGANTemporalDiscriminator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Scores the motion of a film, whose frames it sees at half their size: its first blocks are of space and time.

    The temporal discriminator of Clark et al. 2019 (section 3.2).

    Args:
        in_channels, num_classes, block_out_channels: see [`DVDGANSpatialDiscriminator`].
        num_3d_blocks (`int`, defaults to 2):
            How many blocks are of space and time, each of which halves both; the others see frames alone.

    Raises:
        ValueError: if the arguments do not make a network.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        num_classes: int | None = None,
        block_out_channels: tuple[int, ...] = (64, 128, 256, 512),
        num_3d_blocks: int = 2,
    ):
        super().__init__()
        check_critic(in_channels, block_out_channels)
        if not 1 <= num_3d_blocks <= len(block_out_channels):
            raise ValueError(
                f"`num_3d_blocks` must be from 1 to the {len(block_out_channels)} blocks, but is {num_3d_blocks}."
            )
        widths = [in_channels, *block_out_channels]
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.blocks = nn.ModuleList(
            [
                CriticBlock(before, after, is_first=number == 0, is_3d=number < num_3d_blocks)
                for number, (before, after) in enumerate(pairs)
            ]
        )
        self.head = ProjectionHead(widths[-1], num_classes)

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> DVDGANDiscriminatorOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, F, H, W)`):
                Films in `[-1, 1]`. Their frames, and their halved sides, are so many that the blocks can halve them.
            class_labels, return_dict: see [`DVDGANSpatialDiscriminator`].

        Returns:
            [`DVDGANDiscriminatorOutput`] or `tuple`: the scores `(N,)`.

        Raises:
            ValueError: if the inputs do not fit the network.
        """
        config = self.config
        check_films(sample, config.in_channels, 2 ** (len(config.block_out_channels) + 1), 2**config.num_3d_blocks)
        check_film_classes(class_labels, sample.shape[0], config.num_classes)
        hidden_states = average_blocks(sample, (1, 2, 2))
        for block in self.blocks[: config.num_3d_blocks]:
            hidden_states = block(hidden_states)
        num_frames = hidden_states.shape[2]
        hidden_states = hidden_states.transpose(1, 2).flatten(0, 1)
        for block in self.blocks[config.num_3d_blocks :]:
            hidden_states = block(hidden_states)
        hidden_states = F.relu(hidden_states).sum(dim=(2, 3))
        features = hidden_states.unflatten(0, (-1, num_frames)).sum(dim=1)
        logits = self.head(features, class_labels)
        if not return_dict:
            return (logits,)
        return DVDGANDiscriminatorOutput(logits=logits)


class ConvGRU(nn.Module):
    """Layers of convolutional GRUs (Ballas et al. 2016), which start from zeros.

    Args:
        in_channels (`int`): of the inputs.
        hidden_channels (`list[int]`): of the state of each layer.
        kernel_sizes (`list[int]`): of each layer, odd.
    """

    def __init__(self, in_channels: int, hidden_channels: Sequence[int], kernel_sizes: Sequence[int]):
        super().__init__()
        if any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"The kernels of a GRU must be odd, but are {tuple(kernel_sizes)}.")
        widths = [in_channels, *hidden_channels]
        shapes = zip(widths[:-1], hidden_channels, kernel_sizes, strict=True)
        self.cells = nn.ModuleList([ConvGRUCell(*shape) for shape in shapes])

    def forward(self, frames: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The states of the last layer after each of the frames (N, in_channels, H, W)."""
        inputs = list(frames)
        for cell in self.cells:
            state = inputs[0].new_zeros(inputs[0].shape[0], cell.hidden_channels, *inputs[0].shape[2:])
            states = []
            for frame in inputs:
                state = cell(frame, state)
                states.append(state)
            inputs = states
        return inputs


class ConvGRUCell(nn.Module):
    """One layer of a [`ConvGRU`]."""

    def __init__(self, in_channels: int, hidden_channels: int, kernel_size: int):
        super().__init__()
        self.hidden_channels = hidden_channels
        shape = (in_channels + hidden_channels, hidden_channels, kernel_size)
        self.reset_gate, self.update_gate, self.out_gate = (
            nn.Conv2d(*shape, padding=kernel_size // 2) for _ in range(3)
        )
        for gate in (self.reset_gate, self.update_gate, self.out_gate):
            nn.init.orthogonal_(gate.weight)
            nn.init.zeros_(gate.bias)

    def forward(self, inputs: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        both = torch.cat([inputs, state], dim=1)
        update, reset = torch.sigmoid(self.update_gate(both)), torch.sigmoid(self.reset_gate(both))
        candidate = torch.tanh(self.out_gate(torch.cat([inputs, state * reset], dim=1)))
        return torch.lerp(state, candidate, update)


class FrameBlock(nn.Module):
    """A residual block of single frames, whose normalizations latent and class scale; it may double the size."""

    def __init__(self, in_channels: int, out_channels: int, condition_dim: int, upsamples: bool = False):
        super().__init__()
        self.upsamples = upsamples
        self.norm1 = ConditionedBatchNorm(in_channels, condition_dim)
        self.conv1 = with_spectral_norm(nn.Conv2d(in_channels, out_channels, 3, padding=1))
        self.norm2 = ConditionedBatchNorm(out_channels, condition_dim)
        self.conv2 = with_spectral_norm(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = with_spectral_norm(nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, frames: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        hidden_states = F.relu(self.norm1(frames, condition))
        if self.upsamples:
            hidden_states, frames = (F.interpolate(x, scale_factor=2) for x in (hidden_states, frames))
        hidden_states = F.relu(self.norm2(self.conv1(hidden_states), condition))
        return self.conv2(hidden_states) + self.shortcut(frames)


class ConditionedBatchNorm(nn.Module):
    """A batch normalization whose scales and shifts are a linear function of a condition."""

    def __init__(self, num_channels: int, condition_dim: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(num_channels, affine=False)
        self.linear = nn.Linear(condition_dim, 2 * num_channels)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        nn.init.ones_(self.linear.bias[:num_channels])

    def forward(self, frames: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        scale, shift = self.linear(condition)[..., None, None].chunk(2, dim=1)
        return scale * self.norm(frames) + shift


class CriticBlock(nn.Module):
    """A residual block of a discriminator, which halves the size, and in 3D also the time."""

    def __init__(self, in_channels: int, out_channels: int, is_first: bool = False, is_3d: bool = False):
        super().__init__()
        conv = nn.Conv3d if is_3d else nn.Conv2d
        self.is_first, self.is_3d = is_first, is_3d
        self.conv1 = with_spectral_norm(conv(in_channels, out_channels, 3, padding=1))
        self.conv2 = with_spectral_norm(conv(out_channels, out_channels, 3, padding=1))
        self.shortcut = with_spectral_norm(conv(in_channels, out_channels, 1))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        factors = (2, 2, 2) if self.is_3d else (2, 2)
        residual = self.conv1(hidden_states if self.is_first else F.relu(hidden_states))
        small = average_blocks(hidden_states, factors)
        return average_blocks(self.conv2(F.relu(residual)), factors) + self.shortcut(small)


def average_blocks(hidden_states: torch.Tensor, factors: tuple[int, ...]) -> torch.Tensor:
    """The means over blocks of so many values along each axis after the channels, also in bfloat16 on the CPU."""
    sizes = [size // factor for size, factor in zip(hidden_states.shape[2:], factors, strict=True)]
    pool = F.adaptive_avg_pool3d if len(factors) == 3 else F.adaptive_avg_pool2d
    return pool(hidden_states, sizes)


class ProjectionHead(nn.Module):
    """A score of features, plus their product with an embedding of the class (Miyato & Koyama 2018)."""

    def __init__(self, width: int, num_classes: int | None):
        super().__init__()
        self.linear = with_spectral_norm(nn.Linear(width, 1))
        self.class_embedding = None if num_classes is None else with_spectral_norm(nn.Embedding(num_classes, width))

    def forward(self, features: torch.Tensor, class_labels: torch.Tensor | None) -> torch.Tensor:
        scores = self.linear(features)[:, 0]
        if self.class_embedding is None:
            return scores
        return scores + (features * self.class_embedding(class_labels)).sum(dim=1)


def condition_of_frames(condition: torch.Tensor, num_frames: int) -> torch.Tensor:
    """The condition of each frame, (N * F, D), where the frames of a film are one after the other."""
    return condition.repeat_interleave(num_frames, dim=0)


def usual_gru_kernels(num_stages: int, num_layers: int) -> list[list[int]]:
    """The kernels of each GRU in the original: 3, 5, 3 ..., and 5 at the end of the last one."""
    kernels = [[3 + 2 * (layer % 2) for layer in range(num_layers)] for _ in range(num_stages)]
    if num_layers > 1:
        kernels[-1][-1] = 5
    return kernels


def check_critic(in_channels: int, block_out_channels: Sequence[int]) -> None:
    check_positive(in_channels=in_channels)
    if len(block_out_channels) == 0 or min(block_out_channels) < 1:
        raise ValueError(f"`block_out_channels` must be positive numbers, but is {tuple(block_out_channels)}.")


def check_films(sample: torch.Tensor, channels: int, multiple: int, frames_multiple: int = 1) -> None:
    """Refuses what is no batch of films, or can't be halved so often."""
    fits = sample.ndim == 5 and sample.shape[1] == channels
    if not fits or any(side % multiple for side in sample.shape[3:]) or sample.shape[2] % frames_multiple:
        raise ValueError(
            f"`sample` must be (N, {channels}, F, H, W) with H and W multiples of {multiple} and F of "
            f"{frames_multiple}, but is {tuple(sample.shape)}."
        )


def check_film_classes(class_labels: torch.Tensor | None, num_films: int, num_classes: int | None) -> None:
    check_labels(class_labels, num_films, None if num_classes is None else "projection", num_classes)
