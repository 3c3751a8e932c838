"""Values of torch-fidelity, clean-fid and prdc on the same features (golden/*/case.json says what each output is)."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from diffusers_ext.metrics import (
    FeatureStatistics,
    fid,
    frechet_distance,
    inception_score,
    kid,
    prdc,
    precision_recall,
    rbf_kernel,
)


CASES = sorted(folder for folder in (Path(__file__).parent / "golden").iterdir() if folder.is_dir())

# The references multiply float32 features; we multiply in float64. Averages over subsets agree to 1e-6, a single
# kernel estimate (a small difference of large float32 sums) to 2e-6. Where float64 allows, tests hold us to more.
FLOAT32_MEAN = 1e-6
FLOAT32_SINGLE = 2e-6


class Case:
    def __init__(self, folder: Path):
        self.config = json.loads((folder / "case.json").read_text())["config"]
        tensors = load_file(folder / "case.safetensors")
        self.real, self.generated, self.logits = (tensors[f"inputs.{n}"] for n in ("real", "generated", "logits"))
        self.outputs = {key.removeprefix("outputs."): t for key, t in tensors.items() if key.startswith("outputs.")}

    def __getitem__(self, name: str) -> float:
        return self.outputs[name].item()


@pytest.fixture(params=CASES, ids=lambda folder: folder.name)
def case(request):
    return Case(request.param)


def test_the_cases_are_there():
    assert [folder.name for folder in CASES] == ["features_64", "features_small_singular"]


def test_fid(case):
    value = fid(case.real, case.generated)
    assert value == pytest.approx(case["fid_torch_fidelity"], rel=FLOAT32_MEAN)
    assert value == pytest.approx(case["fid_clean_fid"], rel=FLOAT32_MEAN)


def test_fid_from_the_statistics_of_the_references(case):
    """With the float32 means of the reference, the distance agrees almost to float64."""
    real_mean = case.real.numpy().mean(axis=0)
    real_covariance = np.cov(case.real.numpy(), rowvar=False)
    generated_mean, generated_covariance = case.outputs["mean_generated"], case.outputs["cov_generated"]
    value = frechet_distance(real_mean, real_covariance, generated_mean, generated_covariance)
    assert value == pytest.approx(case["fid_torch_fidelity"], rel=1e-7)


def test_mean_and_covariance(case):
    statistics = FeatureStatistics()
    for batch in case.generated.split(17):
        statistics.update(batch)
    torch.testing.assert_close(statistics.mean.float(), case.outputs["mean_generated"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(statistics.covariance, case.outputs["cov_generated"], rtol=1e-10, atol=1e-12)


def kid_of(case, **kwargs):
    return kid(
        case.real,
        case.generated,
        subsets=case.config["kid_subsets"],
        subset_size=case.config["kid_subset_size"],
        **kwargs,
    )


def test_kid_with_the_polynomial_kernel(case):
    value = kid_of(case)
    assert value["mean"] == pytest.approx(case["kid_poly_mean"], rel=FLOAT32_MEAN)
    assert value["std"] == pytest.approx(case["kid_poly_std"], rel=FLOAT32_MEAN)


def test_kid_with_the_rbf_kernel(case):
    value = kid_of(case, kernel=partial(rbf_kernel, sigma=case.config["kid_rbf_sigma"]))
    assert value["mean"] == pytest.approx(case["kid_rbf_mean"], rel=FLOAT32_MEAN)
    assert value["std"] == pytest.approx(case["kid_rbf_std"], rel=FLOAT32_MEAN)


def test_kid_of_the_stored_subsets_in_float64(case):
    """The estimator, computed from the rows that torch-fidelity drew, agrees in float64."""
    values = []
    for generated_rows, real_rows in case.outputs["kid_subset_indices"].long():
        x, y = case.generated[generated_rows].double().numpy(), case.real[real_rows].double().numpy()
        size, dim = x.shape
        xx, yy, xy = ((a @ b.T / dim + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
        within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
        values.append(within / (size * (size - 1)) - 2 * xy.mean())
    value = kid_of(case)
    assert value["mean"] == pytest.approx(np.mean(values), rel=1e-11)
    assert value["std"] == pytest.approx(np.std(values), rel=1e-11)


def test_kid_of_clean_fid(case):
    """clean-fid draws the real rows first."""
    value = kid(
        case.generated,
        case.real,
        subsets=case.config["kid_subsets"],
        subset_size=case.config["kid_subset_size"],
        seed=0,
    )
    assert value["mean"] == pytest.approx(case["kid_clean_fid_numpy_seed_0"], rel=FLOAT32_MEAN)


def test_kernel_distance_of_whole_sets(case):
    size = min(len(case.real), len(case.generated))
    value = kid(case.real[:size], case.generated[:size], subsets=1)
    assert value["mean"] == pytest.approx(case["mmd2_poly_unbiased_all"], rel=FLOAT32_SINGLE)
    assert value["std"] == 0.0


def test_precision_and_recall_of_torch_fidelity(case):
    value = precision_recall(case.real, case.generated, neighbours=case.config["prc_neighborhood"])
    # The golden fractions were rounded to float32.
    assert value["precision"] == pytest.approx(case["prc_precision"], rel=1e-7)
    assert value["recall"] == pytest.approx(case["prc_recall"], rel=1e-7)
    assert value["f_score"] == pytest.approx(case["prc_f_score"], rel=1e-7)


def test_prdc(case):
    value = prdc(case.real, case.generated, neighbours=case.config["prdc_nearest_k"])
    for name in ("precision", "recall", "density", "coverage"):
        assert value[name] == pytest.approx(case[f"prdc_{name}"], rel=1e-14)


def test_inception_score(case):
    splits = case.config["isc_splits"]
    shuffled = inception_score(case.logits, splits=splits)
    assert shuffled["mean"] == pytest.approx(case["inception_score_shuffled_mean"], rel=1e-12)
    assert shuffled["std"] == pytest.approx(case["inception_score_shuffled_std"], rel=1e-12)
    in_order = inception_score(case.logits, splits=splits, shuffle=False)
    assert in_order["mean"] == pytest.approx(case["inception_score_in_order_mean"], rel=1e-12)
    assert in_order["std"] == pytest.approx(case["inception_score_in_order_std"], rel=1e-12)
    whole = inception_score(case.logits, splits=1, shuffle=False)
    assert whole["mean"] == pytest.approx(case["inception_score_one_split"], rel=1e-12)


def test_the_shuffle_is_the_stored_permutation(case):
    splits = case.config["isc_splits"]
    permuted = case.logits[case.outputs["isc_permutation"].long()]
    assert inception_score(permuted, splits=splits, shuffle=False) == inception_score(case.logits, splits=splits)
