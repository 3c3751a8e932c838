"""Twelve ways to learn a distribution of small gray images, at one budget of computing time: a table.

    python examples/generative_table.py digits
    python examples/generative_table.py mnist --train_data_dir ~/mnist

It runs a training command for each row, and the evaluation command for its measures. The rows are written to
`rows.json`; if the command is started again, it continues with the next one. Features, precision, recall and accuracy
of MNIST are those of a LeNet that is trained first. `--print_commands` only prints these commands.
"""

import argparse
import json
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path

from diffusers_ext.atomic import write_text_atomically
from diffusers_ext.training import evaluate_pipeline
from diffusers_ext.training.evaluation.pipeline_classes import find_pipeline_class
from diffusers_ext.training.evaluation.samples import balanced_labels


NUM_TIMED, NUM_LIKELIHOODS = 100, 500  # images
GRADIENT_DESCENT = {
    "train_batch_size": 64,
    "lr_scheduler": "cosine",
    "lr_warmup_steps": 20,
    "ema_decay": 0.99,
    "checkpointing_steps": 1000,
}
OF_CLASSES = {**GRADIENT_DESCENT, "class_conditional": True}
# The command of each row, and its options on all data. A row after another one's name is trained on its latents.
ROWS = {
    "Gaussian": ("density", {"density": "gaussian"}),
    "mixture of 10 Gaussians": ("density", {"density": "mixture", "num_components": 10}),
    "probabilistic PCA": ("density", {"density": "pca"}),
    "kernel density": ("density", {"density": "kernel"}),
    "VAE": ("autoencoder", {**GRADIENT_DESCENT, "architecture": "mlp", "objective": "beta_vae"}),
    "GAN": (
        "gan",
        {**OF_CLASSES, "architecture": "dcgan", "conditioning": "projection", "loss": "hinge", "spectral_norm": True}
        | {"adam_beta1": 0.0, "adam_beta2": 0.9, "lr_scheduler": "constant"},
    ),
    "diffusion": (
        "diffusion",
        {**GRADIENT_DESCENT, "adam_beta2": 0.99, "timestep_sampling": "logit_normal", "channels_last": True},
    ),
    "energy-based model": ("energy", {**OF_CLASSES, "objective": "persistent"}),
    "Gated PixelCNN": ("pixels", {**OF_CLASSES, "architecture": "gated_pixelcnn"}),
    "PixelCNN++": ("pixels", {**OF_CLASSES, "architecture": "pixelcnn_pp"}),
    "pixel transformer": ("pixels", {**OF_CLASSES, "architecture": "transformer"}),
    "VQ-VAE": ("autoencoder", {**GRADIENT_DESCENT, "architecture": "vqvae"}),
    "VQ-VAE, MaskGIT": ("maskgit", {**OF_CLASSES, "num_inference_steps": 8}),
    "VQ-VAE, token by token": ("image_tokens", OF_CLASSES),
}
DATA = {
    "digits": {"dataset_name": "digits", "resolution": 8, "channels": 1},
    "mnist": {"dataset_name": "ylecun/mnist", "resolution": 28, "channels": 1},
}
# What depends on the size of the images: networks, learning rates, and the updates that the budget allows.
DETAILS = {
    "digits": {
        "Gaussian": {"num_levels": 17, "regularisation": 1e-3},
        "mixture of 10 Gaussians": {"num_levels": 17, "regularisation": 3e-3},
        "probabilistic PCA": {"num_levels": 17, "num_components": 30},
        "kernel density": {"num_levels": 17},
        "VAE": {
            "autoencoder": {"latent_dim": 8, "hidden_dims": [256, 128]},
            "beta": 0.3,
            "kl_warmup_steps": 500,
            "learning_rate": 2e-3,
            "max_train_steps": 6000,
        },
        "GAN": {
            "generator": {"latent_dim": 64, "channels": 128},
            "discriminator": {"channels": 96},
            "learning_rate": 1e-3,
            "max_train_steps": 2000,
        },
        "diffusion": {
            "unet": {"block_out_channels": [24, 48], "layers_per_block": 1, "norm_num_groups": 8}
            | {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2},
            "prediction_type": "flow_prediction",
            "learning_rate": 2e-3,
            "max_train_steps": 600,
        },
        "energy-based model": {
            "model": {"hidden_channels": [32, 64, 128], "strides": [1, 2, 2], "head_dim": 128}
            | {"first_kernel_size": 3, "first_padding": 1},
            "learning_rate": 1e-3,
            "max_train_steps": 700,
        },
        "Gated PixelCNN": {
            "num_levels": 17,
            "model": {"hidden_channels": 48, "dilations": [1] * 6, "dropout": 0.3},
            "learning_rate": 2e-3,
            "max_train_steps": 700,
        },
        "PixelCNN++": {
            "num_levels": 17,
            "model": {"hidden_channels": 32, "num_resnets": 1, "num_scales": 2, "num_mixtures": 5, "dropout": 0.2},
            "learning_rate": 2e-3,
            "max_train_steps": 400,
        },
        "pixel transformer": {
            "num_levels": 17,
            "model": {"hidden_size": 64, "num_layers": 3, "num_attention_heads": 4, "dropout": 0.1},
            "learning_rate": 2e-3,
            "max_train_steps": 1000,
        },
        "VQ-VAE": {
            "autoencoder": {"num_embeddings": 32, "embedding_dim": 8, "num_downsamples": 1, "hidden_channels": 48}
            | {"residual_channels": 16, "num_residual_layers": 1, "ema_decay": 0.95},
            "learning_rate": 2e-3,
            "max_train_steps": 1000,
        },
        "VQ-VAE, MaskGIT": {
            "transformer": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
            | {"intermediate_size": 256},
            "choice_temperature": 1.0,
            "learning_rate": 1e-3,
            "max_train_steps": 1200,
        },
        "VQ-VAE, token by token": {
            "transformer": {"n_embd": 64, "n_layer": 3, "n_head": 4},
            "learning_rate": 2e-3,
            "max_train_steps": 1500,
        },
    },
    "mnist": {
        "Gaussian": {},
        "mixture of 10 Gaussians": {"regularisation": 1e-3},
        "probabilistic PCA": {"num_components": 64},
        "kernel density": {},
        "VAE": {
            "autoencoder": {"latent_dim": 16, "hidden_dims": [512, 256]},
            "beta": 0.5,
            "kl_warmup_steps": 500,
            "learning_rate": 1e-3,
            "max_train_steps": 1500,
        },
        "GAN": {
            "generator": {"latent_dim": 64, "channels": 32},
            "discriminator": {"channels": 32},
            "learning_rate": 5e-4,
            "max_train_steps": 350,
        },
        "diffusion": {
            "unet": {"block_out_channels": [16, 32, 32], "layers_per_block": 1, "norm_num_groups": 8}
            | {"down_block_types": ["DownBlock2D"] * 3, "up_block_types": ["UpBlock2D"] * 3},
            "prediction_type": "flow_prediction",
            "learning_rate": 2e-3,
            "train_batch_size": 32,
            "max_train_steps": 180,
        },
        "energy-based model": {
            "model": {"hidden_channels": [16, 32, 64, 64], "head_dim": 64},
            "learning_rate": 1e-3,
            "train_batch_size": 32,
            "max_train_steps": 280,
        },
        "Gated PixelCNN": {
            "model": {"hidden_channels": 24, "dilations": [1, 2, 1, 4]},
            "learning_rate": 4e-3,
            "train_batch_size": 16,
            "max_train_steps": 160,
        },
        "PixelCNN++": {
            "model": {"hidden_channels": 16, "num_resnets": 1, "num_mixtures": 5, "dropout": 0.0},
            "learning_rate": 4e-3,
            "train_batch_size": 16,
            "max_train_steps": 180,
        },
        "pixel transformer": {
            "model": {"hidden_size": 48, "num_layers": 2, "num_attention_heads": 3},
            "learning_rate": 3e-3,
            "train_batch_size": 4,
            "max_train_steps": 80,
        },
        "VQ-VAE": {
            "autoencoder": {"num_embeddings": 64, "embedding_dim": 8, "num_downsamples": 2, "hidden_channels": 32}
            | {"residual_channels": 16, "num_residual_layers": 1, "ema_decay": 0.95},
            "learning_rate": 2e-3,
            "max_train_steps": 600,
        },
        "VQ-VAE, MaskGIT": {
            "transformer": {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
            | {"intermediate_size": 256},
            "choice_temperature": 1.0,
            "learning_rate": 2e-3,
            "max_train_steps": 250,
        },
        "VQ-VAE, token by token": {
            "transformer": {"n_embd": 64, "n_layer": 3, "n_head": 4},
            "learning_rate": 2e-3,
            "max_train_steps": 250,
        },
    },
}
VQVAE = "VQ-VAE"  # gives the tokens of other rows, and is none itself
MEASURES = {"FID": ("fid", ".3g"), "precision": ("precision", ".3f"), "recall": ("recall", ".3f")}
MEASURES |= {"accuracy": ("accuracy", ".1%"), "bits/dim": ("bits_per_dim", ".2f")}
MEASURES |= {"CPU seconds of training": ("training", ".0f"), "CPU ms per image": ("per_image", ".3g")}


class Table:
    """The rows of a data set, in a folder.

    Args:
        data: `digits` or `mnist`.
        train_data_dir: a local folder with the images, instead of those of the Hub.
        output_dir: where pipelines and rows go.
        num_samples: how many samples of a row are measured.
    """

    def __init__(self, data: str, train_data_dir: str | None, output_dir: Path, num_samples: int):
        self.data, self.output_dir, self.num_samples = data, output_dir, num_samples
        self.source = {**DATA[data]}
        if train_data_dir is not None:
            del self.source["dataset_name"]
            self.source["train_data_dir"] = train_data_dir
        self.extractor = "digits" if data == "digits" else str(output_dir / "lenet")

    def folder(self, name: str) -> str:
        """Where the model of a row is."""
        return str(self.output_dir / name.replace(",", "").replace(" ", "_"))

    def training(self, name: str) -> list[str]:
        """The command that trains the model of a row."""
        job, shared = ROWS[name]
        options = {**self.source, **shared, **DETAILS[self.data][name], "output_dir": self.folder(name)}
        if job in ("maskgit", "image_tokens"):
            options["vae"] = self.folder(VQVAE)
        return ["python", f"training/train_{job}.py", *_options(options)]

    def evaluations(self, name: str) -> list[list[str]]:
        """Options of evaluate_pipeline.py: samples beside training images, and the likelihood of test images."""
        images = {key: value for key, value in self.source.items() if key not in ("resolution", "channels")}
        options = {"pretrained_model_name_or_path": self.folder(name), **images}
        samples = {"feature_extractor": self.extractor, "num_evaluation_samples": self.num_samples}
        evaluations = [{**options, **samples, "guidance_scales": 1.0}]
        kind = {"density": "dequantized", "pixels": "exact"}.get(ROWS[name][0])
        if kind is not None:
            likelihood = {"likelihoods": kind, "num_likelihood_images": NUM_LIKELIHOODS, "dataset_split": "test"}
            evaluations.append({**options, **likelihood})
        return [_options(options) for options in evaluations]

    def lenet(self) -> list[str]:
        """The command that trains the features of images that are no digits of scikit-learn."""
        images = {key: value for key, value in self.source.items() if key not in ("resolution", "channels")}
        return ["python", "examples/train_lenet.py", *_options({**images, "output_dir": self.extractor})]

    def fill(self) -> None:
        """Run what is missing, and print the table."""
        file = self.output_dir / "rows.json"
        rows = json.loads(file.read_text()) if file.exists() else {}
        if self.data != "digits" and not Path(self.extractor).exists():
            cpu_seconds(self.lenet())
        for name in (VQVAE, *ROWS):
            if name not in rows:
                rows[name] = {"training": cpu_seconds(self.training(name))}
                if name != VQVAE:
                    rows[name] |= self.measure(name)
                write_text_atomically(file, json.dumps(rows, indent=1) + "\n")
        print(markdown(rows))

    def measure(self, name: str) -> dict[str, float]:
        """The measures of a row."""
        measures, output = {}, self.output_dir / "evaluation.json"
        for options in self.evaluations(name):
            evaluate_pipeline.main([*options, "--output_file", str(output)])
            measures |= {key: value for row in json.loads(output.read_text()) for key, value in row.items()}
        return {**measures, "per_image": milliseconds_per_image(self.folder(name))}


def milliseconds_per_image(folder: str) -> float:
    """The CPU time of an image, of a batch of them."""
    pipe = find_pipeline_class(folder, cache_dir=None).from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    labels = balanced_labels(pipe.config.get("id2label"), NUM_TIMED)
    started = time.process_time()
    pipe(**({"batch_size": NUM_TIMED} if labels is None else {"class_labels": labels}), output_type="pt")
    return 1000 * (time.process_time() - started) / NUM_TIMED


def cpu_seconds(command: list[str]) -> float:
    """Run a command of this repository, and return the CPU seconds that it took."""
    script = Path(__file__).resolve().parents[1] / command[1]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, str(script), *command[2:]], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def markdown(rows: dict[str, dict]) -> str:
    """The table; the training of a row with codes includes that of the autoencoder."""
    lines = [f"| model | {' | '.join(MEASURES)} |", "|" + "---|" * (len(MEASURES) + 1)]
    for name, row in rows.items():
        if name != VQVAE:
            row = {**row, "training": row["training"] + (rows[VQVAE]["training"] if VQVAE in name else 0)}
            cells = [format(row[key], form) if key in row else "" for key, form in MEASURES.values()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def wrapped(command: list[str], width: int = 119) -> str:
    """A command as it is typed, in lines of a page."""
    parts = []
    for word in map(shlex.quote, command):
        if word.startswith("--") or not parts:
            parts.append(word)
        else:
            parts[-1] += f" {word}"  # a value stays beside its option
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 3 > width:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {part}"
    return "\n".join(lines)


def _options(options: dict) -> list[str]:
    words = []
    for name, value in options.items():
        words.append(f"--{name}")
        if value is not True:
            words.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return words


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--train_data_dir", help="a local folder with the images, instead of the Hub")
    parser.add_argument("--num_samples", type=int, default=500, help="of each row (default: 500)")
    parser.add_argument("--output_dir", type=Path, help="by default outputs/generative_DATA")
    parser.add_argument("--print_commands", action="store_true", help="the trainings, and the measures of one row")
    args = parser.parse_args(arguments)
    folder = args.output_dir or Path(f"outputs/generative_{args.data}")
    table = Table(args.data, args.train_data_dir, folder, args.num_samples)
    if not args.print_commands:
        folder.mkdir(parents=True, exist_ok=True)
        return table.fill()
    for name in ROWS:
        print(wrapped(table.training(name)))
    for options in table.evaluations("Gated PixelCNN"):
        print(wrapped(["python", "training/evaluate_pipeline.py", *options]))


if __name__ == "__main__":
    main()
