"""ControlNets: they change nothing at first, are trained alone, and work in diffusers' own pipelines."""

import json

import numpy as np
import pytest
import torch
from diffusers import (
    AutoPipelineForText2Image,
    ControlNetModel,
    DiffusionPipeline,
    SD3ControlNetModel,
    StableDiffusion3ControlNetPipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image

from diffusers_ext.data.conditions import canny, default_palette
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_controlnet import ControlNetConfig, ControlNetRecipe
from tests.training.runs import context, records, tensors, trainer as build_trainer
from tests.training.text_to_image_models import FAMILIES, SIZE, captioned_images, tiny_base
from tests.training.text_to_image_runs import run_on_one_and_two_processes
from tests.waits import waits_of_an_update


STOCK = {
    "sd1": (StableDiffusionControlNetPipeline, ControlNetModel),
    "sd2": (StableDiffusionControlNetPipeline, ControlNetModel),
    "sdxl": (StableDiffusionXLControlNetPipeline, ControlNetModel),
    "sd3": (StableDiffusion3ControlNetPipeline, SD3ControlNetModel),
}
OPTIONS = {
    "condition": "canny",
    "resolution": [SIZE],
    "train_batch_size": 2,
    "max_train_steps": 3,
    "checkpointing_steps": 100,
    "learning_rate": 1e-2,
    "lr_warmup_steps": 0,
    "num_inference_steps": 2,
    "num_validation_images": 2,
    "evaluation_batch_size": 3,
    "prompt_dropout": 0.3,
}


@pytest.fixture(scope="module", autouse=True)
def pictures(tmp_path_factory):
    """The training images of most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", captioned_images(tmp_path_factory.mktemp("data") / "pictures"))
        yield OPTIONS["train_data_dir"]


def configuration(output_dir, family: str = "sd1", **options) -> ControlNetConfig:
    values = {**OPTIONS, "pretrained_model_name_or_path": tiny_base(family), "output_dir": str(output_dir), **options}
    return ControlNetConfig(**values)


def recipe(output_dir, family: str = "sd1", **options) -> ControlNetRecipe:
    return ControlNetRecipe(configuration(output_dir, family, **options), context())


def trainer(output_dir, family: str = "sd1", **options) -> Trainer:
    return build_trainer(ControlNetRecipe, configuration(output_dir, family, **options))


def draw(count: int) -> Draw:
    return Draw(0, torch.device("cpu")).begin(0, range(count))


def first_batch(job) -> dict:
    return next(job.dataset.batches(2, seed=0))


@pytest.mark.parametrize("family", FAMILIES)
def test_at_first_it_changes_nothing(tmp_path, family):
    job = trainer(tmp_path, family).recipe
    layers = job.control.zero_layers(job.network("controlnet"))
    assert layers and all(not weight.any() for layer in layers for weight in layer.parameters())
    batch, seen = first_batch(job), []
    with torch.no_grad():
        latents, text = job.latents(batch, draw(2)), job.encode_prompts(["a cat", "a dog"])
        timesteps = torch.tensor([5, 700])
        residuals = job.residuals(latents, timesteps, text, batch, draw(2))
        for added in (None, residuals):
            seen.append(job.base.denoise(job.denoiser, latents, timesteps, text, batch["time_ids"], added))
    assert torch.equal(*seen) and seen[0].any()
    first = [tensor for value in residuals.values() for tensor in (value if isinstance(value, list) else [value])]
    assert len(first) == len(layers) and not any(tensor.any() for tensor in first)
    with torch.no_grad():  # outputs other than zero have an effect
        layers[-1].bias += 1
        residuals = job.residuals(latents, timesteps, text, batch, draw(2))
        assert not torch.equal(
            seen[0], job.base.denoise(job.denoiser, latents, timesteps, text, batch["time_ids"], residuals)
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_as_a_copy_of_the_denoiser(tmp_path, family):
    job = trainer(tmp_path, family).recipe
    original, own = job.base.denoiser.state_dict(), job.network("controlnet").state_dict()
    copied = [name for name in own if name in original]
    assert len(copied) > 0.6 * len(own) and all(torch.equal(own[name], original[name]) for name in copied)
    assert any(name.startswith(("down_blocks", "transformer_blocks")) for name in copied)
    fresh = load_config(tiny_base(family), job.base.denoiser_name)
    assert {name: json.loads(json.dumps(job.base.denoiser.config[name])) for name in fresh} == fresh


def load_config(folder: str, part: str) -> dict:
    with open(f"{folder}/{part}/config.json") as file:
        return {name: value for name, value in json.load(file).items() if not name.startswith("_")}


@pytest.fixture(scope="module", params=["sd1", "sdxl", "sd3"])
def run(request, tmp_path_factory):
    """A short run: (family, folder, trainer)."""
    folder = tmp_path_factory.mktemp("run")
    training = trainer(folder, request.param, checkpointing_steps=2, use_ema=False)
    before = training.recipe.base.fingerprint()
    assert training.train()
    assert training.recipe.base.fingerprint() == before  # nothing else was trained
    return request.param, folder, training


def call(pipeline, control: torch.Tensor, argument: str) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(0)  # for the latents of SD3's control images
    inputs = {"prompt": ["a cat", "a dog"], argument: list(control), "height": SIZE, "width": SIZE}
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    return pipeline(**inputs, num_inference_steps=3, generator=generators, output_type="np").images


def test_stock_pipelines_make_the_same_images(run):
    family, folder, training = run
    pipeline_class, network_class = STOCK[family]
    controlnet = network_class.from_pretrained(folder)
    layers = training.recipe.control.zero_layers(controlnet)
    assert all(weight.any() for layer in layers for weight in layer.parameters())
    absent = {"text_encoder_3": None, "tokenizer_3": None} if family == "sd3" else {}
    stock = pipeline_class.from_pretrained(tiny_base(family), controlnet=controlnet, **absent)
    ours = training.recipe.pipeline(training.networks["controlnet"].eval())
    assert type(ours) is pipeline_class
    argument, control = training.recipe.control.image_argument, training.recipe.shown_controls[:2] / 2 + 0.5
    expected = call(ours, control, argument)
    assert np.array_equal(call(stock, control, argument), expected)
    uncontrolled = DiffusionPipeline.from_pretrained(tiny_base(family), **absent)
    automatic = AutoPipelineForText2Image.from_pipe(uncontrolled, controlnet=controlnet)
    assert np.array_equal(call(automatic, control, argument), expected)
    assert not np.array_equal(call(stock, 1 - control, argument), expected)


def test_the_files_of_a_run(run):
    family, folder, training = run
    written = {path.name for path in folder.iterdir()}
    assert {"config.json", "diffusion_pytorch_model.safetensors", "README.md", "samples.png"} <= written
    assert not written & {"unet", "vae", "model_index.json"}
    (row,) = json.loads((folder / "metrics.json").read_text())["evaluations"]
    assert 0 <= row["edge_f1"] <= 1 and 0 <= row["edge_f1_without_control"] <= 1
    assert row["edge_f1"] != row["edge_f1_without_control"]
    card = (folder / "README.md").read_text()
    assert f'{STOCK[family][1].__name__}.from_pretrained("{folder}")' in card and "controlled by canny" in card
    # four prompts, each with its control image and two samples, which are enlarged
    width, height = Image.open(folder / "samples.png").size
    assert height > 4 * 64 and width > 3 * 64
    names = tensors(folder, 2)
    assert all(name.startswith(("controlnet.", "recipe_state.")) for name in names)


def test_a_resumed_run_is_the_same_bit_for_bit(run, tmp_path):
    family, folder, _ = run
    options = {"checkpointing_steps": 2, "use_ema": False}
    assert trainer(tmp_path, family, **options, max_train_steps=2).train()
    assert trainer(tmp_path, family, **options, resume_from_checkpoint="latest").train()
    name = "diffusion_pytorch_model.safetensors"
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert [line["loss"] for line in records(tmp_path)] == [line["loss"] for line in records(folder)]


def test_caches_change_nothing(run, tmp_path):
    family, folder, _ = run
    cached = {"cache_latents": True, "cache_text_embeddings": True, "latent_cache_dir": str(tmp_path / "cache")}
    for name in ("cold", "warm"):
        assert trainer(tmp_path / name, family, **cached, use_ema=False, center_crop=False).train()
        assert [line["loss"] for line in records(tmp_path / name)] == [line["loss"] for line in records(folder)]
        kept = len(list((tmp_path / "cache").rglob("*.safetensors")))
        assert kept >= 6


def test_the_grid_shows_the_control_images_and_an_untrained_net_the_base(tmp_path):
    training = trainer(tmp_path, validation_prompts=["a cat", "a dog", "a cow"], num_validation_images=3)
    job = training.recipe
    inputs = job.validation_inputs()
    assert inputs["prompt"] == ["a cat"] * 3 + ["a dog"] * 3 + ["a cow"] * 3
    reference = next(job.dataset.reference_batches(3))["pixel_values"] / 127.5 - 1
    expected = (canny(reference) / 2 + 0.5).repeat_interleave(3, dim=0)
    assert torch.equal(torch.stack(inputs["image"]), expected)
    (row,) = training.outputs.evaluate(0)
    assert row["edge_f1"] == row["edge_f1_without_control"]


def test_edge_f1_is_one_where_samples_have_the_edges_of_the_control(tmp_path):
    job = recipe(tmp_path, num_validation_images=1, train_data_dir=drawings(tmp_path / "data"))
    images = torch.cat([batch["pixel_values"] for batch in job.dataset.reference_batches(10, limit=4)])
    assert job._edge_f1(images) == 1.0 and job._edge_f1(torch.zeros_like(images)) == 0.0
    assert job._edge_f1(images.roll(1, dims=0)) < 0.9


def drawings(folder) -> str:
    """A folder of drawings, with a rectangle at a different place in each."""
    folder.mkdir()
    for index in range(4):
        pixels = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
        pixels[3 + index : 9 + index, 4 : 10 + index] = 200
        Image.fromarray(pixels).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"drawing {index}")
    return str(folder)


def paired(folder, colour: bool = False) -> str:
    """A folder of images with a column of label maps from 0 to 4 or, with `colour`, of control images."""
    folder.mkdir()
    noise, rows = np.random.default_rng(0), []
    for index in range(4):
        Image.fromarray(noise.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        control = noise.integers(0, 255, (20, 20, 3)) if colour else noise.integers(0, 5, (20, 20))
        Image.fromarray(control.astype(np.uint8)).save(folder / f"{index}-control.png")
        names = {"file_name": f"{index}.png", "depth_file_name": f"{index}-control.png"}
        rows.append({**names, "text": f"noise {index}"})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder)


def test_control_images_of_a_column_are_used_unchanged(tmp_path):
    job = recipe(
        tmp_path,
        condition=None,
        conditioning_image_column="depth",
        train_data_dir=paired(tmp_path / "data", colour=True),
    )
    batch = first_batch(job)
    assert torch.equal(job.control_images(batch), batch["conditioning_pixel_values"])
    seen = job.control.condition(job.control_images(batch), draw(2), job.base.space.encode_moments)
    assert 0 <= seen.min() < 0.2 and 0.8 < seen.max() <= 1
    reference = next(job.dataset.reference_batches(4))["conditioning_pixel_values"]
    assert torch.equal(((job.shown_controls + 1) * 127.5).round(), reference.float())


def test_label_maps_become_colours(tmp_path):
    job = recipe(
        tmp_path,
        condition="segmentation",
        conditioning_image_column="depth",
        train_data_dir=paired(tmp_path / "data"),
    )
    for control in (job.control_images(first_batch(job)), job.shown_controls):
        colours = ((control + 1) * 127.5).round().long().permute(0, 2, 3, 1).reshape(-1, 3)
        assert {tuple(colour) for colour in colours.tolist()} == set(default_palette()[:5])


@pytest.mark.parametrize("condition", ["soft_edges", "blur", "grayscale", "low_resolution"])
def test_control_images_made_on_the_fly_follow_crop_and_flip(tmp_path, condition):
    job = recipe(tmp_path, condition=condition, random_flip=True)
    batch = first_batch(job)
    assert torch.equal(job.control_images(batch), job.make_control(batch["pixel_values"]))
    assert job.control_images(batch).std() > 0.05


def test_control_images_of_files(tmp_path):
    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "red.png")
    options = {"validation_prompts": ["a cat"], "validation_images": [str(tmp_path / "red.png")]}
    job = recipe(tmp_path / "run", **options)
    assert job.shown_controls.shape == (1, 3, SIZE, SIZE) and job.shown_prompts == ["a cat"]
    assert job.shown_controls[0, :, 0, 0].tolist() == [1, -1, -1]
    with pytest.raises(ValueError, match="--validation_images: .*nothing.png: no such file"):
        recipe(tmp_path / "run", **{**options, "validation_images": [str(tmp_path / "nothing.png")]})


def test_training_continues_from_a_controlnet(run, tmp_path):
    family, folder, training = run
    job = trainer(tmp_path, family, controlnet_model_name_or_path=str(folder)).recipe
    own, expected = job.network("controlnet").state_dict(), training.networks["controlnet"].state_dict()
    assert all(torch.equal(own[name], expected[name]) for name in expected)
    job.save(job.pipeline(job.network("controlnet")), tmp_path / "again")
    assert str(folder) not in (tmp_path / "again" / "config.json").read_text()
    assert (tmp_path / "again" / "config.json").read_text() == (folder / "config.json").read_text()
    other = {"sd1": "sdxl", "sdxl": "sd1"}.get(family)
    if other:
        with pytest.raises(ValueError, match="is not a ControlNet for .*: its cross_attention_dim is"):
            trainer(tmp_path, other, controlnet_model_name_or_path=str(folder))


def test_buckets_and_gradient_checkpointing(tmp_path):
    data = tmp_path / "data"
    captioned_images(data, count=4, size=20)
    for index, shape in enumerate([(12, 24), (24, 12), (40, 20)]):
        Image.new("RGB", shape, (index * 60, 90, 30)).save(data / f"shape{index}.png")
        (data / f"shape{index}.txt").write_text("a shape")
    options = {"aspect_ratio_buckets": True, "bucket_step": 4, "gradient_checkpointing": True}
    training = trainer(tmp_path / "run", train_data_dir=str(data), max_train_steps=6, **options)
    assert len(training.recipe.dataset.buckets) >= 3 and training.train()
    assert len(records(tmp_path / "run")) == 6


@pytest.mark.parametrize("family", ["sd1", "sd3"])
def test_bfloat16(tmp_path, family):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    config = configuration(tmp_path, family, mixed_precision="bf16", max_train_steps=1)
    training = build_trainer(ControlNetRecipe, config, mixed_precision="bf16")
    job = training.recipe
    try:
        assert training.train()
    finally:
        AcceleratorState._reset_state()
    assert job.base.denoiser.dtype == torch.bfloat16 and job.network("controlnet").dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3"])
def test_two_processes_follow_one(tmp_path, family):
    options = {**OPTIONS, "pretrained_model_name_or_path": tiny_base(family), "evaluation_batch_size": 4}
    folders = run_on_one_and_two_processes("train_controlnet", options, tmp_path)
    lines = list(map(records, folders))
    assert len(lines[0]) == 3
    for one, two in zip(*lines, strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"condition": None}, "--condition, --conditioning_image_column or --conditioning_image_dir is required"),
        ({"condition": "segmentation"}, "needs label maps: set --conditioning_image_column"),
        ({"conditioning_image_column": "depth"}, "--condition canny computes control images, and"),
        (
            {"condition": None, "conditioning_image_column": "depth"},
            "there is no image column 'depth', the columns",
        ),
        ({"condition": "cany"}, "there is no condition 'cany': the conditions are canny"),
        ({"condition_options": {"sigma": -1}}, "canny needs sigma >= 0"),
        ({"condition_options": {"radius": 1}}, "the condition 'canny' does not accept"),
        (
            {"condition": None, "conditioning_image_column": "depth", "condition_options": {"sigma": 1}},
            "--condition_options need a --condition",
        ),
        ({"validation_images": ["a.png"]}, "--validation_images must be as many as --validation_prompts"),
        ({"prior_prompts": ["a"], "clip_model": "b"}, "--prior_prompts measure changes of the base"),
        ({"caption_column": "title"}, "there is no caption column 'title'"),
        ({"resolution": [15]}, "--resolution must be a multiple of"),
    ],
)
def test_invalid_options_are_refused_before_training(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        recipe(tmp_path, **options)


def test_an_update_waits_for_no_device(tmp_path):
    assert not waits_of_an_update(trainer(tmp_path, condition="soft_edges"))
