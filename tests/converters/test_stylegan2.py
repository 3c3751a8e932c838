"""StyleGAN2 of NVIDIA's StyleGAN2-ADA and of rosinality."""

import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import save_file

from diffusers_ext.converters import convert_checkpoint, convert_stylegan2_ada, convert_stylegan2_rosinality
from diffusers_ext.converters.stylegan2_ada.network_pickle import read_network_pickle
from diffusers_ext.converters.stylegan2_ada.networks import flat_arguments
from diffusers_ext.models import StyleGAN2Discriminator, StyleGAN2Generator
from diffusers_ext.models.style_mapping import StyleMapping
from diffusers_ext.pipelines import GANPipeline
from tests.converters.cases import GOLDEN, Case, assert_near, load_case


PICKLE = GOLDEN / "stylegan2_ada" / "network_pkl" / "network.pkl"
TRUNCATIONS = {"G_skip_16_conditional": (0.7, 2), "G_resnet_16": (0.6, 3), "G_skip_16_clamp": (0.6, 3)}


def convert_ada(case: Case) -> StyleGAN2Generator | StyleGAN2Discriminator:
    return convert_stylegan2_ada(case.weights, **flat_arguments(case.config))


def mixed(case: Case, first: int, number: int) -> torch.Tensor:
    """The first latent for the first layers, and the second one for the others."""
    return torch.stack([case.inputs["z"]] * first + [case.inputs["z2"]] * (number - first), dim=1)


@pytest.mark.parametrize("name", TRUNCATIONS)
@torch.no_grad()
def test_generators_of_stylegan2_ada(name):
    case = load_case("stylegan2_ada", name)
    generator, z, c = convert_ada(case), case.inputs["z"], case.inputs.get("c")
    styles = generator.broadcast_styles(generator.map_latents(z, c))
    psi, cutoff = TRUNCATIONS[name]
    truncated = generator.truncate(styles, psi, cutoff)
    assert_near(styles, case.outputs["ws"])
    assert_near(generator.truncate(styles, psi), case.outputs["ws_psi"])
    assert_near(truncated, case.outputs["ws_psi_cutoff"])
    assert_near(generator(z, c).sample, case.outputs["img_const"])
    assert_near(generator(z, c, noise="none").sample, case.outputs["img_none"])
    assert_near(generator(styles=truncated).sample, case.outputs["img_psi_cutoff_const"])
    assert_near(generator(styles=case.inputs["ws"], noise="none").sample, case.outputs["img_from_ws_none"])
    assert_near(generator(mixed(case, 3, generator.num_styles), c).sample, case.outputs["img_style_mix_const"])


@pytest.mark.parametrize("name", ["D_orig_16_conditional", "D_resnet_16_mbstd"])
@torch.no_grad()
def test_discriminators_of_stylegan2_ada(name):
    case = load_case("stylegan2_ada", name)
    discriminator, image, c = convert_ada(case), case.inputs["img"], case.inputs.get("c")
    assert_near(discriminator(image, c).logits, case.outputs["logits"])
    first = discriminator(image[:2], None if c is None else c[:2]).logits
    assert_near(first, case.outputs["logits_first_2"])


@torch.no_grad()
def test_a_mapping_alone():
    case = load_case("stylegan2_ada", "mapping_not_broadcast")
    config = case.config
    mapping = StyleMapping(
        config["z_dim"],
        config["w_dim"],
        config["num_layers"],
        config["layer_features"],
        lr_multiplier=config["lr_multiplier"],
    )
    mapping.load_state_dict({f"layers.{name.removeprefix('fc')}": value for name, value in case.weights.items()})
    assert_near(mapping(case.inputs["z"]), case.outputs["w"])


@torch.no_grad()
def test_networks_of_rosinality():
    case = load_case("stylegan2_rosinality", "G_16")
    averaged = case.weights | {"latent_avg": case.inputs["truncation_latent"][0]}
    generator, z = convert_stylegan2_rosinality(averaged, size=16, style_dim=12, n_mlp=2), case.inputs["z"]
    image, styles = generator(z, return_dict=False)
    assert_near(image, case.outputs["img"])
    assert_near(styles, case.outputs["latent"])
    assert_near(generator(styles=generator.truncate(styles, 0.5)).sample, case.outputs["img_trunc"])
    assert_near(generator(mixed(case, 1, generator.num_styles)).sample, case.outputs["img_mix"])
    maps = [case.inputs[f"noise_{layer}"] for layer in range(len(generator.noise_shapes))]
    assert_near(generator(z, noise=maps).sample, case.outputs["img_given_noise"])
    assert_near(generator(styles=case.outputs["latent_mix"]).sample, case.outputs["img_from_latent"])

    case = load_case("stylegan2_rosinality", "D_32")
    discriminator = convert_stylegan2_rosinality(case.weights)
    assert_near(discriminator(case.inputs["img"]).logits, case.outputs["logits"])
    assert_near(discriminator(case.inputs["img"][:2]).logits, case.outputs["logits_first_2"])


