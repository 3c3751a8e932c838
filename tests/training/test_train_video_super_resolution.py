"""Super-resolution of films: what a run leaves, what is shown to the network, exact resume, and what is refused."""

import pytest
import torch
from diffusers import DiffusionPipeline, UNet3DConditionModel

from diffusers_ext import TextToVideoPixelPipeline
from diffusers_ext.training.train_video_super_resolution import (
    VideoSuperResolutionConfig,
    VideoSuperResolutionRecipe,
    shrink_films,
)
from tests.tiny_films import TINY_CONVOLUTIONAL_UNET, TINY_MOTION_UNET, TINY_TEXT, write_captioned_films
from tests.training.runs import steps, tensors, trainer
from tests.training.text_to_image_runs import run_on_one_and_two_processes


OPTIONS = {
    "resolution": [8],
    "channels": 1,
    "num_frames": 4,
    "factor": 2,
    "frame_factor": 2,
    "label_column": "none",
    "denoiser": "UNet3DConditionModel",
    "unet": TINY_CONVOLUTIONAL_UNET,
    "text_config": TINY_TEXT,
    "train_batch_size": 4,
    "max_train_steps": 3,
    "checkpointing_steps": 2,
    "learning_rate": 1e-2,
    "lr_warmup_steps": 0,
    "num_inference_steps": 2,
}
ATTENDING = {"denoiser": "UNetMotionModel", "unet": TINY_MOTION_UNET}


@pytest.fixture(scope="module", autouse=True)
def films(tmp_path_factory):
    folder = write_captioned_films(tmp_path_factory.mktemp("films"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        patch.setitem(OPTIONS, "cache_dir", str(tmp_path_factory.mktemp("cache")))
        yield folder


def configuration(output_dir, **options) -> VideoSuperResolutionConfig:
    return VideoSuperResolutionConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def enlarge(pipe, small):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe("a two", low_res_video=small, generator=generator, output_type="pt").frames


def test_a_run_leaves_a_pipeline_and_resumes_exactly(tmp_path):
    """The network has convolutions over time; the pipeline loads in both ways."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert trainer(VideoSuperResolutionRecipe, configuration(whole)).train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers_ext.training.loop.outputs.Outputs.write", lambda *arguments: None)
        assert trainer(VideoSuperResolutionRecipe, configuration(stopped, max_train_steps=2)).train()
        resumed = configuration(stopped, resume_from_checkpoint="latest")
        assert trainer(VideoSuperResolutionRecipe, resumed).train()
    expected, found = tensors(whole, 3), tensors(stopped, 3)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)

    pipe = TextToVideoPixelPipeline.from_pretrained(whole)
    assert isinstance(pipe.unet, UNet3DConditionModel) and pipe.is_super_resolver
    assert pipe.config.conditioning_augmentation == 0.5
    small = torch.rand(2, 1, 4, 4)  # frames, channels, height, width
    made = enlarge(pipe, small)
    assert made.shape == (1, 4, 1, 8, 8)
    alone = DiffusionPipeline.from_pretrained(whole, custom_pipeline=str(whole), trust_remote_code=True)
    torch.testing.assert_close(enlarge(alone, small), made)
    assert "low_res_video=small" in (whole / "README.md").read_text()


def test_every_so_many_frames_are_kept_and_halved():
    films = torch.linspace(-1, 1, 4).view(1, 1, 4, 1, 1).expand(2, 3, 4, 8, 8)
    small = shrink_films(films, (4, 4), 2)
    assert small.shape == (2, 3, 2, 4, 4)
    torch.testing.assert_close(small[0, 0, :, 0, 0], films[0, 0, ::2, 0, 0], rtol=0, atol=1 / 255)


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    """With attention over time: convolutions over time have a fixed dropout, which each process draws for itself."""
    one, two = run_on_one_and_two_processes("train_video_super_resolution", {**OPTIONS, **ATTENDING}, tmp_path)
    found = tensors(two, 3)
    for name, tensor in tensors(one, 3).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_it_learns_to_enlarge(tmp_path):
    job = trainer(VideoSuperResolutionRecipe, configuration(tmp_path, **ATTENDING, train_batch_size=8))
    losses = [values["unet_loss"] for values in steps(job, 30)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"frame_factor": 3}, "--num_frames must be a multiple of --frame_factor 3, not 4"),
        ({"factor": 3}, "--resolution must be a multiple of --factor 3"),
        ({"factor": 1, "frame_factor": 1}, "leave nothing to enlarge"),
        ({"conditioning_augmentation": 1.0}, "--conditioning_augmentation must be in"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, reason):
    with pytest.raises(ValueError, match=reason):
        configuration(tmp_path, **options)
