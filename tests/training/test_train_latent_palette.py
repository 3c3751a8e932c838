"""train_palette.py in the latents of an autoencoder."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext import PalettePipeline
from diffusers_ext.data import UnreadableImagesError
from diffusers_ext.models import SpatialRescaler
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_distillation import DistillationConfig, distillation_recipe
from diffusers_ext.training.train_palette import PaletteConfig, PaletteRecipe
from tests.tiny_autoencoders import tiny_vae
from tests.training.runs import context, records, tensors, trainer
from tests.waits import waits_of_an_update


UNET = {"block_out_channels": [8, 16], "layers_per_block": 1}


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    tiny_vae(channels=1).save_pretrained(folder)
    return folder


def configuration(vae, output_dir="unused", **options) -> PaletteConfig:
    config = {
        "vae": str(vae),
        "dataset_name": "digits",
        "tasks": ["inpainting"],
        "resolution": [16],
        "channels": 1,
        "unet": UNET,
        "max_train_steps": 3,
        "train_batch_size": 8,
        "num_inference_steps": 2,
        "num_evaluation_samples": 4,
        "output_dir": str(output_dir),
    }
    return PaletteConfig(**{**config, **options})


def trained(vae, folder, **options) -> PalettePipeline:
    assert trainer(PaletteRecipe, configuration(vae, folder, **options)).train()
    pipe = PalettePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        ({}, 4 + 1 + 4),
        pytest.param(
            {"conditioning_encoding": "pixels", "conditioning_fill": "smooth"}, 4 + 1 + 4, marks=pytest.mark.slow
        ),
        pytest.param(
            {"tasks": ["denoising"], "conditioning_encoding": "resized", "prediction_type": "v_prediction"},
            1 + 4,
            marks=pytest.mark.slow,
        ),
        ({"conditioning_encoding": "resized"}, 1 + 1 + 4),
        pytest.param(
            {"tasks": ["denoising"], "noise_conditioning": "gamma", "prediction_type": "v_prediction"},
            4 + 4,
            marks=pytest.mark.slow,
        ),
        (
            {
                "tasks": ["super_resolution"],
                "conditioning_augmentation": 0.5,
                "class_conditional": True,
                "task_options": {"super_resolution": {"factor": 2}},
            },
            4 + 1 + 4,
        ),
        ({"tasks": ["inpainting", "super_resolution"], "conditioning_dropout": 0.5}, 4 + 1 + 4),
    ],
    ids=["inpainting", "pixels", "resized", "resized-mask", "gamma", "augmented", "several"],
)
def test_a_run_leaves_a_pipeline_that_restores(tmp_path, vae, options, channels):
    pipe = trained(vae, tmp_path, metrics=["psnr"], **options)
    assert pipe.unet.config.in_channels == channels and pipe.vae is not None
    assert pipe.image_shape == (1, 16, 16)
    image = torch.rand(1, 1, 16, 16)
    for task in pipe.config.tasks:
        arguments = {"mask_image": (2, 2, 9, 9)} if task == "inpainting" else {}
        arguments |= {"class_labels": [3]} if "class_conditional" in options else {}
        arguments |= {"scale_factor": 1.0} if task == "super_resolution" else {}
        restored = pipe(image, task=task, output_type="pt", **arguments).images
        assert restored.shape == image.shape and restored.isfinite().all()
    with Image.open(tmp_path / "samples.png") as panel:
        assert panel.width > 100
    assert json.loads((tmp_path / "metrics.json").read_text())["evaluations"][0]["psnr"] > 0
    assert "the latents of its AutoencoderKL" in (tmp_path / "README.md").read_text()


def test_label_maps_become_images(tmp_path, vae):
    """Semantic synthesis: the colours of the map are shown as they are, as many channels."""
    for name in ("maps", "images"):
        (tmp_path / name).mkdir()
        for index in range(4):
            picture = Image.new("L", (16, 16), 40 * index)
            picture.save(tmp_path / name / f"{index}.png")
    options = {
        "dataset_name": None,
        "train_data_dir": str(tmp_path / "images"),
        "conditioning_image_dir": str(tmp_path / "maps"),
        "conditioning_label_maps": "levels",
        "conditioning_encoding": "pixels",
        "tasks": ["translation"],
    }
    pipe = trained(vae, tmp_path / "run", **options)
    assert pipe.unet.config.in_channels == 4 + 4
    assert pipe(Image.new("L", (16, 16), 80), output_type="pt").images.shape == (1, 1, 16, 16)


def test_training_shows_what_the_pipeline_shows(vae):
    """The same conditioning, for the same image and mask."""
    job = PaletteRecipe(configuration(vae), context())
    job.latents.prepare(job.config)
    batch = {"pixel_values": torch.rand(2, 1, 16, 16) * 2 - 1}
    corruption = job.tasks.mix(batch, Draw(0, torch.device("cpu")).begin(0, [0, 1]))
    shown = job.inputs.show(corruption, Draw(0, torch.device("cpu")).begin(0, [0, 1]))
    pipe = job.pipeline(unet=job.networks()["unet"])
    expected = pipe._prepare_shown_images(batch["pixel_values"], corruption.hidden > 0, None)
    torch.testing.assert_close(shown, expected, rtol=1e-4, atol=1e-5)


def test_a_cache_changes_no_loss(tmp_path, vae):
    for name in (False, True):
        trained(vae, tmp_path / str(name), cache_latents=name)
    losses = [[line["loss"] for line in records(tmp_path / str(name)) if "loss" in line] for name in (False, True)]
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, vae):
    options = {"max_train_steps": 4, "checkpointing_steps": 2}
    trained(vae, tmp_path, **options)
    whole = tensors(tmp_path, 4)
    trained(vae, tmp_path, **options, resume_from_checkpoint="checkpoint-2")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors(tmp_path, 4).items())


def test_an_update_waits_for_nothing(tmp_path, vae):
    assert not waits_of_an_update(trainer(PaletteRecipe, configuration(vae, tmp_path)))


@pytest.mark.slow
def test_training_goes_on_and_a_student_learns_in_the_same_latents(tmp_path, vae):
    trained(vae, tmp_path / "first", num_inference_steps=10)
    start = {"pretrained_model_name_or_path": str(tmp_path / "first"), "unet": {}, "max_train_steps": 1}
    assert trained(tmp_path / "first", tmp_path / "second", **start).vae is not None

    config = DistillationConfig(
        pretrained_teacher_model=str(tmp_path / "first"),
        dataset_name="digits",
        tasks=["inpainting"],
        max_train_steps=2,
        train_batch_size=4,
        lr_warmup_steps=0,
        output_dir=str(tmp_path / "student"),
    )
    assert trainer(distillation_recipe, config).train()
    pipe = PalettePipeline.from_pretrained(tmp_path / "student")
    pipe.set_progress_bar_config(disable=True)
    image = torch.rand(1, 1, 16, 16)
    filled = pipe(image, mask_image=(4, 4, 9, 9), output_type="pt").images
    assert torch.equal(filled[..., :4], image[..., :4]) and pipe.num_timesteps == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"source_noise": 0.3}, "--source_noise is for pixels, and not for --vae"),
        ({"prediction_type": "regression"}, "--prediction_type regression is not for --vae"),
        ({"vae": None, "conditioning_encoding": "pixels"}, "--conditioning_encoding is for --vae"),
    ],
)
def test_options_that_are_not_for_latents_are_refused(vae, options, error):
    with pytest.raises(ValueError, match=error):
        PaletteConfig(**{**vars(configuration(vae)), **options})


@pytest.fixture(scope="module")
def label_maps(tmp_path_factory):
    """Options of a run on six images and their label maps, whose numbers a palette shows as colours."""
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("maps", "images"):
        (folder / name).mkdir()
    for index in range(6):
        labels = torch.randint(5, (4, 4), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        picture = Image.fromarray(labels.numpy(), "L").resize((16, 16), Image.Resampling.NEAREST)
        picture.point(lambda label: 40 * label).save(folder / "images" / f"{index}.png")
        picture.putpalette(list(range(255, -1, -1)) * 3)
        picture.save(folder / "maps" / f"{index}.png")
    return {
        "dataset_name": None,
        "train_data_dir": str(folder / "images"),
        "conditioning_image_dir": str(folder / "maps"),
        "conditioning_label_maps": "levels",
        "conditioning_num_labels": 5,
        "conditioning_encoding": "labels",
        "tasks": ["translation"],
    }


@pytest.mark.slow
def test_a_network_of_label_maps_is_trained_with_the_denoiser(tmp_path, vae, label_maps):
    """Its weights change, go on after a checkpoint, are averaged, and come with the pipeline both ways of loading."""
    options = {**label_maps, "max_train_steps": 4, "checkpointing_steps": 2, "conditioner": {"out_channels": 3}}
    options |= {"conditioning_dropout": 0.2, "metrics": ["psnr"]}
    pipe = trained(vae, tmp_path, **options)
    whole = tensors(tmp_path, 4)
    assert any("conditioner" in name for name in whole)
    assert any(not torch.equal(value, whole[name]) for name, value in tensors(tmp_path, 2).items() if "condit" in name)
    again = trained(vae, tmp_path, **options, resume_from_checkpoint="checkpoint-2")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors(tmp_path, 4).items())

    with Image.open(tmp_path / "samples.png") as panel:  # label 1 is dark red among the colours of Pascal VOC
        counts = {color: count for count, color in panel.convert("RGB").getcolors(1 << 24)}
        assert counts[128, 0, 0] > 100
    assert type(pipe.conditioner) is SpatialRescaler and pipe.conditioner.config.num_stages == 1
    assert pipe.unet.config.in_channels == 3 + 4
    published = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    published.set_progress_bar_config(disable=True)
    labels = torch.randint(5, (16, 16))
    images = [
        loaded(labels, output_type="pt", generator=torch.Generator().manual_seed(0)).images
        for loaded in (pipe, again, published)
    ]
    assert images[0].shape == (1, 1, 16, 16) and all(torch.equal(images[0], other) for other in images[1:])

    start = {"pretrained_model_name_or_path": str(tmp_path), "unet": {}, "max_train_steps": 1}
    trained(tmp_path, tmp_path / "second", **{**options, **start})
    with pytest.raises(ValueError, match="knows 5 labels: --conditioning_num_labels must be that, not 6"):
        trained(tmp_path, tmp_path / "third", **{**options, **start, "conditioning_num_labels": 6})


@pytest.mark.slow
def test_a_student_learns_from_label_maps(tmp_path, vae, label_maps):
    trained(vae, tmp_path / "teacher", **label_maps, num_inference_steps=10)
    names = ("train_data_dir", "conditioning_image_dir", "conditioning_label_maps", "tasks")
    config = DistillationConfig(
        pretrained_teacher_model=str(tmp_path / "teacher"),
        max_train_steps=2,
        train_batch_size=4,
        lr_warmup_steps=0,
        output_dir=str(tmp_path / "student"),
        **{name: label_maps[name] for name in names},
    )
    assert trainer(distillation_recipe, config).train()
    student = PalettePipeline.from_pretrained(tmp_path / "student")
    assert student.conditioner.config.in_channels == 5


def test_a_map_with_an_unknown_label_is_refused(tmp_path, vae, label_maps):
    with pytest.raises(UnreadableImagesError, match="it has the label 4, but --conditioning_num_labels says"):
        trained(vae, tmp_path, **{**label_maps, "conditioning_num_labels": 4})


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"conditioning_num_labels": None}, "labels needs --conditioning_num_labels and, as its only task"),
        ({"conditioning_num_labels": 0}, "--conditioning_num_labels must be positive"),
        ({"conditioning_encoding": "pixels", "conditioner": {"bias": True}}, "--conditioner is for"),
        ({"conditioner": {"out_channels": None}}, "--conditioner needs out_channels"),
        ({"tasks": ["translation", "inpainting"]}, "as its only task, --tasks translation"),
    ],
)
def test_options_of_label_maps_that_do_not_fit_are_refused(vae, label_maps, options, error):
    with pytest.raises(ValueError, match=error):
        configuration(vae, **{**label_maps, **options})


def test_arguments_of_the_network_of_label_maps_are_refused(vae, label_maps):
    with pytest.raises(ValueError, match="--conditioner: num_stages is 1"):
        PaletteRecipe(configuration(vae, **label_maps, conditioner={"num_stages": 2}), context()).networks()
