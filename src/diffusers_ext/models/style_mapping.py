"""The mapping network of StyleGANs: from latents and classes to styles."""

import torch
import torch.nn.functional as F
from torch import nn

from .equalized_layers import EqualizedLinear, activate, normalize_length


class StyleMapping(nn.Module):
    r"""
    Maps latents z to styles w by dense layers (Karras et al. 2019, section 2, https://huggingface.co/papers/1812.04948).

    Args:
        latent_dim (`int`): the length of a latent; 0 for a mapping of classes alone.
        style_dim (`int`): the length of a style.
        num_layers (`int`): how many dense layers.
        hidden_dim (`int`, *optional*, defaults to `style_dim`): the width of all layers but the last.
        num_classes (`int`, *optional*): the number of classes, or the length of a label of real numbers.
        class_embed_dim (`int`, *optional*, defaults to `style_dim`): the length of the embedding of a label.
        lr_multiplier (`float`, defaults to 0.01): how fast the dense layers learn, compared with other layers.
        activation (`str`, defaults to `"lrelu"`): one of `EQUALIZED_ACTIVATIONS`.
    """

    def __init__(
        self,
        latent_dim: int,
        style_dim: int,
        num_layers: int = 8,
        hidden_dim: int | None = None,
        num_classes: int | None = None,
        class_embed_dim: int | None = None,
        lr_multiplier: float = 0.01,
        activation: str = "lrelu",
    ):
        super().__init__()
        self.activation, self.num_classes, width = activation, num_classes, latent_dim
        if num_classes is not None:
            self.class_embedding = EqualizedLinear(num_classes, class_embed_dim or style_dim)
            width += class_embed_dim or style_dim
        self.layers = nn.ModuleList()
        for position in range(num_layers):
            out_width = style_dim if position == num_layers - 1 else hidden_dim or style_dim
            self.layers.append(EqualizedLinear(width, out_width, lr_multiplier=lr_multiplier))
            width = out_width

    def forward(self, latents: torch.Tensor | None = None, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*): of any length, which is normalized.
            class_labels (`torch.Tensor` of shape `(N,)` or `(N, num_classes)`, *optional*): class ids, or labels of
                real numbers, in place of one-hot vectors.

        Returns:
            `torch.Tensor` of shape `(N, style_dim)`: styles.
        """
        parts = [] if latents is None else [normalize_length(latents)]
        if self.num_classes is not None:
            if not class_labels.is_floating_point():
                class_labels = F.one_hot(class_labels.long(), self.num_classes)
            embedded = self.class_embedding(class_labels.to(self.class_embedding.weight.dtype))
            parts.append(normalize_length(embedded))
        hidden_states = torch.cat(parts, dim=1)
        for layer in self.layers:
            hidden_states = activate(layer(hidden_states), self.activation)
        return hidden_states


def check_style_labels(class_labels: torch.Tensor | None, num_samples: int, num_classes: int | None) -> None:
    """Refuses labels that a mapping cannot use. Values are only checked on the CPU, where it costs nothing."""
    if num_classes is None:
        if class_labels is not None:
            raise ValueError("`class_labels` are given, but the network takes none: its `num_classes` is None.")
        return
    if class_labels is None:
        raise ValueError(f"`class_labels` must be given, because the network is conditional on {num_classes} classes.")
    if class_labels.shape != ((num_samples, num_classes) if class_labels.is_floating_point() else (num_samples,)):
        raise ValueError(
            f"`class_labels` must be integers of the shape ({num_samples},), or real numbers of the shape "
            f"({num_samples}, {num_classes}), but are {class_labels.dtype} of the shape {tuple(class_labels.shape)}."
        )
    is_checked = class_labels.device.type == "cpu" and not torch.compiler.is_compiling()
    if is_checked and not class_labels.is_floating_point():
        outside = class_labels[(class_labels < 0) | (class_labels >= num_classes)]
        if len(outside) > 0:
            raise ValueError(f"`class_labels` must be from 0 to {num_classes - 1}, but hold {outside[0]}.")
