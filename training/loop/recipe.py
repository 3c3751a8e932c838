"""What makes one training job differ from another."""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.data import ImageDataset
from diffusers_ext.training.loop.configuration import TrainingConfig
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.ema import EMA, WeightAverage
from diffusers_ext.training.loop.sampling import Generation


class Recipe:
    """A training job: its networks, what one step minimises, and the pipeline that comes out.

    A recipe contains the algorithm. The trainer takes care of processes, precision, accumulation, averages,
    checkpoints and trackers, and knows nothing of losses and samplers. In [`~Recipe.step`] each network is available
    under its name: `self.unet(...)`.

    Args:
        config (`TrainingConfig`): the options, usually of a subclass that adds the recipe's own.
        context (`TrainingContext`): the device, the precision, the other processes, and the actions of a step.
    """

    # The values of a batch that stay on the CPU, because the program reads them. To read a value on a GPU, it would
    # have to wait for all that the GPU has to do.
    on_host: tuple[str, ...] = ("caption_ids",)
    # Whether `--adam_weight_decay` shrinks gains, biases and all other parameters of fewer than two dimensions too.
    decays_vectors: bool = True
    # What the data set has, for people.
    examples: str = "images"
    # Whether a step takes all images at once instead of a batch.
    takes_all_images: bool = False

    def __init__(self, config: TrainingConfig, context: TrainingContext):
        self.config, self.context = config, context
        self.dataset = self.load_dataset()

    # Before the training

    def load_dataset(self) -> ImageDataset:
        """The images to train on."""
        config = self.config
        return config.load_dataset(
            config.size, config.channels, config.center_crop, config.random_flip, load_size=config.load_size
        )

    def describe_data(self) -> str:
        """How many examples of which size the training has, for the card and `--dry_run`."""
        config, dataset = self.config, self.dataset
        known = dataset.num_examples is not None
        count = f"{self.count_examples()} {self.examples}" if known else f"a stream of {self.examples}"
        count += f" ({dataset.num_skipped} unreadable ones left out)" if dataset.num_skipped else ""
        height, width = config.size
        return f"{count}, {height}x{width}x{config.channels}"

    def count_examples(self) -> str:
        """How many examples the data set has, which knows that."""
        return str(self.dataset.num_examples)

    def before_training(self) -> None:
        """What takes long, or needs the networks on their device: the last thing that can fail before the training.

        It decodes the images that are kept or verified.
        """
        self.dataset.prepare()

    def networks(self) -> dict[str, torch.nn.Module]:
        """The networks to train, by name. They are built once, after the random numbers are seeded."""
        raise NotImplementedError

    def optimizer_options(self, name: str) -> dict:
        """Options of the network `name` that differ from the run's, such as a `learning_rate`, by option name."""
        return {}

    def averaged(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which of the networks `names` are averaged over the training: all, or those that are sampled from."""
        return names

    def new_average(self, network: torch.nn.Module, batch_size: int) -> WeightAverage:
        """The average of a network, for `batch_size` images of an update."""
        return EMA(network, self.config.ema_decay)

    def identity(self) -> dict:
        """What a resumed run may not change, beside architecture and data: JSON values by option."""
        return {}

    # The step

    def step(self, batch: dict[str, torch.Tensor], draw: Draw) -> None:
        """One training step: compute losses and hand each to [`~Recipe.minimise`].

        Where several networks are trained, compute a loss after the updates that precede it: an update changes
        weights that an older graph still needs. (With gradient accumulation, all networks are updated in the last of
        the accumulated calls, so the losses of the earlier calls are those before the update.)

        Args:
            batch (`dict`): `pixel_values`, float32 (N, C, H, W) in [-1, 1], and `class_labels`, int64 (N,), if the
                images have labels.
            draw (`Draw`): the source of everything random in this step.
        """
        raise NotImplementedError

    def minimise(self, name: str | tuple[str, ...], loss: torch.Tensor) -> None:
        """Update the network `name`, and no other, to lower the mean of `loss`: one value per sample, or a single one.

        Several names are updated together, by one backward pass. A step may call it several times, or not at all. The
        learning rate follows the steps, not the updates.
        """
        self.context.minimise((name,) if isinstance(name, str) else name, loss)

    def network(self, name: str) -> torch.nn.Module:
        """The network `name` as it was built, for its configuration, buffers and methods.

        `self.<name>` may be a wrapper around it; use that one for calls whose gradients train the network.
        """
        return self.context.networks[name]

    def log(self, **values: torch.Tensor) -> None:
        """Report values beside the losses; their mean over the batch and all processes is recorded."""
        self.context.log(values)

    def gather(self, **values: torch.Tensor) -> None:
        """Keep rows (N, ...) of this step for [`~Recipe.after_update`]; every process and call gives equally many."""
        self.context.keep_rows(values)

    def after_update(self, **gathered: torch.Tensor) -> None:
        """Called after each update, for the state a recipe keeps beside its networks: histories, codebooks, pools.

        It may [`~Recipe.log`] values that are no means over images, such as how many codes a batch uses.

        Args:
            gathered: what the steps of this update gave to [`~Recipe.gather`]: the rows of all processes and all
                accumulated batches, in the order of the global batch. Every process gets the same rows.
        """

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The state that a recipe keeps beside its networks, for checkpoints; the same on every process."""
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue with a saved state."""

    # Results

    def pipeline(self, **networks: torch.nn.Module) -> DiffusionPipeline:
        """The pipeline to sample from and to publish, around the trained networks."""
        raise NotImplementedError

    def complete(self, pipeline: DiffusionPipeline) -> None:
        """Add to the result of a finished run what has to be measured on it. All processes call it, before `save`."""

    def save(self, pipeline: DiffusionPipeline, folder: Path) -> None:
        """Write the result of a finished run: the whole pipeline, or the part that was trained."""
        pipeline.save_pretrained(folder)

    def sample_grid(self, generate: Generation) -> Image.Image:
        """A picture of samples."""
        raise NotImplementedError

    def evaluate(self, generate: Generation) -> list[dict]:
        """Measures of the samples, one row for each way of sampling. Rows hold JSON values."""
        raise NotImplementedError

    def describe(self) -> dict:
        """What the model card says about this recipe: keywords of [`~diffusers_ext.hub.card.model_card`]."""
        raise NotImplementedError
