"""The built-in data set "digits": the handwritten digits of scikit-learn, which need no download."""

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from sklearn.datasets import load_digits


DIGIT_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def load_digits_dataset() -> DatasetDict:
    """1,797 handwritten digits of 8x8 pixels (Alpaydin & Kaynak 1998, as shipped with scikit-learn).

    The 17 gray levels 0..16 are scaled to 0..255 by `round(v * 255 / 16)`. The splits are fixed and stratified: in
    scikit-learn's order, the first seven of every ten images of a class are for training, and the other three for
    testing.

    Returns:
        "train" (1,266 images) and "test" (531), with the columns "image" (8x8, mode L) and "label" (zero ... nine).
    """
    digits = load_digits()
    pixels = np.round(digits.images * 255 / 16).astype(np.uint8)
    rank_in_class = np.zeros(len(pixels), dtype=int)
    for digit in range(10):
        members = np.flatnonzero(digits.target == digit)
        rank_in_class[members] = np.arange(len(members))
    is_train = rank_in_class % 10 < 7
    features = Features({"image": Image(), "label": ClassLabel(names=DIGIT_NAMES)})
    return DatasetDict(
        {
            split: Dataset.from_dict({"image": list(pixels[rows]), "label": digits.target[rows]}, features=features)
            for split, rows in (("train", is_train), ("test", ~is_train))
        }
    )
