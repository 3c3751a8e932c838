"""Train sketch-rnn: a network that draws sketches point by point.

    accelerate launch training/train_sketches.py --config examples/kanji_sketches.yaml --train_data_dir short_kanji.npz

"A Neural Representation of Sketch Drawings" (Ha and Eck 2017, https://huggingface.co/papers/1704.03477): a variational
autoencoder of strokes, or with `--decoder_only` their decoder alone. Drawings of Google's QuickDraw (.ndjson), arrays
of points (.npz) and data sets on the Hub are read. The result is a [`SketchPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch

from diffusers_ext.data import SketchDataset, load_sketches
from diffusers_ext.losses import pen_state_loss, standard_normal_kl, stroke_offset_loss
from diffusers_ext.models import SketchRNN
from diffusers_ext.pipelines import SketchPipeline
from diffusers_ext.training.evaluation.grids import class_grid
from diffusers_ext.training.loop.configuration import Config, JSONObject, LRScheduler, RunConfig, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe


class SketchRecipe(Recipe):
    """Ha and Eck 2017, section 3, with the choices of https://github.com/magenta/magenta."""

    examples = "sketches"

    def networks(self) -> dict[str, torch.nn.Module]:
        """The autoencoder of sketches, or the decoder alone."""
        decided = {
            "max_length": self.dataset.max_length,
            "offset_std": self.dataset.offset_std,
            "num_classes": None if self.id2label is None else len(self.id2label),
        }
        if self.config.decoder_only:
            decided["latent_dim"] = None
        return {"model": build_network(SketchRNN, "--model", self.config.model, decided=decided)}

    def step(self, batch, draw):
        lengths, labels = batch["lengths"], self.labels(batch)
        strokes = SketchRNN.to_stroke5(batch["strokes"], lengths)
        latent_dim = self.network("model").config.latent_dim
        noise = None if latent_dim is None else draw.normal(latent_dim)

        output = self.model(strokes, lengths, labels, noise)
        offset_loss = stroke_offset_loss(output.offset_log_prob(strokes[..., :2]), lengths)
        pen_loss = pen_state_loss(output.pen_logits, strokes)
        self.log(offset_loss=offset_loss, pen_loss=pen_loss)
        loss = offset_loss + pen_loss
        if latent_dim is not None:
            kl = standard_normal_kl(output.latent_mean, output.latent_logvar).mean(dim=1)
            self.log(kl_per_latent=kl)
            loss = loss + self.kl_weight(draw.step) * self.tolerated(kl)
        self.minimise("model", loss)

    def kl_weight(self, step: int) -> float:
        """The weight of the divergence in a step, which rises to `--kl_weight` (section 3.3)."""
        config = self.config
        return config.kl_weight - (config.kl_weight - config.kl_weight_start) * config.kl_decay_rate**step

    def tolerated(self, kl: torch.Tensor) -> torch.Tensor:
        """The divergences (N,), or `--kl_tolerance` for all where their mean over all processes is below it."""
        mean = self.context.gather(kl.detach()).mean()
        return torch.where(mean > self.config.kl_tolerance, kl, torch.full_like(kl, self.config.kl_tolerance))

    def pipeline(self, model: torch.nn.Module) -> SketchPipeline:
        """The pipeline that draws, completes, encodes and interpolates sketches."""
        return SketchPipeline(model, id2label=self.id2label)

    # What stands around the algorithm

    def __init__(self, config: SketchConfig, context):
        super().__init__(config, context)
        if config.class_conditional and self.dataset.id2label is None:
            raise ValueError("--class_conditional needs classes: words of QuickDraw, or a --label_column.")
        self.id2label = self.dataset.id2label if config.class_conditional else None
        validation = load_sketches(**config.source(), split=config.validation_split or config.dataset_split)
        if config.class_conditional and validation.id2label != self.dataset.id2label:
            raise ValueError(
                f"The splits {config.dataset_split} and {config.validation_split} differ in their classes."
            )
        self.validation = SketchDataset(validation, self.dataset.max_length, self.dataset.offset_std)

    def load_dataset(self) -> SketchDataset:
        """The sketches to train on."""
        config = self.config
        sketches = load_sketches(**config.source(), split=config.dataset_split)
        return SketchDataset(
            sketches, config.max_length, random_scale=config.random_scale, point_drop=config.point_drop
        )

    def describe_data(self) -> str:
        dataset = self.dataset
        left_out = f" ({dataset.num_left_out} longer ones left out)" if dataset.num_left_out else ""
        return f"{dataset.num_examples} sketches of at most {dataset.max_length} points{left_out}"

    def identity(self) -> dict:
        names = ("random_scale", "point_drop", "kl_weight", "kl_weight_start", "kl_decay_rate", "kl_tolerance")
        return {name: getattr(self.config, name) for name in names}

    def labels(self, batch) -> torch.Tensor | None:
        """The classes that the network sees."""
        return None if self.id2label is None else batch["class_labels"]

    def sample_grid(self, generate):
        """A column per class (the first ten), or a square of samples without."""
        return class_grid(generate, self.id2label, temperature=self.config.temperature, image_size=64)

    @torch.no_grad()
    def evaluate(self, generate):
        """The losses of the validation sketches, with the latents at their means; points only, as in Magenta."""
        config, model, losses = self.config, generate.pipeline.model, []
        for batch in self.validation.reference_batches(config.evaluation_batch_size, **self.context.share):
            batch = {name: values.to(self.context.device) for name, values in batch.items()}
            lengths, strokes = batch["lengths"], SketchRNN.to_stroke5(batch["strokes"], batch["lengths"])
            output = model(strokes, lengths if model.config.latent_dim else None, self.labels(batch))
            values = {
                "offset_loss": stroke_offset_loss(output.offset_log_prob(strokes[..., :2]), lengths),
                "pen_loss": pen_state_loss(output.pen_logits, strokes, lengths),
            }
            if output.latent_mean is not None:
                values["kl_per_latent"] = standard_normal_kl(output.latent_mean, output.latent_logvar).mean(dim=1)
            losses.append(torch.stack(list(values.values()), dim=1))
        means = self.context.gather_rows(losses).double().mean(dim=0).tolist()
        split = config.validation_split or config.dataset_split
        provenance = {"split": split, "num_sketches": self.validation.num_examples, "unit": "nats per padded step"}
        return [{**dict(zip(values, means, strict=True)), "provenance": provenance}]

    def describe(self) -> dict:
        names, conditional = self.id2label, not self.config.decoder_only
        kind = "a variational autoencoder of strokes" if conditional else "the decoder of strokes alone"
        call = "batch_size=4" if names is None else f"class_labels={next(iter(names.values()))!r}"
        usage = [f'sketches = pipe({call}, temperature=0.5)\nsketches.images[0].save("sketch.png")']
        if conditional and names is None:
            usage += ["walk = pipe.interpolate(sketches.strokes[0], sketches.strokes[1], num_steps=8).images"]
        usage += [f'svg = pipe({call}, sketch=sketches.strokes[0][:10], output_type="svg").images[0]']
        return {
            "task": f"Sketches point by point: sketch-rnn, {kind}, trained from random weights.",
            "usage": "\n".join(usage),
            "tags": ["sketch-rnn", "sketch", "svg"],
        }


