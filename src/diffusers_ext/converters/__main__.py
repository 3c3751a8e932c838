r"""Convert a published checkpoint to a folder for `from_pretrained`.

    python -m diffusers_ext.converters 256x256_diffusion.pt adm-256 --family guided_diffusion \
        --preset 256x256_diffusion
    python -m diffusers_ext.converters ema_0.9999_200000.pt my-model --family improved_diffusion \
        --option image_size=64 num_heads=4 diffusion_steps=4000 noise_schedule=cosine rescale_timesteps=true
    python -m diffusers_ext.converters 200_Network.pth inpainting --family palette --preset inpainting_celebahq
    python -m diffusers_ext.converters I640000_E37_gen.pth faces-8x --family sr3 --preset sr_sr3_16_128
    python -m diffusers_ext.converters latest_net_G_A.pth horse2zebra --family cyclegan \
        --option reverse_file=latest_net_G_B.pth
    python -m diffusers_ext.converters last.ckpt vqgan --family vqgan --preset vqgan_imagenet_f16_1024
    python -m diffusers_ext.converters my_run/final_model vae --family pythae
    python -m diffusers_ext.converters netG_epoch_24.pth faces --family dcgan \
        --option discriminator_file=netD_epoch_24.pth
"""

import argparse
import ast
import json
import sys

from diffusers_ext.converters.folders import FAMILIES, convert_checkpoint
from diffusers_ext.converters.presets import PRESETS


def build_parser() -> argparse.ArgumentParser:
    presets = "\n".join(f"  {family}: {', '.join(names)}" for family, names in PRESETS.items())
    parser = argparse.ArgumentParser(
        "python -m diffusers_ext.converters",
        description=__doc__,
        epilog=f"presets, named as the published files or their configurations are:\n{presets}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="the checkpoint: a file of torch.save or safetensors, or a run of pythae")
    parser.add_argument("output_dir", help="the folder to write, which must not exist or be empty")
    parser.add_argument("--family", required=True, choices=FAMILIES, help="the network that the checkpoint is of")
    parser.add_argument("--preset", help="the published checkpoint that it is, or its configuration")
    parser.add_argument(
        "--option",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="arguments of the original's network and process that no tensor shows, such as num_heads=4",
    )
    parser.add_argument("--id2label", metavar="FILE", help='a JSON file of class names: {"0": "tench", ...}')
    return parser


def parse_option(text: str) -> tuple[str, object]:
    """`name=value`, where the value is a number, `true`, `false`, `none`, a list as `1,2,4`, or else a word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"An option must be NAME=VALUE, but is {text!r}.")
    try:
        return name, ast.literal_eval(value.title() if value.lower() in ("true", "false", "none") else value)
    except (ValueError, SyntaxError):
        return name, value


def read_id2label(path: str) -> dict[str, str]:
    with open(path, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is no JSON file ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} must hold the names of the classes by their ids, as {{"0": "tench"}}.')
    return content


def main(arguments: list[str] | None = None) -> None:
    args = build_parser().parse_args(arguments)
    try:
        options = dict(map(parse_option, args.option))
        id2label = None if args.id2label is None else read_id2label(args.id2label)
        written = convert_checkpoint(args.file, args.output_dir, args.family, args.preset, id2label, **options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"Wrote {written}.")


if __name__ == "__main__":
    main()
