"""LoRA and DoRA files from kohya's layout to diffusers' layout, and back; LoHa, LoKr and Tucker files are refused."""

import argparse
from pathlib import Path


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m diffusers_ext.converters.kohya", description=__doc__)
    parser.add_argument("source", type=Path, help="The file to convert.")
    parser.add_argument("destination", type=Path, help="The file or folder to write.")
    parser.add_argument("--base", required=True, help="The pipeline that the LoRA is for: a folder or a Hub name.")
    return parser


def main() -> None:
    parser = build_parser()
    arguments = parser.parse_args()
    # Not before: the help needs no networks.
    from diffusers import DiffusionPipeline

    from diffusers_ext.converters.kohya.lora_files import convert_lora_file
    from diffusers_ext.hub.pipeline_folders import refuse_single_file

    try:
        refuse_single_file(arguments.base, "--base")
        pipeline = DiffusionPipeline.from_pretrained(arguments.base)
        print(convert_lora_file(arguments.source, arguments.destination, pipeline))
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
