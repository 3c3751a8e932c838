"""A classifier of noisy images, half of a U-Net, which guides a diffusion model to a class."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D, get_down_block
from diffusers.utils import BaseOutput
from torch import nn


POOLS = ("adaptive", "attention", "spatial", "spatial_v2")
SPATIAL_HIDDEN_DIM = 2048  # of the perceptron after the two spatial pools, in all published networks


@dataclass
class NoisyClassifierOutput(BaseOutput):
    """
    The output of [`NoisyClassifier`].

    Args:
        logits (`torch.Tensor` of shape `(N, num_classes)`):
            Unnormalised log-probabilities: `log_softmax(logits)` is log p(y | x_t).
    """

    logits: torch.Tensor


class NoisyClassifier(ModelMixin, ConfigMixin):
    r"""
    Predicts the class of an image x_t with the noise of a diffusion process at the timestep t.

    It consists of the down and middle blocks of a U-Net and a pool, as in "Diffusion Models Beat GANs on Image
    Synthesis" (Dhariwal & Nichol 2021, section 4.3 and appendix H, https://huggingface.co/papers/2105.05233;
    `EncoderUNetModel` in https://github.com/openai/guided-diffusion). The gradient of log p(y | x_t) with respect to
    x_t guides the sampling of a diffusion model to the class y.

    The defaults are a small network for grayscale images of 8x8 to 32x32 pixels, such as digits.

    Args:
        sample_size (`int` or `tuple[int, int]`, *optional*):
            Height and width of the images. Only the attention pool needs it, and cannot process other sizes.
        in_channels (`int`, defaults to 1):
            Channels of the images.
        num_classes (`int`, defaults to 10):
            The number of classes.
        flip_sin_to_cos (`bool`, defaults to `True`):
            Whether the cosines come first in the projection of the timestep.
        freq_shift (`int`, defaults to 0):
            The frequency shift of the projection of the timestep.
        time_projection_dim (`int`, *optional*, defaults to `block_out_channels[0]`):
            The width of the projection of the timestep. The time embedding is four times as wide.
        down_block_types (`tuple[str]`):
            The block of each level: `"DownBlock2D"`, `"AttnDownBlock2D"` or `"ResnetDownsampleBlock2D"`.
        block_out_channels (`tuple[int]`):
            The channels of each level. The image is halved between two levels.
        layers_per_block (`int`, defaults to 2):
            The number of residual blocks per level.
        downsample_type (`str`, defaults to `"conv"`):
            How an `"AttnDownBlock2D"` halves the image: `"conv"` or `"resnet"`.
        dropout (`float`, defaults to 0.0):
            The dropout probability in the residual blocks.
        act_fn (`str`, defaults to `"silu"`):
            The activation of the residual blocks.
        attention_head_dim (`int`, *optional*, defaults to 8):
            The width of an attention head; `None` for a single head.
        num_attention_heads (`int`, *optional*):
            The number of attention heads at all levels, instead of `attention_head_dim`.
        norm_num_groups (`int`, defaults to 8):
            The number of groups of every normalization. The published networks have 32.
        norm_eps (`float`, defaults to 1e-5):
            The epsilon of every normalization.
        resnet_time_scale_shift (`str`, defaults to `"scale_shift"`):
            How the time embedding is applied in a residual block: `"scale_shift"`, or `"default"` for a shift only.
        pool (`str`, defaults to `"adaptive"`):
            How the features become one vector: `"adaptive"` averages them; `"attention"` applies attention with their
            average as the query; `"spatial"` and `"spatial_v2"` average the features of every layer and apply a
            perceptron with 2048 hidden units (with ReLU, or with group normalization and SiLU).

    Raises:
        ValueError: if the arguments do not fit together.
    """

    _supports_gradient_checkpointing = True
    _skip_layerwise_casting_patterns = ["norm"]

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 1,
        num_classes: int = 10,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        time_projection_dim: int | None = None,
        down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        block_out_channels: tuple[int, ...] = (32, 64, 64),
        layers_per_block: int = 2,
        downsample_type: str = "conv",
        dropout: float = 0.0,
        act_fn: str = "silu",
        attention_head_dim: int | None = 8,
        num_attention_heads: int | None = None,
        norm_num_groups: int = 8,
        norm_eps: float = 1e-5,
        resnet_time_scale_shift: str = "scale_shift",
        pool: str = "adaptive",
    ):
        super().__init__()
        check_classifier_arguments(
            sample_size, num_classes, down_block_types, block_out_channels, layers_per_block, pool
        )

        # 1. time
        time_projection_dim = time_projection_dim or block_out_channels[0]
        time_embed_dim = 4 * time_projection_dim
        self.time_proj = Timesteps(time_projection_dim, flip_sin_to_cos, freq_shift)
        self.time_embedding = TimestepEmbedding(time_projection_dim, time_embed_dim)

        # 2. down
        head_dims = [
            attention_head_width(channels, attention_head_dim, num_attention_heads) for channels in block_out_channels
        ]
        self.conv_in = nn.Conv2d(in_channels, block_out_channels[0], kernel_size=3, padding=1)
        self.down_blocks = nn.ModuleList()
        previous_channels = block_out_channels[0]
        for i, (down_block_type, channels) in enumerate(zip(down_block_types, block_out_channels, strict=True)):
            down_block = get_down_block(
                down_block_type,
                num_layers=layers_per_block,
                in_channels=previous_channels,
                out_channels=channels,
                temb_channels=time_embed_dim,
                add_downsample=i < len(block_out_channels) - 1,
                resnet_eps=norm_eps,
                resnet_act_fn=act_fn,
                resnet_groups=norm_num_groups,
                attention_head_dim=head_dims[i],
                downsample_padding=1,
                resnet_time_scale_shift=resnet_time_scale_shift,
                downsample_type=downsample_type,
                dropout=dropout,
            )
            self.down_blocks.append(down_block)
            previous_channels = channels

        # 3. mid
        self.mid_block = UNetMidBlock2D(
            in_channels=channels,
            temb_channels=time_embed_dim,
            dropout=dropout,
            resnet_eps=norm_eps,
            resnet_act_fn=act_fn,
            resnet_time_scale_shift=resnet_time_scale_shift,
            attention_head_dim=head_dims[-1],
            resnet_groups=norm_num_groups,
            attn_groups=norm_num_groups,  # by default there is no attention normalization with "scale_shift"
        )

        # 4. pool
        if pool == "adaptive":
            self.head = nn.Sequential(
                nn.GroupNorm(norm_num_groups, channels, eps=norm_eps),
                nn.SiLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(channels, num_classes, kernel_size=1),
                nn.Flatten(),
            )
        elif pool == "attention":
            height, width = (self._final_size(size) for size in self._sample_size())
            self.head = nn.Sequential(
                nn.GroupNorm(norm_num_groups, channels, eps=norm_eps),
                nn.SiLU(),
                AttentionPool(channels, height * width, channels // head_dims[-1], num_classes),
            )
        else:
            # conv_in, each residual block, each downsampler and the middle block
            num_features = block_out_channels[0] + layers_per_block * sum(block_out_channels)
            num_features += sum(block_out_channels[:-1]) + channels
            self.head = nn.Sequential(
                nn.Linear(num_features, SPATIAL_HIDDEN_DIM),
                *(
                    [nn.ReLU()]
                    if pool == "spatial"
                    else [nn.GroupNorm(norm_num_groups, SPATIAL_HIDDEN_DIM, eps=norm_eps), nn.SiLU()]
                ),
                nn.Linear(SPATIAL_HIDDEN_DIM, num_classes),
            )

    def _sample_size(self) -> tuple[int, int]:
        size = self.config.sample_size
        return (size, size) if isinstance(size, int) else tuple(size)

    def _final_size(self, size: int) -> int:
        """The height or width after all downsamplers: convolutions round up, residual blocks round down."""
        for block_type in self.config.down_block_types[:-1]:
            is_resnet = block_type == "ResnetDownsampleBlock2D" or (
                block_type == "AttnDownBlock2D" and self.config.downsample_type == "resnet"
            )
            size = size // 2 if is_resnet else (size + 1) // 2
        return size

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor | float | int, return_dict: bool = True
    ) -> NoisyClassifierOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The noisy images, in a scale where clean images are in `[-1, 1]`.
            timestep (`torch.Tensor` of shape `()` or `(N,)`, `float` or `int`):
                The timestep of all images, or of each image. It can be fractional.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`NoisyClassifierOutput`] instead of a tuple.

        Returns:
            [`NoisyClassifierOutput`] or `tuple`: the logits `(N, num_classes)`.

        Raises:
            ValueError: if the size of the images does not fit the network.
        """
        height, width = sample.shape[-2:]
        if self.config.pool == "attention" and (height, width) != self._sample_size():
            raise ValueError(
                f"`sample` must be of the size {self._sample_size()} of the attention pool, not {(height, width)}."
            )
        if min(self._final_size(height), self._final_size(width)) < 1:
            raise ValueError(f"`sample` of the size {(height, width)} is too small to be halved at each level.")

        # 1. time; the projection is computed in float32, whatever the dtype of the network
        timestep = torch.as_tensor(timestep, device=sample.device)
        timestep = timestep.expand(sample.shape[0])
        temb = self.time_embedding(self.time_proj(timestep).to(sample.dtype))

        # 2. down
        hidden_states = self.conv_in(sample)
        features = (hidden_states,)
        for down_block in self.down_blocks:
            hidden_states, block_features = down_block(hidden_states, temb)
            features += block_features

        # 3. mid
        hidden_states = self.mid_block(hidden_states, temb)

        # 4. pool
        if self.config.pool.startswith("spatial"):
            features += (hidden_states,)
            hidden_states = torch.cat([feature.mean(dim=(2, 3)) for feature in features], dim=1)
        logits = self.head(hidden_states)

        if not return_dict:
            return (logits,)
        return NoisyClassifierOutput(logits=logits)


