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
