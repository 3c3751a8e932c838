"""A whole run of two tiny networks, in this process: checkpoints, a model, samples, metrics and a card."""

from dataclasses import replace
from pathlib import Path

from PIL import Image
from safetensors.torch import save_file

from diffusers_ext.training.loop.trainer import Trainer
from tests.training.pair_recipe import PairConfig, PairRecipe
from tests.training.runs import trainer


class _Pair:
    def __init__(self, **networks):
        self.networks = networks

    def set_progress_bar_config(self, **options) -> None:
        pass


class SmallRecipe(PairRecipe):
    """Saves the player alone, and measures nothing."""

    def pipeline(self, **networks):
        return _Pair(**networks)

    def save(self, pipeline, folder: Path) -> None:
        from diffusers_ext.training.loop.model_files import write_whole

        weights = pipeline.networks["player"].state_dict()
        write_whole(lambda new: save_file(weights, new / "player.safetensors"), folder, last="player.safetensors")

    def sample_grid(self, generate):
        return Image.new("RGB", (2, 2))

    def evaluate(self, generate):
        return []

    def describe(self):
        return {"task": "Nothing."}


def small_run(folder: Path, **options) -> Trainer:
    """A trainer of six steps, with a checkpoint after every second one."""
    config = PairConfig(
        dataset_name="digits",
        resolution=[8],
        channels=1,
        train_batch_size=4,
        max_train_steps=6,
        checkpointing_steps=2,
        learning_rate=1e-3,
        lr_scheduler="cosine",
        lr_warmup_steps=2,
        output_dir=str(folder),
    )
    return trainer(SmallRecipe, replace(config, **options))
