"""Restore image files with a pipeline: a file, or all files of a folder.

    python -m diffusers_ext.restore photos restored --model outputs/sr

Results are PNG files under the names of their originals, of 16 bits where these have 16 bits. Files that can't be read
are skipped, and listed at the end.
"""

import argparse
import io
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers_ext.atomic import write_bytes_atomically, write_text_atomically


if TYPE_CHECKING:  # the help is shown without waiting for these
    from diffusers_ext.pipelines import RestorationPipeline


COMMAND = "python -m diffusers_ext.restore"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="an image file, or a folder, with its subfolders")
    parser.add_argument("output", type=Path, help="the file to write, or the folder for the results of a folder")
    parser.add_argument("--model", required=True, help="the folder of a RestorationPipeline, or its name on the Hub")
    parser.add_argument(
        "--tile_size", type=int, default=256, help="images larger than this are restored in tiles; 0 for no tiles"
    )
    parser.add_argument("--tile_overlap", type=int, help="by how much tiles overlap; a quarter of a tile by default")
    parser.add_argument("--batch_size", type=int, default=1, help="tiles per forward pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ...; by default the GPU if there is one")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--report", type=Path, help="a JSON file to write: the results, and why files were skipped")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 if no file was restored."""
    args = build_parser().parse_args(arguments)
    if not args.input.exists():
        print(f"There is no file or folder {args.input}.", file=sys.stderr)
        return 1
    if args.input.is_dir() and args.output.is_file():
        print(f"{args.input} is a folder, so the output must be one, but {args.output} is a file.", file=sys.stderr)
        return 1
    files = outputs_of(args.input, args.output)

    import torch
    from tqdm import tqdm

    from diffusers_ext.pipelines import RestorationPipeline

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = RestorationPipeline.from_pretrained(args.model, dtype=getattr(torch, args.dtype)).to(device)
    pipeline.set_progress_bar_config(disable=True)
    options = {
        "tile_size": args.tile_size or None,
        "tile_overlap": args.tile_overlap,
        "batch_size": args.batch_size,
    }
    try:  # options are checked once, so that they do not look like faults of the files
        pipeline(torch.zeros(pipeline.image_shape[0], 1, 1), **options, output_type="levels")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1

    skipped = {}
    for source, target in tqdm(files.items(), desc="restored", unit="image"):
        try:
            content = restore_file(pipeline, source, **options)
        except (ValueError, OSError) as error:
            skipped[str(source)] = " ".join(str(error).split())
        else:
            write_bytes_atomically(target, content)
    restored = {str(source): str(target) for source, target in files.items() if str(source) not in skipped}
    print(f"{len(restored)} of {len(files)} files restored" + (f", {len(skipped)} skipped:" if skipped else "."))
    for name, reason in skipped.items():
        print(f"  {name}: {reason}")
    if args.report is not None:
        report = {"model": args.model, "restored": restored, "skipped": skipped}
        write_text_atomically(args.report, json.dumps(report, indent=2) + "\n")
    return 0 if restored else 1


def outputs_of(source: Path, output: Path) -> dict[Path, Path]:
    """The file to write for each file to read, without hidden files."""
    if source.is_file():
        return {source: output / f"{source.stem}.png" if output.is_dir() else output.with_suffix(".png")}
    found = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    found = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    # Where a folder has photo.jpg and photo.tif, these become photo.jpg.png and photo.tif.png.
    names = Counter(path.with_suffix(".png") for path in found)
    return {
        source / path: output / (path.with_suffix(".png") if names[path.with_suffix(".png")] == 1 else f"{path}.png")
        for path in found
    }


def restore_file(pipeline: "RestorationPipeline", path: Path, **options) -> bytes:
    """The PNG file of a restored image.

    Raises:
        ValueError, OSError: if the file can't be read.
    """
    from diffusers_ext.data.png16 import encode_png16, read_png16

    pixels = read_png16(path)
    if pixels is not None:
        return encode_png16(pipeline(pixels, output_type="levels", **options).images[0])
    picture = pipeline(path, **options).images[0]
    file = io.BytesIO()
    picture.save(file, "PNG", icc_profile=picture.info.get("icc_profile"))
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
