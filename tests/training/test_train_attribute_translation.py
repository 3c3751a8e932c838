"""StarGAN trains, resumes and is published; and what does not fit is refused."""

import json

import pytest
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.pipelines import AttributeTranslationPipeline
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_attribute_translation import (
    AttributeTranslationConfig,
    AttributeTranslationRecipe,
    default_layers,
)
from tests.training import runs
from tests.training.runs import context, tensors, weights
from tests.waits import waits_of_an_update


OPTIONS = {
    "dataset_name": "digits",
    "resolution": [8],
    "channels": 1,
    "generator_channels": 2,
    "generator_options": {"num_blocks": 1},
    "discriminator_channels": 2,
    "discriminator_steps": 2,
    "max_train_steps": 4,
    "train_batch_size": 4,
    "checkpointing_steps": 3,
}


def configuration(output_dir, **options) -> AttributeTranslationConfig:
    return AttributeTranslationConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def recipe(output_dir, **options) -> AttributeTranslationRecipe:
    return AttributeTranslationRecipe(configuration(output_dir, **options), context())


def trainer(output_dir, **options):
    return runs.trainer(AttributeTranslationRecipe, configuration(output_dir, **options))


def test_both_networks_learn_and_wait_for_no_device(tmp_path):
    run = trainer(tmp_path, discriminator_steps=1)
    before = {name: weights(network) for name, network in run.networks.items()}
    assert not waits_of_an_update(run)
    assert list(before) == ["generator", "discriminator"]
    assert all(not torch.equal(weights(network), before[name]) for name, network in run.networks.items())
    assert {"fooled", "cycle", "penalty", "real_classification"} <= run.reports.read()[0][-1][1].keys()


