"""Pix2pix, CycleGAN and DualGAN train, resume and are published; and what does not fit is refused."""

import json
import re

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

from diffusers_ext import ImageTranslationPipeline
from diffusers_ext.data.corruptions.outlines import outlines
from diffusers_ext.losses.discriminator_outputs import accuracies, judge_both
from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_translation import translation_recipe
from diffusers_ext.training.translation.image_pool import ImagePool
from diffusers_ext.training.translation.networks import default_unet
from diffusers_ext.training.translation.translation_recipe import TranslationConfig, TranslationRecipe
from tests.data.drawing import draw
from tests.training import runs
from tests.training.runs import context, steps, tensors, weights
from tests.waits import waits_of_an_update


OPTIONS = {
    "dataset_name": "digits",
    "resolution": [16],
    "channels": 1,
    "generator_channels": 4,
    "discriminator_channels": 4,
    "max_train_steps": 4,
    "train_batch_size": 4,
    "checkpointing_steps": 2,
}
PAIRS = {"method": "pix2pix", "inputs": "edges"}
CYCLE = {"method": "cyclegan", "domains": ["three", "eight"], "pool_size": 6, "generator_options": {"num_blocks": 1}}
DUAL = {"method": "dualgan", "domains": ["three", "eight"]}


def configuration(output_dir, **options) -> TranslationConfig:
    return TranslationConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def recipe(output_dir, **options) -> TranslationRecipe:
    return translation_recipe(configuration(output_dir, **options), context())


def trainer(output_dir, **options) -> Trainer:
    return runs.trainer(translation_recipe, configuration(output_dir, **options))


def trained(output_dir, **options) -> ImageTranslationPipeline:
    """A short run, and its pipeline as it is published."""
    assert trainer(output_dir, **options).train()
    return ImageTranslationPipeline.from_pretrained(output_dir)


VARIANTS = {
    "pix2pix": PAIRS,
    "instance norm, pixels": {**PAIRS, "normalization": "instance", "patch_size": 1, "adversarial_loss": "hinge"},
    "residual, scales": {**PAIRS, "generator": "resnet", "num_scales": 2, "normalization": "none"},
    "unconditional, spectral": {**PAIRS, "conditional_discriminator": False, "spectral_norm": True},
    "penalty, pool": {**PAIRS, "adversarial_loss": "wasserstein", "gradient_penalty": 10.0, "pool_size": 5},
    "cyclegan": {**CYCLE, "identity_weight": 5.0},
    "cyclegan of u-nets": {**CYCLE, "generator": "unet", "generator_options": {}, "direction": "BtoA"},
    "dualgan": {**DUAL, "discriminator_steps": 2},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_all_networks_learn(tmp_path, options):
    run = trainer(tmp_path, **options)
    count = r"\d+ and \d+" if "domains" in options else r"\d+"
    assert re.match(rf"{count} images, ", run.recipe.describe_data())
    before = {name: weights(network) for name, network in run.networks.items()}
    _, values = steps(run, 2)
    assert len(before) == (2 if options["method"] == "pix2pix" else 4)
    for name, network in run.networks.items():
        assert not torch.equal(weights(network), before[name])
        assert values[f"{name}_grad_norm"] > 0
    assert ("l1" in values) == (options["method"] == "pix2pix")
    if options["method"] == "dualgan":
        assert all(weights(run.networks[name]).abs().max() <= 0.01 for name in run.networks if "discrim" in name)


def test_weights_of_zero_leave_out_a_loss(tmp_path):
    only_l1 = trainer(tmp_path / "l1", **PAIRS, adversarial_weight=0.0)
    assert list(only_l1.networks) == ["generator"]
    (values,) = steps(only_l1, 1)
    assert values["loss"] == pytest.approx(100 * values["l1"], rel=1e-5)
    only_cgan = trainer(tmp_path / "cgan", **PAIRS, l1_weight=0.0)
    (values,) = steps(only_cgan, 1)
    assert values["generator_loss"] == pytest.approx(values["discriminator_fooled"], rel=1e-5)


def test_the_losses_of_a_step_are_those_of_the_paper(tmp_path):
    """Pix2pix without an update: recomputed from the networks."""
    job, losses = recipe(tmp_path, **PAIRS, normalization="none"), {}
    networks = job.networks()
    for name, network in networks.items():
        setattr(job, name, network)
    job.network, job.log = networks.get, lambda **values: None
    job.minimise = lambda name, loss: losses.update({name: loss.detach()})
    clean = torch.rand(3, 1, 16, 16) * 2 - 1
    job.step({"pixel_values": clean}, Draw(0, torch.device("cpu")).begin(0, range(3)))

    inputs = outlines(clean, None).conditioning_image
    output = networks["generator"](inputs).sample
    real, fake = (networks["discriminator"](torch.cat([inputs, i], 1)).logits.sigmoid() for i in (clean, output))
    per_image = [
        -(real.log() + (1 - fake).log()).mean(dim=(1, 2, 3)) / 2,
        -fake.log().mean(dim=(1, 2, 3)) + 100 * (output - clean).abs().mean(dim=(1, 2, 3)),
    ]
    for name, expected in zip(("discriminator", "generator"), per_image, strict=True):
        torch.testing.assert_close(losses[name], expected.detach(), rtol=1e-4, atol=1e-5)


def test_one_pass_gives_the_outputs_of_two(tmp_path):
    job = recipe(tmp_path, **PAIRS, normalization="instance", num_scales=2)
    discriminator = job.networks()["discriminator"]
    real, fake = torch.randn(2, 3, 2, 16, 16)
    together = judge_both(discriminator, real, fake)
    for output, images in zip(together, (real, fake), strict=True):
        for scores, expected in zip(output.logits, discriminator(images).logits, strict=True):
            torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)


