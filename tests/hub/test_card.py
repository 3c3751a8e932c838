import re

import pytest
import yaml
from huggingface_hub import ModelCard

from diffusers_ext.hub.card import addressed_to, model_card
from tests.hub.hub_server import card_errors


DESCRIPTION = {
    "title": "Digits",
    "pipeline_class": "ClassConditionalPipeline",
    "address": "outputs/digits",
    "task": "Draws handwritten digits.",
    "usage": "images = pipe(class_labels=[3, 'seven']).images",
    "has_samples": True,
    "dataset": "1,797 digits of scikit-learn",
    "dataset_id": "user/digits",
    "license": "apache-2.0",
    "command": "accelerate launch training/train_diffusion.py --hub_token hf_AbCdEfGhIjKlMnOpQrStUv",
    "config": {"learning_rate": 2e-3, "unet": {"channels": [32, 64]}, "hub_token": "secret", "seed": None},
    "metrics": [
        {"guidance_scale": 1.0, "accuracy": 0.96251, "fid": float("nan"), "sampler": "a|b"},
        {"guidance_scale": 2.0, "accuracy": 1.0, "count": 1000},
    ],
    "measures": ("accuracy", "fid"),
    "id2label": {0: "zero", 1: "one"},
    "tags": ("digits",),
}


def test_metadata_is_what_the_hub_reads():
    card = model_card(**DESCRIPTION)
    assert card_errors(card) == []
    data = ModelCard(card).data
    assert data.library_name == "diffusers" and data.license == "apache-2.0" and data.datasets == ["user/digits"]
    assert data.pipeline_tag == "unconditional-image-generation" and data.tags == ["diffusers_ext", "digits"]
    results = {result.metric_name: (result.metric_type, result.metric_value) for result in data.eval_results}
    assert results == {
        "accuracy (guidance scale 1, sampler a\\|b)": ("accuracy", 0.96251),
        "accuracy (guidance scale 2, count 1000)": ("accuracy", 1.0),
    }


def test_the_body_tells_the_whole_story():
    card = model_card(**DESCRIPTION)
    for text in ("# Digits", "Draws handwritten digits.", "![Samples](samples.png)", "1,797 digits", "0 zero, 1 one"):
        assert text in card
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in card.splitlines() if line[:1] == "|"]
    assert rows[0] == ["guidance_scale", "accuracy", "fid", "sampler", "count"]
    assert rows[2:] == [["1", "0.9625", "nan", "a\\|b", ""], ["2", "1", "", "", "1000"]]
    config = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1])
    assert config == {"learning_rate": 2e-3, "unet": {"channels": [32, 64]}, "seed": None}
    assert "secret" not in card and "hf_AbCd" not in card and "--hub_token hf_***" in card


@pytest.mark.parametrize(
    ("pipeline_class", "task"),
    [
        ("AutoencoderPipeline", "unconditional-image-generation"),
        ("CascadePipeline", "unconditional-image-generation"),
        ("ClassConditionalPipeline", "unconditional-image-generation"),
        ("GANPipeline", "unconditional-image-generation"),
        ("ImageTranslationPipeline", "image-to-image"),
        ("PalettePipeline", "image-to-image"),
        ("PipelineOfSomeoneElse", "unconditional-image-generation"),
    ],
)
def test_the_task_is_that_of_the_pipeline_class(pipeline_class, task):
    assert f"pipeline_tag: {task}\n" in model_card(title="x", pipeline_class=pipeline_class, address="a/x")


def test_what_is_not_given_is_left_out():
    card = model_card(title="Digits", pipeline_class="ClassConditionalPipeline", address="user/digits")
    assert card_errors(card) == []
    assert "None" not in card and re.findall("^## (.*)", card, re.MULTILINE) == ["How to load it", "Versions"]


def test_the_loading_code_follows_the_model_and_other_text_stays():
    card = model_card(**{**DESCRIPTION, "task": 'Made with `UNet.from_pretrained("someone/base")`.'})
    published = addressed_to(card, "user/digits")
    assert published.count('from_pretrained("user/digits"') == 2 and "outputs/digits" not in published
    assert 'from_pretrained("someone/base")' in published
    assert addressed_to(published, "user/other") == addressed_to(card, "user/other")
    assert addressed_to('from_pretrained("mine")', "user/digits") == 'from_pretrained("mine")'


def test_parts_of_pipelines_have_loading_code_of_their_own():
    loading = 'pipe = DiffusionPipeline.from_pretrained("someone/base")\npipe.load_lora_weights("{address}")'
    card = addressed_to(model_card(**{**DESCRIPTION, "loading": loading}), "user/lora")
    assert 'pipe.load_lora_weights("user/lora")' in card and "outputs/digits" not in card
    assert 'from_pretrained("someone/base")' in card and "trust_remote_code" not in card


@pytest.mark.parametrize("title", ["Digits: 8x8", "# yes", "'quoted' \"title\"", "ä 数字"])
def test_titles_that_are_special_in_yaml(title):
    card = model_card(title=title, pipeline_class="ClassConditionalPipeline", address="user/digits", license="mit")
    assert card_errors(card) == [] and ModelCard(card).data.model_name == title
