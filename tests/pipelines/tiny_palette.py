"""A Palette pipeline with a tiny random network, and images for it."""

import torch
from diffusers import DDIMScheduler, UNet2DModel
from PIL import Image

from diffusers_ext.pipelines.pipeline_palette import PalettePipeline
from tests.tiny_unet import tiny_unet


def make_unet(seed: int = 0, **changes) -> UNet2DModel:
    return tiny_unet(seed, **{"in_channels": 6, **changes})


def make_images(num_images: int = 3, height: int = 8, width: int = 8, channels: int = 3) -> torch.Tensor:
    """Whole bytes, `(N, C, H, W)` in `[0, 1]`."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (num_images, channels, height, width), generator=generator) / 255


def to_picture(image: torch.Tensor) -> Image.Image:
    return PalettePipeline.numpy_to_pil(image.permute(1, 2, 0).numpy())[0]


def make_pipeline(**changes) -> PalettePipeline:
    components = {
        "unet": make_unet(),
        "scheduler": DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
        "default_num_inference_steps": 4,
    }
    pipe = PalettePipeline(**{**components, **changes})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: PalettePipeline, image=None, seed: int = 0, **inputs) -> torch.Tensor:
    image = make_images(1) if image is None else image
    return pipe(image, **{"output_type": "pt", "generator": torch.Generator().manual_seed(seed), **inputs}).images


def note_calls(pipe: PalettePipeline) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A list that will get the sample and the noise level of each forward pass of the network."""
    calls = []
    pipe.unet.register_forward_pre_hook(lambda unet, args: calls.append(args[:2]))
    return calls
