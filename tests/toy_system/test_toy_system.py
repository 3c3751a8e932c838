"""The system in this folder trains, publishes, loads, is measured and converted, without a change to the package."""

from diffusers_ext.training.loop.command import run

import importlib
import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import diffusers_ext
from diffusers_ext.converters.__main__ import main as convert
from diffusers_ext.training import evaluate_pipeline
from tests.toy_system import moved_in


EXAMPLE = Path(__file__).parent / "digits_pca.yaml"


@pytest.fixture(scope="module", autouse=True)
def toy_system():
    with moved_in():
        yield


def train(output_dir: Path, *options: str) -> None:
    job = importlib.import_module("diffusers_ext.training.train_pca")
    run(job.PCARecipe, job.PCAConfig, [f"--config={EXAMPLE}", f"--output_dir={output_dir}", *options])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pca")
    train(folder)
    return folder


def test_it_learns(folder):
    lines = [json.loads(line) for line in (folder / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] - 10


def test_a_resumed_run_is_an_uninterrupted_one(folder, tmp_path):
    train(tmp_path, "--max_train_steps=10", "--lr_scheduler=constant")
    train(tmp_path, "--lr_scheduler=constant", "--resume_from_checkpoint=latest")
    train(tmp_path / "whole", "--lr_scheduler=constant")
    name = Path("checkpoint-20") / "generator_model.safetensors"
    resumed, whole = load_file(tmp_path / name), load_file(tmp_path / "whole" / name)
    assert all(torch.equal(resumed[key], tensor) for key, tensor in whole.items())


def test_what_is_published_loads_in_both_ways(folder):
    installed = diffusers_ext.PCAPipeline.from_pretrained(folder)
    assert isinstance(installed.generator_model, diffusers_ext.PCAGenerator)
    remote = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    images = [
        pipe(3, generator=torch.Generator().manual_seed(0), output_type="pt").images for pipe in (installed, remote)
    ]
    assert torch.equal(*images) and images[0].shape == (3, 1, 8, 8)
    assert (folder / "pipeline_pca.py").is_file() and (folder / "samples.png").is_file()


def test_it_is_measured(folder, capsys):
    options = ["--dataset_name=digits", "--feature_extractor=digits", "--num_evaluation_samples=20"]
    evaluate_pipeline.main([f"--pretrained_model_name_or_path={folder}", *options])
    (row,) = json.loads(capsys.readouterr().out)
    assert row["fid"] > 0 and row["provenance"]["num_generated"] == 20


def test_a_checkpoint_is_converted(tmp_path):
    images = load_digits().data / 8 - 1
    pca = PCA(8).fit(images)
    names = ("components_", "mean_", "explained_variance_", "noise_variance_")
    torch.save({name: torch.tensor(getattr(pca, name)).float() for name in names}, tmp_path / "pca.pt")
    convert([str(tmp_path / "pca.pt"), str(tmp_path / "pca"), "--family=scikit_learn_pca"])
    model = diffusers_ext.PCAGenerator.from_pretrained(tmp_path / "pca")
    weight = model.decoder.weight.detach().double()
    covariance = weight @ weight.T + model.log_variance.detach().double().exp() * torch.eye(64)
    torch.testing.assert_close(covariance, torch.tensor(pca.get_covariance()), rtol=1e-4, atol=1e-5)
