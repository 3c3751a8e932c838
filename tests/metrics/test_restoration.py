import json
import math
import sys

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from diffusers_ext.metrics import NetworkExtractor, compute_metrics, extract_features, load_feature_extractor
from diffusers_ext.metrics.perceptual_distances import (
    LPIPS,
    DeepFeatureDistance,
    pairwise_diversity,
    perceptual_distance,
)
from diffusers_ext.metrics.restoration import RESTORATION_METRICS, restoration_metrics
from diffusers_ext.metrics.similarity import psnr, ssim


# (height, width, channels): PSNR and SSIM of scikit-image 0.26.0 between drawn_image(..., 0) and (..., 0.3),
# by peak_signal_noise_ratio(data_range=255) and structural_similarity(channel_axis=2, data_range=255,
# gaussian_weights=True, sigma=1.5, use_sample_covariance=False).
SCIKIT_IMAGE = {
    (37, 52, 3): (22.673650737726796, 0.9403126955621012),
    (11, 11, 1): (22.776816117213517, 0.9360765264316034),
    (64, 64, 3): (22.596905400835983, 0.9419755966703849),
    (24, 16, 1): (23.305082272246356, 0.9507283705167627),
}


def drawn_image(height: int, width: int, channels: int, shift: float) -> torch.Tensor:
    y, x = np.mgrid[:height, :width]
    maps = [
        127.5 + 80 * np.sin(0.35 * x + 0.2 * k * y + k + shift) + 40 * np.cos(0.11 * x * y / (k + 1) + shift)
        for k in range(channels)
    ]
    return torch.from_numpy(np.stack(maps).clip(0, 255).round().astype(np.uint8))[None]


def drawn_images(count: int, seed: int, shape=(3, 16, 20)) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def to_floats(images: torch.Tensor) -> torch.Tensor:
    return images / 127.5 - 1


class Network(torch.nn.Module):
    """The means of the maps of two layers as features, and three classes."""

    def __init__(self, channels: int = 3):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Conv2d(channels, 4, 3, stride=2)
        self.second = torch.nn.Conv2d(4, 5, 3)
        self.classifier = torch.nn.Linear(5, 3)

    def maps(self, images):
        first = self.first(images / 127.5 - 1)
        return first, self.second(first.relu())

    def forward(self, images):
        features = self.maps(images)[1].mean(dim=(2, 3))
        return features, self.classifier(features)


@pytest.fixture(scope="module")
def extractor():
    return NetworkExtractor(Network(), name="net", id2label={0: "cat", 1: "dog", 2: "newt"})


@pytest.mark.parametrize("shape", SCIKIT_IMAGE, ids=str)
def test_psnr_and_ssim_are_those_of_scikit_image(shape):
    truth, restored = drawn_image(*shape, 0), drawn_image(*shape, 0.3)
    expected_psnr, expected_ssim = SCIKIT_IMAGE[shape]
    assert psnr(truth, restored).item() == pytest.approx(expected_psnr, rel=1e-12)
    assert ssim(truth, restored).item() == pytest.approx(expected_ssim, rel=1e-12)
    # The same images as floats, whose resolution is about 1e-5 levels.
    assert psnr(to_floats(truth), restored).item() == pytest.approx(expected_psnr, abs=1e-5)
    assert ssim(truth, to_floats(restored)).item() == pytest.approx(expected_ssim, abs=1e-6)


def test_ssim_is_its_formula():
    truth, restored = drawn_image(20, 31, 1, 0), drawn_image(20, 31, 1, 1)

    def mean(image):
        return gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    x, y = truth[0, 0].double().numpy(), restored[0, 0].double().numpy()
    mean_x, mean_y = mean(x), mean(y)
    covariance = mean(x * y) - mean_x * mean_y
    variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    assert ssim(truth, restored).item() == pytest.approx(index.mean(), rel=1e-10)


def test_each_image_is_measured_alone():
    # More values than one block of the computation.
    truth, restored = drawn_images(9, 0, (3, 64, 96)), drawn_images(9, 1, (3, 64, 96))
    for measure in (psnr, ssim):
        values = measure(truth, restored)
        assert values.shape == (9,) and values.dtype == torch.float64
        alone = [measure(truth[i : i + 1], restored[i : i + 1]) for i in range(9)]
        torch.testing.assert_close(values, torch.cat(alone), rtol=1e-12, atol=0)
        torch.testing.assert_close(values, measure(restored, truth), rtol=1e-12, atol=1e-15)


