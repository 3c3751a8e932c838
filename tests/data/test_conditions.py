"""Control images, compared with independent implementations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from scipy import ndimage

from diffusers_ext.data import load_image_dataset
from diffusers_ext.data.conditions import (
    CONDITIONS,
    IMAGE_CONDITIONS,
    blur,
    canny,
    default_palette,
    describe_conditions,
    grayscale,
    load_condition,
    low_resolution,
    segmentation,
    soft_edges,
)
from diffusers_ext.data.conditions.slopes import brightness, slopes, smooth

from .drawing import draw, photo


# Photographs of scikit-learn, noise, drawn shapes and a flat image, as levels of gray, with the edges that
# scikit-image 0.26 finds in `levels / 255`: feature.canny(sigma=, low_threshold=, high_threshold=); these numbers are
# the keys.
GOLDEN = np.load(Path(__file__).parent / "golden" / "canny_skimage_0_26.npz")


def images(*pictures: torch.Tensor) -> torch.Tensor:
    return torch.stack(pictures) / 127.5 - 1


def photographs(channels: int = 3) -> torch.Tensor:
    return images(photo(40, 56, channels), 255 - photo(40, 56, channels))


def in_pillow(clean: torch.Tensor) -> list[Image.Image]:
    levels = ((clean + 1) * 127.5).round().byte()
    return [Image.fromarray(image) for image in levels.permute(0, 2, 3, 1).numpy()]


def decision_margins(steepness, along_y, along_x):
    """By how much each pixel is at least as steep as its two interpolated neighbours across the edge, (N, 1, H, W)."""
    height, width = steepness.shape[-2:]
    padded = F.pad(steepness, (1, 1, 1, 1))

    def neighbour(down, right):
        return padded[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    vertical, falling = along_y.abs() >= along_x.abs(), along_y * along_x < 0
    smaller, larger = torch.minimum(along_y.abs(), along_x.abs()), torch.maximum(along_y.abs(), along_x.abs())
    share = torch.where(larger > 0, smaller / larger, 0.0)
    steepest = torch.zeros_like(steepness)
    for side in (1, -1):
        straight = torch.where(vertical, neighbour(side, 0), neighbour(0, side))
        anti_diagonal = torch.where(vertical, neighbour(side, -side), neighbour(-side, side))
        diagonal = torch.where(falling, anti_diagonal, neighbour(side, side))
        steepest = torch.maximum(steepest, diagonal * share + straight * (1 - share))
    margins = torch.full_like(steepness, -torch.inf)  # never an edge at the border
    margins[..., 1:-1, 1:-1] = (steepness - steepest)[..., 1:-1, 1:-1]
    return margins


def kept_lines(candidates, seeds):
    """The candidates (N, H, W) that are connected to a seed."""
    lines, count = ndimage.label(candidates, np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))]))
    return candidates & np.isin(lines, np.unique(lines[seeds & candidates]))


def canny_bounds(levels, sigma, low, high, rounding=1e-10):
    """The pixels that are certainly edges, and those that are possibly edges, however a CPU rounds float64 sums."""
    along_y, along_x = slopes(smooth(brightness(levels[:, None] / 127.5 - 1), sigma))
    steepness = (along_y.square() + along_x.square()).sqrt()
    margins = torch.minimum(decision_margins(steepness, along_y, along_x), steepness - low)[:, 0].numpy()
    seed_margins = np.minimum(margins, (steepness - high)[:, 0].numpy())
    return [kept_lines(margins > at_least, seed_margins > at_least) for at_least in (rounding, -rounding)]


@pytest.mark.parametrize("numbers", [name for name in GOLDEN.files if name != "levels"])
def test_canny_is_that_of_scikit_image(numbers):
    sigma, low, high = map(float, numbers.split())
    levels = torch.from_numpy(GOLDEN["levels"])
    expected = np.unpackbits(GOLDEN[numbers]).astype(bool).reshape(levels.shape)
    certain, possible = canny_bounds(levels, sigma, low, high)
    # Rounding decides only where both sides of an edge are equally steep, which happens in the drawn shapes (3).
    undecided = possible & ~certain
    assert not undecided[[0, 1, 2, 4]].any() and undecided[3].mean() < 0.06
    assert (certain <= expected).all() and (expected <= possible).all()
    for channels in (1, 3):
        clean = levels[:, None].expand(-1, channels, -1, -1) / 127.5 - 1
        edges = canny(clean, sigma=sigma, low_threshold=low, high_threshold=high)
        assert edges.shape == (len(levels), 3, *levels.shape[1:]) and set(edges.unique().tolist()) <= {-1.0, 1.0}
        assert (edges[:, 0] == edges[:, 1]).all() and (edges[:, 0] == edges[:, 2]).all()
        found = (edges[:, 0] > 0).numpy()
        assert (certain <= found).all() and (found <= possible).all()
        assert (found[~undecided] == expected[~undecided]).all()
    assert expected[0].mean() > 0.02 and expected[3].sum() > 100 and not expected[4].any()


def test_canny_sees_colours_as_pillow_does():
    clean = photographs()
    gray = [
        Image.fromarray(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).convert("L") for image in clean
    ]
    levels = torch.stack([torch.from_numpy(np.array(image)) for image in gray])
    assert torch.equal(canny(clean), canny(levels[:, None] / 127.5 - 1))
    assert not torch.equal(canny(clean), canny(clean, low_threshold=0.3, high_threshold=0.9))


def test_lines_do_not_reach_into_the_next_image():
    strong, weak = torch.zeros(20, 20), torch.zeros(20, 20)
    strong[:, 10:], weak[:, 10:] = 255, 12  # weak: between the thresholds
    clean = images(strong[None], weak[None], strong[None])
    together, alone = canny(clean), torch.cat([canny(image[None]) for image in clean])
    assert torch.equal(together, alone) and (together[0] > 0).any() and not (together[1] > 0).any()


def test_soft_edges():
    step = torch.zeros(1, 24, 24)
    step[..., 12:] = 200
    slope = torch.arange(24.0)[None, None].expand(1, 24, 24) * 2
    edges = soft_edges(images(step, slope, torch.full((1, 24, 24), 90.0)), sigma=1.0)
    assert edges.shape == (3, 3, 24, 24) and -1 <= edges.min() and edges.max() <= 1
    rows = edges[:, 0, 12]
    assert rows[0].argmax() in (11, 12) and rows[0].max() > 0.99 and rows[0, [0, -1]].max() < -0.99
    assert rows[0, 8:12].diff().min() > 0  # rising towards the step
    assert rows[1, 5:-5].min() > 0.5  # a constant slope
    assert (edges[2] == -1).all()
    # A negative has the same edges, up to the rounding of gray levels.
    first, second = soft_edges(photographs())
    assert (first - second).abs().max() < 0.05


def test_blur():
    clean = photographs()
    blurred = blur(clean, sigma=2.0)
    pictures = in_pillow(clean)
    theirs = torch.stack([torch.from_numpy(np.array(p.filter(ImageFilter.GaussianBlur(2)))) for p in pictures])
    levels = (blurred + 1) * 127.5
    # Pillow approximates a Gaussian by three box filters.
    assert (levels - theirs.permute(0, 3, 1, 2)).abs().mean() < 1.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert blurred.std() < clean.std()


def test_grayscale_and_low_resolution():
    clean = photographs()
    pictures = in_pillow(clean)
    gray = torch.stack([torch.from_numpy(np.array(picture.convert("L"))) for picture in pictures])
    assert torch.equal(((grayscale(clean) + 1) * 127.5).round().byte(), gray[:, None].expand(-1, 3, -1, -1))
    small = [p.resize((14, 10), Image.Resampling.BICUBIC).resize(p.size, Image.Resampling.BICUBIC) for p in pictures]
    theirs = torch.stack([torch.from_numpy(np.array(picture)) for picture in small]).permute(0, 3, 1, 2)
    assert (((low_resolution(clean, factor=4) + 1) * 127.5) - theirs).abs().max() <= 1


def test_segmentation_has_the_colours_of_the_palette():
    labels = torch.arange(256).view(1, 1, 16, 16)
    colours = segmentation(labels / 127.5 - 1)
    palette = torch.tensor(default_palette())
    assert torch.equal(((colours + 1) * 127.5).round().long().permute(0, 2, 3, 1).view(256, 3), palette)
    assert len(set(default_palette())) == 256
    # The first colours of Pascal VOC: background, aeroplane, bicycle, bird; and "void".
    assert default_palette()[:4] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert default_palette()[255] == (224, 224, 192)
    own = segmentation(torch.tensor([[[[0.0, 1.0]]]]) / 127.5 - 1, palette=[[255, 0, 0], [0, 0, 255]])
    assert own.flatten().tolist() == [1, -1, -1, -1, -1, 1]
    with pytest.raises(ValueError, match="2 colours, too few for class 2"):
        segmentation(torch.full((1, 1, 1, 1), 2 / 127.5 - 1), palette=[[255, 0, 0], [0, 0, 255]])
    with pytest.raises(ValueError, match="red, green and blue"):
        segmentation(torch.zeros(1, 1, 1, 1), palette=[[255, 0]])


def write_label_maps(folder, mode: str):
    """Images, and label maps of 0, 1 and 7 at twice their size."""
    rows, maps = [], []
    palette = [channel for label in range(256) for channel in (255 - label, label, 99)]
    for number in range(3):
        labels = np.random.default_rng(number).choice(np.array([0, 1, 7], dtype=np.uint8), (10, 12))
        maps.append(labels)
        picture = Image.fromarray(np.kron(labels, np.ones((2, 2), dtype=np.uint8)))
        if mode == "P":
            picture.putpalette(palette)
        draw(number, 10, 12).save(folder / f"{number}.png")
        name = f"{number}-labels.{'tif' if mode == 'I' else 'png'}"
        picture.convert(mode).save(folder / name)
        rows.append({"file_name": f"{number}.png", "conditioning_image_file_name": name})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return torch.from_numpy(np.stack(maps))


@pytest.mark.parametrize("mode", ["L", "P", "I"])
@pytest.mark.parametrize("way", [{"cache_images": True}, {"cache_images": False}, {"streaming": True}])
def test_label_maps_keep_their_labels(tmp_path, mode, way):
    labels = write_label_maps(tmp_path, mode)
    dataset = load_image_dataset(
        train_data_dir=str(tmp_path),
        conditioning_image_column="conditioning_image",
        conditioning_label_maps="levels",
        resolution=(10, 12),
        **way,
    )
    reference = next(dataset.reference_batches(3))["conditioning_pixel_values"]
    assert torch.equal(reference, labels[:, None].expand(-1, 3, -1, -1))
    resized = load_image_dataset(
        train_data_dir=str(tmp_path),
        conditioning_image_column="conditioning_image",
        conditioning_label_maps="levels",
        resolution=7,
        **way,
    )
    batch = next(resized.batches(8, seed=0))["conditioning_pixel_values"]
    assert set(((batch + 1) * 127.5).round().int().unique().tolist()) == {0, 1, 7}
    colours = segmentation(batch)
    assert {tuple(c) for c in ((colours + 1) * 127.5).round().int().permute(0, 2, 3, 1).reshape(-1, 3).tolist()} == {
        default_palette()[label] for label in (0, 1, 7)
    }


def test_what_is_no_label_map(tmp_path):
    write_label_maps(tmp_path, "L")
    arguments = {"train_data_dir": str(tmp_path), "conditioning_label_maps": "levels", "resolution": 8}
    draw(0, 20, 24).save(tmp_path / "1-labels.png")
    with pytest.raises(ValueError, match="a label map must have one channel of integers, but this image is RGB"):
        load_image_dataset(conditioning_image_column="conditioning_image", **arguments).prepare()
    Image.fromarray(np.full((20, 24), 300, dtype=np.uint16)).save(tmp_path / "1-labels.png")
    with pytest.raises(ValueError, match="labels must be integers from 0 to 255, not 300 to 300"):
        load_image_dataset(conditioning_image_column="conditioning_image", **arguments).prepare()
    with pytest.raises(ValueError, match="conditioning_label_maps needs label maps"):
        load_image_dataset(**arguments)


def inverted(images, *, strength: float = 1.0):
    """A user's condition."""
    return -strength * images


