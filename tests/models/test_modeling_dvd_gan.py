import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import normalize

from diffusers_ext.converters.state_dicts import part
from diffusers_ext.models import (
    DVDGANGenerator,
    DVDGANSpatialDiscriminator,
    DVDGANTemporalDiscriminator,
    modeling_dvd_gan,
)
from diffusers_ext.models.modeling_dvd_gan import ConvGRU, condition_of_frames
from tests.converters.computed_weights import computed_weights
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


GOLDEN = Path(__file__).parent / "golden" / "dvd_gan"


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class GeneratorConfig(ModelTesterConfig):
    model_class = DVDGANGenerator
    output_shape = (2, 1, 3, 8, 8)

    def get_init_dict(self):
        return {
            "num_frames": 3,
            "base_size": 2,
            "out_channels": 1,
            "latent_dim": 4,
            "num_classes": 3,
            "block_out_channels": (6, 4),
            "gru_channel_multiples": (2, 1),
        }

    def get_inputs(self):
        return {"latents": normal(2, 4), "class_labels": torch.tensor([2, 0])}


class SpatialConfig(ModelTesterConfig):
    model_class = DVDGANSpatialDiscriminator
    output_shape = (8,)

    def get_init_dict(self):
        return {"in_channels": 1, "num_classes": 3, "block_out_channels": (4, 6)}

    def get_inputs(self):
        return {"sample": normal(8, 1, 3, 8, 8), "class_labels": torch.arange(8) % 3}


class TemporalConfig(SpatialConfig):
    model_class = DVDGANTemporalDiscriminator

    def get_init_dict(self):
        return {**super().get_init_dict(), "num_3d_blocks": 1}

    def get_inputs(self):
        return {"sample": normal(8, 1, 4, 8, 8), "class_labels": torch.arange(8) % 3}


class TestGenerator(GeneratorConfig, ModelTesterMixin):
    pass


class TestSpatialDiscriminator(SpatialConfig, ModelTesterMixin):
    pass


class TestTemporalDiscriminator(TemporalConfig, ModelTesterMixin):
    pass


def load(name):
    folder = GOLDEN / name
    return json.loads((folder / "case.json").read_text())["config"], load_file(folder / "case.safetensors")


def near(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["conv_gru", "conv_gru_2"])
@torch.no_grad()
def test_the_gru_is_that_of_the_reference(name):
    config, tensors = load(name)
    gru = ConvGRU(config["input_size"], config["hidden_sizes"], config["kernel_sizes"])
    gru.load_state_dict(part(tensors, "weights."))
    near(torch.stack(gru(tensors["inputs.x"].unbind(1)), dim=1), tensors["outputs.frames"])


def converted(weights: dict[str, torch.Tensor], model: DVDGANGenerator) -> dict[str, torch.Tensor]:
    """The reference's weights by our names. Its spectral norm makes one power iteration in each pass."""
    found = {"class_embedding.weight": weights["embedding.weight"]}
    found |= {f"linear_in.{kind}": weights[f"affine_transfrom.{kind}"] for kind in ("weight", "bias")}
    layers = {"colorize.module": "conv_out"}
    for number in range(12):
        stage, place = divmod(number, 3)
        if place == 0:
            cells = part(weights, f"conv.{number}.")
            found |= {f"grus.{stage}.{key}": value for key, value in cells.items()}
            continue
        block = f"blocks.{stage}.{place - 1}"
        for norm in (1, 2):
            theirs, ours = f"conv.{number}.CBNorm{norm}", f"{block}.norm{norm}"
            found |= {f"{ours}.linear.{kind}": weights[f"{theirs}.embed.{kind}"] for kind in ("weight", "bias")}
            found[f"{ours}.norm.running_mean"] = weights[f"{theirs}.bn.running_mean"]
        for theirs, ours in (("conv0", "conv1"), ("conv1", "conv2"), ("conv_sc", "shortcut")):
            layers[f"conv.{number}.{theirs}.module"] = f"{block}.{ours}"
    for theirs, ours in layers.items():
        weight = weights[f"{theirs}.weight_bar"]
        right = normalize(weight.flatten(1).T @ weights[f"{theirs}.weight_u"], dim=0)
        parts = {"original": weight, "0._v": right, "0._u": normalize(weight.flatten(1) @ right, dim=0)}
        found |= {f"{ours}.parametrizations.weight.{name}": value for name, value in parts.items()}
        found[f"{ours}.bias"] = weights[f"{theirs}.bias"]
    unchanged = ("running_var", "num_batches_tracked")  # 1 and 0, as in the reference
    return found | {key: value for key, value in model.state_dict().items() if key.endswith(unchanged)}


