from diffusers_ext.training.loop.command import run

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, ViTConfig, ViTImageProcessorPil, ViTModel

from diffusers_ext.hub.repository import files_to_publish
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.text_to_image.fine_tuning import FineTuningConfig, FineTuningRecipe
from diffusers_ext.training.text_to_image.lora import FILE
from tests.training.runs import command_line, context, records, tensors, trainer as build_trainer
from tests.training.text_to_image_models import (
    FAMILIES,
    PROMPT_LENGTH,
    SIZE,
    captioned_images,
    text_config,
    tiny_base,
    tokenizer,
)
from tests.training.text_to_image_runs import (
    image as image_of_prompt,
    load,
    run_on_one_and_two_processes,
)
from tests.waits import waits_of_an_update


OPTIONS = {
    "resolution": [SIZE],
    "max_train_steps": 2,
    "train_batch_size": 2,
    "learning_rate": 1e-2,
    "lr_warmup_steps": 0,
    "num_validation_images": 1,
    "validation_prompts": ["picture 1"],
    "num_inference_steps": 2,
}
LORA = {"lora_rank": 2}


@pytest.fixture(scope="module", autouse=True)
def pictures(tmp_path_factory):
    folder = captioned_images(tmp_path_factory.mktemp("data") / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", folder)
        yield folder


def configuration(output_dir, family="sd1", **options) -> FineTuningConfig:
    options = {"pretrained_model_name_or_path": tiny_base(family), **OPTIONS, **options}
    return FineTuningConfig(**options, output_dir=str(output_dir))


def recipe(output_dir, family="sd1", **options) -> FineTuningRecipe:
    return FineTuningRecipe(configuration(output_dir, family, **options), context())


def trainer(output_dir, family="sd1", precision="no", **options) -> Trainer:
    AcceleratorState._reset_state()  # all accelerators of a process share its precision
    config = configuration(output_dir, family, **options)
    return build_trainer(FineTuningRecipe, config, mixed_precision=precision)


def trained(output_dir, family="sd1", **options) -> Trainer:
    made = trainer(output_dir, family, **options)
    assert made.train()
    return made


def image(pipeline) -> np.ndarray:
    return image_of_prompt(pipeline, "picture 1")


def image_of(made: Trainer) -> np.ndarray:
    """An image of the trained networks in memory, averaged as they are published."""
    with made.outputs._generation() as generate:
        return image(generate.pipeline)


def losses(folder) -> list[float]:
    return [line["loss"] if "loss" in line else line["unet_loss"] for line in records(folder)]


# Results


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_pipeline_gives_the_same_images_in_diffusers(tmp_path, family):
    made = trained(tmp_path, family)
    loaded = load(tmp_path, family)
    assert np.array_equal(image(loaded), image_of(made))
    before = load(tiny_base(family), family)
    name = made.recipe.base.denoiser_name
    assert not equal_weights(getattr(loaded, name), getattr(before, name))
    assert equal_weights(loaded.vae, before.vae) and equal_weights(loaded.text_encoder, before.text_encoder)
    assert not any("_name_or_path" in path.read_text() for path in tmp_path.glob("*/config.json"))
    card = (tmp_path / "README.md").read_text()
    assert f'{type(loaded).__name__}.from_pretrained("{tmp_path}"' in card


def equal_weights(one, other) -> bool:
    other = other.state_dict()
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_give_the_same_images_in_diffusers(tmp_path, family):
    made = trained(tmp_path, family, **LORA, lora_alpha=3)
    loaded = load(tiny_base(family), family)
    before = image(loaded)
    loaded.load_lora_weights(str(tmp_path))
    assert np.array_equal(image(loaded), image_of(made))
    assert not np.array_equal(image(loaded), before)
    assert not (tmp_path / "model_index.json").exists()
    checkpoint = sum(path.stat().st_size for path in (tmp_path / "checkpoint-2").iterdir())
    base = sum(path.stat().st_size for path in Path(tiny_base(family)).rglob("*.safetensors"))
    assert checkpoint < base / 3
    assert FILE in files_to_publish(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert f'pipe.load_lora_weights("{tmp_path}")' in card and tiny_base(family) in card


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("sd1", {"use_dora": True, "lora_targets": ["all-linear"], "train_text_encoder": True}),
        ("sdxl", {"lora_init": "gaussian", "lora_targets": ["to_k", "conv1", "conv_in"], "lora_dropout": 0.5}),
        ("sd3", {"lora_init": "orthogonal", "lora_targets": ["ff.net.2", "proj_out"]}),
    ],
)
def test_adapters_of_other_kinds_and_places(tmp_path, family, options):
    made = trained(tmp_path, family, **LORA, **options)
    loaded = load(tiny_base(family), family)
    before = image(loaded)
    loaded.load_lora_weights(str(tmp_path))
    assert np.array_equal(image(loaded), image_of(made)) and not np.array_equal(image(loaded), before)
    keys = load_file(tmp_path / FILE)
    for target in options["lora_targets"]:
        assert target == "all-linear" or any(f".{target}.lora_A" in key for key in keys)
    for network in ("unet", "text_encoder") if "train_text_encoder" in options else ():
        assert any(key.startswith(f"{network}.") and "magnitude" in key for key in keys)


