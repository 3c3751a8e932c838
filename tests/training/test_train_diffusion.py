import json

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from PIL import Image

from diffusers_ext import ClassConditionalPipeline
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler
from diffusers_ext.training.diffusion.denoisers import default_unet
from diffusers_ext.training.loop.outputs import shown_command
from diffusers_ext.training.loop.run_lock import LOCK
from tests.training.runs import arguments, finish, records


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with everything that is measured and drawn on the way."""
    folder = tmp_path_factory.mktemp("trained")
    options = {
        "max_train_steps": 4,
        "validation_steps": 2,
        "evaluation_steps": 3,
        "feature_extractor": "digits",
        "num_evaluation_samples": 30,
        "num_inference_steps": 2,
        "report_to": "tensorboard",
        "gradient_checkpointing": True,
        "channels_last": True,
        "loss_weighting": "min_snr",
        "license": "apache-2.0",
    }
    assert finish(arguments(folder, **options), folder / "log") == 0, (folder / "log").read_text()
    return folder


def test_a_run_leaves_a_pipeline_that_samples(trained):
    pipe = ClassConditionalPipeline.from_pretrained(trained)
    images = pipe([3, "seven"], num_images_per_label=2, guidance_scale=2.0).images
    assert [image.size for image in images] == [(10, 10)] * 4 and images[0].mode == "L"
    assert pipe.config.default_num_inference_steps == 2 and pipe.unet.dtype == torch.float32


def test_a_run_leaves_a_grid_metrics_and_a_card(trained):
    with Image.open(trained / "samples.png") as grid:
        assert grid.width > 600 and grid.height > 500
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["step"] == 4
    assert [row["guidance_scale"] for row in metrics["evaluations"]] == [1.0, 2.0]
    for row in metrics["evaluations"]:
        assert {"accuracy", "precision", "recall", "density", "coverage", "fid", "kid"} <= row.keys()
        assert row["provenance"]["num_generated"] == 30 and row["provenance"]["extractor"] == "digits"
        assert {"sampling_seed", "scheduler", "num_inference_steps"} <= row["provenance"].keys()
    card = (trained / "README.md").read_text()
    for text in ("license: apache-2.0", "accelerate launch training/", "trust_remote_code=True", "| guidance_scale"):
        assert text in card


def test_samples_and_metrics_are_made_on_the_way(trained):
    assert [path.name for path in (trained / "samples").iterdir()] == ["step-2.png"]  # the last one is samples.png
    lines = records(trained)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "evaluation" in line] == [3]
    assert list((trained / "logs").rglob("events.out.tfevents*"))


@pytest.mark.parametrize(
    "prediction_type",
    ["epsilon", pytest.param("sample", marks=pytest.mark.slow), pytest.param("v_prediction", marks=pytest.mark.slow)],
)
def test_prediction_types_train_and_load(tmp_path, prediction_type):
    assert finish(arguments(tmp_path, max_train_steps=2, prediction_type=prediction_type)) == 0
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path)
    assert pipe.scheduler.config.prediction_type == prediction_type
    assert np.isfinite(pipe(["two"], num_inference_steps=3, output_type="np").images).all()


@pytest.mark.parametrize(
    ("options", "scheduler"),
    [
        ({"prediction_type": "edm"}, "EDMDPMSolverMultistepScheduler"),
        pytest.param(
            {"prediction_type": "epsilon", "variance_type": "learned_range"},
            "UniPCMultistepScheduler",
            marks=pytest.mark.slow,
        ),
        (
            {"prediction_type": "v_prediction", "variance_type": "learned", "loss_type": "kl"},
            "UniPCMultistepScheduler",
        ),
    ],
)
def test_objectives_train_and_their_pipelines_guide(tmp_path, options, scheduler):
    assert finish(arguments(tmp_path, max_train_steps=2, num_train_timesteps=100, **options)) == 0
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path)
    assert type(pipe.scheduler).__name__ == scheduler
    assert pipe.unet.config.out_channels == 1 + ("variance_type" in options)
    images = pipe(["two", 3], guidance_scale=2.0, num_inference_steps=3, output_type="np").images
    assert images.shape == (2, 10, 10, 1) and np.isfinite(images).all()
    if "variance_type" in options:
        pipe.scheduler = ExactDDPMScheduler.from_config(pipe.scheduler.config)
        assert pipe.scheduler.config.variance_type == options["variance_type"]
        images = pipe(["two"], guidance_scale=2.0, num_inference_steps=3, output_type="np").images
        assert images.shape == (1, 10, 10, 1) and np.isfinite(images).all()
    # And training goes on from it.
    start = {**options, "pretrained_model_name_or_path": tmp_path, "unet": "{}", "num_train_timesteps": 100}
    assert finish(arguments(tmp_path / "tuned", max_train_steps=1, **start)) == 0


@pytest.fixture
def pictures(tmp_path):
    """A flat folder of pictures of several sizes and modes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for index, (mode, channels) in enumerate([("RGB", 3), ("L", 0), ("RGBA", 4), ("RGB", 3)]):
        size = (20 + index, 14) + ((channels,) if channels else ())
        Image.fromarray(noise.integers(0, 255, size, dtype=np.uint8), mode).save(folder / f"{index}.png")
    return folder


