"""Sketches as data: batches of points for training, and the sketches in order for evaluation."""

import hashlib
import itertools
import logging
import operator
from collections.abc import Iterator

import torch

from diffusers_ext.data.order import ShuffledOrder
from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.data.sketch_files import Sketches


logger = logging.getLogger(__name__)

LARGEST_OFFSET = 1000.0  # larger ones are cut, as in Magenta: they are faults of the recording
FEWEST_BEFORE_DROP = 3  # points of a stroke that stay, before one of its points can be dropped


class SketchDataset:
    """Sketches of at most `max_length` points as an endless stream of batches, see `ImageDataset`.

    The augmentation is that of Magenta's sketch-rnn: both axes are scaled by random factors, and points within a
    stroke are left out at random.

    Args:
        sketches: what `load_sketches` returns.
        max_length: longer sketches are left out; by default that of the longest one.
        offset_std: what offsets are divided by; by default their standard deviation.
        random_scale: the factors are from 1 - random_scale to 1 + random_scale.
        point_drop: the probability that a point is left out.

    Attributes:
        epoch_length, num_examples (`int`): the number of sketches.
        num_left_out (`int`): how many are longer than `max_length`.
        id2label (`dict[int, str] | None`): the names of the classes.
        max_length (`int`), offset_std (`float`): as above.

    Raises:
        ValueError: if no sketch is left, or their offsets are all the same.
    """

    num_skipped = 0
    cached = True
    captions = None

    def __init__(
        self,
        sketches: Sketches,
        max_length: int | None = None,
        offset_std: float | None = None,
        random_scale: float = 0.0,
        point_drop: float = 0.0,
    ):
        lengths = sketches.lengths
        if not len(lengths):
            raise ValueError("the data set has no sketches")
        self.max_length = int(lengths.max()) if max_length is None else max_length
        kept = lengths <= self.max_length
        self.num_left_out = int((~kept).sum())
        if not kept.any():
            raise ValueError(
                f"all sketches are longer than --max_length {max_length}; the shortest is {lengths.min()}"
            )
        if self.num_left_out:
            logger.warning(f"Left out: {self.num_left_out} sketches longer than {self.max_length} points.")
        self.id2label, self._random_scale, self._point_drop = sketches.id2label, random_scale, point_drop
        self._lengths = lengths[kept]
        self._labels = None if sketches.labels is None else sketches.labels[kept]
        points = sketches.points[kept.repeat_interleave(lengths)].clone()
        points[:, :2].clamp_(-LARGEST_OFFSET, LARGEST_OFFSET)
        self.offset_std = float(points[:, :2].double().std(correction=0)) if offset_std is None else offset_std
        if not self.offset_std > 0:
            raise ValueError("all offsets of the sketches are the same")
        points[:, :2] /= self.offset_std
        self._points = torch.zeros(len(self._lengths), self.max_length, 3)
        self._points[torch.arange(self.max_length) < self._lengths[:, None]] = points
        self.epoch_length = self.num_examples = len(self._lengths)

    def prepare(self) -> None:
        """Nothing: all sketches are in memory."""

    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify the sketches and their classes."""
        content = hashlib.blake2b(f"{self.max_length} {self.id2label!r}".encode(), digest_size=16)
        for values in (self._lengths, self._points, self._labels):
            if values is not None:
                content.update(values.numpy())
        return content.hexdigest()

    def batches(
        self,
        batch_size: int,
        seed: int,
        start: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
        num_workers: int = 0,
        run_length: int | None = None,
    ) -> Iterator[dict[str, torch.Tensor]]:
        """The endless stream of training batches from position `start`, in the order of `ImageDataset.batches`.

        `num_workers` and `run_length` have no effect.

        Yields:
            "strokes", float32 (B, max_length, 3), points as stroke-3 with offsets in standard deviations, zero after
            the sketch; "lengths", int64 (B,); for sketches with classes "class_labels", int64 (B,).
        """
        order, seed = ShuffledOrder(self.epoch_length), operator.index(seed)
        for step in itertools.count():
            position = start + (step * num_processes + process_index) * batch_size
            rows, epochs = order.visits(seed, position, batch_size)
            points, lengths = self._points[rows], self._lengths[rows]
            if self._random_scale or self._point_drop:
                uniforms = torch.stack(
                    [
                        self._uniforms(derive_seed(seed, "augmentation", epoch, row))
                        for row, epoch in zip(rows.tolist(), epochs, strict=True)
                    ]
                )
                factors = 1 + self._random_scale * (2 * uniforms[:, None, :2] - 1)
                points = torch.cat([points[..., :2] * factors, points[..., 2:]], dim=2)
                points, lengths = drop_points(points, lengths, uniforms[:, 2:], self._point_drop)
            yield self._batch(points, lengths, rows)

    def _uniforms(self, seed: int) -> torch.Tensor:
        return torch.rand(2 + self.max_length, generator=torch.Generator().manual_seed(seed))

    def reference_batches(
        self, batch_size: int, process_index: int = 0, num_processes: int = 1, limit: int | None = None
    ) -> Iterator[dict[str, torch.Tensor]]:
        """One pass over the sketches in their order, without augmentation: rows r, r + P ... for process r of P."""
        own = torch.arange(self.epoch_length)[process_index:limit:num_processes]
        for rows in own.split(batch_size):
            yield self._batch(self._points[rows], self._lengths[rows], rows)

    def _batch(self, points: torch.Tensor, lengths: torch.Tensor, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        labels = {} if self._labels is None else {"class_labels": self._labels[rows]}
        return {"strokes": points, "lengths": lengths, **labels}


def drop_points(
    points: torch.Tensor, lengths: torch.Tensor, uniforms: torch.Tensor, probability: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sketches without some points within strokes: the point before each moves to its place.

    The first points of a stroke stay, and the last one does. As `augment_strokes` of
    https://github.com/magenta/magenta does it.

    Args:
        points: stroke-3, (N, L, 3), zero after the sketch.
        lengths: int64 (N,).
        uniforms: (N, L), in [0, 1), below `probability` where a point is left out if it can be.
        probability: from 0 to 1.

    Returns:
        The sketches, in the same form, and their lengths.
    """
    index = torch.arange(points.shape[1])
    lifted = points[..., 2] > 0
    is_first = torch.nn.functional.pad(lifted[:, :-1], (1, 0), value=True)
    latest_end = torch.where(lifted | is_first, index, 0).cummax(dim=1).values
    can_go = (index - latest_end >= FEWEST_BEFORE_DROP) & (index < lengths[:, None])
    goes = can_go & (uniforms < probability)
    places = (~goes).cumsum(dim=1) - 1
    merged = torch.zeros_like(points).scatter_add(1, places[..., None].expand_as(points), points)
    return merged, lengths - goes.sum(dim=1)
