"""pytorch-AdaIN, and the feed-forward networks of one style of the examples of PyTorch."""

import pytest
import torch

from diffusers_ext.converters import (
    convert_adain,
    convert_checkpoint,
    convert_fast_neural_style,
    convert_torchvision_vgg,
)
from diffusers_ext.converters.naoto0804.adain import PARTS
from diffusers_ext.losses import gram_loss, gram_matrix, map_loss, statistics_loss
from diffusers_ext.models import VGG
from diffusers_ext.pipelines import StyleTransferPipeline
from diffusers_ext.pipelines.pipeline_style_transfer import give_colors
from tests.converters.cases import assert_near, assert_refused, load_case


@torch.no_grad()
def test_adain():
    case = load_case("adain", "net_alpha_half")
    network = convert_adain(case.weights)
    content, style = network.encode(case.inputs["content"]), network.encode(case.inputs["style"])
    assert_near(content[-1], case.outputs["content_feature"])
    assert_near(style[-1], case.outputs["style_feature"])
    assert_near(network.restyle(content[-1], style[-1]), case.outputs["adain"])
    output = network(case.inputs["content"], case.inputs["style"], strength=0.5).sample
    assert_near(output, case.outputs["decoded"])


@torch.no_grad()
def test_losses_of_adain():
    case = load_case("adain", "net_alpha_half")
    network = convert_adain(case.weights)
    output = network(case.inputs["content"], case.inputs["style"], strength=0.5)
    assert_near(output.target, case.outputs["mixed"])
    features = network.encode(output.sample)
    assert_near(map_loss(features[-1], output.target).mean(), case.outputs["loss_content"])
    assert_near(statistics_loss(features, output.style_features).mean(), case.outputs["loss_style"])


def test_losses_of_fast_neural_style():
    case = load_case("fast_neural_style", "perceptual_losses")
    network, used = convert_torchvision_vgg(case.weights), ["relu1_2", "relu2_2", "relu3_3", "relu4_3"]
    assert network.layers[-1] == "relu4_3"

    def see(name):
        maps = dict(zip(network.layers, network.encode(case.inputs[name] / 255), strict=True))
        return [maps[layer] for layer in used]

    case.inputs["y"].requires_grad_(True)
    own, wanted, grams = see("y"), see("x"), [gram_matrix(layer) for layer in see("style")]
    for name, gram in zip(used, grams, strict=True):
        assert_near(gram[0], case.outputs[f"gram_style.{name}"][0])
    content = case.config["content_weight"] * map_loss(own[1], wanted[1]).mean()
    style = case.config["style_weight"] * gram_loss(own, grams).mean()
    assert_near(content, case.outputs["content_loss"])
    assert_near(style, case.outputs["style_loss"])
    (gradient,) = torch.autograd.grad(content + style, case.inputs["y"])
    expected = case.outputs["grad_y"]
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


def test_vgg_of_torchvision(tmp_path):
    """A whole file has other names than the golden case, and a classifier, which is left out."""
    weights = load_case("fast_neural_style", "perceptual_losses").weights
    whole = {f"features.{key.split('.', 1)[1]}": tensor for key, tensor in weights.items()}
    torch.save({**whole, "classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg16.pth")
    assert convert_checkpoint(tmp_path / "vgg16.pth", tmp_path / "vgg", "torchvision_vgg").startswith("VGG in")
    network, expected = VGG.from_pretrained(tmp_path / "vgg"), convert_torchvision_vgg(weights)
    assert network.config.layers_per_block == [2, 2, 3, 3]
    for key, tensor in expected.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor)
    with_batch_norm = {**whole, "features.1.running_mean": torch.zeros(6)}
    assert_refused(convert_torchvision_vgg, with_batch_norm, {}, "without batch norm")
    with_gap = {key: tensor for key, tensor in whole.items() if not key.startswith("features.2.")}
    assert_refused(convert_torchvision_vgg, with_gap, {}, "lacks layers between features.0 and features.5")


def published(weights: dict) -> tuple[dict, dict]:
    """The two files: VGG, with layers after relu4_1, and the decoder."""
    encoder = {"31.weight": torch.zeros(2, 2, 3, 3), "31.bias": torch.zeros(2)}
    for key, tensor in weights.items():
        if key.startswith("enc_"):
            part, position, kind = key.split(".")
            encoder[f"{PARTS[int(part[-1])][0] + int(position)}.{kind}"] = tensor
    return encoder, {key.removeprefix("decoder."): t for key, t in weights.items() if key.startswith("decoder.")}


@torch.no_grad()
def test_published_files_of_adain_become_a_pipeline(tmp_path):
    case = load_case("adain", "net_alpha_half")
    for name, content in zip(("vgg", "decoder"), published(case.weights), strict=True):
        torch.save(content, tmp_path / f"{name}.pth")
    decoder, encoder = str(tmp_path / "decoder.pth"), str(tmp_path / "vgg.pth")
    written = convert_checkpoint(decoder, tmp_path / "out", "adain", encoder_file=encoder)
    assert written.startswith("StyleTransferPipeline in")
    pipe = StyleTransferPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    output = pipe(case.inputs["content"][:1], case.inputs["style"][:1], strength=0.5, output_type="pt").images
    assert_near(output, case.outputs["decoded"][:1].clamp(0, 1))
    with pytest.raises(ValueError, match="give the file of VGG as `encoder_file`"):
        convert_checkpoint(decoder, tmp_path / "other", "adain")


@pytest.mark.parametrize("name", ["coral", "coral_square"])
def test_colors_of_another_image(name):
    case = load_case("adain", name)
    transferred = give_colors(case.inputs["source"], case.inputs["target"])
    torch.testing.assert_close(transferred, case.outputs["transferred"], rtol=0, atol=1e-4)


@torch.no_grad()
def test_fast_neural_style(tmp_path):
    case = load_case("fast_neural_style", "transformer_net")
    expected = case.outputs["stylised"] / 255
    assert_near(convert_fast_neural_style(case.weights)(case.inputs["x"] / 255).sample, expected)
    # as files from before PyTorch 0.4 were saved
    old = {f"module.{key}": tensor for key, tensor in case.weights.items()}
    old |= {"module.in1.running_mean": torch.zeros(6), "module.res2.in1.running_var": torch.ones(12)}
    torch.save(old, tmp_path / "candy.pth")
    convert_checkpoint(tmp_path / "candy.pth", tmp_path / "candy", "fast_neural_style")
    network = StyleTransferPipeline.from_pretrained(tmp_path / "candy").generator
    assert_near(network(case.inputs["x"] / 255).sample, expected)


def test_other_networks_are_refused():
    adain, fast = load_case("adain", "net_alpha_half"), load_case("fast_neural_style", "transformer_net")
    assert_refused(convert_fast_neural_style, adain.weights, {}, "This is not a TransformerNet of fast_neural_style")
    assert_refused(convert_adain, fast.weights, {}, "This is not a Net of pytorch-AdaIN")
    assert_refused(convert_fast_neural_style, fast.weights, {"depth": 3}, "There is no argument 'depth'")
    missing = {key: tensor for key, tensor in fast.weights.items() if key != "in4.bias"}
    assert_refused(convert_fast_neural_style, missing, {}, "1 missing: in4.bias")
