"""The U-Nets of Imagen, base model and super-resolvers, in the form of imagen-pytorch."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import nn
from torch.nn import functional as F

from .imagen_conditions import ImagenConditioner, get_log_snr
from .imagen_layers import (
    FirstConv,
    ImagenConvBlock,
    ImagenResnetBlock,
    ImagenShape,
    ImagenTransformerBlock,
)
from .imagen_levels import check_imagen_options, imagen_embed_dim, imagen_levels, middle_cross_attention


class ImagenUNet(ModelMixin, ConfigMixin):
    r"""
    The denoisers of Imagen (Saharia et al. 2022, appendix B, https://huggingface.co/papers/2205.11487) in the form of
    https://github.com/lucidrains/imagen-pytorch (`Unet`): the U-Net of the base model, and with `downsample_first` the
    *Efficient U-Net* of super-resolvers. [`TextToImagePixelPipeline`] calls it like a [`UNet2DConditionModel`].

    It reads the states of a text's tokens. A perceiver resampler makes a few latents of them, to which cross-attention
    and self-attention attend, beside tokens of the noise level; the mean of the latents is added to the embedding of
    the noise level. Padding has learned states. Where a text has no tokens by its mask, a learned embedding replaces
    it: that is the prediction without text, by which guidance works.

    **Time.** The original's networks are told the log SNR of noisy images, not a timestep of a scheduler. So
    `noise_schedule` says what `timestep` is. With `"cosine"` or `"linear"`, the schedules of the original, it is a
    scheduler's timestep k of `num_train_timesteps` T, and the network is told the log SNR of that schedule at time
    (k + 1) / T. Converted networks need the schedule of their training, in the scheduler too. A new network can learn
    from either what the timesteps of any scheduler mean; `"linear"`, the default, runs evenly from 9 to -10, while
    `"cosine"` falls to -34 in its last timestep. With `None`, `timestep` is the number itself: the log SNR for whoever
    calls a converted network as the original does, or what EDM's preconditioning tells a network.

    The defaults are those of the original's `BaseUnet64`, for texts of T5-XXL.

    Args:
        sample_size (`int` or `tuple[int, int]`, *optional*):
            Height and width of images, for pipelines.
        in_channels, out_channels (`int`, default to 3):
            Channels of the input and the output.
        block_out_channels (`tuple[int]`, defaults to `(512, 1024, 1536, 2048)`):
            The channels of the levels.
        layers_per_block (`int` or `tuple[int]`, defaults to 3):
            The resnet blocks of a level after the first one.
        block_attention, block_cross_attention (`bool` or `tuple[bool]`, default to `(False, True, True, True)`):
            Which levels have self-attention, and cross-attention in their first resnet block.
        mid_block_attention (`bool`, defaults to `True`):
            Whether the middle has self-attention.
        num_attention_heads, attention_head_dim (`int`, default to 8 and 64):
            Heads and their width; in the middle, cross-attention has 8 of 64 in any case.
        encoder_hid_dim (`int`, defaults to 4096):
            The width of the text encoder's states.
        cross_attention_dim (`int`, defaults to 512):
            The width of the tokens that layers attend to.
        max_text_length (`int`, defaults to 256):
            The longest text in tokens, at most 512.
        num_text_latents, num_time_tokens (`int`, default to 32 and 2):
            The latents that the resampler makes of a text, beside 4 of the mean of its tokens; and the tokens of a
            noise level.
        class_embed_type (`str`, *optional*):
            `"timestep"` for a super-resolver, which sees a small image, enlarged, in the second half of its input
            channels, and the level of the noise in it by `class_labels`.
        downsample_first (`bool`, defaults to `False`):
            Whether levels halve images before their blocks, as in the Efficient U-Net.
        combine_upsampled (`bool`, defaults to `False`):
            Whether the end sees the results of all levels.
        combine_first (`bool`, defaults to `False`):
            Whether the end sees the result of the first convolution.
        noise_schedule (`str`, *optional*, defaults to `"linear"`):
            What `timestep` is: `"linear"`, `"cosine"` or `None`.
        num_train_timesteps (`int`, defaults to 1000):
            The timesteps of the scheduler, if `noise_schedule` is not `None`.

    Raises:
        ValueError: if the arguments do not fit each other.
    """

    # without a text, the mask of its tokens is all zeros, and not that of an empty text
    hides_prompts_by_mask = True
    _no_split_modules = ["ImagenDownLevel", "ImagenUpLevel"]
    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        block_out_channels: tuple[int, ...] = (512, 1024, 1536, 2048),
        layers_per_block: int | tuple[int, ...] = 3,
        block_attention: bool | tuple[bool, ...] = (False, True, True, True),
        block_cross_attention: bool | tuple[bool, ...] = (False, True, True, True),
        mid_block_attention: bool = True,
        num_attention_heads: int = 8,
        attention_head_dim: int = 64,
        encoder_hid_dim: int = 4096,
        cross_attention_dim: int = 512,
        max_text_length: int = 256,
        num_text_latents: int = 32,
        num_time_tokens: int = 2,
        class_embed_type: str | None = None,
        downsample_first: bool = False,
        combine_upsampled: bool = False,
        combine_first: bool = False,
        noise_schedule: str | None = "linear",
        num_train_timesteps: int = 1000,
    ):
        super().__init__()
        check_imagen_options(in_channels, class_embed_type, noise_schedule)
        width, mid_width = block_out_channels[0], block_out_channels[-1]
        embed_dim = imagen_embed_dim(width, class_embed_type)
        heads = (num_attention_heads, attention_head_dim)
        shape = ImagenShape(embed_dim, cross_attention_dim, *heads, downsample_first, of_films=False)

        self.conditioner = ImagenConditioner(
            embed_dim,
            cross_attention_dim,
            num_time_tokens,
            takes_level=class_embed_type is not None,
            text_width=encoder_hid_dim,
            max_text_length=max_text_length,
            num_latents=num_text_latents,
            num_heads=num_attention_heads,
            head_width=attention_head_dim,
        )
        self.conv_in = FirstConv(in_channels, width)
        self.first_resnet = ImagenResnetBlock(width, width, shape, has_gate=True) if downsample_first else None
        self.down_blocks, self.up_blocks = imagen_levels(
            block_out_channels, layers_per_block, block_attention, block_cross_attention, shape
        )
        self.mid_resnet_1 = ImagenResnetBlock(mid_width, mid_width, shape, middle_cross_attention(mid_width, shape))
        self.mid_attention = ImagenTransformerBlock(mid_width, shape, False) if mid_block_attention else None
        self.mid_resnet_2 = ImagenResnetBlock(mid_width, mid_width, shape, middle_cross_attention(mid_width, shape))

        self.combiners = None
        if combine_upsampled:
            widths = reversed(block_out_channels)
            self.combiners = nn.ModuleList(ImagenConvBlock(each, width, of_films=False) for each in widths)
        num_shown = 1 + combine_first + (len(block_out_channels) if combine_upsampled else 0)
        self.last_resnet = ImagenResnetBlock(num_shown * width, width, shape, has_gate=True)
        small_channels = 0 if class_embed_type is None else in_channels // 2
        self.conv_out = nn.Conv2d(width + small_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UNet2DConditionOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Noisy images, and after their channels what else is shown; for a super-resolver small images, enlarged.
                H and W are multiples of 2 to the power of the number of levels, less one without `downsample_first`.
            timestep (`torch.Tensor`, `float` or `int`):
                The timestep of all, or one of each; or what `noise_schedule` says.
            encoder_hidden_states (`torch.Tensor` of shape `(N, L, encoder_hid_dim)`):
                The states of the tokens of texts, L at most `max_text_length`.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                For a super-resolver, 1000 times the level s of the noise in the small images,
                `sqrt(1 - s**2) image + s noise`.
            encoder_attention_mask (`torch.Tensor` of shape `(N, L)`, *optional*):
                1 for the tokens of a text, 0 for padding; only zeros stand for no text. By default there is no
                padding.
            return_dict (`bool`, defaults to `True`):
                Whether to return a `UNet2DConditionOutput` instead of a tuple.

        Returns:
            `UNet2DConditionOutput` or `tuple`: the prediction `(N, out_channels, H, W)`.

        Raises:
            ValueError: if a text is too long, or `class_labels` are missing or unexpected.
        """
        # 1. Noise levels and texts
        timestep = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        log_snr = get_log_snr(timestep, self.config.noise_schedule, self.config.num_train_timesteps)
        emb, context = self.conditioner(log_snr, class_labels, encoder_hidden_states, encoder_attention_mask)

        # 2. Down
        first = x = self.conv_in(sample)
        if self.first_resnet is not None:
            x = self.first_resnet(x, emb)
        skips = []
        for block in self.down_blocks:
            x, block_skips = block(x, emb, context)
            skips.append(block_skips)

        # 3. Middle
        x = self.mid_resnet_1(x, emb, context)
        if self.mid_attention is not None:
            x = self.mid_attention(x)
        x = self.mid_resnet_2(x, emb, context)

        # 4. Up
        upsampled = []
        for block in self.up_blocks:
            x, before = block(x, skips.pop(), emb, context)
            upsampled.append(before)

        # 5. The end
        if self.combiners is not None:
            enlarged = [F.interpolate(each, x.shape[2:]) for each in upsampled]
            x = torch.cat([x, *(block(each) for block, each in zip(self.combiners, enlarged, strict=True))], dim=1)
        if self.config.combine_first:
            x = torch.cat([x, first], dim=1)
        x = self.last_resnet(x, emb)
        if self.config.class_embed_type is not None:
            x = torch.cat([x, sample[:, sample.shape[1] // 2 :]], dim=1)
        x = self.conv_out(x)
        return UNet2DConditionOutput(sample=x) if return_dict else (x,)
