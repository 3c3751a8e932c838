"""Films: every frame is read, a clip is drawn each time, and films that can't be used are named."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffusers_ext.data import UnreadableImagesError, load_image_dataset
from diffusers_ext.data.decoding import UnreadableImageError, decode_frames
from tests.tiny_films import gray_frames, write_captioned_films, write_film


def load(folder, **options):
    settings = {"resolution": 8, "channels": 1, "num_frames": 3, "cache_dir": str(folder / "__cache__"), **options}
    return load_image_dataset(train_data_dir=str(folder), **settings)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tiff"])
def test_all_frames_are_read(tmp_path, suffix):
    frames = gray_frames(0)
    write_film(frames, tmp_path / f"film{suffix}")
    assert np.array_equal(decode_frames(str(tmp_path / f"film{suffix}"), 1)[:, 0], frames)
    colours = decode_frames(str(tmp_path / f"film{suffix}"), 3)
    assert colours.shape == (5, 3, 8, 8) and np.array_equal(colours[:, 2], frames)


def test_an_image_is_a_film_of_one_frame(tmp_path):
    Image.fromarray(gray_frames(0)[0]).save(tmp_path / "image.png")
    assert decode_frames(str(tmp_path / "image.png"), 1).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("cached", [True, False])
def test_a_batch_has_clips_and_captions(tmp_path, cached):
    dataset = load(write_captioned_films(tmp_path), caption_column="text", cache_images=cached)
    batch = next(dataset.batches(6, seed=0))
    assert batch["pixel_values"].shape == (6, 1, 3, 8, 8) and batch["pixel_values"].abs().max() <= 1
    assert batch["class_labels"].shape == batch["caption_ids"].shape == (6,) and dataset.id2label[0] == "one"
    reference = next(dataset.reference_batches(6))["pixel_values"]
    expected = np.stack([gray_frames(number)[1:4] for number in range(6)])
    assert reference.dtype == torch.uint8 and np.array_equal(reference[:, 0], expected)


@pytest.mark.parametrize(("stride", "starts"), [(1, 3), (2, 1)])
def test_clips_begin_everywhere_and_skip_frames(tmp_path, stride, starts):
    write_film(gray_frames(3), tmp_path / "film.gif")
    dataset, found = load(tmp_path, frame_stride=stride), set()
    for batch, _ in zip(dataset.batches(8, seed=0), range(4), strict=False):
        for clip in ((batch["pixel_values"][:, 0] + 1) * 127.5).round().byte().numpy():
            fits = [
                np.array_equal(clip, gray_frames(3)[start : start + 2 * stride + 1 : stride]) for start in range(3)
            ]
            assert sum(fits) == 1
            found.add(fits.index(True))
    assert len(found) == starts


def test_a_clip_depends_on_the_seed_and_the_epoch_alone(tmp_path):
    dataset = load(write_captioned_films(tmp_path), resolution=6)
    both = torch.cat([batch["pixel_values"] for batch, _ in zip(dataset.batches(4, 5), range(2), strict=False)])
    late = next(load(tmp_path, resolution=6, cache_images=False).batches(4, 5, start=4))["pixel_values"]
    assert torch.equal(both[4:], late)


def test_frames_are_cropped_and_mirrored_alike(tmp_path):
    still = np.broadcast_to(gray_frames(0)[:1], (4, 8, 8)).copy()
    still[:, 0, 0] = range(4)  # writers make one of frames that are equal
    write_film(still, tmp_path / "film.png")
    batches = load(tmp_path, resolution=[5, 8], load_size=[8, 8], random_flip=True).batches(16, 0)
    clips = next(batches)["pixel_values"][:, 0, :, 1:, 1:-1]
    assert torch.equal(clips, clips[:, :1].expand_as(clips))
    assert len(clips.flatten(1).unique(dim=0)) > 4


def test_films_of_other_sizes_and_lengths_fit(tmp_path):
    write_film(gray_frames(0, count=3, side=9), tmp_path / "a.gif")
    write_film(gray_frames(1, count=7, side=30), tmp_path / "b.webp")
    for cached in (True, False):
        assert next(load(tmp_path, cache_images=cached).batches(4, 0))["pixel_values"].shape == (4, 1, 3, 8, 8)


def test_short_and_damaged_films_are_named(tmp_path):
    folder = write_captioned_films(tmp_path)
    write_film(gray_frames(9, count=2), folder / "2.gif")
    (folder / "4.gif").write_bytes((folder / "4.gif").read_bytes()[:200])
    with pytest.raises(UnreadableImagesError) as error:
        next(load(folder).batches(2, 0))
    assert "2.gif: it has 2 frames, but a clip of --num_frames 3 with --frame_stride 1 takes 3" in str(error.value)
    assert {file[-5:] for file in error.value.files} == {"2.gif", "4.gif"}
    dataset = load(folder, skip_unreadable_images=True)
    assert next(dataset.batches(6, 0))["pixel_values"].shape == (6, 1, 3, 8, 8) and dataset.num_skipped == 2


def test_films_with_too_many_pixels_are_refused(tmp_path):
    write_film(gray_frames(0), tmp_path / "film.gif")
    with pytest.raises(UnreadableImageError, match="its 5 frames of 8x8 have more than 100 pixels"):
        decode_frames(str(tmp_path / "film.gif"), 1, max_pixels=100)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_frames": 0}, "--num_frames and --frame_stride must be at least 1, not 0 and 1"),
        ({"frame_stride": 0}, "must be at least 1"),
        ({"streaming": True}, "films can't be streamed"),
        ({"conditioning_image_column": "label"}, "films have no conditioning images"),
    ],
)
def test_what_films_do_not_have_is_refused(tmp_path, options, reason):
    with pytest.raises(ValueError, match=reason):
        load(tmp_path, **options)