class AttentionPool(nn.Module):
    r"""
    Pools a feature map into one vector by multi-head attention, whose query is the mean over all positions.

    It is the pool of CLIP's image encoder (Radford et al. 2021, section 2.4,
    https://huggingface.co/papers/2103.00020).

    Args:
        channels (`int`): The channels of the feature map.
        num_positions (`int`): The height times the width of the feature map.
        num_heads (`int`): The number of attention heads.
        out_features (`int`): The length of the vector.
    """

    def __init__(self, channels: int, num_positions: int, num_heads: int, out_features: int):
        super().__init__()
        self.num_heads = num_heads
        self.positional_embedding = nn.Parameter(torch.randn(channels, 1 + num_positions) / channels**0.5)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.Linear(channels, out_features)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, channels, H, W)`, with `H * W == num_positions`, to `(N, out_features)`."""
        tokens = hidden_states.flatten(2)
        tokens = torch.cat([tokens.mean(dim=-1, keepdim=True), tokens], dim=-1) + self.positional_embedding
        tokens = tokens.transpose(1, 2)

        # A single query, because only the output at the mean is needed.
        query, key, value = self.to_q(tokens[:, :1]), self.to_k(tokens), self.to_v(tokens)
        query, key, value = (x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (query, key, value))
        pooled = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(pooled.flatten(1))


def attention_head_width(channels: int, attention_head_dim: int | None, num_attention_heads: int | None) -> int:
    """The width of each attention head of a block."""
    if num_attention_heads is None:
        width = attention_head_dim or channels
    else:
        width = channels // num_attention_heads
    if width == 0 or channels % width != 0:
        raise ValueError(
            f"{channels} channels cannot be divided among attention heads by {attention_head_dim=}, "
            f"{num_attention_heads=}."
        )
    return width


def check_classifier_arguments(
    sample_size: int | tuple[int, int] | None,
    num_classes: int,
    down_block_types: tuple[str, ...],
    block_out_channels: tuple[int, ...],
    layers_per_block: int,
    pool: str,
) -> None:
    if num_classes < 1 or layers_per_block < 1:
        raise ValueError(
            f"`num_classes` and `layers_per_block` must be at least 1, but are {num_classes} and {layers_per_block}."
        )
    if len(block_out_channels) == 0:
        raise ValueError("`block_out_channels` must have an entry for each level, but is empty.")
    if len(down_block_types) != len(block_out_channels):
        raise ValueError(
            f"`down_block_types` and `block_out_channels` must have the same length, but have "
            f"{len(down_block_types)} and {len(block_out_channels)} entries."
        )
    if pool not in POOLS:
        raise ValueError(f"`pool` must be one of {POOLS}, but is {pool!r}.")
    if pool == "attention" and sample_size is None:
        raise ValueError("`sample_size` must be given for the attention pool, which has a weight for each position.")
