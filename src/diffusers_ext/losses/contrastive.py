"""Losses of image and text embeddings: an image should be nearer to its own text than to those of other images."""

import torch
import torch.nn.functional as F


def contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor | float,
    all_image_embeds: torch.Tensor | None = None,
    all_text_embeds: torch.Tensor | None = None,
    first_row: int = 0,
) -> torch.Tensor:
    """The symmetric cross-entropy of CLIP (Radford et al. 2021, figure 3).

    Which text belongs to an image, among all texts, and which image to a text, among all images: the mean of both
    cross-entropies. If K equally frequent captions are in a batch of B pairs, the loss can't fall below ln(B / K),
    because equal captions are told apart from each other.

    Args:
        image_embeds, text_embeds (`torch.Tensor` of shape (N, D)): of unit length; row i of both is a pair.
        logit_scale (`torch.Tensor` or `float`): the inverse temperature, which cosines are multiplied by.
        all_image_embeds, all_text_embeds (`torch.Tensor` of shape (M, D), *optional*): those of the global batch,
            which the pairs are part of; by default the pairs alone.
        first_row (`int`): where the pairs begin in the global batch.

    Returns:
        `torch.Tensor` of shape (N,), float32: one value per pair.
    """
    all_images = image_embeds if all_image_embeds is None else all_image_embeds
    all_texts = text_embeds if all_text_embeds is None else all_text_embeds
    own = torch.arange(first_row, first_row + len(image_embeds), device=image_embeds.device)
    per_image = logit_scale * image_embeds.float() @ all_texts.float().T
    per_text = logit_scale * text_embeds.float() @ all_images.float().T
    return (F.cross_entropy(per_image, own, reduction="none") + F.cross_entropy(per_text, own, reduction="none")) / 2


def sigmoid_contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor | float,
    logit_bias: torch.Tensor | float,
    all_text_embeds: torch.Tensor | None = None,
    first_row: int = 0,
) -> torch.Tensor:
    """The sigmoid loss of SigLIP (Zhai et al. 2023, algorithm 1): is this text that of this image, yes or no.

    Args:
        image_embeds, text_embeds (`torch.Tensor` of shape (N, D)): of unit length; row i of both is a pair.
        logit_scale (`torch.Tensor` or `float`): the inverse temperature.
        logit_bias (`torch.Tensor` or `float`): added to all logits; it starts low, because few pairs belong together.
        all_text_embeds (`torch.Tensor` of shape (M, D), *optional*): the texts of the global batch.
        first_row (`int`): where the pairs begin in the global batch.

    Returns:
        `torch.Tensor` of shape (N,), float32: for each image, the sum over all texts.
    """
    all_texts = text_embeds if all_text_embeds is None else all_text_embeds
    logits = logit_scale * image_embeds.float() @ all_texts.float().T + logit_bias
    own = torch.arange(first_row, first_row + len(image_embeds), device=image_embeds.device)
    signs = 2 * F.one_hot(own, len(all_texts)) - 1
    return -F.logsigmoid(signs * logits).sum(dim=1)
