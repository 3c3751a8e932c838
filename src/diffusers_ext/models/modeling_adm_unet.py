"""The U-Net of ADM and related work, with options that the U-Net of diffusers does not have."""

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_2d import UNet2DOutput


class ADMUNet2DModel(UNet2DModel):
    r"""
    A [`UNet2DModel`] with additional options that some published networks need, and with the same names of weights.

    These are the networks of "Improved Denoising Diffusion Probabilistic Models" (Nichol & Dhariwal 2021,
    https://huggingface.co/papers/2102.09672, https://github.com/openai/improved-diffusion), of "Diffusion Models Beat
    GANs on Image Synthesis" (Dhariwal & Nichol 2021, https://huggingface.co/papers/2105.05233,
    https://github.com/openai/guided-diffusion) and of latent diffusion (https://github.com/CompVis/latent-diffusion).
    Use [`UNet2DModel`] for networks that need none of the four arguments below.

    Args:
        num_attention_heads (`int`, *optional*):
            The number of attention heads at all levels, instead of `attention_head_dim`.
        time_projection_dim (`int`, *optional*, defaults to `block_out_channels[0]`):
            The width of the projection of the timestep. The width of the time embedding is `time_embedding_dim`, by
            default four times this width.
        timestep_scale (`float`, defaults to 1.0):
            A factor for timesteps: 1000 / T for networks trained with `rescale_timesteps`, whose input never exceeds
            1000.
        low_res_channels (`int`, defaults to 0):
            Channels of the low-resolution image of a super-resolution network. `in_channels` counts them too: the
            image is upsampled and appended to the channels of `sample`.

    All other arguments: see [`UNet2DModel`].

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        center_input_sample: bool = False,
        time_embedding_type: str = "positional",
        time_embedding_dim: int | None = None,
        freq_shift: int = 0,
        flip_sin_to_cos: bool = True,
        down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        mid_block_type: str | None = "UNetMidBlock2D",
        up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        block_out_channels: tuple[int, ...] = (224, 448, 672, 896),
        layers_per_block: int = 2,
        mid_block_scale_factor: float = 1,
        downsample_padding: int = 1,
        downsample_type: str = "conv",
        upsample_type: str = "conv",
        dropout: float = 0.0,
        act_fn: str = "silu",
        attention_head_dim: int | None = 8,
        norm_num_groups: int = 32,
        attn_norm_num_groups: int | None = None,
        norm_eps: float = 1e-5,
        resnet_time_scale_shift: str = "default",
        add_attention: bool = True,
        class_embed_type: str | None = None,
        num_class_embeds: int | None = None,
        num_train_timesteps: int | None = None,
        num_attention_heads: int | None = None,
        time_projection_dim: int | None = None,
        timestep_scale: float = 1.0,
        low_res_channels: int = 0,
    ):
        if not 0 <= low_res_channels < in_channels:
            raise ValueError(
                f"`low_res_channels` must be from 0 to {in_channels - 1}, because `in_channels` counts them too, not "
                f"{low_res_channels}."
            )
        if time_projection_dim is not None and time_embedding_type != "positional":
            raise ValueError(
                f"`time_projection_dim` must not be given if `time_embedding_type` is {time_embedding_type!r}."
            )
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            center_input_sample=center_input_sample,
            time_embedding_type=time_embedding_type,
            time_embedding_dim=time_embedding_dim or 4 * (time_projection_dim or block_out_channels[0]),
            freq_shift=freq_shift,
            flip_sin_to_cos=flip_sin_to_cos,
            down_block_types=down_block_types,
            mid_block_type=mid_block_type,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            layers_per_block=layers_per_block,
            mid_block_scale_factor=mid_block_scale_factor,
            downsample_padding=downsample_padding,
            downsample_type=downsample_type,
            upsample_type=upsample_type,
            dropout=dropout,
            act_fn=act_fn,
            # None makes one head with all channels, which is split below
            attention_head_dim=attention_head_dim if num_attention_heads is None else None,
            norm_num_groups=norm_num_groups,
            attn_norm_num_groups=attn_norm_num_groups,
            norm_eps=norm_eps,
            resnet_time_scale_shift=resnet_time_scale_shift,
            add_attention=add_attention,
            class_embed_type=class_embed_type,
            num_class_embeds=num_class_embeds,
            num_train_timesteps=num_train_timesteps,
        )
        if time_projection_dim is not None:
            self.time_proj = Timesteps(time_projection_dim, flip_sin_to_cos, freq_shift)
            self.time_embedding = TimestepEmbedding(time_projection_dim, self.config.time_embedding_dim)
        if num_attention_heads is not None:
            for module in self.modules():
                if isinstance(module, Attention):
                    split_heads(module, num_attention_heads)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        class_labels: torch.Tensor | None = None,
        return_dict: bool = True,
        low_res: torch.Tensor | None = None,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels - low_res_channels, H, W)`):
                The noisy images, in a scale where clean images are in `[-1, 1]`.
            timestep (`torch.Tensor` of shape `()` or `(N,)`, `float` or `int`):
                The timestep of all images, or of each image. It can be fractional.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The classes, if the network has `num_class_embeds`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`UNet2DOutput`] instead of a tuple.
            low_res (`torch.Tensor` of shape `(N, low_res_channels, h, w)`, *optional*):
                The low-resolution images in `[-1, 1]`, of any height and width, for super-resolution networks.

        Returns:
            [`UNet2DOutput`] or `tuple`: the prediction of the network, `(N, out_channels, H, W)`.

        Raises:
            ValueError: if `low_res` is missing, not expected, or has other channels.
        """
        low_res_channels = 0 if low_res is None else low_res.shape[1]
        if low_res_channels != self.config.low_res_channels:
            raise ValueError(
                f"`low_res` must have {self.config.low_res_channels} channels, but has {low_res_channels}."
            )
        if low_res is not None:
            upsampled = F.interpolate(low_res, sample.shape[-2:], mode="bilinear")
            sample = torch.cat([sample, upsampled], dim=1)

        # as a tensor, because UNet2DModel would truncate a fractional number
        timestep = torch.as_tensor(timestep, device=sample.device)
        if self.config.timestep_scale != 1:
            timestep = timestep.float() * self.config.timestep_scale
        return super().forward(sample, timestep, class_labels, return_dict)


def split_heads(attention: Attention, heads: int) -> None:
    """Divides the channels of `attention` among `heads`. This does not change the shapes of its weights."""
    if attention.inner_dim % heads != 0:
        raise ValueError(f"{attention.inner_dim} channels cannot be divided among {heads} attention heads.")
    attention.heads = attention.sliceable_head_dim = heads
    attention.scale = (attention.inner_dim // heads) ** -0.5
