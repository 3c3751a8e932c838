"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022)."""

from diffusers_ext.training.text_to_image.base_models.base_model import BaseModel
from diffusers_ext.training.text_to_image.controlnets import UNetControl
from diffusers_ext.training.text_to_image.latent_objectives import LatentDiffusion


class StableDiffusion(BaseModel):
    """A UNet, and one CLIP text encoder."""

    denoiser_name = "unet"
    text_encoder_names = ("text_encoder",)
    lora_targets = ("to_k", "to_q", "to_v", "to_out.0")
    objective_class = LatentDiffusion
    control_class = UNetControl
    default_timestep_sampling = "uniform"

    def encode_text(self, token_ids, text_encoders=None):
        text_encoders = text_encoders or self.text_encoders
        return {"prompt_embeds": text_encoders["text_encoder"](token_ids["text_encoder"])[0]}
