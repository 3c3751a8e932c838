"""The pulling-away term, which keeps the images of a generator different."""

import torch
import torch.nn.functional as F


def pulling_away_loss(embeddings: torch.Tensor, squared: bool = True) -> torch.Tensor:
    """The mean squared cosine of the angles between the embedding of each image and those of the others (Zhao et al.
    2017, eq. 4, https://huggingface.co/papers/1609.03126), of shape (N,).

    Args:
        embeddings (`torch.Tensor` of shape (N, D)): of generated images; N is at least 2.
        squared (`bool`): False for the cosines themselves, as in eriklindernoren/PyTorch-GAN.

    Raises:
        ValueError: for less than two embeddings.
    """
    number = len(embeddings)
    if number < 2:
        raise ValueError(f"`embeddings` must be two or more, but are {number}.")
    directions = F.normalize(embeddings.float(), dim=1)
    cosines = directions @ directions.T
    cosines = cosines.square() if squared else cosines
    return (cosines.sum(dim=1) - cosines.diagonal()) / (number - 1)
