import json

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import DatasetDict
from diffusers import DiffusionPipeline
from PIL import Image
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

from diffusers_ext import AutoencoderPipeline
from diffusers_ext.data.digits import load_digits_dataset
from diffusers_ext.losses import reconstruction_error, standard_normal_kl
from diffusers_ext.pipelines.latent_space import LatentSpace
from diffusers_ext.training.autoencoding.networks import build_autoencoder
from diffusers_ext.training.autoencoding.regularizers import rising
from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_autoencoder import AutoencoderConfig, AutoencoderRecipe, autoencoder_recipe
from tests.training import runs
from tests.training.runs import context, records, run_in_processes, tensors
from tests.waits import waits_of_an_update


MLP = {"architecture": "mlp", "autoencoder": {"hidden_dims": [16], "latent_dim": 4}}
SMALL_CODEBOOK = {"num_embeddings": 12, "embedding_dim": 4, "hidden_channels": 8, "residual_channels": 4}
BLOCKS = {"block_out_channels": [8, 8], "norm_num_groups": 4, "latent_channels": 2}
PATCHES = {"adversarial_weight": 0.5, "patch_discriminator": {"num_layers": 1, "base_channels": 4}}
NUM_IMAGES = 40
RUNS = {
    "vae": {**MLP, "objective": "vae", "kl_warmup_steps": 2},
    "denoising": {**MLP, "objective": "autoencoder", "denoising": 0.4},
    "capacity": {"architecture": "conv", "objective": "beta_vae", "kl_capacity": 2.0, "kl_capacity_steps": 2},
    "beta_tc": {"architecture": "burgess", "objective": "beta_tc"},
    "factor": {**MLP, "objective": "factor", "latent_discriminator": {"hidden_dim": 8, "num_hidden_layers": 2}},
    "vqvae": {"architecture": "vqvae", "autoencoder": {**SMALL_CODEBOOK, "num_downsamples": 1}},
    "vqvae by gradients": {"architecture": "vqvae", "autoencoder": {**SMALL_CODEBOOK, "use_ema": False}},
    "vqvae2": {"architecture": "vqvae2", "autoencoder": SMALL_CODEBOOK},
    "kl": {"architecture": "kl", "autoencoder": BLOCKS, "adversarial_start": 2, **PATCHES},
    "vq": {"architecture": "vq", "autoencoder": {**BLOCKS, "num_vq_embeddings": 12}, **PATCHES},
}
OPTIONS = {
    "resolution": [8],
    "channels": 1,
    "max_train_steps": 4,
    "train_batch_size": 8,
    "lr_warmup_steps": 0,
    "num_evaluation_samples": 20,
    "validation_split": "test",
}