@dataclass
class SketchDataConfig(Config):
    """Where the sketches come from."""

    option_group = "data"

    dataset_name: str | None = option(help="A data set on the Hub, or a local file or folder.", essential=True)
    dataset_config_name: str | None = option(help="The configuration of the data set, if it has several.")
    train_data_dir: str | None = option(
        help="An .ndjson file of QuickDraw, an .npz file of points, or a folder of them, instead of --dataset_name.",
        essential=True,
    )
    dataset_split: str = option("train", help="The split to train on.")
    validation_split: str | None = option(
        help="The split that is measured; by default the split for training.", group="evaluation"
    )
    sketch_column: str = option("drawing", help="The column that holds the drawings, of data sets with columns.")
    label_column: str | None = option(
        help="The column of the classes, by default `word` or `label`; `none` for no classes."
    )
    cache_dir: str | None = option(help="Where downloaded data sets are kept.")
    max_length: int | None = option(
        help="The most points of a sketch, longer ones are left out; by default those of the longest."
    )
    random_scale: float = option(0.15, help="Both axes are scaled by random factors of 1 plus or minus this.")
    point_drop: float = option(0.1, help="How often a point within a stroke is left out.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "max_length")
        for name in ("random_scale", "point_drop"):
            value = getattr(self, name)
            self.require(0 <= value < 1, f"--{name} must be in [0, 1), not {value}")
        self.require_default(
            self.dataset_name is not None, ("dataset_config_name",), "is for --dataset_name, which is not set"
        )

    def source(self) -> dict:
        """The options that name the sketches, as keywords of [`load_sketches`]."""
        names = (
            "dataset_name",
            "dataset_config_name",
            "train_data_dir",
            "sketch_column",
            "label_column",
            "cache_dir",
        )
        return {name: getattr(self, name) for name in names}


@dataclass
class SketchConfig(RunConfig, SketchDataConfig):
    """The options of train_sketches.py."""

    model: JSONObject = option(
        JSONObject(), help="Arguments of SketchRNN, as JSON or a YAML mapping.", group="network"
    )
    decoder_only: bool = option(False, help="Train the decoder alone, without latents.", group="network")
    class_conditional: bool = option(False, help="Tell the decoder the class of a sketch.")
    kl_weight: float = option(0.5, help="The weight of the divergence per latent, at the end of the annealing.")
    kl_weight_start: float = option(0.01, help="This weight in the first step.")
    kl_decay_rate: float = option(0.99995, help="What the rest to --kl_weight is multiplied by in each update.")
    kl_tolerance: float = option(0.2, help="The divergence per latent in nats below which it is not lowered.")

    learning_rate: float = option(1e-3, help="The learning rate in the first step.")
    lr_scheduler: LRScheduler = option("exponential", help="How the learning rate changes after a linear warm-up.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    max_grad_norm: float = option(0.0, help="Scale gradients down to this norm if they are larger; 0 never does.")
    max_grad_value: float | None = option(1.0, help="Limit each value of a gradient to plus or minus this number.")
    use_ema: bool = option(False, help="Keep a moving average of the weights, which is sampled and published.")
    train_batch_size: int = option(100, help="Sketches per process and step.")

    temperature: float = option(0.5, help="The temperature of the sketches in the picture.", group="evaluation")
    evaluation_batch_size: int = option(100, help="Sketches per process and call.", group="evaluation")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(0, "kl_weight", "kl_weight_start", "kl_tolerance")
        self.require_at_least(1, "evaluation_batch_size")
        self.require(0 < self.kl_decay_rate <= 1, f"--kl_decay_rate must be in (0, 1], not {self.kl_decay_rate}")
        self.require(self.temperature > 0, f"--temperature must be positive, not {self.temperature}")
        self.require_default(
            not self.decoder_only,
            ("kl_weight", "kl_weight_start", "kl_decay_rate", "kl_tolerance"),
            "has no effect with --decoder_only",
        )
        self.require_default(
            False, ("dataloader_num_workers", "channels_last"), "has no effect: sketches are no images"
        )


if __name__ == "__main__":
    run(SketchRecipe, SketchConfig)
