"""The classification accuracy score: what a classifier that has seen only samples knows of real images."""

import torch

from diffusers_ext.metrics.accuracy import class_accuracy


CLASSIFIER = "SVC(kernel='rbf') on pixels"


def classification_accuracy_score(train_images, train_labels, test_images, test_labels) -> dict:
    """The accuracy on real images of a classifier that is trained on others (Ravuri and Vinyals 2019).

    The classifier is scikit-learn's support vector machine with Gaussian kernels on the pixels, which suits small
    images: it reaches 99% on scikit-learn's digits. The paper trains a ResNet-50.

    Args:
        train_images (`torch.Tensor` of shape (N, C, H, W)): uint8, samples, or real images for comparison.
        train_labels (`torch.Tensor` of shape (N,)): the classes that they were made for.
        test_images, test_labels: real images and their classes, (M, C, H, W) and (M,).

    Returns:
        `{"accuracy", "accuracy_balanced", "accuracy_per_class"}`: see [`class_accuracy`].

    Raises:
        ValueError: if there are no two classes to train on, or for images of other shapes.
    """
    from sklearn.svm import SVC  # importing scikit-learn takes a second

    if train_images.shape[1:] != test_images.shape[1:]:
        raise ValueError(
            f"Images to train on and to test on must have one shape, not {tuple(train_images.shape[1:])} and "
            f"{tuple(test_images.shape[1:])}."
        )
    classes = torch.as_tensor(train_labels)
    if len(classes.unique()) < 2:
        raise ValueError("The classification accuracy score needs images of two classes or more to train on.")
    rows, test_rows = (images.flatten(1).float().div(255).numpy() for images in (train_images, test_images))
    predicted = SVC(kernel="rbf").fit(rows, classes.numpy()).predict(test_rows)
    return class_accuracy(torch.from_numpy(predicted), test_labels)
