"""The DCGAN of pytorch/examples."""

import pytest
import torch
from torch import nn

from diffusers_ext.converters import convert_checkpoint, convert_dcgan
from diffusers_ext.converters.__main__ import main
from diffusers_ext.models import DCGANDiscriminator, DCGANGenerator
from diffusers_ext.pipelines import GANPipeline
from tests.converters.cases import assert_near, every_case, load_case


def counts(module: nn.Module) -> dict[str, int]:
    """How many batches each normalization has seen."""
    return {name: int(value) for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("family, name", every_case("dcgan"))
@torch.no_grad()
def test_golden_cases(family, name):
    case = load_case(family, name)
    network = convert_dcgan(case.weights, **{key: case.config[key] for key in ("nz", "ngf", "ndf", "nc")})
    assert not network.training
    network.train(name.endswith("_train"))
    if "z" in case.inputs:
        assert type(network) is DCGANGenerator
        assert_near(network(case.inputs["z"].flatten(1)).sample, case.outputs["y"])
    else:
        assert type(network) is DCGANDiscriminator
        assert_near(network(case.inputs["x"]).logits.sigmoid(), case.outputs["prob"])
    if network.training:
        state = network.state_dict()
        after = {key: value for key, value in case.outputs.items() if key.startswith("state_after.")}
        assert len(after) == 12
        for key, expected in after.items():
            _, _, layer, kind = key.split(".")
            torch.testing.assert_close(state[f"blocks.{int(layer) // 3}.1.{kind}"], expected, rtol=1e-5, atol=1e-6)


def test_what_the_tensors_show():
    generator = convert_dcgan(load_case("dcgan", "rgb_G").weights)
    config = generator.config
    assert (config.latent_dim, config.channels, config.out_channels, config.sample_size) == (20, 6, 3, 64)
    assert config.latent_distribution == "normal"
    discriminator = convert_dcgan(load_case("dcgan", "gray_D").weights)
    assert (discriminator.config.channels, discriminator.config.in_channels) == (5, 1)


@torch.no_grad()
def test_layouts_of_other_times():
    case = load_case("dcgan", "gray_G")
    uncounted = {key: value for key, value in case.weights.items() if not key.endswith("num_batches_tracked")}
    assert_near(convert_dcgan(uncounted)(case.inputs["z"].flatten(1)).sample, case.outputs["y"])
    assert set(counts(convert_dcgan(uncounted)).values()) == {0}
    assert 0 not in counts(convert_dcgan(case.weights)).values()
    half = {key: value.half() if value.is_floating_point() else value for key, value in case.weights.items()}
    assert convert_dcgan(half).dtype == torch.float32


def test_the_network_is_no_view_of_the_checkpoint():
    weights = load_case("dcgan", "gray_D").weights
    kept = {key: tensor.clone() for key, tensor in weights.items()}
    with torch.no_grad():
        for tensor in convert_dcgan(weights).state_dict().values():
            tensor.zero_()
    assert all(torch.equal(weights[key], kept[key]) for key in kept)


class TestCommand:
    def file(self, tmp_path, name: str, prefix: str = "") -> str:
        path = tmp_path / f"{name}.pth"
        torch.save({prefix + key: value for key, value in load_case("dcgan", name).weights.items()}, path)
        return str(path)

    @torch.no_grad()
    def test_generator_and_discriminator_become_a_pipeline(self, tmp_path, capsys):
        files = [self.file(tmp_path, "rgb_G"), self.file(tmp_path, "rgb_D", "module.")]
        options = [f"discriminator_file={files[1]}", "nz=20", "ngf=6", "imageSize=64"]
        main([files[0], str(tmp_path / "out"), "--family", "dcgan", "--option", *options])
        assert "Wrote GANPipeline in" in capsys.readouterr().out

        pipe = GANPipeline.from_pretrained(tmp_path / "out")
        case = load_case("dcgan", "rgb_G")
        images = pipe(latents=case.inputs["z"].flatten(1), output_type="pt").images
        assert_near(2 * images - 1, case.outputs["y"])
        case = load_case("dcgan", "rgb_D")
        assert_near(pipe.discriminator(case.inputs["x"]).logits.sigmoid(), case.outputs["prob"])

    def test_each_alone(self, tmp_path):
        assert convert_checkpoint(self.file(tmp_path, "gray_G"), tmp_path / "g", "dcgan").startswith("GANPipeline in")
        assert GANPipeline.from_pretrained(tmp_path / "g").discriminator is None
        written = convert_checkpoint(self.file(tmp_path, "gray_D"), tmp_path / "d", "dcgan")
        assert written.startswith("DCGANDiscriminator in")
        assert DCGANDiscriminator.from_pretrained(tmp_path / "d").config.channels == 5

    @pytest.mark.parametrize(
        "first, second, message",
        [
            ("gray_G", "rgb_D", "makes images of 1 channels, but the discriminator takes 3"),
            ("gray_G", "rgb_G", "`discriminator_file` must be a discriminator"),
            ("gray_D", "gray_D", "the checkpoint itself is a discriminator"),
        ],
    )
    def test_pairs_that_are_none(self, tmp_path, first, second, message):
        files = [self.file(tmp_path, name) for name in (first, second)]
        with pytest.raises(ValueError, match=message):
            convert_checkpoint(files[0], tmp_path / "out", "dcgan", discriminator_file=files[1])
        assert not (tmp_path / "out").exists()


class TestRefusals:
    weights = load_case("dcgan", "rgb_G").weights

    @pytest.mark.parametrize("key", ["main.1.bias", "main.4.running_var", "main.10.weight"])
    def test_a_missing_tensor_is_named(self, key):
        with pytest.raises(ValueError, match=rf"1 missing: {key}\)"):
            convert_dcgan({name: tensor for name, tensor in self.weights.items() if name != key})

    @pytest.mark.parametrize("key", ["main.0.weight", "main.6.weight", "main.12.weight"])
    def test_a_missing_convolution_leaves_no_dcgan(self, key):
        with pytest.raises(ValueError, match="This is not a DCGAN of pytorch/examples"):
            convert_dcgan({name: tensor for name, tensor in self.weights.items() if name != key})

    def test_another_width_is_named(self):
        with pytest.raises(ValueError, match=r"main.6.weight \(24, 7, 4, 4\) instead of \(24, 12, 4, 4\)"):
            convert_dcgan(self.weights | {"main.6.weight": torch.zeros(24, 7, 4, 4)})

    def test_values_that_are_no_numbers_are_named(self):
        with pytest.raises(ValueError, match="1 with NaN or infinite values: main.4.running_mean"):
            convert_dcgan(self.weights | {"main.4.running_mean": torch.full((24,), torch.nan)})

    def test_unknown_tensors_are_named(self):
        with pytest.raises(ValueError, match="1 unknown: main.12.bias"):
            convert_dcgan(self.weights | {"main.12.bias": torch.zeros(3)})

    @pytest.mark.parametrize(
        "config, message",
        [
            ({"nz": 100}, "`nz` is given as 100, but the checkpoint has 20"),
            ({"ngf": 64}, "`ngf` is given as 64, but the checkpoint has 6"),
            ({"nc": 1}, "`nc` is given as 1, but the checkpoint has 3"),
            ({"imageSize": 128}, "`imageSize` is given as 128, but the checkpoint has 64"),
            ({"nz": "20"}, "`nz` must be a positive integer"),
            ({"ngpu": 1}, "There is no argument 'ngpu'"),
        ],
    )
    def test_arguments_at_odds_with_the_tensors(self, config, message):
        with pytest.raises(ValueError, match=message):
            convert_dcgan(self.weights, **config)

    def test_other_networks(self):
        small = {f"main.{index}.weight": torch.zeros(4, 4, 4, 4) for index in (0, 3, 6, 9)}  # a DCGAN of 32 pixels
        dense = {"0.weight": torch.zeros(4, 4), "2.weight": torch.zeros(4, 4)}
        for state_dict in (small, dense, {"fc1.bias": torch.zeros(2)}):
            with pytest.raises(ValueError, match="This is not a DCGAN of pytorch/examples") as error:
                convert_dcgan(state_dict)
            assert "\n" not in str(error.value)
