"""The order in which training visits the images of a set: for every position the image, as a function of the seed."""

import torch

from diffusers_ext.data.randomness import derive_seed


class ShuffledOrder:
    """One epoch after the other; each epoch visits all images in its own random order.

    Args:
        num_examples: N, the number of images.
    """

    def __init__(self, num_examples: int):
        self.num_examples = num_examples
        self._latest = (None, None)

    def visits(self, seed: int, position: int, size: int) -> tuple[torch.Tensor, list[int]]:
        """The visits at the positions position + [0, size): the images, int64 (size,), and the epoch of each."""
        rows, epochs = [], []
        while size > 0:
            epoch, offset = divmod(position, self.num_examples)
            taken = self._epoch(seed, epoch)[offset : offset + size]
            rows.append(taken)
            epochs += [epoch] * len(taken)
            position, size = position + len(taken), size - len(taken)
        return torch.cat(rows), epochs

    def _epoch(self, seed: int, epoch: int) -> torch.Tensor:
        if self._latest[0] != (seed, epoch):  # most calls are for the same epoch as the call before
            self._latest = ((seed, epoch), permutation(self.num_examples, seed, epoch))
        return self._latest[1]


def permutation(num_examples: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of the images in an epoch, int64 (num_examples,): a function of the arguments."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(num_examples, generator=generator)
