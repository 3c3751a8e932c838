"""The U-Nets of Imagen Video, in the form of imagen-pytorch."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_3d_condition import UNet3DConditionOutput
from torch import nn

from .imagen_attention import ImagenSelfAttention
from .imagen_conditions import ImagenConditioner, get_log_snr
from .imagen_frames import FrameBlock, per_frame
from .imagen_layers import FirstConv, ImagenResnetBlock, ImagenShape, over_positions
from .imagen_levels import check_imagen_options, imagen_embed_dim, imagen_levels, middle_cross_attention


class ImagenVideoUNet(ModelMixin, ConfigMixin):
    r"""
    The denoisers of Imagen Video (Ho et al. 2022, https://huggingface.co/papers/2210.02303) in the form of
    https://github.com/lucidrains/imagen-pytorch (`Unet3D`).

    It is an [`ImagenUNet`] whose convolutions of 3x3 pixels are each followed by a causal one along the frames, and
    whose levels end with causal attention along the frames, by a learned bias of their distance. Self-attention sees
    all pixels of all frames, and half of the hidden channels of its feed-forward layers come from the frame before.

    Args:
        sample_size (`int` or `tuple[int, int]`, *optional*):
            Height and width of films, for pipelines.
        in_channels, out_channels (`int`, default to 3):
            Channels of the input and the output.
        block_out_channels (`tuple[int]`, defaults to `(128, 256, 512, 1024)`):
            The channels of the levels.
        layers_per_block (`int` or `tuple[int]`, defaults to 1):
            The resnet blocks of a level after the first one.
        block_attention, block_cross_attention (`bool` or `tuple[bool]`, default to `False` and `True`):
            Which levels have self-attention, and cross-attention in their first resnet block.
        mid_block_attention, num_attention_heads, attention_head_dim, encoder_hid_dim, cross_attention_dim,
        max_text_length, num_text_latents, num_time_tokens, class_embed_type, downsample_first, noise_schedule,
        num_train_timesteps:
            As in [`ImagenUNet`], which says what `timestep` is.

    Raises:
        ValueError: if the arguments do not fit each other.
    """

    hides_prompts_by_mask = True
    _no_split_modules = ["ImagenDownLevel", "ImagenUpLevel"]
    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        block_out_channels: tuple[int, ...] = (128, 256, 512, 1024),
        layers_per_block: int | tuple[int, ...] = 1,
        block_attention: bool | tuple[bool, ...] = False,
        block_cross_attention: bool | tuple[bool, ...] = True,
        mid_block_attention: bool = True,
        num_attention_heads: int = 8,
        attention_head_dim: int = 64,
        encoder_hid_dim: int = 4096,
        cross_attention_dim: int = 128,
        max_text_length: int = 256,
        num_text_latents: int = 32,
        num_time_tokens: int = 2,
        class_embed_type: str | None = None,
        downsample_first: bool = False,
        noise_schedule: str | None = "linear",
        num_train_timesteps: int = 1000,
    ):
        super().__init__()
        check_imagen_options(in_channels, class_embed_type, noise_schedule)
        width, mid_width = block_out_channels[0], block_out_channels[-1]
        embed_dim = imagen_embed_dim(width, class_embed_type)
        heads = (num_attention_heads, attention_head_dim)
        shape = ImagenShape(embed_dim, cross_attention_dim, *heads, downsample_first, of_films=True)

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
        self.frame_block_in = FrameBlock(width, *heads)
        self.first_resnet = ImagenResnetBlock(width, width, shape, has_gate=True) if downsample_first else None
        self.down_blocks, self.up_blocks = imagen_levels(
            block_out_channels, layers_per_block, block_attention, block_cross_attention, shape
        )
        self.mid_resnet_1 = ImagenResnetBlock(mid_width, mid_width, shape, middle_cross_attention(mid_width, shape))
        self.mid_attention = ImagenSelfAttention(mid_width, *heads) if mid_block_attention else None
        self.mid_frame_block = FrameBlock(mid_width, *heads)
        self.mid_resnet_2 = ImagenResnetBlock(mid_width, mid_width, shape, middle_cross_attention(mid_width, shape))

        self.last_resnet = ImagenResnetBlock(width, width, shape, has_gate=True)
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
        ignore_time: bool = False,
        return_dict: bool = True,
    ) -> UNet3DConditionOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, F, H, W)`):
                Noisy films; for a super-resolver with small films, enlarged, after their channels.
            timestep, encoder_hidden_states, class_labels, encoder_attention_mask:
                As in [`ImagenUNet`], for the texts of N films.
            ignore_time (`bool`, defaults to `False`):
                Whether to skip the layers along frames, for images, which are films of one frame.
            return_dict (`bool`, defaults to `True`):
                Whether to return a `UNet3DConditionOutput` instead of a tuple.

        Returns:
            `UNet3DConditionOutput` or `tuple`: the prediction `(N, out_channels, F, H, W)`.

        Raises:
            ValueError: if a text is too long, or `class_labels` are missing or unexpected.
        """
        # 1. Noise levels and texts
        timestep = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        log_snr = get_log_snr(timestep, self.config.noise_schedule, self.config.num_train_timesteps)
        emb, context = self.conditioner(log_snr, class_labels, encoder_hidden_states, encoder_attention_mask)

        # 2. Down
        x = self.conv_in(sample)
        if not ignore_time:
            x = self.frame_block_in(x)
        if self.first_resnet is not None:
            x = self.first_resnet(x, emb, ignore_time=ignore_time)
        skips = []
        for block in self.down_blocks:
            x, block_skips = block(x, emb, context, ignore_time)
            skips.append(block_skips)

        # 3. Middle
        x = self.mid_resnet_1(x, emb, context, ignore_time)
        if self.mid_attention is not None:
            x = x + over_positions(self.mid_attention, x)
        if not ignore_time:
            x = self.mid_frame_block(x)
        x = self.mid_resnet_2(x, emb, context, ignore_time)

        # 4. Up
        for block in self.up_blocks:
            x, _ = block(x, skips.pop(), emb, context, ignore_time)

        # 5. The end
        x = self.last_resnet(x, emb, ignore_time=ignore_time)
        if self.config.class_embed_type is not None:
            x = torch.cat([x, sample[:, sample.shape[1] // 2 :]], dim=1)
        x = per_frame(self.conv_out, x)
        return UNet3DConditionOutput(sample=x) if return_dict else (x,)
