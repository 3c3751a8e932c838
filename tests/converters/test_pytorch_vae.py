"""The VanillaVAE of PyTorch-VAE."""

import torch

from diffusers_ext.converters import convert_pytorch_vae
from diffusers_ext.models import AutoencoderConv
from tests.converters.cases import assert_near, assert_refused, load_case
from tests.converters.originals import layer, random


@torch.no_grad()
def test_pytorch_vae():
    case = load_case("vae", "conv_vanilla")
    options = {name: case.config[name] for name in ("in_channels", "latent_dim", "hidden_dims")}
    model = convert_pytorch_vae({f"model.{key}": tensor for key, tensor in case.weights.items()}, **options)
    assert type(model) is AutoencoderConv and model.config.sample_size == 16
    posterior = model.encode(case.inputs["x"]).latent_dist
    assert_near(posterior.mean, case.outputs["mu"])
    assert_near(posterior.logvar, case.outputs["log_var"])
    assert_near(posterior.kl().mean()[None], case.outputs["kld"])
    assert_near(model.decode(case.inputs["z"]).sample, case.outputs["decoded_from_z"])
    latents = posterior.mean + posterior.std * case.inputs["eps"]
    assert_near(model.decode(latents).sample, case.outputs["reconstruction"])
    # the steps that batch norm counted, which older files don't have
    assert model.down_blocks[0].norm.num_batches_tracked == case.weights["encoder.0.1.num_batches_tracked"]
    old = {key: tensor for key, tensor in case.weights.items() if "num_batches" not in key}
    assert convert_pytorch_vae(old).down_blocks[0].norm.num_batches_tracked == 0


def test_another_network_is_refused():
    weights = random(layer("fc1", 12, 64))
    assert_refused(convert_pytorch_vae, weights, {}, "not a VanillaVAE of PyTorch-VAE: it has no encoder.0")
