"""The diffusion prior of DALLE2-pytorch, whose attention has one head of keys and values."""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.transformers.prior_transformer import PriorTransformerOutput
from torch import nn
from torch.nn import functional as F


ATTENTION_SCALE = 16.0  # of cosines
MAX_ROTATED = 32  # channels of each head
MAX_DISTANCE = 128  # from which on all distances are alike


class MultiQueryPriorTransformer(ModelMixin, ConfigMixin):
    r"""
    A diffusion prior as in DALL-E 2 (Ramesh et al. 2022, section 2.2, https://huggingface.co/papers/2204.06125), with
    the network of https://github.com/lucidrains/DALLE2-pytorch (`DiffusionPriorNetwork`), which LAION trained.
    Pipelines call it like diffusers' [`PriorTransformer`].

    It predicts the embedding of an image, of length 1, times `sqrt(embedding_dim)`. A causal transformer reads the
    states of the prompt's tokens, the prompt's embedding, the timestep and the noisy embedding. Queries and keys are
    compared by their cosine, all heads share their keys and values, and positions are told by rotation (Su et al.
    2021) and by a learned bias for each distance (Raffel et al. 2020). Padding has learned states. Where a prompt has
    no tokens, learned embeddings replace its own and the noisy one: that is the prediction without a prompt, by which
    guidance works.

    Args:
        num_attention_heads, attention_head_dim, num_layers (`int`, default to 12, 64 and 12):
            Heads, their width, and depth.
        embedding_dim (`int`, defaults to 768):
            The width of CLIP's embeddings and of its states of tokens.
        num_embeddings (`int`, defaults to 77):
            The length of all texts, in tokens with padding.
        num_timesteps (`int`, defaults to 1000):
            Timesteps are whole numbers below this.
        feed_forward_factor (`int`, defaults to 4):
            The width of feed-forward layers as a multiple of `embedding_dim`.
        norm_in_feed_forward (`bool`, defaults to `True`):
            Whether these are normalised after their activation (Shleifer et al. 2021).
        num_distances (`int`, defaults to 32):
            The number of learned biases; half of them are for single distances.
    """

    # without a prompt, the mask of its tokens is all zeros, and not that of an empty prompt
    hides_prompts_by_mask = True
    _no_split_modules = ["SharedKeyBlock"]
    _repeated_blocks = ["SharedKeyBlock"]
    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 12,
        attention_head_dim: int = 64,
        num_layers: int = 12,
        embedding_dim: int = 768,
        num_embeddings: int = 77,
        num_timesteps: int = 1000,
        feed_forward_factor: int = 4,
        norm_in_feed_forward: bool = True,
        num_distances: int = 32,
    ):
        super().__init__()
        width = embedding_dim
        self.time_embedding = nn.Embedding(num_timesteps, width)
        self.prd_embedding = nn.Parameter(torch.randn(width))
        self.padding_states = nn.Parameter(torch.randn(num_embeddings, width))
        self.null_prompt_embedding = nn.Parameter(torch.randn(width))
        self.null_image_embedding = nn.Parameter(torch.randn(width))
        self.distance_bias = nn.Embedding(num_distances, num_attention_heads)
        self.transformer_blocks = nn.ModuleList(
            SharedKeyBlock(
                width, num_attention_heads, attention_head_dim, feed_forward_factor * width, norm_in_feed_forward
            )
            for _ in range(num_layers)
        )
        self.norm_out = nn.LayerNorm(width, bias=False)
        self.proj_out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor | int,
        proj_embedding: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> PriorTransformerOutput | tuple[torch.Tensor]:
        r"""
        Args:
            hidden_states (`torch.Tensor` of shape `(N, embedding_dim)`):
                Noisy embeddings of images, of about unit variance in each dimension.
            timestep (`torch.Tensor` or `int`):
                The timestep of all, or one of each.
            proj_embedding (`torch.Tensor` of shape `(N, embedding_dim)`):
                CLIP's embeddings of the prompts, of any length.
            encoder_hidden_states (`torch.Tensor` of shape `(N, num_embeddings, embedding_dim)`):
                CLIP's states of their tokens.
            attention_mask (`torch.Tensor` of shape `(N, num_embeddings)`, *optional*):
                1 for the tokens of a prompt, 0 for padding; only zeros stand for no prompt. By default there is no
                padding.
            return_dict (`bool`, defaults to `True`):
                Whether to return a `PriorTransformerOutput` instead of a tuple.

        Returns:
            `PriorTransformerOutput` or `tuple`: the predicted embeddings.

        Raises:
            ValueError: if the prompts have another length.
        """
        length = self.config.num_embeddings
        if encoder_hidden_states.shape[1] != length:
            raise ValueError(
                f"`encoder_hidden_states` must be states of {length} tokens, padding included, but are of "
                f"{encoder_hidden_states.shape[1]}."
            )
        if attention_mask is None:
            attention_mask = encoder_hidden_states.new_ones(encoder_hidden_states.shape[:2])
        is_token = attention_mask > 0
        has_prompt = is_token.any(dim=1, keepdim=True)

        states = torch.where(is_token[:, :, None], encoder_hidden_states, self.padding_states)
        prompt = torch.where(has_prompt, F.normalize(proj_embedding, dim=-1), self.null_prompt_embedding)
        image = torch.where(has_prompt, hidden_states, self.null_image_embedding)
        timestep = torch.as_tensor(timestep, device=hidden_states.device).expand(len(hidden_states))
        others = [prompt, self.time_embedding(timestep), image, self.prd_embedding.expand_as(hidden_states)]
        sequence = torch.cat([states, torch.stack(others, dim=1)], dim=1)

        bias = self.get_attention_bias(sequence)
        for block in self.transformer_blocks:
            sequence = block(sequence, bias)
        query = sequence[:, -1]
        query = query / query.amax(dim=-1, keepdim=True).detach()  # the norm is of the result
        predicted = self.proj_out(self.norm_out(query))
        return PriorTransformerOutput(predicted_image_embedding=predicted) if return_dict else (predicted,)

    def get_attention_bias(self, sequence: torch.Tensor) -> torch.Tensor:
        """What is added to the cosines of queries and keys, `(heads, L, 1 + L)`; the first key is a learned one."""
        length, num_distances = sequence.shape[1], self.config.num_distances
        positions = torch.arange(length + 1, device=sequence.device)
        back = positions[:length, None] - positions
        distance, num_single = back.clamp(min=0), num_distances // 2
        # larger distances share a bias the more, the larger they are
        growth = torch.log(distance.clamp(min=1).float() / num_single) / math.log(MAX_DISTANCE / num_single)
        shared = num_single + (growth * (num_distances - num_single)).long()
        index = torch.where(distance < num_single, distance, shared.clamp(max=num_distances - 1))
        bias = self.distance_bias(index).permute(2, 0, 1)
        return bias.masked_fill(back < -1, -torch.inf)

    def post_process_latents(self, prior_latents: torch.Tensor) -> torch.Tensor:
        """The embeddings of images, of about length 1, in sampled latents."""
        return prior_latents / math.sqrt(self.config.embedding_dim)