def test_equal_images():
    images = drawn_images(2, 0)
    assert psnr(images, images).tolist() == [math.inf] * 2
    assert ssim(images, images).tolist() == pytest.approx([1.0] * 2, abs=1e-12)
    black = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    assert psnr(black, 255 - black).item() == 0
    assert ssim(black, black).item() == 1


def test_tiny_images_need_a_smaller_window():
    truth, restored = drawn_images(2, 0, (1, 8, 8)), drawn_images(2, 1, (1, 8, 8))
    with pytest.raises(ValueError, match="window of SSIM, 11 pixels, does not fit into images of 8x8"):
        ssim(truth, restored)
    assert (ssim(truth, restored, window_size=7) < 0.9).all()
    assert ssim(truth, truth, window_size=7).tolist() == pytest.approx([1.0] * 2)
    for size in (6, 1, -3):
        with pytest.raises(ValueError, match="odd number of at least 3 pixels"):
            ssim(truth, restored, window_size=size)


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_images_that_cannot_be_compared(measure):
    images = drawn_images(2, 0)
    with pytest.raises(ValueError, match=r"\(2, 3, 16, 20\) with \(1, 3, 16, 20\)"):
        measure(images, images[:1])
    with pytest.raises(ValueError, match="same number and size"):
        measure(images, images.mT)
    with pytest.raises(ValueError, match="same number and size"):
        measure(images[:0], images[:0])
    with pytest.raises(ValueError, match=r"in \[-1, 1\]"):
        measure(images, images.float())
    with pytest.raises(ValueError, match=r"in \[-1, 1\]"):
        measure(images, torch.full(images.shape, float("nan")))
    with pytest.raises(ValueError, match="not ndarray"):
        measure(images, images.numpy())
    with pytest.raises(ValueError, match="shape"):
        measure(images[0], images[0])


def test_perceptual_distance_and_diversity():
    first = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    second = torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    assert perceptual_distance(first, second).tolist() == [5.0, 0.0]
    third = torch.tensor([[6.0, 8.0], [1.0, 3.0]])
    samples = torch.stack([first, second, third], dim=1)
    assert pairwise_diversity(samples, perceptual_distance).tolist() == pytest.approx([20 / 3, 4 / 3])
    with pytest.raises(ValueError, match="at least two restorations"):
        pairwise_diversity(samples[:, :1], perceptual_distance)
    with pytest.raises(ValueError, match="at least two restorations"):
        pairwise_diversity(first, perceptual_distance)


def test_deep_feature_distance_is_the_formula_of_lpips(extractor):
    first, second = drawn_images(3, 0), drawn_images(3, 1)
    distance = DeepFeatureDistance(extractor, ["first", "second"])
    expected = torch.zeros(3)
    with torch.no_grad():
        for a, b in zip(extractor.network.maps(first), extractor.network.maps(second), strict=True):
            a, b = (torch.nn.functional.normalize(maps, dim=1) for maps in (a, b))
            expected += (a - b).square().sum(dim=1).mean(dim=(1, 2))
    torch.testing.assert_close(distance(first, second), expected.double(), rtol=1e-5, atol=0)
    assert distance(first, first).tolist() == [0.0] * 3
    assert torch.equal(distance(to_floats(first), to_floats(second)), distance(first, second))
    assert distance.name == "net (first, second)"
    # No hooks remain in the network.
    assert not any(module._forward_hooks for module in extractor.network.modules())


def test_deep_features_are_kept_before_the_next_layer_overwrites_them():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU(inplace=True), torch.nn.Flatten())
    extractor = NetworkExtractor(network, name="net", preprocess=to_floats)
    first, second = drawn_images(2, 0), drawn_images(2, 1)
    assert (
        DeepFeatureDistance(extractor, ["0"])(first, second) > DeepFeatureDistance(extractor, ["1"])(first, second)
    ).all()


