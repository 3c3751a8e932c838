"""The losses of discriminators and generators, in the five usual forms.

A discriminator returns one logit per image, a map of logits per image (PatchGAN), or a list of such maps (several
scales). The loss of an image is the mean over its map, and then over the maps. Everything is computed in float32.

- `minimax`: the game of Goodfellow et al. (2014, eq. 1), where the discriminator returns the logit of "real";
- `nonsaturating`: the same discriminator, and a generator that maximises log D (section 3 of the same paper);
- `least_squares`: Mao et al. (2017, eq. 2), without the factor 1/2, as in pix2pix and CycleGAN;
- `hinge`: Lim and Ye (2017), Miyato et al. (2018, eq. 16-17);
- `wasserstein`: Arjovsky et al. (2017), for a critic that a regularizer keeps Lipschitz continuous.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F


AdversarialLoss = Literal["minimax", "nonsaturating", "least_squares", "hinge", "wasserstein"]
ADVERSARIAL_LOSSES = get_args(AdversarialLoss)

# The losses that compare logits with a label, which can be softened.
LABELLED_LOSSES = ("minimax", "nonsaturating", "least_squares")

Logits = torch.Tensor | Sequence[torch.Tensor]


def discriminator_loss(
    kind: str, real_logits: Logits, fake_logits: Logits, *, real_label: float = 1.0, fake_label: float = 0.0
) -> torch.Tensor:
    """The loss of the discriminator: [`real_loss`] plus [`fake_loss`], of shape (N,).

    Args:
        kind (`str`): one of `ADVERSARIAL_LOSSES`.
        real_logits, fake_logits (`torch.Tensor` of shape (N, ...), or a sequence of such tensors): for the same number
            of images.
        real_label, fake_label (`float`): the target labels of real and generated images. A softer 0.9 for real images
            is one-sided label smoothing (Salimans et al. 2016, section 3.4). hinge and wasserstein have no labels.

    Raises:
        ValueError: for another kind, and for labels of a kind that has none.
    """
    return real_loss(kind, real_logits, real_label) + fake_loss(kind, fake_logits, fake_label)


def real_loss(kind: str, logits: Logits, label: float = 1.0) -> torch.Tensor:
    """The discriminator's loss of real images, of shape (N,); see [`discriminator_loss`]."""
    _check(kind, label, 1.0)
    if kind == "hinge":
        return _per_image(logits, lambda scores: F.relu(1 - scores))
    if kind == "wasserstein":
        return _per_image(logits, torch.neg)
    return _labelled(kind, logits, label)


def fake_loss(kind: str, logits: Logits, label: float = 0.0) -> torch.Tensor:
    """The discriminator's loss of generated images, of shape (N,); see [`discriminator_loss`]."""
    _check(kind, label, 0.0)
    if kind == "hinge":
        return _per_image(logits, lambda scores: F.relu(1 + scores))
    if kind == "wasserstein":
        return _per_image(logits, lambda scores: scores)
    return _labelled(kind, logits, label)


def generator_loss(kind: str, fake_logits: Logits, *, real_label: float = 1.0) -> torch.Tensor:
    """The loss of the generator, of shape (N,).

    Args:
        kind (`str`): one of `ADVERSARIAL_LOSSES`.
        fake_logits (`torch.Tensor` of shape (N, ...), or a sequence of such tensors): the discriminator's logits for
            generated images.
        real_label (`float`): the target label; minimax, hinge and wasserstein have none.

    Raises:
        ValueError: for another kind, and for a label of a kind that has none.
    """
    if kind == "minimax":
        _check(kind, real_label, 1.0, labelled=())
        return -fake_loss(kind, fake_logits)  # log(1 - D)
    _check(kind, real_label, 1.0)
    if kind in ("hinge", "wasserstein"):
        return _per_image(fake_logits, torch.neg)
    return _labelled(kind, fake_logits, real_label)


def _labelled(kind: str, logits: Logits, label: float) -> torch.Tensor:
    if kind == "least_squares":
        return _per_image(logits, lambda scores: (scores - label).square())
    # Binary cross-entropy with logits: softplus(s) is -log(1 - D), and softplus(s) - s is -log D.
    return _per_image(logits, lambda scores: F.softplus(scores) - label * scores)


def _per_image(logits: Logits, loss: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    maps = [logits] if torch.is_tensor(logits) else logits
    means = [loss(scores.float()).flatten(1).mean(dim=1) for scores in (m.unsqueeze(-1) for m in maps)]
    return torch.stack(means).mean(dim=0)


def _check(kind: str, label: float, usual: float, labelled: Sequence[str] = LABELLED_LOSSES) -> None:
    if kind not in ADVERSARIAL_LOSSES:
        raise ValueError(f"The adversarial loss must be one of {', '.join(ADVERSARIAL_LOSSES)}, not {kind}.")
    if label != usual and kind not in labelled:
        raise ValueError(f"The {kind} loss has no label here: {label} cannot be used.")
