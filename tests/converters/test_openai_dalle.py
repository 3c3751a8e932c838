"""The discrete VAE of DALL-E: the original's outputs and losses, its pickled modules read without their code."""

import os
import pickle
import sys
import types

import pytest
import torch
from torch import nn

from diffusers_ext import DiscreteVAE
from diffusers_ext.converters import convert_checkpoint, convert_dalle_vae
from diffusers_ext.losses import logit_laplace_log_prob, uniform_kl
from diffusers_ext.models.modeling_discrete_vae import squeeze_pixels
from tests.converters.cases import assert_near, assert_refused, load_case


CASE = load_case("dalle", "dvae")


@torch.no_grad()
def test_codes_and_outputs_are_the_originals():
    model, image, expected = convert_dalle_vae(CASE.weights), CASE.inputs["image"], CASE.outputs
    output = model(image)
    assert_near(squeeze_pixels(image), expected["mapped"])
    assert_near(output.logits, expected["z_logits"])
    assert torch.equal(output.codes, expected["codes"])
    assert_near(output.statistics, expected["x_stats"])
    assert_near(output.sample.clamp(0, 1), expected["reconstruction"])
    decoded = model.decode(model.embed_codes(expected["codes"])).sample
    assert_near(decoded.clamp(0, 1), expected["reconstruction"])


@torch.no_grad()
def test_the_bound_of_relaxed_codes_is_the_papers():
    model, image, expected = convert_dalle_vae(CASE.weights), CASE.inputs["image"], CASE.outputs
    noise = -torch.log(-torch.log(CASE.inputs["gumbel_uniform"]))
    output = model(image, noise, CASE.config["temperature"])
    assert_near(output.statistics, expected["soft_x_stats"])
    assert_near(uniform_kl(output.logits), expected["kl_to_uniform"])
    log_prob = logit_laplace_log_prob(squeeze_pixels(image), output.statistics)
    torch.testing.assert_close(log_prob, expected["log_likelihood"], rtol=1e-5, atol=1e-3)


@pytest.fixture
def original(monkeypatch):
    """Modules of the names of the original's, so that pickles name them; only while a test writes files."""
    for name in ("dall_e", "dall_e.encoder", "dall_e.decoder", "dall_e.utils"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    def make(place: str, name: str) -> type:
        made = type(name, (nn.Module,), {"__module__": f"dall_e.{place}"})
        monkeypatch.setattr(sys.modules[f"dall_e.{place}"], name, made, raising=False)
        return made

    classes = {"Conv2d": make("utils", "Conv2d")}
    for place, name in (("encoder", "Encoder"), ("decoder", "Decoder")):
        classes |= {name: make(place, name), f"{name}Block": make(place, f"{name}Block")}
    return classes


def write_pickles(folder, classes: dict[str, type]) -> None:
    """What the original publishes: modules within modules, with parameters at the ends."""
    for part in ("encoder", "decoder"):
        whole = classes[part.capitalize()]()
        whole.device = torch.device("cpu")
        for key, tensor in CASE.weights.items():
            if key.startswith(f"{part}."):
                *path, name = key.split(".")[1:]
                module = whole
                for step in path:
                    if step not in module._modules:
                        kind = classes[f"{part.capitalize()}Block"] if "block_" in step else nn.Sequential
                        module.add_module(step, classes["Conv2d"]() if step in ("id_path", "conv") else kind())
                    module = module._modules[step]
                module.register_parameter(name, nn.Parameter(tensor))
        torch.save(whole, folder / f"{part}.pkl")


@torch.no_grad()
def test_pickled_modules_become_a_model(tmp_path, original, monkeypatch):
    write_pickles(tmp_path, original)
    monkeypatch.undo()  # reading needs none of these classes
    assert "dall_e" not in sys.modules
    written = convert_checkpoint(tmp_path / "encoder.pkl", tmp_path / "out", "dalle_vae")
    assert written == f"DiscreteVAE in {tmp_path / 'out'}"
    codes = DiscreteVAE.from_pretrained(tmp_path / "out")(CASE.inputs["image"]).codes
    assert torch.equal(codes, CASE.outputs["codes"])
    (tmp_path / "decoder.pkl").unlink()
    with pytest.raises(FileNotFoundError, match="decoder.pkl"):
        convert_checkpoint(tmp_path / "encoder.pkl", tmp_path / "no", "dalle_vae")


class Attack:
    def __reduce__(self):
        return os.system, ("echo attacked",)


def test_code_in_a_pickle_is_refused_and_not_executed(tmp_path, capfd):
    torch.save(Attack(), tmp_path / "encoder.pkl")
    (tmp_path / "decoder.pkl").write_bytes(pickle.dumps(Attack()))
    for name in ("encoder.pkl", "decoder.pkl"):
        with pytest.raises(ValueError, match="is damaged, or is not a pickled encoder or decoder of DALL-E"):
            convert_checkpoint(tmp_path / name, tmp_path / "out", "dalle_vae")
    assert "attacked" not in capfd.readouterr().out


def test_refusals():
    without = {key: tensor for key, tensor in CASE.weights.items() if "output" not in key}
    assert_refused(convert_dalle_vae, without, {}, "no size|missing|has no")
    assert_refused(convert_dalle_vae, {"encoder.blocks.input.w": torch.zeros(1)}, {}, "it has no decoder.blocks")


def test_the_published_size():
    with torch.device("meta"):
        model = DiscreteVAE()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 97_616_006  # 53,786,240 and 43,829,766, as the original's classes have