def test_layers_of_tokens_and_of_vectors(extractor):
    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.vector = torch.nn.Identity(), torch.nn.Identity()

        def forward(self, images):
            return self.vector(self.tokens(images.flatten(2).float().mT + 1).mean(dim=1))

    first, second = drawn_images(2, 0), drawn_images(2, 1)
    tokens = DeepFeatureDistance(NetworkExtractor(Tokens()), ["tokens"])(first, second)
    a, b = (torch.nn.functional.normalize(images.float() + 1, dim=1) for images in (first, second))
    torch.testing.assert_close(tokens, (a - b).square().sum(1).mean((1, 2)).double(), rtol=1e-5, atol=0)
    vector = DeepFeatureDistance(NetworkExtractor(Tokens()), ["vector"])(first, second)
    a, b = (torch.nn.functional.normalize(images.float().mean(dim=(2, 3)) + 1, dim=1) for images in (first, second))
    torch.testing.assert_close(vector, (a - b).square().sum(1).double(), rtol=1e-4, atol=1e-9)


def test_deep_feature_distance_refuses_what_has_no_layers(extractor):
    with pytest.raises(ValueError, match=r"some of its modules \(first, second, classifier ...\), not third"):
        DeepFeatureDistance(extractor, ["third"])
    with pytest.raises(ValueError, match="not none"):
        DeepFeatureDistance(extractor, [])
    with pytest.raises(ValueError, match="no list of stages"):
        DeepFeatureDistance(extractor)
    with pytest.raises(ValueError, match="cannot be compared: its network is not a torch module"):
        DeepFeatureDistance(NetworkExtractor(lambda images: images.flatten(1).float(), name="flat"))
    network = Network()
    network.unused = torch.nn.Identity()
    with pytest.raises(ValueError, match="unused of Network do not run"):
        DeepFeatureDistance(NetworkExtractor(network), ["unused"])(drawn_images(2, 0), drawn_images(2, 1))


def test_the_stages_of_a_transformers_model(tmp_path):
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3)
    ResNetForImageClassification(config).save_pretrained(tmp_path / "tiny")
    ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(tmp_path / "tiny")
    extractor = load_feature_extractor(str(tmp_path / "tiny"))
    distance = DeepFeatureDistance(extractor)
    assert distance.name == "tiny (resnet.encoder.stages.0, resnet.encoder.stages.1)"
    truth, restored = drawn_images(3, 0, (3, 32, 32)), drawn_images(6, 1, (3, 32, 32)).view(3, 2, 3, 32, 32)
    row = restoration_metrics(
        truth, restored, extractor=extractor, distances=[distance], metrics=["deep_feature_distance"]
    )
    stages = [DeepFeatureDistance(extractor, [f"resnet.encoder.stages.{i}"]) for i in range(2)]
    expected = sum(stage(truth, restored[:, k]) for stage in stages for k in range(2)) / 2
    assert row["per_image"]["deep_feature_distance"] == pytest.approx(expected.tolist(), rel=1e-5)
    assert row["provenance"]["deep_feature_distance_network"] == distance.name


def test_lpips_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ImportError, match=r'pip install "diffusers_ext\[lpips\]"'):
        LPIPS()
    with pytest.raises(ValueError, match="alex, vgg, squeeze, not 'resnet'"):
        LPIPS("resnet")


def test_lpips_is_that_of_its_package(monkeypatch, tmp_path):
    lpips, torchvision = pytest.importorskip("lpips"), pytest.importorskip("torchvision")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    name = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.url.split("/")[-1]
    torch.save(torchvision.models.alexnet().state_dict(), tmp_path / "checkpoints" / name)
    distance, reference = LPIPS(), lpips.LPIPS(verbose=False)
    first, second = drawn_images(3, 0, (3, 32, 40)), drawn_images(3, 1, (3, 32, 40))
    with torch.no_grad():
        expected = reference(to_floats(first), to_floats(second)).flatten().double()
        gray = reference(*(to_floats(images[:, :1].expand(-1, 3, -1, -1)) for images in (first, second))).flatten()
    torch.testing.assert_close(distance(first, second), expected)
    torch.testing.assert_close(distance(to_floats(first), second), expected)
    torch.testing.assert_close(distance(first[:, :1], second[:, :1]), gray.double())
    row = restoration_metrics(first, second, distances=[distance])
    assert row["lpips"] == pytest.approx(expected.mean().item())
    assert row["provenance"]["lpips_network"].endswith("alex")
    with pytest.raises(ValueError, match="at least 31 pixels"):
        distance(first[:, :, :30], second[:, :, :30])


