"""GANs of films: what a run leaves, exact resume, and what is refused."""

import re

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import VideoGANPipeline
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_video_gan import VideoGANConfig, VideoGANRecipe, usual_widths
from tests.tiny_films import write_captioned_films
from tests.training.runs import assert_resumes_exactly, context, steps, tensors, trainer
from tests.training.text_to_image_runs import run_on_one_and_two_processes
from tests.waits import waits_of_an_update


OPTIONS = {
    "resolution": [8],
    "channels": 1,
    "num_frames": 4,
    "num_sampled_frames": 2,
    "label_column": "label",
    "class_conditional": True,
    "generator": {"base_size": 2, "latent_dim": 4, "block_out_channels": [6, 4], "gru_channel_multiples": [1]},
    "spatial_discriminator": {"block_out_channels": [4, 6]},
    "temporal_discriminator": {"block_out_channels": [4, 6], "num_3d_blocks": 1},
    "train_batch_size": 4,
    "max_train_steps": 4,
    "checkpointing_steps": 2,
    "logging_steps": 1,
    "num_evaluation_samples": 4,
}


@pytest.fixture(scope="module", autouse=True)
def films(tmp_path_factory):
    folder = write_captioned_films(tmp_path_factory.mktemp("films"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        patch.setitem(OPTIONS, "cache_dir", str(tmp_path_factory.mktemp("cache")))
        yield folder


def configuration(output_dir, **options) -> VideoGANConfig:
    return VideoGANConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def test_each_step_improves_all_three_networks(tmp_path):
    run = trainer(VideoGANRecipe, configuration(tmp_path))
    assert re.fullmatch(r"\d+ films, 8x8x1, in 4 frames", run.recipe.describe_data())
    before = {name: [weight.clone() for weight in net.parameters()] for name, net in run.networks.items()}
    first, second = steps(run, 2)
    # The generator's turn is every second step.
    assert "generator_loss" not in first and "spatial_discriminator_loss" in first
    logged = second
    assert {"generator_loss", "spatial_discriminator_loss", "temporal_discriminator_real_logits"} <= logged.keys()
    for name, network in run.networks.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True)), name


def test_usual_generators_end_with_64_channels():
    assert [usual_widths(size) for size in (8, 16, 64)] == [[64], [128, 64], [256, 256, 128, 64]]


@pytest.mark.parametrize(
    "size, num_frames",
    [(8, 2), pytest.param(16, 4, marks=pytest.mark.slow), pytest.param(64, 6, marks=pytest.mark.slow)],
)
def test_usual_networks_fit_films_of_any_size(tmp_path, size, num_frames):
    options = {"resolution": [size], "num_frames": num_frames, "num_sampled_frames": 1}
    options |= {"generator": {}, "spatial_discriminator": {}, "temporal_discriminator": {}}
    recipe = VideoGANRecipe(configuration(tmp_path, **options), context())
    with torch.device("meta"), torch.no_grad():
        networks = recipe.networks()
        films, labels = torch.zeros(1, 1, num_frames, size, size), torch.zeros(1, dtype=torch.int64)
        assert networks["temporal_discriminator"].eval()(films, labels).logits.shape == (1,)
        assert networks["spatial_discriminator"].eval()(films[:, :, :1], labels).logits.shape == (1,)


def test_sampled_frames_are_distinct_and_in_order(tmp_path):
    recipe = trainer(VideoGANRecipe, configuration(tmp_path)).recipe
    films = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(6, 2, 4, 3, 3)
    draw = Draw(0, torch.device("cpu")).begin(0, range(6))
    frames = recipe.sample_frames(films, draw)
    assert frames.shape == (6, 2, 2, 3, 3)
    assert (frames[:, :, 1] > frames[:, :, 0]).all()
    assert len({tuple(film[0, :, 0, 0].tolist()) for film in frames}) > 1


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="conditional"),
        pytest.param({"class_conditional": False}, id="plain", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, options):
    def train(output_dir, **further):
        return trainer(VideoGANRecipe, configuration(output_dir, **options, **further))

    assert_resumes_exactly(train, tmp_path, stop=2, end=4)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(tmp_path):
    options = {"feature_extractor": "digits", "num_evaluation_samples": 8}
    assert trainer(VideoGANRecipe, configuration(tmp_path, **options)).train()
    pipe = VideoGANPipeline.from_pretrained(tmp_path)
    assert "DVD-GAN" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert '"measured": "single frames"' in (tmp_path / "metrics.json").read_text(encoding="utf-8")
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    films = [p("two", generator=torch.Generator().manual_seed(0), output_type="pt").frames for p in (pipe, other)]
    assert films[0].shape == (1, 4, 1, 8, 8)
    torch.testing.assert_close(films[0], films[1])


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    one, two = run_on_one_and_two_processes("train_video_gan", OPTIONS, tmp_path)
    found = tensors(two, 4)
    for name, tensor in tensors(one, 4).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_a_step_waits_for_no_device(tmp_path):
    assert not waits_of_an_update(trainer(VideoGANRecipe, configuration(tmp_path)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_sampled_frames": 5}, "--num_sampled_frames must be at most --num_frames 4, not 5"),
        ({"num_frames": 0}, "--num_frames must be at least 1"),
        ({"train_batch_size": 1}, "--train_batch_size must be at least 2"),
        ({"num_frames": 5}, "--num_frames must be even"),
        ({"resolution": [12]}, "--resolution must be a square of 8, 16, 32"),
        ({"streaming": True}, "--streaming is not for films"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        configuration(tmp_path, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"generator": {"block_out_channels": [6, 4]}}, "--generator: it makes frames of 16 pixels, but"),
        ({"generator": {"width": 4}}, "--generator: DVDGANGenerator has no argument 'width'"),
        ({"spatial_discriminator": {"block_out_channels": [2] * 4}}, "--spatial_discriminator: .* multiples of 16"),
        ({"temporal_discriminator": {"num_3d_blocks": 3}}, "--temporal_discriminator: "),
        ({"label_column": "none"}, "--class_conditional needs labels"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(VideoGANRecipe, configuration(tmp_path, **options))
