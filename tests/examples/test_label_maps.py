"""The examples of semantic synthesis: digits with their label maps, and whether images follow such maps."""

import sys

import pytest
import torch
from PIL import Image

from diffusers_ext.models import SpatialRescaler
from tests.examples.loading import load_example
from tests.pipelines.test_palette_latents import make_semantic_pipeline, make_unet
from tests.tiny_autoencoders import tiny_vae


agreement = load_example("label_map_agreement")


@pytest.fixture
def digit_maps(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["digits_label_maps.py", str(tmp_path / "maps")])
    load_example("digits_label_maps").main()
    return tmp_path / "maps"


@pytest.mark.slow
def test_maps_of_digits_and_a_table_of_pipelines(tmp_path, digit_maps, monkeypatch, capsys):
    with Image.open(digit_maps / "test" / "map" / "1.png") as label_map:
        assert {level for _, level in label_map.getcolors()} == {0, 4}
    pipe = make_semantic_pipeline(
        unet=make_unet(2 + 4),
        vae=tiny_vae(channels=1),
        conditioner=SpatialRescaler(in_channels=11, out_channels=2, num_stages=1),
    )
    pipe.save_pretrained(tmp_path / "pipe")
    options = [f"--train_data_dir={digit_maps}", "--conditioning_image_column=conditioning_image", "--channels=1"]
    options += [
        "--conditioning_num_labels=11",
        "--max_train_steps=3",
        "--num_images=4",
        f"--pipelines={tmp_path / 'pipe'}",
    ]
    monkeypatch.setattr(sys, "argv", ["label_map_agreement.py", *options])
    agreement.main()
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(":")[0] for row in rows] == ["real images", "real images of other maps", str(tmp_path / "pipe")]
    assert "FID" in rows[2]


def test_the_mean_iou_is_over_the_labels_of_the_maps():
    given = torch.tensor([[0, 0, 1, 1]])
    values = agreement.agreement(torch.tensor([[0, 1, 1, 2]]), given, num_labels=4)
    assert values == {"pixels": 0.5, "mean IoU": pytest.approx((1 / 2 + 1 / 3) / 2)}
