"""CLIP whose image tower is a residual network, which transformers does not have."""

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .clip_towers import ContrastiveOutput, ContrastiveTextTower, compare_embeds
from .disk_offloading import DiskOffloadMixin


EXPANSION = 4  # of the channels of a block, from its convolutions to its output


class CLIPBottleneck(nn.Module):
    """A residual block of three convolutions, which averages before it takes every second pixel."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, EXPANSION * channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(EXPANSION * channels)
        self.conv_skip, self.norm_skip = None, None
        if stride > 1 or in_channels != EXPANSION * channels:
            self.conv_skip = nn.Conv2d(in_channels, EXPANSION * channels, 1, bias=False)
            self.norm_skip = nn.BatchNorm2d(EXPANSION * channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        inner = self.norm1(self.conv1(hidden_states)).relu()
        inner = self.norm2(self.conv2(inner)).relu()
        if self.stride > 1:
            inner = F.avg_pool2d(inner, self.stride)
        inner = self.norm3(self.conv3(inner))
        skip = hidden_states
        if self.conv_skip is not None:
            skip = F.avg_pool2d(skip, self.stride) if self.stride > 1 else skip
            skip = self.norm_skip(self.conv_skip(skip))
        return (inner + skip).relu()


class CLIPAttentionPool(nn.Module):
    """Attention from the mean of all positions to them and itself."""

    def __init__(self, num_positions: int, channels: int, num_heads: int, projection_dim: int):
        super().__init__()
        self.num_heads = num_heads
        self.position_embedding = nn.Parameter(channels**-0.5 * torch.randn(num_positions + 1, channels))
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, projection_dim)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        tokens = hidden_states.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.position_embedding
        query, key, value = (
            projected.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for projected in (self.to_q(tokens[:, :1]), self.to_k(tokens), self.to_v(tokens))
        )
        return self.to_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(1))


class CLIPResNetModel(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Compares images with texts: CLIP (Radford et al. 2021, section 2.4, https://huggingface.co/papers/2103.00020) with
    the image tower `ModifiedResNet` of https://github.com/openai/CLIP. It has a stem of three convolutions, averages
    before each stride, and an attention pool at its end. CLIP with a vision transformer is transformers' `CLIPModel`.

    The defaults are a small network for RGB images of 32x32 pixels.

    Args:
        sample_size (`int`, defaults to 32):
            Height and width of the images, a multiple of 32.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        layers (`tuple[int]`, defaults to `(1, 1, 1, 1)`):
            The blocks of each of the four levels.
        width (`int`, defaults to 16):
            The channels of the stem. The last level has 32 times as many.
        head_dim (`int`, defaults to 64):
            The width of the heads of the attention pool.
        vocab_size (`int`, defaults to 1000):
            The number of tokens that texts consist of.
        max_length (`int`, defaults to 77):
            The longest text, in tokens.
        text_dim, num_text_layers, num_text_heads (`int`, default to 64, 2 and 1):
            Width, depth and attention heads of the text tower.
        projection_dim (`int`, defaults to 64):
            The width of the embeddings.
        activation (`str`, defaults to `"quick_gelu"`):
            That of the text tower: `"quick_gelu"` or `"gelu"`.
        eos_token_id (`int`, defaults to 999):
            The token that ends a text.
        init_logit_scale (`float`, defaults to 1 / 0.07):
            What cosines are multiplied by at first.

    Raises:
        ValueError: if `sample_size` is no multiple of 32.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        layers: tuple[int, int, int, int] = (1, 1, 1, 1),
        width: int = 16,
        head_dim: int = 64,
        vocab_size: int = 1000,
        max_length: int = 77,
        text_dim: int = 64,
        num_text_layers: int = 2,
        num_text_heads: int = 1,
        projection_dim: int = 64,
        activation: str = "quick_gelu",
        eos_token_id: int = 999,
        init_logit_scale: float = 1 / 0.07,
    ):
        super().__init__()
        if sample_size % 32 != 0:
            raise ValueError(f"`sample_size` must be a multiple of 32, but is {sample_size}.")
        self.conv1 = nn.Conv2d(in_channels, width // 2, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        blocks, channels = [], width
        for level, count in enumerate(layers):
            for block in range(count):
                stride = 2 if level > 0 and block == 0 else 1
                blocks.append(CLIPBottleneck(channels, width * 2**level, stride))
                channels = EXPANSION * width * 2**level
        self.blocks = nn.ModuleList(blocks)
        num_positions = (sample_size // 32) ** 2
        self.pool = CLIPAttentionPool(num_positions, channels, channels // head_dim, projection_dim)
        self.text_tower = ContrastiveTextTower(
            vocab_size,
            max_length,
            text_dim,
            num_text_layers,
            num_text_heads,
            projection_dim,
            activation,
            eos_token_id,
            key_bias=True,
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(init_logit_scale)))

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features `(N, projection_dim)`, not normalised, of prepared images `(N, C, H, W)`."""
        hidden_states = self.norm1(self.conv1(pixel_values)).relu()
        hidden_states = self.norm2(self.conv2(hidden_states)).relu()
        hidden_states = self.norm3(self.conv3(hidden_states)).relu()
        hidden_states = F.avg_pool2d(hidden_states, 2)
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return self.pool(hidden_states)

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Features `(N, projection_dim)`, not normalised, of token ids `(N, L)`; see [`ContrastiveTextTower`]."""
        return self.text_tower(input_ids, attention_mask)

    def forward(
        self,
        pixel_values: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> ContrastiveOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            pixel_values (`torch.Tensor` of shape `(N, in_channels, sample_size, sample_size)`):
                Images, as CLIP's image processor prepares them.
            input_ids (`torch.Tensor` of shape `(M, L)`):
                The tokens of the texts.
            attention_mask (`torch.Tensor` of shape `(M, L)`, *optional*):
                1 for the tokens of a text, 0 for padding; by default texts end with their first `eos_token_id`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`ContrastiveOutput`] instead of a tuple.

        Returns:
            [`ContrastiveOutput`] or `tuple`: logits per image, embeddings of the images and of the texts.

        Raises:
            ValueError: if the images have another shape.
        """
        config = self.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        if tuple(pixel_values.shape[1:]) != shape:
            raise ValueError(
                f"`pixel_values` must be (N, {', '.join(map(str, shape))}), but is {tuple(pixel_values.shape)}."
            )
        image_features = self.get_image_features(pixel_values)
        output = compare_embeds(image_features, self.get_text_features(input_ids, attention_mask), self.logit_scale)
        return output if return_dict else output.to_tuple()
