"""How near painted images are to their content and to their style, beside the two images themselves."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from PIL import Image

from diffusers_ext.losses import gram_loss, gram_matrix, map_loss
from diffusers_ext.pixels import as_uint8
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.sampling import Generation


SHOWN = 6
Pairs = Iterator[tuple[torch.Tensor, torch.Tensor]]


class StyleEvaluator:
    """Measures and shows how a [`StyleTransferPipeline`] paints.

    Two distances in the features of a network: to the content, and between the Gram matrices of the style. The image
    itself has the content, and not the style; the image of the style has the style, and not the content. A painted
    image should be nearer to the content than the style is, and nearer to the style than the content is.

    Args:
        pairs (`Callable`): `pairs(process_index, num_processes)` returns batches of images and of the styles they are
            to have, float32 `(N, 3, H, W)` in `[0, 1]`.
        see (`Callable`): `see(images)` returns the map of the content, and the list of those of the style.
        context (`Context`): the device and the other processes.
        num_samples (`int`): how many images are measured.
        takes_styles (`bool`): whether the pipeline is called with the style.
        provenance (`dict`): what is reported beside the measures: the split and the network.
    """

    def __init__(
        self,
        pairs: Callable[[int, int], Pairs],
        see: Callable[[torch.Tensor], tuple[torch.Tensor, list[torch.Tensor]]],
        context: Context,
        *,
        num_samples: int,
        takes_styles: bool,
        provenance: dict,
    ):
        self.pairs, self.see, self.context = pairs, see, context
        self.num_samples, self.takes_styles, self.provenance = num_samples, takes_styles, provenance

    @torch.no_grad()
    def __call__(self, generate: Generation) -> list[dict]:
        """The mean distances of painted images, and of the images that they are made of."""
        distances = {"painted": [], "content": [], "style": []}
        for images, styles in self.context.progress(self.pairs(**self.context.share), "Painting"):
            shown = {"painted": self.paint(generate, images, styles), "content": images, "style": styles}
            seen = {name: self.see(kind.to(self.context.device)) for name, kind in shown.items()}
            grams = [gram_matrix(layer) for layer in seen["style"][1]]
            for name, (content, style) in seen.items():
                both = [map_loss(content, seen["content"][0]), gram_loss(style, grams)]
                distances[name].append(torch.stack(both, dim=1).cpu())
        rows = []
        for name, own in distances.items():
            values = self.context.gather_rows(own)[: self.num_samples].double()
            content, gram = values.mean(dim=0).tolist()
            provenance = {**self.provenance, "num_images": len(values)}
            rows.append({"image": name, "content_distance": content, "gram_distance": gram, "provenance": provenance})
        return rows

    def paint(self, generate: Generation, images: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        """The images, each in its style."""
        if not self.takes_styles:
            return generate.pipeline(images, output_type="pt").images.cpu()
        painted = [
            generate.pipeline(image, style, output_type="pt").images.cpu()
            for image, style in zip(images, styles, strict=True)
        ]
        return torch.cat(painted)

    def panel(self, generate: Generation) -> Image.Image:
        """Rows of content, style and painted image."""
        rows = ((image, style) for batch in self.pairs(0, 1) for image, style in zip(*batch, strict=True))
        images, styles = (torch.stack(list(kind)) for kind in zip(*itertools.islice(rows, SHOWN), strict=True))
        cells = torch.stack([images, styles, self.paint(generate, images, styles)], dim=1).flatten(0, 1)
        return sample_grid(as_uint8(cells * 2 - 1), 3, ["content", "style", "painted"])
