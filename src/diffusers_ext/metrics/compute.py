"""Computes the chosen metrics of a set of generated images, and records the settings they were computed with."""

from collections.abc import Mapping, Sequence

import torch

from diffusers_ext.metrics.accuracy import class_accuracy, match_class_ids
from diffusers_ext.metrics.arrays import as_feature_pair
from diffusers_ext.metrics.extractors import FeatureExtractor, FeatureOutput
from diffusers_ext.metrics.frechet import fid
from diffusers_ext.metrics.inception_score import inception_score
from diffusers_ext.metrics.kernel import kid, kid_subset_size
from diffusers_ext.metrics.modes import class_coverage
from diffusers_ext.metrics.neighbours import (
    DENSITY_COVERAGE_NEIGHBOURS,
    PRECISION_RECALL_NEIGHBOURS,
    compare_manifolds,
)


METRICS = ("fid", "kid", "precision", "recall", "density", "coverage", "is", "classes", "accuracy")

# torch-fidelity's settings.
KID_SUBSETS = 100
IS_SPLITS = 10

# The definition of a neighbourhood behind each pair of metrics: the default k, and whether balls contain their border.
MANIFOLD_DEFINITIONS = {
    ("precision", "recall"): (PRECISION_RECALL_NEIGHBOURS, torch.le),
    ("density", "coverage"): (DENSITY_COVERAGE_NEIGHBOURS, torch.lt),
}

# The smallest number of images for each metric: in both sets, or for the Inception Score in the generated set.
FEWEST_IMAGES = {
    "fid": 2,
    "kid": 2,
    **{name: k + 1 for names, (k, _) in MANIFOLD_DEFINITIONS.items() for name in names},
    "is": IS_SPLITS,
}


def check_measurable(
    extractor: FeatureExtractor,
    shape: tuple[int, int, int],
    metrics: Sequence[str] | None,
    num_real: int | None,
    num_generated: int,
) -> None:
    """Checks, before images are generated, that they can be measured.

    Args:
        extractor: the feature extractor.
        shape: (C, H, W) of an image.
        metrics: names or None, as for `compute_metrics`. Names of metrics that need no features are ignored.
        num_real, num_generated: how many images there will be; None if unknown.

    Raises:
        ValueError: if the extractor does not accept such images, or there are too few of them for a metric.
    """
    extractor(torch.zeros(1, *shape, dtype=torch.uint8))
    _choose(metrics or (), {name: _missing_images(name, num_real, num_generated) for name in metrics or ()})


def compute_metrics(
    real: FeatureOutput,
    generated: FeatureOutput,
    metrics: Sequence[str] | None = None,
    *,
    extractor: FeatureExtractor | None = None,
    requested_labels=None,
    id2label: Mapping | None = None,
    neighbours: int | None = None,
    seed: int = 2020,
    provenance: Mapping | None = None,
) -> dict[str, float | dict]:
    """The chosen metrics of `generated` against `real`, ready for JSON.

    Args:
        real: features of real images. Their logits are not used.
        generated: features of generated images; with logits for "is", "classes" and "accuracy".
        metrics: names from `METRICS`; by default all metrics that the input allows: "is" needs logits, "classes" needs
            logits of named classes, "accuracy" needs these and `requested_labels`, and most need a minimum number of
            images.
            - "fid", "kid" (and "kid_std"), "is" (and "is_std"): as torch-fidelity with its default settings;
            - "precision", "recall": Kynkäänniemi et al. 2019, torch-fidelity's definition, k = 3;
            - "density", "coverage": Naeem et al. 2020, the prdc package's definition, k = 5;
            - "classes" (as "classes_covered" and "recognised"): see `class_coverage`;
            - "accuracy" (and "accuracy_balanced", "accuracy_per_class"): how often the extractor predicts the
              requested class.
        extractor: the extractor of the features. If not given, logits are assumed to be numbered as
            `requested_labels`.
        requested_labels: (N_generated,) class ids that the images were generated for.
        id2label: class names of `requested_labels`, which are matched with the extractor's by name.
        neighbours: k for precision, recall, density and coverage; by default the k of each definition.
        seed: the seed of KID's subsets and of the Inception Score's shuffle; 2020 is torch-fidelity's.
        provenance: what the caller knows about the images (seed, sampler, steps, guidance scale, checkpoint ...). It
            is added to the reported provenance.

    Returns:
        The values by name, and under "provenance" the extractor, the numbers of images and the settings.

    Raises:
        ValueError: for unknown metrics, features that are not finite or do not match each other, too few images for a
            metric, and a metric whose input is missing.
    """
    features = as_feature_pair(real.features, generated.features)
    sizes = [len(rows) for rows in features]
    lacks = {
        name: missing_input(name, generated, extractor, requested_labels, id2label)
        or _missing_images(name, *sizes, neighbours)
        for name in METRICS
    }
    chosen = _choose([name for name in METRICS if not lacks[name]] if metrics is None else metrics, lacks)

    values, settings = {}, {"num_real": sizes[0], "num_generated": sizes[1]}
    if extractor is not None:
        settings = {"extractor": extractor.name, **settings}
    if "fid" in chosen:
        values["fid"] = fid(*features)
    if "kid" in chosen:
        subset_size = kid_subset_size(*sizes)
        distance = kid(*features, KID_SUBSETS, subset_size, seed)
        values |= {"kid": distance["mean"], "kid_std": distance["std"]}
        settings |= {"kid_subsets": KID_SUBSETS, "kid_subset_size": subset_size, "kid_seed": seed}
    manifold_values, ks = _manifold_metrics(*features, chosen, neighbours)
    values |= manifold_values
    settings |= {f"{name}_neighbours": k for name, k in ks.items()}
    if "is" in chosen:
        score = inception_score(generated.logits, IS_SPLITS, seed=seed)
        values |= {"is": score["mean"], "is_std": score["std"]}
        settings |= {"is_splits": IS_SPLITS, "is_seed": seed}
    if "classes" in chosen:
        values |= class_coverage(generated.logits)
    if "accuracy" in chosen:
        values |= _accuracy(generated.logits, requested_labels, extractor, id2label)
        if hasattr(extractor, "accuracy"):
            settings["extractor_accuracy"] = extractor.accuracy
    return {**values, "provenance": {**settings, **(provenance or {})}}


