"""The classes of a latent diffusion model, as vectors for the cross-attention of its U-Net."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn


class ClassEmbedder(ModelMixin, ConfigMixin):
    r"""
    Embeds the class of each image as a sequence of one vector.

    The condition of the class-conditional models of "High-Resolution Image Synthesis with Latent Diffusion Models"
    (Rombach et al. 2022, appendix E.2.2, https://huggingface.co/papers/2112.10752,
    https://github.com/CompVis/latent-diffusion), where it is trained together with the U-Net. A model for
    classifier-free guidance has one more class, the last, which stands for "no class".

    Args:
        num_class_embeds (`int`, defaults to 1000):
            The number of classes, with the one that stands for "no class".
        embed_dim (`int`, defaults to 512):
            The length of a vector: the `cross_attention_dim` of the U-Net.

    Raises:
        ValueError: if a number is not positive.
    """

    @register_to_config
    def __init__(self, num_class_embeds: int = 1000, embed_dim: int = 512):
        super().__init__()
        if min(num_class_embeds, embed_dim) < 1:
            raise ValueError(
                f"`num_class_embeds` and `embed_dim` must be positive, but are {num_class_embeds} and {embed_dim}."
            )
        self.embedding = nn.Embedding(num_class_embeds, embed_dim)

    def forward(self, class_labels: torch.Tensor) -> torch.Tensor:
        r"""
        Args:
            class_labels (`torch.Tensor` of shape `(N,)`):
                The classes, integers from 0 to `num_class_embeds - 1`.

        Returns:
            `torch.Tensor`: the embedded classes `(N, 1, embed_dim)`, which are the `encoder_hidden_states` of a U-Net.

        Raises:
            ValueError: if the labels have another shape.
        """
        if class_labels.ndim != 1:
            raise ValueError(f"`class_labels` must be of the shape (N,), but is of {tuple(class_labels.shape)}.")
        return self.embedding(class_labels)[:, None]
