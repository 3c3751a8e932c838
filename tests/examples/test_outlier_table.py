"""The table of outlier scores: every kind of pipeline has a score, and classes that are not known are summed over."""

import math

import torch

from diffusers_ext.models import AutoencoderMLP, PixelTransformer
from diffusers_ext.pipelines import AutoencoderPipeline, AutoregressivePipeline
from tests.examples.loading import load_example
from tests.training.runs import write_few_digits


outlier_table = load_example("outlier_table")


def tiny_transformer() -> AutoregressivePipeline:
    torch.manual_seed(0)
    sizes = {"sample_size": (8, 8), "hidden_size": 8, "num_layers": 1, "num_levels": 5}
    return AutoregressivePipeline(PixelTransformer(in_channels=1, num_classes=3, **sizes))


def test_all_classes_together_have_the_mean_of_their_likelihoods():
    pipe, images = tiny_transformer(), torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    bits = torch.stack([pipe.bits_per_dim(images, label) for label in range(3)]).double()
    expected = -(2 ** (-64 * bits)).mean(dim=0).log2() / 64
    torch.testing.assert_close(outlier_table.bits_per_dim(pipe, images).double(), expected, rtol=1e-5, atol=0)


def test_a_table_has_a_row_for_each_pipeline(tmp_path, capsys):
    (tmp_path / "digits").mkdir()
    write_few_digits(tmp_path / "digits", 12)
    tiny_transformer().save_pretrained(tmp_path / "pixels")
    autoencoder = AutoencoderMLP(sample_size=8, in_channels=1, hidden_dims=(16,), latent_dim=3, variational=False)
    AutoencoderPipeline(autoencoder).save_pretrained(tmp_path / "autoencoder")
    pipelines = [f"{name}={tmp_path / name}" for name in ("pixels", "autoencoder")]
    digits = f"digits={tmp_path / 'digits'}"
    outlier_table.main(["--pipelines", *pipelines, "--usual", digits, "--outliers", digits, "--split", "train"])
    _, _, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert [row[:2] for row in rows] == [["pixels", "bits per dimension"], ["autoencoder", "reconstruction error"]]
    for *_, mean, area in rows:
        assert math.isfinite(float(mean)) and float(area) == 0.5  # the same images
