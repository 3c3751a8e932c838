"""EBGANs are trained, resumed and published; and what does not fit is refused."""

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import GANPipeline
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_ebgan import EBGANConfig, EBGANRecipe
from tests.training import runs
from tests.training.runs import assert_resumes_exactly, steps, write_few_digits


OPTIONS = {
    "resolution": [8],
    "channels": 1,
    "generator": {"latent_dim": 6, "block_out_channels": [6, 4]},
    "discriminator": {"channels": 4, "embedding_dim": 5},
    "max_train_steps": 4,
    "train_batch_size": 8,
    "checkpointing_steps": 2,
    "logging_steps": 1,
}


@pytest.fixture(scope="module", autouse=True)
def few_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    write_few_digits(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        yield


def configuration(output_dir, **options) -> EBGANConfig:
    return EBGANConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def trainer(output_dir, **options) -> Trainer:
    return runs.trainer(EBGANRecipe, configuration(output_dir, **options))


def test_only_generated_images_below_the_margin_are_raised(tmp_path):
    """With a margin that all energies are above, the discriminator learns to reconstruct real images alone."""
    (logged,) = steps(trainer(tmp_path / "small", margin=1e-6), 1)
    assert logged["discriminator_loss"] == pytest.approx(logged["real_energy"])
    (logged,) = steps(trainer(tmp_path / "large", margin=100.0, pulling_away=0.5), 1)
    expected = logged["real_energy"] + 100 - logged["fake_energy"]
    assert logged["discriminator_loss"] == pytest.approx(expected, rel=1e-4)
    assert 0 < logged["pulling_away"] <= 1


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path):
    assert_resumes_exactly(trainer, tmp_path, stop=2, end=4)
    pipe = GANPipeline.from_pretrained(tmp_path / "stopped")
    assert "EBGAN" in (tmp_path / "stopped" / "README.md").read_text(encoding="utf-8")
    other = DiffusionPipeline.from_pretrained(tmp_path / "stopped", trust_remote_code=True)
    latents = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    images = [p(latents=latents, output_type="pt").images for p in (pipe, other)]
    assert images[0].shape == (2, 1, 8, 8)
    torch.testing.assert_close(*images)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"resolution": [10]}, "--resolution must be a square of 4, 8, 12"),
        ({"margin": 0.0}, "--margin must be positive"),
        ({"pulling_away": -1.0}, "--pulling_away must be at least 0"),
        ({"class_conditional": True}, "an EBGAN has no classes"),
        ({"train_batch_size": 1}, "--train_batch_size must be at least 2"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        configuration(tmp_path, **options)


def test_networks_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--generator: .* must be two positive numbers"):
        trainer(tmp_path, generator={"block_out_channels": [4]})
