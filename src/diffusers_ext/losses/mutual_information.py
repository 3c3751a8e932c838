"""InfoGAN's loss: the mutual information between a latent code and the image that is generated from it."""

import torch
import torch.nn.functional as F


def mutual_information_loss(prediction: torch.Tensor, code: torch.Tensor, num_categories: int) -> torch.Tensor:
    """The error of a code that is predicted from its image, of shape (N,).

    It is -L_I of Chen et al. (2016, "InfoGAN", eq. 5) up to a constant. The categorical part is predicted by logits,
    and its loss is the cross-entropy. The continuous parts are predicted by the means of normal distributions with
    unit variance, and their loss is half the squared error.

    Args:
        prediction (`torch.Tensor` of shape (N, num_categories + K)): logits, then means.
        code (`torch.Tensor` of shape (N, num_categories + K)): a one-hot vector, then K numbers; the end of the
            latents.
        num_categories (`int`): the number of categories, which can be 0.
    """
    prediction, code = prediction.float(), code.float()
    loss = 0.5 * (prediction[:, num_categories:] - code[:, num_categories:]).square().sum(dim=1)
    if num_categories > 0:
        category = code[:, :num_categories].argmax(dim=1)
        loss = loss + F.cross_entropy(prediction[:, :num_categories], category, reduction="none")
    return loss
