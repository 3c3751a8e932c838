"""The latent mapper of StyleCLIP: from the styles of an image to those that make it fit a prompt."""

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn

from .disk_offloading import DiskOffloadMixin
from .equalized_layers import EqualizedLinear, activate, normalize_length
from .gan_checks import check_positive


# The styles of each level, from coarse to fine: poses and shapes, parts of faces, colours.
LEVEL_ROWS = {"coarse": slice(0, 4), "medium": slice(4, 8), "fine": slice(8, None)}


@dataclass
class LatentMapperOutput(BaseOutput):
    """
    The output of [`LatentMapper`].

    Args:
        offsets (`torch.Tensor` of shape `(N, num_styles, style_dim)`):
            What is to be added to the styles, times a strength (0.1 in the paper).
    """

    offsets: torch.Tensor


class LatentMapper(DiskOffloadMixin, ModelMixin, ConfigMixin):
    r"""
    Predicts, from the styles of an image, how they change so that the image fits one prompt.

    The latent mapper of "StyleCLIP: Text-Driven Manipulation of StyleGAN Imagery" (Patashnik et al. 2021, section 5,
    https://huggingface.co/papers/2103.17249), as in orpatashnik/StyleCLIP: a network of dense layers for each level of
    styles, the first four, the next four, and all others.

    Args:
        num_styles (`int`, defaults to 18), style_dim (`int`, defaults to 512):
            How many styles an image has, and their length, as in [`StyleGAN2Generator`].
        levels (`tuple[str, ...]`, *optional*):
            The levels that are changed, `"coarse"`, `"medium"` and `"fine"`; by default all that there are. The styles
            of the others stay as they are.
        num_layers (`int`, defaults to 4):
            How many dense layers a level has.
        lr_multiplier (`float`, defaults to 0.01):
            How fast they learn, compared with other layers.

    Raises:
        ValueError: for an unknown level, or one that so few styles do not have.
    """

    @register_to_config
    def __init__(
        self,
        num_styles: int = 18,
        style_dim: int = 512,
        levels: tuple[str, ...] | None = None,
        num_layers: int = 4,
        lr_multiplier: float = 0.01,
    ):
        super().__init__()
        check_positive(num_styles=num_styles, style_dim=style_dim, num_layers=num_layers)
        known = [level for level, rows in LEVEL_ROWS.items() if rows.start < num_styles]
        levels = known if levels is None else levels
        if not levels or len(set(levels)) < len(levels) or not set(levels) <= set(known):
            raise ValueError(
                f"`levels` must be one or more of {', '.join(known)}, which {num_styles} styles have, but are "
                f"{', '.join(levels) or 'none'}."
            )
        self.mappers = nn.ModuleDict(
            {
                level: nn.ModuleList(
                    EqualizedLinear(style_dim, style_dim, lr_multiplier=lr_multiplier) for _ in range(num_layers)
                )
                for level in levels
            }
        )

    def forward(self, styles: torch.Tensor, return_dict: bool = True) -> LatentMapperOutput | tuple[torch.Tensor]:
        r"""
        Args:
            styles (`torch.Tensor` of shape `(N, num_styles, style_dim)`):
                The styles w+ of images.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`LatentMapperOutput`] instead of a tuple.

        Returns:
            [`LatentMapperOutput`] or `tuple`: the offsets `(N, num_styles, style_dim)`.

        Raises:
            ValueError: if the styles do not fit the network.
        """
        wanted = (self.config.num_styles, self.config.style_dim)
        if styles.ndim != 3 or tuple(styles.shape[1:]) != wanted:
            raise ValueError(f"`styles` must be (N, {wanted[0]}, {wanted[1]}), but are {tuple(styles.shape)}.")
        offsets = torch.zeros_like(styles)
        for level, layers in self.mappers.items():
            rows = LEVEL_ROWS[level]
            # The original normalizes along the styles of the level, and not along the numbers of each style.
            hidden_states = normalize_length(styles[:, rows])
            for layer in layers:
                hidden_states = activate(layer(hidden_states))
            offsets[:, rows] = hidden_states
        return LatentMapperOutput(offsets=offsets) if return_dict else (offsets,)
