"""Pix2pix with mode seeking and BicycleGAN train, resume and are published; and what does not fit is refused."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.pipelines import ImageTranslationPipeline
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_multimodal_translation import (
    MultimodalConfig,
    MultimodalRecipe,
    multimodal_translation_recipe,
)
from tests.training import runs
from tests.training.runs import context, steps, tensors, weights
from tests.waits import waits_of_an_update


OPTIONS = {
    "dataset_name": "digits",
    "inputs": "edges",
    "resolution": [16],
    "channels": 1,
    "generator_channels": 4,
    "discriminator_channels": 4,
    "latent_dim": 3,
    "max_train_steps": 4,
    "train_batch_size": 4,
    "checkpointing_steps": 2,
}
MSGAN, BICYCLE = {"method": "msgan"}, {"method": "bicyclegan"}
METHODS = pytest.mark.parametrize("options", [MSGAN, BICYCLE], ids=["msgan", "bicyclegan"])


def configuration(output_dir, **options) -> MultimodalConfig:
    return MultimodalConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def recipe(output_dir, **options) -> MultimodalRecipe:
    return multimodal_translation_recipe(configuration(output_dir, **options), context())


def trainer(output_dir, **options):
    return runs.trainer(multimodal_translation_recipe, configuration(output_dir, **options))


def trained(output_dir, **options) -> ImageTranslationPipeline:
    assert trainer(output_dir, **options).train()
    return ImageTranslationPipeline.from_pretrained(output_dir)


@METHODS
def test_all_networks_learn_and_an_update_waits_for_no_device(tmp_path, options):
    run = trainer(tmp_path, **options)
    before = {name: weights(network) for name, network in run.networks.items()}
    (values,) = steps(run, 1)
    assert len(before) == (2 if options is MSGAN else 4)
    assert all(not torch.equal(weights(network), before[name]) for name, network in run.networks.items())
    assert {"l1", "mode_seeking"} <= values.keys() if options is MSGAN else {"kl", "latent_error"} <= values.keys()
    assert not waits_of_an_update(trainer(tmp_path / "counted", **options))


def losses_of_a_step(job: MultimodalRecipe, batch: dict) -> tuple[dict, dict]:
    """The networks, and the losses of a step that updates nothing."""
    losses, networks = {}, {name: network.eval() for name, network in job.networks().items()}
    for name, network in networks.items():
        setattr(job, name, network)
    job.network, job.log = networks.get, lambda **values: None

    def minimise(name, loss):
        losses[name] = loss.detach()

    job.minimise = minimise
    job.step(batch, Draw(0, torch.device("cpu")).begin(0, range(3)))
    return networks, losses


def batch_of_three() -> tuple[dict, torch.Tensor, torch.Tensor]:
    inputs, target = torch.rand(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return {"pixel_values": target, "conditioning_pixel_values": inputs}, inputs, target


def mean(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(1).mean(dim=1)


def test_the_losses_of_msgan_are_those_of_the_paper(tmp_path):
    job = recipe(tmp_path, **MSGAN, normalization="none", mode_seeking_weight=2.0)
    job.make_inputs = None
    batch, inputs, target = batch_of_three()
    networks, losses = losses_of_a_step(job, batch)
    draw = Draw(0, torch.device("cpu")).begin(0, range(3))
    latents = [draw.normal(3), draw.normal(3)]
    outputs = [networks["generator"](inputs, own).sample for own in latents]
    scores = [networks["discriminator"](torch.cat([inputs, image], 1)).logits for image in (target, *outputs)]
    ratio = mean((outputs[0] - outputs[1]).abs()) / mean((latents[0] - latents[1]).abs())
    expected = mean((scores[1] - 1) ** 2) + mean((scores[2] - 1) ** 2) + 10 * mean((outputs[0] - target).abs())
    torch.testing.assert_close(losses["generator"], (expected + 2 / (ratio + 1e-5)).detach(), rtol=1e-4, atol=1e-5)
    of_fake = torch.cat([mean(scores[1] ** 2), mean(scores[2] ** 2)])
    expected = (mean((scores[0] - 1) ** 2).repeat(2) + of_fake) / 2
    torch.testing.assert_close(losses["discriminator"].sum(), expected.sum().detach(), rtol=1e-4, atol=1e-5)


def test_the_losses_of_bicyclegan_are_those_of_the_paper(tmp_path):
    job = recipe(tmp_path, **BICYCLE, normalization="none", kl_weight=0.2)
    job.make_inputs = None
    batch, inputs, target = batch_of_three()
    networks, losses = losses_of_a_step(job, batch)
    draw = Draw(0, torch.device("cpu")).begin(0, range(3))
    encoder = networks["style_encoder"]
    posterior = encoder(target).latent_dist
    encoded = posterior.mean + posterior.std * draw.normal(3)
    latents = draw.normal(3)
    of_encoded, of_latents = (networks["generator"](inputs, own).sample for own in (encoded, latents))
    fooled = mean((networks["encoded_discriminator"](of_encoded).logits - 1) ** 2)
    fooled = fooled + mean((networks["random_discriminator"](of_latents).logits - 1) ** 2)
    expected = fooled + 10 * mean((of_encoded - target).abs()) + 0.2 * posterior.kl()
    torch.testing.assert_close(losses["generator", "style_encoder"], expected.detach(), rtol=1e-4, atol=1e-5)
    error = mean((encoder(of_latents).latent_dist.mean - latents).abs())
    torch.testing.assert_close(losses["generator"], 0.5 * error.detach(), rtol=1e-4, atol=1e-5)


@METHODS
def test_a_run_resumes_bit_for_bit(tmp_path, options):
    options = {**options, "lr_scheduler": "constant", "use_ema": True}
    trained(tmp_path / "whole", **options)
    trained(tmp_path / "parts", **{**options, "max_train_steps": 2})
    trained(tmp_path / "parts", **options, resume_from_checkpoint="latest")
    whole, parts = tensors(tmp_path / "whole", 4), tensors(tmp_path / "parts", 4)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    with pytest.raises(ValueError, match="l1_weight"):
        trained(tmp_path / "parts", **options, l1_weight=1.0, resume_from_checkpoint="latest")


def test_a_run_leaves_measures_a_panel_and_a_pipeline(tmp_path):
    measured = {"feature_extractor": "digits", "metrics": ["psnr", "diversity", "fid", "accuracy"]}
    shown = {"validation_split": "test", "num_evaluation_samples": 40}
    pipe = trained(tmp_path, **BICYCLE, **measured, **shown)
    (row,) = json.loads((tmp_path / "metrics.json").read_text())["evaluations"]
    assert row["perceptual_distance_diversity"] > 0 and {"psnr", "fid", "accuracy"} <= row.keys()
    assert row["provenance"]["num_restorations"] == 4
    with Image.open(tmp_path / "samples.png") as panel:  # six rows of input, four outputs and truth
        assert panel.width > 6 * 64 and panel.height > 6 * 64
    card = (tmp_path / "README.md").read_text()
    assert "num_images_per_input=4" in card and "style_image=photo" in card and "BicycleGAN" in card
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    image, style = torch.rand(2, 1, 19, 33), torch.rand(1, 20, 20)
    first, second = (
        p(image, style_image=style, generator=torch.Generator().manual_seed(0), output_type="pt").images
        for p in (pipe, other)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


@pytest.mark.slow
@METHODS
def test_two_processes_follow_one(tmp_path, options):
    options = {**options, "normalization": "instance", "adam_epsilon": 1e-3, "learning_rate": 1e-5}
    options, command = {**OPTIONS, **options}, "train_multimodal_translation"
    expected, kept = runs.launch(command, tmp_path / "one", 1, **{**options, "train_batch_size": 4})
    found, own = runs.launch(command, tmp_path / "two", 2, **{**options, "train_batch_size": 2})
    for line, other in zip(found, expected, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            tolerance = 2e-2 if name.endswith("grad_norm") else 1e-4
            assert value == pytest.approx(other[name], rel=tolerance, abs=1e-5), (line["step"], name)
    for name, tensor in kept.items():
        torch.testing.assert_close(own[name].float(), tensor.float(), rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"inputs": None}, "learns from pairs: name the inputs by --conditioning_image_column"),
        ({"latent_dim": 0}, "--latent_dim must be at least 1"),
        ({"patch_size": 71}, "--patch_size must be one of"),
        ({**BICYCLE, "mode_seeking_weight": 2.0}, "--mode_seeking_weight is for --method msgan, not bicyclegan"),
        ({"kl_weight": 1.0}, "--kl_weight is for --method bicyclegan, not msgan"),
        ({"mode_seeking_weight": -1.0}, "--mode_seeking_weight must be at least 0"),
        ({"metrics": ["accuracy"], "label_column": "none", "feature_extractor": "digits"}, "needs images with labels"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, **options)