def test_accuracy_is_of_all_scales_and_has_the_boundary_of_the_loss():
    real, fake = [torch.tensor([[0.2]]), torch.tensor([[0.7, -1.0]])], torch.tensor([0.3, -0.1])
    (real_rate, fake_rate) = accuracies("hinge", real, fake).values()
    assert real_rate.tolist() == [True, True, False] and fake_rate.tolist() == [False, True]
    (real_rate, fake_rate) = accuracies("least_squares", real, fake).values()
    assert real_rate.tolist() == [False, True, False] and fake_rate.tolist() == [True, True]
    assert accuracies("wasserstein", real, fake) == {}


def test_a_perceptual_distance_counts(tmp_path):
    network = str(tmp_path / "network")
    ResNetModel(ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1])).save_pretrained(network)
    ConvNextImageProcessor(size={"shortest_edge": 16}, image_mean=[0.5], image_std=[0.5]).save_pretrained(network)
    options = {**PAIRS, "adversarial_weight": 0.0, "perceptual_weight": 3.0, "perceptual_network": network}
    run = trainer(tmp_path / "run", **options)
    (values,) = steps(run, 1)
    assert values["perceptual"] > 0
    assert values["loss"] == pytest.approx(100 * values["l1"] + 3 * values["perceptual"], rel=1e-5)
    with pytest.raises(ValueError, match="layers of the feature extractor digits cannot be compared"):
        recipe(tmp_path / "other", **{**options, "perceptual_network": "digits"})


def test_generators_keep_no_activations_whatever_their_discriminators_can(tmp_path):
    runs = [trainer(tmp_path / str(saving), **PAIRS, gradient_checkpointing=saving) for saving in (False, True)]
    (expected,), (found,) = (steps(run, 1) for run in runs)
    assert runs[1].networks["generator"].gradient_checkpointing
    assert found["generator_grad_norm"] == pytest.approx(expected["generator_grad_norm"], rel=1e-5)


def test_the_learning_rate_stays_and_then_falls_to_zero(tmp_path):
    options = {**PAIRS, "adversarial_weight": 0.0, "lr_scheduler": "warmup_stable_decay", "max_train_steps": 4}
    rate = TranslationConfig(**OPTIONS, **PAIRS).learning_rate
    run = trainer(tmp_path, **options)
    rates = [values["lr"] / rate for values in steps(run, 4)]
    assert rates == pytest.approx([1, 1, 1, 0.5]) and run.lr_schedulers["generator"].get_last_lr() == [0.0]
    rates = [values["lr"] / rate for values in steps(trainer(tmp_path, **options, lr_decay_steps=4), 4)]
    assert rates == pytest.approx([1, 0.75, 0.5, 0.25])
    with pytest.raises(ValueError, match="lr_warmup_steps 3 and --lr_decay_steps 2 together must be at most 4"):
        trainer(tmp_path, **options, lr_warmup_steps=3)


