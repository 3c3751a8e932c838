"""Properties of metrics for any features, and refused inputs."""

import numpy as np
import pytest
import torch

from diffusers_ext.metrics import (
    FeatureStatistics,
    class_accuracy,
    fid,
    frechet_distance,
    inception_score,
    kid,
    match_class_ids,
    polynomial_kernel,
    prdc,
    precision_recall,
)
from diffusers_ext.metrics.neighbours import compare_manifolds


def features(count: int, dim: int = 6, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def test_identical_sets():
    real = features(60)
    assert fid(real, real) == pytest.approx(0.0, abs=1e-12)
    assert precision_recall(real, real) == {"precision": 1.0, "recall": 1.0, "f_score": 1.0}
    # Every ball contains its centre and k - 1 neighbours, but not the k-th, which is on its border.
    assert prdc(real, real) == {"precision": 1.0, "recall": 1.0, "density": 1.0, "coverage": 1.0}
    # The unbiased estimate counts x against itself across the sets, not within them.
    kernel = polynomial_kernel(real.double(), real.double())
    off_diagonal = (kernel.sum() - kernel.trace()).item() / (60 * 59)
    expected = 2 * (off_diagonal - kernel.mean().item())
    assert kid(real, real, subsets=1)["mean"] == pytest.approx(expected, rel=1e-9)


def test_disjoint_sets():
    real, generated = features(60), features(50, seed=1, shift=100.0)
    assert fid(real, generated) == pytest.approx(6 * 100**2, rel=0.05)
    assert precision_recall(real, generated) == {"precision": 0.0, "recall": 0.0, "f_score": 0.0}
    assert prdc(real, generated) == {"precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0}
    assert kid(real, generated)["mean"] > 1e6


def test_the_order_of_rows_does_not_matter():
    real, generated = features(70), features(50, seed=1, shift=0.5)
    mixed = real[torch.randperm(70)], generated[torch.randperm(50)]
    assert fid(*mixed) == pytest.approx(fid(real, generated), rel=1e-10)
    assert precision_recall(*mixed) == pytest.approx(precision_recall(real, generated), rel=1e-14)
    assert prdc(*mixed) == pytest.approx(prdc(real, generated), rel=1e-14)
    whole = {"subsets": 1, "subset_size": 50}
    same_size = kid(real[:50], generated, **whole)["mean"]
    assert kid(real[:50].flip(0), generated.flip(0), **whole)["mean"] == pytest.approx(same_size, rel=1e-10)


def test_a_collapsed_generator():
    """The same image many times: precise, but without recall. Balls of radius zero are no problem."""
    real = features(40)
    generated = real[:1].repeat(30, 1)
    assert precision_recall(real, generated)["precision"] == 1.0
    # The image is a real one: its own ball of radius zero contains it, on its border.
    assert precision_recall(real, generated)["recall"] == 1 / 40
    assert prdc(real, generated)["recall"] == 0.0
    assert prdc(real, generated)["coverage"] < 0.4
    assert fid(real, generated) == pytest.approx(
        ((real.double() - generated[0].double()).mean(0) ** 2).sum().item() + real.double().var(0).sum().item(),
        rel=1e-6,
    )


def test_fid_of_gaussians_with_a_closed_form():
    """Diagonal covariances commute, so the trace term is a sum of squared differences of standard deviations."""
    variances = torch.tensor([[4.0, 1.0, 0.0], [1.0, 9.0, 0.0]])
    means = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    value = frechet_distance(means[0], variances[0].diag(), means[1], variances[1].diag())
    assert value == pytest.approx(9 + (2 - 1) ** 2 + (1 - 3) ** 2, rel=1e-12)


def test_fid_of_fewer_samples_than_features():
    """Singular covariances: rank 4 in 64 dimensions equals the same data in a rotated 4-dimensional space."""
    basis = torch.linalg.qr(features(64, 64, seed=3).double()).Q[:4]
    real, generated = features(5, 4).double(), features(5, 4, seed=1).double()
    assert fid(real @ basis, generated @ basis) == pytest.approx(fid(real, generated), rel=1e-9)


def test_statistics_in_batches_and_merged():
    rows = features(101, seed=4, shift=1000.0).double()
    in_batches, first, second = FeatureStatistics(), FeatureStatistics(), FeatureStatistics()
    for batch in rows.split(7):
        in_batches.update(batch)
    first.update(rows[:1])
    second.update(rows[1:])
    merged = FeatureStatistics().merge(FeatureStatistics()).merge(first).merge(second)
    for statistics in (in_batches, merged):
        assert statistics.count == 101
        torch.testing.assert_close(statistics.mean, rows.mean(0), rtol=1e-13, atol=0)
        torch.testing.assert_close(statistics.covariance, rows.T.cov(), rtol=1e-9, atol=1e-11)
    assert first.count == 1, "merging must not change what is merged"


@pytest.mark.parametrize("block_elements", [1, 97, 1000])
def test_blocks_give_the_values_of_the_whole(block_elements):
    real, generated = features(70), features(50, seed=1, shift=0.3)
    definitions = [(3, torch.le), (5, torch.lt)]
    assert compare_manifolds(real, generated, definitions, block_elements) == compare_manifolds(
        real, generated, definitions
    )
    for subsets in (2, 40):  # subsets one by one, and all from one matrix
        whole = kid(real, generated, subsets=subsets, subset_size=20)
        blocked = kid(real, generated, subsets=subsets, subset_size=20, block_elements=block_elements)
        assert blocked == pytest.approx(whole, rel=1e-10)


def test_precision_and_recall_swap_with_the_sets():
    real, generated = features(70), features(50, seed=1) * 0.5
    forward, backward = precision_recall(real, generated), precision_recall(generated, real)
    assert forward["precision"] == backward["recall"]
    assert forward["recall"] == backward["precision"]
    assert forward["precision"] > forward["recall"]


def test_precision_by_hand():
    real = torch.tensor([[0.0], [1.0], [3.0]])
    generated = torch.tensor([[-1.0], [5.0], [5.5]])
    # k = 1: real radii 1, 1, 2 (to 5: the border); generated radii 6, 0.5, 0.5.
    assert precision_recall(real, generated, neighbours=1)["precision"] == pytest.approx(2 / 3)
    assert prdc(real, generated, neighbours=1)["precision"] == 0.0
    assert prdc(real, generated, neighbours=1)["recall"] == 1.0


def test_inception_score_limits():
    certain = torch.eye(5).repeat(20, 1) * 1e4
    assert inception_score(certain, shuffle=False)["mean"] == pytest.approx(5.0)
    assert inception_score(torch.zeros(100, 5))["mean"] == pytest.approx(1.0)
    one_class = torch.tensor([[1e4, 0.0, 0.0]]).repeat(40, 1)
    assert inception_score(one_class) == {"mean": 1.0, "std": 0.0}


def test_numpy_half_precision_and_integers_are_taken():
    real, generated = features(40), features(40, seed=1)
    assert fid(real.numpy(), generated.numpy()) == fid(real, generated)
    assert fid(real.bfloat16(), generated.bfloat16()) == pytest.approx(fid(real, generated), rel=0.05)
    assert fid(np.arange(20).reshape(10, 2), np.arange(20).reshape(10, 2) + 1) == pytest.approx(2.0)


def test_class_accuracy():
    result = class_accuracy(torch.tensor([2, 2, 0, 1, 1]), [2, 0, 0, 1, 0])
    assert result["accuracy"] == pytest.approx(3 / 5)
    assert result["accuracy_per_class"] == {0: pytest.approx(1 / 3), 1: 1.0, 2: 1.0}
    assert result["accuracy_balanced"] == pytest.approx(7 / 9)
    logits = torch.nn.functional.one_hot(torch.tensor([2, 2, 0, 1, 1])) * 3.0 - 1
    assert class_accuracy(logits, [2, 0, 0, 1, 0]) == result


def test_classes_are_matched_by_name_whatever_their_order():
    assert match_class_ids({0: "dog", 1: "cat"}, {0: "bird", 1: "cat", 2: "dog"}) == {0: 2, 1: 1}
    assert match_class_ids({"0": "dog"}, {"0": "cat", "1": "dog"}) == {0: 1}
    assert match_class_ids({0: "1", 1: "7"}, {i: str(i) for i in range(10)}) == {0: 1, 1: 7}


def test_classes_without_names_are_matched_by_id():
    named, numbered = {0: "zero", 1: "one"}, {0: "LABEL_0", 1: "LABEL_1"}
    assert match_class_ids(named, numbered) == {0: 0, 1: 1}
    assert match_class_ids({0: "0", 1: "1"}, named) == {0: 0, 1: 1}
    assert match_class_ids(None, named) == {0: 0, 1: 1}
    repeated = {0: "crane", 1: "crane"}
    assert match_class_ids(repeated, repeated) == {0: 0, 1: 1}


@pytest.mark.parametrize(
    "ours, theirs, message",
    [
        ({0: "cat", 1: "zebra"}, {0: "cat", 1: "dog"}, "does not for zebra: its classes are cat, dog"),
        ({0: "crane"}, {0: "crane", 1: "crane"}, "exactly one class"),
        ({0: "cat"}, {i: f"LABEL_{i}" for i in range(1000)}, "1 classes cannot be matched with the extractor's 1000"),
    ],
)
def test_classes_that_do_not_match(ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        match_class_ids(ours, theirs)


BAD_FEATURES = features(20)
BAD_FEATURES[3, 1] = torch.nan


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fid(features(20), BAD_FEATURES), "generated features have NaN or infinite values in 1 of 20 rows"),
        (lambda: kid(BAD_FEATURES, features(20)), "real features have NaN"),
        (lambda: prdc(features(20, 4), features(20, 5)), "have 4 and 5 columns"),
        (lambda: fid(features(20)[0], features(20)), "one row per image, not of shape"),
        (lambda: fid(features(20), torch.zeros(0, 6)), "one row per image, not of shape"),
        (lambda: fid(features(20), features(1)), "at least 2 samples, not 1"),
        (lambda: frechet_distance(torch.zeros(3), torch.eye(3), torch.zeros(3), torch.eye(4)), r"shape \(3, 3\)"),
        (lambda: FeatureStatistics().update(features(3, 4)).update(features(3, 5)), "5 columns cannot be added"),
        (lambda: kid(features(20), features(30), subset_size=21), "is 21 for 20 real and 30 generated"),
        (lambda: kid(features(20), features(1)), "is 1 for 20 real"),
        (lambda: kid(features(20), features(20), subsets=0), "at least 1 subset"),
        (lambda: precision_recall(features(20), features(5), neighbours=5), "from 1 to 4"),
        (lambda: prdc(features(20), features(20), neighbours=0), "from 1 to 19"),
        (lambda: inception_score(torch.zeros(9, 3)), "from 1 to 9 splits"),
        (lambda: inception_score(torch.full((20, 3), torch.inf)), "logits have NaN"),
        (lambda: class_accuracy(torch.zeros(4, 3), [0, 1]), "as many requested labels as predictions, not 2 for 4"),
        (lambda: class_accuracy(torch.zeros(4, 3), [0.0, 1.0, 2.0, 3.0]), "one integer per sample"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
