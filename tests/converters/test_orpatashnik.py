"""The latent mappers of StyleCLIP."""

import torch

from diffusers_ext.converters import convert_checkpoint, convert_latent_mapper
from diffusers_ext.models import LatentMapper
from tests.converters.cases import assert_near, assert_refused, load_case


@torch.no_grad()
def test_a_checkpoint_becomes_the_mapper_of_the_original(tmp_path):
    case = load_case("latent_mapper", "levels_mapper")
    weights = {f"mapper.{name}": value for name, value in case.weights.items()}
    weights["decoder.conv1.conv.weight"] = torch.zeros(1)
    torch.save({"state_dict": weights, "opts": {"description": "afro"}}, tmp_path / "afro.pt")
    convert_checkpoint(tmp_path / "afro.pt", tmp_path / "out", "latent_mapper", num_styles=10)
    mapper, styles = LatentMapper.from_pretrained(tmp_path / "out"), case.inputs["w"]
    offsets = mapper(styles).offsets
    assert_near(offsets, case.outputs["delta"])
    assert_near(styles + 0.1 * offsets, case.outputs["w_hat"])


@torch.no_grad()
def test_levels_may_be_missing():
    case = load_case("latent_mapper", "levels_mapper")
    weights = {name: value for name, value in case.weights.items() if "fine" not in name}
    offsets = convert_latent_mapper(weights, 10)(case.inputs["w"]).offsets
    assert_near(offsets[:, :8], case.outputs["delta"][:, :8])
    assert (offsets[:, 8:] == 0).all()


def test_what_is_no_levels_mapper_is_refused():
    weights = load_case("latent_mapper", "levels_mapper").weights
    single = {f"mapping.{name.partition('.')[2]}": value for name, value in weights.items()}
    assert_refused(convert_latent_mapper, single, {}, "no LevelsMapper of StyleCLIP")
    less = {name: value for name, value in weights.items() if name != "fine_mapping.mapping.4.bias"}
    assert_refused(convert_latent_mapper, less, {}, "1 missing: fine_mapping.mapping.4.bias")
