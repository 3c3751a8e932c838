"""Relativistic discriminators, which judge how much more real one image is than another."""

import torch

from diffusers_ext.losses.adversarial import Logits


def relative_logits(logits: Logits, others: Logits) -> Logits:
    """How much more real images are than others, for the discriminator's loss of real images.

    Jolicoeur-Martineau 2019 ("The relativistic discriminator", eq. 3-4: RSGAN): the discriminator minimises
    `real_loss(kind, relative_logits(real, fake))`, and the generator `real_loss(kind, relative_logits(fake, real))`.
    Each image is compared with one other, so that the loss of an image depends on no batch. In a restoration the
    other is its own truth. (ESRGAN compares with the mean over the batch instead.)

    Args:
        logits, others (`torch.Tensor` of shape (N, ...), or a sequence of such tensors): the discriminator's logits.
    """
    if torch.is_tensor(logits):
        return logits - others
    return [own - other for own, other in zip(logits, others, strict=True)]
