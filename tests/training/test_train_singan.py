"""SinGANs learn one image, a scale after the other; they resume within and between scales."""

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext import SinGANPipeline
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_singan import SinGANConfig, SinGANRecipe, pyramid_sizes
from tests.training import runs
from tests.training.runs import assert_resumes_exactly, steps


OPTIONS = {
    "resolution": [16, 20],
    "generator": {"layer_channels": [4, 4]},
    "discriminator": {"layer_channels": [4, 4]},
    "min_size": 12,
    "steps_per_scale": 3,
    "checkpointing_steps": 2,
    "logging_steps": 1,
    "num_evaluation_samples": 2,
}


@pytest.fixture(scope="module", autouse=True)
def photo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photo")
    noise = (torch.rand(6, 8, 3, generator=torch.Generator().manual_seed(0)) * 255).byte().numpy()
    Image.fromarray(noise).resize((50, 40)).save(folder / "photo.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        yield folder


def configuration(output_dir, **options) -> SinGANConfig:
    return SinGANConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def trainer(output_dir, **options) -> Trainer:
    return runs.trainer(SinGANRecipe, configuration(output_dir, **options))


def test_sizes_grow_by_about_the_factor():
    assert pyramid_sizes((64, 96), 24, 0.75) == [(24, 36), (31, 46), (39, 59), (50, 75), (64, 96)]
    assert pyramid_sizes((30, 30), 30, 0.5) == [(30, 30)]
    assert pyramid_sizes((16, 40), 8, 0.5) == [(8, 20), (16, 40)]


def test_a_scale_is_trained_after_the_other_which_stays(tmp_path):
    run = trainer(tmp_path)
    assert len(run.recipe.sizes) == 2 and run.max_train_steps == 6

    def weights(name):
        return torch.cat([tensor.flatten() for tensor in run.networks[name].state_dict().values()]).clone()

    names = [f"{kind}_{scale}" for kind in ("generator", "discriminator") for scale in (0, 1)]
    before = {name: weights(name) for name in names}
    logged = steps(run, 3)
    assert {"reconstruction", "penalty", "real_logits", "generator_0_loss"} <= logged[0].keys()
    first = {name: weights(name) for name in names}
    steps(run, 1)
    second = {name: weights(name) for name in names}
    for kind in ("generator", "discriminator"):
        assert not torch.equal(before[f"{kind}_0"], first[f"{kind}_0"])
        assert torch.equal(before[f"{kind}_1"], first[f"{kind}_1"])
        assert torch.equal(first[f"{kind}_0"], second[f"{kind}_0"])
        # the second scale began with the weights of the first one, and changed them by a step
        assert 0 < (second[f"{kind}_1"] - first[f"{kind}_0"]).abs().max() < 0.01
    amplitudes = run.recipe.pyramid.noise_amplitudes
    assert amplitudes[0] == 1 and 0 < amplitudes[1] < 0.1


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, stop):
    assert_resumes_exactly(trainer, tmp_path, stop=stop, end=6)
    images = [SinGANPipeline.from_pretrained(tmp_path / run).reconstruct("pt") for run in ("whole", "stopped")]
    assert torch.equal(*images)


def test_another_pyramid_is_not_resumed(tmp_path):
    assert trainer(tmp_path).train()
    with pytest.raises(ValueError, match="steps_per_scale"):
        trainer(tmp_path, resume_from_checkpoint="latest", steps_per_scale=4)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(tmp_path):
    assert trainer(tmp_path).train()
    pipe = SinGANPipeline.from_pretrained(tmp_path)
    assert "SinGAN of 2 scales up to 16x20 pixels" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "sifid_of_shuffled_patches" in (tmp_path / "metrics.json").read_text(encoding="utf-8")
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    images = [p(width=30, generator=torch.Generator().manual_seed(0), output_type="pt").images for p in (pipe, other)]
    assert images[0].shape == (1, 3, 16, 30)
    torch.testing.assert_close(images[0], images[1])


def test_a_run_that_ends_early_has_the_scales_that_began(tmp_path):
    assert trainer(tmp_path, max_train_steps=2).train()
    assert SinGANPipeline.from_pretrained(tmp_path).image_shape == (3, 12, 15)


@pytest.mark.slow
def test_the_fixed_noise_learns_to_give_the_image_back(tmp_path):
    run = trainer(tmp_path, steps_per_scale=150, learning_rate=5e-3)
    errors = [row["reconstruction"] for row in steps(run, 150)]
    assert sum(errors[-10:]) < 0.3 * sum(errors[:10])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"min_size": 17}, "--min_size must be from 1 to the smaller side of --resolution, 16"),
        ({"scale_factor": 1.0}, "--scale_factor must be between 0 and 1"),
        ({"steps_per_scale": 0}, "--steps_per_scale must be at least 1"),
        ({"gradient_penalty": 0.0}, "--gradient_penalty must be positive"),
        ({"noise_amplitude": -0.1}, "--noise_amplitude must be at least 0"),
        ({"random_flip": True}, "--random_flip would change the one image"),
        ({"use_ema": True}, "--use_ema is not for a SinGAN"),
        ({"feature_extractor": "digits"}, "--feature_extractor is not for SIFID"),
        ({"compile": True}, "--compile can't differentiate twice"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        configuration(tmp_path, **options)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_is_refused(tmp_path, photo):
    with pytest.raises(ValueError, match="--generator: SinGANScale has no argument 'channels'"):
        trainer(tmp_path, generator={"channels": 3})
    with pytest.raises(ValueError, match="--discriminator: .* sides of at least 15"):
        trainer(tmp_path, discriminator={"layer_channels": [4] * 6})
    two = tmp_path / "two"
    two.mkdir()
    for name in ("a.png", "b.png"):
        (two / name).write_bytes((photo / "photo.png").read_bytes())
    with pytest.raises(ValueError, match="trained on one image, but the data set has 2"):
        trainer(tmp_path / "out", train_data_dir=str(two))
