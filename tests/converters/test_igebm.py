"""Energy-based models of rosinality/igebm-pytorch, whose images are in [0, 1]."""

import pytest
import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from diffusers_ext.converters import convert_checkpoint, convert_igebm
from diffusers_ext.losses import contrastive_divergence_loss
from diffusers_ext.pipelines import EnergyPipeline
from tests.converters.cases import assert_near, assert_refused, every_case, load_case, save


NETWORKS = [case for case in every_case("igebm") if case.id.endswith("conditional")]


def gradient_of(model, images, labels) -> torch.Tensor:
    images = images.detach().requires_grad_()
    return torch.autograd.grad(model(images, labels).energy.sum(), images)[0]


@pytest.mark.parametrize("family, name", NETWORKS)
def test_energies_gradients_and_losses_are_those_of_the_original(family, name):
    case = load_case(family, name)
    model, images, labels = convert_igebm(case.weights), 2 * case.inputs["x"] - 1, case.inputs.get("class_id")
    assert model.config.num_classes == case.config["n_class"]
    assert_near(model(images, labels).energy, case.outputs["energy"])
    assert_near(2 * gradient_of(model, images, labels), case.outputs["grad_x"])

    model.train()
    model(images, labels)
    assert_near(model.conv_in.u, case.outputs["u_after.conv1.weight_u"])
    assert_near(model.blocks[0].conv2.u, case.outputs["u_after.blocks.0.conv2.weight_u"])


@pytest.mark.parametrize("family, name", NETWORKS)
def test_a_chain_is_that_of_the_original_if_the_network_moves_with_it(tmp_path, family, name):
    case = load_case(family, name)
    convert_checkpoint(save(case, tmp_path / "igebm.pt"), tmp_path / "out", "igebm")
    pipe = EnergyPipeline.from_pretrained(tmp_path / "out")
    model, scheduler = pipe.model.train(), pipe.scheduler
    images, labels = 2 * case.inputs["x"] - 1, case.inputs.get("class_id")
    for noise, expected in zip(case.inputs["noise"], case.outputs["chain"], strict=True):
        images = scheduler.perturb(images, 0, noise)
        output = scheduler.step(gradient_of(model, images, labels), 0, images, noise)
        assert isinstance(output, SchedulerOutput)
        images = output.prev_sample
        assert_near(images / 2 + 0.5, expected)
    # from there, the loss: the network's vectors are those of the file again
    model = convert_igebm(case.weights).train()
    real, fake = model(2 * case.inputs["x"] - 1, labels).energy, model(images, labels).energy
    loss = contrastive_divergence_loss(real, fake, case.config["alpha"]).mean()
    assert_near(loss, case.outputs["loss"])
    loss.backward()
    assert_near(model.proj_out.weight.grad, case.outputs["grad_linear_weight"])
    assert_near(model.conv_in.weight.grad, case.outputs["grad_conv1_weight_orig"])


def test_in_eval_mode_a_chain_leaves_the_network_as_it_is(tmp_path):
    case = load_case("igebm", "class_conditional")
    convert_checkpoint(save(case, tmp_path / "igebm.pt"), tmp_path / "out", "igebm", image_size=16)
    pipe = EnergyPipeline.from_pretrained(tmp_path / "out")
    before = {name: tensor.clone() for name, tensor in pipe.model.state_dict().items()}
    pipe(class_labels=[0, 4], num_inference_steps=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pipe.model.state_dict().items())
    with pytest.raises(ValueError, match="`class_labels` must be given"):
        pipe()


def test_other_networks_and_arguments():
    weights = load_case("igebm", "class_conditional").weights
    assert_refused(convert_igebm, {"fc1.weight": torch.zeros(2, 2)}, {}, "it has no conv1")
    assert_refused(convert_igebm, weights, {"n_class": 6}, "`n_class` is given as 6, but the checkpoint has 5")
    assert_refused(convert_igebm, {**weights, "x.bias": torch.zeros(2)}, {}, "1 unknown: x.bias")
    del weights["blocks.2.conv2.weight_u"]
    assert_refused(convert_igebm, weights, {}, "1 missing: blocks.2.conv2.weight_u")
