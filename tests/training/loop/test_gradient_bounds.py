"""Limits for single values of gradients, as rosinality/igebm-pytorch has them."""

import pytest
import torch

from diffusers_ext.training.loop.flat_adamw import FlatAdamW
from diffusers_ext.training.loop.gradient_bounds import bound_gradients
from tests.converters.cases import load_case


@pytest.mark.parametrize("name", ["adam_bound_clipping", "adam_bound_clipping_5"])
@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, FlatAdamW])
def test_gradients_and_steps_are_those_of_the_original(name, optimizer_class):
    case = load_case("igebm", name)
    parameters = [torch.nn.Parameter(case.inputs[f"param{i}"].clone()) for i in range(2)]
    options = {"lr": case.config["lr"], "betas": case.config["betas"], "weight_decay": 0.0}
    optimizer = optimizer_class(parameters, **options)
    for step in range(case.config["steps"]):
        optimizer.zero_grad()
        loss = sum((p * case.inputs[f"grad{step}_{i}"]).sum() for i, p in enumerate(parameters))
        loss.backward()
        bound_gradients(optimizer, 3.0)
        for i, parameter in enumerate(parameters):
            torch.testing.assert_close(parameter.grad, case.outputs[f"clipped{step}_{i}"], rtol=1e-5, atol=1e-6)
        optimizer.step()
    for i, parameter in enumerate(parameters):
        torch.testing.assert_close(parameter.detach(), case.outputs[f"param_after{i}"], rtol=1e-5, atol=1e-6)
