"""CLIP: what a run leaves, that processes train like one, and what is refused."""

import json
import math

import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler
from PIL import Image
from transformers import AutoTokenizer, CLIPModel, SiglipModel, pipeline

from diffusers_ext import ClassConditionalPipeline
from diffusers_ext.models import NoisyCLIPModel
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.text_and_image.clip_networks import feature_tensor
from diffusers_ext.training.train_clip import MAX_LOGIT_SCALE, CLIPConfig, CLIPRecipe, clip_recipe
from tests.tiny_unet import tiny_unet
from tests.training.runs import context, records, steps, tensors, trainer
from tests.training.text_to_image_runs import run_on_one_and_two_processes
from tests.waits import waits_of_an_update


SIZE = 8
TOWER = {"hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1}
OPTIONS = {
    "resolution": [SIZE],
    "text_config": TOWER,
    "vision_config": {**TOWER, "patch_size": 4},
    "projection_dim": 16,
    "train_batch_size": 4,
    "max_train_steps": 3,
    "checkpointing_steps": 2,
    "learning_rate": 1e-2,
    "lr_warmup_steps": 0,
    "num_evaluation_samples": 20,
    "zero_shot_templates": ["a {}", "the {}"],
}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0)}


@pytest.fixture(scope="module", autouse=True)
def pictures(tmp_path_factory):
    """Plain pictures with captions and labels."""
    folder = tmp_path_factory.mktemp("pictures")
    lines = []
    for index in range(12):
        name = list(COLOURS)[index % 2]
        colour = tuple(value * (index + 4) // 16 for value in COLOURS[name])
        Image.new("RGB", (SIZE, SIZE), colour).save(folder / f"{index}.png")
        captions = [f"a {name} picture", f"picture {index} is {name}"]
        lines.append(json.dumps({"file_name": f"{index}.png", "text": captions, "label": name}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        yield folder


def configuration(output_dir, **options) -> CLIPConfig:
    return CLIPConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "clip"
    assert trainer(clip_recipe, configuration(folder)).train()
    return folder


def noisy_options(trained, **options) -> dict:
    given = dict.fromkeys(("text_config", "vision_config"), {})
    return {**given, "projection_dim": 64, "pretrained_model_name_or_path": str(trained), "noisy": True, **options}


def test_a_run_leaves_what_transformers_classifies_with(trained):
    (row,) = json.loads((trained / "metrics.json").read_text())["evaluations"]
    names = {f"{way}_recall_at_{k}" for way in ("image_to_text", "text_to_image") for k in (1,)}
    assert names | {"zero_shot_accuracy", "linear_probe_accuracy"} <= set(row)
    assert all(0 <= row[name] <= 1 for name in names) and 0 <= row["clip_score"] <= 100
    classify = pipeline("zero-shot-image-classification", model=str(trained))
    image = Image.new("RGB", (SIZE, SIZE), COLOURS["red"])
    scores = classify(image, candidate_labels=list(COLOURS), hypothesis_template="a {} picture")
    assert {score["label"] for score in scores} == set(COLOURS)

    clip, tokenizer = CLIPModel.from_pretrained(trained), AutoTokenizer.from_pretrained(trained)
    assert len(tokenizer) == clip.config.text_config.vocab_size
    assert tokenizer("a red picture").input_ids[0] == tokenizer.bos_token_id
    with Image.open(trained / "samples.png") as grid:
        assert grid.width > 200
    card = (trained / "README.md").read_text()
    assert 'pipeline("zero-shot-image-classification", model="' in card and "zero_shot_accuracy" in card


def test_a_resumed_run_is_the_same(trained, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers_ext.training.loop.outputs.Outputs.write", lambda *arguments: None)
        assert trainer(clip_recipe, configuration(tmp_path, max_train_steps=2)).train()
        assert trainer(clip_recipe, configuration(tmp_path, resume_from_checkpoint="latest")).train()
    expected, found = tensors(trained, 3), tensors(tmp_path, 3)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_scale_is_clipped(tmp_path):
    job = trainer(clip_recipe, configuration(tmp_path))
    with torch.no_grad():
        job.networks["clip"].logit_scale.fill_(10.0)
    job.start()
    job.update()
    assert job.networks["clip"].logit_scale.item() == pytest.approx(math.log(MAX_LOGIT_SCALE))


def test_weight_decay_spares_the_temperature(tmp_path):
    """An update moves it by the learning rate; the decay would halve it."""
    job = trainer(clip_recipe, configuration(tmp_path, adam_weight_decay=50.0))
    clip = job.networks["clip"]
    scale, projection = clip.logit_scale.item(), clip.text_projection.weight.norm().item()
    job.start()
    job.update()
    assert clip.logit_scale.item() == pytest.approx(scale, abs=2e-2)
    assert clip.text_projection.weight.norm().item() < 0.8 * projection


def test_a_step_reads_no_value(tmp_path):
    job = trainer(clip_recipe, configuration(tmp_path))
    assert not waits_of_an_update(job)


def test_it_learns_colours(tmp_path):
    job = trainer(clip_recipe, configuration(tmp_path, train_batch_size=8))
    losses = [values["loss"] for values in steps(job, 40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_sigmoid_loss_trains_siglip(tmp_path):
    config = configuration(tmp_path, loss="sigmoid", vision_config={"num_attention_heads": 2, "patch_size": 4})
    assert trainer(clip_recipe, config).train()
    siglip = SiglipModel.from_pretrained(tmp_path)
    assert siglip.logit_bias.item() == pytest.approx(-10, abs=0.5)
    classify = pipeline("zero-shot-image-classification", model=str(tmp_path))
    assert len(classify(Image.new("RGB", (SIZE, SIZE)), candidate_labels=["red", "green"])) == 2


def test_another_run_continues_from_it(trained, tmp_path):
    options = noisy_options(trained, noisy=False)
    recipe = CLIPRecipe(configuration(tmp_path, **options), context())
    assert torch.equal(
        recipe.networks()["clip"].visual_projection.weight, CLIPModel.from_pretrained(trained).visual_projection.weight
    )


# Noisy images


def test_the_noisy_one_begins_as_the_clean_one(trained, tmp_path):
    recipe = clip_recipe(configuration(tmp_path, **noisy_options(trained)), context())
    noisy, clean = recipe.networks()["clip"], CLIPModel.from_pretrained(trained)
    pixels, (ids, mask) = torch.rand(2, 3, SIZE, SIZE) * 2 - 1, recipe.token_ids(["a red picture", "green"])
    with torch.no_grad():
        expected = feature_tensor(clean.get_image_features(pixel_values=pixels))
        torch.testing.assert_close(noisy.get_image_features(pixels, torch.tensor([3, 700])), expected)
        torch.testing.assert_close(
            noisy.get_text_features(ids, mask), feature_tensor(clean.get_text_features(input_ids=ids))
        )
    trained_parts = {name.split(".")[0] for name, weight in noisy.named_parameters() if weight.requires_grad}
    assert "text_tower" not in trained_parts and "time_embedding" in trained_parts


def test_a_noisy_run_leaves_a_model_that_sees_the_timestep(trained, tmp_path):
    assert trainer(clip_recipe, configuration(tmp_path, **noisy_options(trained))).train()
    (row,) = json.loads((tmp_path / "metrics.json").read_text())["evaluations"]
    assert {f"zero_shot_accuracy_at_{level}%" for level in (25, 50, 75)} <= set(row)
    clip = NoisyCLIPModel.from_pretrained(tmp_path)
    assert clip.config.num_train_timesteps == 1000
    assert len(clip.text_tower.position_embedding) == clip.config.max_length
    assert AutoTokenizer.from_pretrained(tmp_path)("a").input_ids
    assert "NoisyCLIPModel.from_pretrained" in (tmp_path / "README.md").read_text()


def test_it_sees_the_noise_of_the_model_to_guide(trained, tmp_path):
    scheduler = DDPMScheduler(num_train_timesteps=50)
    ClassConditionalPipeline(tiny_unet(), scheduler).save_pretrained(tmp_path / "model")
    options = noisy_options(trained, diffusion_model=str(tmp_path / "model"))
    recipe = clip_recipe(configuration(tmp_path, **options), context())
    assert recipe.networks()["clip"].config.num_train_timesteps == 50
    clean = torch.rand(2, 3, SIZE, SIZE)
    recipe._measured_level = 0.5
    seen = []
    recipe.image_features(type("Clip", (), {"get_image_features": lambda self, *a: seen.append(a)})(), clean, [0, 1])
    noise = Draw(0, torch.device("cpu")).begin(0, [0, 1]).normal_like(clean)
    torch.testing.assert_close(seen[0][0], scheduler.add_noise(clean, noise, torch.tensor([25, 25])))


# Refusals


@pytest.mark.parametrize(
    "options, message",
    [
        ({"resolution": [8, 16]}, "--resolution must be square for CLIP, not 8x16"),
        ({"zero_shot_templates": ["a"]}, "--zero_shot_templates must each have one {}"),
        ({"noisy": True}, "--noisy tunes a trained CLIP: give --pretrained_model_name_or_path"),
        ({"diffusion_model": "x"}, "--diffusion_model is for --noisy, which is not set"),
        ({"pretrained_model_name_or_path": "x"}, "--text_config is for a new network"),
        ({"max_caption_length": 2}, "--max_caption_length must be at least 3"),
        ({"tokenizer_name_or_path": "x", "vocabulary_size": 600}, "--vocabulary_size is for a tokenizer that is made"),
    ],
)
def test_options_that_do_not_fit(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        configuration(tmp_path, **options)


def test_networks_that_do_not_fit(trained, tmp_path):
    def refused(message, **options):
        with pytest.raises(ValueError, match=message):
            clip_recipe(configuration(tmp_path, **options), context()).networks()

    refused("--text_config: CLIPTextConfig has no argument 'depth'", text_config={"depth": 3})
    refused("--vision_config: image_size is 8, as the images and other", vision_config={"image_size": 9})
    refused("--tokenizer_name_or_path: there is no tokenizer in", tokenizer_name_or_path=str(tmp_path))
    refused("sees images of 3 channels and 8x8 pixels, but", **noisy_options(trained), resolution=[16])
    edm = ClassConditionalPipeline(tiny_unet(), EDMEulerScheduler())
    edm.save_pretrained(tmp_path / "edm")
    options = noisy_options(trained, diffusion_model=str(tmp_path / "edm"))
    refused("--diffusion_model: EDMEulerScheduler has no", **options)
    small = AutoTokenizer.from_pretrained(trained)
    small.add_tokens(["picture-book"])
    small.save_pretrained(tmp_path / "words")
    options = noisy_options(trained, noisy=False, tokenizer_name_or_path=str(tmp_path / "words"))
    refused("The tokenizer has .* tokens, but .* knows only", **options)


def test_captions_that_are_cut_are_named(tmp_path, caplog):
    clip_recipe(configuration(tmp_path, max_caption_length=4), context()).networks()
    assert "captions are longer than the text encoder reads (4 tokens)" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_two_processes_train_like_one(tmp_path, loss):
    vision = {"num_attention_heads": 2, "patch_size": 4} if loss == "sigmoid" else OPTIONS["vision_config"]
    options = {**OPTIONS, "text_config": json.dumps(TOWER), "vision_config": json.dumps(vision), "loss": loss}
    one, two = run_on_one_and_two_processes("train_clip", options, tmp_path)
    for first, second in zip(records(one), records(two), strict=True):
        for name in ("loss", "grad_norm"):
            if name in first:
                assert second[name] == pytest.approx(first[name], rel=1e-6, abs=1e-6)
