"""How well a score tells strange images from usual ones, as a row of a table."""

from collections.abc import Callable, Iterable

import torch

from diffusers_ext.metrics import auroc


def outlier_row(
    score: Callable[[torch.Tensor], torch.Tensor],
    name: str,
    batches: Iterable[dict[str, torch.Tensor]],
    *,
    gather: Callable[[list[torch.Tensor]], torch.Tensor] = torch.cat,
) -> dict:
    """The area under the ROC curve for three kinds of strange images that are made from usual ones, ready for JSON.

    Inverted images have ink where usual ones never have, which is easy to see. Images that are blended with their own
    mirror image look like two at once, and are harder.

    Args:
        score: from images (B, C, H, W) in [0, 1] to scores (B,), of which a high one means strange, as an energy does.
        name: what the score is called.
        batches: the images of this process: `dataset.reference_batches(...)`, with "pixel_values" in uint8.
        gather: joins the tensors (B,) of all processes, in the order of the set.

    Returns:
        `dict`: `name` is the mean over the images, and `outlier_auroc` the area for each kind.
    """
    usual, strange = [], {kind: [] for kind in OUTLIERS}
    for batch in batches:
        images = batch["pixel_values"].float() / 255
        usual.append(score(images))
        for kind, make in OUTLIERS.items():
            strange[kind].append(score(make(images)))
    usual = gather(usual)
    return {
        name: usual.double().mean().item(),
        "outlier_auroc": {kind: auroc(usual, gather(scores)) for kind, scores in strange.items()},
        "provenance": {"num_images": len(usual)},
    }


OUTLIERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "inverted": lambda images: 1 - images,
    "upside down": lambda images: images.flip(2),
    "blended with its mirror image": lambda images: (images + images.flip(3)) / 2,
}
