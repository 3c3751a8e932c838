import pytest
import torch

from diffusers_ext.metrics import classification_accuracy_score


def images(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Noise, and a bright row at the place of the class."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 60, (len(labels), 1, 4, 4), generator=generator, dtype=torch.uint8)
    noise[torch.arange(len(labels)), 0, labels] += 150
    return noise


LABELS = torch.arange(40) % 4


def test_samples_of_the_right_classes_teach_them():
    score = classification_accuracy_score(images(LABELS, 0), LABELS, images(LABELS, 1), LABELS)
    assert score["accuracy"] == 1 and score["accuracy_per_class"] == {0: 1, 1: 1, 2: 1, 3: 1}


def test_samples_of_the_wrong_classes_teach_the_wrong_ones():
    asked = torch.tensor([1, 0, 2, 3])[LABELS]  # the classes 0 and 1 are swapped
    score = classification_accuracy_score(images(LABELS, 0), asked, images(LABELS, 1), LABELS)
    assert score["accuracy_per_class"] == {0: 0, 1: 0, 2: 1, 3: 1} and score["accuracy"] == 0.5


def test_classes_without_samples_are_not_recognised():
    seen = LABELS < 3
    score = classification_accuracy_score(images(LABELS, 0)[seen], LABELS[seen], images(LABELS, 1), LABELS)
    assert score["accuracy_per_class"] == {0: 1, 1: 1, 2: 1, 3: 0}


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="needs images of two classes"):
        classification_accuracy_score(images(LABELS, 0), torch.zeros(40), images(LABELS, 1), LABELS)
    with pytest.raises(ValueError, match=r"must have one shape, not \(1, 4, 3\) and \(1, 4, 4\)"):
        classification_accuracy_score(images(LABELS, 0)[..., :3], LABELS, images(LABELS, 1), LABELS)