def test_rows_hold_what_the_functions_give(extractor):
    truth, restored = drawn_images(30, 0), drawn_images(60, 1).view(30, 2, 3, 16, 20)
    restored[4, 1] = truth[4]
    labels = torch.arange(30) % 3
    distance = DeepFeatureDistance(extractor, ["second"])
    metrics = [name for name in RESTORATION_METRICS if name != "lpips"]
    row = restoration_metrics(
        truth,
        restored,
        metrics,
        extractor=extractor,
        distances=[distance],
        class_labels=labels,
        id2label=extractor.id2label,
        provenance={"task": "inpainting"},
    )
    assert json.loads(json.dumps(row, allow_nan=False)) == row

    def mean_over_restorations(measure, *pair):
        return (measure(pair[0], pair[1][:, 0]) + measure(pair[0], pair[1][:, 1])) / 2

    features = extract_features(extractor, truth), extract_features(extractor, restored.flatten(0, 1))
    samples = features[1].features.view(30, 2, 5)
    expected = {
        "ssim": mean_over_restorations(ssim, truth, restored),
        "perceptual_distance": mean_over_restorations(perceptual_distance, features[0].features, samples),
        "deep_feature_distance": mean_over_restorations(distance, truth, restored),
        "perceptual_distance_diversity": pairwise_diversity(samples, perceptual_distance),
        "deep_feature_distance_diversity": pairwise_diversity(restored, distance),
    }
    for name, values in expected.items():
        assert row["per_image"][name] == pytest.approx(values.tolist(), rel=1e-4), name
        assert row[name] == pytest.approx(values.mean().item(), rel=1e-5), name
    decibels = mean_over_restorations(psnr, truth, restored).tolist()
    assert decibels.pop(4) == math.inf and row["per_image"]["psnr"][4] is None
    assert row["psnr"] == pytest.approx(np.mean(decibels)) and row["num_identical"] == 1

    firsts = extract_features(extractor, restored[:, 0])
    of_set = compute_metrics(
        features[0], firsts, extractor=extractor, requested_labels=labels, id2label=extractor.id2label
    )
    settings = of_set.pop("provenance")
    assert {name: row[name] for name in of_set if name != "accuracy_per_class"} == pytest.approx(
        {name: value for name, value in of_set.items() if name != "accuracy_per_class"}, rel=1e-5
    )
    assert row["accuracy_per_class"] == of_set["accuracy_per_class"]
    expected_settings = {
        **settings,
        "num_images": 30,
        "num_restorations": 2,
        "resolution": [16, 20],
        "ssim_window_size": 11,
        "deep_feature_distance_network": "net (second)",
        "extractor": "net",
        "task": "inpainting",
    }
    assert row["provenance"] == expected_settings


def test_what_is_measured_unless_named(extractor):
    truth, restored = drawn_images(12, 0), drawn_images(12, 1)

    def columns(*images, **options):
        return {name.split("_std")[0] for name in restoration_metrics(*images, **options)}

    always = {"psnr", "num_identical", "per_image", "provenance"}
    assert columns(truth, restored) == always | {"ssim"}
    assert columns(truth[..., :8], restored[..., :8]) == always
    networks = {"perceptual_distance", "fid", "kid", "is"}
    assert columns(truth, restored, extractor=extractor) == always | {"ssim"} | networks
    several = torch.stack([restored, truth], dim=1)
    assert (
        columns(truth, several, extractor=extractor) == always | {"ssim", "perceptual_distance_diversity"} | networks
    )
    plain = NetworkExtractor(lambda images: images.flatten(1).float(), name="pixels")
    assert columns(truth, restored, extractor=plain) == always | {"ssim", "perceptual_distance", "fid", "kid"}
    assert columns(truth, restored, metrics=["fid"], extractor=plain) == {"fid", "per_image", "provenance"}
    assert "accuracy" in columns(truth, restored, extractor=extractor, class_labels=[0] * 12)


