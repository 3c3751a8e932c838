"""Stable Diffusion XL (Podell et al. 2023)."""

import torch

from diffusers_ext.training.text_to_image.base_models.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """Two CLIP text encoders instead of one, and a UNet that also gets the sizes of images."""

    text_encoder_names = ("text_encoder", "text_encoder_2")
    penultimate_only = ("text_encoder",)

    def encode_text(self, token_ids, text_encoders=None):
        text_encoders = text_encoders or self.text_encoders
        outputs = [text_encoders[name](token_ids[name], output_hidden_states=True) for name in self.text_encoder_names]
        embeds = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": outputs[-1][0]}

    def hide_text(self, text, hidden):
        if not self.pipeline.config.force_zeros_for_empty_prompt:
            return text
        return {
            name: values.masked_fill(hidden.view(-1, *[1] * (values.ndim - 1)), 0.0) for name, values in text.items()
        }

    def denoiser_inputs(self, text, time_ids=None):
        added = {"text_embeds": text["pooled_prompt_embeds"], "time_ids": time_ids}
        return {**super().denoiser_inputs(text), "added_cond_kwargs": added}

    def _scale(self, latents):
        if not self._is_normalised:
            return super()._scale(latents)
        mean, std = self._normalisation(latents)
        return (latents - mean) * self.vae.config.scaling_factor / std

    def _unscale(self, latents):
        if not self._is_normalised:
            return super()._unscale(latents)
        mean, std = self._normalisation(latents)
        return latents * std / self.vae.config.scaling_factor + mean

    @property
    def _is_normalised(self) -> bool:
        """Whether the autoencoder's configuration has the mean and standard deviation of its latents (Playground)."""
        return self.vae.config.latents_mean is not None and self.vae.config.latents_std is not None

    def _normalisation(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = self.vae.config.latents_mean, self.vae.config.latents_std
        return tuple(torch.tensor(values).view(1, -1, 1, 1).to(like.device, like.dtype) for values in (mean, std))
