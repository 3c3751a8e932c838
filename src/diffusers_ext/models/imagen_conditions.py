"""What the networks of imagen-pytorch are told beside noisy images: noise levels, and texts."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from .imagen_attention import ImagenFeedForward, ImagenLatentAttention


NUM_FREQUENCIES = 8  # of the embedding of noise levels
MAX_LEVEL_LOG_SNR = 10.0  # of small images, and minus this: about those of the noise that trainings add
MAX_NOISE_RATIO = 1e15  # a little more than the original's at the cosine schedule's end, where cosines are rounding
LEVEL_UNIT = 1000  # a level s of the noise in a small image is given as 1000 s
NUM_POSITIONS = 512  # of the tokens of a text
RESAMPLER_DEPTH, RESAMPLER_FACTOR = 2, 4  # layers, and the width of their feed-forward layers
NUM_MEAN_LATENTS = 4  # that are made of the mean of all tokens
NOISE_SCHEDULES = ("cosine", "linear")


def get_log_snr(timestep: torch.Tensor, noise_schedule: str | None, num_train_timesteps: int) -> torch.Tensor:
    """
    The logarithm of the signal-to-noise ratio at timesteps, float32 as they are; see [`ImagenUNet`].

    The timestep k of T is the time (k + 1) / T of the continuous schedule, because time 0 is that of clean images.
    """
    timestep = timestep.float()
    if noise_schedule is None:
        return timestep
    time = ((timestep + 1) / num_train_timesteps).clamp(0, 1)
    if noise_schedule == "linear":
        return -torch.expm1(1e-4 + 10 * time**2).log()
    angle = (time + 0.008) / 1.008 * (math.pi / 2)
    return -(angle.cos() ** -2 - 1).clamp(1e-5, MAX_NOISE_RATIO).log()


def get_level_log_snr(noise_level: torch.Tensor) -> torch.Tensor:
    """The log SNR of `sqrt(1 - s**2) image + s noise`, for levels given as 1000 s."""
    variance = (noise_level.float() / LEVEL_UNIT) ** 2
    return ((1 - variance) / variance).log().clamp(-MAX_LEVEL_LOG_SNR, MAX_LEVEL_LOG_SNR)


class ImagenConditioner(nn.Module):
    """
    Noise levels and texts, as the embedding that modulates blocks, and as tokens to attend to.

    Args:
        embed_dim, width (`int`): the width of the embedding, and that of the tokens.
        num_time_tokens (`int`): the tokens of a noise level.
        takes_level (`bool`): whether there are small images, and noise in them.
        text (`dict`): further arguments of `ImagenTextConditioner`.
    """

    def __init__(self, embed_dim: int, width: int, num_time_tokens: int, takes_level: bool, **text: int):
        super().__init__()
        self.time_embedding = LogSNREmbedding(embed_dim, width, num_time_tokens)
        self.level_embedding = LogSNREmbedding(embed_dim, width, num_time_tokens) if takes_level else None
        self.text = ImagenTextConditioner(embed_dim=embed_dim, width=width, **text)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, log_snr: torch.Tensor, level: torch.Tensor | None, states: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The embedding `(N, embed_dim)` and the tokens `(N, M, width)`."""
        if (level is None) != (self.level_embedding is None):
            raise ValueError("`class_labels` are for networks with `class_embed_type`, which need them.")
        told = [self.time_embedding(log_snr)]
        if self.level_embedding is not None:
            told.append(self.level_embedding(get_level_log_snr(level)))
        told.append(self.text(states, mask))
        embeddings, tokens = zip(*told, strict=True)
        return sum(embeddings), self.norm(torch.cat(tokens, dim=1))


