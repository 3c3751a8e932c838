from diffusers_ext.training.loop.command import run

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.text_to_image.lora import FILE
from diffusers_ext.training.train_dreambooth import DreamBoothConfig, DreamBoothRecipe
from tests.training.runs import command_line, records, tensors, trainer as build_trainer
from tests.training.text_to_image_models import PROMPT_LENGTH, SIZE, captioned_images, tiny_base
from tests.training.text_to_image_runs import OPTIONS, image, load, run_on_one_and_two_processes
from tests.waits import waits_of_an_update


PROMPT = "a sks dog"
LORA = {"lora_rank": 2}
PRIOR = {"with_prior_preservation": True, "class_prompt": "a dog", "num_class_images": 5, "sample_batch_size": 2}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return captioned_images(tmp_path_factory.mktemp("data") / "pictures", 3)


@pytest.fixture
def options(pictures):
    subject = {"instance_data_dir": pictures, "instance_prompt": PROMPT}
    return {**OPTIONS, **subject, "pretrained_model_name_or_path": tiny_base("sd1")}


@pytest.fixture
def trainer(options, tmp_path):
    def make(family="sd1", folder="run", **others) -> Trainer:
        chosen = {**options, "pretrained_model_name_or_path": tiny_base(family), **others}
        chosen = {name: value for name, value in chosen.items() if value != "none"}
        return build_trainer(DreamBoothRecipe, DreamBoothConfig(**chosen, output_dir=str(tmp_path / folder)))

    return make


