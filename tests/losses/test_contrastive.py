import math

import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.losses import contrastive_loss, sigmoid_contrastive_loss


def embeds(seed: int, count: int = 6, width: int = 5) -> torch.Tensor:
    return F.normalize(torch.randn((count, width), generator=torch.Generator().manual_seed(seed)), dim=1)


def test_it_is_the_mean_of_two_cross_entropies():
    images, texts = embeds(0), embeds(1)
    loss = contrastive_loss(images, texts, 7.0)
    logits = 7.0 * images @ texts.T
    expected = -(logits.log_softmax(1).diag() + logits.log_softmax(0).diag()) / 2
    assert loss.shape == (6,)
    torch.testing.assert_close(loss, expected)


def test_equal_captions_leave_the_logarithm_of_their_number():
    """Four pairs of two captions each: perfect embeddings can't tell which of the two equal ones belongs to which."""
    texts = torch.eye(4).repeat_interleave(2, dim=0)
    torch.testing.assert_close(contrastive_loss(texts, texts, 100.0), torch.full((8,), math.log(2)))


def test_siglip_sums_over_all_pairs():
    images, texts = embeds(0), embeds(1)
    loss = sigmoid_contrastive_loss(images, texts, 10.0, -3.0)
    logits = 10.0 * images @ texts.T - 3.0
    expected = [-sum(((1 if i == j else -1) * logits[i, j]).sigmoid().log() for j in range(6)) for i in range(6)]
    torch.testing.assert_close(loss, torch.stack(expected))


@pytest.mark.parametrize("sigmoid", [False, True])
def test_parts_of_a_global_batch_are_the_whole(sigmoid):
    images, texts = embeds(0), embeds(1)
    if sigmoid:
        whole = sigmoid_contrastive_loss(images, texts, 10.0, -3.0)
        parts = [
            sigmoid_contrastive_loss(images[rows], texts[rows], 10.0, -3.0, texts, rows.start)
            for rows in (slice(0, 2), slice(2, 6))
        ]
    else:
        whole = contrastive_loss(images, texts, 10.0)
        parts = [
            contrastive_loss(images[rows], texts[rows], 10.0, images, texts, rows.start)
            for rows in (slice(0, 2), slice(2, 6))
        ]
    torch.testing.assert_close(torch.cat(parts), whole)
