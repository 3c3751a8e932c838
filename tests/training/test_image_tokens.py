"""Transformers of image tokens train, resume and are published; and what does not fit is refused."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from diffusers_ext import MaskGITPipeline, TokensToImagePipeline, VQVAEModel
from diffusers_ext.losses import uniform_kl
from diffusers_ext.training.train_image_tokens import ImageTokenConfig, image_token_recipe
from diffusers_ext.training.train_maskgit import MaskGITConfig, MaskGITRecipe
from tests.tiny_autoencoders import tiny_vae, tiny_vq_model
from tests.training import runs
from tests.training.runs import context, steps, tensors, weights
from tests.training.text_to_image_runs import run_on_one_and_two_processes


DALLE = Path(__file__).parent / "golden" / "dalle_pytorch" / "full_attention_axial_positions" / "case.safetensors"
OPTIONS = {
    "dataset_name": "digits",
    "resolution": [8],
    "channels": 1,
    "class_conditional": True,
    "max_train_steps": 4,
    "train_batch_size": 8,
    "checkpointing_steps": 2,
    "num_evaluation_samples": 20,
}
BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
GPT = {"n_embd": 8, "n_layer": 1, "n_head": 2}
RECIPES = {
    "maskgit": (MaskGITRecipe, MaskGITConfig, BERT, MaskGITPipeline),
    "tokens": (image_token_recipe, ImageTokenConfig, GPT, TokensToImagePipeline),
}


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """The folder of a small VQ-VAE of digits."""
    torch.manual_seed(0)
    model = VQVAEModel(8, 1, num_embeddings=16, embedding_dim=4, hidden_channels=8, num_residual_layers=0)
    with torch.no_grad():
        model.quantizer.embeddings.normal_()
    folder = tmp_path_factory.mktemp("vqvae")
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """A folder of images with captions."""
    folder = tmp_path_factory.mktemp("captioned")
    lines = []
    for row, level in enumerate(range(0, 256, 32)):
        Image.new("L", (8, 8), level).save(folder / f"{row}.png")
        lines.append(json.dumps({"file_name": f"{row}.png", "text": "a dark one" if level < 128 else "bright"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return {"dataset_name": None, "train_data_dir": str(folder), "caption_column": "text", "class_conditional": False}


def configuration(kind: str, output_dir, vae: str, **options):
    _, config_class, transformer, _ = RECIPES[kind]
    return config_class(
        **{**OPTIONS, "transformer": transformer, "vae": vae, "output_dir": str(output_dir), **options}
    )


def trainer(kind: str, output_dir, vae: str, **options):
    return runs.trainer(RECIPES[kind][0], configuration(kind, output_dir, vae, **options))


@pytest.mark.parametrize("options", [{}, {"class_conditional": False}, {"label_dropout": 0.0, "cache_latents": True}])
@pytest.mark.parametrize("kind", RECIPES)
def test_every_kind_of_model_learns(tmp_path, vae, kind, options):
    run = trainer(kind, tmp_path, vae, **options)
    before = weights(run.networks["transformer"])
    first, second = steps(run, 2)
    assert not torch.equal(weights(run.networks["transformer"]), before)
    assert first["loss"] > 0 and second["grad_norm"] > 0
    assert (tmp_path / "cache").exists() == options.get("cache_latents", False)


def test_it_learns_from_captions(tmp_path, vae, captioned):
    run = trainer("tokens", tmp_path, vae, **captioned)
    values, _ = steps(run, 2)
    assert values["loss"] == pytest.approx(values["text_loss"] / 8 + values["image_loss"] * 7 / 8, rel=1e-5)
    recipe = run.recipe
    assert recipe.prefix_length == recipe.tokenizer.model_max_length
    pipe = recipe.pipeline(run.networks["transformer"])
    images = pipe("a dark one", num_images_per_prompt=2, guidance_scale=2.0, output_type="pt").images
    assert images.shape == (2, 1, 8, 8)


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path, vae, captioned):
    given = {**OPTIONS, **captioned, "vae": vae, "transformer": GPT, "dropout": 0.0}
    options = {name: value for name, value in given.items() if name not in ("dataset_name", "class_conditional")}
    one, two = run_on_one_and_two_processes("train_image_tokens", options, tmp_path)
    found = tensors(two, 4)
    for name, tensor in tensors(one, 4).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_losses_are_those_of_dalle_pytorch(tmp_path, captioned):
    """Of 20 tokens of texts, 6 that fill up positions, and 24 codes."""
    case = load_file(DALLE)
    VQVAEModel(8, 1, num_embeddings=24, embedding_dim=4, hidden_channels=8).save_pretrained(tmp_path / "vae")
    run = trainer("tokens", tmp_path / "run", str(tmp_path / "vae"), **captioned)
    steps(run, 1)
    text, filling = case["inputs.text"], 20 + torch.arange(6)
    prefix = 24 + torch.where(text == 0, filling, text)
    prefix = torch.cat([prefix[:, :1], prefix], dim=1)  # the first token is no target
    logits = case["outputs.logits"].roll(24, dims=2)  # there the codes come last in the vocabulary
    loss = run.recipe.losses(logits, prefix, case["outputs.codes"])
    torch.testing.assert_close(loss.mean(), case["outputs.loss"])

    # there the weight of the divergence, 0.01, is for the sum over the batch
    error = (case["outputs.vae_reconstruction"] - (2 * case["inputs.image"] - 1)).square().mean()
    kl = uniform_kl(case["outputs.vae_logits"]).sum()
    torch.testing.assert_close(error + 0.01 * kl, case["outputs.vae_loss"])


def test_codes_of_the_cache_are_those_of_the_batch(tmp_path, vae):
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = []
    for options in ({}, {"cache_latents": True}, {"cache_latents": True}):
        run = trainer("maskgit", tmp_path, vae, **options)
        run.recipe.before_training()
        codes.append(run.recipe.image_codes({"pixel_values": images}))
    assert codes[0].shape == (5, 4) and torch.equal(codes[0], codes[1]) and torch.equal(codes[0], codes[2])


@pytest.mark.parametrize("kind", RECIPES)
def test_a_uniform_transformer_has_the_loss_of_a_uniform_guess(tmp_path, vae, kind):
    run = trainer(kind, tmp_path, vae, max_grad_norm=0.0)
    for parameter in run.networks["transformer"].parameters():
        parameter.data.zero_()
    (values,) = steps(run, 1)
    assert values["loss"] == pytest.approx(2.7726, abs=1e-4)  # ln 16


@pytest.fixture(scope="module", params=RECIPES)
def trained(request, tmp_path_factory, vae):
    folder = tmp_path_factory.mktemp(request.param)
    assert trainer(request.param, folder, vae, feature_extractor="digits").train()
    return request.param, folder


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, vae, trained):
    kind, folder = trained
    stopped = trainer(kind, tmp_path, vae, feature_extractor="digits")
    steps(stopped, 2)
    stopped._started = 0.0
    stopped._save()
    assert trainer(kind, tmp_path, vae, feature_extractor="digits", resume_from_checkpoint="latest").train()
    expected, found = tensors(folder, 4), tensors(tmp_path, 4)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_two_processes_train_a_maskgit_like_one(tmp_path, vae):
    """With the same images in each step; the order of additions differs."""
    transformer = {**BERT, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = {**OPTIONS, "resolution": 8, "vae": vae, "transformer": transformer}
    for processes in (1, 2):
        runs.train_in_processes("train_maskgit", options, tmp_path / str(processes), processes)
    one, two = tensors(tmp_path / "1", 4), tensors(tmp_path / "2", 4)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_a_run_leaves_a_pipeline_which_loads_in_both_ways(trained):
    kind, folder = trained

    def images(pipe):
        generator = torch.Generator().manual_seed(0)
        return pipe(class_labels=["three"], generator=generator, output_type="pt").images

    pipe = RECIPES[kind][3].from_pretrained(folder)
    other = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    assert type(other).__module__ != type(pipe).__module__
    assert torch.equal(images(other), images(pipe)) and images(pipe).shape == (1, 1, 8, 8)


def test_a_run_leaves_its_measures_and_a_card(trained):
    _, folder = trained
    rows = json.loads((folder / "metrics.json").read_text())["evaluations"]
    assert [row["provenance"]["guidance_scale"] for row in rows] == [1.0, 2.0]
    assert all({"fid", "accuracy"} <= row.keys() for row in rows)
    card = (folder / "README.md").read_text()
    assert "images = pipe(class_labels=['zero', 'one'], num_images_per_label=4).images" in card
    assert "VQVAEModel" in card


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("maskgit", {"vae": None}, "--vae must name an autoencoder with a codebook"),
        ("maskgit", {"label_dropout": 1.0}, "--label_dropout must be in"),
        ("maskgit", {"label_smoothing": 1.0}, "--label_smoothing must be in"),
        ("maskgit", {"resolution": [9]}, "--resolution must be a multiple of 4, the pixels of a code"),
        ("maskgit", {"channels": 3}, "--vae encodes images of 1 channels: --channels must be that, not 3"),
        ("maskgit", {"transformer": {"n_embd": 8}}, "--transformer: BertConfig has no argument 'n_embd'"),
        ("tokens", {"transformer": {"vocab_size": 9}}, "--transformer: vocab_size is 27"),
        ("tokens", {"transformer": {"n_embd": 9, "n_head": 2}}, "--transformer: "),
        ("tokens", {"caption_column": "text"}, "--caption_column and --class_conditional exclude each other"),
        ("tokens", {"caption_dropout": 0.2}, "--caption_dropout is for --caption_column"),
    ],
)
def test_bad_options_are_refused_at_once(tmp_path, vae, kind, options, message):
    with pytest.raises(ValueError, match=message):
        config = configuration(kind, tmp_path, **{"vae": vae, **options})
        RECIPES[kind][0](config, context()).networks()


def test_an_autoencoder_without_codes_is_refused(tmp_path):
    tiny_vae(channels=1).save_pretrained(tmp_path / "kl")
    with pytest.raises(ValueError, match="--vae must make one map of codes of each image.*AutoencoderKL"):
        MaskGITRecipe(configuration("maskgit", tmp_path, str(tmp_path / "kl")), context())


def test_a_vq_model_of_diffusers_gives_tokens(tmp_path):
    tiny_vq_model(channels=1).save_pretrained(tmp_path / "vq")
    recipe = MaskGITRecipe(configuration("maskgit", tmp_path, str(tmp_path / "vq")), context())
    recipe.before_training()
    images = torch.rand(3, 1, 8, 8) * 2 - 1
    codes = recipe.image_codes({"pixel_values": images})
    assert codes.shape == (3, 16) and codes.max() < 16
    with torch.no_grad():
        expected = recipe.tokens.vqvae(images).sample
    torch.testing.assert_close(recipe.tokens.decode(codes.view(3, 4, 4)), expected, rtol=0, atol=1e-5)
