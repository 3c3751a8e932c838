"""Classifiers of wgrathwohl/JEM, whose logits are minus energies."""

import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.converters import convert_checkpoint, convert_jem
from diffusers_ext.pipelines import EnergyPipeline
from tests.converters.cases import assert_near, assert_refused, load_case, save


CASE = ("jem", "wideresnet_10_1")


def test_energies_and_chains_are_those_of_the_original(tmp_path):
    case = load_case(*CASE)
    convert_checkpoint(save(case, tmp_path / "jem.pt"), tmp_path / "out", "jem")
    pipe = EnergyPipeline.from_pretrained(tmp_path / "out")
    model, images, labels = pipe.model, case.inputs["x"], case.inputs["y"]
    assert_near(-model(images).class_energies, case.outputs["logits"])
    assert_near(-model(images).energy, case.outputs["log_density_x"])
    assert_near(-model(images, labels).energy, case.outputs["log_density_x_y"])
    for step, noise in enumerate(case.inputs["noise"]):
        moved = pipe.scheduler.perturb(images, step, noise).requires_grad_()
        (gradient,) = torch.autograd.grad(model(moved).energy.sum(), moved)
        if step == 0:
            assert_near(-gradient, case.outputs["grad_x"])
        images = pipe.scheduler.step(gradient, step, moved.detach(), noise).prev_sample
    assert_near(images, case.outputs["sgld"])
    unit = case.inputs["x"] / 2 + 0.5
    torch.testing.assert_close(pipe.classify(unit), case.outputs["logits"].softmax(dim=1), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_network_with_a_single_energy():
    case = load_case(*CASE)
    model, classifier = convert_jem(case.weights, uncond=True), convert_jem(case.weights)
    assert model.config.num_classes is None
    features = []
    for network in (model, classifier):
        network.proj_out.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    energy = model(case.inputs["x"]).energy
    classifier(case.inputs["x"])
    assert torch.equal(*features)
    weights = case.weights["energy_output.weight"], case.weights["energy_output.bias"]
    assert_near(-energy, F.linear(features[0], *weights))


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "act"])
def test_every_normalization_finds_its_tensors(norm):
    case = load_case(*CASE)
    places = {"f.bn1": 64}
    for stage, (before, after) in enumerate([(16, 16), (16, 32), (32, 64)], start=1):
        places |= {f"f.layer{stage}.0.bn1": before, f"f.layer{stage}.0.bn2": after}
    weights = dict(case.weights)
    for name, features in places.items():
        shape = (1, features, 1, 1) if norm == "act" else (features,)
        for tensor in ("loc", "scale") if norm == "act" else ("weight", "bias"):
            weights[f"{name}.{tensor}"] = torch.rand(shape) + 0.5
        if norm == "batch":
            weights |= {f"{name}.running_mean": torch.rand(features), f"{name}.running_var": torch.rand(features) + 1}
        if norm == "act":
            weights[f"{name}.initialized"] = torch.tensor(1, dtype=torch.uint8)
    model = convert_jem(weights, **({"norm": norm} if norm == "instance" else {}))
    assert model.config.normalization == {"act": "affine"}.get(norm, norm)
    last = model.norm_out
    hidden = torch.rand(2, 64, 3, 3)
    if norm == "act":
        assert_near(last(hidden), weights["f.bn1.scale"] * (hidden + weights["f.bn1.loc"]))
    else:
        assert torch.equal(last.weight, weights["f.bn1.weight"]) and torch.equal(last.bias, weights["f.bn1.bias"])


def test_other_networks_and_arguments():
    weights = load_case(*CASE).weights
    assert_refused(convert_jem, {"fc1.weight": torch.zeros(2, 2)}, {}, r"it has no f\.conv1")
    assert_refused(convert_jem, weights, {"depth": 28}, "`depth` is given as 28, but the checkpoint has 10")
    assert_refused(convert_jem, weights, {"norm": "batch"}, "missing: .*f.bn1")
