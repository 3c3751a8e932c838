"""Sampling a diffusion prior: embeddings of images from those of prompts (Ramesh et al. 2022, section 2.2)."""

from collections.abc import Callable
from functools import partial

import torch
from diffusers import BaseGuidance, ModelMixin, SchedulerMixin
from transformers import CLIPTextModelWithProjection

from .clip_embeddings import PromptEmbeddings
from .denoising import predict, run_network
from .schedules import get_step_arguments, scale_input, set_timesteps


def check_prior(prior: ModelMixin, text_encoder: CLIPTextModelWithProjection):
    """Refuses a prior for a CLIP of other widths, or for texts of another length."""
    config, clip = prior.config, text_encoder.config
    widths = {"embeddings": clip.projection_dim, "token states": clip.hidden_size}
    for what, width in widths.items():
        if config.embedding_dim != width:
            raise ValueError(
                f"The prior is for another CLIP: it works with {config.embedding_dim} channels, but the {what} of "
                f"this CLIP have {width}."
            )
    if config.num_embeddings != clip.max_position_embeddings:
        raise ValueError(
            f"The prior is for another CLIP: it reads texts of {config.num_embeddings} tokens, but this CLIP makes "
            f"{clip.max_position_embeddings}."
        )


def sample_image_embeds(
    prior: ModelMixin,
    scheduler: SchedulerMixin,
    guider: BaseGuidance,
    text: PromptEmbeddings,
    empty_text: PromptEmbeddings,
    latents: torch.Tensor,
    num_inference_steps: int,
    generator: torch.Generator | list[torch.Generator] | None,
    progress_bar: Callable,
) -> torch.Tensor:
    """
    Embeddings of images for N prompts, `(N, D)`: of K candidates each, the one nearest to the embedding of the prompt.

    Args:
        prior ([`PriorTransformer`] or [`MultiQueryPriorTransformer`]): predicts the standardised embedding.
        scheduler ([`SchedulerMixin`]): the noise schedule and the solver.
        guider ([`BaseGuidance`]): combines the predictions for `text` and `empty_text`.
        text, empty_text (`PromptEmbeddings`): N prompts, and N empty ones.
        latents (`torch.Tensor` of shape `(N, K, D)`): noise of unit variance, float32.
        num_inference_steps (`int`): the number of steps.
        generator (`torch.Generator` or a list of N, *optional*): makes the noise of steps.
        progress_bar (`Callable`): the pipeline's method.
    """
    if getattr(prior, "hides_prompts_by_mask", False):
        empty_text = empty_text._replace(mask=torch.zeros_like(empty_text.mask))
    count, num_candidates, width = latents.shape
    text, empty_text = text.repeat(num_candidates), empty_text.repeat(num_candidates)
    conditions = {
        "proj_embedding": (text.embeds, empty_text.embeds),
        "encoder_hidden_states": (text.hidden_states, empty_text.hidden_states),
        "attention_mask": (text.mask, empty_text.mask),
    }
    timesteps = set_timesteps(scheduler, latents.device, num_inference_steps)
    step_arguments = get_step_arguments(scheduler, generator=generator)
    forward = partial(run_network, prior, dtype=prior.dtype)
    for i, t in enumerate(progress_bar(timesteps)):
        guider.set_state(step=i, num_inference_steps=len(timesteps), timestep=t)
        inputs = {"sample": scale_input(scheduler, latents.flatten(0, 1), t), **conditions}
        predicted = predict(guider, prior, partial(forward, noise_level=t), inputs, width, with_variance=False)
        # Candidates of a prompt are one sample to the scheduler, which has one generator for them.
        predicted = predicted.view(count, num_candidates, width)
        latents = scheduler.step(predicted, t, latents, **step_arguments, return_dict=False)[0]

    candidates = prior.post_process_latents(latents.to(prior.dtype)).float()
    similarity = (candidates * text.embeds.view(count, num_candidates, width)).sum(dim=-1)
    return candidates[torch.arange(count, device=candidates.device), similarity.argmax(dim=1)]
