"""The example that shows mode collapse: what it counts, and a short run of all its methods."""

import json

import pytest
import torch
from PIL import Image

from tests.examples.loading import load_example


mode_collapse = load_example("mode_collapse")


def test_modes_of_points_are_counted():
    torch.manual_seed(0)
    points = mode_collapse.draw_points(4000).flatten(1)
    covered = mode_collapse.point_coverage(points)
    assert covered["covered"] == 8 and covered["recognised"] > 0.99
    collapsed = mode_collapse.point_coverage(points[:1].expand(100, 2))
    assert collapsed == {"covered": 1, "recognised": 1.0}
    assert mode_collapse.point_coverage(torch.zeros(100, 2)) == {"covered": 0, "recognised": 0.0}


@pytest.mark.slow
def test_a_short_run_leaves_a_table_and_a_picture(tmp_path, capsys):
    mode_collapse.main([f"--output_dir={tmp_path}", "--point_steps=2", "--digit_steps=2"])
    rows = json.loads((tmp_path / "coverage.json").read_text())
    assert list(rows) == ["plain", "MSGAN", "WGAN-GP", "R1"]
    for row in rows.values():
        assert 0 <= row["points"]["covered"] <= 8 and 0 <= row["digits"]["covered"] <= 10
        assert 0 <= row["points"]["recognised"] <= 1 and 0 <= row["digits"]["recognised"] <= 1
    with Image.open(tmp_path / "mode_collapse.png") as picture:
        assert picture.width > 4 * 256 and picture.height > 2 * 256
    assert capsys.readouterr().out.count("\n| ") == 4


@pytest.mark.slow
def test_mode_seeking_covers_points_that_the_plain_gan_loses():
    counts = {}
    for method in ("plain", "MSGAN"):
        options, _ = mode_collapse.METHODS[method]
        counts[method] = mode_collapse.point_coverage(mode_collapse.play(1500, **options))["covered"]
    assert counts["plain"] <= 2 and counts["MSGAN"] >= 4  # with two seeds 0 or 1, and 5 or 6
