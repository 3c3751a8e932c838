"""Directions are found in the latent spaces of generators."""

import pytest
import torch

from diffusers_ext import GANPipeline
from diffusers_ext.metrics.extractors import FeatureOutput, NetworkExtractor
from diffusers_ext.models import DCGANGenerator, StyleGAN2Generator
from diffusers_ext.pipelines.latent_directions import LatentDirections
from diffusers_ext.training.adversarial.directions import (
    class_directions,
    factorized_directions,
    first_weights,
    mean_directions,
    principal_directions,
    separating_normal,
    style_weights,
)
from diffusers_ext.training.find_directions import main


def styled(num_classes: int | None = None) -> GANPipeline:
    torch.manual_seed(0)
    generator = StyleGAN2Generator(
        8,
        1,
        5,
        6,
        block_out_channels=(8, 4),
        num_mapping_layers=2,
        num_classes=num_classes,
        mapping_lr_multiplier=1.0,
    )
    generator.measure_style_average()
    names = None if num_classes is None else {i: f"class {i}" for i in range(num_classes)}
    return GANPipeline(generator.eval(), id2label=names)


def unstyled() -> GANPipeline:
    torch.manual_seed(0)
    return GANPipeline(DCGANGenerator(8, 1, latent_dim=5, channels=4).eval())


def test_principal_directions_are_axes_of_the_styles():
    pipe = styled()
    found = principal_directions(pipe, num_directions=3, num_samples=500)
    styles = pipe.generator.map_latents(torch.randn(4000, 5, generator=torch.Generator().manual_seed(1))).detach()
    vectors = torch.stack([found[f"component_{i}"] for i in (1, 2, 3)])
    units = vectors / vectors.norm(dim=1, keepdim=True)
    torch.testing.assert_close(units @ units.T, torch.eye(3), rtol=0, atol=1e-5)
    deviations = (styles @ units.T).std(dim=0)
    torch.testing.assert_close(deviations, vectors.norm(dim=1), rtol=0.2, atol=0)
    assert deviations[0] > deviations[1] > deviations[2]
    assert "of the variance" in found.purposes["component_1"] and found.space == "styles"


