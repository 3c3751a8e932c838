"""Directions in latent spaces, and edits along them."""

import pytest
import torch
from safetensors.torch import save_file

from diffusers_ext import GANPipeline
from diffusers_ext.models import DCGANGenerator, StyleGAN2Generator
from diffusers_ext.pipelines.latent_directions import LatentDirections, latent_fingerprint


def styled(seed: int = 0) -> GANPipeline:
    torch.manual_seed(seed)
    generator = StyleGAN2Generator(8, 1, 5, 6, block_out_channels=(8, 4), num_mapping_layers=2).eval()
    return GANPipeline(generator)


def unstyled() -> GANPipeline:
    torch.manual_seed(0)
    return GANPipeline(DCGANGenerator(8, 1, latent_dim=5, channels=4).eval())


def directions(pipe: GANPipeline, space: str = "styles", **options) -> LatentDirections:
    vector = torch.linspace(-1, 1, 6 if space == "styles" else 5)
    return LatentDirections({"wide": vector}, space, latent_fingerprint(pipe.generator), **options)


def test_a_file_holds_everything(tmp_path):
    pipe = styled()
    saved = directions(pipe, purposes={"wide": "makes strokes wide"}, layers={"wide": [1, 2]})
    saved.save(tmp_path / "directions.safetensors")
    loaded = LatentDirections.load(tmp_path / "directions.safetensors")
    assert torch.equal(loaded["wide"], saved["wide"]) and loaded.purposes == saved.purposes
    assert (loaded.space, loaded.layers, loaded.generator) == ("styles", {"wide": [1, 2]}, saved.generator)
    assert [file.name for file in tmp_path.iterdir()] == ["directions.safetensors"]


def test_styles_are_moved_in_the_layers_of_the_direction(tmp_path):
    pipe, latents = styled(), torch.randn(2, 5)
    styles = pipe(latents=latents, output_type="pt").styles
    found = directions(pipe, layers={"wide": [1, 2]})
    found.save(tmp_path / "wide.safetensors")
    out = pipe.edit(tmp_path / "wide.safetensors", "wide", [2.0, -1.0], latents=latents, output_type="pt")
    expected = styles.clone()
    expected[:, 1:3] += torch.tensor([2.0, -1.0])[:, None, None] * found["wide"]
    torch.testing.assert_close(out.styles, expected)
    torch.testing.assert_close(out.images, pipe(styles=expected, output_type="pt").images)
    other = pipe.edit(found, "wide", 2.0, layers=[0], styles=styles, output_type="pt").styles
    assert torch.equal(other[:, 1:], styles[:, 1:]) and not torch.equal(other[:, 0], styles[:, 0])
    back = pipe.edit(found, "wide", [-2.0, 1.0], styles=out.styles, output_type="pt")
    torch.testing.assert_close(back.styles, styles)


def test_latents_are_moved():
    pipe, latents = unstyled(), torch.randn(3, 5)
    found = directions(pipe, "latents")
    out = pipe.edit(found, "wide", 1.5, latents=latents, output_type="pt")
    torch.testing.assert_close(out.latents, latents + 1.5 * found["wide"])
    assert len(pipe.edit(found, "wide", latents=latents).images) == 3


def test_a_generator_is_known_by_its_latent_space():
    pipe = styled()
    expected = latent_fingerprint(pipe.generator)
    with torch.no_grad():
        pipe.generator.constant += 1
    assert latent_fingerprint(pipe.generator) == expected == latent_fingerprint(pipe.generator.to(torch.bfloat16))
    assert latent_fingerprint(styled(1).generator) != expected


def test_directions_of_another_generator_are_refused_unless_they_are_moved():
    pipe, other = styled(), styled(1)
    styles, found = torch.zeros(1, 6), directions(pipe)
    with pytest.raises(ValueError, match="found for another generator"):
        other.edit(found, "wide", styles=styles)
    assert other.edit(found.moved_to(other.generator), "wide", styles=styles).images
    with pytest.raises(ValueError, match="for styles, but a DCGANGenerator has none"):
        unstyled().edit(found, "wide", latents=torch.zeros(1, 5))
    wider = LatentDirections({"wide": torch.zeros(7)}, "styles", found.generator)
    with pytest.raises(ValueError, match=r"the shape \(7,\), but the styles of the generator have 6 numbers"):
        pipe.edit(wider, "wide", styles=styles)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "tall"}, "There is no direction 'tall': these are wide"),
        ({"strength": float("nan")}, "`strength` must be a finite number"),
        ({"strength": [1.0, 2.0]}, "`strength` must be one number or 1"),
        ({"layers": [4]}, "`layers` must be some of 0 to 3"),
        ({"layers": []}, "`layers` must name one layer or more"),
        ({"latents": torch.zeros(1, 5)}, "Either `latents` or `styles`"),
        ({"styles": torch.zeros(1, 7)}, "`styles` must be a finite tensor"),
    ],
)
def test_edits_that_do_not_fit_are_refused(options, message):
    pipe = styled()
    with pytest.raises(ValueError, match=message) as error:
        pipe.edit(directions(pipe), **{"name": "wide", "styles": torch.zeros(1, 6), **options})
    assert "\n" not in str(error.value)


def test_files_that_are_none_of_directions_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file of directions"):
        LatentDirections.load(tmp_path / "missing.safetensors")
    save_file({"wide": torch.zeros(6)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is no file of directions"):
        LatentDirections.load(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="is damaged"):
        LatentDirections.load(tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"vectors": {}}, "`vectors` are empty"),
        ({"vectors": {"wide": torch.full((6,), torch.inf)}}, "must be a finite tensor"),
        ({"space": "w"}, "`space` must be one of latents, styles"),
        ({"layers": {"tall": [0]}}, "There is no direction 'tall'"),
        ({"space": "latents", "layers": {"wide": [0]}}, "`layers` are for directions of styles"),
    ],
)
def test_directions_that_contradict_themselves_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LatentDirections(**{"vectors": {"wide": torch.zeros(6)}, "space": "styles", "generator": "", **options})
