"""GANs at an equal budget on small grayscale images: a table of means over seeds.

    python examples/gan_table.py families --data digits fashion_mnist=~/fashion_mnist --cpu_seconds 120
    python examples/gan_table.py losses --data mnist=~/mnist fashion_mnist=~/fashion_mnist --cpu_seconds 60

`families` are six systems at 32x32 pixels; `losses` are four losses of a DCGAN, each with and without DiffAugment.
Every run gets the same amount of processor time, however busy the machine is. A row is written when its run ends; if
the command is started again, it continues with the next run. The images of `digits` come with scikit-learn, and an SVM
judges them. For others, FID, precision, recall and the covered classes are measured with a LeNet: one that is trained
here for each data set, or the one of `--lenets mnist=outputs/lenet`.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import train_lenet
import yaml

from diffusers_ext import GANPipeline
from diffusers_ext.atomic import write_text_atomically
from diffusers_ext.training.adversarial.recipe import AdversarialConfig, AdversarialRecipe
from diffusers_ext.training.evaluation.samples import balanced_labels
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_biggan import BigGANConfig, BigGANRecipe
from diffusers_ext.training.train_ebgan import EBGANConfig, EBGANRecipe
from diffusers_ext.training.train_gan import GANConfig, GANRecipe
from diffusers_ext.training.train_progressive_gan import ProgressiveGANConfig, ProgressiveGANRecipe
from diffusers_ext.training.train_stylegan import StyleGANConfig, StyleGANRecipe


@dataclass
class Method:
    """A row of the table: what is trained, and with which options."""

    recipe: type[AdversarialRecipe]
    config: type[AdversarialConfig]
    options: dict


def dcgan(**options) -> Method:
    """A small DCGAN at 28x28 pixels."""
    common = {
        "channels": 1,
        "resolution": [28],
        "generator": {"latent_dim": 64, "channels": 32},
        "discriminator": {"channels": 32},
        "train_batch_size": 64,
        "ema_decay": 0.99,
        "logging_steps": 20,
        "num_evaluation_samples": 5000,
    }
    return Method(GANRecipe, GANConfig, common | options)


def example(name: str, recipe: type, config: type, **changes) -> Method:
    """The system of `examples/digits_<name>.yaml` at 32x32 pixels."""
    options = yaml.safe_load(Path(__file__).with_name(f"digits_{name}.yaml").read_text())
    return Method(recipe, config, options | {"resolution": [32]} | changes)


LATE = {"adam_beta1": 0.0, "adam_beta2": 0.9, "learning_rate": 5e-4}
LOSSES = {
    "DCGAN": {"loss": "nonsaturating", "learning_rate": 5e-4},
    "WGAN-GP": {"loss": "wasserstein", "gradient_penalty": 10.0, "discriminator_steps": 3, **LATE},
    "hinge + SN": {"loss": "hinge", "spectral_norm": True, **LATE},
    "non-saturating + R1": {"loss": "nonsaturating", "r1": 1.0, **LATE},
}
AUGMENTATIONS = {"": None, ", DiffAugment": "color,translation,cutout"}
TABLES = {
    "families": {
        "DCGAN": example(
            "dcgan", GANRecipe, GANConfig, generator={"latent_dim": 64, "channels": 32}, discriminator={"channels": 32}
        ),
        "EBGAN": example("ebgan", EBGANRecipe, EBGANConfig),
        "Progressive GAN": example(
            # A quarter of the example's images: all pixels are there after 225 steps.
            "progressive_gan",
            ProgressiveGANRecipe,
            ProgressiveGANConfig,
            fading_images=1200,
            stable_images=1200,
        ),
        "BigGAN": example("biggan", BigGANRecipe, BigGANConfig),
        "StyleGAN": example("stylegan", StyleGANRecipe, StyleGANConfig),
        "StyleGAN2": example("stylegan2", StyleGANRecipe, StyleGANConfig),
    },
    "losses": {
        name + suffix: dcgan(diffaugment=augmentation, **options)
        for (name, options), (suffix, augmentation) in itertools.product(LOSSES.items(), AUGMENTATIONS.items())
    },
}
MEASURES = {
    "fid": ".3g",
    "precision": ".2f",
    "recall": ".2f",
    "classes_covered": ".1f",
    "recognised": ".1%",
    "accuracy": ".1%",
    "steps": ".0f",
    "milliseconds_per_image": ".2g",
}


def train_for(cpu_seconds: float, method: Method, **options) -> dict:
    """Train until the process has used so many seconds, and return the contents of metrics.json."""
    options = method.options | {"max_train_steps": 10**6, "checkpointing_steps": 10**6} | options
    config, expired = method.config(**options), []
    trainer = build_trainer(method, config)

    def expire(*_) -> None:
        expired.append(True)
        os.kill(os.getpid(), signal.SIGTERM)  # which asks the trainer to write a checkpoint and stop

    signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    trainer.train()
    if not expired:
        raise SystemExit("Stopped: the same command starts this run again.")
    # The results are all that a run to this step has left to do.
    build_trainer(method, replace(config, max_train_steps=trainer.step, resume_from_checkpoint="latest")).train()
    return json.loads((Path(config.output_dir) / "metrics.json").read_text())


def build_trainer(method: Method, config: AdversarialConfig) -> Trainer:
    accelerator = build_accelerator()
    return Trainer(method.recipe(config, TrainingContext(accelerator)), accelerator)


def milliseconds_per_image(folder: str, count: int = 100) -> float:
    """Processor time of the pipeline for an image of a batch."""
    pipe = GANPipeline.from_pretrained(folder)
    labels = balanced_labels(pipe.config.id2label, count)
    size = {"batch_size": count} if labels is None else {"class_labels": labels}
    times = []
    for seed in range(4):  # of which the first one warms up
        started = time.process_time()
        pipe(**size, generator=torch.Generator().manual_seed(seed), output_type="pt")
        times.append(time.process_time() - started)
    return 1000 * min(times[1:]) / count


def table(rows: list[dict]) -> str:
    """The means and standard deviations over seeds, in Markdown."""
    kinds = list(dict.fromkeys((row["data"], row["method"]) for row in rows))
    lines = [f"| data | method | {' | '.join(MEASURES)} | seeds |", "|" + "---|" * (len(MEASURES) + 3)]
    for kind in kinds:
        group = [row for row in rows if (row["data"], row["method"]) == kind]
        cells = [_mean([row[name] for row in group if name in row], form) for name, form in MEASURES.items()]
        lines.append(f"| {' | '.join([*kind, *cells, str(len(group))])} |")
    return "\n".join(lines) + "\n"


def _mean(values: list[float], form: str) -> str:
    if not values:
        return "-"  # a GAN without classes is asked for none
    deviation = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{deviation}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=FOLDER", help="or digits")
    parser.add_argument("--lenets", nargs="*", default=[], metavar="NAME=FOLDER", help="instead of new ones")
    parser.add_argument("--methods", nargs="+", help="rows of the table; by default all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cpu_seconds", type=float, default=90, help="of each run")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/gan_table"))
    args = parser.parse_args(arguments)
    methods = TABLES[args.table]
    chosen = args.methods or list(methods)
    if unknown := set(chosen) - set(methods):
        parser.error(f"--methods must be among {', '.join(methods)}, not {', '.join(sorted(unknown))}")
    sources = dict(_pair(text) if text != "digits" else ("digits", "digits") for text in args.data)
    judges = {"digits": "digits"} | dict(map(_pair, args.lenets))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name, folder in sources.items():
        if name not in judges:
            judges[name] = str(args.output_dir / f"lenet-{name}")
            if not Path(judges[name]).exists():
                train_lenet.main(["--dataset_name", folder, "--output_dir", judges[name]])

    file = args.output_dir / f"{args.table}.json"
    rows = json.loads(file.read_text()) if file.exists() else []
    done = {(row["data"], row["method"], row["seed"]) for row in rows}
    # Seeds are the outer loop: after the first seed the table is complete, with one run for each row.
    for seed, data, method in itertools.product(args.seeds, sources, chosen):
        if (data, method, seed) in done:
            continue
        output_dir = str(args.output_dir / f"{data}-{method}-{seed}".replace(" ", "_").replace(",", ""))
        metrics = train_for(
            args.cpu_seconds,
            methods[method],
            dataset_name=sources[data],
            feature_extractor=judges[data],
            seed=seed,
            output_dir=output_dir,
        )
        if not metrics["evaluations"]:
            raise SystemExit(f"gan_table.py: error: {method} has not grown to 32x32 pixels: give more --cpu_seconds.")
        (evaluation,) = metrics["evaluations"]
        values = evaluation | {"steps": metrics["step"], "milliseconds_per_image": milliseconds_per_image(output_dir)}
        row = {"data": data, "method": method, "seed": seed, "cpu_seconds": args.cpu_seconds}
        rows.append(row | {name: values[name] for name in MEASURES if name in values})
        write_text_atomically(file, json.dumps(rows, indent=1) + "\n")
        write_text_atomically(file.with_suffix(".md"), table(rows))
    print(table(rows))


def _pair(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals:
        raise SystemExit(f"gan_table.py: error: {text} must be NAME=FOLDER.")
    return name, str(Path(folder).expanduser())


if __name__ == "__main__":
    main()