@pytest.mark.parametrize("name", [*IMAGE_CONDITIONS, f"{__name__}:inverted"])
def test_conditions_by_name_are_of_each_image_alone(name):
    condition = load_condition(name)
    clean = photographs().requires_grad_()
    control = condition(clean)
    assert control.shape == (2, 3, 40, 56) and control.dtype == torch.float32 and not control.requires_grad
    assert -1 <= control.min() < -0.5 and 0 < control.max() <= 1
    assert torch.equal(control, torch.cat([condition(image[None]) for image in clean]))
    assert torch.equal(condition(clean), control)


def test_options_and_user_functions():
    clean = photographs()
    assert torch.equal(load_condition("canny", {"sigma": 2.0})(clean), canny(clean, sigma=2.0))
    assert torch.equal(load_condition(f"{__name__}:inverted", {"strength": 0.5})(clean), -0.5 * clean)
    described = describe_conditions()
    assert set(described) == set(CONDITIONS) and "sigma=1.0" in described["canny"]
    assert all(line.count("\n") == 0 and len(line) > 20 for line in described.values())


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("cany", {}, "there is no condition 'cany': the conditions are canny, soft_edges"),
        ("canny", {"sigmas": 1}, "the condition 'canny' does not accept {'sigmas': 1}"),
        ("canny", {"sigma": -1}, "canny needs sigma >= 0"),
        ("canny", {"low_threshold": 0.5, "high_threshold": 0.1}, "low_threshold <= high_threshold"),
        ("soft_edges", {"sigma": -1}, "soft_edges needs sigma"),
        ("blur", {"sigma": 0}, "blur needs a positive sigma"),
        ("low_resolution", {"factor": 100}, "must be from 1 to 40"),
        (f"{__name__}:nothing", {}, "must name a function"),
        (f"{__name__}:inverted", {"strength": 3}, r"must return images \(2, 3, 40, 56\) in \[-1, 1\]"),
    ],
)
def test_what_cannot_be_made_is_said(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_condition(name, options)(photographs())


def test_modules_and_channels_that_are_not_there():
    with pytest.raises(ImportError, match="is its folder on PYTHONPATH"):
        load_condition("no_such_module:function")
    with pytest.raises(ValueError, match="a condition needs images of 1 or 3 channels, not 4"):
        load_condition("canny")(torch.zeros(1, 4, 8, 8))
