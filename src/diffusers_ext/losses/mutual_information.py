"""The mutual information of a structured latent code and the image made from it."""

import torch
import torch.nn.functional as F


def mutual_information_loss(prediction: torch.Tensor, code: torch.Tensor, num_categories: int) -> torch.Tensor:
    """How badly a code is read from its image: -L_I of Chen et al. (2016, "InfoGAN", eq. 5) but for a constant, (N,).

    The categorical part is read as logits: its term is the cross-entropy. Continuous parts are read as the means of
    normal distributions of unit variance: a term is half a squared error.

    Args:
        prediction (`torch.Tensor` of shape (N, num_categories + K)): logits, then means.
        code (`torch.Tensor` of shape (N, num_categories + K)): one-hot, then K numbers, the end of the latents.
        num_categories (`int`): may be 0.
    """
    prediction, code = prediction.float(), code.float()
    loss = 0.5 * (prediction[:, num_categories:] - code[:, num_categories:]).square().sum(dim=1)
    if num_categories > 0:
        category = code[:, :num_categories].argmax(dim=1)
        loss = loss + F.cross_entropy(prediction[:, :num_categories], category, reduction="none")
    return loss
