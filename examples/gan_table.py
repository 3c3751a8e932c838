"""Four GANs, each with and without DiffAugment, on small grayscale images: a table of means over seeds.

    python examples/gan_table.py --train_data_dirs mnist=~/mnist fashion_mnist=~/fashion_mnist --cpu_seconds 90

Every run gets the same amount of processor time, however busy the machine is. A row is written when its run ends; if
the command is started again, it continues with the next run. FID, precision, recall and the covered classes are
measured with a LeNet: one that is trained here for each data set, or the one of `--lenets mnist=outputs/lenet`.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import time
from dataclasses import replace
from pathlib import Path

import train_lenet

from diffusers_ext.atomic import write_text_atomically
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_gan import GANConfig, GANRecipe


COMMON = {
    "channels": 1,
    "generator": {"latent_dim": 64, "channels": 32},
    "discriminator": {"channels": 32},
    "train_batch_size": 64,
    "ema_decay": 0.99,
    "checkpointing_steps": 10**6,
    "logging_steps": 20,
    "num_evaluation_samples": 5000,
}
LATE = {"adam_beta1": 0.0, "adam_beta2": 0.9, "learning_rate": 5e-4}
METHODS = {
    "DCGAN": {"loss": "nonsaturating", "learning_rate": 5e-4},
    "WGAN-GP": {"loss": "wasserstein", "gradient_penalty": 10.0, "discriminator_steps": 3, **LATE},
    "hinge + SN": {"loss": "hinge", "spectral_norm": True, **LATE},
    "non-saturating + R1": {"loss": "nonsaturating", "r1": 1.0, **LATE},
}
AUGMENTATIONS = {"": None, "DiffAugment": "color,translation,cutout"}
MEASURES = {"fid": ".2f", "precision": ".3f", "recall": ".3f", "classes_covered": ".1f", "recognised": ".3f"}


def train_for(cpu_seconds: float, **options) -> dict:
    """Train until the process has used so many seconds, and return the contents of metrics.json."""
    config, expired = GANConfig(max_train_steps=10**6, **options), []
    trainer = build_trainer(config)

    def expire(*_) -> None:
        expired.append(True)
        os.kill(os.getpid(), signal.SIGTERM)  # which asks the trainer to write a checkpoint and stop

    signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    trainer.train()
    if not expired:
        raise SystemExit("Stopped: the same command starts this run again.")
    # The results are all that a run to this step has left to do.
    build_trainer(replace(config, max_train_steps=trainer.step, resume_from_checkpoint="latest")).train()
    return json.loads((Path(config.output_dir) / "metrics.json").read_text())


def build_trainer(config: GANConfig) -> Trainer:
    accelerator = build_accelerator()
    return Trainer(GANRecipe(config, TrainingContext(accelerator)), accelerator)


def table(rows: list[dict]) -> str:
    """The means and standard deviations over seeds, in Markdown."""
    kinds = list(dict.fromkeys((row["data"], row["method"], row["augmentation"]) for row in rows))
    lines = [f"| data | method | augmentation | {' | '.join(MEASURES)} | steps | seeds |"]
    lines.append("|" + "---|" * (len(MEASURES) + 5))
    for kind in kinds:
        group = [row for row in rows if (row["data"], row["method"], row["augmentation"]) == kind]
        cells = [_mean([row[name] for row in group], form) for name, form in MEASURES.items()]
        steps = round(statistics.mean(row["steps"] for row in group))
        lines.append(f"| {' | '.join([*kind, *cells, str(steps), str(len(group))])} |")
    return "\n".join(lines) + "\n"


def _mean(values: list[float], form: str) -> str:
    deviation = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{deviation}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data_dirs", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--lenets", nargs="*", default=[], metavar="NAME=FOLDER", help="instead of new ones")
    parser.add_argument("--resolution", type=int, default=28)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cpu_seconds", type=float, default=90, help="of each run")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/gan_table"))
    args = parser.parse_args(arguments)
    folders = {name: Path(folder).expanduser() for name, folder in map(_pair, args.train_data_dirs)}
    lenets = dict(map(_pair, args.lenets))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name, folder in folders.items():
        if name not in lenets:
            lenets[name] = str(args.output_dir / f"lenet-{name}")
            if not Path(lenets[name]).exists():
                train_lenet.main(["--train_data_dir", str(folder), "--output_dir", lenets[name]])

    file = args.output_dir / "rows.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    done = {(row["data"], row["method"], row["augmentation"], row["seed"]) for row in rows}
    # Seeds are the outer loop: after the first seed the table is complete, with one run for each row.
    for seed, data, method, augmentation in itertools.product(args.seeds, folders, METHODS, AUGMENTATIONS):
        if (data, method, augmentation, seed) in done:
            continue
        started = time.time()
        metrics = train_for(
            args.cpu_seconds,
            train_data_dir=str(folders[data]),
            feature_extractor=lenets[data],
            resolution=[args.resolution],
            diffaugment=AUGMENTATIONS[augmentation],
            seed=seed,
            output_dir=str(args.output_dir / "-".join([data, method, augmentation or "plain", str(seed)])),
            **COMMON,
            **METHODS[method],
        )
        (evaluation,) = metrics["evaluations"]
        row = {"data": data, "method": method, "augmentation": augmentation, "seed": seed, "steps": metrics["step"]}
        row |= {"cpu_seconds": args.cpu_seconds, "wall_seconds": round(time.time() - started)}
        rows.append({**row, **{name: evaluation[name] for name in MEASURES}})
        write_text_atomically(file, json.dumps(rows, indent=1) + "\n")
        write_text_atomically(args.output_dir / "table.md", table(rows))
    print(table(rows))


def _pair(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals:
        raise SystemExit(f"gan_table.py: error: {text} must be NAME=FOLDER.")
    return name, folder


if __name__ == "__main__":
    main()
