import json

import pytest
import torch
from diffusers import (
    EDMDPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image

from diffusers_ext import ClassConditionalPipeline, ExactDDPMScheduler
from diffusers_ext.training.train_classifier import ClassifierConfig, ClassifierRecipe
from tests.tiny_unet import tiny_unet
from tests.training.runs import context, trainer


CLASSIFIER = {"block_out_channels": [8, 16], "down_block_types": ["DownBlock2D"] * 2, "norm_num_groups": 4}


def save_diffusion_model(folder, scheduler, **config):
    """An unconditional diffusion model with random weights."""
    unet = tiny_unet(in_channels=1, out_channels=1)
    ClassConditionalPipeline(unet, scheduler, **config).save_pretrained(folder)
    return folder


def configuration(diffusion, output_dir, **options) -> ClassifierConfig:
    config = {
        "pretrained_model_name_or_path": str(diffusion),
        "dataset_name": "digits",
        "resolution": [8],
        "channels": 1,
        "classifier": CLASSIFIER,
        "max_train_steps": 3,
        "train_batch_size": 8,
        "output_dir": str(output_dir),
    }
    return ClassifierConfig(**{**config, **options})


def recipe(diffusion, output_dir, **options) -> ClassifierRecipe:
    return ClassifierRecipe(configuration(diffusion, output_dir, **options), context())


@pytest.mark.parametrize(
    "scheduler",
    [
        pytest.param(UniPCMultistepScheduler(prediction_type="v_prediction"), marks=pytest.mark.slow),
        EDMDPMSolverMultistepScheduler(sigma_max=20.0),
    ],
    ids=["v_prediction", "edm"],
)
def test_a_run_leaves_a_pipeline_that_is_guided(tmp_path, scheduler):
    folder = tmp_path / "guided"
    options = {
        "validation_split": "test",
        "feature_extractor": "digits",
        "num_evaluation_samples": 20,
        "num_inference_steps": 2,
        "guidance_scales": [0.0, 5.0],
        "guidance_scale": 4.0,
    }
    diffusion = save_diffusion_model(tmp_path / "diffusion", scheduler, default_num_inference_steps=2)
    assert trainer(ClassifierRecipe, configuration(diffusion, folder, **options)).train()

    accuracies, *rows = json.loads((folder / "metrics.json").read_text())["evaluations"]
    assert accuracies["provenance"]["split"] == "test"
    assert all(0 <= accuracies[f"classifier_accuracy_at_{level}%"] <= 1 for level in (0, 25, 50, 75))
    assert [row["guidance_scale"] for row in rows] == [0.0, 5.0] and "accuracy" in rows[0]
    with Image.open(folder / "samples.png") as grid:
        assert grid.width > 700 and grid.height > 300
    card = (folder / "README.md").read_text()
    assert "classifier-guidance" in card and "classifier_accuracy_at_25%" in card

    pipe = ClassConditionalPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.guider.config.guidance_scale == 4.0 and pipe.config.id2label[7] == "seven"
    ancestral = isinstance(scheduler, UniPCMultistepScheduler)
    assert isinstance(pipe.scheduler, ExactDDPMScheduler if ancestral else EDMDPMSolverMultistepScheduler)
    generator = torch.Generator()
    guided, unguided = (
        pipe("seven", generator=generator.manual_seed(0), output_type="pt", **scale).images
        for scale in ({}, {"guidance_scale": 0})
    )
    assert not torch.equal(guided, unguided)


def test_what_does_not_fit_is_refused(tmp_path):
    diffusion = save_diffusion_model(tmp_path / "diffusion", UniPCMultistepScheduler(), id2label={0: "cat", 1: "dog"})
    with pytest.raises(ValueError, match="--pretrained_model_name_or_path is required"):
        recipe(None, tmp_path, pretrained_model_name_or_path=None)
    with pytest.raises(ValueError, match="A classifier needs labels"):
        recipe(diffusion, tmp_path, label_column="none")
    with pytest.raises(ValueError, match="makes images of 1 channels, but this run has 3"):
        recipe(diffusion, tmp_path, channels=3)
    with pytest.raises(ValueError, match="have different classes"):
        recipe(diffusion, tmp_path)
    with pytest.raises(ValueError, match=r"makes images of the size \(8, 8\), but --resolution is \(16, 16\)"):
        recipe(diffusion, tmp_path, resolution=[16])
    digits = save_diffusion_model(tmp_path / "digits", UniPCMultistepScheduler())
    with pytest.raises(ValueError, match="no split 'nothing'"):
        recipe(digits, tmp_path, validation_split="nothing")
    with pytest.raises(ValueError, match="--guidance_scale must be a finite number"):
        recipe(digits, tmp_path, guidance_scale=float("nan"))
