"""https://github.com/openai/glide-text2im."""

from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.openai_glide.noised_clip import (
    GLIDE_CLIP_ARGUMENTS,
    USUAL_LOGIT_SCALE,
    convert_glide_clip,
)
from diffusers_ext.converters.openai_glide.presets import TEXT_TO_IMAGE
from diffusers_ext.converters.openai_glide.text_to_image import (
    GLIDE_ARGUMENTS,
    PROCESS_ARGUMENTS,
    convert_glide,
    glide_scheduler,
)
from diffusers_ext.converters.original_arguments import path, require
from diffusers_ext.converters.state_dicts import StateDict


def _noised_clip(state_dict: StateDict, options: dict) -> Conversion:
    text_file = options.pop("text_file", None)
    if text_file is None:
        raise ValueError("A noised CLIP consists of two files: name that of the text encoder by `text_file`.")
    tensors = {
        f"{tower}_encoder.{key}": tensor
        for tower, part in (("image", state_dict), ("text", read_state_dict(text_file)))
        for key, tensor in part.items()
    }
    assumed = assumptions(options, {"logit_scale": USUAL_LOGIT_SCALE})
    return Conversion({"": convert_glide_clip(tensors, **options)}, assumed)


def _text_to_image(state_dict: StateDict, options: dict) -> Conversion:
    require(options, "noise_schedule", "image_size")
    assumed = assumptions(options, {"diffusion_steps": USUAL_DIFFUSION_STEPS})
    schedule, steps = options.pop("noise_schedule"), options.pop("diffusion_steps", USUAL_DIFFUSION_STEPS)
    unet, text_encoder = convert_glide(state_dict, **options)
    scheduler = glide_scheduler(unet, schedule, steps)
    return Conversion({"unet": unet, "text_encoder": text_encoder, "scheduler": scheduler}, assumed)


USUAL_DIFFUSION_STEPS = 1000
FAMILIES = (
    Family(
        name="glide",
        description="A base, upsampler or inpainting model of glide-text2im becomes the folders unet, text_encoder "
        "and scheduler, of which a TextToImagePixelPipeline is made with GPT-2's tokenizer.",
        example="base.pt glide-base --preset base",
        convert=_text_to_image,
        options={**GLIDE_ARGUMENTS, **PROCESS_ARGUMENTS},
        functions=(convert_glide,),
        presets=TEXT_TO_IMAGE,
    ),
    Family(
        name="glide_clip",
        description="The noised CLIP of glide-text2im, in the files of the image encoder and, by `text_file`, of the "
        "text encoder, becomes a NoisyCLIPModel.",
        example="clip_image_enc.pt noisy-clip --preset glide --option text_file=clip_text_enc.pt",
        convert=_noised_clip,
        options={**GLIDE_CLIP_ARGUMENTS, "text_file": path},
        functions=(convert_glide_clip,),
        presets={
            "glide": {
                "n_timesteps": 1000,
                "image_size": 64,
                "patch_size": 4,
                "n_vocab": 65536,
                "max_text_len": 77,
                "n_embd": 512,
                "n_head_state_text": 64,
                "n_head_text": 8,
                "n_xf_blocks_text": 12,
                "n_head_state_image": 64,
                "n_head_image": 12,
                "n_xf_blocks_image": 12,
                "logit_scale": 100.0,
            }
        },
    ),
)
