"""The forward of StyleGAN2 at 256x256: ours against the operations of the reference implementation without extensions.

    python -m tests.benchmarks.bench_stylegan2

The reference, NVlabs/stylegan2-ada-pytorch, without its compiled extensions, is written here again with our weights:
grouped convolutions of weights per image, a filter of 4x4 over padded features, and separate operations for noise,
bias, activation and gain. Both make the same images (the largest difference is printed). They are timed alternately,
and their medians are compared. `channels last` is ours after `generator.to(memory_format=torch.channels_last)`, which
saves the copies that each convolution makes of its input.
"""

import argparse
import copy

import torch
import torch.nn.functional as F

from diffusers_ext.models import StyleGAN2Generator
from diffusers_ext.models.modeling_stylegan2 import StyledConv2d, StyledImage
from tests.benchmarks.timing import alternate, report


def filtered(images: torch.Tensor, kernel: torch.Tensor, padding: list[int], doubles: bool = False) -> torch.Tensor:
    """Images with zeros between their pixels if `doubles`, padded, and convolved with the kernel of 4x4."""
    number, channels, height, width = images.shape
    if doubles:
        spread = F.pad(images.reshape(number, channels, height, 1, width, 1), [0, 1, 0, 0, 0, 1])
        images = spread.reshape(number, channels, 2 * height, 2 * width)
    kernel = (kernel * 4).flip([0, 1])[None, None].repeat(channels, 1, 1, 1)
    return F.conv2d(F.pad(images, padding), kernel, groups=channels)


def modulated(features, weight, scales, is_demodulated, is_doubling):
    """The grouped convolution, in which each image of the batch has weights of its own."""
    number, channels, height, width = features.shape
    weights = weight[None] * scales[:, None, :, None, None]
    if is_demodulated:
        weights = weights * (weights.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt()[:, :, None, None, None]
    features = features.reshape(1, -1, height, width)
    if is_doubling:
        weights = weights.transpose(1, 2).reshape(number * channels, -1, 3, 3)
        features = F.conv_transpose2d(features, weights, stride=2, groups=number)
    else:
        weights = weights.reshape(-1, channels, *weights.shape[3:])
        features = F.conv2d(features, weights, padding=weights.shape[-1] // 2, groups=number)
    return features.reshape(number, -1, *features.shape[2:])


def reference_conv(conv: StyledConv2d, features, style, kernel):
    features = modulated(features, conv.weight, conv.affine(style), True, conv.is_doubling)
    if conv.is_doubling:
        features = filtered(features, kernel, [1, 1, 1, 1])
    features = features + conv.noise * conv.noise_strength
    features = features + conv.bias.reshape(1, -1, 1, 1)
    return F.leaky_relu(features, 0.2) * 2**0.5


def reference_image(to_rgb: StyledImage, features, style):
    scales = to_rgb.affine(style) * to_rgb.weight_gain
    return modulated(features, to_rgb.weight, scales, False, False) + to_rgb.bias.reshape(1, -1, 1, 1)


def reference_forward(generator: StyleGAN2Generator, latents: torch.Tensor) -> torch.Tensor:
    styles = generator.broadcast_styles(generator.map_latents(latents))
    kernel = torch.outer(generator.filter_taps, generator.filter_taps)
    features, image, position = generator.constant[None].repeat(len(latents), 1, 1, 1), None, 0
    for block in generator.blocks:
        for conv in block.convs:
            features = reference_conv(conv, features, styles[:, position], kernel)
            position += 1
        added = reference_image(block.to_rgb, features, styles[:, position])
        image = added if image is None else filtered(image, kernel, [2, 1, 2, 1], doubles=True) + added
    return image


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--channel_base", type=int, default=16384, help="32768 is the paper's configuration F.")
    parser.add_argument("--bfloat16", action="store_true", help="Also in bfloat16: very slow on CPUs without AVX-512.")
    parser.add_argument("--compile", action="store_true", help="Also compiled: minutes of compiling first.")
    arguments = parser.parse_args()
    widths = tuple(min(512, arguments.channel_base // 2**power) for power in range(2, 9))
    torch.manual_seed(0)
    generator = StyleGAN2Generator(256, block_out_channels=widths).eval()
    channels_last = copy.deepcopy(generator).to(memory_format=torch.channels_last)
    half = copy.deepcopy(generator).to(torch.bfloat16) if arguments.bfloat16 else None
    with torch.no_grad():
        for batch_size in arguments.batch_sizes:
            latents = torch.randn(batch_size, 512)
            ways = {
                "reference operations": lambda latents=latents: reference_forward(generator, latents),
                "ours": lambda latents=latents: generator(latents).sample,
                "ours, channels last": lambda latents=latents: channels_last(latents).sample,
            }
            if half is not None:
                ways["ours, bfloat16"] = lambda latents=latents: half(latents.bfloat16()).sample
            if arguments.compile:
                compiled = torch.compile(generator, fullgraph=True)
                ways["ours, compiled"] = lambda latents=latents, compiled=compiled: compiled(latents).sample
            expected, difference = ways["reference operations"](), {}
            for name, way in ways.items():
                difference[name] = (way().float() - expected).abs().max() / expected.abs().max()
            report(
                f"StyleGAN2, 256x256, batch {batch_size}", alternate(ways, arguments.rounds), "reference operations"
            )
            for name, value in difference.items():
                print(f"  largest difference of {name}: {value:.1e} of the largest value")


if __name__ == "__main__":
    main()