def from_folder(output_dir, folder, **options):
    command = arguments(
        output_dir, train_data_dir=folder, channels=3, max_train_steps=2, train_batch_size=2, **options
    )
    return [argument for argument in command if not argument.startswith("--dataset_name")]


def test_a_folder_without_classes_gives_an_unconditional_model(tmp_path, pictures):
    assert finish(from_folder(tmp_path / "out", pictures)) == 0
    images = ClassConditionalPipeline.from_pretrained(tmp_path / "out")(batch_size=2, num_inference_steps=2).images
    assert [image.mode for image in images] == ["RGB", "RGB"]


def test_unreadable_images_stop_the_run_or_are_skipped(tmp_path, pictures):
    for name in ("broken.png", "empty.jpg"):
        (pictures / name).write_bytes(b"" if name == "empty.jpg" else b"\x89PNG\r\n")
    assert finish(from_folder(tmp_path / "out", pictures), tmp_path / "log") == 2
    error = (tmp_path / "log").read_text()
    assert "broken.png" in error and "empty.jpg" in error and "Traceback" not in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]
    assert finish(from_folder(tmp_path / "out", pictures, skip_unreadable_images=True)) == 0


def test_training_continues_from_a_published_pipeline(tmp_path, trained):
    options = {"pretrained_model_name_or_path": trained, "unet": "{}", "learning_rate": 1e-12, "lr_warmup_steps": 0}
    assert finish(arguments(tmp_path / "tuned", max_train_steps=1, use_ema=False, **options)) == 0
    weights = [UNet2DModel.from_pretrained(f, subfolder="unet").state_dict() for f in (trained, tmp_path / "tuned")]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor)


def test_a_pipeline_for_other_images_is_refused(tmp_path, trained):
    options = {"pretrained_model_name_or_path": trained, "unet": "{}", "channels": 3}
    assert finish(arguments(tmp_path / "out", **options), tmp_path / "log") == 2
    assert "has in_channels=1, but this run needs 3" in (tmp_path / "log").read_text()


def test_a_pipeline_of_another_process_is_refused(tmp_path, trained):
    options = {"pretrained_model_name_or_path": trained, "unet": "{}", "num_train_timesteps": 50}
    assert finish(arguments(tmp_path / "out", **options), tmp_path / "log") == 2
    assert "has num_train_timesteps=1000, but this run needs 50" in (tmp_path / "log").read_text()


def test_a_tracker_that_is_not_installed_is_refused(tmp_path):
    assert finish(arguments(tmp_path / "out", report_to="swanlab"), tmp_path / "log") == 2
    assert "--report_to swanlab needs its package: pip install swanlab" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prediction_type": "edm", "edm_p_std": 0.0}, "--edm_p_std must be positive, not 0.0"),
        ({"prediction_type": "edm", "sigma_data": -1.0}, "--sigma_data must be positive, not -1.0"),
        (
            {"denoiser": "DiTTransformer2DModel", "pretrained_model_name_or_path": "a", "unet": "{}"},
            "--denoiser is for new networks",
        ),
        ({"resolution": 9}, "--resolution must be a multiple of 2"),
        ({"unet": '{"foo": 1}'}, "foo"),
        ({"feature_extractor": "no/such/network"}, "no/such/network"),
        ({"feature_extractor": "digits", "metrics": "fidd"}, "--metrics must be among"),
        ({"feature_extractor": "digits", "channels": 2}, "Images must be a uint8 tensor (N, 1 or 3, H, W)"),
        ({"evaluation_batch_size": 0}, "--evaluation_batch_size must be at least 1"),
        ({"num_train_epochs": 0}, "--num_train_epochs must be at least 1"),
        ({"max_grad_norm": -1}, "--max_grad_norm must be at least 0"),
        ({"prediction_type": "epsilon", "beta_schedule": "nonsense"}, "nonsense"),
        ({"loss_type": "kl"}, "--loss_type kl is for epsilon, sample and v_prediction"),
        ({"posthoc_ema_stds": 0.3}, "--posthoc_ema_stds must be different numbers between 0 and 0.2887"),
        ({"output_dir": __file__}, "--output_dir must be a folder"),
    ],
)
def test_what_cannot_work_is_refused_before_training(tmp_path, options, sentence):
    assert finish(arguments(**{"output_dir": tmp_path / "out", **options}), tmp_path / "log") == 2
    error = (tmp_path / "log").read_text()
    assert sentence in error and "Traceback" not in error


def test_the_card_hides_the_token():
    command = ["/x/train_diffusion.py", "--a", "1", "--hub_token", "secret", "--hub-token=secret", "--b"]
    assert shown_command(command) == "accelerate launch training/train_diffusion.py --a 1 --b"


@pytest.mark.parametrize(
    "size", [(8, 8), (28, 28), (32, 32), (50, 50), (64, 64), (64, 96), (100, 100), (256, 256), (17, 17)]
)
def test_the_default_network_fits_its_resolution(size):
    options = default_unet(size)
    levels = len(options["block_out_channels"])
    assert len(options["down_block_types"]) == len(options["up_block_types"]) == levels
    assert all(side % 2 ** (levels - 1) == 0 for side in size)
    with torch.device("meta"):
        assert UNet2DModel(sample_size=size, **options).config.sample_size == size