def test_the_losses_of_a_step_are_those_of_the_paper(tmp_path):
    """Without an update: recomputed from the networks."""
    job, losses = recipe(tmp_path, classification_weight=0.5, cycle_weight=3.0, gradient_penalty=2.0), {}
    networks = job.networks()
    for name, network in networks.items():
        setattr(job, name, network)
    job.network, job.log = networks.get, lambda **values: None
    job.minimise = lambda name, loss: losses.update({name: loss.detach()})
    batch = next(job.dataset.batches(3, seed=0))
    draw = Draw(0, torch.device("cpu"))
    job.step(batch, draw.begin(0, range(3)))
    assert list(losses) == ["discriminator"]
    job.step(batch, draw.begin(1, range(3)))

    real, domains, draw = batch["pixel_values"], batch["class_labels"], Draw(0, torch.device("cpu")).begin(1, range(3))
    targets, mixture = draw.integers(10), draw.uniform().view(3, 1, 1, 1)
    fake = networks["generator"](real, F.one_hot(targets, 10)).sample
    back = networks["generator"](fake, F.one_hot(domains, 10)).sample
    on_real, on_fake = (networks["discriminator"](images) for images in (real, fake))
    scores = [output.logits.mean(dim=(1, 2, 3)) for output in (on_real, on_fake)]
    mixed = (mixture * real + (1 - mixture) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(networks["discriminator"](mixed).logits.sum(), mixed)
    penalty = (gradient.flatten(1).norm(dim=1) - 1) ** 2
    surprises = [
        -output.domain_logits.softmax(dim=1).gather(1, labels[:, None])[:, 0].log()
        for output, labels in ((on_real, domains), (on_fake, targets))
    ]
    expected = {
        "discriminator": scores[1] - scores[0] + 0.5 * surprises[0] + 2 * penalty,
        "generator": -scores[1] + 0.5 * surprises[1] + 3 * (back - real).abs().mean(dim=(1, 2, 3)),
    }
    assert losses.keys() == expected.keys()
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss.detach(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A measured run of four steps with a checkpoint after the third, before the generator's turn."""
    output_dir = tmp_path_factory.mktemp("whole")
    measured = {"feature_extractor": "digits", "metrics": ["accuracy"]}
    shown = {"validation_split": "test", "num_evaluation_samples": 40}
    assert trainer(output_dir, **measured, **shown, use_ema=True, lr_scheduler="constant").train()
    return output_dir


def test_a_run_resumes_bit_for_bit(tmp_path, whole):
    options = {"use_ema": True, "lr_scheduler": "constant"}
    assert trainer(tmp_path, **options, max_train_steps=3).train()
    assert trainer(tmp_path, **options, resume_from_checkpoint="latest").train()
    expected, parts = tensors(whole, 4), tensors(tmp_path, 4)
    assert expected.keys() == parts.keys() and any(name.startswith("generator_ema") for name in expected)
    assert all(torch.equal(parts[name], tensor) for name, tensor in expected.items())
    with pytest.raises(ValueError, match="cycle_weight"):
        trainer(tmp_path, **options, cycle_weight=1.0, resume_from_checkpoint="latest").train()


def test_a_run_leaves_measures_a_panel_and_a_pipeline(whole):
    rows = json.loads((whole / "metrics.json").read_text())["evaluations"]
    assert len(rows) == 10 and {row["task"] for row in rows} > {"to zero", "to nine"}
    assert all(0 <= row["accuracy"] <= 1 and row["provenance"]["split"] == "test" for row in rows)
    # Each domain is measured on the images of the others.
    assert sum(row["provenance"]["num_real"] for row in rows) == 40
    assert all(row["provenance"]["num_real"] + row["provenance"]["num_generated"] == 40 for row in rows)
    with Image.open(whole / "samples.png") as panel:  # eight rows of an image and ten translations
        assert panel.width > 11 * 64 and panel.height > 8 * 64
    card = (whole / "README.md").read_text()
    assert "target='zero'" in card and "StarGAN" in card
    pipe = AttributeTranslationPipeline.from_pretrained(whole)
    other = DiffusionPipeline.from_pretrained(whole, trust_remote_code=True)
    image = torch.rand(1, 19, 33, generator=torch.Generator().manual_seed(0))
    first, second = (p(image, target="nine", output_type="pt").images for p in (pipe, other))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


def test_a_panel_leaves_out_domains_without_images(tmp_path):
    assert trainer(tmp_path, validation_split="test", num_evaluation_samples=3, max_train_steps=1).train()
    with Image.open(tmp_path / "samples.png") as panel:  # three rows
        assert panel.width > 11 * 64 and 3 * 64 < panel.height < 5 * 64


def test_discriminators_fit_the_images(tmp_path):
    sizes = {(256, 256): 6, (128, 128): 6, (64, 96): 5, (32, 32): 4, (8, 8): 2, (2, 2): 1}
    assert {size: default_layers(size) for size in sizes} == sizes
    for options, message in (
        ({"generator_options": {"depth": 3}}, "--generator_options: StarGANGenerator has no argument 'depth'"),
        ({"discriminator_options": {"num_layers": 4}}, "--discriminator_options: .* must be at least 16"),
        ({"resolution": [10]}, "--resolution must be a multiple of 4, and at least 8"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe(tmp_path, **options).networks()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label_column": "none"}, "--label_column none leaves no domains"),
        ({"gradient_penalty": 0.0}, "--gradient_penalty must be positive"),
        ({"cycle_weight": -1.0}, "--cycle_weight must be at least 0"),
        ({"metrics": ["fid"]}, "--metrics needs --feature_extractor"),
        ({"discriminator_steps": 0}, "--discriminator_steps must be at least 1"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        configuration(tmp_path, **options)


def test_images_of_one_domain_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "images" / "0.png")
    options = {"dataset_name": None, "train_data_dir": str(tmp_path / "images")}
    with pytest.raises(ValueError, match="between two classes of images or more, but this data set has no classes"):
        recipe(tmp_path / "run", **options)


@pytest.mark.slow
def test_two_processes_follow_one(tmp_path):
    options, command = {**OPTIONS, "adam_epsilon": 1e-3, "learning_rate": 1e-5}, "train_attribute_translation"
    expected, kept = runs.launch(command, tmp_path / "one", 1, **{**options, "train_batch_size": 4})
    found, own = runs.launch(command, tmp_path / "two", 2, **{**options, "train_batch_size": 2})
    for line, other in zip(found, expected, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            tolerance = 2e-2 if name.endswith("grad_norm") else 1e-4
            assert value == pytest.approx(other[name], rel=tolerance, abs=1e-5), (line["step"], name)
    for name, tensor in kept.items():
        torch.testing.assert_close(own[name].float(), tensor.float(), rtol=1e-3, atol=1e-3, msg=name)
