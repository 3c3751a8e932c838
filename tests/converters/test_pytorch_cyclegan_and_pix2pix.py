"""The generators and discriminators of pytorch-CycleGAN-and-pix2pix."""

import pytest
import torch

from diffusers_ext.converters import (
    convert_checkpoint,
    convert_patch_discriminator,
    convert_resnet_generator,
    convert_translation_network,
    convert_unet_generator,
)
from diffusers_ext.models import PatchDiscriminator, ResnetGenerator, UNetGenerator
from diffusers_ext.pipelines import ImageTranslationPipeline
from tests.converters.cases import every_case, load_case


FAMILY = "pix2pix_cyclegan"


def outputs(case):
    return case.outputs["y"] if "y" in case.outputs else case.outputs["logits"]


def assert_golden(network, case):
    with torch.no_grad():
        found, expected = network(case.inputs["x"])[0], outputs(case)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def file_of(case, path, prefix=""):
    torch.save({prefix + key: tensor for key, tensor in case.weights.items()}, path)
    return path


@pytest.mark.parametrize("family, name", every_case(FAMILY))
def test_golden_outputs(family, name):
    case = load_case(family, name)
    assert_golden(convert_translation_network(case.weights), case)


@pytest.mark.parametrize(
    "name, expected",
    [
        (
            "unet128_batch_dropout",
            {"block_out_channels": (4, 8, 16, 32, 32, 32, 32), "in_channels": 1, "dropout": 0.5},
        ),
        ("resnet6_batch", {"num_blocks": 6, "base_channels": 6, "out_channels": 1, "normalization": "batch"}),
        ("resnet9_instance_dropout", {"num_blocks": 9, "dropout": 0.5, "normalization": "instance"}),
        ("patchgan_n4_batch", {"num_layers": 4, "in_channels": 4, "base_channels": 4, "normalization": "batch"}),
        ("patchgan_n3_instance", {"num_layers": 3, "normalization": "instance"}),
        ("pixel_batch", {"num_layers": 0, "in_channels": 6, "base_channels": 8}),
    ],
)
def test_the_tensors_tell_the_architecture(name, expected):
    config = convert_translation_network(load_case(FAMILY, name).weights).config
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize("family, name", every_case(FAMILY))
def test_a_tensor_more_or_less_or_of_another_shape_is_refused(family, name):
    weights = load_case(family, name).weights
    needed = [key for key in weights if key.endswith("weight")]
    with pytest.raises(ValueError, match="stranger"):
        convert_translation_network({**weights, "model.stranger.weight": torch.zeros(1)})
    last = [key for key in weights if key.endswith("weight")][-1]
    with pytest.raises(ValueError, match="of another shape"):
        convert_translation_network({**weights, last: torch.cat([weights[last], weights[last]], dim=-1)})
    for key in needed[::5]:
        with pytest.raises(ValueError):
            convert_translation_network({other: tensor for other, tensor in weights.items() if other != key})


@pytest.mark.parametrize(
    "name, key",
    [
        ("patchgan_n4_batch", "model.14.bias"),
        ("patchgan_n3_instance", "model.0.bias"),
        ("unet128_batch_dropout", "model.model.3.bias"),
        ("resnet6_batch", "model.23.bias"),
        ("pixel_batch", "net.0.bias"),
    ],
)
def test_biases_that_count_must_be_there(name, key):
    weights = dict(load_case(FAMILY, name).weights)
    del weights[key]
    with pytest.raises(ValueError, match=f"1 missing: {key}"):
        convert_translation_network(weights)


def test_counters_are_kept_and_may_be_missing():
    case = load_case(FAMILY, "patchgan_n4_batch")
    network = convert_patch_discriminator(case.weights)
    assert network.blocks[0].norm.num_batches_tracked == case.weights["model.3.num_batches_tracked"] > 0
    older = {key: tensor for key, tensor in case.weights.items() if not key.endswith("num_batches_tracked")}
    assert_golden(convert_patch_discriminator(older), case)


def zero_padded(weights):
    """The keys of a network of `padding_type` "zero", which has no layers of padding in its blocks."""
    moved = {"conv_block.1.": "conv_block.0.", "conv_block.6.": "conv_block.4."}
    for old, new in moved.items():
        weights = {key.replace(old, new): tensor for key, tensor in weights.items()}
    return weights