def test_perfect_restorations(extractor):
    images = drawn_images(12, 0)
    row = restoration_metrics(images, to_floats(images), extractor=extractor)
    assert row["psnr"] is None and row["num_identical"] == 12
    assert row["ssim"] == pytest.approx(1)
    assert row["perceptual_distance"] == 0
    assert row["fid"] == pytest.approx(0, abs=1e-8)
    json.dumps(row, allow_nan=False)


def test_batches_and_processes_do_not_matter(extractor):
    truth, restored = drawn_images(21, 0), drawn_images(42, 1).view(21, 2, 3, 16, 20)
    labels = torch.arange(21) % 3
    options = {"extractor": extractor, "distances": [DeepFeatureDistance(extractor, ["first"])]}
    whole = restoration_metrics(truth, restored, class_labels=labels, **options)
    batched = restoration_metrics(iter(truth.split(8)), iter(restored.split(8)), class_labels=labels, **options)
    assert_rows_are_close(batched, whole)

    # Two processes, one after the other: the first pass records what each sends, and the second gets all of it.
    sent = [[], []]
    for process in range(2):
        own = truth[process::2], restored[process::2]

        def note(rows, process=process):
            sent[process].append(torch.cat(rows))
            return torch.cat(rows)

        restoration_metrics(*own, class_labels=labels[process::2], gather=note, **options)
    received = []
    for first, second in zip(*sent, strict=True):
        rows = torch.empty(21, *first.shape[1:], dtype=first.dtype)
        rows[0::2], rows[1::2] = first, second
        received.append(rows)
    answers = iter(received)
    shared = restoration_metrics(
        truth[::2], restored[::2], class_labels=labels[::2], gather=lambda rows: next(answers), **options
    )
    assert_rows_are_close(shared, whole)


def assert_rows_are_close(row: dict, expected: dict):
    assert row.keys() == expected.keys() and row["provenance"] == expected["provenance"]
    for name, values in expected["per_image"].items():
        assert row["per_image"][name] == pytest.approx(values, rel=1e-4), name
    for name, value in expected.items():
        if isinstance(value, (int, float)):
            assert row[name] == pytest.approx(value, rel=1e-4), name


def test_bad_input_is_refused(extractor):
    truth, restored = drawn_images(4, 0), drawn_images(4, 1)
    with pytest.raises(ValueError, match="no metric 'mse'"):
        restoration_metrics(truth, restored, ["mse"])
    with pytest.raises(ValueError, match='"fid" needs a feature extractor'):
        restoration_metrics(truth, restored, "fid")
    with pytest.raises(ValueError, match='"lpips" needs LPIPS'):
        restoration_metrics(truth, restored, ["lpips"], extractor=extractor)
    with pytest.raises(ValueError, match='"diversity" needs several restorations'):
        restoration_metrics(truth, restored, ["diversity"], extractor=extractor)
    with pytest.raises(ValueError, match='"diversity" needs a feature extractor or a distance'):
        restoration_metrics(truth, torch.stack([truth, restored], dim=1), ["diversity"])
    with pytest.raises(ValueError, match='"accuracy" needs the class labels'):
        restoration_metrics(truth, restored, ["accuracy"], extractor=extractor)
    with pytest.raises(ValueError, match='"ssim" needs images of at least 11'):
        restoration_metrics(truth[..., :9], restored[..., :9], ["ssim"])
    with pytest.raises(ValueError, match="no images"):
        restoration_metrics([], [])
    with pytest.raises(ValueError, match="the same number of batches"):
        restoration_metrics([truth, truth], [restored])
    with pytest.raises(ValueError, match="same number and size"):
        restoration_metrics(truth, restored[:3])
    with pytest.raises(ValueError, match="at least one restoration"):
        restoration_metrics(truth, restored[:, None][:, :0])
    with pytest.raises(ValueError, match="must have another `metric`"):
        restoration_metrics(truth, restored, distances=[DeepFeatureDistance(extractor, ["first"])] * 2)
    with pytest.raises(ValueError, match="as many requested labels as predictions, not 3 for 4"):
        restoration_metrics(truth, restored, ["accuracy"], extractor=extractor, class_labels=[0, 1, 2])