@torch.no_grad()
def test_an_average_that_is_missing_is_measured():
    generator = convert_stylegan2_rosinality(load_case("stylegan2_rosinality", "G_16").weights)
    styles = generator.map_latents(torch.randn(20_000, 12, generator=torch.Generator().manual_seed(7)))
    difference = generator.style_average - styles.mean(dim=0)
    assert difference.norm() < 0.05 * styles.std(dim=0).norm()


def test_a_pickle_is_read_bit_for_bit():
    case, networks = load_case("stylegan2_ada", "network_pkl"), read_network_pickle(PICKLE)
    assert networks.keys() == {"G", "D", "G_ema"}
    found = {f"{name}.{key}": tensor for name, network in networks.items() for key, tensor in network.tensors.items()}
    assert found.keys() == case.weights.keys()
    assert all(torch.equal(found[key], case.weights[key]) for key in found)
    assert networks["G"].arguments == {
        "mapping_kwargs": {"num_layers": 2},
        "synthesis_kwargs": {"channel_base": 128, "channel_max": 12, "num_fp16_res": 0},
    }


@pytest.mark.parametrize("options, image", [({}, "img_G_ema_const"), ({"network": "G"}, "img_G_const")])
@torch.no_grad()
def test_a_pickle_becomes_a_pipeline(tmp_path, options, image):
    assert convert_checkpoint(PICKLE, tmp_path / "out", "stylegan2_ada", **options).startswith("GANPipeline in")
    pipe, case = GANPipeline.from_pretrained(tmp_path / "out"), load_case("stylegan2_ada", "network_pkl")
    assert_near(pipe.generator(case.inputs["z"]).sample, case.outputs[image])
    assert_near(pipe.discriminator(case.inputs["img"]).logits, case.outputs["logits_D"])


@torch.no_grad()
def test_a_checkpoint_of_rosinality_becomes_a_pipeline(tmp_path):
    case, judge = load_case("stylegan2_rosinality", "G_16"), load_case("stylegan2_rosinality", "D_32")
    average = case.inputs["truncation_latent"][0]
    content = {"g": case.weights, "g_ema": case.weights, "d": judge.weights, "latent_avg": average}
    torch.save(content, tmp_path / "550000.pt")
    with pytest.raises(ValueError, match="images of the size 16, but the discriminator takes 32"):
        convert_checkpoint(tmp_path / "550000.pt", tmp_path / "out", "stylegan2_rosinality")
    del content["d"]
    torch.save(content, tmp_path / "550000.pt")
    convert_checkpoint(tmp_path / "550000.pt", tmp_path / "out", "stylegan2_rosinality", n_mlp=2)
    generator = GANPipeline.from_pretrained(tmp_path / "out").generator
    assert torch.equal(generator.style_average, average)
    assert_near(generator(case.inputs["z"]).sample, case.outputs["img"])