def test_blocks_without_layers_of_padding():
    weights = zero_padded(load_case(FAMILY, "resnet9_instance_dropout").weights)
    network = convert_resnet_generator(weights)
    assert network.config.padding_mode == "zeros" and network.config.dropout == 0.5
    with pytest.raises(ValueError, match="`padding_type` must be 'zero' for this checkpoint, but is 'reflect'"):
        convert_resnet_generator(weights, padding_type="reflect")


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("unet128_batch_dropout", {"ngf": 64}, "`ngf` is given as 64, but the checkpoint has 4"),
        ("unet128_batch_dropout", {"norm": "instance"}, "`norm` is given as instance, but the checkpoint has batch"),
        ("unet128_batch_dropout", {"n_blocks": 9}, "no argument 'n_blocks'"),
        ("resnet6_batch", {"use_dropout": True}, "`use_dropout` is given as True, but the checkpoint has False"),
        ("resnet6_batch", {"padding_type": "circular"}, "must be 'reflect' or 'replicate'"),
        ("pixel_batch", {"n_layers": 3}, "`n_layers` is given as 3, but the checkpoint has 0"),
        ("patchgan_n4_batch", {"norm": "group"}, "`norm` must be"),
    ],
)
def test_arguments_at_odds_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        convert_translation_network(load_case(FAMILY, name).weights, **arguments)


def test_other_networks_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="not a network of pix2pix or CycleGAN"):
        convert_translation_network({"main.0.weight": torch.zeros(4, 3, 4, 4)})
    with pytest.raises(ValueError, match="with filters against aliasing"):
        weights = {**load_case(FAMILY, "resnet6_batch").weights, "model.7.filt": torch.zeros(1)}
        convert_translation_network(weights)
    with pytest.raises(ValueError, match="not a residual network"):
        convert_resnet_generator(load_case(FAMILY, "pixel_batch").weights)
    with pytest.raises(ValueError, match="has none of these tensors"):
        convert_unet_generator(load_case(FAMILY, "pixel_batch").weights)


# Files


def test_a_parallel_generator_becomes_a_pipeline(tmp_path):
    case = load_case(FAMILY, "unet128_batch_dropout")
    file = file_of(case, tmp_path / "latest_net_G.pth", prefix="module.")
    written = convert_checkpoint(file, tmp_path / "out", "pix2pix")
    assert "ImageTranslationPipeline" in written and "assuming use_dropout=True" in written
    pipe = ImageTranslationPipeline.from_pretrained(tmp_path / "out")
    assert type(pipe.generator) is UNetGenerator and pipe.reverse_generator is None
    assert_golden(pipe.generator, case)
    image = case.inputs["x"].clamp(-1, 1) / 2 + 0.5
    assert pipe(image, output_type="pt").images.shape == (1, 3, 128, 128)


def test_two_generators_become_one_pipeline(tmp_path):
    case = load_case(FAMILY, "resnet9_instance_dropout")
    there, back = (file_of(case, tmp_path / f"latest_net_G_{letter}.pth") for letter in "AB")
    written = convert_checkpoint(there, tmp_path / "out", "cyclegan", reverse_file=back)
    assert "padding_type=reflect" in written
    pipe = ImageTranslationPipeline.from_pretrained(tmp_path / "out")
    assert type(pipe.reverse_generator) is ResnetGenerator
    for generator in (pipe.generator, pipe.reverse_generator):
        assert_golden(generator, case)
    other = file_of(load_case(FAMILY, "resnet6_batch"), tmp_path / "other.pth")  # three channels to one
    with pytest.raises(ValueError, match="`reverse_generator` must make"):
        convert_checkpoint(there, tmp_path / "more", "cyclegan", reverse_file=other)
    assert not (tmp_path / "more").exists()


def test_a_discriminator_becomes_a_folder(tmp_path):
    case = load_case(FAMILY, "patchgan_n4_batch")
    file = file_of(case, tmp_path / "latest_net_D.pth")
    convert_checkpoint(file, tmp_path / "out", "pix2pix")
    assert_golden(PatchDiscriminator.from_pretrained(tmp_path / "out"), case)
    with pytest.raises(ValueError, match="`reverse_file` is for generators"):
        convert_checkpoint(file, tmp_path / "more", "cyclegan", reverse_file=file)
    with pytest.raises(ValueError, match="this family has no presets"):
        convert_checkpoint(file, tmp_path / "more", "pix2pix", preset="facades")