def test_jitter_is_for_the_training_alone(tmp_path):
    job = recipe(tmp_path, **PAIRS, load_size=[20], random_flip=True)
    batch = next(job.dataset.batches(4, seed=0))
    assert batch["pixel_values"].shape == (4, 1, 16, 16)
    whole = recipe(tmp_path, **PAIRS)
    (shown,), (expected,) = (next(iter(run.evaluator.images("B")))[:1] for run in (job, whole))
    assert torch.equal(shown, expected) and job.evaluator.dataset.fingerprint() == job.dataset.fingerprint()


# The history of images


def draws(step, count):
    return Draw(0, torch.device("cpu")).begin(step, range(count))


def test_the_pool_is_that_of_cyclegan_for_single_images():
    """The original's algorithm, image by image, with the same decisions."""
    pool, kept, shown_old = ImagePool(5), [], 0
    for step in range(200):
        image = torch.full((1, 1, 2, 2), float(step))
        shown, places = pool.query(image, draws(step, 1))
        pool.update(image, places)
        chance = draws(step, 1)
        swaps, place = chance.uniform().item() < 0.5, chance.integers(5).item()
        expected = image[0]
        if len(kept) < 5:
            kept.append(image[0])
        elif swaps:
            expected, kept[place] = kept[place], image[0]
            shown_old += 1
        assert torch.equal(shown[0], expected)
        assert torch.equal(pool.images, torch.stack(kept))
    assert 70 < shown_old < 130


def test_an_empty_pool_shows_what_is_new():
    image, pool = torch.rand(3, 1, 2, 2), ImagePool(0)
    shown, places = pool.query(image, draws(0, 3))
    pool.update(image, places)
    assert shown is image and pool.state_dict() == {}


# Whole runs


def assert_resumes(tmp_path, **options):
    """A run in two parts ends with the very tensors of an uninterrupted one."""
    options = {"lr_scheduler": "constant", **options}
    trained(tmp_path / "whole", **options)
    trained(tmp_path / "parts", **{**options, "max_train_steps": 2})
    trained(tmp_path / "parts", **options, resume_from_checkpoint="latest")
    whole, parts = tensors(tmp_path / "whole", 4), tensors(tmp_path / "parts", 4)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    return whole


def test_pix2pix_resumes_bit_for_bit_with_dropout_and_batch_norm(tmp_path):
    options = {**PAIRS, "generator_options": {"num_dropout_layers": 2}, "use_ema": True}
    kept = assert_resumes(tmp_path, **options)
    assert any(name.startswith("generator_ema") for name in kept)
    with pytest.raises(ValueError, match="l1_weight"):
        trained(tmp_path / "parts", **options, l1_weight=10.0, resume_from_checkpoint="latest")


def test_cyclegan_resumes_bit_for_bit_with_its_history(tmp_path):
    kept = assert_resumes(tmp_path, **CYCLE)
    assert kept["recipe_state.discriminator.images"].shape == (6, 1, 16, 16)


def test_pix2pix_leaves_measures_a_panel_and_a_pipeline(tmp_path):
    measured = {"feature_extractor": "digits", "metrics": ["psnr", "ssim", "fid", "perceptual_distance"]}
    shown = {"validation_split": "test", "validation_steps": 2, "evaluation_steps": 2, "num_evaluation_samples": 40}
    pipe = trained(tmp_path, **PAIRS, **measured, **shown)
    (row,) = json.loads((tmp_path / "metrics.json").read_text())["evaluations"]
    assert {"psnr", "ssim", "fid", "perceptual_distance"} <= row.keys()
    assert row["task"] == "A to B" and row["provenance"]["split"] == "test" and row["provenance"]["num_images"] == 40
    for name in ("samples.png", "samples/step-2.png"):
        with Image.open(tmp_path / name) as panel:  # six rows of input, output and truth
            assert panel.width > 3 * 64 and panel.height > 6 * 64
    card = (tmp_path / "README.md").read_text()
    assert "pipeline_tag: image-to-image" in card and "pipe(image).images[0]" in card and "pix2pix" in card
    other = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    image = torch.rand(2, 1, 19, 33)
    outputs = [p(image, output_type="pt").images for p in (pipe, other)]
    assert torch.equal(*outputs) and outputs[0].shape == (2, 1, 19, 33)
    assert pipe.generator.config.sample_size == [16, 16] or tuple(pipe.generator.config.sample_size) == (16, 16)


