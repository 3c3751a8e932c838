"""DANet trains a denoiser and a generator of noise, resumes and is published; and what does not fit is refused."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import RestorationPipeline
from diffusers_ext.losses import l1_loss, noise_mean_loss
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_danet import DANetConfig, DANetRecipe
from tests.training import runs
from tests.training.runs import context, tensors
from tests.training.text_to_image_runs import run_on_one_and_two_processes


OPTIONS = {
    "dataset_name": "digits",
    "resolution": [8],
    "channels": 1,
    "unet_options": {"base_channels": 4, "num_levels": 2},
    "critic_options": {"base_channels": 4},
    "critic_steps": 2,
    "max_train_steps": 4,
    "train_batch_size": 4,
    "checkpointing_steps": 2,
    "metrics": ["psnr"],
    "num_evaluation_samples": 6,
    "lr_scheduler": "constant",
}


def configuration(output_dir, **options) -> DANetConfig:
    return DANetConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def train(output_dir, **options) -> None:
    assert runs.trainer(DANetRecipe, configuration(output_dir, **options)).train()


def test_a_resumed_run_is_an_uninterrupted_one_and_loads_in_both_ways(tmp_path):
    train(tmp_path / "whole")
    train(tmp_path / "part", max_train_steps=2)
    train(tmp_path / "part", resume_from_checkpoint="latest")
    whole, resumed = (tensors(tmp_path / name, 4) for name in ("whole", "part"))
    assert whole.keys() == resumed.keys() and all(torch.equal(resumed[key], whole[key]) for key in whole)

    image = torch.rand(1, 9, 12)
    installed = RestorationPipeline.from_pretrained(tmp_path / "whole")
    remote = DiffusionPipeline.from_pretrained(tmp_path / "whole", trust_remote_code=True)
    for pipes in (
        [pipe(image, output_type="pt").images for pipe in (installed, remote)],
        [pipe.add_noise(image, torch.Generator().manual_seed(0)) for pipe in (installed, remote)],
    ):
        assert torch.equal(*pipes) and pipes[0].shape == (1, 1, 9, 12)
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "akld" in card.lower() and "Gaussian noise" in card


def test_the_losses_of_a_step_are_those_of_the_paper(tmp_path):
    job, losses = DANetRecipe(configuration(tmp_path, critic_steps=1), context()), {}
    networks = job.networks()
    for name, network in networks.items():
        setattr(job, name, network)
    job.network, job.log = networks.get, lambda **values: None
    job.minimise = lambda name, loss: losses.update({name: loss.detach()})
    batch, draw = {"pixel_values": torch.rand(3, 1, 8, 8) * 2 - 1}, Draw(0, torch.device("cpu"))
    job.step(batch, draw.begin(0, range(3)))
    assert losses.keys() == {"critic", "denoiser", "noise_generator"}

    draw.begin(0, range(3))
    clean, noisy = batch["pixel_values"] / 2 + 0.5, job.degraded.mix(batch, draw) / 2 + 0.5
    noise = draw.normal(1, 8, 8)
    with torch.no_grad():
        denoised, generated = networks["denoiser"](noisy).sample, networks["noise_generator"](clean, noise).sample

        def score(*pair):
            return networks["critic"](torch.cat(pair, dim=1)).logits

        expected = 1000 * l1_loss(denoised, clean) - 0.5 * score(denoised, noisy)
        torch.testing.assert_close(losses["denoiser"], expected)
        expected = 10 * noise_mean_loss(noisy, clean, generated) - 0.5 * score(clean, generated)
        torch.testing.assert_close(losses["noise_generator"], expected)
        apart = (score(denoised, noisy) + score(clean, generated)) / 2 - score(clean, noisy)
    penalties = losses["critic"] - apart
    assert (penalties > 0).all() and (penalties < 10).all()  # gradients are shorter than 1 in the beginning


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    options = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in OPTIONS.items()}
    one, two = (tensors(folder, 4) for folder in run_on_one_and_two_processes("train_danet", options, tmp_path))
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"noise_share": 1.5}, "--noise_share must be from 0 to 1"),
        ({"critic_steps": 0}, "--critic_steps must be at least 1"),
        ({"unet_options": {"noise_channels": 2}}, "noise_channels"),
        ({"resolution": [9]}, "multiples of 2"),
        ({"metrics": ["akld"]}, "--metrics must be among"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        runs.trainer(DANetRecipe, configuration(tmp_path, **options))
