"""How many of the classes generated images show: what a collapsed generator loses first."""

import torch

from diffusers_ext.metrics.arrays import as_matrix


CONFIDENCE = 0.8  # an image counts as recognised from this probability of its class on
FAIR_SHARE = 0.1  # a class is covered from this part of an equal share of all images on


def class_coverage(logits) -> dict[str, float]:
    """The number of classes covered, and the part of the images that are recognised.

    An image is recognised if a class has a probability above 0.8. A class is covered if at least a tenth of what would
    be an equal share of all images, and at least one, are recognised as it: of 1000 images and ten classes, ten.

    Args:
        logits: (N, K) of the images, from a classifier of K classes.

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