def test_cyclegan_leaves_both_directions_and_can_be_trained_further(tmp_path):
    measured = {"feature_extractor": "digits", "num_evaluation_samples": 30}
    pipe = trained(tmp_path / "first", **CYCLE, **measured)
    rows = json.loads((tmp_path / "first" / "metrics.json").read_text())["evaluations"]
    assert [row["task"] for row in rows] == ["A to B", "B to A"] and all("fid" in row for row in rows)
    with Image.open(tmp_path / "first" / "samples.png") as panel:
        assert panel.width > 6 * 64 and panel.height > 6 * 64
    image = torch.rand(1, 1, 16, 16)
    back = pipe(pipe(image, output_type="pt").images, reverse=True, output_type="pt").images
    assert back.shape == image.shape

    base = {**CYCLE, "generator_options": {}}
    further = recipe(tmp_path / "second", **base, pretrained_model_name_or_path=str(tmp_path / "first"))
    networks = further.networks()
    for name in ("generator", "reverse_generator"):
        assert torch.equal(weights(networks[name]), weights(getattr(pipe, name)))
    with pytest.raises(ValueError, match="this run has --channels 3"):
        options = {**base, "channels": 3, "pretrained_model_name_or_path": str(tmp_path / "first")}
        recipe(tmp_path / "third", **options).networks()


def write_pairs(folder):
    """Pairs in one file each, of several sizes and modes."""
    folder.mkdir()
    for number in range(5):
        mode = ("RGB", "L", "RGBA")[number % 3]
        draw(number, 12 + number, 24 + 2 * number).convert(mode).save(folder / f"{number}.png")
    return folder


def test_files_with_pairs_side_by_side(tmp_path):
    data = {"dataset_name": None, "train_data_dir": str(write_pairs(tmp_path / "pairs")), "side_by_side": True}
    for direction in ("AtoB", "BtoA"):
        job = recipe(tmp_path, **data, direction=direction, channels=3)
        (left,), (right,) = (list(job.evaluator.images(domain)) for domain in "AB")
        batch = next(job.dataset.reference_batches(5))
        names = ["conditioning_pixel_values", "pixel_values"][:: 1 if direction == "AtoB" else -1]
        assert torch.equal(left, batch[names[0]]) and torch.equal(right, batch[names[1]])
    pipe = trained(tmp_path / "out", **data, channels=3)
    assert pipe(Image.new("L", (20, 20))).images[0].mode == "RGB"  # one-channel data in a three-channel model


