"""The autoencoders of csinva, pythae, disentangling-vae, PyTorch-VAE and taming-transformers."""

import json

import pytest
import torch
import torch.nn.functional as F
from diffusers import VQModel

from diffusers_ext.converters import (
    convert_disentangling_vae,
    convert_mnist_mlp_vae,
    convert_pythae,
    convert_pytorch_vae,
    convert_vqgan,
)
from diffusers_ext.converters.folders import convert_checkpoint
from diffusers_ext.models import AutoencoderBurgess, AutoencoderConv, AutoencoderMLP, VQVAEModel
from diffusers_ext.pipelines import AutoencoderPipeline
from tests.converters.cases import load_case
from tests.converters.originals import first_stage_shapes, layer, random


def assert_equal(ours: torch.Tensor, original: torch.Tensor) -> None:
    """At 1e-5 of the largest."""
    original = original.view_as(ours)
    torch.testing.assert_close(ours, original, rtol=0, atol=1e-5 * original.abs().max().item())


def disentangling_shapes(channels: int = 1, size: int = 32, latent_dim: int = 10) -> dict:
    """The published ones are of these sizes too, save for their latents."""
    names = ["1", "2", "3"] + ["_64"] * (size == 64)
    shapes = {}
    for name in names:
        shapes |= layer(f"encoder.conv{name}", 32, channels if name == "1" else 32, 4, 4)
        shapes |= layer(f"decoder.convT{name}", 32, channels if name == "3" else 32, 4, 4)
        shapes[f"decoder.convT{name}.bias"] = (channels if name == "3" else 32,)
    shapes |= layer("encoder.lin1", 256, 512) | layer("encoder.lin2", 256, 256)
    shapes |= layer("encoder.mu_logvar_gen", 2 * latent_dim, 256)
    return (
        shapes
        | layer("decoder.lin1", 256, latent_dim)
        | layer("decoder.lin2", 256, 256)
        | layer("decoder.lin3", 512, 256)
    )


def mlp_shapes(num_pixels: int = 64, hidden: int = 12, latent_dim: int = 3) -> dict:
    shapes = layer("fc1", hidden, num_pixels) | layer("fc21", latent_dim, hidden) | layer("fc22", latent_dim, hidden)
    return shapes | layer("fc3", hidden, latent_dim) | layer("fc4", num_pixels, hidden)


def pythae_conv_shapes(latent_dim: int = 4, widths: tuple[int, ...] = (3, 4, 5, 6)) -> dict:
    """Its `Encoder_Conv_VAE_MNIST` and `Decoder_Conv_AE_MNIST`, narrower."""
    shapes = {}
    for i, (width_in, width_out) in enumerate(zip((1, *widths[:-1]), widths, strict=True)):
        shapes |= layer(f"encoder.layers.{i}.0", width_out, width_in, 4, 4)
        shapes |= batch_norm(f"encoder.layers.{i}.1", width_out)
    shapes |= layer("encoder.embedding", latent_dim, widths[-1]) | layer("encoder.log_var", latent_dim, widths[-1])
    shapes |= layer("decoder.layers.0", 16 * widths[-1], latent_dim)
    for i, (width_in, width_out) in enumerate(zip(widths[:0:-1], (*widths[-2:0:-1], 1), strict=True), 1):
        shapes |= {
            f"decoder.layers.{i}.0.weight": (width_in, width_out, 3, 3),
            f"decoder.layers.{i}.0.bias": (width_out,),
        }
        shapes |= batch_norm(f"decoder.layers.{i}.1", width_out) if width_out > 1 else {}
    return shapes


def batch_norm(name: str, channels: int) -> dict:
    return layer(name, channels) | {f"{name}.running_mean": (channels,), f"{name}.running_var": (channels,)}


@pytest.mark.parametrize("name", ["mlp_bce", "mlp_beta", "mlp_mse"])
@torch.no_grad()
def test_pythae_vae(name):
    case = load_case("vae", name)
    model = convert_pythae(case.weights, input_dim=case.config["input_dim"], latent_dim=case.config["latent_dim"])
    assert type(model) is AutoencoderMLP and not model.training
    assert model.config.sample_range == (0.0, 1.0)
    posterior = model.encode(case.inputs["x"]).latent_dist
    assert_equal(posterior.mean, case.outputs["mu"])
    assert_equal(posterior.logvar, case.outputs["log_var"])
    assert_equal(posterior.kl().mean()[None], case.outputs["reg_loss"])
    assert_equal(model.decode(case.inputs["z"]).sample, case.outputs["decoded_from_z"])
    latents = posterior.mean + posterior.std * case.inputs["eps"]
    assert_equal(latents, case.outputs["z"])
    assert_equal(model.decode(latents).sample, case.outputs["reconstruction"])


