"""What networks of the CLIP family share: the transformer, the text tower, and the comparison of embeddings."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.utils import BaseOutput
from torch import nn


@dataclass
class ContrastiveOutput(BaseOutput):
    """
    The output of a network that compares images with texts.

    Args:
        logits_per_image (`torch.Tensor` of shape `(N, M)`):
            Cosines of each image with each text, times the scale of the network.
        image_embeds (`torch.Tensor` of shape `(N, D)`):
            The embeddings of the images, of unit length.
        text_embeds (`torch.Tensor` of shape `(M, D)`):
            The embeddings of the texts, of unit length.
    """

    logits_per_image: torch.Tensor
    image_embeds: torch.Tensor
    text_embeds: torch.Tensor


def compare_embeds(
    image_features: torch.Tensor, text_features: torch.Tensor, logit_scale: torch.Tensor
) -> ContrastiveOutput:
    """The logits of each image for each text."""
    image_embeds, text_embeds = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
    return ContrastiveOutput(logit_scale.exp() * image_embeds @ text_embeds.T, image_embeds, text_embeds)


class ContrastiveBlock(nn.Module):
    """
    A block of the transformers of CLIP: attention and a perceptron, each behind a normalisation.

    Keys have a bias in OpenAI's CLIP and none in GLIDE's. It has no effect: it adds the same number to all logits of a
    query, which the softmax takes out again.
    """

    def __init__(self, dim: int, num_heads: int, activation: str, causal: bool, key_bias: bool):
        super().__init__()
        self.num_heads, self.quick, self.causal = num_heads, activation == "quick_gelu", causal
        self.norm1 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim, bias=key_bias)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.linear_1 = nn.Linear(dim, 4 * dim)
        self.linear_2 = nn.Linear(4 * dim, dim)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(hidden_states)
        query, key, value = (
            project(normed).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        hidden_states = hidden_states + self.to_out(attended.transpose(1, 2).flatten(2))
        inner = self.linear_1(self.norm2(hidden_states))
        inner = inner * torch.sigmoid(1.702 * inner) if self.quick else F.gelu(inner)
        return hidden_states + self.linear_2(inner)


class ContrastiveTextTower(nn.Module):
    """The text tower of CLIP: a causal transformer, read at the token that ends a text."""

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        projection_dim: int,
        activation: str,
        eos_token_id: int,
        key_bias: bool,
    ):
        super().__init__()
        self.eos_token_id = eos_token_id
        self.token_embedding = nn.Embedding(vocab_size, dim)
        self.position_embedding = nn.Parameter(0.01 * torch.randn(max_length, dim))
        blocks = (ContrastiveBlock(dim, num_heads, activation, True, key_bias) for _ in range(num_layers))
        self.blocks = nn.ModuleList(blocks)
        self.norm_out = nn.LayerNorm(dim)
        self.proj_out = nn.Linear(dim, projection_dim, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """
        Features `(N, projection_dim)` of token ids `(N, L)`.

        A text ends with the last token that `attention_mask` `(N, L)` has a one for; without a mask, with the first
        end token. What follows has no effect.
        """
        hidden_states = self.token_embedding(input_ids) + self.position_embedding[: input_ids.shape[1]]
        for block in self.blocks:
            hidden_states = block(hidden_states)
        if attention_mask is None:
            end = (input_ids == self.eos_token_id).int().argmax(dim=1)
        else:
            end = attention_mask.sum(dim=1) - 1
        ends = hidden_states[torch.arange(len(end), device=end.device), end]
        return self.proj_out(self.norm_out(ends))
