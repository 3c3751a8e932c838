"""HDR from one exposure: training, resuming, measuring; and what does not fit is refused."""

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import RestorationPipeline
from diffusers_ext.training.restoration.exposures import light_errors, overexpose
from diffusers_ext.training.train_hdr import HDRConfig, HDRRecipe
from tests.training import runs
from tests.training.runs import tensors
from tests.training.text_to_image_runs import run_on_one_and_two_processes


OPTIONS = {
    "dataset_name": "digits",
    "resolution": [8],
    "channels": 1,
    "generator_options": {"base_channels": 4, "num_levels": 2},
    "stops": [0.0, 2.0],
    "max_train_steps": 4,
    "train_batch_size": 4,
    "checkpointing_steps": 2,
    "metrics": ["log_error", "psnr_mu"],
    "num_evaluation_samples": 6,
    "lr_scheduler": "constant",
}


def train(output_dir, **options) -> None:
    config = HDRConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})
    assert runs.trainer(HDRRecipe, config).train()


def test_a_resumed_run_is_an_uninterrupted_one_and_loads_in_both_ways(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "part", max_train_steps=2)
    train(tmp_path / "part", resume_from_checkpoint="latest")
    whole, resumed = (tensors(tmp_path / name, 4) for name in ("whole", "part"))
    assert whole.keys() == resumed.keys() and all(torch.equal(resumed[key], whole[key]) for key in whole)

    image = torch.rand(1, 9, 12)
    installed = RestorationPipeline.from_pretrained(tmp_path / "whole")
    remote = DiffusionPipeline.from_pretrained(tmp_path / "whole", trust_remote_code=True)
    outputs = [pipe(image, output_type="pt").images for pipe in (installed, remote)]
    assert torch.equal(*outputs) and outputs[0].max() > 1 and installed.config.peak == 4
    assert "log_error" in (tmp_path / "whole" / "README.md").read_text()


def test_exposures_and_errors():
    images = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3) * 2 - 1
    light, shown = overexpose(images, torch.tensor([2.0]))
    torch.testing.assert_close(light.flatten(), torch.tensor([0, 4 * 0.5**2.2, 4.0]))
    assert shown.flatten().tolist() == [0, torch.tensor(239 / 255).item(), 1]
    errors = light_errors(shown**2.2, light, shown, peak=4.0)
    torch.testing.assert_close(errors[0, :2], torch.tensor([2.0, 1.0]))  # one value is two stops too dark
    exact = light_errors(light, light, shown, peak=4.0)
    assert exact[0, 0] == 0 and exact[0, 2] > errors[0, 2]


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    one, two = (tensors(folder, 4) for folder in run_on_one_and_two_processes("train_hdr", OPTIONS, tmp_path))
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"stops": [2.0]}, "--stops must be two numbers"),
        ({"stops": [2.0, 1.0]}, "--stops must be two numbers"),
        ({"channels": 4}, "--channels must be 1 or 3"),
        ({"feature_extractor": "digits"}, "--feature_extractor is for other recipes"),
        ({"conditioning_image_column": "image"}, "--conditioning_image_column can't be used: this training has no"),
        ({"metrics": ["fid"]}, "--metrics must be among log_error, psnr_mu"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        HDRConfig(**{**OPTIONS, "output_dir": str(tmp_path), **options})