@torch.no_grad()
def test_a_state_dict_alone(tmp_path):
    case = load_case("stylegan2_ada", "G_skip_16_clamp")
    save_file(case.weights, tmp_path / "G.safetensors")
    convert_checkpoint(tmp_path / "G.safetensors", tmp_path / "out", "stylegan2_ada", conv_clamp=2.0)
    generator = GANPipeline.from_pretrained(tmp_path / "out").generator
    assert_near(generator(case.inputs["z"]).sample, case.outputs["img_const"])
    torch.save(load_case("stylegan2_ada", "D_resnet_16_mbstd").weights, tmp_path / "D.pt")
    written = convert_checkpoint(tmp_path / "D.pt", tmp_path / "d", "stylegan2_ada", mbstd_group_size=2)
    assert written.startswith("StyleGAN2Discriminator in")


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class TestHostilePickles:
    @pytest.mark.parametrize("place", ["beside", "inside", "alone"])
    def test_nothing_is_executed(self, tmp_path, place):
        hostile = Hostile(tmp_path / "broken in")
        content = {"beside": {"G_ema": 1, "other": hostile}, "inside": [[hostile]], "alone": hostile}[place]
        (tmp_path / "network.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=r"holds posix\.mkdir, but only the networks of") as refusal:
            convert_checkpoint(tmp_path / "network.pkl", tmp_path / "out", "stylegan2_ada")
        assert "\n" not in str(refusal.value)
        assert not (tmp_path / "broken in").exists() and not (tmp_path / "out").exists()

    @pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "torch.load", "torch.storage.os.system"])
    def test_no_other_name_is_known(self, tmp_path, name):
        module, _, attribute = name.rpartition(".")
        (tmp_path / "network.pkl").write_bytes(f"c{module}\n{attribute}\n.".encode())
        with pytest.raises(ValueError, match=f"holds {name}, but"):
            read_network_pickle(tmp_path / "network.pkl")

    def test_damage(self, tmp_path):
        whole = PICKLE.read_bytes()
        for number, damaged in enumerate((whole[:1000], whole[:-5], b"", b"no pickle", pickle.dumps([1, 2]))):
            path = tmp_path / f"{number}.pkl"
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="is damaged, or is not a pickle of StyleGAN2-ADA"):
                read_network_pickle(path)

    def test_a_pickle_without_networks(self, tmp_path):
        (tmp_path / "network.pkl").write_bytes(pickle.dumps({"training_set_kwargs": {"path": "x"}}))
        with pytest.raises(ValueError, match="the file has no network"):
            convert_checkpoint(tmp_path / "network.pkl", tmp_path / "out", "stylegan2_ada")
        with pytest.raises(FileNotFoundError, match="There is no file"):
            convert_checkpoint(tmp_path / "missing.pkl", tmp_path / "out", "stylegan2_ada")
        shutil.copy(PICKLE, tmp_path / "copy.pt")
        with pytest.raises(ValueError, match="is damaged, or was not written by torch.save"):
            convert_checkpoint(tmp_path / "copy.pt", tmp_path / "out", "stylegan2_ada")


class TestRefusals:
    weights = load_case("stylegan2_ada", "G_skip_16_conditional").weights

    @pytest.mark.parametrize(
        "key", ["mapping.fc1.bias", "synthesis.b8.conv0.affine.weight", "synthesis.b16.torgb.bias"]
    )
    def test_a_missing_tensor_is_named(self, key):
        with pytest.raises(ValueError, match=rf"1 missing: {key}\)"):
            convert_stylegan2_ada({name: tensor for name, tensor in self.weights.items() if name != key})

    def test_unknown_tensors_are_named(self):
        with pytest.raises(ValueError, match="1 unknown: synthesis.b4.conv9.weight"):
            convert_stylegan2_ada(self.weights | {"synthesis.b4.conv9.weight": torch.zeros(3)})

    @pytest.mark.parametrize(
        "changed, message",
        [
            (torch.eye(4), "not the same along both sides"),
            (torch.outer(torch.tensor([1.0, 2, 1]), torch.tensor([1.0, 2, 1])), "differs from the others"),
        ],
    )
    def test_other_filters(self, changed, message):
        with pytest.raises(ValueError, match=message):
            convert_stylegan2_ada(self.weights | {"synthesis.b8.conv1.resample_filter": changed})

    @pytest.mark.parametrize(
        "config, message",
        [
            ({"z_dim": 13}, "`z_dim` is given as 13, but the checkpoint has 12"),
            ({"img_resolution": 32}, "`img_resolution` is given as 32, but the checkpoint has 16"),
            ({"architecture": "resnet"}, "`architecture` is given as resnet, but the checkpoint has skip"),
            ({"conv_clamp": -1}, "`conv_clamp` must be a positive number"),
            ({"activation": "gelu"}, "`activation` must be"),
            ({"kernel_size": 5}, "There is no argument 'kernel_size'"),
        ],
    )
    def test_arguments_at_odds_with_the_tensors(self, config, message):
        with pytest.raises(ValueError, match=message):
            convert_stylegan2_ada(self.weights, **config)

    def test_other_networks(self):
        for convert in (convert_stylegan2_ada, convert_stylegan2_rosinality):
            with pytest.raises(ValueError, match="This is no network of"):
                convert({"main.0.weight": torch.zeros(4, 4)})
