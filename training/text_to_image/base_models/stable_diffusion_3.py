"""Stable Diffusion 3 (Esser et al. 2024)."""

import torch
import torch.nn.functional as F

from diffusers_ext.training.text_to_image.base_models.base_model import BaseModel
from diffusers_ext.training.text_to_image.controlnets import TransformerControl
from diffusers_ext.training.text_to_image.latent_objectives import LatentFlow


class StableDiffusion3(BaseModel):
    """A transformer trained as a rectified flow, two CLIP text encoders, and a T5 encoder that may be absent."""

    denoiser_name = "transformer"
    text_encoder_names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    optional_parts = ("text_encoder_3", "tokenizer_3")
    frozen_text_encoders = ("text_encoder_3",)
    lora_targets = (
        *("attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"),
        *("attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out"),
    )
    objective_class = LatentFlow
    control_class = TransformerControl
    default_timestep_sampling = "logit_normal"
    T5_LENGTH = 256  # the number of T5 tokens that the pipeline passes to its denoiser
    _sample_argument = "hidden_states"

    @property
    def size_multiple(self) -> int:
        return self.space.pixels_per_latent * self.denoiser.config.patch_size

    def max_length(self, name):
        # The pipeline truncates the second CLIP's prompts like the first one's.
        return self.T5_LENGTH if name == "text_encoder_3" else self.pipeline.tokenizer_max_length

    def encode_text(self, token_ids, text_encoders=None):
        text_encoders = text_encoders or self.text_encoders
        names = ("text_encoder", "text_encoder_2")
        outputs = [text_encoders[name](token_ids[name], output_hidden_states=True) for name in names]
        clip_embeds = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        if "text_encoder_3" in text_encoders:
            t5_embeds = text_encoders["text_encoder_3"](token_ids["text_encoder_3"])[0]
        else:
            width = self.denoiser.config.joint_attention_dim
            t5_embeds = clip_embeds.new_zeros(len(clip_embeds), self.T5_LENGTH, width)
        clip_embeds = F.pad(clip_embeds, (0, t5_embeds.shape[-1] - clip_embeds.shape[-1]))
        return {
            "prompt_embeds": torch.cat([clip_embeds, t5_embeds], dim=-2),
            "pooled_prompt_embeds": torch.cat([output[0] for output in outputs], dim=-1),
        }

    def denoiser_inputs(self, text, time_ids=None):
        return {**super().denoiser_inputs(text), "pooled_projections": text["pooled_prompt_embeds"]}