class LogSNREmbedding(nn.Module):
    """Noise levels by sinusoids of learned frequencies: an embedding of each, and some tokens to attend to."""

    def __init__(self, embed_dim: int, token_width: int, num_tokens: int):
        super().__init__()
        self.num_tokens = num_tokens
        self.frequencies = nn.Parameter(torch.randn(NUM_FREQUENCIES))
        self.linear_1 = nn.Linear(1 + 2 * NUM_FREQUENCIES, embed_dim)
        self.linear_2 = nn.Linear(embed_dim, embed_dim)
        self.to_tokens = nn.Linear(embed_dim, num_tokens * token_width)

    def forward(self, log_snr: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_snr = log_snr[:, None]
        angles = log_snr * self.frequencies.float() * 2 * math.pi
        features = torch.cat([log_snr, angles.sin(), angles.cos()], dim=1)
        hidden = F.silu(self.linear_1(features.to(self.linear_1.weight.dtype)))
        return self.linear_2(hidden), self.to_tokens(hidden).unflatten(1, (self.num_tokens, -1))


class ImagenTextConditioner(nn.Module):
    """Texts by a few latents to attend to, and by an embedding that is added to that of the noise level (Saharia et
    al. 2022, appendix D.3.1)."""

    def __init__(
        self,
        embed_dim: int,
        width: int,
        text_width: int,
        max_text_length: int,
        num_latents: int,
        num_heads: int,
        head_width: int,
    ):
        super().__init__()
        if max_text_length > NUM_POSITIONS:
            raise ValueError(f"`max_text_length` must be at most {NUM_POSITIONS}, but is {max_text_length}.")
        self.proj_in = nn.Linear(text_width, width)
        self.padding_states = nn.Parameter(torch.randn(max_text_length, width))
        self.resampler = TextResampler(width, num_latents, num_heads, head_width)
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, embed_dim)
        self.linear_2 = nn.Linear(embed_dim, embed_dim)
        self.null_embedding = nn.Parameter(torch.randn(embed_dim))

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The embedding `(N, embed_dim)` and the latents of texts, whose states are `(N, L, text_width)`."""
        missing = len(self.padding_states) - states.shape[1]
        if missing < 0:
            raise ValueError(
                f"`encoder_hidden_states` must be states of at most {len(self.padding_states)} tokens, but are of "
                f"{states.shape[1]}."
            )
        mask = states.new_ones(states.shape[:2]) if mask is None else mask
        is_token = F.pad(mask, (0, missing)) > 0
        tokens = F.pad(self.proj_in(states), (0, 0, 0, missing))
        latents = self.resampler(torch.where(is_token[:, :, None], tokens, self.padding_states))
        embedding = self.linear_2(F.silu(self.linear_1(self.norm(latents.mean(dim=1)))))
        has_text = is_token.any(dim=1, keepdim=True)
        return torch.where(has_text, embedding, self.null_embedding), latents


class TextResampler(nn.Module):
    """Latents that gather what the tokens of a text say (the perceiver resampler of Alayrac et al. 2022); the first
    ones are made of the mean of all tokens."""

    def __init__(self, width: int, num_latents: int, num_heads: int, head_width: int):
        super().__init__()
        self.position_embedding = nn.Parameter(torch.randn(NUM_POSITIONS, width))
        self.latents = nn.Parameter(torch.randn(num_latents, width))
        self.norm_mean = nn.LayerNorm(width, bias=False)
        self.mean_to_latents = nn.Linear(width, NUM_MEAN_LATENTS * width)
        self.attentions = nn.ModuleList(
            ImagenLatentAttention(width, num_heads, head_width) for _ in range(RESAMPLER_DEPTH)
        )
        self.feed_forwards = nn.ModuleList(ImagenFeedForward(width, RESAMPLER_FACTOR) for _ in range(RESAMPLER_DEPTH))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        of_mean = self.mean_to_latents(self.norm_mean(tokens.mean(dim=1))).unflatten(1, (NUM_MEAN_LATENTS, -1))
        latents = torch.cat([of_mean, self.latents.expand(tokens.shape[0], -1, -1)], dim=1)
        tokens = tokens + self.position_embedding[: tokens.shape[1]]
        for attention, feed_forward in zip(self.attentions, self.feed_forwards, strict=True):
            latents = latents + attention(latents, tokens)
            latents = latents + feed_forward(latents)
        return latents