def launch(output_dir, processes, **options):
    return runs.launch("train_translation", output_dir, processes, **{**OPTIONS, **options})


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {**PAIRS, "normalization": "instance"},
        {**PAIRS, "normalization": "batch"},
        {**CYCLE, "identity_weight": 5.0},
        {**DUAL, "discriminator_steps": 2},
    ],
    ids=["pix2pix", "batch norm", "cyclegan", "dualgan"],
)
def test_two_processes_follow_one(tmp_path, options):
    # Small and plain steps: Adam's would turn differences of rounding into differences of direction, and instance norm
    # of the digits' black borders makes more of them in every step.
    options = {**options, "adam_epsilon": 1e-3, "learning_rate": 1e-5, "max_train_steps": 6}
    expected, kept = launch(tmp_path / "one", 1, **options, train_batch_size=4)
    found, own = launch(tmp_path / "two", 2, **options, train_batch_size=2)
    for line, other in zip(found, expected, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            tolerance = 2e-2 if name.endswith("grad_norm") else 1e-4
            assert value == pytest.approx(other[name], rel=tolerance, abs=1e-5), (line["step"], name)
    assert own.keys() == kept.keys()
    for name, tensor in kept.items():
        # The pool's images tell whether the processes keep and show the same ones.
        torch.testing.assert_close(own[name].float(), tensor.float(), rtol=1e-3, atol=1e-3, msg=name)


# Bad input


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "--method pix2pix learns from pairs: name the inputs by --conditioning_image_column"),
        ({**PAIRS, "domains": ["three", "eight"]}, "--domains and --target_... are for images without pairs"),
        ({**PAIRS, "side_by_side": True}, "are two ways to get pairs"),
        ({**PAIRS, "inputs": "magic"}, "there is no task 'magic'"),
        ({**PAIRS, "inputs": "colorization"}, "3 channels"),
        ({**PAIRS, "input_options": {"threshold": -1}}, "positive threshold"),
        ({**PAIRS, "patch_size": 71}, "--patch_size must be one of 1, 16, 34, 70, 142, 286, not 71"),
        ({**PAIRS, "cycle_weight": 10.0}, "--cycle_weight and --identity_weight are for --method cyclegan"),
        ({**PAIRS, "adversarial_weight": 0.0, "l1_weight": 0.0}, "one of --l1_weight, --perceptual_weight must be"),
        ({**PAIRS, "gradient_penalty": 1.0, "normalization": "batch"}, "which --normalization batch mixes"),
        ({**PAIRS, "metrics": ["fid"]}, "--metrics fid needs --feature_extractor"),
        (
            {**PAIRS, "feature_extractor": "digits", "num_evaluation_samples": 3, "metrics": ["fid", "precision"]},
            "needs at least 4 images",
        ),
        ({**CYCLE, "perceptual_weight": 1.0}, "which only --method pix2pix has"),
        (
            {**CYCLE, "pretrained_model_name_or_path": "x"},
            "--generator_options exclude --pretrained_model_name_or_path",
        ),
        ({**PAIRS, "lr_decay_steps": 2}, "--lr_decay_steps is for --lr_scheduler warmup_stable_decay, not linear"),
        ({**PAIRS, "load_size": [12]}, r"load_size must be at least the resolution, \(16, 16\), not \(12, 12\)"),
        ({**PAIRS, "load_size": [20, 20, 20]}, "--load_size takes one number, or height and width"),
        ({**CYCLE, "metrics": ["psnr"]}, "--metrics without pairs must be among"),
        ({**CYCLE, "domains": ["three", "thirteen"]}, "the domain 'thirteen' is not a class"),
        ({"method": "cyclegan"}, "the data set has 10 classes"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"patch_size": 70}, "--patch_size must be at most 34 for images of the size"),
        ({"generator_options": {"block_out_channels": [4] * 5}}, "--resolution must be a multiple of 32"),
        ({"generator": "resnet", "resolution": [4]}, "--resolution must be a multiple of 4, and at least 8, for this"),
        ({"generator_options": {"depth": 3}}, "depth"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        recipe(tmp_path, **PAIRS, **options).networks()


def test_options_come_from_a_file(tmp_path):
    (tmp_path / "options.yaml").write_text("dataset_name: digits\nmethod: cyclegan\ndomains: [three, eight]\n")
    config = parse_config(TranslationConfig, [f"--config={tmp_path / 'options.yaml'}", "--pool_size=7"])
    assert (config.generator, config.adversarial_loss, config.cycle_weight) == ("resnet", "least_squares", 10.0)
    assert (config.pool_size, config.domains, config.normalization) == (7, ["three", "eight"], "instance")


def test_default_u_nets_are_those_of_pix2pix():
    assert default_unet((256, 512), 64) == {
        "block_out_channels": (64, 128, 256, 512, 512, 512, 512, 512),
        "num_dropout_layers": 3,
    }
    assert default_unet((24, 32), 8) == {"block_out_channels": (8, 16, 32), "num_dropout_layers": 0}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_an_update_waits_for_no_device(tmp_path, options):
    assert not waits_of_an_update(trainer(tmp_path, **options))
