"""The networks of yunjey/stargan."""

import pytest
import torch

from diffusers_ext.converters import convert_checkpoint, convert_stargan_discriminator, convert_stargan_generator
from diffusers_ext.converters.listing import families
from diffusers_ext.models import StarGANDiscriminator, StarGANGenerator
from diffusers_ext.pipelines import AttributeTranslationPipeline
from tests.converters.cases import assert_near, load_case, save


@torch.no_grad()
def test_golden_generator():
    """In train mode, as the original's command uses it; its stored statistics are left out."""
    case = load_case("stargan", "generator")
    assert any(name.endswith("running_var") for name in case.weights)
    network = convert_stargan_generator(case.weights, **case.args)
    assert_near(network(case.inputs["x"], case.inputs["c"]).sample, case.outputs["y"])
    config = network.config
    assert (config.num_domains, config.base_channels, config.num_blocks, config.sample_size) == (3, 4, 2, None)
    assert convert_stargan_generator(case.weights, image_size=128).config.sample_size == 128


@torch.no_grad()
def test_golden_discriminator():
    case = load_case("stargan", "discriminator")
    output = convert_stargan_discriminator(case.weights, **case.args)(case.inputs["x"])
    assert_near(output.logits, case.outputs["src"])
    assert_near(output.domain_logits, case.outputs["cls"])


def test_published_networks_have_their_size():
    """The numbers that the original prints for CelebA at 128 pixels."""
    preset = families()["stargan"].presets["celeba_128"]
    with torch.device("meta"):
        generator = StarGANGenerator(num_domains=preset["c_dim"])
        discriminator = StarGANDiscriminator(preset["image_size"], num_domains=preset["c_dim"])
    assert generator.num_parameters() == 8_430_528 and discriminator.num_parameters() == 44_762_048
    assert len(preset["id2label"]) == preset["c_dim"]


def test_files_become_what_can_be_used(tmp_path):
    names = {0: "Black_Hair", 1: "Male", 2: "Young"}
    file = save(load_case("stargan", "generator"), tmp_path / "G.ckpt")
    convert_checkpoint(file, tmp_path / "G", "stargan", id2label=names, image_size=16)
    pipe = AttributeTranslationPipeline.from_pretrained(tmp_path / "G")
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    by_name = pipe(image, target=("Male", "Young"), output_type="pt").images
    assert torch.equal(by_name, pipe(image, target=(1, 2), output_type="pt").images)
    file = save(load_case("stargan", "discriminator"), tmp_path / "D.ckpt")
    convert_checkpoint(file, tmp_path / "D", "stargan")
    assert StarGANDiscriminator.from_pretrained(tmp_path / "D").config.num_layers == 3


@pytest.mark.parametrize(
    "name, convert, options, message",
    [
        ("generator", convert_stargan_generator, {"c_dim": 5}, "`c_dim` is given as 5, but the checkpoint has 3"),
        ("generator", convert_stargan_generator, {"d_conv_dim": 4}, "There is no argument 'd_conv_dim'"),
        ("generator", convert_stargan_discriminator, {}, "This is not a discriminator of StarGAN: it has no conv1"),
        ("discriminator", convert_stargan_generator, {}, "This is not a generator of StarGAN: it has no main.1"),
        ("discriminator", convert_stargan_discriminator, {"image_size": 32}, "but the checkpoint has 16"),
    ],
)
def test_other_networks_are_refused(name, convert, options, message):
    with pytest.raises(ValueError, match=message):
        convert(load_case("stargan", name).weights, **options)
