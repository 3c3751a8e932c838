"""What latents save: a denoiser's step in latents against one in pixels, and whole images, decoding included.

    python -m tests.benchmarks.bench_latents

Both U-Nets have the same widths (random weights: only the time counts). At 32 pixels they are those of
examples/digits_latent.yaml and of the same model of pixels, in 10 steps with guidance; at 128 pixels a step of a
256-pixel-style U-Net, in the latents of an autoencoder of 4 pixels per latent, and in pixels.
"""

import argparse

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel

from diffusers_ext.pipelines import ClassConditionalPipeline
from tests.benchmarks.timing import alternate, report


STEPS, LABELS, NULL = 10, list(range(10)) * 2, 10


def unet(size: int, channels: int, widths: tuple[int, ...], num_class_embeds: int | None = None) -> UNet2DModel:
    """Random weights, without attention."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        layers_per_block=1,
        norm_num_groups=8,
        num_class_embeds=num_class_embeds,
    ).eval()


def pipeline(denoiser: UNet2DModel, vae: AutoencoderKL | None = None) -> ClassConditionalPipeline:
    """A pipeline that is guided."""
    pipe = ClassConditionalPipeline(denoiser, DDIMScheduler(clip_sample=False), vae=vae, null_class_label=NULL)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def digits_autoencoder() -> AutoencoderKL:
    """The network of examples/digits_autoencoder.yaml."""
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=2,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
    ).eval()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds

    pixels = pipeline(unet(32, 1, (24, 48), NULL + 1))
    latents = pipeline(unet(8, 2, (24, 48), NULL + 1), digits_autoencoder())
    arguments = {"class_labels": LABELS, "num_inference_steps": STEPS, "guidance_scale": 2.0, "output_type": "pt"}
    seconds = alternate(
        {"pixels": lambda: pixels(**arguments), "latents, decoded": lambda: latents(**arguments)}, rounds=rounds
    )
    report(f"{len(LABELS)} digits of 32 pixels, {STEPS} steps with guidance", seconds, baseline="pixels")

    denoisers = {"pixels": (unet(128, 3, (64, 128, 128)), 128), "latents": (unet(32, 4, (64, 128, 128)), 32)}
    samples = {
        name: torch.randn(1, network.config.in_channels, size, size) for name, (network, size) in denoisers.items()
    }
    times = torch.tensor([500])
    seconds = alternate(
        {name: lambda name=name: denoisers[name][0](samples[name], times) for name in denoisers}, rounds=rounds
    )
    report("a step of a denoiser at 128 pixels, 4 pixels per latent", seconds, baseline="pixels")


if __name__ == "__main__":
    main()
