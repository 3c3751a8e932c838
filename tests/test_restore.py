"""The command that restores files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_ext.data.light_files import encode_light, read_light
from diffusers_ext.data.png16 import encode_png16, read_png16
from diffusers_ext.models import MSRResNet
from diffusers_ext.pipelines import RestorationPipeline
from diffusers_ext.restore import main, outputs_of


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    RestorationPipeline(MSRResNet(base_channels=4, num_blocks=1, scale=2)).save_pretrained(folder)
    return str(folder)


def test_a_folder_of_a_hundred_mixed_files(model, tmp_path, capsys):
    rng, folder = np.random.default_rng(0), tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    sizes = {}
    for index in range(95):
        mode, extension = [("L", "png"), ("RGB", "jpg"), ("RGBA", "webp"), ("P", "gif"), ("CMYK", "tif")][index % 5]
        width, height = (int(side) for side in rng.integers(1, 40, 2))
        name = f"{'deep/' if index % 3 == 0 else ''}{index}"
        bands = (height, width, len(Image.new(mode, (1, 1)).getbands()))
        levels = rng.integers(0, 256, bands, dtype=np.uint8)
        Image.fromarray(levels[..., 0] if bands[2] == 1 else levels, mode).save(folder / f"{name}.{extension}")
        sizes[name] = (2 * width, 2 * height)
    colors = rng.integers(0, 65536, (20, 30, 4), dtype=np.uint16)
    (folder / "colors16.png").write_bytes(encode_png16(colors))
    Image.fromarray(colors[..., 0]).save(folder / "gray16.png")
    Image.fromarray(colors[..., 0]).save(folder / "gray16.tif")
    (folder / "damaged.jpg").write_bytes((folder / "1.jpg").read_bytes()[:100])
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden").write_text("")

    arguments = [str(folder), str(tmp_path / "out"), "--model", model, "--tile_size", "16", "--device", "cpu"]
    assert main([*arguments, "--report", str(tmp_path / "report.json")]) == 0
    printed = capsys.readouterr().out
    assert "98 of 100 files restored, 2 skipped:" in printed
    assert "damaged.jpg" in printed and "notes.txt" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["restored"]) == 98 and len(report["skipped"]) == 2
    for name, size in sizes.items():
        assert Image.open(tmp_path / "out" / f"{name}.png").size == size
    assert Image.open(tmp_path / "out" / "2.png").mode == "RGBA" and Image.open(tmp_path / "out" / "5.png").mode == "L"
    assert read_png16(tmp_path / "out" / "colors16.png").shape == (40, 60, 4)
    for kind in ("png", "tif"):
        assert read_png16(tmp_path / "out" / f"gray16.{kind}.png").shape == (40, 60)


def test_a_single_file(model, tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    assert main([str(tmp_path / "a.png"), str(tmp_path / "deep" / "b.png"), "--model", model, "--device", "cpu"]) == 0
    assert Image.open(tmp_path / "deep" / "b.png").size == (8, 6)
    assert outputs_of(tmp_path / "a.png", tmp_path / "deep") == {tmp_path / "a.png": tmp_path / "deep" / "a.png"}


def test_files_of_light(model, tmp_path, capsys):
    """An ordinary network restores them; one of high dynamic range makes them of all images, here twice as bright."""
    bright, folder = tmp_path / "bright", tmp_path / "in"
    network = MSRResNet(base_channels=1, num_blocks=0, scale=1)
    torch.nn.init.zeros_(network.conv_out.weight)  # so it changes nothing
    RestorationPipeline(network, peak=8.0).save_pretrained(bright)
    folder.mkdir()
    light = np.random.default_rng(0).random((9, 11, 4), dtype=np.float32)
    light[..., :3] *= 50
    (folder / "a.hdr").write_bytes(encode_light(light[..., :3], ".hdr"))
    (folder / "b.exr").write_bytes(encode_light(light, ".exr"))
    (folder / "damaged.hdr").write_bytes(b"#?RADIANCE")
    Image.new("RGB", (11, 9), (255, 128, 0)).save(folder / "c.png")
    Image.new("RGBA", (11, 9)).save(folder / "d.png")
    arguments = [str(folder), str(tmp_path / "out"), "--model", str(bright), "--device", "cpu", "--tile_size", "8"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "3 of 5 files restored, 2 skipped:" in printed and "(.hdr) have no transparency: write .exr" in printed
    for name, tolerance in (("a.hdr", 0.01), ("b.exr", 0.005)):
        restored = read_light(tmp_path / "out" / name)
        np.testing.assert_allclose(restored, light[..., : restored.shape[2]], atol=50 * tolerance)
    colors = read_light(tmp_path / "out" / "c.hdr")
    np.testing.assert_allclose(colors[0, 0], [1, (128 / 255) ** 2.2, 0], atol=0.01)

    assert main([*arguments, "--light_format", "png"]) == 0
    assert read_png16(tmp_path / "out" / "d.png").shape == (9, 11, 4)
    one = [str(folder / "b.exr"), str(tmp_path / "b.exr"), "--model", model, "--device", "cpu"]
    assert main(one) == 0 and read_light(tmp_path / "b.exr").shape == (18, 22, 4)
    assert main([str(folder / "c.png"), *one[1:]]) == 1
    assert "would be a file of light" in capsys.readouterr().err


def test_what_can_not_be_done_is_said(model, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no image")
    arguments = [str(tmp_path / "notes.txt"), str(tmp_path / "out.png"), "--model", model, "--device", "cpu"]
    assert main(arguments) == 1 and "0 of 1 files restored" in capsys.readouterr().out
    assert main([*arguments, "--tile_overlap", "300"]) == 1
    assert "`tile_overlap` must be from 0 to less than `tile_size`, 256" in capsys.readouterr().err
    assert main([str(tmp_path / "nothing"), *arguments[1:]]) == 1
    assert "There is no file or folder" in capsys.readouterr().err
    assert main([str(tmp_path), str(tmp_path / "notes.txt"), *arguments[2:]]) == 1
    assert "is a folder, so the output must be one" in capsys.readouterr().err


def test_originals_are_not_overwritten(model, tmp_path, capsys):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    for path in (tmp_path, tmp_path / "a.png"):
        assert main([str(path), str(path), "--model", model, "--device", "cpu"]) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line == f"The original {tmp_path / 'a.png'} would be overwritten: name another output."
    assert (tmp_path / "a.png").read_bytes() == before


def test_models_and_devices_that_there_are_not_are_named(model, tmp_path, capsys):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert main([*files, "--model", str(tmp_path / "empty"), "--device", "cpu"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"--model {tmp_path / 'empty'} is no RestorationPipeline: ")
    assert main([*files, "--model", model, "--device", "banana"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("--device banana can't be used: ")


def test_files_that_can_not_be_written_are_named(model, tmp_path, capsys):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    arguments = [str(tmp_path / "a.png"), str(tmp_path / "a.png" / "b.png"), "--model", model, "--device", "cpu"]
    assert main(arguments) == 1
    assert f"{tmp_path / 'a.png' / 'b.png'} can't be written: " in capsys.readouterr().err.splitlines()[-1]
    assert main([arguments[0], str(tmp_path / "b.png"), *arguments[2:], "--report", str(tmp_path)]) == 1
    assert f"--report {tmp_path} can't be written: " in capsys.readouterr().err.splitlines()[-1]
