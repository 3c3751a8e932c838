"""The captioned scenes: what is written, and that unseen combinations stay unseen."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.examples.loading import load_example


scenes = load_example("mini_text_to_image/make_scenes")


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make_scenes.py", "--output_dir", str(folder), "--count", "40"])
        scenes.main()
    return folder


def test_images_show_what_their_words_say(folder):
    for row in rows(folder / "captioned" / "train"):
        pixels = np.array(Image.open(folder / "captioned" / "train" / row["file_name"])).astype(float)
        assert pixels.shape == (16, 16, 3)
        brightest = pixels.reshape(-1, 3)[pixels.sum(axis=2).argmax()]
        colour = np.array(scenes.COLOURS[row["colour"]])
        assert np.dot(brightest, colour) / np.linalg.norm(brightest) / np.linalg.norm(colour) > 0.99
        if row["count"] == "one" and row["position"] != "middle":
            down, right = scenes.POSITIONS[row["position"]]
            weights = pixels.sum(axis=2)
            centre = (weights.sum(axis=1) @ np.arange(16), weights.sum(axis=0) @ np.arange(16)) / weights.sum()
            assert (centre[0] > 7.5) == bool(down) and (centre[1] > 7.5) == bool(right)


def test_captions_name_more_and_more(folder):
    for row in rows(folder / "captioned" / "test"):
        assert row["text"][0].count(" ") >= row["text"][-1].count(" ")
        assert all(row["digit"] in caption for caption in row["text"])
        assert row["colour"] in row["text"][0]


def test_some_colours_of_digits_are_never_trained_on(folder):
    pairs = {name: {(row["digit"], row["colour"]) for row in rows(folder / name)} for name in ("unseen",)}
    pairs["seen"] = {
        (row["digit"], row["colour"]) for split in ("train", "test") for row in rows(folder / "captioned" / split)
    }
    assert len(pairs["unseen"]) == 10 and not pairs["unseen"] & pairs["seen"]
    assert {colour for _, colour in pairs["seen"]} == set(scenes.COLOURS)


def test_the_same_seed_draws_the_same(folder, tmp_path):
    scenes.write_scenes(tmp_path / "again", "train", 40, unseen=False, side=16, seed=0)
    for name in ("metadata.jsonl", "00007.png"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / "captioned" / "train" / name).read_bytes()
