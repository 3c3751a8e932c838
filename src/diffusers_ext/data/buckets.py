"""Aspect-ratio buckets: training on images of several shapes, with little cropping and one shape per batch.

As in the fine-tuning of NovelAI (2022, "Improvements on Stable Diffusion"), there is a list of sizes with about the
same number of pixels. Each image is resized and cropped to the size whose aspect ratio is nearest to its own, and each
batch has images of one size.
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

    For each width up to `max_ratio` times the height, the list has the size with the largest possible height, and for
    each height likewise the size with the largest possible width.

    Args:
        resolution: the side of the square size, in pixels.
        step: both sides are multiples of this.
        max_ratio: the longer side is at most `max_ratio` times the shorter one.

    Raises:
        ValueError: unless `resolution` is a multiple of `step`, and `max_ratio` at least 1.
    """
    if step < 1 or resolution < step or resolution % step:
        raise ValueError(f"the resolution of buckets must be a multiple of their step {step}, not {resolution}")
    if not max_ratio >= 1:
        raise ValueError(f"the ratio of a bucket's sides must be at least 1, not {max_ratio}")
    sizes = {(resolution, resolution)}
    for longer in range(resolution, math.isqrt(int(max_ratio * resolution**2)) + 1, step):
        shorter = resolution**2 // longer // step * step
        if shorter * max_ratio >= longer:
            sizes |= {(shorter, longer), (longer, shorter)}
    return sorted(sizes)


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket whose aspect ratio is nearest to the ratio of `size` (height, width), by their quotient."""
    ratio = math.log(size[0] / size[1])
    return min(buckets, key=lambda bucket: abs(math.log(bucket[0] / bucket[1]) - ratio))


class BucketOrder:
    """An order of visits in runs: all images of a run are from one bucket.

    The buckets follow in random order, each as often as its number of images requires. Each bucket has an endless
    `ShuffledOrder` of its images, and every run takes the next `run_length` images from it. So no image is dropped,
    and after e epochs of the whole set every image has been visited e times, up to one run of its bucket. The order is
    a function of the seed and the position only.

    Args:
        bucket_of: int64 (N,), the bucket of each image.
        run_length: the number of positions in a run; runs start at multiples of this.
    """

    def __init__(self, bucket_of: torch.Tensor, run_length: int):
        self.run_length = run_length
        self.members = [(bucket_of == bucket).nonzero().flatten() for bucket in bucket_of.unique()]
        self.counts = tuple(len(rows) for rows in self.members)
        self.orders = [ShuffledOrder(count) for count in self.counts]

    def visits(self, seed: int, position: int, size: int) -> tuple[torch.Tensor, list[int]]:
        """The visits at the positions position + [0, size), which must be in one run; see `ShuffledOrder.visits`."""
        run, offset = divmod(position, self.run_length)
        # In e epochs, a bucket of n images has floor(e * n / run_length) runs.
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
    """The bucket of each run of an epoch, in random order."""
    num_runs = [(epoch + 1) * count // run_length - epoch * count // run_length for count in counts]
    plan = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(num_runs))
    generator = torch.Generator().manual_seed(derive_seed(seed, "buckets", epoch))
    return plan[torch.randperm(len(plan), generator=generator)]
