"""The latent spaces of a generator with styles: z, w (one style for all layers), w+ (one for each layer), noise."""

import torch
from diffusers.utils.accelerate_utils import apply_forward_hook

from .style_mapping import check_style_labels


STYLES_OF_AVERAGE = 10_000  # as in the reference's projector
AVERAGE_BATCH = 1_000


class StyleSpaceMixin:
    """For a generator with `mapping`, `num_styles`, `noise_shapes`, the buffer `style_average`, and layers whose
    stored noise is their buffer `noise`."""

    @apply_forward_hook
    def map_latents(self, latents: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
        """The styles `(N, style_dim)` of latents `(N, latent_dim)`, or `(N, num_styles, style_dim)` of a latent for
        each layer, which is `(N, num_styles, latent_dim)`.

        Raises:
            ValueError: if the latents or the labels do not fit the network.
        """
        latent_dim, num_styles = self.config.latent_dim, self.num_styles
        if (
            latents.shape[-1] != latent_dim
            or latents.ndim not in (2, 3)
            or latents.shape[1:-1] not in ((), (num_styles,))
        ):
            raise ValueError(
                f"`latents` must be (N, {latent_dim}) or (N, {num_styles}, {latent_dim}), but are "
                f"{tuple(latents.shape)}."
            )
        check_style_labels(class_labels, latents.shape[0], self.config.num_classes)
        if latents.ndim == 2:
            return self.mapping(latents, class_labels)
        labels = None if class_labels is None else class_labels.repeat_interleave(num_styles, dim=0)
        return self.mapping(latents.flatten(0, 1), labels).unflatten(0, latents.shape[:2])

    def broadcast_styles(self, styles: torch.Tensor) -> torch.Tensor:
        """The style of each layer, `(N, num_styles, style_dim)`, from that or from `(N, style_dim)`.

        Raises:
            ValueError: for another shape.
        """
        style_dim, num_styles = self.config.style_dim, self.num_styles
        if styles.ndim == 2 and styles.shape[1] == style_dim:
            return styles[:, None].expand(-1, num_styles, -1)
        if styles.ndim != 3 or styles.shape[1:] != (num_styles, style_dim):
            raise ValueError(
                f"`styles` must be (N, {style_dim}) or (N, {num_styles}, {style_dim}), but are {tuple(styles.shape)}."
            )
        return styles

    def layer_styles(
        self, latents: torch.Tensor | None, class_labels: torch.Tensor | None, styles: torch.Tensor | None
    ) -> torch.Tensor:
        """The style of each layer, `(N, num_styles, style_dim)`, from latents with their labels, or from styles."""
        if (latents is None) == (styles is None):
            raise ValueError("Either `latents` or `styles` must be given, and not both.")
        if styles is None:
            styles = self.map_latents(latents, class_labels)
        elif class_labels is not None:
            raise ValueError("`class_labels` are for `latents`: `styles` are mapped already.")
        return self.broadcast_styles(styles)

    def layer_noise(self, noise: str | list[torch.Tensor], number: int) -> list[torch.Tensor | None]:
        """The noise of each layer; `None` for none."""
        layers = [conv for block in self.blocks for conv in block.convs]
        if isinstance(noise, str):
            if noise not in ("constant", "none"):
                raise ValueError(f'`noise` must be "constant", "none" or a list of maps, but is {noise!r}.')
            return [None if noise == "none" else conv.noise for conv in layers]
        found, wanted = [tuple(given.shape) for given in noise], self.noise_shapes
        if len(found) != len(wanted) or any(
            shape[1:] != expected or shape[0] not in (1, number) for shape, expected in zip(found, wanted, strict=True)
        ):
            raise ValueError(f"`noise` must be maps of the shapes (N, *shape) for shape in {wanted}, but are {found}.")
        return list(noise) if wanted else [None] * len(layers)

    def truncate(self, styles: torch.Tensor, psi: float, cutoff: int | None = None) -> torch.Tensor:
        """Styles closer to their average, which make more typical and less diverse images (Karras et al. 2019, B).

        Args:
            styles (`torch.Tensor` of shape `(N, style_dim)` or `(N, num_styles, style_dim)`): the styles.
            psi (`float`): how much of their distance from the average is kept: 1 for all, 0 for none.
            cutoff (`int`, *optional*): only the styles of so many layers, from the coarsest one, are moved.

        Returns:
            `torch.Tensor` of shape `(N, num_styles, style_dim)`.
        """
        styles = self.broadcast_styles(styles)
        truncated = self.style_average.lerp(styles, psi)
        if cutoff is None:
            return truncated
        return torch.cat([truncated[:, :cutoff], styles[:, cutoff:]], dim=1)

    @torch.no_grad()
    def measure_style_average(self, seed: int = 0) -> None:
        """Sets `style_average` to the mean style of 10,000 random latents, with all classes alike."""
        generator = torch.Generator().manual_seed(seed)
        total, num_classes = 0, self.config.num_classes
        for start in range(0, STYLES_OF_AVERAGE, AVERAGE_BATCH):
            latents = torch.randn(AVERAGE_BATCH, self.config.latent_dim, generator=generator)
            labels = None
            if num_classes is not None:
                labels = (torch.arange(start, start + AVERAGE_BATCH) % num_classes).to(self.device)
            styles = self.mapping(latents.to(self.device, self.style_average.dtype), labels)
            total = total + styles.double().sum(dim=0)
        self.style_average.copy_(total / STYLES_OF_AVERAGE)
