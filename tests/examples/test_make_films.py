"""The captioned films: the digits move as the captions say, and are read as they were drawn."""

import json
import sys

import numpy as np
import pytest

from diffusers_ext.data import load_image_dataset
from diffusers_ext.data.decoding import decode_frames
from tests.examples.loading import load_example


films = load_example("mini_video/make_films")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "films"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["make_films.py", "--output_dir", str(folder), "--count", "20"])
        films.main()
    return folder


def test_digits_move_as_the_captions_say(folder):
    for line in (folder / "test" / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert all(row["digit"] in caption and row["direction"] in caption for caption in row["text"])
        frames = decode_frames(str(folder / "test" / row["file_name"]), 1)[:, 0].double().numpy()
        assert frames.shape == (8, 16, 16)
        total = frames.sum(axis=(1, 2))
        centres = np.stack(
            [(frames.sum(axis=1) @ np.arange(16)) / total, (frames.sum(axis=2) @ np.arange(16)) / total]
        )
        way = (centres[:, -1] - centres[:, 0]) / 7
        expected = films.SPEEDS[row["speed"]] * np.array(films.DIRECTIONS[row["direction"]])
        np.testing.assert_allclose(way, expected, atol=0.1)


def test_they_are_data_with_captions_and_classes(folder):
    options = {"resolution": 16, "channels": 1, "num_frames": 8, "caption_column": "text", "cache_images": False}
    dataset = load_image_dataset(train_data_dir=str(folder), label_column="digit", **options)
    assert dataset.epoch_length == 20 and len(dataset.id2label) > 5
    assert next(dataset.batches(2, 0))["pixel_values"].shape == (2, 1, 8, 16, 16)
