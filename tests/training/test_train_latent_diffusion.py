"""train_diffusion.py in the latents of an autoencoder."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, LDMPipeline
from safetensors.torch import load_file, save_file

from diffusers_ext import ClassConditionalPipeline, VQVAEModel
from diffusers_ext.models import AutoencoderConv
from diffusers_ext.pipelines import AutoencoderPipeline
from diffusers_ext.training import evaluate_pipeline
from diffusers_ext.training.diffusion.latents import load_autoencoder
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
from diffusers_ext.training.train_distillation import DistillationConfig, distillation_recipe
from tests.tiny_autoencoders import tiny_dc, tiny_taesd, tiny_vae, tiny_vq_model
from tests.training.runs import context, records, tensors, trainer
from tests.waits import waits_of_an_update


UNET = {"block_out_channels": [8, 16], "layers_per_block": 1}
DIT = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    tiny_vae(channels=1, scaling_factor=0.6).save_pretrained(folder)
    return folder


def configuration(vae, output_dir="unused", **options) -> DiffusionConfig:
    config = {
        "vae": None if vae is None else str(vae),
        "dataset_name": "digits",
        "resolution": [16],
        "channels": 1,
        "unet": UNET,
        "max_train_steps": 3,
        "train_batch_size": 8,
        "learning_rate": 1e-3,
        "num_inference_steps": 2,
        "output_dir": str(output_dir),
    }
    return DiffusionConfig(**{**config, **options})


def recipe(vae, **options) -> DiffusionRecipe:
    return DiffusionRecipe(configuration(vae, **options), context())


def trained(vae, folder, **options) -> ClassConditionalPipeline:
    assert trainer(DiffusionRecipe, configuration(vae, folder, **options)).train()
    pipe = ClassConditionalPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


# What comes out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"denoiser": "UNet2DConditionModel"},
        {"denoiser": "DiTTransformer2DModel", "unet": DIT},
        pytest.param({"prediction_type": "v_prediction"}, marks=pytest.mark.slow),
        pytest.param({"prediction_type": "edm"}, marks=pytest.mark.slow),
        {"label_column": "none"},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "default",
)
def test_a_run_leaves_a_pipeline_that_decodes(tmp_path, vae, options):
    measured = {"feature_extractor": "digits", "num_evaluation_samples": 20, "guidance_scales": [2.0]}
    pipe = trained(vae, tmp_path, **options, **({} if options else measured))
    assert isinstance(pipe.vae, AutoencoderKL) and pipe.vae.config.scaling_factor == 0.6
    assert pipe.image_shape == (1, 16, 16) and pipe.unet.config.in_channels == 4
    if "label_column" in options:
        images = pipe(batch_size=2, output_type="pt").images
    else:
        images = pipe(["two", 3], guidance_scale=2.0, output_type="pt").images
        assert not torch.equal(images, pipe(["two", 4], guidance_scale=2.0, output_type="pt").images)
    assert images.shape == (2, 1, 16, 16) and images.isfinite().all()
    assert not pipe.scheduler.config.get("thresholding") and not pipe.scheduler.config.get("clip_sample")
    if options.get("prediction_type") == "edm":
        assert pipe.scheduler.config.sigma_data == 1.0
    if not options:
        assert json.loads((tmp_path / "metrics.json").read_text())["evaluations"][0]["fid"] > 0
    assert "the latents of its AutoencoderKL" in (tmp_path / "README.md").read_text()


def test_diffusers_samples_from_an_unconditional_model(tmp_path, vae):
    pipe = trained(vae, tmp_path, label_column="none", prediction_type="v_prediction")
    stock = LDMPipeline(pipe.vae, pipe.unet, DDIMScheduler.from_config(pipe.scheduler.config))
    stock.set_progress_bar_config(disable=True)
    assert stock(num_inference_steps=2, output_type="np").images.shape == (1, 16, 16, 1)


@pytest.mark.parametrize("build", [tiny_vq_model, tiny_taesd, tiny_dc])
def test_every_autoencoder_of_diffusers_serves(tmp_path, build):
    build(channels=1).save_pretrained(tmp_path / "vae")
    pipe = trained(tmp_path / "vae", tmp_path / "run", max_train_steps=1)
    assert type(pipe.vae) is type(build()) and pipe([1], output_type="pt").images.shape == (1, 1, 16, 16)


def test_the_result_of_our_autoencoder_training_serves(tmp_path):
    torch.manual_seed(0)
    model = VQVAEModel(
        sample_size=16, in_channels=1, num_embeddings=8, embedding_dim=4, hidden_channels=8, num_downsamples=1
    )
    AutoencoderPipeline(model).save_pretrained(tmp_path / "vae")
    pipe = trained(tmp_path / "vae", tmp_path / "run", max_train_steps=1, latent_scale="measured")
    assert isinstance(pipe.vae, VQVAEModel) and pipe.image_shape == (1, 16, 16)
    assert pipe.vae.config.scaling_factor != 1


# The step


def test_latents_are_drawn_and_scaled(vae):
    job = recipe(vae)
    job.latents.prepare(job.config)
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    draw = draw_of([0, 1])
    latents = job.latents.encode(images, draw)
    posterior = tiny_vae(channels=1, scaling_factor=0.6).encode(images).latent_dist
    expected = (posterior.mean + posterior.std * draw_of([0, 1]).normal(4, 8, 8)) * 0.6
    torch.testing.assert_close(latents, expected.detach(), rtol=1e-4, atol=1e-5)
    assert not latents.requires_grad


def draw_of(rows):
    return Draw(0, torch.device("cpu")).begin(0, rows)


@pytest.mark.parametrize("scale", ["measured", "per_channel"])
def test_a_measured_scale_brings_latents_to_unit_variance(tmp_path, vae, scale):
    pipe = trained(vae, tmp_path, latent_scale=scale, max_train_steps=1)
    job = recipe(tmp_path)  # with the published autoencoder
    assert job.latents.vae.config.get("latents_std") == pipe.vae.config.get("latents_std")
    job.dataset.prepare()
    job.latents.prepare(job.config)
    (batch,) = job.dataset.reference_batches(200, process_index=0, num_processes=1, limit=200)
    latents = job.latents.encode(batch["pixel_values"] / 127.5 - 1, draw_of(range(200)))
    if scale == "per_channel":
        torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(4), rtol=0.1, atol=0)
        torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(4), rtol=0, atol=0.1)
    else:
        assert latents.std().item() == pytest.approx(1, rel=0.1)


def test_the_autoencoder_stays_and_a_transformer_hides_no_labels_by_itself(tmp_path, vae):
    run = trainer(
        DiffusionRecipe, configuration(vae, tmp_path, denoiser="DiTTransformer2DModel", unet=DIT, label_dropout=0.0)
    )
    before = {name: tensor.clone() for name, tensor in run.recipe.latents.vae.state_dict().items()}
    run.start()
    run.update()
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.recipe.latents.vae.state_dict().items())
    transformer = run.recipe.network("unet").train()
    # If it hid labels, it would draw a number to decide this.
    state = torch.get_rng_state()
    transformer(torch.zeros(4, 4, 8, 8), torch.zeros(4), class_labels=torch.zeros(4, dtype=torch.int64))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_update_waits_for_nothing(tmp_path, vae):
    run = trainer(DiffusionRecipe, configuration(vae, tmp_path, denoiser="UNet2DConditionModel"))
    assert not waits_of_an_update(run)


# Runs


def test_a_cache_changes_no_loss_and_no_weight(tmp_path, vae):
    for name, options in (("without", {}), ("with", {"cache_latents": True}), ("again", {"cache_latents": True})):
        options |= {"latent_cache_dir": str(tmp_path / "cache")} if options else {}
        trained(vae, tmp_path / name, random_flip=True, **options)
    losses = {
        name: [line["loss"] for line in records(tmp_path / name) if "loss" in line]
        for name in ("without", "with", "again")
    }
    assert losses["without"] == losses["with"] == losses["again"] and len(losses["with"]) == 3
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) > 8
    expected = tensors(tmp_path / "without", 3)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors(tmp_path / "with", 3).items())


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, vae):
    options = {"max_train_steps": 4, "checkpointing_steps": 2, "denoiser": "UNet2DConditionModel"}
    trained(vae, tmp_path, **options)
    whole = tensors(tmp_path, 4)
    assert any(name.startswith("class_embedder") for name in whole)
    trained(vae, tmp_path, **options, resume_from_checkpoint="checkpoint-2")
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors(tmp_path, 4).items())


def test_a_run_goes_on_in_its_own_latents_only(tmp_path, vae):
    trained(vae, tmp_path / "run", max_train_steps=1)
    tiny_vae(seed=1, channels=1).save_pretrained(tmp_path / "other")
    config = configuration(tmp_path / "other", tmp_path / "run", max_train_steps=2, resume_from_checkpoint="latest")
    with pytest.raises(ValueError, match="vae"):
        trainer(DiffusionRecipe, config).start()


@pytest.mark.parametrize(
    "options",
    [pytest.param({"denoiser": "UNet2DConditionModel"}, marks=pytest.mark.slow), {}],
    ids=["context", "labels"],
)
def test_training_goes_on_from_a_published_model(tmp_path, vae, options):
    first = trained(vae, tmp_path / "first", **options)
    start = {"pretrained_model_name_or_path": str(tmp_path / "first"), "unet": {}, "learning_rate": 1e-12}
    second = trained(tmp_path / "first", tmp_path / "second", max_train_steps=1, **start)
    weight = next(iter(first.unet.state_dict()))
    torch.testing.assert_close(second.unet.state_dict()[weight], first.unet.state_dict()[weight])
    assert (second.class_embedder is None) == (not options)

    tiny_vae(seed=1, channels=1).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="--vae is not the autoencoder of --pretrained_model_name_or_path"):
        trainer(DiffusionRecipe, configuration(tmp_path / "other", **start))
    with pytest.raises(ValueError, match="makes latents: give --vae"):
        trainer(DiffusionRecipe, configuration(None, **start))
    with pytest.raises(OSError, match="--pretrained_model_name_or_path .* is no pipeline"):
        trainer(DiffusionRecipe, configuration(vae, **start | {"pretrained_model_name_or_path": str(vae)}))


def test_scaled_noise_levels_suit_epsilon(tmp_path, vae):
    pipe = trained(vae, tmp_path, prediction_type="epsilon", beta_schedule="scaled_linear", max_train_steps=1)
    assert pipe([1], output_type="pt").images.isfinite().all()


def test_a_cache_that_can_not_be_a_folder_is_refused_before_the_training(tmp_path, vae):
    (tmp_path / "file").touch()
    options = {"cache_latents": True, "latent_cache_dir": str(tmp_path / "file")}
    with pytest.raises(OSError, match="--latent_cache_dir .*file can't be made a folder"):
        trainer(DiffusionRecipe, configuration(vae, tmp_path / "run", **options)).start()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"denoiser": "UNet2DConditionModel"}, marks=pytest.mark.slow),
        {"denoiser": "DiTTransformer2DModel", "unet": DIT},
    ],
    ids=["context", "transformer"],
)
def test_a_student_works_in_the_latents_of_its_teacher(tmp_path, vae, options):
    trained(vae, tmp_path / "teacher", max_train_steps=1, num_inference_steps=10, **options)
    config = DistillationConfig(
        pretrained_teacher_model=str(tmp_path / "teacher"),
        dataset_name="digits",
        guidance_scale=2.0,
        max_train_steps=2,
        train_batch_size=4,
        lr_warmup_steps=0,
        output_dir=str(tmp_path / "student"),
    )
    run = trainer(distillation_recipe, config)
    if "unet" in options:  # a transformer of diffusers hides labels by itself, unless it is stopped
        embedder = run.recipe.network("unet").transformer_blocks[0].norm1.emb.class_embedder
        assert embedder.dropout_prob == 0
    assert run.train()
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "student")
    pipe.set_progress_bar_config(disable=True)
    assert pipe(["two"], output_type="pt").images.shape == (1, 1, 16, 16) and pipe.num_timesteps == 1
    assert (pipe.class_embedder is None) == (options["denoiser"] != "UNet2DConditionModel")


# Refusals


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"prediction_type": "epsilon"},
            "--prediction_type epsilon with --beta_schedule squaredcos_cap_v2 is not",
        ),
        ({"channels": 3}, "--vae encodes images of 1 channels: --channels must be that, not 3"),
        ({"resolution": [17]}, "--resolution must be a multiple of 2, the pixels of a latent"),
        ({"resolution": [18]}, r"--resolution must be a multiple of 4 for this network, not \(18, 18\)"),
        (
            {"denoiser": "DiTTransformer2DModel", "unet": DIT, "label_column": "none"},
            "--denoiser DiTTransformer2DModel needs images with classes",
        ),
        (
            {"denoiser": "DiTTransformer2DModel", "unet": DIT, "resolution": [16, 32]},
            "--resolution can't be 16 32",
        ),
        ({"denoiser": "DiTTransformer2DModel", "unet": {"num_layers": "many"}}, "--unet: DiTTransformer2DModel can't"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, vae, options, error):
    with pytest.raises(ValueError, match=error):
        trainer(DiffusionRecipe, configuration(vae, tmp_path, **options))


@pytest.mark.parametrize("name", ["latent_scale", "cache_latents", "latent_cache_dir"])
def test_options_of_latents_need_an_autoencoder(name):
    value = {"latent_scale": "measured", "cache_latents": True, "latent_cache_dir": "x"}[name]
    with pytest.raises(ValueError, match=f"--{name} is for --vae, which is not set"):
        DiffusionConfig(dataset_name="digits", **{name: value})


def test_autoencoders_that_are_none_are_refused(tmp_path):
    (tmp_path / "file.safetensors").touch()
    with pytest.raises(ValueError, match="--vae .* is a single file"):
        load_autoencoder(str(tmp_path / "file.safetensors"))
    with pytest.raises(OSError, match="--vae .*nothing can't be loaded"):
        load_autoencoder(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="--vae must encode images to maps of latents"):
        AutoencoderConv(sample_size=16, in_channels=1).save_pretrained(tmp_path / "vector")
        recipe(tmp_path / "vector")


def test_an_autoencoder_without_its_codebook_is_refused(tmp_path):
    tiny_vq_model(channels=1).save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["quantize.embedding.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match="--vae .* lacks 1 of its weights, among them quantize.embedding.weight"):
        load_autoencoder(str(tmp_path))


def test_latents_have_no_likelihood_of_pixels(tmp_path, vae, capsys):
    trained(vae, tmp_path, max_train_steps=1)
    options = {"pretrained_model_name_or_path": tmp_path, "dataset_name": "digits", "likelihoods": "ode"}
    with pytest.raises(SystemExit):
        evaluate_pipeline.main([f"--{name}={value}" for name, value in options.items()])
    assert "Likelihoods are measured for pixels, but this pipeline generates latents" in capsys.readouterr().err