@pytest.mark.parametrize("name", ["mlp", "mlp_ema", "mlp_ema_train"])
@torch.no_grad()
def test_pythae_vqvae(name):
    case = load_case("vqvae", name)
    options = {
        key: case.config[key]
        for key in ("input_dim", "latent_dim", "num_embeddings", "use_ema", "decay")
        if key in case.config
    }
    model = convert_pythae(case.weights, **options)
    assert type(model) is VQVAEModel and model.config.use_ema == (name != "mlp")
    output = model(case.inputs["x"])
    assert_equal(output.latents, case.outputs["embedding"])
    assert output.codes.flatten().equal(case.outputs["indices"].flatten())
    assert_equal(model.quantize(output.latents).quantized, case.outputs["z"])
    assert_equal(output.sample, case.outputs["reconstruction"])
    assert_equal(output.loss.mean()[None], case.outputs["vq_loss"])
    if name == "mlp_ema_train":
        model.update_codebook(output.codes, output.latents)
        for ours, theirs in (("cluster_sizes", "cluster_size"), ("cluster_sums", "ema_embed")):
            assert_equal(getattr(model.quantizer, ours), case.outputs[f"state_after.quantizer.{theirs}"])
        assert_equal(model.quantizer.embeddings, case.outputs["state_after.quantizer.embeddings"])


@torch.no_grad()
def test_pytorch_vae():
    case = load_case("vae", "conv_vanilla")
    options = {name: case.config[name] for name in ("in_channels", "latent_dim", "hidden_dims")}
    model = convert_pytorch_vae({f"model.{key}": tensor for key, tensor in case.weights.items()}, **options)
    assert type(model) is AutoencoderConv and model.config.sample_size == 16
    posterior = model.encode(case.inputs["x"]).latent_dist
    assert_equal(posterior.mean, case.outputs["mu"])
    assert_equal(posterior.logvar, case.outputs["log_var"])
    assert_equal(posterior.kl().mean()[None], case.outputs["kld"])
    assert_equal(model.decode(case.inputs["z"]).sample, case.outputs["decoded_from_z"])
    latents = posterior.mean + posterior.std * case.inputs["eps"]
    assert_equal(model.decode(latents).sample, case.outputs["reconstruction"])
    # the steps that batch norm counted, which older files don't have
    assert model.down_blocks[0].norm.num_batches_tracked == case.weights["encoder.0.1.num_batches_tracked"]
    old = {key: tensor for key, tensor in case.weights.items() if "num_batches" not in key}
    assert convert_pytorch_vae(old).down_blocks[0].norm.num_batches_tracked == 0


@torch.no_grad()
def test_vqgan():
    case = load_case("vqgan", "f4_attention")
    weights = case.weights | {"loss.discriminator.main.0.weight": torch.ones(2), "loss.logvar": torch.zeros(())}
    model = convert_vqgan(weights, n_embed=32, embed_dim=6, **case.config["ddconfig"])
    assert type(model) is VQModel and model.config.sample_size == 32
    latents = model.encode(case.inputs["x"]).latents
    quantized, _, (_, _, codes) = model.quantize(latents)
    assert_equal(latents, case.outputs["pre_quant"])
    assert_equal(quantized, case.outputs["quant"])
    assert codes.flatten().equal(case.outputs["indices"].flatten())
    assert_equal(model(case.inputs["x"]).sample, case.outputs["reconstruction"])
    entries = model.quantize.get_codebook_entry(case.inputs["indices"], (2, 8, 8, 6))
    assert_equal(model.decode(entries).sample, case.outputs["decoded_from_indices"])


@torch.no_grad()
def test_mlp_vae_of_mnist():
    weights = random(mlp_shapes())
    model = convert_mnist_mlp_vae(weights, image_size=8)
    sample = torch.rand(2, 1, 8, 8)

    def linear(name, values):
        return F.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])

    hidden = linear("fc1", sample.flatten(1)).relu()
    posterior = model.encode(sample).latent_dist
    assert_equal(posterior.mean, linear("fc21", hidden))
    assert_equal(posterior.logvar, linear("fc22", hidden))
    latents = torch.randn(2, 3)
    assert_equal(model.decode(latents).sample, linear("fc4", linear("fc3", latents).relu()).sigmoid())


