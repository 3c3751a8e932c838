"""The VAE of disentangling-vae."""

import json

import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.converters import convert_checkpoint, convert_disentangling_vae
from diffusers_ext.models import AutoencoderBurgess
from diffusers_ext.pipelines import AutoencoderPipeline
from tests.converters.cases import assert_near, assert_refused
from tests.converters.originals import layer, random


def disentangling_shapes(channels: int = 1, size: int = 32, latent_dim: int = 10) -> dict:
    """The published ones have these sizes too, except for the latents."""
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
    assert_near(posterior.mean, mean)
    assert_near(posterior.logvar, logvar)

    latents = hidden = torch.randn(2, 10)
    for i in (1, 2, 3):
        hidden = apply(F.linear, f"decoder.lin{i}", hidden).relu()
    hidden = hidden.view(2, 32, 4, 4)
    for name in ["convT_64"] * (size == 64) + ["convT1", "convT2"]:
        hidden = apply(F.conv_transpose2d, f"decoder.{name}", hidden, stride=2, padding=1).relu()
    hidden = apply(F.conv_transpose2d, "decoder.convT3", hidden, stride=2, padding=1).sigmoid()
    assert_near(model.decode(latents).sample, hidden)


def test_specs_of_disentangling_vae_must_agree(tmp_path):
    torch.save(random(disentangling_shapes()), tmp_path / "model.pt")
    (tmp_path / "specs.json").write_text(json.dumps({"img_size": [1, 64, 64], "latent_dim": 10, "loss": "VAE"}))
    with pytest.raises(
        ValueError, match=r"`img_size` is given as \[1, 64, 64\], but the checkpoint has \[1, 32, 32\]"
    ):
        convert_checkpoint(tmp_path / "model.pt", tmp_path / "out", "disentangling_vae")
    (tmp_path / "specs.json").write_text("[1]")
    with pytest.raises(ValueError, match="specs.json must hold the settings"):
        convert_checkpoint(tmp_path, tmp_path / "out", "disentangling_vae")
    (tmp_path / "specs.json").write_text("{")
    with pytest.raises(ValueError, match="specs.json is not a JSON file"):
        convert_checkpoint(tmp_path, tmp_path / "out", "disentangling_vae")
    (tmp_path / "specs.json").unlink()
    convert_checkpoint(tmp_path, tmp_path / "out", "disentangling_vae")
    pipe = AutoencoderPipeline.from_pretrained(tmp_path / "out")
    assert type(pipe.autoencoder) is AutoencoderBurgess


@pytest.mark.parametrize(
    "shapes, options, message",
    [
        (layer("fc1", 12, 64), {}, "not a Burgess VAE of disentangling-vae: it has no encoder.mu_log"),
        (disentangling_shapes(), {"model_type": "Higgins"}, "`model_type` is given as"),
    ],
)
def test_refusals(shapes, options, message):
    state_dict = {key: torch.zeros(shape) for key, shape in shapes.items()}
    assert_refused(convert_disentangling_vae, state_dict, options, message)
