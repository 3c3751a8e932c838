"""The convolutional encoder and decoder of VQ-VAE and VQ-VAE-2."""

import torch
import torch.nn.functional as F
from torch import nn


class ResidualBlock(nn.Module):
    """ReLU, 3x3 convolution, ReLU, 1x1 convolution, plus the input (van den Oord et al. 2017, section 4.1)."""

    def __init__(self, channels: int, residual_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, residual_channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(residual_channels, channels, kernel_size=1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        residual = self.conv1(F.relu(hidden_states))
        return hidden_states + self.conv2(F.relu(residual))


class ConvEncoder(nn.Module):
    """Convolutions that halve the image `num_downsamples` times, then residual blocks."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        num_downsamples: int,
        num_residual_layers: int,
        residual_channels: int,
    ):
        super().__init__()
        widths = [in_channels, hidden_channels // 2] + [hidden_channels] * (num_downsamples - 1)
        self.down_convs = nn.ModuleList(
            nn.Conv2d(width_in, width_out, kernel_size=4, stride=2, padding=1)
            for width_in, width_out in zip(widths[:-1], widths[1:], strict=True)
        )
        self.conv_out = nn.Conv2d(widths[-1], hidden_channels, kernel_size=3, padding=1)
        self.residual_blocks = nn.ModuleList(
            ResidualBlock(hidden_channels, residual_channels) for _ in range(num_residual_layers)
        )
        self.gradient_checkpointing = False

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for conv in self.down_convs:
            hidden_states = F.relu(conv(hidden_states))
        hidden_states = self.conv_out(hidden_states)
        for block in self.residual_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states)
            else:
                hidden_states = block(hidden_states)
        return F.relu(hidden_states)


class ConvDecoder(nn.Module):
    """Residual blocks, then transposed convolutions that double the map `num_upsamples` times."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int,
        num_upsamples: int,
        num_residual_layers: int,
        residual_channels: int,
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, hidden_channels, kernel_size=3, padding=1)
        self.residual_blocks = nn.ModuleList(
            ResidualBlock(hidden_channels, residual_channels) for _ in range(num_residual_layers)
        )
        widths = [hidden_channels] * max(1, num_upsamples - 1) + [hidden_channels // 2] * (num_upsamples > 1)
        self.up_convs = nn.ModuleList(
            nn.ConvTranspose2d(width_in, width_out, kernel_size=4, stride=2, padding=1)
            for width_in, width_out in zip(widths, widths[1:] + [out_channels], strict=True)
        )
        self.gradient_checkpointing = False

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.conv_in(hidden_states)
        for block in self.residual_blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden_states = self._gradient_checkpointing_func(block, hidden_states)
            else:
                hidden_states = block(hidden_states)
        hidden_states = F.relu(hidden_states)
        for conv in self.up_convs[:-1]:
            hidden_states = F.relu(conv(hidden_states))
        return self.up_convs[-1](hidden_states)


def initialize_as_sonnet(module: nn.Module) -> None:
    """Zero biases, and normal weights with Sonnet's standard deviation 1 / sqrt(fan_in).

    With smaller weights, the biases would outweigh the image.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        nn.init.zeros_(module.bias)