@pytest.mark.parametrize("init", ["kaiming", "gaussian", "orthogonal"])
def test_adapters_start_as_the_base(tmp_path, init):
    made = trainer(tmp_path, **LORA, lora_init=init)
    np.testing.assert_allclose(image_of(made), image(load(tiny_base("sd1"), "sd1")), atol=1e-5)


@pytest.mark.parametrize(
    "family", ["sd1", pytest.param("sdxl", marks=pytest.mark.slow), pytest.param("sd3", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", [{}, LORA], ids=["full", "lora"])
def test_text_encoders_learn_too(tmp_path, family, kind):
    made = trained(tmp_path, family, **kind, train_text_encoder=True, text_encoder_lr=1e-3)
    before, loaded = load(tiny_base(family), family), load(tiny_base(family) if kind else tmp_path, family)
    if kind:
        loaded.load_lora_weights(str(tmp_path))
    assert np.array_equal(image(loaded), image_of(made))
    text = [encode(pipeline) for pipeline in (before, loaded)]
    assert not torch.equal(*text)
    assert records(tmp_path)[0]["text_encoders_lr"] == 1e-3


@torch.no_grad()
def encode(pipeline):
    encoder, words = pipeline.text_encoder, pipeline.tokenizer
    token_ids = words("picture", padding="max_length", max_length=PROMPT_LENGTH, return_tensors="pt").input_ids
    return encoder(token_ids, output_hidden_states=True).hidden_states[-2]


@pytest.mark.parametrize(
    ("family", "options"), [("sd1", LORA), ("sdxl", {**LORA, "train_text_encoder": True}), ("sd3", {})]
)
def test_training_in_bfloat16(tmp_path, family, options):
    made = trained(tmp_path, family, precision="bf16", **options)
    base = made.recipe.base
    trained_dtypes = {w.dtype for n in made.networks.values() for w in n.parameters() if w.requires_grad}
    assert trained_dtypes == {torch.float32} and base.vae.dtype == torch.float32
    frozen = {weight.dtype for weight in base.denoiser.parameters() if not weight.requires_grad}
    assert frozen == ({torch.bfloat16} if options else set())
    loaded = load(tiny_base(family) if options else tmp_path, family)
    if options:
        loaded.load_lora_weights(str(tmp_path))
    assert np.isfinite(image(loaded)).all() and (tmp_path / "samples.png").exists()


# The step


def seen_by_the_denoiser(made, batch, step=0):
    """The keywords of the denoiser's call in a step, and the losses."""
    calls, base = [], made.recipe.base
    hook = base.denoiser.register_forward_pre_hook(lambda m, args, keywords: calls.append(keywords), with_kwargs=True)
    draw = Draw(0, torch.device("cpu")).begin(step, range(len(batch["pixel_values"])))
    with torch.no_grad():
        values = made.recipe.losses(batch, draw)
    hook.remove()
    (call,) = calls
    return call, values


def first_batch(made, size=64):
    return next(made.recipe.dataset.batches(size, seed=0))


def test_prompts_are_hidden_as_often_as_asked(tmp_path):
    made = trainer(tmp_path, prompt_dropout=0.25)
    call, _ = seen_by_the_denoiser(made, first_batch(made))
    empty = made.recipe.encode_prompts([""])["prompt_embeds"]
    hidden = torch.stack([torch.equal(row, empty[0]) * torch.ones(()) for row in call["encoder_hidden_states"]])
    assert 0.1 < hidden.mean() < 0.45
    assert len(call["encoder_hidden_states"].unique(dim=0)) == 7  # six captions, and the empty prompt


def test_each_image_comes_with_its_caption(tmp_path):
    made = trainer(tmp_path)
    batch = first_batch(made, 6)
    call, _ = seen_by_the_denoiser(made, batch)
    for row, index in enumerate(batch["caption_ids"].tolist()):
        text = made.recipe.base.encode_text(made.recipe.base.tokenize([made.recipe.dataset.captions[index]]))
        torch.testing.assert_close(call["encoder_hidden_states"][row], text["prompt_embeds"][0])


def test_offset_noise_moves_whole_channels(tmp_path):
    plain, moved = trainer(tmp_path / "a"), trainer(tmp_path / "b", noise_offset=0.5)
    batch = first_batch(plain, 4)
    difference = seen_by_the_denoiser(moved, batch)[0]["sample"] - seen_by_the_denoiser(plain, batch)[0]["sample"]
    torch.testing.assert_close(difference, difference[..., :1, :1].expand_as(difference), atol=1e-5, rtol=1e-4)
    assert (difference[..., 0, 0].abs() > 1e-3).float().mean() > 0.8


def test_sdxl_gets_the_sizes_of_its_images(tmp_path):
    made = trainer(tmp_path, "sdxl")
    batch = first_batch(made, 4)
    call, _ = seen_by_the_denoiser(made, batch)
    assert torch.equal(call["added_cond_kwargs"]["time_ids"], batch["time_ids"])
    assert batch["time_ids"][:, 4:].tolist() == [[SIZE, SIZE]] * 4


def test_gradient_checkpointing_changes_nothing(tmp_path):
    options = {"train_text_encoder": True, "max_train_steps": 2}
    trained(tmp_path / "plain", "sdxl", **options)
    trained(tmp_path / "saving", "sdxl", **options, gradient_checkpointing=True)
    assert losses(tmp_path / "saving") == pytest.approx(losses(tmp_path / "plain"), rel=1e-5)


@pytest.mark.parametrize("family", [pytest.param("sdxl", marks=pytest.mark.slow), "sd3"])
def test_caches_change_nothing(tmp_path, family):
    kept = {"cache_latents": True, "cache_text_embeddings": True, "center_crop": True, "max_train_steps": 4}
    trained(tmp_path / "plain", family, **LORA, center_crop=True, max_train_steps=4, prompt_dropout=0.3)
    trained(tmp_path / "cached", family, **LORA, **kept, prompt_dropout=0.3)
    assert records(tmp_path / "cached") == records(tmp_path / "plain")
    files = sorted((tmp_path / "cached" / "cache").rglob("*.safetensors"))
    assert 6 < len(files) <= 6 + 7  # images, and captions including the empty one
    again = {**kept, "latent_cache_dir": str(tmp_path / "cached" / "cache")}
    trained(tmp_path / "again", family, **LORA, **again, prompt_dropout=0.3)
    assert records(tmp_path / "again") == records(tmp_path / "plain")
    assert not (tmp_path / "again" / "cache").exists()


def test_batches_of_several_aspect_ratios(tmp_path):
    made = trained(tmp_path, resolution=[2 * SIZE], aspect_ratio_buckets=True, bucket_step=8, max_train_steps=4)
    shapes = {tuple(batch["pixel_values"].shape[2:]) for batch in made.recipe.reference_batches()}
    assert len(shapes) > 1 and all(side % 8 == 0 for shape in shapes for side in shape)


# Resuming and several processes


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("sd1", {**LORA, "lora_dropout": 0.3}),
        pytest.param("sdxl", {**LORA, "train_text_encoder": True}, marks=pytest.mark.slow),
        ("sd3", {}),
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, family, options):
    options |= {"max_train_steps": 3, "checkpointing_steps": 1, "prompt_dropout": 0.3, "random_flip": True}
    trained(tmp_path / "whole", family, **options)
    trained(tmp_path / "parts", family, **{**options, "max_train_steps": 1})
    trained(tmp_path / "parts", family, **options, resume_from_checkpoint="latest")
    found, wanted = tensors(tmp_path / "parts", 3), tensors(tmp_path / "whole", 3)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    name = FILE if options.get("lora_rank") else "transformer/diffusion_pytorch_model.safetensors"
    results = [load_file(tmp_path / folder / name) for folder in ("parts", "whole")]
    assert all(torch.equal(value, results[0][key]) for key, value in results[1].items())


def test_resuming_on_another_base_or_with_other_adapters_is_refused(tmp_path):
    options = {**LORA, "checkpointing_steps": 1}
    trained(tmp_path / "run", **options, max_train_steps=1)
    other = shutil.copytree(tiny_base("sd1"), tmp_path / "other")
    weights = load_file(other / "vae" / "diffusion_pytorch_model.safetensors")
    weights["encoder.conv_in.bias"] += 1
    save_file(weights, other / "vae" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    again = {**options, "resume_from_checkpoint": "latest"}
    with pytest.raises(ValueError, match="recipe.base is"):
        trainer(tmp_path / "run", **again, pretrained_model_name_or_path=str(other))
    with pytest.raises(ValueError, match="recipe.lora_alpha is None there and 7 here"):
        trainer(tmp_path / "run", **again, lora_alpha=7)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3"])
def test_two_processes_follow_one(tmp_path, family):
    options = {
        **OPTIONS,
        "pretrained_model_name_or_path": tiny_base(family),
        "lora_rank": 2,
        "train_text_encoder": True,
        "prompt_dropout": 0.3,
        "cache_latents": True,
        "max_train_steps": 4,
    }
    folders = run_on_one_and_two_processes("train_text_to_image", options, tmp_path)
    one, two = map(records, folders)
    assert len(one) == len(two) == 4
    for line, other in zip(one, two, strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-6)
    adapters = [load_file(folder / FILE) for folder in folders]
    for name, value in adapters[0].items():
        torch.testing.assert_close(value, adapters[1][name], rtol=1e-2, atol=1e-4)


# Starting from adapters


def test_training_continues_from_adapters(tmp_path):
    trained(tmp_path / "first", **LORA, use_ema=False)
    made = trainer(tmp_path / "second", **LORA, lora_weights=str(tmp_path / "first"))
    loaded = load(tiny_base("sd1"), "sd1")
    loaded.load_lora_weights(str(tmp_path / "first"))
    assert np.array_equal(image(loaded), image_of(made))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"family": "sd2"}, "is not a LoRA for .* with these options: .* is \\(2, 16\\) in the file and"),
        ({"family": "sdxl"}, "is not a LoRA for"),
        ({"lora_rank": 4}, "is \\(2, .*\\) in the file and \\(4, .*\\) in the model"),
        ({"lora_alpha": 7}, "was trained with --lora_alpha 2, but this run has 7"),
        ({"train_text_encoder": True}, "is missing in the file"),
    ],
)
def test_adapters_of_another_base_or_shape_are_refused(tmp_path, adapters, options, sentence):
    family = options.pop("family", "sd1")
    with pytest.raises(ValueError, match=sentence):
        trainer(tmp_path, family, **{**LORA, "lora_weights": adapters, **options})


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    trained(folder, **LORA, max_train_steps=1)
    return str(folder / FILE)


