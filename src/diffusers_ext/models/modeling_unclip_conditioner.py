"""What the decoder of DALL-E 2 is told about an image and its caption."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import nn


@dataclass
class UnCLIPConditionerOutput(BaseOutput):
    """
    The conditions of a [`UNet2DConditionModel`] with `class_embed_type="identity"`, by the names of its arguments.

    Args:
        class_labels (`torch.Tensor` of shape `(N, time_embed_dim)`):
            What is added to the embedding of the timestep.
        encoder_hidden_states (`torch.Tensor` of shape `(N, clip_extra_context_tokens + L, cross_attention_dim)`):
            The context of its attention: tokens of the image's embedding, then those of the text.
        encoder_attention_mask (`torch.Tensor` of shape `(N, clip_extra_context_tokens + L)`):
            `True` for what is no padding.
    """

    class_labels: torch.Tensor
    encoder_hidden_states: torch.Tensor
    encoder_attention_mask: torch.Tensor


class UnCLIPConditioner(ModelMixin, ConfigMixin):
    r"""
    Makes the conditions of a decoder of CLIP's embeddings, of images and, where they are given, of captions.

    "Hierarchical Text-Conditional Image Generation with CLIP Latents" (Ramesh et al. 2022, section 2.1,
    https://huggingface.co/papers/2204.06125), as in https://github.com/kakaobrain/karlo. Configuration and weights
    have the names of diffusers' `UnCLIPTextProjModel`, which pipelines can't save and load by itself.

    Args:
        clip_extra_context_tokens (`int`, defaults to 4):
            How many tokens of context the embedding of the image becomes.
        clip_embeddings_dim (`int`, defaults to 768):
            The width of CLIP's embeddings, and of the states of its text tokens.
        time_embed_dim (`int`, defaults to 1280):
            The width of the decoder's embedding of timesteps.
        cross_attention_dim (`int`, defaults to 1536):
            The width of the decoder's context.

    Raises:
        ValueError: if a number is not positive.
    """

    @register_to_config
    def __init__(
        self,
        clip_extra_context_tokens: int = 4,
        clip_embeddings_dim: int = 768,
        time_embed_dim: int = 1280,
        cross_attention_dim: int = 1536,
    ):
        super().__init__()
        for name, value in self.config.items():
            if not name.startswith("_") and value < 1:
                raise ValueError(f"`{name}` must be positive, but is {value}.")
        self.learned_classifier_free_guidance_embeddings = nn.Parameter(torch.zeros(clip_embeddings_dim))
        self.embedding_proj = nn.Linear(clip_embeddings_dim, time_embed_dim)
        self.clip_image_embeddings_project_to_time_embeddings = nn.Linear(clip_embeddings_dim, time_embed_dim)
        self.clip_extra_context_tokens_proj = nn.Linear(
            clip_embeddings_dim, clip_extra_context_tokens * cross_attention_dim
        )
        self.encoder_hidden_states_proj = nn.Linear(clip_embeddings_dim, cross_attention_dim)
        self.text_encoder_hidden_states_norm = nn.LayerNorm(cross_attention_dim)

    def forward(
        self,
        image_embeds: torch.Tensor,
        prompt_embeds: torch.Tensor,
        hidden_states: torch.Tensor,
        mask: torch.Tensor,
        is_hidden: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> UnCLIPConditionerOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            image_embeds (`torch.Tensor` of shape `(N, clip_embeddings_dim)`):
                CLIP's embeddings of images, of any length.
            prompt_embeds (`torch.Tensor` of shape `(N, clip_embeddings_dim)`):
                CLIP's embeddings of captions, which may be empty.
            hidden_states (`torch.Tensor` of shape `(N, L, clip_embeddings_dim)`):
                The states of their tokens.
            mask (`torch.Tensor` of shape `(N, L)`):
                `True` for tokens, `False` for padding.
            is_hidden (`torch.Tensor` of shape `(N,)`, *optional*):
                `True` where a learned embedding replaces that of the image, for classifier-free guidance.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`UnCLIPConditionerOutput`] instead of a tuple.

        Returns:
            [`UnCLIPConditionerOutput`] or `tuple`: the conditions in the order of its fields.

        Raises:
            ValueError: if the embeddings have another width.
        """
        width = self.config.clip_embeddings_dim
        for name, embeds in (("image_embeds", image_embeds), ("prompt_embeds", prompt_embeds)):
            if embeds.ndim != 2 or embeds.shape[1] != width:
                raise ValueError(f"`{name}` must be of the shape (N, {width}), but is of {tuple(embeds.shape)}.")
        if is_hidden is not None:
            learned = self.learned_classifier_free_guidance_embeddings
            image_embeds = torch.where(is_hidden[:, None], learned, image_embeds)
        class_labels = self.clip_image_embeddings_project_to_time_embeddings(image_embeds)
        class_labels = class_labels + self.embedding_proj(prompt_embeds)

        # the tokens of karlo alternate in the channels of the projection
        num_tokens = self.config.clip_extra_context_tokens
        image_tokens = self.clip_extra_context_tokens_proj(image_embeds).unflatten(1, (-1, num_tokens)).mT
        text_tokens = self.text_encoder_hidden_states_norm(self.encoder_hidden_states_proj(hidden_states))
        context = torch.cat([image_tokens, text_tokens], dim=1)
        mask = F.pad(mask, (num_tokens, 0), value=True)
        output = UnCLIPConditionerOutput(class_labels, context, mask)
        return output if return_dict else output.to_tuple()
