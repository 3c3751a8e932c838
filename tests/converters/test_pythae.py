"""The autoencoders of pythae."""

import json

import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.converters import convert_checkpoint, convert_pythae
from diffusers_ext.models import AutoencoderConv, AutoencoderMLP, VQVAEModel
from diffusers_ext.pipelines import AutoencoderPipeline
from tests.converters.cases import assert_near, assert_refused, load_case
from tests.converters.originals import layer, random


PYTHAE = random(
    layer("encoder.layers.0.0", 8, 12)
    | layer("encoder.embedding", 2, 8)
    | layer("encoder.log_var", 2, 8)
    | layer("decoder.layers.0.0", 8, 2)
    | layer("decoder.layers.1.0", 12, 8)
)


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
    assert_near(posterior.mean, case.outputs["mu"])
    assert_near(posterior.logvar, case.outputs["log_var"])
    assert_near(posterior.kl().mean()[None], case.outputs["reg_loss"])
    assert_near(model.decode(case.inputs["z"]).sample, case.outputs["decoded_from_z"])
    latents = posterior.mean + posterior.std * case.inputs["eps"]
    assert_near(latents, case.outputs["z"])
    assert_near(model.decode(latents).sample, case.outputs["reconstruction"])


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
    assert_near(output.latents, case.outputs["embedding"])
    assert output.codes.flatten().equal(case.outputs["indices"].flatten())
    assert_near(model.quantize(output.latents).quantized, case.outputs["z"])
    assert_near(output.sample, case.outputs["reconstruction"])
    assert_near(output.loss.mean()[None], case.outputs["vq_loss"])
    if name == "mlp":
        options["quantization_loss_factor"] = 0.5
        halved = convert_pythae(case.weights, **options)(case.inputs["x"]).loss
        commitment = 0.25 * (output.loss / 1.25)  # the two distances are equal, and only their gradients differ
        torch.testing.assert_close(halved, commitment + 0.5 * (output.loss - commitment))
    if name == "mlp_ema_train":
        model.update_codebook(output.codes, output.latents)
        for ours, theirs in (("cluster_sizes", "cluster_size"), ("cluster_sums", "ema_embed")):
            assert_near(getattr(model.quantizer, ours), case.outputs[f"state_after.quantizer.{theirs}"])
        assert_near(model.quantizer.embeddings, case.outputs["state_after.quantizer.embeddings"])


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
        assert_near(model(sample)[ours], expected)
    latents = torch.randn(2, 4)
    hidden = F.linear(latents, weights["decoder.layers.0.weight"], weights["decoder.layers.0.bias"]).view(2, 6, 4, 4)
    for i in (1, 2, 3):
        hidden = convolve(F.conv_transpose2d, f"decoder.layers.{i}", hidden, output_padding=min(i - 1, 1))
    assert_near(model.decode(latents).sample, hidden)


@torch.no_grad()
def test_a_folder_of_pythae_becomes_a_pipeline(tmp_path):
    case = load_case("vqvae", "mlp_ema_train")
    (tmp_path / "run").mkdir()
    torch.save({"model_state_dict": case.weights}, tmp_path / "run" / "model.pt")
    config = {"name": "VQVAEConfig", **case.config, "commitment_loss_factor": 0.5, "uses_default_encoder": True}
    config["quantization_loss_factor"] = 2.0
    (tmp_path / "run" / "model_config.json").write_text(json.dumps(config))
    (tmp_path / "run" / "encoder.pkl").write_bytes(b"must not be opened")
    convert_checkpoint(tmp_path / "run", tmp_path / "out", "pythae")

    model = AutoencoderPipeline.from_pretrained(tmp_path / "out").autoencoder
    assert type(model) is VQVAEModel
    assert model.config.commitment_cost == 0.5 and model.config.ema_decay == 0.8
    assert model.config.codebook_cost == 2.0
    assert_near(model(case.inputs["x"]).sample, case.outputs["reconstruction"])


def test_what_a_run_of_pythae_leaves_open_is_read_from_its_tensors(tmp_path):
    """A configuration has no `input_dim` if a run has networks of the user's own."""
    torch.save({"model_state_dict": random(pythae_conv_shapes())}, tmp_path / "model.pt")
    (tmp_path / "model_config.json").write_text(json.dumps({"input_dim": None, "latent_dim": 4}))
    convert_checkpoint(tmp_path, tmp_path / "out", "pythae")
    config = AutoencoderPipeline.from_pretrained(tmp_path / "out").autoencoder.config
    assert tuple(config.sample_size) == (28, 28) and config.latent_dim == 4


@pytest.mark.parametrize(
    "weights, options, message",
    [
        (
            random(layer("fc1", 12, 64)),
            {"input_dim": (1, 8, 8)},
            "not an autoencoder of pythae: it has no enc",
        ),
        (PYTHAE, {}, r"`input_dim` must be given as \(channels, height, width\)"),
        (PYTHAE, {"input_dim": (12,)}, r"`input_dim` must be given .*, but is \(12,\)"),
        (PYTHAE, {"input_dim": (1, 4, 4)}, r"3 of another shape: .*\(8, 12\) instead of \(8, 16\)"),
        (PYTHAE, {"input_dim": (1, 3, 4), "latent_dim": 3}, "`latent_dim` is given as 3, but"),
    ],
)
def test_refusals(weights, options, message):
    assert_refused(convert_pythae, weights, options, message)