def missing_input(
    metric: str,
    generated: FeatureOutput,
    extractor: FeatureExtractor | None,
    requested_labels,
    id2label: Mapping | None,
) -> str | None:
    """The input that `metric` needs and that is missing, or None."""
    if metric in ("is", "classes", "accuracy") and generated.logits is None:
        return "an extractor that gives class logits"
    if metric in ("classes", "accuracy") and extractor is not None and extractor.id2label is None:
        return "an extractor whose logits have class names (id2label)"
    if metric == "accuracy" and requested_labels is None:
        return "the class labels that the images were generated for"
    if metric == "accuracy" and extractor is not None:
        try:
            match_class_ids(id2label, extractor.id2label)
        except ValueError as error:
            return f"an extractor with the same classes ({error})"
    return None


def _missing_images(
    metric: str, num_real: int | None, num_generated: int, neighbours: int | None = None
) -> str | None:
    """The number of images that `metric` needs if there are fewer, or None."""
    fewest = FEWEST_IMAGES.get(metric, 0)
    if neighbours is not None and any(metric in names for names in MANIFOLD_DEFINITIONS):
        return None  # a number of neighbours that the caller chose is checked by `compare_manifolds`
    counts = {"generated": num_generated} if metric == "is" else {"real": num_real, "generated": num_generated}
    few = [f"{count} {kind}" for kind, count in counts.items() if count is not None and count < fewest]
    return f"at least {fewest} images, not {' and '.join(few)} ones" if few else None


def _choose(metrics: Sequence[str], lacks: Mapping[str, str | None]) -> set[str]:
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in names:
        if name not in lacks:
            raise ValueError(f"There is no metric {name!r}: the metrics are {', '.join(METRICS)}.")
        if lacks[name]:
            raise ValueError(f'The metric "{name}" needs {lacks[name]}.')
    return set(names)


def _manifold_metrics(
    real: torch.Tensor, generated: torch.Tensor, chosen: set[str], neighbours: int | None
) -> tuple[dict[str, float], dict[str, int]]:
    """The values of precision, recall, density and coverage that were chosen, and the k of each."""
    groups = {names: definition for names, definition in MANIFOLD_DEFINITIONS.items() if chosen.intersection(names)}
    if not groups:
        return {}, {}
    definitions = [(default if neighbours is None else neighbours, contains) for default, contains in groups.values()]
    values, ks = {}, {}
    manifolds = compare_manifolds(real, generated, definitions)
    for names, (k, _), manifold in zip(groups, definitions, manifolds, strict=True):
        values |= {name: manifold[name] for name in names if name in chosen}
        ks |= {name: k for name in names if name in chosen}
    return values, ks


def _accuracy(logits, requested_labels, extractor: FeatureExtractor | None, id2label: Mapping | None) -> dict:
    """`class_accuracy` with the class names of the data set, or its class ids where it has no names."""
    requested = torch.as_tensor(requested_labels).tolist()
    if extractor is None:
        extractor_ids = {label: label for label in range(len(logits[0]))}
    else:
        extractor_ids = match_class_ids(id2label, extractor.id2label)
    strangers = sorted(set(requested) - extractor_ids.keys())
    if strangers:
        raise ValueError(f"Some requested labels are not a class: {', '.join(map(str, strangers[:5]))}.")
    result = class_accuracy(logits, [extractor_ids[label] for label in requested])
    names = {} if id2label is None else {int(label): str(name) for label, name in id2label.items()}
    labels_of = {theirs: ours for ours, theirs in extractor_ids.items()}
    per_class = {labels_of[theirs]: value for theirs, value in result["accuracy_per_class"].items()}
    result["accuracy_per_class"] = {names.get(label, str(label)): per_class[label] for label in sorted(per_class)}
    return result
