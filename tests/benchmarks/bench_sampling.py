"""Sampling: our pipeline against diffusers' DDIM loop with guidance as two forward passes.

    python -m tests.benchmarks.bench_sampling [--compile]

The same network (random weights: only the time counts) and the same scheduler, steps, labels and noise. The title
says how far our float32 images are from the baseline's; bfloat16 weights change the numbers.
"""

import argparse
import copy
from functools import partial

import torch
from diffusers import DDIMScheduler, UNet2DModel
from diffusers.image_processor import VaeImageProcessor

from diffusers_ext.pipelines import ClassConditionalPipeline
from tests.benchmarks.timing import alternate, report


STEPS, SCALE, NULL = 10, 2.0, 10


def networks() -> dict[str, UNet2DModel]:
    """The digits example's network, and one for 32x32 photographs."""
    torch.manual_seed(0)
    digits = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        num_class_embeds=NULL + 1,
    )
    photographs = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        num_class_embeds=NULL + 1,
    )
    return {"8x8, 0.65M parameters": digits, "32x32, 1.1M parameters": photographs}


@torch.no_grad()
def diffusers_loop(unet: UNet2DModel, scheduler: DDIMScheduler, noise: torch.Tensor, labels: torch.Tensor):
    """DDIMPipeline's loop, with the two predictions of classifier-free guidance one after the other."""
    scheduler.set_timesteps(STEPS)
    image, null_labels = noise, torch.full_like(labels, NULL)
    for t in scheduler.timesteps:
        conditional = unet(image, t, class_labels=labels).sample
        unconditional = unet(image, t, class_labels=null_labels).sample
        prediction = unconditional + SCALE * (conditional - unconditional)
        image = scheduler.step(prediction, t, image, eta=0.0).prev_sample
    return VaeImageProcessor(vae_scale_factor=1).postprocess(image, output_type="pt")


def pipeline(unet: UNet2DModel, scheduler: DDIMScheduler) -> ClassConditionalPipeline:
    """Our pipeline, with weights laid out for the CPU's convolutions."""
    unet = copy.deepcopy(unet).to(memory_format=torch.channels_last)
    pipe = ClassConditionalPipeline(unet, copy.deepcopy(scheduler), null_class_label=NULL)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="Also compile the network (takes minutes).")
    arguments = parser.parse_args()
    for name, unet in networks().items():
        unet.eval()
        scheduler = DDIMScheduler(clip_sample=False)
        pipes = {"ours": pipeline(unet, scheduler), "ours, bfloat16 weights": pipeline(unet, scheduler)}
        pipes["ours, bfloat16 weights"].to(torch.bfloat16)
        if arguments.compile:
            pipes["ours, compiled"] = pipeline(unet, scheduler)
            pipes["ours, compiled"].unet.compile()
        for batch_size in (1, 16):
            noise = torch.randn(batch_size, unet.config.in_channels, *[unet.config.sample_size] * 2)
            labels = torch.arange(batch_size) % NULL
            baseline = diffusers_loop(unet, scheduler, noise, labels)

            def sample(pipe, noise=noise, labels=labels):
                options = {"num_inference_steps": STEPS, "guidance_scale": SCALE, "latents": noise}
                return pipe(class_labels=labels, output_type="pt", **options).images

            distance = (sample(pipes["ours"]) - baseline).abs().max()
            functions = {"diffusers' DDIM loop, two passes": partial(diffusers_loop, unet, scheduler, noise, labels)}
            for label, pipe in pipes.items():
                functions[label] = partial(sample, pipe)
            title = f"{STEPS} guided steps, {name}, batch {batch_size}; ours differs by at most {distance:.1e}"
            report(title, alternate(functions, arguments.rounds), "diffusers' DDIM loop, two passes")


if __name__ == "__main__":
    main()
