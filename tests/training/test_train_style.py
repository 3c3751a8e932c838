"""Networks of one style, and AdaIN, train, resume and are published; and what does not fit is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from diffusers_ext.losses import map_loss, total_variation
from diffusers_ext.losses.style_features import load_style_features, normalize_activations
from diffusers_ext.models import VGG, AdaINStyleNet
from diffusers_ext.pipelines import StyleTransferPipeline
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.style.networks import usual_layers
from diffusers_ext.training.train_style import StyleConfig, style_recipe
from tests.training import runs
from tests.training.runs import context, run_in_processes, steps, tensors, weights
from tests.waits import waits_of_an_update


OPTIONS = {
    "resolution": [16],
    "max_train_steps": 4,
    "train_batch_size": 4,
    "checkpointing_steps": 2,
    "num_evaluation_samples": 5,
}
FAST = {"style_image": "style.png", "generator_options": {"block_out_channels": [4, 4, 6], "num_blocks": 1}}
ANY = {"style_data_dir": "styles"}
BOTH = pytest.mark.parametrize("kind", [FAST, ANY], ids=["one style", "any style"])


def write_pictures(folder: Path, count: int) -> None:
    rng = np.random.default_rng(count)
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(rng.integers(0, 256, (18, 20, 3), dtype=np.uint8)).save(folder / f"{index}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("style")
    write_pictures(folder / "photos", 8)
    write_pictures(folder / "styles", 5)
    Image.open(folder / "styles" / "0.png").save(folder / "style.png")
    torch.manual_seed(0)
    VGG((4, 4, 6, 6), (2, 2, 4, 1), padding_mode="reflect").save_pretrained(folder / "vgg")
    return folder


def configuration(folder: Path, output_dir, **options) -> StyleConfig:
    options = {**OPTIONS, "train_data_dir": "photos", "feature_network": "vgg", **options}
    for name in ("train_data_dir", "feature_network", "style_image", "style_data_dir"):
        if options.get(name) is not None:
            options[name] = str(folder / options[name])
    return StyleConfig(**options, output_dir=str(output_dir))


def trainer(folder, output_dir, **options):
    return runs.trainer(style_recipe, configuration(folder, output_dir, **options))


@BOTH
def test_what_is_trained_learns_and_the_encoder_stays(folder, tmp_path, kind):
    run = trainer(folder, tmp_path, **kind)
    network = run.networks["generator"]
    before, encoder = weights(network), [p.clone() for p in network.parameters() if not p.requires_grad]
    steps(run, 2)
    assert not torch.equal(weights(network), before)
    kept = [p for p in network.parameters() if not p.requires_grad]
    assert len(kept) == (20 if kind is ANY else 0) and all(map(torch.equal, kept, encoder))


@BOTH
def test_an_update_waits_for_no_device(folder, tmp_path, kind):
    assert not waits_of_an_update(trainer(folder, tmp_path, **kind))


@pytest.mark.parametrize("kind", [FAST, pytest.param(ANY, marks=pytest.mark.slow)], ids=["one style", "any style"])
def test_a_resumed_run_is_an_uninterrupted_one_and_loads_in_both_ways(folder, tmp_path, kind):
    assert trainer(folder, tmp_path / "whole", **kind).train()
    assert trainer(folder, tmp_path / "part", **kind, max_train_steps=2).train()
    assert trainer(folder, tmp_path / "part", **kind, resume_from_checkpoint="latest").train()
    whole, resumed = (tensors(tmp_path / name, 4) for name in ("whole", "part"))
    assert whole.keys() == resumed.keys() and all(torch.equal(resumed[key], whole[key]) for key in whole)
    with pytest.raises(ValueError, match="variation_weight"):
        trainer(folder, tmp_path / "part", **kind, variation_weight=1.0, resume_from_checkpoint="latest")

    arguments = [torch.rand(1, 3, 20, 18), *([torch.rand(1, 3, 16, 16)] if kind is ANY else [])]
    installed = StyleTransferPipeline.from_pretrained(tmp_path / "whole")
    remote = DiffusionPipeline.from_pretrained(tmp_path / "whole", trust_remote_code=True)
    outputs = [pipe(*arguments, output_type="pt").images for pipe in (installed, remote)]
    assert torch.equal(*outputs) and outputs[0].shape == (1, 3, 20, 18)

    rows = json.loads((tmp_path / "whole" / "metrics.json").read_text())["evaluations"]
    assert [row["image"] for row in rows] == ["painted", "content", "style"]
    assert rows[1]["content_distance"] == 0 and rows[2]["gram_distance"] < 1e-12 < rows[0]["gram_distance"]
    assert all(row["provenance"]["feature_network"] == "vgg" for row in rows)
    with Image.open(tmp_path / "whole" / "samples.png") as panel:
        assert panel.width > 3 * 64 and panel.height > 5 * 64
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "of features of vgg" in card and "pipeline_tag: image-to-image" in card


def test_the_loss_of_one_style_is_that_of_the_paper(folder, tmp_path):
    options = {"content_weight": 2.0, "style_weight": 3.0, "variation_weight": 0.5, "content_layer": "relu3_1"}
    job = style_recipe(configuration(folder, tmp_path, **FAST, **options, style_layers=["relu1_1"]), context())
    network, found = job.networks()["generator"].eval(), {}
    job.generator, job.log = network, lambda **values: None
    job.minimise = lambda name, loss: found.update({name: loss.detach()})
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        job.step({"pixel_values": images * 2 - 1}, Draw(0, torch.device("cpu")))
        painted, vgg = network(images).sample, load_style_features(str(folder / "vgg"))
        own, wanted, style = (dict(zip(vgg.layers, vgg.encode(x), strict=True)) for x in (painted, images, job.style))
    grams = [maps["relu1_1"].flatten(2) for maps in (own, style)]
    grams = [rows @ rows.mT / rows[0].numel() for rows in grams]
    expected = 2 * map_loss(own["relu3_1"], wanted["relu3_1"]) + 3 * (grams[0] - grams[1]).square().mean(dim=(1, 2))
    torch.testing.assert_close(found["generator"], expected + 0.5 * total_variation(painted))


def test_the_encoder_of_adain_is_the_vgg_with_scaled_channels(folder, tmp_path):
    job = style_recipe(configuration(folder, tmp_path, **ANY), context())
    network, vgg = job.networks()["generator"], load_style_features(str(folder / "vgg"))
    images = next(job.dataset.source.reference_batches(32))["pixel_values"] / 255
    maps = dict(zip(vgg.layers, vgg.encode(images), strict=True))
    for name, features in zip(network.layers, network.encode(images), strict=True):
        squares = features.square().mean(dim=(0, 2, 3))
        assert all(square == 0 or abs(square - 1) < 1e-3 for square in squares.tolist())
        scale = maps[name].square().mean(dim=(0, 2, 3), keepdim=True).sqrt()
        torch.testing.assert_close(features * scale, maps[name], rtol=1e-4, atol=1e-5)


def test_normalized_channels_give_the_same_classes():
    torch.manual_seed(0)
    network, images = VGG((4, 6), (1, 2), num_classes=3), torch.rand(4, 3, 8, 8)
    before = network(images).logits
    normalize_activations(network, images)
    torch.testing.assert_close(network(images).logits, before)


@pytest.mark.slow
def test_further_training_starts_from_a_pipeline(folder, tmp_path):
    start = tmp_path / "start"
    StyleTransferPipeline(AdaINStyleNet((4, 4, 4, 4))).save_pretrained(start)
    options = {"feature_network": None, "pretrained_model_name_or_path": str(start)}
    assert trainer(folder, tmp_path / "on", **ANY, **options, max_train_steps=1).train()
    assert f"the encoder of {start}" in (tmp_path / "on" / "metrics.json").read_text()
    options["feature_network"] = "vgg"
    with pytest.raises(ValueError, match="must have a FastStyleNet, but .* has a AdaINStyleNet"):
        trainer(folder, tmp_path / "other", style_image="style.png", **options)


def test_any_image_model_sees_one_style(folder, tmp_path):
    """Its stages are the layers, and gradients reach the images; AdaIN needs a VGG."""
    architecture = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic", architectures=["x"]
    )
    ResNetForImageClassification(architecture).save_pretrained(tmp_path / "resnet")
    statistics = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    ConvNextImageProcessor(size={"shortest_edge": 16}, **statistics).save_pretrained(tmp_path / "resnet")
    features = load_style_features(str(tmp_path / "resnet"))
    assert usual_layers(features.layers) == (features.layers[1], list(features.layers))
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    sum(layer.square().sum() for layer in features.encode(images)).backward()
    assert images.grad.abs().sum() > 0
    options = {"feature_network": str(tmp_path / "resnet")}
    steps(trainer(folder, tmp_path / "out", **FAST, **options), 1)
    with pytest.raises(ValueError, match="--feature_network must be a VGG for AdaIN"):
        trainer(folder, tmp_path / "out", **ANY, **options)


def test_usual_layers_are_those_of_johnson():
    with torch.device("meta"):
        layers = VGG(layers_per_block=(2, 2, 3, 3, 3)).layers
    assert usual_layers(layers) == ("relu2_2", ["relu1_2", "relu2_2", "relu3_3", "relu4_3"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "--style_image, for one style, or --style_data_dir, for any, is required"),
        ({**FAST, **ANY}, "is required, and not both"),
        ({**FAST, "feature_network": None}, "--feature_network is required"),
        ({**FAST, "channels": 1}, "--channels must be 3"),
        ({**FAST, "resolution": [18]}, "--resolution must be a multiple of 4"),
        ({**ANY, "resolution": [20]}, "--resolution must be a multiple of 8"),
        ({**ANY, "style_size": 20}, "--style_size is for --style_image, which is not set"),
        ({**FAST, "style_split": "test"}, "--style_split is for --style_data_dir"),
        ({**FAST, "style_weight": 0.0}, "--style_weight must be above 0"),
        ({**FAST, "metrics": ["fid"]}, "--metrics are not for style transfer"),
        ({**FAST, "feature_extractor": "digits"}, "are not for style transfer"),
        ({**FAST, "style_size": 1}, "--style_image, by --style_size, is seen in 1x1 pixels, but vgg needs sides of"),
        ({**FAST, "style_layers": ["relu9_9"]}, "must be among the layers of vgg, relu1_1"),
        ({**FAST, "feature_network": "nothing"}, "--feature_network .* is neither a VGG nor an image model"),
        ({**FAST, "style_image": "vgg/config.json"}, "--style_image .* can't be read: not an image"),
        ({**FAST, "generator_options": {"depth": 3}}, "--generator_options: FastStyleNet has no argument 'depth'"),
    ],
)
def test_bad_options_are_refused(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(folder, tmp_path, **options)


def test_a_vgg_of_other_levels_is_refused_for_adain(folder, tmp_path):
    VGG((4, 4, 4, 4), (2, 2, 3, 3)).save_pretrained(tmp_path / "vgg16")
    with pytest.raises(ValueError, match="with 2, 2 and 4 layers .* vgg16 has levels of 2, 2, 3"):
        trainer(folder, tmp_path / "out", **ANY, feature_network=str(tmp_path / "vgg16"))


@pytest.mark.slow
@BOTH
def test_two_processes_follow_one(folder, tmp_path, kind):
    found = []
    for processes in (1, 2):
        output_dir = tmp_path / str(processes)
        plain = {"adam_epsilon": 1e-3, "learning_rate": 1e-5, "train_batch_size": 4 // processes}
        config = configuration(folder, output_dir, **kind, **plain)
        output_dir.mkdir()
        (output_dir.parent / f"{processes}.yaml").write_text(config.to_yaml())
        run_in_processes("train_style", processes, {"config": tmp_path / f"{processes}.yaml"})
        found.append(tensors(output_dir, 4))
    assert found[0].keys() == found[1].keys()
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name].float(), tensor.float(), rtol=1e-3, atol=1e-4, msg=name)
