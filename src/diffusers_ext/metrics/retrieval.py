"""How well embeddings of images and texts find each other, and what a linear classifier reads from them."""

import numpy as np
import torch

from diffusers_ext.metrics.arrays import as_matrix


def retrieval_recall(similarities, matches, k: int) -> float:
    """The share of queries for which one of the `k` most similar candidates is right.

    Args:
        similarities: (N, M), of each query with each candidate.
        matches: bool (N, M), which candidates are right; at least one for each query.
        k (`int`): how many candidates count.

    Raises:
        ValueError: for different shapes, a query without a right candidate, or more candidates than there are.
    """
    similarities, matches = as_matrix(similarities, "The similarities"), torch.as_tensor(matches).cpu()
    if similarities.shape != matches.shape:
        raise ValueError(f"There are {tuple(similarities.shape)} similarities, but {tuple(matches.shape)} matches.")
    if not matches.any(dim=1).all():
        raise ValueError("Each query must have at least one right candidate.")
    if not 1 <= k <= similarities.shape[1]:
        raise ValueError(f"k must be from 1 to {similarities.shape[1]}, the number of candidates, not {k}.")
    best = torch.as_tensor(similarities).topk(k, dim=1).indices
    return matches.gather(1, best).any(dim=1).double().mean().item()


def linear_probe_accuracy(features, labels, test_features, test_labels, inverse_penalty: float = 1.0) -> float:
    """The accuracy of a logistic regression on standardised features (Radford et al. 2021, appendix A.3).

    Args:
        features, labels: (N, D) and (N,), to fit it on.
        test_features, test_labels: (M, D) and (M,), to measure it on.
        inverse_penalty (`float`): the inverse of the strength of its L2 penalty.
    """
    from sklearn.linear_model import LogisticRegression  # importing scikit-learn takes a second

    features, test_features = (np.asarray(as_matrix(values, "The features")) for values in (features, test_features))
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-8
    classifier = LogisticRegression(C=inverse_penalty, max_iter=1000)
    classifier.fit((features - mean) / std, np.asarray(labels))
    return float(classifier.score((test_features - mean) / std, np.asarray(test_labels)))
