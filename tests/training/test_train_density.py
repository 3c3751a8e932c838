"""Densities are fitted as scikit-learn and the formulas say, on one process and on two, and are published."""

import json
import math

import pytest
import torch
from diffusers import DiffusionPipeline
from sklearn.neighbors import KernelDensity

from diffusers_ext import AutoencoderPipeline, DensityPipeline
from diffusers_ext.models import AutoencoderMLP, KernelDensityModel
from diffusers_ext.training import evaluate_pipeline
from diffusers_ext.training.density.fitting import fit_classes, fit_kernels, fit_mixture, fit_pca
from diffusers_ext.training.loop.dry_run import rehearse
from diffusers_ext.training.train_density import DensityConfig, DensityRecipe
from tests.training import runs
from tests.training.runs import context, run_in_processes, steps, tensors, weights


OPTIONS = {
    "dataset_name": "digits",
    "validation_split": "test",
    "resolution": [8],
    "channels": 1,
    "num_levels": 17,
    "num_evaluation_samples": 20,
}


def configuration(output_dir, **options) -> DensityConfig:
    return DensityConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def trainer(output_dir, **options):
    return runs.trainer(DensityRecipe, configuration(output_dir, **options))


def points(count: int = 200, dimensions: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn((dimensions, dimensions), generator=generator, dtype=torch.float64)
    return torch.randn((count, dimensions), generator=generator, dtype=torch.float64) @ mixing


def test_a_gaussian_has_the_mean_and_the_covariance_of_each_class():
    rows, labels = points(), torch.arange(200) % 2
    options = {"num_components": 1, "regularisation": 0.1, "seed": 0}
    full = fit_classes(fit_mixture, rows, labels, 2, covariance="full", **options)
    diagonal = fit_classes(fit_mixture, rows, labels, 2, covariance="diagonal", **options)
    for label in range(2):
        expected = rows[labels == label].T.cov(correction=0) + 0.1 * torch.eye(4)
        factor = full["covariances.scale_tril"][label].double()
        torch.testing.assert_close(factor @ factor.T, expected, rtol=1e-5, atol=1e-5)
        stds = diagonal["covariances.stds"][label].double()
        torch.testing.assert_close(stds.square(), expected.diagonal(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(full["means"][label].double(), rows[labels == label].mean(dim=0))
    assert full["weight_logits"].shape == (2, 1)


def test_pca_has_the_covariance_of_its_directions_and_one_variance_for_the_others():
    state = fit_classes(fit_pca, points(), None, None, rank=2, regularisation=0.0, seed=0)
    covariance = points().T.cov()
    found = state["covariances.directions"][0].double()
    values, vectors = torch.linalg.eigh(covariance)
    torch.testing.assert_close((found.T @ vectors[:, [3, 2]]).abs(), torch.eye(2).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(state["covariances.stds"][0].double().square(), values[[3, 2]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        state["covariances.noise_stds"].double().square(), values[:2].mean()[None], rtol=1e-5, atol=1e-5
    )


def test_kernels_are_exact_where_densities_are_tiny():
    rows = points(50, 30).float()
    model = KernelDensityModel((30,), 50)
    model.load_state_dict(fit_kernels(rows, None, bandwidth=0.5, seed=0))
    with torch.no_grad():
        found = model(points(60, 30).float()[50:]).log_prob
    assert found.max() < -100
    exact = KernelDensity(bandwidth=0.5, leaf_size=50).fit(rows.numpy())  # a single leaf, so that nothing is left out
    expected = torch.from_numpy(exact.score_samples(points(60, 30).float()[50:].numpy())).float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)


def test_the_bandwidth_makes_points_likely_given_the_others():
    rows, labels = points(120).float(), torch.arange(120) % 2
    chosen = fit_kernels(rows, labels, bandwidth=None, seed=0)["bandwidth"].item()

    def likelihood(bandwidth):
        total = 0.0
        for row in range(120):
            others = (labels == labels[row]) & (torch.arange(120) != row)
            model = KernelDensityModel((4,), int(others.sum()))
            model.load_state_dict(fit_kernels(rows[others], None, bandwidth=bandwidth, seed=0))
            total += model(rows[row : row + 1]).log_prob.item()
        return total

    assert likelihood(chosen) > max(likelihood(0.9 * chosen), likelihood(1.1 * chosen))


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="needs at least 5 images of each class, but a class has 4"):
        fit_mixture(points(4), num_components=5, covariance="full", regularisation=0.1, seed=0)
    with pytest.raises(ValueError, match="needs at least 4 images"):
        fit_pca(points(3), rank=3, regularisation=0.1, seed=0)
    with pytest.raises(ValueError, match="not positive definite: raise --regularisation"):
        fit_mixture(torch.ones(9, 2).double(), num_components=1, covariance="full", regularisation=0.0, seed=0)
    with pytest.raises(ValueError, match="No class has two different images.* give --bandwidth"):
        fit_kernels(torch.ones(9, 2), None, bandwidth=None, seed=0)


@pytest.mark.parametrize(
    "options",
    [
        {"density": "gaussian", "covariance": "diagonal"},
        {"density": "mixture", "num_components": 3, "covariance": "diagonal", "class_conditional": True},
        {"density": "pca"},
        {"density": "kernel", "class_conditional": True},
    ],
)
def test_every_density_is_fitted_in_a_step(tmp_path, options):
    run = trainer(tmp_path, **options)
    before = weights(run.networks["model"])
    steps(run, 1)
    assert not torch.equal(weights(run.networks["model"]), before)
    pipe = run.recipe.pipeline(run.networks["model"])
    images = next(run.recipe.validation_images.reference_batches(100))["pixel_values"]
    bits = pipe.bits_per_dim(images, generator=torch.Generator().manual_seed(0)).mean()
    assert 2 < bits < 3.8  # of at most log2(17) = 4.1


def test_a_dry_run_says_that_a_step_takes_all_images(tmp_path):
    assert "1 step of all images" in rehearse(trainer(tmp_path), str(tmp_path))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert trainer(folder, class_conditional=True, feature_extractor="digits").train()
    return folder


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, trained):
    again = tmp_path / "again"
    assert trainer(again, class_conditional=True).train()
    assert trainer(again, class_conditional=True, resume_from_checkpoint="latest").train()
    expected, found = tensors(trained, 1), tensors(again, 1)
    assert expected and all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(trained):
    def images(pipe):
        generator = torch.Generator().manual_seed(0)
        return pipe(class_labels=["three"], generator=generator, output_type="pt").images

    pipe = DensityPipeline.from_pretrained(trained)
    other = DiffusionPipeline.from_pretrained(trained, trust_remote_code=True)
    assert type(other).__module__ != type(pipe).__module__
    assert torch.equal(images(other), images(pipe)) and images(pipe).shape == (1, 1, 8, 8)


def test_a_run_leaves_its_measures_and_a_card(trained):
    likelihood, samples = json.loads((trained / "metrics.json").read_text())["evaluations"]
    assert 2.5 < likelihood["bits_per_dim"] < 2.8 and likelihood["bayes_accuracy"] > 0.97
    assert likelihood["provenance"]["split"] == "test" and likelihood["provenance"]["num_images"] == 531
    assert likelihood["outlier_auroc"]["inverted"] > 0.99
    assert {"fid", "accuracy"} <= samples.keys()
    card = (trained / "README.md").read_text()
    assert "pipe.bits_per_dim(images)" in card and "Gaussian" in card


def test_the_evaluation_measures_the_same_likelihood(trained, capsys):
    arguments = ["--pretrained_model_name_or_path", str(trained), "--dataset_name", "digits"]
    evaluate_pipeline.main([*arguments, "--dataset_split", "test", "--likelihoods", "dequantized"])
    (row,) = json.loads(capsys.readouterr().out)
    expected = json.loads((trained / "metrics.json").read_text())["evaluations"][0]
    assert row["bits_per_dim"] == pytest.approx(expected["bits_per_dim"], rel=1e-6)
    with pytest.raises(SystemExit):
        evaluate_pipeline.main([*arguments, "--likelihoods", "exact"])
    assert "may be dequantized alone, and not exact" in capsys.readouterr().err


def test_the_latents_of_an_autoencoder_get_a_prior(tmp_path):
    torch.manual_seed(0)
    vae = AutoencoderMLP(sample_size=8, in_channels=1, hidden_dims=(16,), latent_dim=3, variational=True)
    AutoencoderPipeline(vae).save_pretrained(tmp_path / "vae")
    options = {"vae": str(tmp_path / "vae"), "density": "mixture", "num_components": 2, "num_levels": 256}
    assert trainer(tmp_path / "prior", **options).train()
    pipe = DensityPipeline.from_pretrained(tmp_path / "prior")
    assert pipe(batch_size=2, output_type="pt").images.shape == (2, 1, 8, 8)
    (row,) = json.loads((tmp_path / "prior" / "metrics.json").read_text())["evaluations"]
    assert math.isfinite(row["negative_log_likelihood"]) and "bits_per_dim" not in row
    with pytest.raises(ValueError, match="--vae can't encode images of --channels 3"):
        DensityRecipe(configuration(tmp_path, **{**options, "channels": 3}), context()).networks()


@pytest.mark.slow
@pytest.mark.parametrize("density", ["mixture", "kernel"])
def test_two_processes_fit_the_same(tmp_path, density):
    options = {**OPTIONS, "resolution": 8, "density": density, "class_conditional": True}
    for processes in (1, 2):
        run_in_processes("train_density", processes, {**options, "output_dir": tmp_path / str(processes)})
    one, two = tensors(tmp_path / "1", 1), tensors(tmp_path / "2", 1)
    assert one and all(torch.equal(two[name], one[name]) for name in one)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_levels": 1}, "--num_levels must be from 2 to 256, not 1"),
        ({"num_components": 3}, "--num_components is for --density mixture or pca, not gaussian"),
        ({"bandwidth": 0.1}, "--bandwidth is for --density kernel, not gaussian"),
        ({"density": "kernel", "bandwidth": -1.0}, "--bandwidth must be positive"),
        ({"density": "pca", "covariance": "diagonal"}, "--covariance is for --density gaussian or mixture"),
        ({"learning_rate": 1.0}, "--learning_rate has no effect: a density is fitted in one step"),
        ({"max_train_steps": 2}, "--max_train_steps has no effect"),
        ({"random_flip": True}, "--random_flip has no effect"),
        ({"vae": "vae"}, "--num_levels is for pixels"),
        ({"density": "pca", "num_components": 64}, "--num_components must be below 64"),
    ],
)
def test_bad_options_are_refused_at_once(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe = DensityRecipe(configuration(tmp_path, **options), context())
        recipe.networks()


def test_a_classifier_that_learns_from_samples_is_tested_on_images(trained, capsys):
    arguments = ["--pretrained_model_name_or_path", str(trained), "--dataset_name", "digits"]
    arguments += ["--feature_extractor", "digits", "--metrics", "accuracy", "--num_evaluation_samples", "200"]
    rows = []
    for batch_size in (100, 30):
        evaluate_pipeline.main(
            [*arguments, "--classification_split", "test", "--evaluation_batch_size", str(batch_size)]
        )
        rows += json.loads(capsys.readouterr().out)
    assert rows[0]["cas"] == rows[1]["cas"] > 0.9 and rows[0]["cas_real"] > 0.9
    assert set(rows[0]["cas_per_class"]) == set(rows[0]["accuracy_per_class"])
    provenance = rows[0]["provenance"]
    assert provenance["cas_split"] == "test" and provenance["split"] == "train"
    assert (provenance["cas_num_tested"], provenance["cas_num_real"]) == (531, 200)


def test_classification_is_refused_without_classes_or_features(tmp_path, capsys):
    assert trainer(tmp_path, density="pca").train()
    arguments = ["--pretrained_model_name_or_path", str(tmp_path), "--dataset_name", "digits"]
    for options, message in (
        (["--feature_extractor", "digits"], "is for pipelines with classes, and this one has none"),
        (["--likelihoods", "dequantized"], "--classification_split needs --feature_extractor"),
    ):
        with pytest.raises(SystemExit):
            evaluate_pipeline.main([*arguments, *options, "--classification_split", "test"])
        assert message in capsys.readouterr().err