def test_a_file_without_adapters_is_refused(tmp_path):
    with pytest.raises(OSError, match="can't be read as a LoRA file"):
        trainer(tmp_path, **LORA, lora_weights=str(tmp_path / "nothing.safetensors"))


# Measures


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    """A tiny CLIP and a tiny ViT, saved as such models are."""
    folder, words = tmp_path_factory.mktemp("judges"), tokenizer()
    image_size = {"height": SIZE, "width": SIZE}
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    shape |= {"image_size": SIZE, "patch_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIPModel(CLIPConfig(text_config=text_config(words).to_dict(), vision_config=shape, projection_dim=16))
        vit = ViTModel(ViTConfig(**shape), add_pooling_layer=False)
    clip.save_pretrained(folder / "clip")
    words.save_pretrained(folder / "clip")
    CLIPImageProcessorPil(size=image_size, crop_size=image_size).save_pretrained(folder / "clip")
    vit.save_pretrained(folder / "vit")
    ViTImageProcessorPil(size=image_size).save_pretrained(folder / "vit")
    return {"clip_model": str(folder / "clip"), "dino_model": str(folder / "vit")}


def test_samples_are_measured_by_the_models_that_the_user_names(tmp_path, judges):
    options = {**judges, "prior_prompts": ["a thing"], "num_validation_images": 2}
    made = trained(tmp_path, **LORA, **options, evaluation_steps=1)
    rows = json.loads((tmp_path / "metrics.json").read_text())["evaluations"]
    (row,) = rows
    names = ("clip_i", "clip_t", "dino", "prior_drift")
    assert all(-1 <= row[name] <= 2 for name in names) and row["prior_drift"] > 0
    assert [line for line in records(tmp_path) if "evaluation" in line]
    # By hand, from the images of the trained model.
    recipe = made.recipe
    with made.outputs._generation() as generate:
        images = recipe.generate(generate, recipe.validation_inputs())
    clip, real = recipe.measures.models["clip_i"], torch.cat([b["pixel_values"] for b in recipe.reference_batches()])
    pairs = torch.nn.functional.cosine_similarity(clip(images).features[:, None], clip(real).features[None], dim=-1)
    assert row["clip_i"] == pytest.approx(pairs.mean().item(), abs=1e-5)


def test_prompts_that_the_measuring_model_cuts_off_are_named_before_the_training(tmp_path, judges, caplog):
    prompts = ["a" * (PROMPT_LENGTH - 2), "a" * (PROMPT_LENGTH - 1)]
    recipe(tmp_path, clip_model=judges["clip_model"], validation_prompts=prompts)
    (said,) = [message for message in caplog.messages if "clip_t" in message]
    assert said.startswith(f"1 of 2 --validation_prompts are longer than --clip_model reads ({PROMPT_LENGTH} tokens)")


def test_an_untrained_model_has_not_drifted(tmp_path, judges):
    options = {"dino_model": judges["dino_model"], "prior_prompts": ["a thing"]}
    made = trainer(tmp_path, "sd3", **LORA, **options)
    with made.outputs._generation() as generate:
        (row,) = made.recipe.evaluate(generate)
    assert row["prior_drift"] == pytest.approx(0, abs=1e-5) and "clip_t" not in row


def test_a_clip_model_without_a_text_encoder_is_refused(tmp_path, judges):
    with pytest.raises(ValueError, match="--clip_model must encode text as well"):
        recipe(tmp_path, clip_model=judges["dino_model"])


# Invalid options


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pretrained_model_name_or_path": None}, "--pretrained_model_name_or_path is required"),
        ({"channels": 1}, "--channels must be 3"),
        ({"resolution": [15]}, "--resolution must be a multiple of 2 for this base"),
        ({"prompt_dropout": 1.0}, "--prompt_dropout must be in"),
        ({"noise_offset": -1.0}, "--noise_offset must be at least 0"),
        ({"feature_extractor": "inception"}, "are not for text-to-image models"),
        ({"metrics": ["fid"]}, "are not for text-to-image models"),
        ({"prior_prompts": ["a dog"]}, "--prior_prompts need an image model"),
        ({"lora_rank": 0}, "--lora_rank must be at least 1"),
        ({"lora_alpha": 2.0}, "--lora_alpha is only for adapters: set --lora_rank"),
        ({"use_dora": True}, "--use_dora is only for adapters"),
        ({"lora_rank": 3, "lora_init": "orthogonal"}, "needs an even --lora_rank"),
        ({"text_encoder_lr": 1e-4}, "needs --train_text_encoder"),
        (
            {"train_text_encoder": True, "cache_text_embeddings": True},
            "embeddings that --train_text_encoder changes",
        ),
        ({"caption_column": "prompt"}, "there is no caption column 'prompt'"),
        (
            {"bucket_step": 3, "resolution": [15], "aspect_ratio_buckets": True},
            "--bucket_step must be a multiple of 2",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_sentence(tmp_path, options, sentence):
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        recipe(tmp_path, **options)
    assert sentence in str(error.value)


def test_layers_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--lora_targets: the UNet2DConditionModel of .* has no layer named to_z"):
        trainer(tmp_path, **LORA, lora_targets=["to_k", "to_z"])


def test_images_without_captions_are_refused(tmp_path, pictures):
    bare = shutil.copytree(pictures, tmp_path / "bare", ignore=shutil.ignore_patterns("*.txt"))
    with pytest.raises(ValueError, match="no caption column 'text'"):
        recipe(tmp_path, train_data_dir=str(bare))
    half = shutil.copytree(pictures, tmp_path / "half")
    (half / "3.txt").unlink()
    with pytest.raises(ValueError, match="1 of 6 images have no caption"):
        recipe(tmp_path, train_data_dir=str(half))


def test_the_command_line_prints_one_sentence(tmp_path, capsys):
    options = {**OPTIONS, "pretrained_model_name_or_path": tiny_base("sd1"), "train_data_dir": str(tmp_path)}
    with pytest.raises(SystemExit) as stopped:
        run(FineTuningRecipe, FineTuningConfig, command_line({**options, "output_dir": str(tmp_path / "out")}))
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("options", [{}, {"prompt_dropout": 0.5}])
def test_an_update_waits_for_no_device(tmp_path, options):
    assert not waits_of_an_update(trainer(tmp_path, **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_that_are_cut_off_are_named_before_the_training(tmp_path, pictures, caplog, family):
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    fits, cut = "a" * (PROMPT_LENGTH - 2), "a" * (PROMPT_LENGTH - 1)
    for number, caption in enumerate([fits, cut, f"{cut}b"]):
        (folder / f"{number}.txt").write_text(f"{caption}\n")
    options = {"train_data_dir": str(folder), "validation_prompts": [fits, f"{cut} too"]}
    recipe(tmp_path / "run", family, **options)
    said = [message for message in caplog.messages if "their ends have no effect" in message]
    assert len(said) == 2
    assert said[0].startswith("2 of 6 captions are longer") and repr(cut) in said[0] and f"{cut}b" in said[0]
    assert said[1].startswith("1 of 2 --validation_prompts are longer") and f"{cut} too" in said[1]
