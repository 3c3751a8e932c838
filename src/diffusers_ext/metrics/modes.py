"""Class coverage: how many classes appear among generated images. A collapsing generator loses classes first."""

import torch

from diffusers_ext.metrics.arrays import as_matrix


CONFIDENCE = 0.8  # an image is recognised if the probability of its class is above this
FAIR_SHARE = 0.1  # a class is covered if it has at least this fraction of an equal share of all images


def class_coverage(logits) -> dict[str, float]:
    """The number of covered classes, and the fraction of recognised images.

    An image is recognised if a class has a probability above 0.8. A class is covered if at least one image is
    recognised as this class, and at least a tenth of an equal share of all images: 10 images for 1000 images of ten
    classes.

    Args:
        logits: (N, K), from a classifier of K classes.

    Returns:
        `{"classes_covered", "recognised"}`: from 0 to K, and from 0 to 1.

    Raises:
        ValueError: for logits that are not finite.
    """
    matrix = as_matrix(logits, "The logits")
    count, num_classes = matrix.shape
    probabilities, classes = matrix.softmax(dim=1).max(dim=1)
    recognised = probabilities > CONFIDENCE
    counts = torch.bincount(classes[recognised], minlength=num_classes)
    least = max(1.0, FAIR_SHARE * count / num_classes)
    return {"classes_covered": float((counts >= least).sum()), "recognised": recognised.double().mean().item()}
