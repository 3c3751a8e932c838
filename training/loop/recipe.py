"""What distinguishes one training job from another."""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.training.loop.configuration import TrainingConfig
from diffusers_ext.training.loop.draws import Draw


class Recipe:
    """A training job: its networks, what one step minimises, and the pipeline that comes out.

    A recipe knows nothing of processes, precision, accumulation, averages, checkpoints or trackers: those are the
    trainer's, which knows nothing of losses and samplers. In [`~Recipe.step`] each network stands under its name,
    ready for use: `self.unet(...)`.

    Args:
        config (`TrainingConfig`): the options, usually of a subclass that adds the recipe's own.
    """

    config_class: type[TrainingConfig] = TrainingConfig

    def __init__(self, config: TrainingConfig):
        self.config = config
        self.dataset = config.load_dataset(
            config.size, config.channels, config.center_crop, config.random_flip, load_size=config.load_size
        )

    def identity(self) -> dict:
        """What a resumed run may not change, beside architecture and data: JSON values by option."""
        return {}

    def networks(self) -> dict[str, torch.nn.Module]:
        """The networks to train, by name. They are built once, after the random numbers are seeded."""
        raise NotImplementedError

    def optimizer_options(self, name: str) -> dict:
        """Options that the network `name` has of its own, such as a `learning_rate`: values by field of the config."""
        return {}

    def averaged(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Which of the networks `names` are averaged over the training: all, or those that are sampled from."""
        return names

    def step(self, batch: dict[str, torch.Tensor], draw: Draw) -> None:
        """One training step: compute losses and hand each to [`~Recipe.minimise`].

        Where several networks are trained, a loss is computed after the updates before it: an update changes weights
        that an older graph still needs. (Under gradient accumulation all networks are updated in the last of the
        accumulated calls, so that the losses of the first ones are those before the step.)

        Args:
            batch (`dict`): `pixel_values`, float32 (N, C, H, W) in [-1, 1], and `class_labels`, int64 (N,), if the
                images have labels.
            draw (`Draw`): all that is random in this step.
        """
        raise NotImplementedError

    def minimise(self, name: str | tuple[str, ...], loss: torch.Tensor) -> None:
        """Update the network `name`, and no other, to lower the mean of `loss`, a value per sample or a single one.

        Several names are updated together, by one backward pass. It may be called several times in a step, or not at
        all. The learning rate follows the steps, not the updates.
        """
        self._trainer.minimise((name,) if isinstance(name, str) else name, loss)

    def network(self, name: str) -> torch.nn.Module:
        """The network `name` as it was built, for its configuration, buffers and methods: `self.<name>` may be a
        wrapper around it, which is for calls whose gradients count."""
        return self._trainer.networks[name]

    def log(self, **values: torch.Tensor) -> None:
        """Report values beside the losses; their mean over the batch and all processes is recorded."""
        self._trainer.record(values)

    def gather(self, **values: torch.Tensor) -> None:
        """Hand rows (N, ...) of this step to [`~Recipe.after_update`], as many on each process and in each call."""
        self._trainer.gather(values)

    def after_update(self, **gathered: torch.Tensor) -> None:
        """Called after each update, for what a recipe keeps beside its networks: histories, codebooks, image pools.

        Args:
            gathered: what the steps of this update gave to [`~Recipe.gather`]: the rows of all processes and all
                accumulated batches, in the order of the global batch. It is the same on every process.
        """

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What a recipe keeps beside its networks, for checkpoints; the same on every process, see `after_update`."""
        return {}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue with a saved state."""

    def pipeline(self, **networks: torch.nn.Module) -> DiffusionPipeline:
        """The pipeline to sample from and to publish, around the trained networks."""
        raise NotImplementedError

    def save(self, pipeline: DiffusionPipeline, folder: Path) -> None:
        """Write what a finished run leaves behind: the whole pipeline, or the part that was trained."""
        pipeline.save_pretrained(folder)

    def sample_grid(self, generate) -> Image.Image:
        """A picture of samples. `generate` is a [`~diffusers_ext.training.loop.sampling.Generation`]."""
        raise NotImplementedError

    def evaluate(self, generate) -> list[dict]:
        """Measures of the samples, a row for each way of sampling. Rows hold JSON values."""
        raise NotImplementedError

    def describe(self) -> dict:
        """What the model card says of this recipe: keywords of [`~diffusers_ext.hub.card.model_card`]."""
        raise NotImplementedError