def test_principal_directions_of_features_move_along_them():
    """A step along a direction changes the features of the layer by one deviation of their component."""
    pipe = unstyled()
    found = principal_directions(pipe, num_directions=2, num_samples=500, layer="blocks.0.0")

    def features(latents):
        return pipe.generator.blocks[0][0](latents[:, :, None, None]).flatten(1)

    latents = torch.randn(2000, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        moved = (features(latents[:1] + found["component_1"]) - features(latents[:1]))[0]
        deviation = (features(latents) @ moved / moved.norm()).std()
    torch.testing.assert_close(deviation, moved.norm(), rtol=0.15, atol=0)
    assert found.space == "latents"


@pytest.mark.parametrize("layers", [None, [0, 1]])
def test_factors_change_the_layers_most(layers):
    pipe = styled()
    found = factorized_directions(pipe, num_directions=6, layers=layers)
    weights = style_weights(pipe.generator, layers)
    # Layer 1 has the style of two convolutions: the image of 4x4 pixels, and the first one of 8x8.
    assert len(weights) == (8 + 8 + 8 + 4 + 4 if layers is None else 8 + 8 + 8)
    units = [found[f"factor_{i}"] / found[f"factor_{i}"].norm() for i in range(1, 7)]
    changes = torch.stack([(weights @ unit).norm() for unit in units])
    torch.testing.assert_close(changes, torch.linalg.svdvals(weights), rtol=1e-4, atol=1e-5)
    assert found.layers == ({} if layers is None else {name: layers for name in found.vectors})


def test_factors_of_a_generator_without_styles():
    pipe = unstyled()
    found = factorized_directions(pipe, num_directions=1)
    unit = found["factor_1"] / found["factor_1"].norm()
    weights = first_weights(pipe.generator)
    torch.testing.assert_close((weights @ unit).norm(), torch.linalg.svdvals(weights)[0], rtol=1e-4, atol=0)


def test_a_plane_separates_points():
    points = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    points[:, 1] *= 3
    truth = torch.tensor([3.0, 0.5, 0.0, 0.0]) / torch.tensor([3.0, 0.5, 0.0, 0.0]).norm()
    normal, accuracy = separating_normal(points, points @ truth > 1)
    assert normal.float() @ truth > 0.95 and accuracy > 0.9


def test_classes_of_the_generator_and_of_a_classifier():
    pipe = styled(num_classes=3)
    found = class_directions(pipe, num_samples=600)
    assert list(found.vectors) == ["class 0", "class 1", "class 2"]
    styles = pipe.generator.map_latents(torch.randn(300, 5), torch.full((300,), 1)).mean(dim=0)
    others = pipe.generator.map_latents(torch.randn(300, 5), torch.full((300,), 2)).mean(dim=0)
    assert (styles - others) @ (found["class 1"] - found["class 2"]) > 0

    def brightness(images):
        means = images.float().mean(dim=(1, 2, 3))
        means = means - means.median()
        return FeatureOutput(means[:, None], torch.stack([-means, means], dim=1))

    judge = NetworkExtractor(brightness, id2label={0: "dark", 1: "bright"})
    pipe = unstyled()
    found = class_directions(pipe, judge, num_samples=400)
    latents = torch.randn(50, 5)
    before, after = (
        pipe.edit(found, "bright", strength, latents=latents, output_type="pt").images.mean() for strength in (0, 2)
    )
    assert after > before


def test_means_put_an_image_among_those_of_another_class():
    pipe = styled(num_classes=3)
    found = mean_directions(pipe, num_samples=600)
    latents = torch.randn(300, 5, generator=torch.Generator().manual_seed(1))
    first, second = (pipe.generator.map_latents(latents, torch.full((300,), label)) for label in (1, 2))
    moved = first[:, None] - found["class 1"] + found["class 2"]
    away = (first.mean(dim=0) - second.mean(dim=0)).norm()
    assert (moved[:, 0].mean(dim=0) - second.mean(dim=0)).norm() < 0.3 * away
    with pytest.raises(ValueError, match="only 0 classes have 10"):
        mean_directions(pipe, num_samples=12)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="`num_directions` must be from 1 to 6, but is 7"):
        principal_directions(styled(), num_directions=7, num_samples=50)
    with pytest.raises(ValueError, match="`layer` must be left out"):
        principal_directions(styled(), layer="mapping")
    with pytest.raises(ValueError, match="`layer` must name a module"):
        principal_directions(unstyled())
    with pytest.raises(ValueError, match="`layers` must be some of 0 to 3"):
        factorized_directions(styled(), layers=[4])
    with pytest.raises(ValueError, match="A classifier must be given"):
        class_directions(styled())


def test_the_command_writes_a_file(tmp_path, capsys):
    styled(num_classes=3).save_pretrained(tmp_path / "gan")
    arguments = [str(tmp_path / "gan"), str(tmp_path / "classes.safetensors"), "--method", "classes"]
    main([*arguments, "--num_samples", "300"])
    assert "3 directions of styles" in capsys.readouterr().out
    loaded = LatentDirections.load(tmp_path / "classes.safetensors")
    pipe = GANPipeline.from_pretrained(tmp_path / "gan")
    assert pipe.edit(loaded, "class 2", latents=torch.zeros(1, 5), class_labels=0).images
    for extra, message in ((["--layer", "x"], "--layer is not for"), (["--num_samples", "1"], "--num_samples must")):
        with pytest.raises(SystemExit):
            main([*arguments, *extra])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere"), *arguments[1:]])
    assert "nowhere is no pipeline, or its training has not finished" in capsys.readouterr().err
