"""What a recipe and an evaluation may know of the machine: the device, the precision, and the other processes."""

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from accelerate import Accelerator
from torch.distributed.nn.functional import all_gather
from tqdm.auto import tqdm

from diffusers_ext.metrics.extractors import FeatureExtractor, FeatureOutput
from diffusers_ext.training.loop.sharding import is_sharding


class Context:
    """The device, the precision and the processes of a run.

    Args:
        accelerator (`Accelerator`): from [`~diffusers_ext.training.loop.accelerator.build_accelerator`].

    Attributes:
        device (`torch.device`): where this process computes.
        precision (`str`): "no" (float32), "fp16" or "bf16": what `autocast` computes in.
        process_index, num_processes (`int`): this process, from 0, and how many there are.
        is_main_process (`bool`): whether this process writes files.
    """

    def __init__(self, accelerator: Accelerator):
        self._accelerator = accelerator
        self.device = accelerator.device
        self.precision = accelerator.mixed_precision
        self.process_index, self.num_processes = accelerator.process_index, accelerator.num_processes
        self.is_main_process = accelerator.is_main_process
        self.is_local_main_process = accelerator.is_local_main_process
        self._is_sharding = is_sharding(accelerator)

    @property
    def share(self) -> dict[str, int]:
        """The part of a data set that this process handles, as keywords of `ImageDataset.reference_batches`."""
        return {"process_index": self.process_index, "num_processes": self.num_processes}

    def autocast(self) -> AbstractContextManager:
        """In this context, networks compute in the run's precision."""
        return self._accelerator.autocast()

    def refuse_sharding(self, option: str) -> None:
        """Raise an error if the weights are divided among processes (FSDP), which `option` does not allow.

        Raises:
            ValueError: in one sentence that names the option.
        """
        if self._is_sharding:
            raise ValueError(
                f"{option} needs the graph of a backward pass through whole weights, which FSDP divides again too "
                "early: leave it out, or launch this training without FSDP."
            )

    def wait_for_everyone(self) -> None:
        """Wait until every process has reached this call."""
        self._accelerator.wait_for_everyone()

    def progress(self, iterable: Iterable, description: str) -> Iterable:
        """Show how far an iteration is, once per machine."""
        return tqdm(iterable, description, disable=not self.is_local_main_process)

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows (P*N, ...) of all processes, in the order of the processes, without gradients.

        Args:
            rows (`torch.Tensor` of shape (N, ...)): this process's rows; every process has equally many.
        """
        return self._accelerator.gather(rows)

    def gather_rows(self, own: list[torch.Tensor]) -> torch.Tensor:
        """Put rows together that were dealt out to the processes: row i is on process i % num_processes.

        Args:
            own (`list[torch.Tensor]`): this process's rows in order, in batches of shape (B, ...).

        Returns:
            `torch.Tensor`: all rows in order, on the CPU of every process.

        Raises:
            ValueError: if a process has none.
        """
        if not own:
            raise ValueError("There are fewer images than processes: launch fewer processes.")
        rows = torch.cat(own)
        if self.num_processes == 1:
            return rows.cpu()
        counts = self.gather(torch.tensor([len(rows)], device=self.device)).cpu()
        longest = int(counts.max())
        padding = rows[:1].expand(longest - len(rows), *rows.shape[1:])
        gathered = self.gather(torch.cat([rows, padding]).to(self.device)).cpu()
        by_place = gathered.view(self.num_processes, longest, *rows.shape[1:]).transpose(0, 1)
        # A process can have fewer rows than the one after it, if images can't be read.
        return by_place[torch.arange(longest)[:, None] < counts]

    def gather_features(self, extractor: FeatureExtractor, batches: Iterable[torch.Tensor]) -> FeatureOutput:
        """The features of all processes' images, on each of them; `batches` are this process's own images."""
        outputs = [extractor(images.to(self.device)) for images in batches]
        features = self.gather_rows([output.features for output in outputs])
        logits = None
        if outputs[0].logits is not None:
            logits = self.gather_rows([output.logits for output in outputs])
        return FeatureOutput(features=features, logits=logits)

    def all_rows(self, own: torch.Tensor) -> torch.Tensor:
        """The rows (P*N, ...) of all processes, in their order, with gradients for this process's own rows.

        The mean of a loss over each process's own rows, averaged over the processes, therefore has the gradient of one
        loss over the global batch.
        """
        return own if self.num_processes == 1 else torch.cat(all_gather(own.contiguous()))


class TrainingContext(Context):
    """A [`Context`] with what a recipe may do in a step; the trainer carries it out.

    Attributes:
        networks (`dict[str, torch.nn.Module]`): the networks as the recipe built them, by name, without the wrappers
            of distributed training.
    """

    def __init__(self, accelerator: Accelerator):
        super().__init__(accelerator)
        self.networks: dict[str, torch.nn.Module] = {}

    def attach(self, trainer) -> None:
        """Let a [`~diffusers_ext.training.loop.trainer.Trainer`] carry out what the recipe asks for."""
        self._trainer = trainer

    def minimise(self, names: tuple[str, ...], loss: torch.Tensor) -> None:
        """See [`~diffusers_ext.training.loop.recipe.Recipe.minimise`]."""
        self._trainer.minimise(names, loss)

    def log(self, values: dict[str, torch.Tensor]) -> None:
        """See [`~diffusers_ext.training.loop.recipe.Recipe.log`]."""
        self._trainer.record(values)

    def keep_rows(self, values: dict[str, torch.Tensor]) -> None:
        """See [`~diffusers_ext.training.loop.recipe.Recipe.gather`]."""
        self._trainer.keep_rows(values)