def generated(folder: Path) -> dict[str, tuple]:
    """The content and the time of the images that the base generated, by name."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("generated-*.png")}


# Results


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("sd1", {}),
        ("sd2", LORA),
        ("sdxl", {**LORA, "train_text_encoder": True}),
        ("sd3", {**LORA, "cache_latents": True, "cache_text_embeddings": True}),
        ("sdxl", {"train_text_encoder": True}),
        ("sd3", {}),
    ],
)
def test_the_result_gives_the_same_images_in_diffusers(trainer, tmp_path, family, kind):
    made = trainer(family, **kind, **PRIOR)
    assert made.train()
    folder = tmp_path / "run"
    loaded = load(tiny_base(family) if "lora_rank" in kind else folder, family)
    if "lora_rank" in kind:
        before = image(loaded, PROMPT)
        loaded.load_lora_weights(str(folder))
    else:
        before = image(load(tiny_base(family), family), PROMPT)
    with made.outputs._generation() as generate:
        ours = image(generate.pipeline, PROMPT)
    assert np.array_equal(image(loaded, PROMPT), ours) and not np.array_equal(ours, before)
    assert len(generated(folder / "class_images")) == 5
    assert {"instance_loss", "prior_loss"} <= records(folder)[0].keys()
    card = (folder / "README.md").read_text()
    assert "dreambooth" in card and "DreamBooth, with prior preservation" in card


# Images of the class


def test_images_of_a_class_are_made_once(trainer, options, tmp_path):
    """A run that continues an interrupted one also makes the same images."""
    kept = {**LORA, **PRIOR, "class_data_dir": str(tmp_path / "dogs")}
    trainer(folder="first", **kept)
    first = generated(tmp_path / "dogs")
    assert len(first) == 5 and len({content for content, _ in first.values()}) == 5
    assert trainer(folder="second", **kept, seed=7).train()
    assert generated(tmp_path / "dogs") == first
    for name in sorted(first)[1:4]:
        (tmp_path / "dogs" / name).unlink()
    assert trainer(folder="third", **kept).train()
    assert {n: content for n, (content, _) in generated(tmp_path / "dogs").items()} == {
        n: content for n, (content, _) in first.items()
    }
    # Adapters have the same initial weights, whether images had to be generated or not.
    trainer(folder="fourth", **kept).train()
    assert records(tmp_path / "fourth") == records(tmp_path / "third")
    # Another base or another class has images of its own.
    trainer("sd2", folder="fifth", **kept)
    assert len(generated(tmp_path / "dogs")) == 10
    trainer(folder="sixth", **{**kept, "class_prompt": "a cat"})
    assert len(generated(tmp_path / "dogs")) == 15
    again = {**kept, "num_class_images": 4, "resume_from_checkpoint": "latest"}
    with pytest.raises(ValueError, match="recipe.class_images is"):
        trainer(folder="fourth", **again)


def test_images_of_a_class_are_those_of_the_base(trainer):
    made = trainer(**LORA, **PRIOR)
    (images,) = made.recipe.class_images
    recipe = made.recipe
    torch.testing.assert_close(
        recipe._generate_class("a dog", range(4, 5)).float(), pixels(images.paths[4]), atol=1, rtol=0
    )
    pipeline = load(tiny_base("sd1"), "sd1")
    generator = torch.Generator().manual_seed(derive_seed("class image", "a dog", 4))
    arguments = {"num_inference_steps": 2, "height": SIZE, "width": SIZE, "output_type": "pt"}
    stock = pipeline("a dog", generator=[generator], **arguments).images
    torch.testing.assert_close(stock.mul(255), pixels(images.paths[4]), atol=1, rtol=0)


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None].float()


def test_images_of_the_user_come_first(trainer, tmp_path):
    own = captioned_images(tmp_path / "own", 2, size=20)
    made = trainer(**LORA, **PRIOR, class_data_dir=own)
    (images,) = made.recipe.class_images
    assert [path.name for path in images.paths[:2]] == ["0.png", "1.png"]
    assert len(generated(tmp_path / "own")) == 3
    values, time_ids = images.read(1, (SIZE, SIZE))
    assert values.shape == (3, SIZE, SIZE) and values.abs().max() <= 1
    assert time_ids.tolist() == [21, 20, 0, 0, SIZE, SIZE]
    (tmp_path / "own" / "0.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="0.png: not an image"):
        trainer(**LORA, **PRIOR, class_data_dir=own)


# The step


def seen(made: Trainer, count=16, step=0, first_row=0):
    """The parts of a step: the batch with class images, its prompts, its losses, and the losses of the samples."""
    batches, losses = [], type(made.recipe).__mro__[1].losses
    draw = Draw(0, torch.device("cpu")).begin(step, range(first_row, first_row + count))
    batch = next(made.recipe.dataset.batches(count, seed=0, start=first_row))

    def spy(recipe, both, streams):
        batches.append((both, recipe.prompts(both, streams)))
        batches.append(losses(recipe, both, streams))
        return batches[1]

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(type(made.recipe).__mro__[1], "losses", spy)
        patch.setattr(made.recipe, "log", lambda **values: None)
        result = made.recipe.losses(batch, draw)
    return *batches[0], batches[1], result


def test_prior_images_join_each_sample(trainer):
    made = trainer("sdxl", **PRIOR, prior_loss_weight=0.25)
    both, prompts, losses, result = seen(made)
    assert prompts == [PROMPT] * 16 + ["a dog"] * 16
    assert both["pixel_values"].shape == (32, 3, SIZE, SIZE) and both["time_ids"].shape == (32, 6)
    known = torch.stack([made.recipe.class_images[0].read(i, (SIZE, SIZE))[0] for i in range(5)])
    chosen = (both["pixel_values"][16:, None] == known[None]).flatten(2).all(dim=-1)
    assert chosen.sum(dim=1).tolist() == [1] * 16 and chosen.any(dim=0).all()
    torch.testing.assert_close(result, losses[:16] + 0.25 * losses[16:])
    # The class image of a sample does not depend on the other samples.
    again = seen(made, 3, first_row=5)[0]
    assert torch.equal(again["pixel_values"][3:], both["pixel_values"][21:24])
    assert not torch.equal(seen(made, step=1)[0]["pixel_values"][16:], both["pixel_values"][16:])


def test_without_it_only_the_subject_is_learned(trainer, tmp_path):
    made = trainer(**LORA, class_prompt="a dog")
    assert seen(made)[1] == [PROMPT] * 16 and not (tmp_path / "run" / "class_images").exists()


# Subjects and captions


@pytest.fixture
def two_subjects(pictures, tmp_path):
    cats = shutil.copytree(pictures, tmp_path / "cats")
    (cats / "0.png").unlink()
    dog = {"instance_data_dir": pictures, "instance_prompt": "a sks dog", "class_prompt": "a dog"}
    return [dog, {"instance_data_dir": str(cats), "instance_prompt": "my tux cat", "class_prompt": "a cat"}]


ALONE = {"instance_data_dir": "none", "instance_prompt": "none", "class_prompt": "none"}


def test_several_subjects_share_a_run(trainer, two_subjects, tmp_path):
    made = trainer(**{**LORA, **PRIOR, **ALONE, "subjects": two_subjects})
    assert made.recipe.dataset.num_examples == 5 and made.recipe.dataset.id2label[1] == "my tux cat"
    prompts = seen(made)[1]
    pairs = set(zip(prompts[:16], prompts[16:], strict=True))
    assert pairs == {("a sks dog", "a dog"), ("my tux cat", "a cat")}
    assert made.recipe.validation_inputs()["prompt"] == ["a sks dog", "my tux cat"]
    assert len(generated(tmp_path / "run" / "class_images")) == 10
    assert made.train()
    assert f"`pictures`, `cats`: 5 images, {SIZE}x{SIZE}x3." in (tmp_path / "run" / "README.md").read_text()


def test_subjects_are_listed_in_yaml(options, two_subjects, tmp_path):
    described = {**options, "subjects": two_subjects, "output_dir": str(tmp_path / "run")}
    described = {name: value for name, value in described.items() if name not in ALONE}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(described))
    config = parse_config(DreamBoothConfig, ["--config", str(tmp_path / "run.yaml")])
    assert config.subjects == two_subjects
    (tmp_path / "again.yaml").write_text(config.to_yaml())
    again = parse_config(DreamBoothConfig, ["--config", str(tmp_path / "again.yaml")])
    assert again == config
    texts = [json.dumps(subject) for subject in two_subjects]
    line = command_line({name: value for name, value in described.items() if name != "subjects"})
    assert parse_config(DreamBoothConfig, [*line, "--subjects", *texts]) == config


def test_images_with_captions_of_their_own(trainer):
    made = trainer(**LORA, **PRIOR, caption_column="text")
    prompts = seen(made)[1]
    assert set(prompts[:16]) == {"picture 0", "picture 1", "picture 2"} and prompts[16:] == ["a dog"] * 16


def test_batches_of_several_aspect_ratios(trainer, tmp_path):
    wide = tmp_path / "wide"
    wide.mkdir()
    for index, width in enumerate((40, 40, 16, 16)):
        Image.fromarray(np.random.default_rng(index).integers(0, 255, (20, width, 3), np.uint8)).save(
            wide / f"{index}.png"
        )
    options = {"instance_data_dir": str(wide), "resolution": [16], "aspect_ratio_buckets": True, "bucket_step": 4}
    made = trainer(**LORA, **PRIOR, **options, max_train_steps=4)
    assert len(made.recipe.dataset.buckets) > 1 and made.train()


# Caches, resuming and several processes


@pytest.mark.slow
def test_caches_change_nothing(trainer, tmp_path):
    assert trainer("sdxl", "plain", **LORA, **PRIOR, center_crop=True).train()
    caches = {"cache_latents": True, "cache_text_embeddings": True, "center_crop": True}
    assert trainer("sdxl", "cached", **LORA, **PRIOR, **caches).train()
    assert records(tmp_path / "cached") == records(tmp_path / "plain")


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        pytest.param("sd1", {}, marks=pytest.mark.slow),
        ("sdxl", {**LORA, "train_text_encoder": True, "cache_latents": True}),
        pytest.param("sd3", LORA, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(trainer, tmp_path, family, kind):
    kind = {**kind, **PRIOR, "family": family, "checkpointing_steps": 1, "prompt_dropout": 0.3}
    assert trainer(folder="whole", **kind, max_train_steps=3).train()
    assert trainer(folder="parts", **kind, max_train_steps=1).train()
    assert trainer(folder="parts", **kind, max_train_steps=3, resume_from_checkpoint="latest").train()
    found, wanted = (tensors(tmp_path / name, 3) for name in ("parts", "whole"))
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3"])
def test_two_processes_follow_one(options, tmp_path, family):
    options = {**options, **PRIOR, **LORA, "train_text_encoder": True, "num_validation_images": 2}
    options["pretrained_model_name_or_path"] = tiny_base(family)
    folders = run_on_one_and_two_processes("train_dreambooth", options, tmp_path)
    made = [generated(folder / "class_images") for folder in folders]
    assert len(made[0]) == 5 and made[0].keys() == made[1].keys()
    assert all(made[1][name][0] == content for name, (content, _) in made[0].items())
    for line, other in zip(*map(records, folders), strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-6)
    one, two = (load_file(folder / FILE) for folder in folders)
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-2, atol=1e-4)


# Invalid options


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"instance_prompt": None}, "--instance_prompt is required for .*pictures"),
        ({"with_prior_preservation": True}, "needs a --class_prompt"),
        ({**PRIOR, "num_class_images": 0}, "--num_class_images must be at least 1"),
        ({**PRIOR, "prior_loss_weight": -1.0}, "--prior_loss_weight must be at least 0"),
        ({"train_data_dir": "elsewhere"}, "--instance_data_dir already names the images"),
        ({"subjects": [{"instance_data_dir": "a"}]}, "leave out --instance_data_dir, --instance_prompt"),
        ({**ALONE, "subjects": []}, "--subjects must name at least one"),
        ({**ALONE, "subjects": [{"instance_prompt": "a"}]}, "--subjects need an instance_data_dir"),
        ({**ALONE, "subjects": [{"folder": "a"}]}, "by instance_data_dir, .*, not by folder"),
        ({**ALONE, "subjects": [{"instance_data_dir": 3}]}, "are described by texts"),
        ({**ALONE, "subjects": [{"instance_data_dir": "a"}]}, "--instance_prompt is required for a"),
        ({**ALONE, "instance_prompt": "a"}, "give --dataset_name"),
        ({"instance_data_dir": "/nowhere"}, "there is no folder '/nowhere'"),
        ({"streaming": True, "validation_prompts": ["a"]}, "--streaming is not for"),
        ({"caption_column": "prompt"}, "there is no caption column 'prompt'"),
    ],
)
def test_invalid_options_are_refused_in_one_sentence(trainer, changed, sentence):
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as error:
        trainer(**changed)
    assert "\n" not in str(error.value)


def test_the_command_line_prints_one_sentence(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        line = command_line({**options, "with_prior_preservation": True, "output_dir": str(tmp_path)})
        run(DreamBoothRecipe, DreamBoothConfig, line)
    assert stopped.value.code == 2 and "error: --with_prior_preservation needs" in capsys.readouterr().err


def test_an_update_waits_for_no_device(trainer):
    assert not waits_of_an_update(trainer())


@pytest.mark.parametrize("name", ["instance_prompt", "class_prompt"])
def test_a_prompt_that_is_cut_off_is_refused(trainer, name):
    fits, cut = "a" * (PROMPT_LENGTH - 2), "a" * (PROMPT_LENGTH - 1)
    trainer(**PRIOR, **{name: fits} if name == "instance_prompt" else {})
    with pytest.raises(ValueError, match=f"--{name} '{cut}' is longer than the text encoders of .* read .24 tokens"):
        trainer(**{**PRIOR, name: cut})
