"""A classifier and features for handwritten digits, small enough to be fitted whenever they are loaded."""

import numpy as np
import torch
from datasets import Dataset
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from diffusers_ext.data.digits import DIGIT_NAMES, load_digits_dataset
from diffusers_ext.metrics.extractors.feature_extractor import FeatureOutput, to_grayscale


SIZE = 8
EPOCHS = 30
# The support vector machine scores a class by the number of duels with other classes that it wins. Multiplied by four,
# the softmax of these scores is a probability (temperature scaling, Guo et al. 2017): four gives the lowest log-loss
# on the held-out split.
LOGITS_PER_DUEL = 4.0


class DigitsExtractor:
    """A support vector machine and a perceptron, fitted on the training split of the built-in digits.

    The support vector machine classifies, and its scaled decision values are the logits. The features are the 64
    hidden units of the perceptron. No global random state is used, so each fit gives the same numbers. RGB images and
    images of other sizes are converted to 8x8 luma; strokes must be bright on a dark background.

    Attributes:
        accuracy: the accuracy of the support vector machine on the held-out split, from 0 to 1.
        feature_accuracy: the accuracy of the perceptron on the held-out split, from 0 to 1.
    """

    name = "digits"

    def __init__(self):
        self.id2label = dict(enumerate(DIGIT_NAMES))
        digits = load_digits_dataset()
        pixels, labels = _as_arrays(digits["train"])
        self.judge = SVC(C=3.0, gamma=0.2).fit(pixels, labels)
        self.network = MLPClassifier((64,), learning_rate_init=2e-3, batch_size=64, random_state=0)
        for _ in range(EPOCHS):
            self.network.partial_fit(pixels, labels, classes=self.judge.classes_)
        held_out = _as_arrays(digits["test"])
        self.accuracy = float(self.judge.score(*held_out))
        self.feature_accuracy = float(self.network.score(*held_out))

    def __call__(self, images: torch.Tensor) -> FeatureOutput:
        pixels = _as_pixels(images)
        hidden = np.maximum(pixels @ self.network.coefs_[0] + self.network.intercepts_[0], 0)
        logits = LOGITS_PER_DUEL * self.judge.decision_function(pixels)
        return FeatureOutput(
            torch.from_numpy(hidden).float().to(images.device), torch.from_numpy(logits).float().to(images.device)
        )


def _as_pixels(images: torch.Tensor) -> np.ndarray:
    """uint8 images (N, 1 or 3, H, W) as rows (N, 64) from 0 to 1."""
    images = to_grayscale(images).cpu()
    if images.shape[2:] != (SIZE, SIZE):
        images = torch.nn.functional.interpolate(images, (SIZE, SIZE), mode="bilinear", antialias=True)
    return images.flatten(1).double().numpy() / 255


def _as_arrays(split: Dataset) -> tuple[np.ndarray, np.ndarray]:
    images = torch.from_numpy(np.stack(split["image"]))
    return _as_pixels(images[:, None]), np.asarray(split["label"])