@pytest.fixture(scope="module", autouse=True)
def few_digits(tmp_path_factory):
    """What is trained on: few images, and thus soon read."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    digits = load_digits_dataset()
    DatasetDict({name: digits[name].select(range(NUM_IMAGES)) for name in digits}).save_to_disk(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        yield


def configuration(output_dir, **options) -> AutoencoderConfig:
    return AutoencoderConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def recipe(output_dir, **options) -> AutoencoderRecipe:
    return autoencoder_recipe(configuration(output_dir, **options), context())


def trainer(output_dir, mixed_precision=None, **options) -> Trainer:
    accumulated = options.get("gradient_accumulation_steps", 1)
    keywords = {"mixed_precision": mixed_precision, "gradient_accumulation_steps": accumulated}
    return runs.trainer(autoencoder_recipe, configuration(output_dir, **options), **keywords)


def trained(output_dir, **options) -> AutoencoderPipeline:
    assert trainer(output_dir, **options).train()
    return AutoencoderPipeline.from_pretrained(output_dir)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_leaves_a_pipeline_measures_a_grid_and_a_card(name, tmp_path):
    judged = {"feature_extractor": "digits", "metrics": ["fid"]} if name in ("vae", "vqvae") else {}
    pipe = trained(tmp_path, **RUNS[name], **judged)
    rows = json.loads((tmp_path / "metrics.json").read_text())["evaluations"]
    assert [row["method"] for row in rows] == ["reconstruction", "samples"][: 1 + (name == "vae")]
    assert {"mse", "psnr", "ssim", *(["reconstruction_fid"] if judged else [])} <= rows[0].keys()
    assert rows[0]["provenance"]["split"] == "test" and rows[0]["provenance"]["num_images"] == 20
    assert ("elbo" in rows[0]) == ("objective" in RUNS[name] and name != "denoising" or name == "kl")
    assert any("codebook_perplexity" in key for key in rows[0]) == name.startswith("vq")
    assert pipe.has_prior == (name in ("vae", "capacity", "beta_tc", "factor"))
    with Image.open(tmp_path / "samples.png") as grid:
        assert grid.width > 8 * 64 and grid.height > (6 if pipe.has_prior or name == "denoising" else 4) * 64
    assert "AutoencoderPipeline" in (tmp_path / "README.md").read_text()
    assert all(row["mse"] > 0 for row in rows[:1])

    image = torch.rand(2, 1, 8, 8)
    ours = pipe.reconstruct(image, output_type="pt").images
    without_package = DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)
    theirs = without_package.reconstruct(image, output_type="pt").images
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["vae", "factor", "vqvae", "vqvae2", "kl"])
def test_a_resumed_run_is_an_uninterrupted_one(name, tmp_path):
    options = {**RUNS[name], "checkpointing_steps": 2}
    trained(tmp_path / "whole", **options)
    trained(tmp_path / "parts", **{**options, "max_train_steps": 2})
    trained(tmp_path / "parts", resume_from_checkpoint="latest", **options)
    whole, parts = tensors(tmp_path / "whole", 4), tensors(tmp_path / "parts", 4)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    before = tensors(tmp_path / "whole", 2)
    if name == "vqvae":  # what only the means of its latents move
        assert not torch.equal(before["autoencoder.quantizer.embeddings"], whole["autoencoder.quantizer.embeddings"])
    with pytest.raises(ValueError, match="denoising"):
        trained(tmp_path / "parts", resume_from_checkpoint="latest", **{**options, "denoising": 0.1})


@pytest.mark.parametrize("name", ["vae", "vqvae"])
def test_a_batch_in_parts_is_the_same_batch(name, tmp_path):
    trained(tmp_path / "whole", **RUNS[name], checkpointing_steps=4)
    parts = {"train_batch_size": 4, "gradient_accumulation_steps": 2}
    trained(tmp_path / "parts", **RUNS[name], **parts, checkpointing_steps=4)
    whole, parts = tensors(tmp_path / "whole", 4), tensors(tmp_path / "parts", 4)
    for key, tensor in whole.items():
        torch.testing.assert_close(parts[key], tensor, rtol=1e-3, atol=1e-4)
    # What a batch uses of the codes or latents is no mean of what its parts use.
    for line, other in zip(records(tmp_path / "whole"), records(tmp_path / "parts"), strict=True):
        assert line.keys() == other.keys()
        used = [key for key in line if key.startswith("codebook") or key == "active_units"]
        assert used and [line[key] for key in used] == pytest.approx([other[key] for key in used], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "capacity", "beta_tc", "factor", "vqvae", "kl", "vq"])
def test_two_processes_follow_one(name, tmp_path):
    found = []
    for processes, batch_size in ((1, 8), (2, 4)):
        folder = tmp_path / str(processes)
        options = {**OPTIONS, **RUNS[name], "train_batch_size": batch_size, "max_train_steps": 12}
        options |= {"output_dir": folder, "resolution": 8, "learning_rate": 1e-3, "checkpointing_steps": 12}
        run_in_processes("train_autoencoder", processes, options)
        found.append(folder)
    one, two = (records(folder) for folder in found)
    for line, other in zip(one, two, strict=True):
        for key in line.keys() - {"step"}:
            assert other[key] == pytest.approx(line[key], rel=1e-3, abs=1e-4), key
    configs = [json.loads((folder / "autoencoder" / "config.json").read_text()) for folder in found]
    assert configs[0].keys() == configs[1].keys()
    factors = [config.get("scaling_factor", 1.0) for config in configs]
    assert factors[0] == pytest.approx(factors[1], rel=1e-3) and (factors[0] != 0.18215)
    one, two = (tensors(folder, 12) for folder in found)
    for key, tensor in one.items():
        # Attention does not depend on its keys' bias, nor batch norm on the bias before it: their gradients are
        # rounding errors, which Adam enlarges.
        if not key.endswith(("to_k.bias", "conv.bias", "running_mean")):
            torch.testing.assert_close(two[key], tensor, rtol=1e-2, atol=1e-3, msg=key)


@pytest.mark.parametrize("name", ["kl", "vq"])
def test_latents_are_published_with_the_factor_to_unit_variance(name, tmp_path):
    run = trainer(tmp_path, **RUNS[name])
    assert run.train()
    autoencoder = AutoencoderPipeline.from_pretrained(tmp_path).autoencoder
    factor = autoencoder.config.scaling_factor
    (batch,) = run.recipe.dataset.reference_batches(NUM_IMAGES)
    with torch.no_grad():
        encoded = autoencoder.encode(batch["pixel_values"] / 127.5 - 1)
    if name == "kl":
        draws = [encoded.latent_dist.sample(torch.Generator().manual_seed(seed)) for seed in range(100)]
    else:
        draws = [encoded.latents]
    assert torch.stack(draws).mul(factor).std().item() == pytest.approx(1, rel=0.02)
    card = (tmp_path / "README.md").read_text()
    assert f"`scaling_factor` is {factor}" in card and f"the first {NUM_IMAGES} training images" in card
    # The outputs of a finished run can be made again.
    assert trainer(tmp_path, **RUNS[name], resume_from_checkpoint="latest").train()
    assert AutoencoderPipeline.from_pretrained(tmp_path).autoencoder.config.scaling_factor == factor


def test_a_given_scaling_factor_stays(tmp_path):
    pipe = trained(tmp_path, architecture="kl", autoencoder={**BLOCKS, "scaling_factor": 0.5})
    assert pipe.autoencoder.config.scaling_factor == 0.5
    assert "`scaling_factor` is 0.5 (given)" in (tmp_path / "README.md").read_text()


def test_latents_are_published_with_the_statistics_of_each_channel(tmp_path):
    run = trainer(tmp_path, **RUNS["kl"], latent_scale="per_channel")
    assert run.train()
    autoencoder = AutoencoderPipeline.from_pretrained(tmp_path).autoencoder
    (batch,) = run.recipe.dataset.reference_batches(NUM_IMAGES)
    space = LatentSpace(autoencoder)
    with torch.no_grad():
        moments = space.encode_moments(batch["pixel_values"] / 127.5 - 1).repeat(100, 1, 1, 1)
        noise = torch.randn(space.sample(moments, 0.0).shape, generator=torch.Generator().manual_seed(0))
        by_channel = space.sample(moments, noise).movedim(1, 0).flatten(1)
    torch.testing.assert_close(by_channel.std(dim=1), torch.ones(2), rtol=0.02, atol=0)
    torch.testing.assert_close(by_channel.mean(dim=1), torch.zeros(2), rtol=0, atol=0.02)
    assert "the mean and deviation of each channel" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("architecture", "factor", "latents"),
    [("kl", 4, (3, 16, 16)), ("kl", 8, (4, 8, 8)), ("vq", 4, (3, 16, 16)), ("vq", 8, (4, 8, 8))],
)
def test_the_networks_of_latent_diffusion(architecture, factor, latents):
    with torch.device("meta"), torch.no_grad():
        autoencoder = build_autoencoder(
            architecture, {}, size=(64, 64), channels=3, variational=True, batch_size=1, downsampling_factor=factor
        )
        encoded = autoencoder.encode(torch.zeros(1, 3, 64, 64))
    assert (encoded[0].mean if architecture == "kl" else encoded[0]).shape == (1, *latents)
    if (architecture, factor) == ("kl", 8):  # it became that of Stable Diffusion
        assert sum(weight.numel() for weight in autoencoder.parameters()) == 83_653_863


def test_the_reported_lower_bound_is_that_of_the_images(tmp_path):
    pipe = trained(tmp_path, **RUNS["vae"], use_ema=False)
    row = json.loads((tmp_path / "metrics.json").read_text())["evaluations"][0]
    dataset = recipe(tmp_path, **MLP).validation_images
    images = next(dataset.reference_batches(20))["pixel_values"].float() / 255
    posterior = pipe.autoencoder.encode(images).latent_dist
    kl = standard_normal_kl(posterior.mean, posterior.logvar).sum(dim=1).mean()
    means = posterior.mean
    assert row["kl"] == pytest.approx(kl.item(), rel=1e-4)
    assert row["elbo"] == pytest.approx(-row["reconstruction"] - row["kl"], rel=1e-5)
    draws = torch.stack([pipe.autoencoder.decode(posterior.sample()).sample for _ in range(50)])
    errors = torch.stack([reconstruction_error("bernoulli", draw, images) for draw in draws]).mean()
    assert row["reconstruction"] == pytest.approx(errors.item(), rel=0.05)
    assert row["mse"] == pytest.approx(
        (pipe.autoencoder.decode(means).sample - images).square().mean().item(), rel=1e-3
    )


def losses(name, tmp_path, steps=40, **options) -> list[dict]:
    trained(tmp_path, **{**RUNS[name], "max_train_steps": steps, "learning_rate": 1e-2, **options})
    return records(tmp_path)


def test_what_is_minimised_gets_smaller(tmp_path):
    for name, key in (("denoising", "loss"), ("vqvae", "reconstruction"), ("vae", "reconstruction")):
        values = [line[key] for line in losses(name, tmp_path / name)]
        assert sum(values[-10:]) < 0.7 * sum(values[:10]), name


def test_the_divergence_goes_to_the_capacity(tmp_path):
    options = {**MLP, "objective": "beta_vae", "kl_capacity_steps": 0}
    for capacity in (0.5, 4.0):
        runs = losses("vae", tmp_path / str(capacity), **options, kl_capacity=capacity, beta=100.0, kl_warmup_steps=0)
        assert runs[-1]["kl"] == pytest.approx(capacity, rel=0.35)


def test_a_denoising_autoencoder_sees_noise_and_reconstructs_clean_images(tmp_path):
    run, recorded = trainer(tmp_path, **RUNS["denoising"]), {}
    seen = []
    run.networks["autoencoder"].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch = {"pixel_values": torch.zeros(4096, 1, 8, 8)}
    run.recipe.log, run.recipe.minimise = lambda **values: recorded.update(values), lambda name, loss: None
    output = run.networks["autoencoder"](torch.full((1, 1, 8, 8), 0.5)).sample
    run.recipe.step(batch, Draw(0, torch.device("cpu")).begin(0, range(4096)))
    noisy = seen[1]
    assert noisy.std().item() == pytest.approx(0.2, rel=0.02)  # half of it, in [0, 1]
    assert noisy.min() >= 0 and noisy.max() <= 1
    expected = reconstruction_error("bernoulli", output, torch.full((1, 1, 8, 8), 0.5)).item()
    assert recorded["reconstruction"].mean().item() == pytest.approx(expected, rel=0.05)


def test_a_perceptual_distance_counts(tmp_path):
    torch.manual_seed(0)
    ResNetModel(ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1])).save_pretrained(tmp_path)
    ConvNextImageProcessor(do_resize=False, image_mean=[0.5], image_std=[0.5]).save_pretrained(tmp_path)
    options = {**RUNS["vq"], "adversarial_weight": 0.0, "patch_discriminator": {}, "max_train_steps": 1}
    options |= {"perceptual_network": str(tmp_path), "perceptual_weight": 3.0}
    trained(tmp_path / "run", **options)
    (line,) = records(tmp_path / "run")
    assert line["perceptual_distance"] > 0
    expected = line["reconstruction"] / 64 + 3 * line["perceptual_distance"] + line["quantization_loss"]
    assert line["loss"] == pytest.approx(expected, rel=1e-4)


def test_weights_that_rise():
    assert [rising(step, 4) for step in (0, 1, 4, 9)] == [0, 0.25, 1, 1]
    assert rising(0, 0) == 1


def test_only_the_autoencoder_is_averaged_and_published(tmp_path):
    trained(tmp_path, **RUNS["factor"], checkpointing_steps=4)
    names = {path.stem for path in (tmp_path / "checkpoint-4").glob("*.safetensors")}
    assert "autoencoder_ema" in names and "discriminator" in names and "discriminator_ema" not in names
    assert not (tmp_path / "discriminator").exists()


def test_the_resolved_options_can_be_read_again(tmp_path):
    for name, options in RUNS.items():
        config = AutoencoderConfig(**{**OPTIONS, **options})
        (tmp_path / "options.yaml").write_text(config.to_yaml())
        assert parse_config(AutoencoderConfig, ["--config", str(tmp_path / "options.yaml")]) == config, name


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"architecture": "vqvae", "objective": "vae"}, "--architecture vqvae has codes and no posterior"),
        ({"architecture": "kl", "objective": "beta_tc"}, "--architecture kl has a map of posteriors"),
        ({"objective": "vae", "beta": 2.0}, "--beta is for beta_vae, beta_tc and factor, not for --objective vae"),
        ({"objective": "beta_vae", "beta": -1.0}, "--beta must be at least 0"),
        ({"objective": "autoencoder", "kl_warmup_steps": 3}, "--kl_warmup_steps is for objectives with a divergence"),
        ({"architecture": "dvae", "kl_capacity": 3.0}, "and not for --architecture dvae"),
        ({"architecture": "dvae", "objective": "factor"}, "--architecture dvae has a map of posteriors"),
        ({"architecture": "dvae", "final_temperature": 0.0}, "--final_temperature must be positive"),
        ({"temperature_steps": 5}, "--temperature_steps is for --architecture dvae, not"),
        ({"objective": "vae", "kl_capacity": 3.0}, "--kl_capacity is for --objective beta_vae, not vae"),
        ({"objective": "beta_vae", "kl_capacity_steps": 3}, "--kl_capacity_steps needs the --kl_capacity"),
        (
            {"objective": "beta_vae", "kl_capacity": 1.0, "kl_warmup_steps": 3},
            "--kl_capacity and --kl_warmup_steps exclude each other",
        ),
        ({"latent_discriminator": {"hidden_dim": 3}}, "--latent_discriminator is for --objective factor"),
        ({"objective": "beta_tc", "train_batch_size": 1}, "--train_batch_size must be above 1"),
        ({"adversarial_weight": 0.5}, "--adversarial_weight is for --architecture kl and vq, not conv"),
        ({"perceptual_network": "lpips"}, "--perceptual_network is for --architecture kl and vq"),
        ({"architecture": "kl", "adversarial_start": 5}, "need an --adversarial_weight above 0"),
        ({"architecture": "vq", "perceptual_network": "lpips", "channels": 4}, "sees 1 or 3 --channels, not 4"),
        ({"downsampling_factor": 4}, "--downsampling_factor is for --architecture kl and vq, not conv"),
        (
            {"architecture": "kl", "autoencoder": BLOCKS, "downsampling_factor": 4},
            "--downsampling_factor 4 needs 3 block_out_channels in --autoencoder, not 2",
        ),
        ({"architecture": "vq", "latent_scale": "per_channel"}, "--latent_scale per_channel is for --archit"),
        (
            {"architecture": "kl", "latent_scale": "per_channel", "autoencoder": {"scaling_factor": 2.0}},
            "--latent_scale per_channel measures what --autoencoder can't give too: scaling_factor,",
        ),
        ({"discriminator_learning_rate": 1e-4}, "--discriminator_learning_rate needs a discriminator"),
        ({"denoising": -0.1}, "--denoising must be at least 0"),
        (
            {"perceptual_network": "digits", "architecture": "kl"},
            "layers of the feature extractor digits cannot be compared",
        ),
        ({"reconstruction_loss": "bernoulli", "architecture": "conv"}, "bernoulli needs a network that gives prob"),
        ({"resolution": [9], "architecture": "kl", "autoencoder": BLOCKS}, "--resolution must be a multiple of 2"),
        ({"resolution": [9], "architecture": "vqvae"}, "Height and width must be multiples of 4"),
        ({"validation_split": "nothing"}, "no split 'nothing'"),
        (
            {"architecture": "conv", "autoencoder": {"block_out_channels": [4] * 3}, "train_batch_size": 1},
            "batch normalization where images are one pixel, which needs --train_batch_size 2 or more",
        ),
        ({**RUNS["kl"], "patch_discriminator": {}}, "too small for `num_layers=3`"),
        ({"autoencoder": {"latent_size": 3}, "architecture": "mlp"}, "latent_size"),
    ],
)
def test_what_cannot_work_is_refused_before_training(tmp_path, options, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        trainer(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"train_batch_size": NUM_IMAGES + 1}, f"has {NUM_IMAGES}"),
        ({"streaming": True}, "is a stream of unknown length"),
    ],
)
def test_a_data_set_of_fewer_images_than_a_batch_is_refused(tmp_path, options, found):
    with pytest.raises(ValueError, match=f"--objective beta_tc needs a data set of .* but this one {found}"):
        trainer(tmp_path, **{**RUNS["beta_tc"], **options})


@pytest.fixture
def any_precision():
    """Lets a run have another precision than those before it and after it, which Accelerate would remember."""
    AcceleratorState._reset_state(reset_partial_state=False)
    yield
    AcceleratorState._reset_state(reset_partial_state=False)


@pytest.mark.usefixtures("any_precision")
@pytest.mark.parametrize("name", ["vae", "vqvae", "kl"])
def test_bfloat16_trains(name, tmp_path):
    run = trainer(tmp_path, mixed_precision="bf16", **RUNS[name])
    assert run.train()
    assert all(tensor.isfinite().all() for tensor in run.networks["autoencoder"].state_dict().values())


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a fault of the compiler for CPUs")
def test_compiled_networks_which_lose_gradients_on_a_cpu_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--compile on a CPU loses gradients"):
        trainer(tmp_path, compile=True, **RUNS["kl"])


@pytest.mark.parametrize("name", ["vae", "beta_tc", "capacity"])
def test_images_of_other_shapes(name, tmp_path):
    pipe = trained(tmp_path, **{**RUNS[name], "resolution": [8, 12], "channels": 3, "max_train_steps": 1})
    assert pipe(output_type="pt").images.shape == (1, 3, 8, 12)


@pytest.mark.parametrize("name", RUNS)
def test_an_update_waits_for_no_device(tmp_path, name):
    assert not waits_of_an_update(trainer(tmp_path, **RUNS[name]))


def test_a_discrete_vae_learns_with_a_temperature_that_falls(tmp_path):
    options = {"num_embeddings": 8, "hidden_channels": 8, "init_channels": 8, "num_downsamples": 1}
    run = trainer(tmp_path, architecture="dvae", autoencoder=options, temperature_steps=4)
    first, second = runs.steps(run, 2)
    assert first["loss"] > 0 and second["kl"] >= 0 and 0 < second["codebook_usage"] <= 1
    recipe = run.recipe
    assert recipe.temperature(0) == 1 and recipe.temperature(2) == pytest.approx((1 + 1 / 16) / 2)
    assert recipe.temperature(9) == pytest.approx(1 / 16)
    assert recipe.reconstruction_type == "mse"
    with pytest.raises(ValueError, match="--reconstruction_loss is mse or l1 for --architecture dvae"):
        trainer(tmp_path / "other", architecture="dvae", reconstruction_loss="bernoulli").start()