class SharedKeyBlock(nn.Module):
    """Causal attention whose heads share keys and values, and a gated feed-forward layer."""

    def __init__(self, width: int, num_heads: int, head_width: int, hidden_width: int, norm_in_feed_forward: bool):
        super().__init__()
        self.num_heads = num_heads
        self.norm_1 = nn.LayerNorm(width, bias=False)
        self.to_q = nn.Linear(width, num_heads * head_width, bias=False)
        self.to_k = nn.Linear(width, head_width, bias=False)
        self.to_v = nn.Linear(width, head_width, bias=False)
        self.first_key_value = nn.Parameter(torch.randn(2, head_width))
        self.to_out = nn.Linear(num_heads * head_width, width, bias=False)
        self.norm_attention = nn.LayerNorm(width, bias=False)
        self.norm_2 = nn.LayerNorm(width, bias=False)
        self.proj_in = nn.Linear(width, 2 * hidden_width, bias=False)
        self.norm_hidden = nn.LayerNorm(hidden_width, bias=False) if norm_in_feed_forward else nn.Identity()
        self.proj_out = nn.Linear(hidden_width, width, bias=False)

    def forward(self, sequence: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        sequence = sequence + self.norm_attention(self.to_out(self.attend(self.norm_1(sequence), bias)))
        hidden, gate = self.proj_in(self.norm_2(sequence)).chunk(2, dim=-1)
        return sequence + self.proj_out(self.norm_hidden(hidden * F.silu(gate)))

    def attend(self, sequence: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """The states `(N, L, heads * head_width)` that all positions find at those before them."""
        queries = rotate(self.to_q(sequence).unflatten(-1, (self.num_heads, -1)).transpose(1, 2))
        keys, values = rotate(self.to_k(sequence)), self.to_v(sequence)
        first_key, first_value = self.first_key_value.expand(len(sequence), -1, -1).chunk(2, dim=1)
        queries = F.normalize(queries, dim=-1)
        keys = F.normalize(torch.cat([first_key, keys], dim=1), dim=-1)
        values = torch.cat([first_value, values], dim=1)
        keys, values = (part[:, None].expand(-1, self.num_heads, -1, -1) for part in (keys, values))
        bias = bias.to(queries.dtype)
        found = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=ATTENTION_SCALE)
        return found.transpose(1, 2).flatten(2)


def rotate(features: torch.Tensor) -> torch.Tensor:
    """Features `(..., L, W)`, of which pairs of the first channels are turned by an angle that grows with the position
    (Su et al. 2021, eq. 34)."""
    length, width = features.shape[-2:]
    width = min(width, MAX_ROTATED)
    frequencies = 10000.0 ** -(torch.arange(0, width, 2, device=features.device).float() / width)
    angles = torch.arange(length, device=features.device).float()[:, None] * frequencies
    cos, sin = angles.cos().to(features.dtype), angles.sin().to(features.dtype)
    even, odd = features[..., :width:2], features[..., 1:width:2]
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
    return torch.cat([turned, features[..., width:]], dim=-1)
