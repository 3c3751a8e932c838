"""Attention as in imagen-pytorch: by the cosine of queries and keys, whose channels have learned scales."""

import torch
from torch import nn
from torch.nn import functional as F


COSINE_SCALE = 8.0  # of the cosines, before the softmax


class ImagenAttention(nn.Module):
    """
    Queries, keys and values of `num_heads` heads, which may share their keys and values (Shazeer 2019).

    Subclasses define `forward`.
    """

    def __init__(self, width: int, source_width: int, num_heads: int, head_width: int, num_key_heads: int):
        super().__init__()
        self.num_heads, self.num_key_heads = num_heads, num_key_heads
        self.to_q = nn.Linear(width, num_heads * head_width, bias=False)
        self.to_kv = nn.Linear(source_width, 2 * num_key_heads * head_width, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_width))
        self.k_scale = nn.Parameter(torch.ones(head_width))
        self.to_out = nn.Linear(num_heads * head_width, width, bias=False)

    def split_keys(self, keys_values: torch.Tensor) -> torch.Tensor:
        """Keys and values `(2, N, heads, L, head_width)` from the features `(N, L, 2 * heads * head_width)`."""
        return keys_values.unflatten(-1, (2, self.num_key_heads, -1)).permute(2, 0, 3, 1, 4)

    def attend(
        self, states: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What all states `(N, L, W)` find in the values, `(N, L, W)`."""
        queries = self.to_q(states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        queries = F.normalize(queries, dim=-1) * self.q_scale
        keys = (F.normalize(keys, dim=-1) * self.k_scale).expand(-1, self.num_heads, -1, -1)
        values = values.expand(-1, self.num_heads, -1, -1)
        found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=COSINE_SCALE)
        return self.to_out(found.transpose(1, 2).flatten(2))


class ImagenSelfAttention(ImagenAttention):
    """All heads share keys and values: those of the states themselves, of a context, and a learned first one."""

    def __init__(self, width: int, num_heads: int, head_width: int, context_width: int | None = None):
        super().__init__(width, width, num_heads, head_width, num_key_heads=1)
        self.norm = nn.LayerNorm(width, bias=False)
        self.first_key_value = nn.Parameter(torch.randn(2, head_width))
        if context_width is not None:
            self.norm_context = nn.LayerNorm(context_width)
            self.context_to_kv = nn.Linear(context_width, 2 * head_width)
        self.norm_out = nn.LayerNorm(width, bias=False)

    def forward(
        self, states: torch.Tensor, context: torch.Tensor | None = None, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Args:
            states (`torch.Tensor` of shape `(N, L, W)`): of all positions.
            context (`torch.Tensor` of shape `(N, M, D)`, *optional*): what they attend to as well.
            bias (`torch.Tensor` of shape `(heads, L, 1 + L)`, *optional*): added to the cosines of the first key and
                of those of all positions.
        """
        states = self.norm(states)
        sources = [self.first_key_value.flatten().expand(states.shape[0], 1, -1), self.to_kv(states)]
        if context is not None:
            sources.append(self.context_to_kv(self.norm_context(context)))
        keys, values = self.split_keys(torch.cat(sources, dim=1))
        return self.norm_out(self.attend(states, keys, values, bias))


class ImagenCrossAttention(ImagenAttention):
    """Attention to a context, and to a learned first key, which is the same in all heads."""

    def __init__(self, width: int, num_heads: int, head_width: int, context_width: int):
        super().__init__(width, context_width, num_heads, head_width, num_key_heads=num_heads)
        self.norm = nn.LayerNorm(width, bias=False)
        self.first_key_value = nn.Parameter(torch.randn(2, head_width))
        self.norm_out = nn.LayerNorm(width, bias=False)

    def forward(self, states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        first = self.first_key_value[:, None, None, None].expand(-1, states.shape[0], self.num_heads, -1, -1)
        keys, values = torch.cat([first, self.split_keys(self.to_kv(context))], dim=3)
        return self.norm_out(self.attend(self.norm(states), keys, values))


class ImagenLatentAttention(ImagenAttention):
    """Latents attend to a sequence and to themselves (Alayrac et al. 2022, figure 5)."""

    def __init__(self, width: int, num_heads: int, head_width: int):
        super().__init__(width, width, num_heads, head_width, num_key_heads=num_heads)
        self.norm = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.norm_out = nn.LayerNorm(width)

    def forward(self, latents: torch.Tensor, sequence: torch.Tensor) -> torch.Tensor:
        latents = self.norm_latents(latents)
        keys, values = self.split_keys(self.to_kv(torch.cat([self.norm(sequence), latents], dim=1)))
        return self.norm_out(self.attend(latents, keys, values))


class ImagenFeedForward(nn.Module):
    """
    A feed-forward layer of states `(N, ..., W)`.

    With `shifts_frames` they are those of films, `(N, F, H, W, W')`: half of the hidden channels come from the frame
    before, so that a frame knows its past.
    """

    def __init__(self, width: int, factor: int, shifts_frames: bool = False):
        super().__init__()
        self.shifts_frames = shifts_frames
        self.norm = nn.LayerNorm(width, bias=False)
        self.proj_in = nn.Linear(width, factor * width, bias=False)
        self.norm_hidden = nn.LayerNorm(factor * width, bias=False)
        self.proj_out = nn.Linear(factor * width, width, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(self.proj_in(self.norm(states)))
        if self.shifts_frames:
            own, shifted = hidden.chunk(2, dim=-1)
            before = torch.cat([torch.zeros_like(shifted[:, :1]), shifted[:, :-1]], dim=1)
            hidden = torch.cat([own, before], dim=-1)
        return self.proj_out(self.norm_hidden(hidden))
