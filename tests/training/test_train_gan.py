"""GANs of every kind train, resume and are published; and what does not fit is refused."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from diffusers_ext import GANPipeline, MLPDiscriminator, MLPGenerator
from diffusers_ext.data.digits import DIGIT_NAMES, load_digits_dataset
from diffusers_ext.losses.discriminator_outputs import judge_both
from diffusers_ext.training import evaluate_pipeline
from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_gan import GANConfig, GANRecipe
from tests.training import runs
from tests.training.runs import assert_resumes_exactly, context, records, run_in_processes, steps, tensors, weights
from tests.waits import waits_of_an_update


SMALL = {"latent_dim": 8, "channels": 4}
OPTIONS = {
    "resolution": [8],
    "channels": 1,
    "generator": SMALL,
    "discriminator": {"channels": 4},
    "max_train_steps": 4,
    "train_batch_size": 8,
    "checkpointing_steps": 2,
}
MLP = {"architecture": "mlp", "generator": {"hidden_dims": [16]}, "discriminator": {"hidden_dims": [16]}}
CONDITIONAL = {"class_conditional": True}


@pytest.fixture(scope="module", autouse=True)
def few_digits(tmp_path_factory):
    """What recipes train on: a folder per class, of few images and thus soon read."""
    folder = tmp_path_factory.mktemp("digits")
    for number, row in enumerate(load_digits_dataset()["test"].select(range(60))):
        class_folder = folder / DIGIT_NAMES[row["label"]]
        class_folder.mkdir(exist_ok=True)
        Image.fromarray(np.asarray(row["image"], dtype=np.uint8)).save(class_folder / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        yield


def configuration(output_dir, **options) -> GANConfig:
    return GANConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def recipe(output_dir, **options) -> GANRecipe:
    return GANRecipe(configuration(output_dir, **options), context())


def trainer(output_dir, **options) -> Trainer:
    return runs.trainer(GANRecipe, configuration(output_dir, **options))


VARIANTS = {
    "dcgan": {},
    "mlp of 2014": {**MLP, "loss": "minimax", "real_label": 0.9},
    "concat": {**CONDITIONAL, "conditioning": "concat", "loss": "least_squares"},
    "embedding": {**CONDITIONAL, **MLP, "conditioning": "embedding"},
    "projection, spectral norm": {**CONDITIONAL, "loss": "hinge", "spectral_norm": True},
    "ac-gan": {**CONDITIONAL, "conditioning": "auxiliary"},
    "infogan": {"num_categories": 3, "num_continuous_codes": 2},
    "wgan": {**MLP, "loss": "wasserstein", "clip_weights": 0.01},
    "wgan-gp": {"loss": "wasserstein", "gradient_penalty": 10.0, "discriminator_steps": 2},
    "r1, r2, lazily": {"r1": 1.0, "r2": 0.5, "regularization_interval": 2},
    "msgan, diffaugment": {"mode_seeking": 1.0, "diffaugment": "color,translation,cutout"},
    "augmented penalties": {"gradient_penalty": 10.0, "r1": 1.0, "diffaugment": "color, translation"},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_both_networks_learn(tmp_path, options):
    run = trainer(tmp_path, **options)
    before = {name: weights(network) for name, network in run.networks.items()}
    first, second = steps(run, 2)
    for name, network in run.networks.items():
        assert not torch.equal(weights(network), before[name])
        assert second[f"{name}_loss"] != 0 and second[f"{name}_grad_norm"] > 0
    assert {"real_logits", "fake_logits"} <= first.keys()
    assert ("real_accuracy" in first) == (options.get("loss") != "wasserstein")
    if options.get("clip_weights"):
        assert weights(run.networks["discriminator"]).abs().max() <= 0.01


def test_the_generator_rests_while_the_discriminator_takes_its_steps(tmp_path):
    run = trainer(tmp_path, discriminator_steps=3)
    start = weights(run.networks["generator"])
    first, second = steps(run, 2)
    assert torch.equal(weights(run.networks["generator"]), start)
    assert "generator_loss" not in first and "generator_loss" not in second
    run.update()
    assert not torch.equal(weights(run.networks["generator"]), start)


def test_penalties_are_computed_lazily_and_weigh_as_much(tmp_path):
    options = {"loss": "hinge", "r1": 1.0, "learning_rate": 1e-20}
    eager = steps(trainer(tmp_path / "eager", **options), 2)
    lazy = steps(trainer(tmp_path / "lazy", **options, regularization_interval=4), 2)
    assert "penalty" in eager[0] and "penalty" in eager[1] and "penalty" in lazy[0] and "penalty" not in lazy[1]
    assert lazy[0]["penalty"] == pytest.approx(eager[0]["penalty"])
    added = lazy[0]["discriminator_loss"] - eager[0]["discriminator_loss"]
    assert added == pytest.approx(3 * eager[0]["penalty"], rel=1e-3)


def test_one_pass_gives_the_outputs_of_two(tmp_path):
    run = trainer(tmp_path, **CONDITIONAL, loss="hinge", discriminator={"normalization": "none", "channels": 4})
    real, fake = torch.randn(2, 3, 1, 8, 8)
    labels = torch.tensor([1, 2, 3])
    discriminator, calls = run.networks["discriminator"], []
    handle = discriminator.register_forward_hook(lambda *_: calls.append(1))
    on_real, on_fake = judge_both(discriminator, real, fake, labels)
    assert len(calls) == 1
    handle.remove()
    torch.testing.assert_close(on_real.logits, discriminator(real, labels).logits)
    torch.testing.assert_close(on_fake.logits, discriminator(fake, labels).logits)


def test_batch_norm_sees_real_and_generated_images_apart(tmp_path):
    run = trainer(tmp_path, discriminator={"normalization": "batch", "channels": 4}, resolution=[16])
    real, fake = torch.randn(3, 1, 16, 16), 5 + torch.randn(3, 1, 16, 16)
    discriminator = run.networks["discriminator"]
    on_real, on_fake = judge_both(discriminator, real, fake)
    torch.testing.assert_close(on_real.logits, discriminator(real).logits)
    torch.testing.assert_close(on_fake.logits, discriminator(fake).logits)


def test_latents_are_noise_with_the_code_at_the_end(tmp_path):
    generator = {**SMALL, "latent_dim": 100, "latent_distribution": "uniform"}
    run = trainer(tmp_path, generator=generator, num_categories=4, num_continuous_codes=2)
    latents = run.recipe.draw_latents(Draw(0, torch.device("cpu")).begin(0, range(200)))
    assert latents.shape == (200, 100) and latents.abs().max() <= 1
    noise, category, continuous = latents.split([94, 4, 2], dim=1)
    assert noise.min() < -0.9 and noise.max() > 0.9 and continuous.min() < -0.9 and continuous.max() > 0.9
    assert category.sum(dim=1).eq(1).all() and (category.sum(dim=0) > 25).all()


def test_only_the_generator_is_averaged_and_each_has_its_learning_rate(tmp_path):
    run = trainer(tmp_path, learning_rate=1e-3, discriminator_learning_rate=4e-3)
    (values,) = steps(run, 1)
    assert list(run.averages) == ["generator"]
    assert (values["generator_lr"], values["discriminator_lr"]) == (1e-3, 4e-3)


EVERYTHING = {
    **CONDITIONAL,
    "loss": "hinge",
    "spectral_norm": True,
    "diffaugment": "color,translation,cutout",
    "mode_seeking": 0.1,
    "r1": 1.0,
    "regularization_interval": 2,
}


@pytest.mark.parametrize("options", [EVERYTHING, {}], ids=["everything", "batch norm"])
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, options):
    assert_resumes_exactly(partial(trainer, **options), tmp_path, stop=2, end=4)
    for name in ("generator", "discriminator"):
        file = f"{name}/diffusion_pytorch_model.safetensors"
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "stopped" / file).read_bytes()


def test_another_game_is_not_resumed(tmp_path):
    run = trainer(tmp_path)
    steps(run, 1)
    run._started = 0.0
    run._save()
    for name, value in {"loss": "hinge", "r1": 2.5, "mode_seeking": 2.0, "clip_weights": 0.5}.items():
        with pytest.raises(ValueError, match=f"recipe.{name} is .* there and {value} here"):
            trainer(tmp_path, resume_from_checkpoint="latest", **{name: value})


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional")
    options = {"feature_extractor": "digits", "num_evaluation_samples": 40, "evaluation_steps": 2}
    assert trainer(folder, **EVERYTHING, **options).train()
    return folder


def images(pipe):
    return pipe(class_labels=["three", "nine"], generator=torch.Generator().manual_seed(0), output_type="pt").images


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(conditional):
    pipe = GANPipeline.from_pretrained(conditional)
    assert (
        set(pipe.config.id2label.values()) == set(DIGIT_NAMES)
        and pipe.discriminator.config.conditioning == "projection"
    )
    other = DiffusionPipeline.from_pretrained(conditional, trust_remote_code=True)
    assert type(other).__module__ != type(pipe).__module__
    assert torch.equal(images(other), images(pipe)) and images(pipe).shape == (2, 1, 8, 8)


def test_a_run_leaves_a_grid_measures_and_a_card(conditional):
    with Image.open(conditional / "samples.png") as grid:
        assert grid.width > 10 * 64 and grid.height > 8 * 64
    (row,) = json.loads((conditional / "metrics.json").read_text())["evaluations"]
    assert 0 <= row["classes_covered"] <= 10 and 0 <= row["recognised"] <= 1 and 0 <= row["accuracy"] <= 1
    assert {"fid", "precision", "recall"} <= row.keys() and row["provenance"]["num_generated"] == 40
    assert sum("evaluation" in line for line in records(conditional)) == 1
    card = (conditional / "README.md").read_text()
    assert "generative adversarial network (hinge loss)" in card and "| classes_covered |" in card
    assert "class_labels=['eight', 'five']" in card


def evaluated(folder, capsys, *options):
    options = [f"--train_data_dir={OPTIONS['train_data_dir']}", "--feature_extractor=digits", *options]
    evaluate_pipeline.main([f"--pretrained_model_name_or_path={folder}", "--num_evaluation_samples=40", *options])
    return json.loads(capsys.readouterr().out)


def test_a_published_gan_is_measured(conditional, capsys):
    (row,) = evaluated(conditional, capsys)
    (measured_in_training,) = json.loads((conditional / "metrics.json").read_text())["evaluations"]
    assert row["fid"] == pytest.approx(measured_in_training["fid"]) and "accuracy" in row
    with pytest.raises(SystemExit):
        evaluated(conditional, capsys, "--num_inference_steps=10")
    assert "--num_inference_steps is not for the class GANPipeline" in capsys.readouterr().err


def test_training_goes_on_from_a_published_pipeline(conditional, tmp_path):
    options = {**EVERYTHING, "generator": {}, "discriminator": {}, "pretrained_model_name_or_path": str(conditional)}
    run = trainer(tmp_path, **options)
    pipe = GANPipeline.from_pretrained(conditional)
    for name, network in run.networks.items():
        assert torch.equal(weights(network), weights(getattr(pipe, name)))
    steps(run, 1)


def test_a_pipeline_without_discriminator_gets_a_new_one(tmp_path, caplog):
    GANPipeline(MLPGenerator(sample_size=8)).save_pretrained(tmp_path / "base")
    base = {"generator": {}, "discriminator": {}, "pretrained_model_name_or_path": str(tmp_path / "base")}
    run = trainer(tmp_path / "new", **base, architecture="mlp")
    assert "has no discriminator: a new one is trained" in caplog.text
    assert len(steps(run, 1)) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 3}, "makes images of 1 channels, but this run has --channels 3"),
        ({"resolution": [16]}, r"makes images of the size \(8, 8\), but --resolution is \(16, 16\)"),
        ({"class_conditional": False}, "has 10 classes, but this run has 0: see --class_conditional"),
        ({"num_categories": 3}, "has a code with num_categories=0, but this run has --num_categories 3"),
    ],
)
def test_a_pipeline_that_does_not_fit_is_refused(conditional, tmp_path, changes, message):
    base = {"generator": {}, "discriminator": {}, "pretrained_model_name_or_path": str(conditional)}
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **{**base, **CONDITIONAL, **changes})


def test_a_spectral_norm_is_not_made_up(tmp_path):
    GANPipeline(MLPGenerator(sample_size=8), MLPDiscriminator(sample_size=8)).save_pretrained(tmp_path / "base")
    base = {"generator": {}, "discriminator": {}, "pretrained_model_name_or_path": str(tmp_path / "base")}
    with pytest.raises(ValueError, match="has no spectral norm: leave out --spectral_norm"):
        trainer(tmp_path / "new", **base, spectral_norm=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"discriminator_steps": 0}, "--discriminator_steps must be at least 1, not 0"),
        ({"r1": -1.0}, "--r1 must be at least 0"),
        ({"clip_weights": 0.0}, "--clip_weights must be positive, not 0.0"),
        ({"discriminator_learning_rate": 0.0}, "--discriminator_learning_rate must be positive"),
        ({"loss": "hinge", "real_label": 0.9}, "--real_label is for minimax, .*, not for --loss hinge"),
        ({"diffaugment": "colour"}, "DiffAugment has the augmentations color, translation, cutout, not colour"),
        ({"regularization_interval": 4}, "--regularization_interval is for --gradient_penalty, --r1 and --r2"),
        ({"pretrained_model_name_or_path": "x"}, "--generator and --discriminator exclude"),
        ({"conditioning": "concat"}, "--conditioning concat needs --class_conditional"),
        ({"compile": True, "r1": 1.0}, "--compile can't differentiate twice"),
        ({"label_column": "none", **CONDITIONAL}, "--class_conditional needs labels"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_batch_size": 1}, "batch normalization, which needs --train_batch_size 2 or more"),
        (
            {"r1": 1.0, "discriminator": {"normalization": "batch", "channels": 4}, "resolution": [16]},
            "which batch normalization mixes",
        ),
        ({"resolution": [9]}, "must be even"),
        ({"gradient_checkpointing": True}, "--gradient_checkpointing is not supported by generator, discriminator"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options)


def test_infogan_shows_a_column_for_each_category(tmp_path):
    run = trainer(tmp_path, num_categories=3, max_train_steps=1)
    assert run.train()
    with Image.open(tmp_path / "samples.png") as grid:
        assert 3 * 64 < grid.width < 4 * 80 and grid.height > 8 * 64


def test_options_are_read_from_the_command_line(tmp_path):
    config = parse_config(GANConfig, ["--diffaugment", "color,cutout", "--r1=0.5", '--generator={"latent_dim": 3}'])
    assert config.augmentations == ["color", "cutout"] and config.generator == {"latent_dim": 3} and config.has_penalty


def launch(output_dir, processes, batch_size, **options):
    options = {**OPTIONS, **options, "resolution": 8, "train_batch_size": batch_size, "max_train_steps": 10}
    run_in_processes("train_gan", processes, {**options, "output_dir": output_dir})
    return records(output_dir)


@pytest.mark.slow
def test_two_processes_follow_one(tmp_path):
    options = {**EVERYTHING, "mixed_precision": "no"}
    expected = launch(tmp_path / "one", 1, 8, **options)
    found = launch(tmp_path / "two", 2, 4, **options)
    assert len(found) == 10
    for line, other in zip(found, expected, strict=True):
        assert line.keys() == other.keys()
        for name, value in other.items():
            assert line[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


@pytest.mark.slow
def test_batch_norm_sees_the_images_of_all_processes(tmp_path):
    launch(tmp_path / "one", 1, 8, checkpointing_steps=10)
    launch(tmp_path / "two", 2, 4, checkpointing_steps=10)
    expected, found = tensors(tmp_path / "one", 10), tensors(tmp_path / "two", 10)
    assert any("running_var" in name for name in expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_an_update_waits_for_no_device(tmp_path, options):
    assert not waits_of_an_update(trainer(tmp_path, **options))
