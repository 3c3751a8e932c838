"""Sampling on all processes: image i does not depend on the batch size or the number of processes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.training.loop.context import Context


@dataclass
class Generation:
    """Samples a pipeline on all processes.

    Args:
        pipeline (`DiffusionPipeline`): takes `class_labels` or `batch_size`, a list of generators, and `output_type`.
        context (`Context`): the processes among which the images are divided.
        seed (`int`): image i starts from noise that depends only on this and i.
        batch_size (`int`): images per process and call.
    """

    pipeline: DiffusionPipeline
    context: Context
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
            class_labels (`list[int]`, *optional*): a label for each image.
            per_image (`dict[str, list]`, *optional*): other arguments of the pipeline's call, a value for each image.
            arguments: further arguments of the pipeline's call.

        Yields:
            uint8 of shape (B, C, H, W) on the CPU.
        """
        process, processes = self.context.process_index, self.context.num_processes
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
        return self.context.gather_rows(list(self.batches(count, class_labels, per_image, **arguments)))
