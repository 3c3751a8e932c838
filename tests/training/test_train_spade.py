"""SPADE trains, resumes and is published; and what does not fit is refused."""

import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext.losses import feature_matching_loss
from diffusers_ext.pipelines import SemanticSynthesisPipeline
from diffusers_ext.pipelines.label_maps import instance_edges, one_hot_labels, read_instance_map
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_spade import SPADEConfig, SPADERecipe
from diffusers_ext.training.translation.semantic_networks import default_upsamplings
from tests.tiny_label_maps import write_label_maps
from tests.training import runs
from tests.training.runs import context, tensors, weights
from tests.waits import waits_of_an_update


LABELS = 5
OPTIONS = {
    "resolution": [16],
    "channels": 1,
    "generator_channels": 2,
    "generator_options": {"modulation_channels": 4},
    "discriminator_channels": 2,
    "conditioning_image_column": "conditioning_image",
    "conditioning_num_labels": LABELS,
    "max_train_steps": 2,
    "train_batch_size": 2,
    "checkpointing_steps": 1,
    "label_column": "none",
}
STYLES = {"latent_dim": 3}
RESUMED = {**STYLES, "lr_scheduler": "constant", "use_ema": True}
MEASURED = {"metrics": ["psnr", "ssim"], "validation_split": "test", "num_evaluation_samples": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_label_maps(tmp_path_factory.mktemp("maps"), 8, LABELS)


def configuration(folder, output_dir, **options) -> SPADEConfig:
    return SPADEConfig(**{**OPTIONS, "train_data_dir": str(folder), "output_dir": str(output_dir), **options})


def recipe(folder, output_dir, **options) -> SPADERecipe:
    return SPADERecipe(configuration(folder, output_dir, **options), context())


def trainer(folder, output_dir, **options):
    return runs.trainer(SPADERecipe, configuration(folder, output_dir, **options))


def trained(folder, output_dir, **options) -> SemanticSynthesisPipeline:
    assert trainer(folder, output_dir, **options).train()
    return SemanticSynthesisPipeline.from_pretrained(output_dir)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A run with all networks, measured at its end, and its pipeline."""
    output_dir = tmp_path_factory.mktemp("whole")
    return output_dir, trained(folder, output_dir, **RESUMED, **MEASURED)


@pytest.mark.parametrize("options", [{"num_scales": 3, "normalization": "instance"}, STYLES], ids=["plain", "styles"])
def test_all_networks_learn_and_wait_for_no_device(folder, tmp_path, options):
    run = trainer(folder, tmp_path, **options)
    before = {name: weights(network) for name, network in run.networks.items()}
    assert not waits_of_an_update(run)
    values = run.reports.read()[0][-1][1]
    assert list(before) == ["generator", "discriminator", *(["style_encoder"] if options is STYLES else [])]
    assert all(not torch.equal(weights(network), before[name]) for name, network in run.networks.items())
    assert {"fooled", "feature_matching", "real_accuracy"} <= values.keys() and ("kl" in values) == (options is STYLES)


def test_the_losses_of_a_step_are_those_of_the_paper(folder, tmp_path):
    """Without an update: recomputed from the networks, which have no batch norm and no spectral norm that moves."""
    job, losses = recipe(folder, tmp_path, **STYLES, normalization="instance", kl_weight=0.5), {}
    networks = {name: network.eval() for name, network in job.networks().items()}
    for name, network in networks.items():
        setattr(job, name, network)
    job.network, job.log = networks.get, lambda **values: None
    job.minimise = lambda name, loss: losses.update({name: loss.detach()})
    batch = next(job.dataset.batches(3, seed=0))
    job.step(batch, Draw(0, torch.device("cpu")).begin(0, range(3)))

    real, segmentation = batch["pixel_values"], one_hot_labels(batch["conditioning_pixel_values"], LABELS)
    posterior = networks["style_encoder"](real).latent_dist
    noise = Draw(0, torch.device("cpu")).begin(0, range(3)).normal(3)
    fake = networks["generator"](segmentation, posterior.mean + posterior.std * noise).sample
    on_real, on_fake = (networks["discriminator"](torch.cat([segmentation, images], 1)) for images in (real, fake))
    scores = [[score.mean(dim=(1, 2, 3)) for score in output.logits] for output in (on_real, on_fake)]
    hinge = [(1 - real).relu() for real in on_real.logits], [(1 + fake).relu() for fake in on_fake.logits]
    hinge = sum(sum(loss.mean(dim=(1, 2, 3)) for loss in losses) / 2 for losses in hinge)
    matching = sum(
        sum((f - r).abs().mean(dim=(1, 2, 3)) for f, r in zip(*layers, strict=True)) / 2
        for layers in zip(on_fake.hidden_states, on_real.hidden_states, strict=True)
    )
    expected = -sum(scores[1]) / 2 + 10 * matching + 0.5 * posterior.kl()
    torch.testing.assert_close(losses["discriminator"], hinge.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["generator", "style_encoder"], expected.detach(), rtol=1e-4, atol=1e-5)


def test_the_truth_gets_no_gradient_from_feature_matching():
    fake, real = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    loss = feature_matching_loss([[fake], [fake, 2 * fake]], [[real], [real, 2 * real]])
    torch.testing.assert_close(loss, 2 * (fake - real).abs().mean(dim=(1, 2, 3)))
    loss.sum().backward()
    assert fake.grad.any() and real.grad is None


def test_a_run_resumes_bit_for_bit(folder, tmp_path, whole):
    trained(folder, tmp_path, **{**RESUMED, "max_train_steps": 1})
    trained(folder, tmp_path, **RESUMED, resume_from_checkpoint="latest")
    expected, parts = tensors(whole[0], 2), tensors(tmp_path, 2)
    assert expected.keys() == parts.keys()
    assert all(torch.equal(parts[name], tensor) for name, tensor in expected.items())
    assert any(name.startswith("style_encoder_ema") for name in expected)
    with pytest.raises(ValueError, match="kl_weight"):
        trained(folder, tmp_path, **RESUMED, kl_weight=1.0, resume_from_checkpoint="latest")


def test_a_run_leaves_measures_a_panel_and_a_pipeline(whole):
    output_dir, pipe = whole
    (row,) = json.loads((output_dir / "metrics.json").read_text())["evaluations"]
    assert {"psnr", "ssim"} <= row.keys()
    assert row["provenance"]["split"] == "test" and row["provenance"]["num_images"] == 6
    with Image.open(output_dir / "samples.png") as panel:  # six rows of a map, four images and the truth
        assert panel.mode == "RGB" and panel.width >= 6 * 64 and panel.height >= 6 * 64
    card = (output_dir / "README.md").read_text()
    assert "pipeline_tag: image-to-image" in card and "pipe(label_map, style_image=photo)" in card
    other = DiffusionPipeline.from_pretrained(output_dir, trust_remote_code=True)
    labels = torch.zeros(16, 16, dtype=torch.long)
    first, second = (
        p(labels, generator=torch.Generator().manual_seed(0), output_type="pt").images for p in (pipe, other)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


OBJECTS = {"instance_map_column": "instance_map"}


@pytest.mark.slow
def test_instance_maps_are_seen_by_all_and_resume_bit_for_bit(folder, tmp_path):
    options = {**OBJECTS, "random_flip": True, "lr_scheduler": "constant"}
    pipe = trained(folder, tmp_path / "whole", **options, **MEASURED)
    trained(folder, tmp_path / "parts", **{**options, "max_train_steps": 1})
    trained(folder, tmp_path / "parts", **options, resume_from_checkpoint="latest")
    expected, parts = tensors(tmp_path / "whole", 2), tensors(tmp_path / "parts", 2)
    assert all(torch.equal(parts[name], tensor) for name, tensor in expected.items())
    assert pipe.generator.config.instance_edges and (tmp_path / "whole" / "samples.png").exists()
    assert "psnr" in json.loads((tmp_path / "whole" / "metrics.json").read_text())["evaluations"][0]
    assert "pipe(label_map, instance_map)" in (tmp_path / "whole" / "README.md").read_text()
    with pytest.raises(ValueError, match="`instance_map` is missing"):
        pipe(torch.zeros(16, 16, dtype=torch.long))


def test_the_edges_of_training_are_those_of_the_pipeline(folder, tmp_path):
    job = recipe(folder, tmp_path, **OBJECTS)
    batch = next(job.dataset.reference_batches(2))
    edges = job.segmentation({name: values / 127.5 - 1 for name, values in batch.items()})[:, LABELS:]
    for index in range(2):
        file = folder / "train" / "objects" / f"{index}.png"
        assert torch.equal(edges[index], instance_edges(read_instance_map("instance_map", str(file))))
    assert edges[:, :, :, 7:9].all()  # where two objects of one label meet
    network = job.networks()["discriminator"].discriminators[0]
    assert network.config.in_channels == LABELS + 1 + 1


def test_instance_maps_in_a_folder_are_found_and_checked(folder, tmp_path):
    objects, plain = tmp_path / "objects", tmp_path / "images"
    shutil.copytree(folder / "train" / "objects", objects)
    shutil.copytree(folder / "train" / "image", plain)
    shutil.copytree(folder / "train" / "map", tmp_path / "maps")
    options = {"train_data_dir": str(plain), "conditioning_image_column": None}
    options |= {"conditioning_image_dir": str(tmp_path / "maps"), "instance_map_dir": str(objects)}
    by_folder, by_column = (
        next(recipe(folder, tmp_path, **own).dataset.reference_batches(8))["instance_pixel_values"]
        for own in (options, OBJECTS)
    )
    assert torch.equal(by_folder, by_column)  # eight names of one digit, which are sorted as they are numbered
    Image.new("L", (16, 24)).save(objects / "3.png")
    with pytest.raises(ValueError, match="this instance map of 24x16 pixels has another aspect ratio than its image"):
        next(recipe(folder, tmp_path, **options).dataset.reference_batches(8))
    (objects / "2.png").unlink()
    with pytest.raises(ValueError, match="1 of 8 images have no instance map of the same name in .*, first '2.png'"):
        recipe(folder, tmp_path, **options)
    with pytest.raises(ValueError, match="--instance_map_column and --instance_map_dir are two ways"):
        configuration(folder, tmp_path, **options, **OBJECTS)
    with pytest.raises(ValueError, match="there is no image column 'objects'"):
        recipe(folder, tmp_path, instance_map_column="objects")


def test_generators_fit_the_images(folder, tmp_path):
    sizes = {(256, 256): 5, (512, 256): 5, (64, 64): 4, (32, 32): 3, (16, 24): 2, (6, 6): 1, (96, 128): 4}
    assert {size: default_upsamplings(size) for size in sizes} == sizes
    assert recipe(folder, tmp_path).networks()["generator"].config.num_upsamplings == 2
    for options, message in (
        ({"generator_options": {"depth": 3}}, "--generator_options: SPADEGenerator has no argument 'depth'"),
        ({"generator_options": {"num_upsamplings": 5}}, "must be a multiple of 32"),
        ({"generator_options": {"latent_dim": 3}}, "latent_dim is None, as the images and other options decide"),
        ({"patch_size": 70}, "--patch_size must be at most 16"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe(folder, tmp_path, **options).networks()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"conditioning_num_labels": None}, "--conditioning_num_labels is required"),
        ({"conditioning_label_maps": "colors", "conditioning_num_labels": None}, "--conditioning_label_maps must be"),
        ({"conditioning_image_column": None}, "--conditioning_label_maps is for conditioning images"),
        ({"kl_weight": 1.0}, "--kl_weight is for --latent_dim, which is not set"),
        ({"num_scales": 1}, "--num_scales must be at least 2"),
        ({"latent_dim": 0}, "--latent_dim must be at least 1"),
        ({"patch_size": 71}, "--patch_size must be one of"),
        ({"discriminator_learning_rate": 0.0}, "--discriminator_learning_rate must be positive"),
        ({"perceptual_network": "x"}, "--perceptual_network is for --perceptual_weight above 0"),
        ({"metrics": ["colour"]}, "--metrics must be among"),
    ],
)
def test_bad_options_are_refused(folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        configuration(folder, tmp_path, **options)
