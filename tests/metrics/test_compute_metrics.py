import json

import pytest
import torch

from diffusers_ext.metrics import (
    METRICS,
    FeatureOutput,
    NetworkExtractor,
    class_coverage,
    compute_metrics,
    fid,
    inception_score,
    kid,
    prdc,
    precision_recall,
)
from diffusers_ext.metrics.compute import FEWEST_IMAGES, check_measurable


def output(count: int, seed: int, classes: int | None = 3) -> FeatureOutput:
    generator = torch.Generator().manual_seed(seed)
    logits = None if classes is None else torch.randn(count, classes, generator=generator)
    return FeatureOutput(torch.randn(count, 6, generator=generator), logits)


NAMED = NetworkExtractor(lambda images: images.flatten(1), name="net", id2label={0: "cat", 1: "dog", 2: "newt"})
NAMELESS = NetworkExtractor(lambda images: images.flatten(1), name="plain")


def test_the_numbers_are_those_of_the_functions():
    real, generated = output(60, 0), output(50, 1)
    labels = generated.logits.argmax(1)
    labels[:5] = (labels[:5] + 1) % 3
    result = compute_metrics(
        real, generated, METRICS, extractor=NAMED, requested_labels=labels, id2label=NAMED.id2label
    )
    distance, score = kid(real.features, generated.features), inception_score(generated.logits)
    near, spread = precision_recall(real.features, generated.features), prdc(real.features, generated.features)
    expected = {
        "fid": fid(real.features, generated.features),
        "kid": distance["mean"],
        "kid_std": distance["std"],
        "precision": near["precision"],
        "recall": near["recall"],
        "density": spread["density"],
        "coverage": spread["coverage"],
        "is": score["mean"],
        "is_std": score["std"],
        **class_coverage(generated.logits),
        "accuracy": 0.9,
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert set(result["accuracy_per_class"]) <= {"cat", "dog", "newt"}
    assert set(result) == {*expected, "accuracy_balanced", "accuracy_per_class", "provenance"}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_numbers_carry_where_they_come_from():
    result = compute_metrics(
        output(60, 0),
        output(50, 1),
        ["kid", "coverage", "is"],
        extractor=NAMED,
        seed=7,
        provenance={"seed": 3, "sampler": "DDIMScheduler", "num_inference_steps": 20},
    )
    assert result["provenance"] == {
        "extractor": "net",
        "num_real": 60,
        "num_generated": 50,
        "kid_subsets": 100,
        "kid_subset_size": 50,
        "kid_seed": 7,
        "coverage_neighbours": 5,
        "is_splits": 10,
        "is_seed": 7,
        "seed": 3,
        "sampler": "DDIMScheduler",
        "num_inference_steps": 20,
    }


def test_only_what_was_asked_for():
    assert set(compute_metrics(output(60, 0), output(50, 1), ["recall"])) == {"recall", "provenance"}
    assert set(compute_metrics(output(60, 0), output(50, 1), "fid")) == {"fid", "provenance"}
    # Five samples are enough for the three neighbours of precision, but not for the five of density.
    assert "precision" in compute_metrics(output(5, 0), output(5, 1), ["precision"])


def test_by_default_all_that_the_input_allows():
    of_features = {"fid", "kid", "kid_std", "precision", "recall", "density", "coverage", "provenance"}
    of_logits = of_features | {"is", "is_std"}
    of_judge = of_logits | {"classes_covered", "recognised"}
    of_labels = of_judge | {"accuracy", "accuracy_balanced", "accuracy_per_class"}
    real, generated, labels = output(60, 0), output(50, 1), torch.zeros(50, dtype=torch.int64)
    no_logits = FeatureOutput(generated.features)
    assert set(compute_metrics(real, no_logits, extractor=NAMED, requested_labels=labels)) == of_features
    assert set(compute_metrics(real, generated, extractor=NAMED)) == of_judge
    assert set(compute_metrics(real, generated, extractor=NAMELESS, requested_labels=labels)) == of_logits
    assert set(compute_metrics(real, generated, extractor=NAMED, requested_labels=labels)) == of_labels


def test_neighbours_and_seed_are_used():
    real, generated = output(60, 0), output(50, 1)
    result = compute_metrics(real, generated, ["precision", "density"], neighbours=2)
    assert result["precision"] == precision_recall(real.features, generated.features, neighbours=2)["precision"]
    assert result["density"] == prdc(real.features, generated.features, neighbours=2)["density"]
    assert result["provenance"]["precision_neighbours"] == result["provenance"]["density_neighbours"] == 2
    scores = [compute_metrics(real, generated, ["is"], seed=seed)["is"] for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


def test_accuracy_matches_classes_by_name():
    """The data set's dog is 0, the extractor's is 1."""
    logits = torch.eye(3)[[1, 1, 2, 0]]
    generated = FeatureOutput(torch.randn(4, 2), logits)
    data_names = {0: "dog", 1: "newt"}
    result = compute_metrics(
        generated, generated, ["accuracy"], extractor=NAMED, requested_labels=[0, 0, 1, 1], id2label=data_names
    )
    assert result["accuracy"] == 0.75
    assert result["accuracy_per_class"] == {"dog": 1.0, "newt": 0.5}
    by_id = compute_metrics(generated, generated, ["accuracy"], requested_labels=[1, 1, 2, 2])
    assert by_id["accuracy_per_class"] == {"1": 1.0, "2": 0.5}


@pytest.mark.parametrize(
    "metrics, kwargs, message",
    [
        (["fid", "psnr"], {}, "no metric 'psnr': the metrics are fid, kid"),
        (["accuracy"], {}, '"accuracy" needs the class labels'),
        (["accuracy"], {"extractor": NAMELESS, "requested_labels": [0] * 50}, "class names"),
        (
            ["accuracy"],
            {"extractor": NAMED, "requested_labels": [0] * 49},
            "predictions, not 49 for 50",
        ),
        (["accuracy"], {"extractor": NAMED, "requested_labels": [3] * 50}, "not a class: 3"),
        (["accuracy"], {"requested_labels": [-1] * 50}, "not a class: -1"),
        (
            ["accuracy"],
            {"extractor": NAMED, "requested_labels": [0] * 50, "id2label": {0: "zebra"}},
            "does not for zebra",
        ),
        (["coverage"], {"neighbours": 50}, "from 1 to 49"),
    ],
)
def test_what_cannot_be_computed_is_refused(metrics, kwargs, message):
    with pytest.raises(ValueError, match=message):
        compute_metrics(output(60, 0), output(50, 1), metrics, **kwargs)


@pytest.mark.parametrize("metric", FEWEST_IMAGES)
def test_the_fewest_images_are_enough_and_fewer_are_refused(metric):
    fewest, shape = FEWEST_IMAGES[metric], (1, 8, 8)
    check_measurable(NAMED, shape, [metric], fewest, fewest)
    compute_metrics(output(fewest, 0), output(fewest, 1), [metric])
    with pytest.raises(ValueError, match=f"needs at least {fewest} images, not {fewest - 1} generated ones"):
        check_measurable(NAMED, shape, [metric], None, fewest - 1)
    with pytest.raises(ValueError):
        compute_metrics(output(fewest, 0), output(fewest - 1, 1), [metric])


@pytest.mark.parametrize("metric", ["is", "accuracy"])
def test_logits_are_needed(metric):
    with pytest.raises(ValueError, match=f'"{metric}" needs an extractor that gives class logits'):
        compute_metrics(output(60, 0), output(50, 1, classes=None), [metric], requested_labels=[0] * 50)


def test_features_that_are_not_finite_are_refused():
    broken = output(50, 1)
    broken.features[2] = torch.inf
    with pytest.raises(ValueError, match="generated features have NaN or infinite values in 1 of 50 rows"):
        compute_metrics(output(60, 0), broken)


def test_what_a_few_images_do_not_allow_is_left_out_or_refused():
    few = FeatureOutput(torch.randn(5, 3), torch.randn(5, 2))
    found = compute_metrics(few, few)
    assert {"fid", "kid", "precision", "recall"} <= found.keys()
    assert not {"density", "coverage", "is"} & found.keys()
    alone = FeatureOutput(few.features[:1], few.logits[:1])
    assert not {"fid", "kid", "precision"} & compute_metrics(few, alone).keys()
    for metric, message in (
        ("density", "needs at least 6 images, not 5 real and 5 generated ones"),
        ("is", "needs at least 10 images, not 5 generated ones"),
    ):
        with pytest.raises(ValueError, match=f'The metric "{metric}" {message}'):
            compute_metrics(few, few, [metric])
