"""The text transformer of GLIDE."""

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .clip_towers import ContrastiveBlock


@dataclass
class GlideTextModelOutput(BaseOutput):
    """
    The output of [`GlideTextModel`].

    Args:
        last_hidden_state (`torch.Tensor` of shape `(N, L, hidden_size)`):
            The states of all positions, which the denoiser attends to.
        pooler_output (`torch.Tensor` of shape `(N, projection_dim)`):
            The text as a whole, which is added to the embedding of the timestep.
    """

    last_hidden_state: torch.Tensor
    pooler_output: torch.Tensor


class GlideTextModel(ModelMixin, ConfigMixin):
    r"""
    The text transformer of GLIDE (Nichol et al. 2021, section 3.1, https://huggingface.co/papers/2112.10741;
    `Text2ImUNet` in https://github.com/openai/glide-text2im), which is trained together with a denoiser.

    All positions see each other, padding too, which has an embedding of its own at each position. The state of the
    last position stands for the text as a whole, wherever the text ends.

    The defaults are those of the published models.

    Args:
        vocab_size (`int`, defaults to 50257):
            The number of tokens that texts consist of.
        max_position_embeddings (`int`, defaults to 128):
            The length of all texts, in tokens with padding.
        hidden_size, num_hidden_layers, num_attention_heads (`int`, default to 512, 16 and 8):
            Width, depth and attention heads.
        projection_dim (`int`, defaults to 768):
            The width of the denoiser's embedding of timesteps.
        final_norm (`bool`, defaults to `True`):
            Whether the states are normalised at the end.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    _no_split_modules = ["ContrastiveBlock"]
    _repeated_blocks = ["ContrastiveBlock"]
    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        vocab_size: int = 50257,
        max_position_embeddings: int = 128,
        hidden_size: int = 512,
        num_hidden_layers: int = 16,
        num_attention_heads: int = 8,
        projection_dim: int = 768,
        final_norm: bool = True,
    ):
        super().__init__()
        if hidden_size % num_attention_heads != 0:
            raise ValueError(
                f"`num_attention_heads` must divide `hidden_size`, {hidden_size}, but is {num_attention_heads}."
            )
        self.token_embedding = nn.Embedding(vocab_size, hidden_size)
        self.position_embedding = nn.Parameter(0.01 * torch.randn(max_position_embeddings, hidden_size))
        self.padding_embedding = nn.Parameter(0.01 * torch.randn(max_position_embeddings, hidden_size))
        blocks = (
            ContrastiveBlock(hidden_size, num_attention_heads, "gelu", causal=False, key_bias=True)
            for _ in range(num_hidden_layers)
        )
        self.blocks = nn.ModuleList(blocks)
        self.norm_out = nn.LayerNorm(hidden_size) if final_norm else nn.Identity()
        self.proj_out = nn.Linear(hidden_size, projection_dim)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, return_dict: bool = True
    ) -> GlideTextModelOutput | tuple[torch.Tensor, torch.Tensor]:
        r"""
        Args:
            input_ids (`torch.Tensor` of shape `(N, max_position_embeddings)`):
                The tokens of the texts, padding included.
            attention_mask (`torch.Tensor` of shape `(N, max_position_embeddings)`, *optional*):
                1 for the tokens of a text, 0 for padding; by default there is no padding.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`GlideTextModelOutput`] instead of a tuple.

        Returns:
            [`GlideTextModelOutput`] or `tuple`: the states, and the text as a whole.

        Raises:
            ValueError: if the texts have another length.
        """
        length = self.config.max_position_embeddings
        if input_ids.shape[1] != length:
            raise ValueError(f"`input_ids` must be (N, {length}), padding included, but is {tuple(input_ids.shape)}.")
        hidden_states = self.token_embedding(input_ids) + self.position_embedding
        if attention_mask is not None:
            hidden_states = torch.where(attention_mask[:, :, None] > 0, hidden_states, self.padding_embedding)
        for block in self.blocks:
            hidden_states = block(hidden_states)
        hidden_states = self.norm_out(hidden_states)
        pooled = self.proj_out(hidden_states[:, -1])
        if not return_dict:
            return hidden_states, pooled
        return GlideTextModelOutput(last_hidden_state=hidden_states, pooler_output=pooled)