@pytest.mark.parametrize("channels, size", [(1, 32), (3, 64)])
@torch.no_grad()
def test_disentangling_vae(channels, size):
    weights = random(disentangling_shapes(channels, size))
    model = convert_disentangling_vae(weights, img_size=[channels, size, size], latent_dim=10, model_type="Burgess")
    assert type(model) is AutoencoderBurgess and model.config.sample_size == size

    def apply(function, name, values, **options):
        return function(values, weights[f"{name}.weight"], weights[f"{name}.bias"], **options)

    sample = hidden = torch.rand(2, channels, size, size)
    for name in ["conv1", "conv2", "conv3"] + ["conv_64"] * (size == 64):
        hidden = apply(F.conv2d, f"encoder.{name}", hidden, stride=2, padding=1).relu()
    hidden = apply(F.linear, "encoder.lin2", apply(F.linear, "encoder.lin1", hidden.flatten(1)).relu()).relu()
    mean, logvar = apply(F.linear, "encoder.mu_logvar_gen", hidden).view(2, 10, 2).unbind(-1)
    posterior = model.encode(sample).latent_dist
    assert_equal(posterior.mean, mean)
    assert_equal(posterior.logvar, logvar)

    latents = hidden = torch.randn(2, 10)
    for i in (1, 2, 3):
        hidden = apply(F.linear, f"decoder.lin{i}", hidden).relu()
    hidden = hidden.view(2, 32, 4, 4)
    for name in ["convT_64"] * (size == 64) + ["convT1", "convT2"]:
        hidden = apply(F.conv_transpose2d, f"decoder.{name}", hidden, stride=2, padding=1).relu()
    hidden = apply(F.conv_transpose2d, "decoder.convT3", hidden, stride=2, padding=1).sigmoid()
    assert_equal(model.decode(latents).sample, hidden)


@torch.no_grad()
def test_pythae_convolutional_vae_of_mnist():
    weights = random(pythae_conv_shapes())
    weights |= {key: tensor.abs() + 0.5 for key, tensor in weights.items() if key.endswith("running_var")}
    model = convert_pythae(weights)
    assert type(model) is AutoencoderConv

    def convolve(function, name, values, **options):
        values = function(
            values, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"], stride=2, padding=1, **options
        )
        if f"{name}.1.weight" not in weights:
            return values.sigmoid()
        kinds = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(values, *(weights[f"{name}.1.{kind}"] for kind in kinds)).relu()

    sample = hidden = torch.rand(2, 1, 28, 28)
    for i in range(4):
        hidden = convolve(F.conv2d, f"encoder.layers.{i}", hidden)
    for name, ours in (("embedding", "mean"), ("log_var", "logvar")):
        expected = F.linear(hidden.flatten(1), weights[f"encoder.{name}.weight"], weights[f"encoder.{name}.bias"])
        assert_equal(model(sample)[ours], expected)
    latents = torch.randn(2, 4)
    hidden = F.linear(latents, weights["decoder.layers.0.weight"], weights["decoder.layers.0.bias"]).view(2, 6, 4, 4)
    for i in (1, 2, 3):
        hidden = convolve(F.conv_transpose2d, f"decoder.layers.{i}", hidden, output_padding=min(i - 1, 1))
    assert_equal(model.decode(latents).sample, hidden)


@torch.no_grad()
def test_a_folder_of_pythae_becomes_a_pipeline(tmp_path):
    case = load_case("vqvae", "mlp_ema_train")
    (tmp_path / "run").mkdir()
    torch.save({"model_state_dict": case.weights}, tmp_path / "run" / "model.pt")
    config = {"name": "VQVAEConfig", **case.config, "commitment_loss_factor": 0.5, "uses_default_encoder": True}
    (tmp_path / "run" / "model_config.json").write_text(json.dumps(config))
    (tmp_path / "run" / "encoder.pkl").write_bytes(b"must not be opened")
    convert_checkpoint(tmp_path / "run", tmp_path / "out", "pythae")

    model = AutoencoderPipeline.from_pretrained(tmp_path / "out").autoencoder
    assert type(model) is VQVAEModel
    assert model.config.commitment_cost == 0.5 and model.config.ema_decay == 0.8
    assert_equal(model(case.inputs["x"]).sample, case.outputs["reconstruction"])


def test_what_a_run_of_pythae_leaves_open_is_read_from_its_tensors(tmp_path):
    """A configuration without `input_dim`, as it is with networks of one's own."""
    torch.save({"model_state_dict": random(pythae_conv_shapes())}, tmp_path / "model.pt")
    (tmp_path / "model_config.json").write_text(json.dumps({"input_dim": None, "latent_dim": 4}))
    convert_checkpoint(tmp_path, tmp_path / "out", "pythae")
    config = AutoencoderPipeline.from_pretrained(tmp_path / "out").autoencoder.config
    assert tuple(config.sample_size) == (28, 28) and config.latent_dim == 4


