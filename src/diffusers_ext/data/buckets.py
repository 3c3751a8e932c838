"""Aspect-ratio buckets: images of several shapes, each cropped as little as possible, in batches of one shape each.

As in the fine-tuning of NovelAI (2022, "Improvements on Stable Diffusion"): there is a list of sizes of about the same
number of pixels, an image is brought to that which is nearest to its own aspect ratio, and batches are drawn from one
size at a time.
"""

import functools
import math
from bisect import bisect_right
from collections.abc import Sequence

import torch

from diffusers_ext.data.order import ShuffledOrder
from diffusers_ext.data.randomness import derive_seed


Size = tuple[int, int]


def aspect_ratio_buckets(resolution: int, step: int = 64, max_ratio: float = 2.0) -> list[Size]:
    """Sizes (height, width) with at most `resolution`**2 pixels, whose sides are multiples of `step`.

    For each width up to `max_ratio` times the height there is the largest height, and the other way round.

    Args:
        resolution: the side of the square one, in pixels.
        step: what both sides are a multiple of.
        max_ratio: the longer side is at most so many times the shorter one.

    Raises:
        ValueError: unless `resolution` is a multiple of `step`, and `max_ratio` at least 1.
    """
    if step < 1 or resolution < step or resolution % step:
        raise ValueError(f"the resolution of buckets must be a multiple of their step {step}, not {resolution}")
    if not max_ratio >= 1:
        raise ValueError(f"the ratio of a bucket's sides is at least 1, not {max_ratio}")
    sizes = {(resolution, resolution)}
    for longer in range(resolution, math.isqrt(int(max_ratio * resolution**2)) + 1, step):
        shorter = resolution**2 // longer // step * step
        if shorter * max_ratio >= longer:
            sizes |= {(shorter, longer), (longer, shorter)}
    return sorted(sizes)


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose aspect ratio is nearest to that of `size` (height, width), by the factor between them."""
    ratio = math.log(size[0] / size[1])
    return min(buckets, key=lambda bucket: abs(math.log(bucket[0] / bucket[1]) - ratio))


class BucketOrder:
    """Runs of images of one bucket each, the buckets in random order and as often as they have images.

    Each bucket is an endless `ShuffledOrder` of its images, of which every run takes the next `run_length`: nothing is
    dropped, and after e epochs of the whole set every image has been visited e times, up to a run of its bucket.
    Which run is where is a function of the seed and the position only.

    Args:
        bucket_of: int64 (N,), the bucket of each image.
        run_length: how many positions in a row share a bucket, from each multiple of this.
    """

    def __init__(self, bucket_of: torch.Tensor, run_length: int):
        self.run_length = run_length
        self.members = [(bucket_of == bucket).nonzero().flatten() for bucket in bucket_of.unique()]
        self.counts = tuple(len(rows) for rows in self.members)
        self.orders = [ShuffledOrder(count) for count in self.counts]

    def visits(self, seed: int, position: int, size: int) -> tuple[torch.Tensor, list[int]]:
        """What is at the positions position + [0, size), of one run: see `ShuffledOrder.visits`."""
        run, offset = divmod(position, self.run_length)
        # After e epochs a bucket of n images has had floor(e * n / run_length) runs.
        latest = (run + len(self.counts) + 1) * self.run_length // sum(self.counts) + 2
        epoch = bisect_right(range(latest), run, key=self._runs_before) - 1
        plan = _plan(self.counts, self.run_length, seed, epoch)
        place = run - self._runs_before(epoch)
        bucket = plan[place].item()
        earlier = epoch * self.counts[bucket] // self.run_length + (plan[:place] == bucket).sum().item()
        own_seed = derive_seed(seed, "bucket", bucket)
        rows, epochs = self.orders[bucket].visits(own_seed, earlier * self.run_length + offset, size)
        return self.members[bucket][rows], epochs

    def _runs_before(self, epoch: int) -> int:
        return sum(epoch * count // self.run_length for count in self.counts)


@functools.lru_cache(maxsize=2)
def _plan(counts: tuple[int, ...], run_length: int, seed: int, epoch: int) -> torch.Tensor:
    """The buckets of the runs of an epoch, in random order."""
    num_runs = [(epoch + 1) * count // run_length - epoch * count // run_length for count in counts]
    plan = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(num_runs))
    generator = torch.Generator().manual_seed(derive_seed(seed, "buckets", epoch))
    return plan[torch.randperm(len(plan), generator=generator)]
