"""Medical volumes (NIfTI) for image-to-image training: as slices, translated by a model, and compared per subject.

    python -m diffusers_ext.volumes slices scans/train/t1 slices/train/t1
    python -m diffusers_ext.volumes translate scans/test/t1 translated --model outputs/t1_to_t2
    python -m diffusers_ext.volumes compare scans/test/t2 translated

Each `.nii` or `.nii.gz` file is a subject, whose intensities become 0 to 1 by its own 0.1 and 99.9 percentiles. Slices
are PNG files of 16 bits, named <subject>_<slice>.png, so that those of two contrasts are pairs if the files of the
volumes have the same names. Needs nibabel: pip install "diffusers_ext[medical]".
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffusers_ext.atomic import write_bytes_atomically, write_text_atomically


if TYPE_CHECKING:  # the help is shown without waiting for these
    import nibabel
    import numpy as np

    from diffusers_ext.pipelines import ImageTranslationPipeline


COMMAND = "python -m diffusers_ext.volumes"
PERCENTILES = (0.1, 99.9)
ENDINGS = (".nii.gz", ".nii")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    slices = commands.add_parser("slices", help="write the slices of volumes as PNG files of 16 bits")
    slices.add_argument("input", type=Path, help="a folder of .nii or .nii.gz files")
    slices.add_argument("output", type=Path, help="the folder to write")
    translate = commands.add_parser("translate", help="translate volumes slice by slice")
    translate.add_argument("input", type=Path, help="a folder of volumes")
    translate.add_argument("output", type=Path, help="the folder for the translated ones, with values from 0 to 1")
    translate.add_argument("--model", required=True, help="the folder of an ImageTranslationPipeline, or its Hub name")
    translate.add_argument("--reverse", action="store_true", help="translate from the second contrast to the first")
    translate.add_argument("--batch_size", type=int, default=16, help="slices per forward pass")
    translate.add_argument("--device", help="cpu, cuda, cuda:1 ...; by default the GPU if there is one")
    compare = commands.add_parser("compare", help="PSNR and SSIM of volumes, per subject")
    compare.add_argument("truth", type=Path, help="a folder of the true volumes, which are normalized")
    compare.add_argument("output", type=Path, help="a folder of volumes of the same names, with values from 0 to 1")
    compare.add_argument("--normalize", action="store_true", help="normalize these volumes too, as for an identity")
    compare.add_argument("--report", type=Path, help="a JSON file to write")
    for command in (slices, translate, compare):
        command.add_argument("--axis", type=int, default=2, choices=(0, 1, 2), help="along which slices are counted")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 after a sentence about what is wrong."""
    options = vars(build_parser().parse_args(arguments))
    try:
        {"slices": write_slices, "translate": translate_volumes, "compare": print_comparison}[options.pop("command")](
            **options
        )
    except (ImportError, OSError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


def find_volumes(folder: Path) -> dict[str, Path]:
    """The volumes of a folder by subject, which is the name of the file without its ending.

    Raises:
        ValueError: if there are none, or two of one name.
    """
    found = {}
    for path in sorted(folder.glob("*")):
        ending = next((ending for ending in ENDINGS if path.name.endswith(ending)), None)
        if ending is not None:
            subject = path.name.removesuffix(ending)
            if subject in found:
                raise ValueError(f"{found[subject]} and {path.name} have the same name: leave only one of them there.")
            found[subject] = path
    if not found:
        raise ValueError(f"There are no .nii or .nii.gz files in {folder}.")
    return found


def read_volume(path: Path, axis: int = 2, normalized: bool = True) -> "tuple[np.ndarray, nibabel.Nifti1Image]":
    """A volume as slices `(S, H, W)`, float32, and the file as nibabel reads it.

    With `normalized`, its 0.1 and 99.9 percentiles become 0 and 1, and what lies beyond is clipped.

    Raises:
        ImportError: without nibabel.
        ValueError: for a file that can't be read, does not have three dimensions, or holds no finite differences.
    """
    import numpy as np

    try:
        import nibabel
    except ImportError as error:
        raise ImportError('Volumes are read by nibabel: pip install "diffusers_ext[medical]".') from error
    try:
        file = nibabel.load(path)
        values = file.get_fdata(dtype=np.float32)
    except (nibabel.filebasedimages.ImageFileError, EOFError, OSError) as error:
        raise ValueError(f"{path} can't be read: {error}.") from error
    if values.ndim != 3:
        raise ValueError(f"{path} must have three dimensions, not the shape {values.shape}.")
    slices = np.moveaxis(values, axis, 0)
    if not normalized:
        return slices, file
    low, high = np.percentile(values, PERCENTILES)
    if not low < high:  # this form finds NaN too
        raise ValueError(f"{path} can't be normalized: its percentiles are {low} and {high}.")
    return ((slices - low) / (high - low)).clip(0, 1), file


def write_slices(input: Path, output: Path, axis: int) -> None:
    """Writes each slice of each volume as a PNG file of 16 bits."""
    import numpy as np

    from diffusers_ext.data.png16 import encode_png16

    count = 0
    for subject, path in find_volumes(input).items():
        slices, _ = read_volume(path, axis)
        for index, pixels in enumerate((slices * 65535).round().astype(np.uint16)):
            write_bytes_atomically(output / f"{subject}_{index:03d}.png", encode_png16(pixels))
        count += len(slices)
    print(f"{count} slices in {output}")


def translate_volumes(
    input: Path, output: Path, axis: int, model: str, reverse: bool, batch_size: int, device: str | None
) -> None:
    """Translates each volume, and writes it as float32 with the position and the voxel sizes of the original."""
    from tqdm import tqdm

    from diffusers_ext.hub.loading import load_model
    from diffusers_ext.pipelines import ImageTranslationPipeline

    volumes = find_volumes(input)
    if input.resolve() == output.resolve():
        raise ValueError(f"The volumes of {input} would be overwritten: name another output.")
    pipeline = load_model(ImageTranslationPipeline, model, device)
    for subject, path in tqdm(volumes.items(), desc="translated", unit="volume"):
        slices, file = read_volume(path, axis)
        write_volume(output / f"{subject}.nii.gz", translate(pipeline, slices, reverse, batch_size), file, axis)
    print(f"{len(volumes)} volumes in {output}")


def translate(
    pipeline: "ImageTranslationPipeline", slices: "np.ndarray", reverse: bool = False, batch_size: int = 16
) -> "np.ndarray":
    """The translations of slices `(S, H, W)` in `[0, 1]`, in the same form. Models of colours see three equal ones."""
    import numpy as np

    outputs = pipeline(
        np.ascontiguousarray(slices)[..., None], reverse=reverse, output_type="np", batch_size=batch_size
    ).images
    return outputs.mean(axis=3)


def write_volume(path: Path, slices: "np.ndarray", original: "nibabel.Nifti1Image", axis: int = 2) -> None:
    """Writes slices `(S, H, W)` as a volume that lies where `original` lies."""
    import nibabel
    import numpy as np

    values = np.moveaxis(slices.astype(np.float32), 0, axis)
    header = original.header.copy()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    content = nibabel.Nifti1Image(values, original.affine, header).to_bytes()
    if path.name.endswith(".gz"):
        import gzip

        content = gzip.compress(content, mtime=0)
    write_bytes_atomically(path, content)


def compare_volumes(truth: Path, output: Path, axis: int = 2, normalize: bool = False) -> dict[str, dict[str, float]]:
    """By subject: the PSNR of the whole volume, and the SSIM of its slices on average.

    Raises:
        ValueError: if the two folders do not have the same subjects, or volumes differ in their shape.
    """
    import torch

    from diffusers_ext.metrics import psnr, ssim

    wanted, found = find_volumes(truth), find_volumes(output)
    if wanted.keys() != found.keys():
        odd = sorted(wanted.keys() ^ found.keys())
        raise ValueError(f"{truth} and {output} must have the same subjects, but only one of them has {odd[0]}.")
    rows = {}
    for subject, path in wanted.items():
        volumes = [read_volume(path, axis)[0], read_volume(found[subject], axis, normalized=normalize)[0]]
        if volumes[0].shape != volumes[1].shape:
            raise ValueError(f"The volumes of {subject} have the shapes {volumes[0].shape} and {volumes[1].shape}.")
        pair = [torch.from_numpy(volume.copy())[:, None] * 2 - 1 for volume in volumes]
        if not all(values.abs().max() <= 1 + 1e-6 for values in pair):
            raise ValueError(f"{found[subject]} must hold values from 0 to 1; give --normalize for other volumes.")
        pair = [values.clamp(-1, 1) for values in pair]
        whole = [values.permute(1, 0, 2, 3).flatten(1, 2)[None] for values in pair]
        rows[subject] = {"psnr": psnr(*whole).item(), "ssim": ssim(*pair).mean().item()}
    return rows


def print_comparison(truth: Path, output: Path, axis: int, normalize: bool, report: Path | None) -> None:
    """Prints a table of all subjects and their mean, and writes it as JSON if `report` is given."""
    rows = compare_volumes(truth, output, axis, normalize)
    rows["mean"] = {name: sum(row[name] for row in rows.values()) / len(rows) for name in ("psnr", "ssim")}
    print("| subject | PSNR (dB) | SSIM |\n|---|---|---|")
    for subject, row in rows.items():
        print(f"| {subject} | {row['psnr']:.2f} | {row['ssim']:.3f} |")
    if report is not None:
        write_text_atomically(report, json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
