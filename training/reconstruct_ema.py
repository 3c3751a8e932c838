"""Make a pipeline whose weights are averaged over another length than the published ones, after the training.

    python -m diffusers_ext.training.reconstruct_ema outputs/digits outputs/digits-0.08 --std 0.08

The run must have been made with --posthoc_ema_stds; see [`~diffusers_ext.training.loop.posthoc_ema`].
"""

from diffusers_ext.training.loop.command import one_sentence

import argparse
import json
import shutil
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from diffusers_ext.atomic import written_beside
from diffusers_ext.hub.repository import CARD, INDEX, files_to_publish
from diffusers_ext.training.loop.posthoc_ema import Snapshots


# These files describe the published weights, and would be wrong for others.
OF_THE_PUBLISHED_WEIGHTS = (CARD, "samples.png", "metrics.json")
RECORD = "posthoc_ema.json"
LARGEST_ERROR = 0.5  # relative error of a profile; with a larger one it is a different average


def reconstruct_ema(output_dir: str | Path, new_dir: str | Path, std: float, step: int | None = None) -> dict:
    """Write the pipeline of a finished run with another average of its weights.

    It works for every pipeline: the files are copied, and the weights of the averaged networks are replaced, in the
    precision of the published weights.

    Args:
        output_dir (`str` or `Path`): the output folder of the run, with its pipeline and snapshots.
        new_dir (`str` or `Path`): the folder to write; it must be empty or not exist.
        std (`float`): the length of the average: the standard deviation of its profile relative to the length of the
            training, between 0 and 0.2887.
        step (`int`, *optional*): where the average ends: a step that has a snapshot; by default the last one.

    Returns:
        `dict`: the content of `posthoc_ema.json` in the new folder: `std`, `step`, `profile_error` (the relative L2
        error of the profile), and the `networks` that were replaced.

    Raises:
        FileNotFoundError: if there are no snapshots or no pipeline.
        FileExistsError: if `new_dir` is not empty.
        ValueError: if there is no such profile or step, if there are too few snapshots for it, or if they belong to
            another pipeline.
    """
    output_dir, new_dir = Path(output_dir), Path(new_dir)
    snapshots = Snapshots(output_dir)
    if not (output_dir / INDEX).is_file():
        raise FileNotFoundError(f"{output_dir} has no {INDEX}: the run has not been finished.")
    if new_dir.exists() and not (new_dir.is_dir() and not any(new_dir.iterdir())):
        raise FileExistsError(f"{new_dir} is not an empty folder: name another one.")
    step = snapshots.steps[-1] if step is None else step
    # A network that is only used in training, such as a discriminator, is not in the pipeline.
    networks = [name for name in snapshots.networks if (output_dir / name).is_dir()]
    if not networks:
        raise ValueError(f"The pipeline in {output_dir} has none of the networks {', '.join(snapshots.networks)}.")
    record = {"std": std, "step": step, "networks": networks}
    with written_beside(new_dir) as folder:
        for name in files_to_publish(output_dir):
            if name not in OF_THE_PUBLISHED_WEIGHTS:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(output_dir / name, folder / name)
        for network in networks:
            average, record["profile_error"] = snapshots.reconstruct(network, std, step)
            if record["profile_error"] > LARGEST_ERROR:
                raise ValueError(
                    f"The average of length {std} at step {step} can't be made from these snapshots (error "
                    f"{record['profile_error']:.0%}): ask for a longer one, or train with more frequent snapshots."
                )
            for file in sorted((folder / network).glob("*.safetensors")):
                _replace_weights(file, average)
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    return record


def _replace_weights(path: Path, average: dict) -> None:
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    for name, tensor in tensors.items():
        if name not in average or average[name].shape != tensor.shape:
            raise ValueError(f"The snapshots belong to another network than {path.parent.name}: {name} does not fit.")
        tensors[name] = average[name].to(tensor.dtype)
    save_file(tensors, path, metadata)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", help="The output folder of a finished run with --posthoc_ema_stds.")
    parser.add_argument("new_dir", help="The pipeline folder to write.")
    parser.add_argument("--std", type=float, required=True, help="The length of the average, such as 0.08.")
    parser.add_argument("--step", type=int, help="Where the average ends; by default at the last snapshot.")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Reconstruct an average as the command line says."""
    options = build_parser().parse_args(arguments)
    with one_sentence(ValueError, OSError, SafetensorError, status=2):
        record = reconstruct_ema(options.output_dir, options.new_dir, options.std, options.step)
    print(
        f"Wrote {options.new_dir}: the average of length {record['std']} at step {record['step']}, "
        f"with a profile error of {record['profile_error']:.2%}."
    )


if __name__ == "__main__":
    main()
