import numpy as np
import pytest
import torch

from diffusers_ext.pipelines.labels import (
    check_class_labels_given,
    check_label_range,
    count_images,
    look_up_labels,
    read_id2label,
)


NAMES = {0: "cat", 1: "dog", 2: "cow", 3: "cow"}


@pytest.mark.parametrize(
    "labels",
    [1, "dog", np.int64(1), torch.tensor(1), ("dog",), range(1, 2), np.array(["dog"]), torch.tensor([1])],
)
def test_one_label_in_all_forms(labels):
    assert look_up_labels(labels, NAMES, 5) == [1]


def test_one_label_for_all_images_or_one_for_each():
    assert look_up_labels("dog", NAMES, 5, num_images=3) == [1, 1, 1]
    assert look_up_labels(["dog", 0, "cat"], NAMES, 5, num_images=3) == [1, 0, 0]
    with pytest.raises(ValueError, match="`class_labels` must be one label or 3, one per image, but is 2"):
        look_up_labels([0, 1], NAMES, 5, num_images=3)


@pytest.mark.parametrize(
    ("labels", "num_labels", "sentence"),
    [
        ([], 5, "is empty"),
        (True, 5, "must hold class ids"),
        (1.0, 5, "must hold class ids"),
        ([[1]], 5, "must hold class ids"),
        (-1, 5, "There is no class -1: the class ids are 0 to 3"),
        (5, 5, "There is no class 5: the class ids are 0 to 3"),
        (4, 5, "The label 4 stands for no class: leave `class_labels` out"),
        ("cow", 5, r"The name 'cow' belongs to the classes \[2, 3\]"),
        ("dgo", 5, "There is no class named 'dgo': did you mean one of 'dog'"),
        (7, None, "There is no class 7: the class ids are 0 to 3"),
    ],
)
def test_other_labels_are_refused(labels, num_labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        look_up_labels(labels, NAMES, num_labels, null_class_labels=[None, 4])


def test_labels_that_have_no_names():
    assert look_up_labels([7, 0], None, None) == [7, 0]
    with pytest.raises(ValueError, match="There is no class -1: class ids start at 0"):
        look_up_labels(-1, None, None)
    with pytest.raises(ValueError, match="cannot be looked up, because the pipeline has no `id2label`"):
        look_up_labels("dog", None, 5)


def test_names_from_json():
    assert read_id2label({"0": "cat", "1": "dog"}) == {0: "cat", 1: "dog"}
    assert read_id2label(None) is None
    with pytest.raises(ValueError, match=r"`id2label` must map class ids to names, but has the keys \['x'\]"):
        read_id2label({"x": "cat"})


def test_labels_of_a_configuration():
    check_label_range("id2label", [0, None, 4], 5)
    check_label_range("id2label", [7], None)
    with pytest.raises(ValueError, match="`id2label` has the label 5, but the network has 5 classes, from 0 on"):
        check_label_range("id2label", [5], 5)
    with pytest.raises(ValueError, match="`null_class_label` has the label -1, but class ids start at 0"):
        check_label_range("null_class_label", [-1], None)


def test_whether_labels_are_needed():
    for class_labels, has_classes, null_class_label in ((None, False, None), (None, True, 3), (1, True, None)):
        check_class_labels_given(class_labels, has_classes, null_class_label)
    for class_labels in (None, 1):
        check_class_labels_given(class_labels, None, None)
    with pytest.raises(ValueError, match="must be left out, because the base has no classes"):
        check_class_labels_given(1, False, None, "the base")
    with pytest.raises(ValueError, match="must be given, because the base has classes, .* no `null_class_label`"):
        check_class_labels_given(None, True, None, "the base")


def test_the_number_of_images():
    assert count_images(2, 3, None) == 6
    assert count_images(None, 1, None) == 1
    assert count_images(None, 1, 4) == 4
    for arguments, sentence in (
        ((2, 1, 4), "`batch_size` is for unconditional images"),
        ((None, 2, None), "`num_images_per_label` needs `class_labels`"),
        ((2, 0, None), "`num_images_per_label` must be a positive integer"),
        ((None, 1, 0), "`batch_size` must be a positive integer"),
    ):
        with pytest.raises(ValueError, match=sentence):
            count_images(*arguments)
