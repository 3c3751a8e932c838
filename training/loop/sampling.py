"""Sampling on all processes: image i is the same whatever the batch size and the number of processes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from torch.distributed.nn.functional import all_gather

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.metrics.extractors import FeatureExtractor, FeatureOutput


@dataclass
class Generation:
    """Samples a pipeline on all processes.

    Args:
        pipeline (`DiffusionPipeline`): takes `class_labels` or `batch_size`, a list of generators, and `output_type`.
        accelerator (`Accelerator`): divides the images among the processes.
        seed (`int`): image i starts from noise that depends on this and i only.
        batch_size (`int`): images per process and call.
    """

    pipeline: DiffusionPipeline
    accelerator: Accelerator
    seed: int
    batch_size: int

    def batches(
        self,
        count: int,
        class_labels: list[int] | None = None,
        per_image: dict[str, list] | None = None,
        **arguments,
    ) -> Iterator[torch.Tensor]:
        """This process's share of `count` images, those with index % num_processes == process_index.

        Args:
            count (`int`): how many images all processes make together.
            class_labels (`list[int]`, *optional*): a label for each of them.
            per_image (`dict[str, list]`, *optional*): other arguments of the pipeline's call with a value for each.
            arguments: further arguments of the pipeline's call.

        Yields:
            uint8 of shape (B, C, H, W) on the CPU.
        """
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        own = range(process, count, processes)
        lists = {**(per_image or {}), **({} if class_labels is None else {"class_labels": class_labels})}
        for start in range(0, len(own), self.batch_size):
            indices = own[start : start + self.batch_size]
            which = {name: [values[index] for index in indices] for name, values in lists.items()}
            which = which or {"batch_size": len(indices)}
            generators = [torch.Generator().manual_seed(derive_seed(self.seed, "sample", i)) for i in indices]
            images = self.pipeline(**which, generator=generators, output_type="pt", **arguments).images
            yield images.mul(255).round().to("cpu", torch.uint8)

    def images(
        self,
        count: int,
        class_labels: list[int] | None = None,
        per_image: dict[str, list] | None = None,
        **arguments,
    ) -> torch.Tensor:
        """All `count` images in order, on every process: uint8 of shape (count, C, H, W) on the CPU."""
        return gather_rows(list(self.batches(count, class_labels, per_image, **arguments)), self.accelerator)


def gather_rows(own: list[torch.Tensor], accelerator: Accelerator) -> torch.Tensor:
    """Put together what processes hold of some rows, row i being on process i % num_processes.

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
    if accelerator.num_processes == 1:
        return rows.cpu()
    counts = accelerator.gather(torch.tensor([len(rows)], device=accelerator.device)).tolist()
    padding = rows[:1].expand(max(counts) - len(rows), *rows.shape[1:])
    gathered = accelerator.gather(torch.cat([rows, padding]).to(accelerator.device)).cpu()
    by_process = gathered.view(accelerator.num_processes, max(counts), *rows.shape[1:])
    return by_process.transpose(0, 1).flatten(0, 1)[: sum(counts)]


def gather_features(
    extractor: FeatureExtractor, batches: Iterable[torch.Tensor], accelerator: Accelerator
) -> FeatureOutput:
    """The features of all processes' images, on each of them; `batches` are this process's own."""
    outputs = [extractor(images.to(accelerator.device)) for images in batches]
    features = gather_rows([output.features for output in outputs], accelerator)
    logits = None
    if outputs[0].logits is not None:
        logits = gather_rows([output.logits for output in outputs], accelerator)
    return FeatureOutput(features=features, logits=logits)


def all_rows(own: torch.Tensor) -> torch.Tensor:
    """The rows (P*N, ...) of all processes, those of process 0 first, with gradients to those that each has itself.

    A loss of each process that is a mean over its own rows, and averaged over processes, thus has the gradient of the
    one loss over the global batch.
    """
    if not torch.distributed.is_initialized():
        return own
    return torch.cat(all_gather(own.contiguous()))