@torch.no_grad()
def test_the_generator_is_that_of_the_reference(monkeypatch):
    config, tensors = load("generator")
    model = DVDGANGenerator(
        config["n_frames"], config["latent_dim"], 3, config["in_dim"], config["n_class"], (8, 8, 4, 2)
    ).eval()
    model.load_state_dict(converted(computed_weights(config["computed_weights"]), model))
    # The reference gives frames the conditions of other films, which is no part of the method.
    monkeypatch.setattr(modeling_dvd_gan, "condition_of_frames", lambda condition, count: condition.repeat(count, 1))
    video = model(tensors["inputs.z"], tensors["inputs.class_id"]).sample.transpose(1, 2)
    near(video, tensors["outputs.video"])


def test_all_frames_of_a_film_have_its_condition():
    assert condition_of_frames(torch.tensor([[1.0], [2.0]]), 3)[:, 0].tolist() == [1, 1, 1, 2, 2, 2]


@torch.no_grad()
def test_films_depend_on_class_and_latent_and_go_on():
    model = GeneratorConfig().get_model()
    latents = normal(1, 4).expand(2, -1)
    one, other = model(latents, torch.tensor([0, 1])).sample
    assert not torch.allclose(one, other) and not torch.allclose(one[:, 0], one[:, 2])
    longer = model(latents, torch.tensor([0, 1]), num_frames=5).sample
    torch.testing.assert_close(longer[:, :, :3], torch.stack([one, other]))
    assert model.sample_size == 8


@torch.no_grad()
def test_only_the_temporal_discriminator_sees_the_order():
    for config, sees in ((SpatialConfig(), False), (TemporalConfig(), True)):
        model, inputs = config.get_model(), config.get_inputs()
        scores = model(**inputs).logits
        backwards = model(inputs["sample"].flip(2), inputs["class_labels"]).logits
        assert torch.allclose(scores, backwards, atol=1e-5) != sees
        assert not torch.allclose(model(inputs["sample"], inputs["class_labels"].flip(0)).logits, scores)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DVDGANGenerator(block_out_channels=()), "`block_out_channels` must be positive"),
        (lambda: DVDGANGenerator(gru_channel_multiples=(1, 2)), "that end with 1"),
        (lambda: DVDGANGenerator(block_out_channels=(4,), gru_kernel_sizes=((3, 3),)), "must be 3 numbers for each"),
        (lambda: ConvGRU(2, [2], [4]), "must be odd"),
        (lambda: DVDGANTemporalDiscriminator(num_3d_blocks=5), "`num_3d_blocks` must be from 1 to the 4"),
        (lambda: DVDGANSpatialDiscriminator(in_channels=0), "`in_channels` must be at least 1"),
        (lambda: SpatialConfig().get_model()(normal(2, 1, 3, 6, 8), torch.tensor([0, 1])), "multiples of 4"),
        (lambda: TemporalConfig().get_model()(normal(2, 1, 3, 8, 8), torch.tensor([0, 1])), "and F of 2"),
        (lambda: GeneratorConfig().get_model()(normal(2, 4)), "`class_labels` must be given"),
        (lambda: GeneratorConfig().get_model()(normal(2, 5), torch.tensor([0, 1])), r"`latents` must be \(N, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
