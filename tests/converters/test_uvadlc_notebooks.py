"""Networks of phlippe/uvadlc_notebooks, with random weights: the trained ones are no part of this package."""

import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.converters import convert_checkpoint, convert_uvadlc_energy, convert_uvadlc_pixelcnn
from diffusers_ext.pipelines import AutoregressivePipeline, EnergyPipeline
from tests.converters.cases import assert_near, assert_refused
from tests.converters.originals import layer, random


def pixelcnn_shapes(features: int = 4, levels: int = 6, blocks: int = 2) -> dict:
    shapes = layer("conv_vstack.conv", features, 1, 3, 3) | layer("conv_hstack.conv", features, 1, 1, 3)
    for index in range(blocks):
        name = f"conv_layers.{index}"
        shapes |= layer(f"{name}.conv_vert.conv", 2 * features, features, 3, 3)
        shapes |= layer(f"{name}.conv_horiz.conv", 2 * features, features, 1, 3)
        shapes |= layer(f"{name}.conv_vert_to_horiz", 2 * features, 2 * features, 1, 1)
        shapes |= layer(f"{name}.conv_horiz_1x1", features, features, 1, 1)
    return shapes | layer("conv_out", levels, features, 1, 1)


def original(weights: dict, image: torch.Tensor, dilations: tuple[int, ...]) -> torch.Tensor:
    """What the notebook computes: full kernels times masks."""

    def conv(name, hidden, dilation=1, mask=None):
        weight = weights[f"{name}.weight"]
        weight = weight if mask is None else weight * mask
        padding = tuple(dilation * (size - 1) // 2 for size in weight.shape[2:])
        return F.conv2d(hidden, weight, weights[f"{name}.bias"], padding=padding, dilation=dilation)

    def gate(hidden):
        values, gates = hidden.chunk(2, dim=1)
        return values.tanh() * gates.sigmoid()

    above, to_own_row = torch.zeros(3, 3), torch.ones(3, 3)
    above[0], to_own_row[2] = 1, 0
    before, to_own = torch.tensor([[1.0, 0, 0]]), torch.tensor([[1.0, 1, 0]])
    vertical, horizontal = conv("conv_vstack.conv", image, mask=above), conv("conv_hstack.conv", image, mask=before)
    for index, dilation in enumerate(dilations):
        name = f"conv_layers.{index}"
        seen = conv(f"{name}.conv_vert.conv", vertical, dilation, to_own_row)
        row = conv(f"{name}.conv_horiz.conv", horizontal, dilation, to_own)
        vertical, row = gate(seen), gate(row + conv(f"{name}.conv_vert_to_horiz", seen))
        horizontal = horizontal + conv(f"{name}.conv_horiz_1x1", row)
    return conv("conv_out", F.elu(horizontal))


@torch.no_grad()
def test_a_gated_pixelcnn_computes_what_the_notebook_does(tmp_path):
    weights, image = random(pixelcnn_shapes()), torch.rand(2, 1, 7, 5) * 2 - 1
    masks = {"conv_vstack.mask": torch.ones(1, 1, 3, 3), "conv_layers.0.conv_vert.mask": torch.ones(1, 1, 3, 3)}
    model = convert_uvadlc_pixelcnn({**weights, **masks}, dilations=[1, 2])
    assert_near(model(image).parameters, original(weights, image, (1, 2)))

    torch.save({"state_dict": {**weights, **masks}}, tmp_path / "PixelCNN.ckpt")
    written = convert_checkpoint(
        tmp_path / "PixelCNN.ckpt", tmp_path / "out", "uvadlc_pixelcnn", image_size=6, dilations=[1, 2]
    )
    assert written == f"AutoregressivePipeline in {tmp_path / 'out'}"
    pipe = AutoregressivePipeline.from_pretrained(tmp_path / "out")
    assert pipe.image_shape == (1, 6, 6) and pipe.model.config.num_levels == 6


@pytest.mark.parametrize(
    "changes, options, message",
    [
        ({}, {}, "`dilations` must be 2 numbers, one for each block"),
        ({"conv_out.bias": (7,)}, {"dilations": [1, 2]}, "does not fit the network"),
        ({"fc.bias": (7,)}, {"dilations": [1, 2]}, "1 unknown: fc.bias"),
    ],
)
def test_refusals(changes, options, message):
    weights = {key: torch.zeros(shape) for key, shape in {**pixelcnn_shapes(), **changes}.items()}
    assert_refused(convert_uvadlc_pixelcnn, weights, options, message)


def test_another_network():
    assert_refused(convert_uvadlc_pixelcnn, {"0.weight": torch.zeros(2, 2)}, {}, "it has no conv_vstack")


def energy_shapes() -> dict:
    shapes, channels = {}, (1, 3, 4, 5, 5)
    for index, size in enumerate((5, 3, 3, 3)):
        shapes |= layer(f"cnn.cnn_layers.{2 * index}", channels[index + 1], channels[index], size, size)
    return shapes | layer("cnn.cnn_layers.9", 6, 5 * 4) | layer("cnn.cnn_layers.11", 1, 6)


@torch.no_grad()
def test_an_energy_based_model_computes_what_the_notebook_does(tmp_path):
    weights = random(energy_shapes())
    hidden = image = torch.rand(2, 1, 28, 28) * 2 - 1
    for index in range(4):
        name = f"cnn.cnn_layers.{2 * index}"
        padding = 4 if index == 0 else 1
        hidden = F.silu(F.conv2d(hidden, weights[f"{name}.weight"], weights[f"{name}.bias"], 2, padding))
    hidden = F.silu(F.linear(hidden.flatten(1), weights["cnn.cnn_layers.9.weight"], weights["cnn.cnn_layers.9.bias"]))
    expected = F.linear(hidden, weights["cnn.cnn_layers.11.weight"], weights["cnn.cnn_layers.11.bias"])

    torch.save({"state_dict": weights}, tmp_path / "MNIST.ckpt")
    convert_checkpoint(tmp_path / "MNIST.ckpt", tmp_path / "out", "uvadlc_energy")
    pipe = EnergyPipeline.from_pretrained(tmp_path / "out")
    assert pipe.image_shape == (1, 28, 28) and len(pipe.scheduler.timesteps) == 256
    assert_near(-pipe.model(image).energy, expected)
    assert_near(-pipe.energy(image / 2 + 0.5), expected)


def test_another_energy_based_model():
    assert_refused(convert_uvadlc_energy, {"0.weight": torch.zeros(2, 2)}, {}, r"it has no cnn_layers\.0")
    weights = {key: torch.zeros(shape) for key, shape in energy_shapes().items()}
    assert_refused(convert_uvadlc_energy, weights, {"image_size": 40}, "does not fit the network")
