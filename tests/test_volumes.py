"""The command for medical volumes: slices, translations, and a comparison per subject."""

import json

import numpy as np
import pytest
import torch

from diffusers_ext.data.png16 import read_png16
from diffusers_ext.models import ResnetGenerator
from diffusers_ext.pipelines import ImageTranslationPipeline
from diffusers_ext.volumes import compare_volumes, main, read_volume
from tests.examples.loading import load_example


nibabel = pytest.importorskip("nibabel", reason='volumes need nibabel: pip install "diffusers_ext[medical]"')
AFFINE = np.array([[2.0, 0, 0, 5], [0, 3.0, 0, 6], [0, 0, 4.0, 7], [0, 0, 0, 1]])


@pytest.fixture
def scans(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "scans"
    folder.mkdir()
    for name in ("anna.nii.gz", "ben.nii"):
        volume = nibabel.Nifti1Image(rng.integers(-50, 2000, (12, 16, 3)).astype(np.int16), AFFINE)
        nibabel.save(volume, folder / name)
    (folder / "notes.txt").write_text("no volume")
    return folder


def test_slices_are_16_bit_files_of_normalized_volumes(scans, tmp_path, capsys):
    assert main(["slices", str(scans), str(tmp_path / "png")]) == 0
    names = sorted(path.name for path in (tmp_path / "png").iterdir())
    assert names == [f"{subject}_00{index}.png" for subject in ("anna", "ben") for index in range(3)]
    values = nibabel.load(scans / "ben.nii").get_fdata()
    low, high = np.percentile(values, (0.1, 99.9))
    expected = ((values[..., 1] - low) / (high - low)).clip(0, 1)
    found = read_png16(tmp_path / "png" / "ben_001.png")
    assert found.dtype == np.uint16 and np.abs(found / 65535 - expected).max() < 1e-5
    assert main(["slices", str(scans), str(tmp_path / "across"), "--axis", "0"]) == 0
    assert read_png16(tmp_path / "across" / "anna_011.png").shape == (16, 3)


def test_a_translated_volume_lies_where_the_original_lies(scans, tmp_path):
    torch.manual_seed(0)
    model = ResnetGenerator(in_channels=1, out_channels=1, base_channels=4, num_blocks=1)
    pipeline = ImageTranslationPipeline(model.eval())
    pipeline.save_pretrained(tmp_path / "model")
    arguments = ["translate", str(scans), str(tmp_path / "out"), "--model", str(tmp_path / "model"), "--device", "cpu"]
    assert main([*arguments, "--batch_size", "2"]) == 0
    written = nibabel.load(tmp_path / "out" / "anna.nii.gz")
    assert np.array_equal(written.affine, AFFINE) and written.get_data_dtype() == np.float32
    slices, _ = read_volume(scans / "anna.nii.gz")
    expected = pipeline(torch.from_numpy(slices[1].copy())[None, None], output_type="np").images[0, ..., 0]
    np.testing.assert_allclose(written.get_fdata()[..., 1], expected, atol=1e-5)


def test_volumes_are_compared_per_subject(scans, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    for subject, error in (("anna", 0.0), ("ben", 0.1)):
        path = scans / ("anna.nii.gz" if subject == "anna" else "ben.nii")
        values = np.moveaxis(read_volume(path)[0], 0, 2)
        shifted = np.where(values > 0.5, values - error, values + error)
        nibabel.save(nibabel.Nifti1Image(shifted.astype(np.float32), AFFINE), tmp_path / "out" / f"{subject}.nii.gz")
    report = tmp_path / "report.json"
    assert main(["compare", str(scans), str(tmp_path / "out"), "--report", str(report)]) == 0
    assert "| ben | 20.00 |" in capsys.readouterr().out
    rows = json.loads(report.read_text())
    assert rows["ben"]["psnr"] == pytest.approx(20, abs=1e-3) and rows["anna"]["ssim"] > 0.999 > rows["ben"]["ssim"]
    assert rows["mean"]["ssim"] == pytest.approx((rows["anna"]["ssim"] + rows["ben"]["ssim"]) / 2)
    assert compare_volumes(scans, scans, normalize=True)["ben"]["ssim"] == pytest.approx(1)


def test_what_is_wrong_is_said_in_one_sentence(scans, tmp_path, capsys):
    def sentence(*arguments):
        assert main([str(argument) for argument in arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "There are no .nii or .nii.gz files in" in sentence("slices", tmp_path, tmp_path / "out")
    assert "must hold values from 0 to 1" in sentence("compare", scans, scans)
    translate = ("translate", scans, tmp_path / "out", "--device", "cpu", "--model", tmp_path)
    assert f"--model {tmp_path} is no ImageTranslationPipeline: " in sentence(*translate)
    assert "would be overwritten" in sentence("translate", scans, scans, *translate[3:])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "anna.nii").write_bytes((scans / "ben.nii").read_bytes()[:400])
    assert "must have the same subjects" in sentence("compare", scans, tmp_path / "other")
    assert "can't be read" in sentence("slices", tmp_path / "other", tmp_path / "out")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2), np.float32), AFFINE), tmp_path / "other" / "anna.nii")
    assert "can't be normalized" in sentence("slices", tmp_path / "other", tmp_path / "out")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 2, 2), np.float32), AFFINE), tmp_path / "other" / "anna.nii")
    assert "must have three dimensions" in sentence("slices", tmp_path / "other", tmp_path / "out")
    (tmp_path / "other" / "anna.nii.gz").write_bytes(b"")
    assert "anna.nii.gz have the same name" in sentence("slices", tmp_path / "other", tmp_path / "out")


def test_phantoms_have_two_contrasts_of_the_same_shapes(tmp_path):
    numbers = ["--num_train", "2", "--num_test", "1", "--size", "24", "--depth", "4"]
    load_example("medical_phantoms").main([str(tmp_path), *numbers])
    first, second = (read_volume(tmp_path / "train" / name / "subject_01.nii.gz")[0] for name in ("t1", "t2"))
    assert first.shape == second.shape == (4, 24, 24)
    assert np.mean((first > 0.3) & (second < 0.05)) < 0.02  # skin and brain are seen in both, air in none
    curve = load_example("contrast_curve")
    curve.main(*(str(tmp_path / part) for part in ("train/t1", "train/t2", "test/t1", "curve")))
    mapped, same = (
        compare_volumes(tmp_path / "test" / "t2", tmp_path / folder, normalize=normalize)["subject_00"]["psnr"]
        for folder, normalize in (("curve", False), ("test/t1", True))
    )
    assert mapped > same + 1
