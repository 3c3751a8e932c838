"""Restore image files with a pipeline: a file, or all files of a folder.

    python -m diffusers_ext.restore photos restored --model outputs/sr

Results are PNG files under the names of their originals, of 16 bits where these have 16 bits. Files of light, Radiance
(.hdr) and OpenEXR (.exr), stay files of light, and models of high dynamic range (train_hdr.py) make such files of all
images. Files that can't be read are skipped, and listed at the end.
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
    import numpy as np

    from diffusers_ext.pipelines import RestorationPipeline


COMMAND = "python -m diffusers_ext.restore"
LIGHT_EXTENSIONS = (".hdr", ".exr")  # those of `data/light_files.py`


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
    parser.add_argument(
        "--light_format",
        choices=("hdr", "exr", "png"),
        help="of files of light: Radiance, OpenEXR (pip install diffusers_ext[hdr]), or PNG of 16 bits, which shows "
        "the whole range; by default that of the output file or the original, or else hdr",
    )
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

    import torch
    from tqdm import tqdm

    from diffusers_ext.hub.loading import load_model
    from diffusers_ext.pipelines import RestorationPipeline

    try:
        pipeline = load_model(RestorationPipeline, args.model, args.device, args.dtype)
        pipeline.set_progress_bar_config(disable=True)
        makes_light = pipeline.config.peak is not None
        files = outputs_of(args.input, args.output, makes_light, args.light_format)
        refuse_overwriting(files)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
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

    skipped, failure = {}, None
    for source, target in tqdm(files.items(), desc="restored", unit="image"):
        try:
            content = restore_file(pipeline, source, target.suffix, **options)
        except (ValueError, OSError, ImportError) as error:
            skipped[str(source)] = " ".join(str(error).split())
            continue
        try:
            write_bytes_atomically(target, content)
        except OSError as error:
            failure = f"{target} can't be written: {error}"
            break
    if failure is not None:  # below the progress bar, which ends with the loop
        print(failure, file=sys.stderr)
        return 1
    restored = {str(source): str(target) for source, target in files.items() if str(source) not in skipped}
    print(f"{len(restored)} of {len(files)} files restored" + (f", {len(skipped)} skipped:" if skipped else "."))
    for name, reason in skipped.items():
        print(f"  {name}: {reason}")
    if args.report is not None:
        report = {"model": args.model, "restored": restored, "skipped": skipped}
        try:
            write_text_atomically(args.report, json.dumps(report, indent=2) + "\n")
        except OSError as error:
            print(f"--report {args.report} can't be written: {error}", file=sys.stderr)
            return 1
    return 0 if restored else 1


def refuse_overwriting(files: dict[Path, Path]) -> None:
    """Refuses, with a `ValueError`, to write over a file that is read."""
    sources = {path.resolve() for path in files}
    for target in files.values():
        if target.resolve() in sources:
            raise ValueError(f"The original {target} would be overwritten: name another output.")


def outputs_of(
    source: Path, output: Path, makes_light: bool = False, light_format: str | None = None
) -> dict[Path, Path]:
    """The file to write for each file to read, without hidden files.

    Args:
        source, output (`Path`): files or folders, as they are given to the command.
        makes_light (`bool`): whether the model makes light of all images.
        light_format (`str`, *optional*): hdr, exr or png, for light.

    Raises:
        ValueError: if the output is to be a file of light that is not made here.
    """

    def extension(path: Path) -> str:
        is_light = path.suffix.lower() in LIGHT_EXTENSIONS
        if not (is_light or makes_light):
            return ".png"
        return f".{light_format}" if light_format else path.suffix.lower() if is_light else ".hdr"

    if source.is_file():
        if output.is_dir():
            return {source: output / f"{source.stem}{extension(source)}"}
        named, usual = output.suffix.lower(), extension(source)
        if named in LIGHT_EXTENSIONS and usual == ".png" and light_format is None:
            raise ValueError(f"{output} would be a file of light, but {source} is none, and the model makes none.")
        is_named = usual != ".png" and light_format is None and named in (*LIGHT_EXTENSIONS, ".png")
        return {source: output.with_suffix(named if is_named else usual)}
    found = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    found = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    # Where a folder has photo.jpg and photo.tif, these become photo.jpg.png and photo.tif.png.
    names = Counter(path.with_suffix(extension(path)) for path in found)
    results = {path: path.with_suffix(extension(path)) for path in found}
    return {
        source / path: output / (result if names[result] == 1 else f"{path}{result.suffix}")
        for path, result in results.items()
    }


def restore_file(pipeline: "RestorationPipeline", path: Path, extension: str = ".png", **options) -> bytes:
    """The file of a restored image.

    Raises:
        ValueError, OSError, ImportError: if the file can't be read, or its result can't be written in this format.
    """
    from diffusers_ext.data.png16 import encode_png16, read_png16

    if pipeline.config.peak is not None or path.suffix.lower() in LIGHT_EXTENSIONS:
        return restore_light(pipeline, path, extension, **options)
    pixels = read_png16(path)
    if pixels is not None:
        return encode_png16(pipeline(pixels, output_type="levels", **options).images[0])
    picture = pipeline(path, **options).images[0]
    file = io.BytesIO()
    picture.save(file, "PNG", icc_profile=picture.info.get("icc_profile"))
    return file.getvalue()


def restore_light(pipeline: "RestorationPipeline", path: Path, extension: str, **options) -> bytes:
    """The file of an image whose light is restored; the brightest value of a file of light is taken for white.

    Raises:
        ValueError, OSError, ImportError: as [`restore_file`].
    """
    import numpy as np

    from diffusers_ext.data.light_files import encode_light, read_light
    from diffusers_ext.data.png16 import encode_png16, read_png16
    from diffusers_ext.pipelines.light import GAMMA

    white = 1.0
    if path.suffix.lower() in LIGHT_EXTENSIONS:
        image = read_light(path)
        white = float(colors_of(image).max()) or 1.0
        colors_of(image)[:] = (colors_of(image) / white) ** (1 / GAMMA)
    else:
        pixels = read_png16(path)
        image = path if pixels is None else pixels
    restored = pipeline(image, output_type="np", **options).images[0]
    colors = colors_of(restored)
    colors[:] = white * (colors**GAMMA if pipeline.config.peak is None else colors)
    if extension != ".png":
        return encode_light(restored, extension)
    colors[:] = (colors / (colors.max() or 1)) ** (1 / GAMMA)
    return encode_png16((restored * 65535).round().astype(np.uint16))


def colors_of(image: "np.ndarray") -> "np.ndarray":
    """The channels (H, W, C) of an image without its transparency."""
    return image[..., :-1] if image.shape[2] in (2, 4) else image


if __name__ == "__main__":
    sys.exit(main())
