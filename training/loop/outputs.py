"""The outputs of a run: the pipeline, a grid of samples, the metrics, the options and the model card."""

import io
import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from diffusers_ext.atomic import write_bytes_atomically
from diffusers_ext.hub import write_model_card
from diffusers_ext.hub.local_paths import shown_arguments
from diffusers_ext.hub.own_files import write_own
from diffusers_ext.training.loop.ema import EMA
from diffusers_ext.training.loop.html_report import Progress, write_report
from diffusers_ext.training.loop.next_steps import next_steps
from diffusers_ext.training.loop.publication import Publication
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.loop.sharding import whole_networks, whole_state_dicts
from diffusers_ext.training.loop.write_errors import writing


# The last checkpoint has the trained state.
WRITE_AGAIN = "run the command again with --resume_from_checkpoint latest, which writes them without training again"


class Outputs:
    """Samples, measures and publishes the networks of a recipe; the averaged ones, if there are averages.

    Args:
        recipe (`Recipe`): builds the pipeline and its measures.
        accelerator (`Accelerator`): all processes take part in sampling; the main one writes.
        networks, averages (`dict`): the networks without wrappers, and their `EMA`s.
    """

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Accelerator,
        networks: dict[str, torch.nn.Module],
        averages: dict[str, EMA],
    ):
        self.recipe, self.config, self.accelerator = recipe, recipe.config, accelerator
        self.networks, self.averages = networks, averages
        self.output_dir = Path(self.config.output_dir)
        self.next_steps = ""  # what to do with the result, once it is written
        self.publication = None
        if self.config.push_to_hub and accelerator.is_main_process:
            self.publication = Publication(
                self.output_dir,
                self.config.hub_model_id or self.output_dir.name,
                token=self.config.hub_token,
                private=self.config.hub_private_repo,
            )
            self.publication.prepare()

    @contextmanager
    def _generation(self) -> Iterator[Generation]:
        with ExitStack() as stack:
            for average in self.averages.values():
                stack.enter_context(average.applied())
            if self.config.compile:
                # The networks are compiled for the shapes of training; other batch sizes would be compiled again.
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for network in self.networks.values():
                network.eval()
                stack.callback(network.train)
            pipeline = self.recipe.pipeline(**self.networks)
            pipeline.set_progress_bar_config(disable=True)
            # Processes call networks unequally often here, which they must not do with divided ones.
            stack.enter_context(whole_networks(self.networks))
            yield Generation(
                pipeline, self.recipe.context, seed=self.config.seed, batch_size=self.config.evaluation_batch_size
            )

    def write_samples(self, step: int) -> None:
        """Write `samples/step-<step>.png`, and send it to the trackers."""
        with self._generation() as generate:
            grid = self.recipe.sample_grid(generate)
        with writing(f"The samples of step {step}", "continue with --resume_from_checkpoint latest"):
            if self.accelerator.is_main_process:
                save_image(grid, self.output_dir / "samples" / f"step-{step}.png")
            self._track_grid(grid, step)

    def evaluate(self, step: int) -> list[dict]:
        """Measure the samples; see [`Recipe.evaluate`]."""
        with self._generation() as generate:
            rows = self.recipe.evaluate(generate)
        self._track_rows(rows, step)
        return rows

    def write_report(self, progress: Progress, rows: Sequence[dict] = ()) -> None:
        """Write `report.html`; see [`~diffusers_ext.training.loop.html_report`]."""
        if self.accelerator.is_main_process:
            options = {name: value for name, value in self.recipe.config.to_dict().items() if value is not None}
            with writing(f"The report of step {progress.step}", "continue with --resume_from_checkpoint latest"):
                write_report(
                    self.output_dir, self.output_dir.absolute().name, progress, options, rows, shown_command(sys.argv)
                )

    def _track_grid(self, grid: Image.Image, step: int) -> None:
        for tracker in self.accelerator.trackers:
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            if hasattr(tracker, "log_images"):
                tracker.log_images({"samples": np.asarray(grid)[None]}, step=step, **layout)

    def _track_rows(self, rows: Sequence[dict], step: int) -> None:
        for row in rows:
            scale = [f"guidance_scale={row['guidance_scale']}"] if "guidance_scale" in row else []
            where = [*_labels(row).values(), *scale]
            values = {"/".join([*where, name]): value for name, value in row.items() if isinstance(value, float)}
            self.accelerator.log(values, step=step)

    def write(self, progress: Progress) -> None:
        """Write everything to the output folder. Files of the user there stay."""
        with self._generation() as generate:
            pipeline_class = type(generate.pipeline).__name__
            self.recipe.complete(generate.pipeline)
            description = self.recipe.describe()
            self.next_steps = next_steps(self.output_dir, generate.pipeline, self.recipe.config, description)
            is_main_process = self.accelerator.is_main_process
            with whole_state_dicts(self.networks, keep=is_main_process):
                if is_main_process:
                    with writing(f"The model in {self.output_dir}", WRITE_AGAIN):
                        self.recipe.save(generate.pipeline, self.output_dir)
            grid = self.recipe.sample_grid(generate)
            rows = self.recipe.evaluate(generate)
        if self.accelerator.is_main_process:
            skipped = {"skipped_images": self.recipe.dataset.num_skipped} if self.recipe.dataset.num_skipped else {}
            seconds = round(progress.seconds, 1)
            metrics = {"step": progress.step, **skipped, "training_seconds": seconds, "evaluations": rows}
            with writing(f"The samples, metrics and card in {self.output_dir}", WRITE_AGAIN):
                write_own(self.output_dir, "samples.png", png(grid))
                write_own(self.output_dir, "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
                write_own(self.output_dir, "training_config.yaml", self.config.to_yaml().encode())
                self._write_card(pipeline_class, rows)
                self.write_report(progress, rows)
        with writing("The trackers' logs", WRITE_AGAIN):
            self._track_grid(grid, progress.step)
            self._track_rows(rows, progress.step)
        self.accelerator.wait_for_everyone()

    def publish(self) -> None:
        """Publish the output folder if `--push_to_hub` is given."""
        if self.publication is not None:
            self.publication.publish()

    def _write_card(self, pipeline_class: str, rows: list[dict]) -> None:
        config, dataset = self.config, self.recipe.dataset
        source = config.dataset_name or config.train_data_dir
        is_local = config.dataset_name in (None, "digits") or Path(source).expanduser().exists()
        name = Path(os.path.abspath(source)).name if is_local else source
        # A recipe that reads more data than this describes it itself.
        data = {
            "dataset": f"`{name}`, split `{config.dataset_split}`: {self.recipe.describe_data()}.",
            "dataset_id": None if is_local else source,
        }
        description = {**data, **self.recipe.describe()}
        base_model = description.get("base_model")
        if base_model is not None and Path(base_model).exists():  # the Hub refuses a card that names a folder
            description["base_model"] = None
        write_model_card(
            self.output_dir,
            title=(config.hub_model_id or self.output_dir.name).split("/")[-1],
            pipeline_class=pipeline_class,
            license=config.license,
            command=shown_command(sys.argv),
            config=config.to_dict(),
            metrics=[card_row(row) for row in rows],
            measures=sorted({name for row in rows for name, value in row.items() if _is_measure(name, value)}),
            id2label=dataset.id2label,
            **description,
        )


def png(image: Image.Image) -> bytes:
    """The content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG file."""
    write_bytes_atomically(path, png(image))


def _is_measure(name: str, value) -> bool:
    return isinstance(value, float) and name != "guidance_scale"


def _labels(row: dict) -> dict[str, str]:
    """The entries that distinguish a row from the others of an evaluation, beside its guidance scale."""
    return {name: row[name] for name in ("task", "method") if name in row}


def card_row(row: dict) -> dict:
    """A row of an evaluation as tables show it: the measures, and how they were computed."""
    measures = {name: value for name, value in row.items() if _is_measure(name, value)}
    shown = ("guidance_scale", "num_inference_steps", "scheduler", "num_generated", "extractor")
    return {**_labels(row), **{name: row["provenance"].get(name) for name in shown}, **measures}


def shown_command(argv: list[str]) -> str:
    """The command that repeats a run, without the access token and the folders of local paths."""
    return shlex.join(["accelerate", "launch", f"training/{Path(argv[0]).name}", *shown_arguments(argv[1:])])
