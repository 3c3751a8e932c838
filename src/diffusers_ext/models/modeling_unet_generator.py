"""The generator of pix2pix: a U-Net from images to images."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .translation_layers import NORMALIZATIONS, initialize_weights, normalization_layer


class UNetGenerator(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Generates an image from an image of the same size, by an encoder and a decoder with skip connections.

    The generator of pix2pix: "Image-to-Image Translation with Conditional Adversarial Networks" (Isola et al. 2017,
    section 3.2.1 and appendix 6.1.1, https://huggingface.co/papers/1611.07004; `UnetGenerator` in
    https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix). Its only random input is dropout, unless it has latents,
    with which an image has many translations: they are further channels of the input, equal at all pixels, as in
    BicycleGAN (Zhu et al. 2017, "Toward Multimodal Image-to-Image Translation", section 4,
    https://huggingface.co/papers/1711.11586: "add to input"). The defaults are those for images of 256 pixels.

    Height and width can be any multiples of [`~UNetGenerator.stride`], which is 2 to the power of the number of
    levels.

    Args:
        sample_size (`int` or `tuple[int, int]`, *optional*):
            Height and width of the training images, for information only: the network can process other sizes.
        in_channels, out_channels (`int`, defaults to 3):
            Channels of the input and output images.
        block_out_channels (`tuple[int]`):
            The channels of each level. Each level halves the image.
        normalization (`str`, defaults to `"batch"`):
            `"batch"`, `"instance"` (without parameters) or `"none"`.
        dropout (`float`, defaults to 0.5):
            The dropout probability in `num_dropout_layers` layers of the decoder.
        num_dropout_layers (`int`, defaults to 3):
            The number of layers with dropout, starting from the second innermost, as far as there are as many.
        latent_dim (`int`, *optional*):
            The length of the latents; by default there are none.

    Raises:
        ValueError: if an argument is out of range.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["DownLayer", "UpLayer"]

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] | None = None,
        in_channels: int = 3,
        out_channels: int = 3,
        block_out_channels: tuple[int, ...] = (64, 128, 256, 512, 512, 512, 512, 512),
        normalization: str = "batch",
        dropout: float = 0.5,
        num_dropout_layers: int = 3,
        latent_dim: int | None = None,
    ):
        super().__init__()
        if in_channels < 1 or out_channels < 1 or not block_out_channels or min(block_out_channels) < 1:
            raise ValueError(
                "`in_channels`, `out_channels` and at least one of `block_out_channels` must be positive, but are "
                f"{in_channels}, {out_channels} and {block_out_channels}."
            )
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"`normalization` must be one of {NORMALIZATIONS}, but is {normalization!r}.")
        if not 0 <= dropout < 1 or num_dropout_layers < 0:
            raise ValueError(
                f"`dropout` must be in [0, 1) and `num_dropout_layers` at least 0, but are {dropout} and "
                f"{num_dropout_layers}."
            )

        if latent_dim is not None and latent_dim < 1:
            raise ValueError(f"`latent_dim` must be at least 1 or None, but is {latent_dim}.")

        # 1. down; the first map is not normalized, nor is the innermost one, which may be a single pixel
        widths, levels = list(block_out_channels), len(block_out_channels)
        self.conv_in = nn.Conv2d(in_channels + (latent_dim or 0), widths[0], 4, stride=2, padding=1)
        self.down_layers = nn.ModuleList(
            DownLayer(widths[level - 1], widths[level], "none" if level == levels - 1 else normalization)
            for level in range(1, levels)
        )

        # 2. up, from the innermost level; the input of each layer except the first includes the map of its own level
        self.up_layers = nn.ModuleList()
        for position, level in enumerate(reversed(range(1, levels))):
            width = widths[level] if position == 0 else 2 * widths[level]
            is_dropping = 0 < position <= num_dropout_layers
            self.up_layers.append(UpLayer(width, widths[level - 1], normalization, dropout if is_dropping else 0.0))
        self.conv_out = nn.ConvTranspose2d(
            widths[0] if levels == 1 else 2 * widths[0], out_channels, 4, stride=2, padding=1
        )

        self.gradient_checkpointing = False
        self.apply(initialize_weights)

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** len(self.config.block_out_channels)

    def _run(self, layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(layer, hidden_states)
        return layer(hidden_states)

    def forward(
        self, sample: torch.Tensor, latents: torch.Tensor | None = None, return_dict: bool = True
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                The images to translate, in `[-1, 1]`.
            latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
                Standard normal; for networks with `latent_dim`, and no others.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`~models.unets.unet_2d.UNet2DOutput`] instead of a tuple.

        Returns:
            [`~models.unets.unet_2d.UNet2DOutput`] or `tuple`: the `sample` `(N, out_channels, H, W)`, in `[-1, 1]`.

        Raises:
            ValueError: for another number of channels, latents of another shape, and if height or width is not a
                multiple of `stride`.
        """
        if sample.ndim != 4 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"`sample` must be of the shape (N, {self.config.in_channels}, H, W), but is of {tuple(sample.shape)}."
            )
        if any(side % self.stride != 0 for side in sample.shape[-2:]):
            raise ValueError(
                f"`sample` must have a height and a width that are multiples of {self.stride}, because the network "
                f"halves it {len(self.config.block_out_channels)} times, but is of the size "
                f"{tuple(sample.shape[-2:])}."
            )

        expected = None if self.config.latent_dim is None else (len(sample), self.config.latent_dim)
        found = None if latents is None else tuple(latents.shape)
        if found != expected:
            raise ValueError(f"The shape of `latents` must be {expected} for this network, but is {found}.")

        # 1. down
        if latents is not None:
            sample = torch.cat([sample, latents[:, :, None, None].expand(-1, -1, *sample.shape[2:])], dim=1)
        hidden_states = self.conv_in(sample)
        skips = []
        for layer in self.down_layers:
            skips.append(hidden_states)
            hidden_states = self._run(layer, hidden_states)

        # 2. up
        for layer in self.up_layers:
            hidden_states = self._run(layer, hidden_states)
            hidden_states = torch.cat([skips.pop(), hidden_states], dim=1)
        sample = torch.tanh(self.conv_out(F.relu(hidden_states)))

        if not return_dict:
            return (sample,)
        return UNet2DOutput(sample=sample)


class DownLayer(nn.Module):
    """
    Halves a map: leaky ReLU, convolution, and normalization.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        normalization (`str`): `"batch"`, `"instance"` or `"none"`.
    """

    def __init__(self, in_channels: int, out_channels: int, normalization: str):
        super().__init__()
        # A normalization would cancel a bias.
        self.conv = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=normalization == "none")
        self.norm = normalization_layer(normalization, out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, H / 2, W / 2)`."""
        return self.norm(self.conv(F.leaky_relu(hidden_states, 0.2)))


class UpLayer(nn.Module):
    """
    Doubles a map: ReLU, transposed convolution, normalization, and dropout.

    Args:
        in_channels, out_channels (`int`): The channels before and after.
        normalization (`str`): `"batch"`, `"instance"` or `"none"`.
        dropout (`float`): The dropout probability.
    """

    def __init__(self, in_channels: int, out_channels: int, normalization: str, dropout: float):
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=normalization == "none")
        self.norm = normalization_layer(normalization, out_channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """From `(N, in_channels, H, W)` to `(N, out_channels, 2 * H, 2 * W)`."""
        return self.dropout(self.norm(self.conv(F.relu(hidden_states))))
