"""SinGAN of its authors."""

import pytest
import torch
from torch.nn.functional import pad

from diffusers_ext.converters import convert_checkpoint, convert_singan
from diffusers_ext.pipelines import SinGANPipeline
from tests.converters.cases import assert_near, load_case


@pytest.mark.parametrize("mode, normalization", [("train", "instance"), ("eval", "batch")])
@torch.no_grad()
def test_networks(mode, normalization):
    case = load_case("singan", f"scale_{mode}_G")
    scale, previous = convert_singan(case.weights, normalization), case.inputs["prev"]
    margin = scale.layers.margin
    inner = previous[..., margin:-margin, margin:-margin]
    # the original's caller pads what its generator reads
    assert_near(torch.tanh(scale.layers(case.inputs["x"])) + inner, case.outputs["y"])
    case = load_case("singan", f"scale_{mode}_D")
    assert_near(convert_singan(case.weights, normalization)(case.inputs["img"]).logits, case.outputs["score"])


def write_pyramid(folder, weights):
    """The files of a run of two scales."""
    sizes = [(12, 15), (16, 20)]
    for scale in range(2):
        (folder / str(scale)).mkdir(parents=True)
        torch.save(weights, folder / str(scale) / "netG.pth")
    images = [torch.zeros(1, 3, *size) for size in sizes]
    fixed = pad(torch.arange(180.0).view(1, 1, 12, 15).expand(1, 3, -1, -1), [5] * 4)
    torch.save(images, folder / "reals.pth")
    torch.save([fixed, torch.zeros(1, 3, 26, 30)], folder / "Zs.pth")
    torch.save([1, torch.tensor(0.25)], folder / "NoiseAmp.pth")


@torch.no_grad()
def test_a_folder_becomes_a_pipeline(tmp_path):
    weights = load_case("singan", "scale_train_G").weights
    write_pyramid(tmp_path / "birds", weights)
    convert_checkpoint(tmp_path / "birds", tmp_path / "out", "singan")
    pipe = SinGANPipeline.from_pretrained(tmp_path / "out")
    generator, scale = pipe.generator, convert_singan(weights)
    assert [tuple(size) for size in generator.config.sizes] == [(12, 15), (16, 20)]
    assert generator.noise_amplitudes.tolist() == [1.0, 0.25]
    noise = torch.arange(180.0).view(1, 1, 12, 15)
    assert torch.equal(generator.fixed_noise, noise)
    expected = scale(noise.expand(-1, 3, -1, -1), torch.zeros(1, 3, 12, 15)).sample
    assert_near(generator([noise]).sample, expected)


def test_other_files_are_refused(tmp_path):
    weights = load_case("singan", "scale_train_G").weights
    write_pyramid(tmp_path / "birds", weights)
    torch.save([1], tmp_path / "birds" / "NoiseAmp.pth")
    with pytest.raises(ValueError, match="different numbers of scales"):
        convert_checkpoint(tmp_path / "birds", tmp_path / "out", "singan")
    (tmp_path / "birds" / "Zs.pth").unlink()
    with pytest.raises(ValueError, match="it has no Zs.pth"):
        convert_checkpoint(tmp_path / "birds", tmp_path / "out", "singan")
    with pytest.raises(ValueError, match="This is no network of SinGAN"):
        convert_singan({"main.0.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="1 unknown: x"):
        convert_singan({**weights, "x": torch.zeros(1)})
