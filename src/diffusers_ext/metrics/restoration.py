"""Metrics of restored images: their similarity to the true ones, their quality as a set, and their diversity."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, zip_longest

import torch

from diffusers_ext.metrics.arrays import check_image_pair
from diffusers_ext.metrics.compute import METRICS, compute_metrics, missing_input
from diffusers_ext.metrics.extractors import FeatureExtractor, FeatureOutput
from diffusers_ext.metrics.perceptual_distances import ImageDistance, pairwise_diversity, perceptual_distance
from diffusers_ext.metrics.similarity import SSIM_WINDOW_SIZE, psnr, ssim
from diffusers_ext.pixels import as_uint8


RESTORATION_METRICS = ("psnr", "ssim", "perceptual_distance", "lpips", "deep_feature_distance", "diversity", *METRICS)
# Metrics that are only computed if they are named.
NOT_BY_DEFAULT = ("precision", "recall", "density", "coverage", "classes")

# Images per call of a network, if the caller does not pass batches.
BATCH_SIZE = 64


def restoration_metrics(
    truth: torch.Tensor | Iterable[torch.Tensor],
    restored: torch.Tensor | Iterable[torch.Tensor],
    metrics: Sequence[str] | None = None,
    *,
    extractor: FeatureExtractor | None = None,
    distances: Sequence[ImageDistance] = (),
    class_labels: torch.Tensor | None = None,
    id2label: Mapping | None = None,
    ssim_window_size: int = SSIM_WINDOW_SIZE,
    seed: int = 2020,
    gather: Callable[[list[torch.Tensor]], torch.Tensor] = torch.cat,
    provenance: Mapping | None = None,
) -> dict:
    """The metrics of one set of restored images, ready for JSON. A feature network adds the metrics of Palette.

    Images are uint8, or in [-1, 1]; the latter are rounded to 8 bits first, as they would be saved. Each process calls
    this with its share of the images, and gets the metrics of all images. Only one batch of images is held at a time.

    Args:
        truth: the true images (N, C, H, W), or an iterable of such batches.
        restored: a restoration of each image, with the same shape and batches; or K restorations of each image,
            (N, K, C, H, W).
        metrics: names from `RESTORATION_METRICS`, or the `metric` of a distance; by default all that the input allows
            except precision, recall, density, coverage and classes.
            - "psnr", "ssim": see [`psnr`] and [`ssim`];
            - "perceptual_distance": Palette's PD, with the features of `extractor`;
            - "lpips", "deep_feature_distance": the distances in `distances`;
            - "diversity": [`pairwise_diversity`] by each of the last three, as "<name>_diversity", for K > 1;
            - "fid", "kid", "is", "accuracy" and so on: see [`compute_metrics`]. They compare the first restoration of
              each image (so that K does not matter) with the true images. "accuracy" is how often the extractor
              predicts the class of the true image for the restored one (Palette's CA).
        extractor: the feature network and classifier.
        distances: other distances between images, such as `LPIPS()` and `DeepFeatureDistance(extractor)`.
        class_labels: the classes (N,) of this process's images.
        id2label: the names of the classes, which are matched with the extractor's.
        ssim_window_size: see [`ssim`].
        seed: see [`compute_metrics`].
        gather: joins the tensors of shape (B, ...) of all processes, in the order of the set.
        provenance: what the caller knows about the images (task, checkpoint, sampler ...). It is added to the reported
            provenance.

    Returns:
        The metrics by name, as means over all images; under "per_image" a list for each name with the value of each
        image, which is a mean over its K restorations; and under "provenance" the networks, the numbers of images and
        the settings. The PSNR of an image with a restoration that equals it is infinite: it is None in the list and
        not part of the mean "psnr", and "num_identical" counts such images.

    Raises:
        ValueError: for unknown metrics and metrics whose input is missing, images that do not match each other or are
            out of range, no images at all, and too few of them for a metric of the set.
    """
    batches = _batches(truth, restored, extractor)
    first = next(batches, None)
    if first is None:
        raise ValueError("There are no images to measure.")
    distances = _by_metric(distances)
    judged = {"extractor": extractor, "requested_labels": class_labels, "id2label": id2label}
    chosen = _choose(metrics, _missing_inputs(first, distances, ssim_window_size, judged))

    measures = {"psnr": psnr, "ssim": partial(ssim, window_size=ssim_window_size), **distances}
    own, outputs = [], []
    for batch in chain([first], batches):
        own.append(batch.values(chosen, measures))
        outputs.append((batch.truth_output, batch.restored_output))
    table = gather([torch.stack([column.cpu().double() for column in values.values()], dim=1) for values in own])
    row, per_image = _summarise(dict(zip(own[0], table.unbind(dim=1), strict=True)))

    settings = {
        "num_images": len(table),
        "num_restorations": first.restored.shape[1],
        "resolution": list(first.truth.shape[2:]),
    }
    if "ssim" in chosen:
        settings["ssim_window_size"] = ssim_window_size
    for name, distance in distances.items():
        if name in row or f"{name}_diversity" in row:
            settings[f"{name}_network"] = distance.name
    if extractor is not None:
        settings["extractor"] = extractor.name

    set_metrics = [name for name in METRICS if name in chosen]
    if set_metrics:
        if class_labels is not None:
            judged["requested_labels"] = gather([torch.as_tensor(class_labels)])
        real, generated = (_gather_outputs(kind, gather) for kind in zip(*outputs, strict=True))
        of_set = compute_metrics(real, generated, set_metrics, seed=seed, **judged)
        settings |= of_set.pop("provenance")
        row |= of_set
    return {**row, "per_image": per_image, "provenance": {**settings, **(provenance or {})}}


@dataclass
class _Batch:
    """Some true images, their restorations, and the extractor's outputs for them.

    Attributes:
        truth: uint8 (B, C, H, W).
        restored: uint8 (B, K, C, H, W).
        truth_output, restored_output: the outputs for the true images and for their first restorations; None without
            an extractor.
        features: the features of all restorations, (B, K, D); None without an extractor.
    """

    truth: torch.Tensor
    restored: torch.Tensor
    truth_output: FeatureOutput | None = None
    restored_output: FeatureOutput | None = None
    features: torch.Tensor | None = None

    def values(self, chosen: set[str], measures: Mapping[str, Callable]) -> dict[str, torch.Tensor]:
        """The chosen metrics of each image, float64 (B,), and "identical": whether a restoration equals the image."""
        compared = {name: (measure, self.truth, self.restored) for name, measure in measures.items()}
        if self.features is not None:
            compared["perceptual_distance"] = (perceptual_distance, self.truth_output.features, self.features)
        equal = (self.restored == self.truth[:, None]).flatten(2).all(dim=2).any(dim=1)
        values = {"identical": equal.cpu().double()}
        for name, (measure, truth, restored) in compared.items():
            if name in chosen:
                values[name] = torch.stack([measure(truth, sample) for sample in restored.unbind(dim=1)]).mean(dim=0)
        if "diversity" in chosen:
            for name, (measure, _, restored) in compared.items():
                if name not in ("psnr", "ssim"):
                    values[f"{name}_diversity"] = pairwise_diversity(restored, measure)
        return values


def _batches(truth, restored, extractor: FeatureExtractor | None) -> Iterator[_Batch]:
    truth, restored = (images.split(BATCH_SIZE) if torch.is_tensor(images) else images for images in (truth, restored))
    for truths, samples in zip_longest(truth, restored):
        if not torch.is_tensor(truths) or not torch.is_tensor(samples):
            raise ValueError("True and restored images must be tensors, in the same number of batches.")
        if len(truths) or len(samples):
            yield _batch(truths, samples if samples.ndim == 5 else samples[:, None], extractor)


def _batch(truth: torch.Tensor, restored: torch.Tensor, extractor: FeatureExtractor | None) -> _Batch:
    if restored.shape[1] == 0:
        raise ValueError("There must be at least one restoration of each image, not (N, 0, C, H, W).")
    for sample in restored.unbind(dim=1):
        check_image_pair(truth, sample)
    truth, restored = as_uint8(truth), as_uint8(restored).to(truth.device)
    if extractor is None:
        return _Batch(truth, restored)
    outputs = [_on_cpu(extractor(images)) for images in (truth, *restored.unbind(dim=1))]
    return _Batch(truth, restored, *outputs[:2], torch.stack([output.features for output in outputs[1:]], dim=1))


def _on_cpu(output: FeatureOutput) -> FeatureOutput:
    return FeatureOutput(output.features.cpu(), None if output.logits is None else output.logits.cpu())


def _by_metric(distances: Sequence[ImageDistance]) -> dict[str, ImageDistance]:
    names = [distance.metric for distance in distances]
    if len(set(names)) < len(names):
        raise ValueError(f"Each of the distances must have another `metric`, but they are {', '.join(names)}.")
    return dict(zip(names, distances, strict=True))


def _missing_inputs(
    first: _Batch, distances: Mapping[str, ImageDistance], window: int, judged: Mapping
) -> dict[str, str | None]:
    """For each metric the input that it needs and that is missing, or None."""
    extractor, restorations = judged["extractor"], first.restored.shape[1]
    no_extractor = "a feature extractor" if extractor is None else None
    lacks = dict.fromkeys(RESTORATION_METRICS)
    if min(first.truth.shape[2:]) < window:
        lacks["ssim"] = f"images of at least {window} pixels a side, or a smaller ssim_window_size"
    lacks["perceptual_distance"] = no_extractor
    lacks |= {
        "lpips": "LPIPS() among the distances",
        "deep_feature_distance": "a DeepFeatureDistance among the distances",
    }
    lacks |= dict.fromkeys(distances)
    if restorations < 2:
        lacks["diversity"] = "several restorations of each image, (N, K, C, H, W)"
    elif extractor is None and not distances:
        lacks["diversity"] = "a feature extractor or a distance"
    for name in METRICS:
        lacks[name] = no_extractor or missing_input(name, first.restored_output, **judged)
    return lacks


def _choose(metrics: Sequence[str] | None, lacks: Mapping[str, str | None]) -> set[str]:
    if metrics is None:
        return {name for name, lack in lacks.items() if lack is None and name not in NOT_BY_DEFAULT}
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        if name not in lacks:
            raise ValueError(f"There is no metric {name!r}: the metrics are {', '.join(lacks)}.")
        if lacks[name]:
            raise ValueError(f'The metric "{name}" needs {lacks[name]}.')
    return set(names)


def _summarise(values: dict[str, torch.Tensor]) -> tuple[dict, dict[str, list]]:
    """The means, and the values of each image. Infinite values of PSNR are left out, because JSON has none."""
    is_identical = values.pop("identical").bool()
    row = {name: column.mean().item() for name, column in values.items()}
    per_image = {name: column.tolist() for name, column in values.items()}
    if "psnr" in values:
        finite = values["psnr"][~is_identical]
        row |= {"psnr": finite.mean().item() if len(finite) else None, "num_identical": int(is_identical.sum())}
        per_image["psnr"] = [value if value != float("inf") else None for value in per_image["psnr"]]
    return row, per_image


def _gather_outputs(outputs: Sequence[FeatureOutput], gather: Callable) -> FeatureOutput:
    features = gather([output.features for output in outputs])
    logits = None if outputs[0].logits is None else gather([output.logits for output in outputs])
    return FeatureOutput(features, logits)