def test_specs_of_disentangling_vae_must_agree(tmp_path):
    torch.save(random(disentangling_shapes()), tmp_path / "model.pt")
    (tmp_path / "specs.json").write_text(json.dumps({"img_size": [1, 64, 64], "latent_dim": 10, "loss": "VAE"}))
    with pytest.raises(
        ValueError, match=r"`img_size` is given as \[1, 64, 64\], but the checkpoint has \[1, 32, 32\]"
    ):
        convert_checkpoint(tmp_path / "model.pt", tmp_path / "out", "disentangling_vae")
    (tmp_path / "specs.json").write_text("[1]")
    with pytest.raises(ValueError, match="specs.json must hold the configuration"):
        convert_checkpoint(tmp_path, tmp_path / "out", "disentangling_vae")
    (tmp_path / "specs.json").write_text("{")
    with pytest.raises(ValueError, match="specs.json is no JSON file"):
        convert_checkpoint(tmp_path, tmp_path / "out", "disentangling_vae")
    (tmp_path / "specs.json").unlink()
    convert_checkpoint(tmp_path, tmp_path / "out", "disentangling_vae")
    pipe = AutoencoderPipeline.from_pretrained(tmp_path / "out")
    assert type(pipe.autoencoder) is AutoencoderBurgess


def test_vqgan_becomes_a_stock_model(tmp_path):
    case = load_case("vqgan", "f4_attention")
    torch.save({"state_dict": {**case.weights, "loss.logvar": torch.zeros(())}, "epoch": 1}, tmp_path / "last.ckpt")
    written = convert_checkpoint(tmp_path / "last.ckpt", tmp_path / "out", "vqgan")
    assert "VQModel" in written and "resolution=256" in written
    assert VQModel.from_pretrained(tmp_path / "out").config.num_vq_embeddings == 32


PYTHAE = random(
    layer("encoder.layers.0.0", 8, 12)
    | layer("encoder.embedding", 2, 8)
    | layer("encoder.log_var", 2, 8)
    | layer("decoder.layers.0.0", 8, 2)
    | layer("decoder.layers.1.0", 12, 8)
)
STAGE = {"width": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "z_channels": 3, "embed_dim": 3}


@pytest.mark.parametrize(
    "convert, shapes, options, message",
    [
        (convert_mnist_mlp_vae, disentangling_shapes(), {}, "no MLP VAE of pytorch/examples: it has no fc1, but enc"),
        (convert_mnist_mlp_vae, mlp_shapes(63), {}, "of gray square images, but the checkpoint has 63 pixels"),
        (convert_mnist_mlp_vae, mlp_shapes(), {"image_size": 9}, "`image_size` is given as 9, but"),
        (convert_mnist_mlp_vae, mlp_shapes(), {"beta": 2}, "has no argument 'beta'"),
        (convert_mnist_mlp_vae, mlp_shapes() | {"fc5.bias": (2,)}, {}, "1 unknown: fc5.bias"),
        (convert_disentangling_vae, mlp_shapes(), {}, "no Burgess VAE of disentangling-vae: it has no encoder.mu_log"),
        (convert_disentangling_vae, disentangling_shapes(), {"model_type": "Higgins"}, "`model_type` is given as"),
        (convert_pytorch_vae, mlp_shapes(), {}, "no VanillaVAE of PyTorch-VAE: it has no encoder.0"),
        (convert_pythae, mlp_shapes(), {"input_dim": (1, 8, 8)}, "no autoencoder of pythae: it has no encoder.layers"),
        (convert_pythae, PYTHAE, {}, r"`input_dim` must be given as \(channels, height, width\)"),
        (convert_pythae, PYTHAE, {"input_dim": (12,)}, r"`input_dim` must be given .*, but is \(12,\)"),
        (convert_pythae, PYTHAE, {"input_dim": (1, 4, 4)}, r"3 of another shape: .*\(8, 12\) instead of \(8, 16\)"),
        (convert_pythae, PYTHAE, {"input_dim": (1, 3, 4), "latent_dim": 3}, "`latent_dim` is given as 3, but"),
        (convert_vqgan, mlp_shapes(), {}, "no VQGAN: it has no quantize, but fc1.weight"),
        (convert_vqgan, first_stage_shapes(**STAGE, n_embed=None), {}, "no VQGAN: it has no quantize"),
        (convert_vqgan, {"quantize.embed.weight": (2, 2)}, {}, "Gumbel softmax, which is not converted"),
        (convert_vqgan, first_stage_shapes(**STAGE, n_embed=7), {"n_embed": 8}, "`n_embed` is given as 8, but the"),
        (convert_vqgan, first_stage_shapes(**STAGE, n_embed=7), {"ch": 32, "ch_mult": (1, 1)}, "`ch_mult` is given"),
        (convert_vqgan, first_stage_shapes(**STAGE, n_embed=7), {"resolution": 32, "attn_resolutions": [16]}, "`attn"),
    ],
)  # fmt: skip
def test_refusals(convert, shapes, options, message):
    state_dict = {key: value if torch.is_tensor(value) else torch.zeros(value) for key, value in shapes.items()}
    with pytest.raises(ValueError, match=message) as refusal:
        convert(state_dict, **options)
    assert "\n" not in str(refusal.value)
