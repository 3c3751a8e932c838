import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from diffusers_ext.data.digits import load_digits_dataset
from diffusers_ext.metrics import FeatureOutput, NetworkExtractor, extract_features, fid, load_feature_extractor
from diffusers_ext.metrics.extractors.digits_extractor import DigitsExtractor


def random_images(count: int, channels: int = 3, size: int = 20) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8)


@pytest.fixture(scope="module")
def digits() -> DigitsExtractor:
    return load_feature_extractor("digits")


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """uint8 images (N, 1, 8, 8) and labels (N,) of each split."""
    return {
        name: (torch.from_numpy(np.stack(split["image"]))[:, None], torch.tensor(split["label"]))
        for name, split in load_digits_dataset().items()
    }


@pytest.fixture(scope="module")
def held_out(splits) -> tuple[torch.Tensor, torch.Tensor]:
    return splits["test"]


def test_digits_judge(digits, held_out):
    images, labels = held_out
    output = digits(images)
    assert output.features.shape == (len(images), 64) and output.logits.shape == (len(images), 10)
    assert output.features.dtype == output.logits.dtype == torch.float32
    assert (output.logits.argmax(1) == labels).double().mean().item() == pytest.approx(digits.accuracy, abs=0.002)
    assert digits.accuracy > 0.98 and digits.feature_accuracy > 0.96
    assert digits.id2label[7] == "seven"


def test_digits_are_fitted_to_equal_numbers_each_time(digits, held_out):
    torch.manual_seed(123)
    np.random.seed(123)
    again = load_feature_extractor("digits")(held_out[0])
    output = digits(held_out[0])
    assert torch.equal(again.features, output.features) and torch.equal(again.logits, output.logits)


def test_digits_features_order_images_by_quality(digits, splits):
    images, labels = splits["test"]
    real = digits(splits["train"][0]).features
    blurred = torch.nn.functional.avg_pool2d(images.float(), 3, stride=1, padding=1).to(torch.uint8)
    noise = random_images(len(images), channels=1, size=8)
    few_classes = images[labels < 5]
    distances = [fid(real, digits(x).features) for x in (images, few_classes, blurred, noise)]
    assert distances == sorted(distances), "real < five classes only < blurred < noise"
    assert distances[1] > 10 * distances[0]


def test_digits_take_other_sizes_and_colours(digits, held_out):
    images, labels = held_out
    rgb = images.expand(-1, 3, -1, -1)
    torch.testing.assert_close(digits(rgb).features, digits(images).features, rtol=1e-4, atol=1e-4)
    large = torch.nn.functional.interpolate(images, scale_factor=4, mode="nearest")
    assert (digits(large).logits.argmax(1) == labels).double().mean() > 0.97


@pytest.mark.parametrize(
    "images, found",
    [
        (torch.rand(2, 1, 8, 8), "torch.float32"),
        (torch.zeros(2, 8, 8, dtype=torch.uint8), r"\(2, 8, 8\)"),
        (torch.zeros(2, 4, 8, 8, dtype=torch.uint8), r"\(2, 4, 8, 8\)"),
        (np.zeros((2, 1, 8, 8), dtype=np.uint8), "ndarray"),
    ],
)
def test_images_that_are_no_uint8_batch_are_refused(digits, images, found):
    with pytest.raises(ValueError, match=f"uint8 tensor .*not .*{found}"):
        digits(images)


def save_resnet(folder, **config) -> ResNetForImageClassification:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], **config)
    model = ResNetForImageClassification(config).eval()
    model.save_pretrained(folder)
    channels = config.num_channels
    ConvNextImageProcessor(
        size={"shortest_edge": 32}, image_mean=[0.5] * channels, image_std=[0.5] * channels
    ).save_pretrained(folder)
    return model


def save_vit(folder, model_class):
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        id2label={0: "cat", 1: "dog", 2: "newt"},
        label2id={"cat": 0, "dog": 1, "newt": 2},
    )
    model = model_class(config).eval()
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return model


def test_transformers_convolutional_classifier(tmp_path):
    model = save_resnet(tmp_path / "tiny", num_labels=4)
    extractor = load_feature_extractor(str(tmp_path / "tiny"))
    assert extractor.name == "tiny" and extractor.id2label[3] == "LABEL_3"
    output = extractor(random_images(5))
    assert output.features.shape == (5, 16)
    # The features are the input of the classifier.
    with torch.no_grad():
        torch.testing.assert_close(model.classifier(output.features[:, :, None, None]), output.logits)


@pytest.mark.parametrize("model_class", [ViTForImageClassification, ViTModel])
def test_transformers_vision_transformer(tmp_path, model_class):
    model = save_vit(tmp_path, model_class)
    extractor = load_feature_extractor(str(tmp_path))
    images = random_images(3, size=16)
    output = extractor(images)
    pixel_values = images.float() / 127.5 - 1
    with torch.no_grad():
        if model_class is ViTModel:
            assert extractor.id2label is None and output.logits is None
            torch.testing.assert_close(output.features, model(pixel_values).pooler_output, rtol=1e-4, atol=1e-5)
        else:
            assert extractor.id2label == {0: "cat", 1: "dog", 2: "newt"}
            torch.testing.assert_close(output.logits, model(pixel_values).logits, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(model.classifier(output.features), output.logits)


def test_a_random_pooler_is_not_used(tmp_path):
    """A backbone that was saved without a pooler gets a new random one whenever it is loaded."""
    torch.manual_seed(0)
    model = ViTModel(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=16,
            patch_size=8,
        ),
        add_pooling_layer=False,
    )
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    images = random_images(2, size=16)
    first, second = (load_feature_extractor(str(tmp_path))(images).features for _ in range(2))
    assert torch.equal(first, second)


def test_a_checkpoint_without_its_classifier_is_refused(tmp_path):
    save_vit(tmp_path, ViTModel)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"ViTModel"', '"ViTForImageClassification"'))
    with pytest.raises(ValueError, match="is missing 2 weights of ViTForImageClassification: classifier.bias"):
        load_feature_extractor(str(tmp_path))


def test_transformers_image_and_text_model(tmp_path):
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = tower | {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
    config = CLIPConfig(text_config=text, vision_config=tower | {"image_size": 16, "patch_size": 8}, projection_dim=8)
    CLIPModel(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    output = load_feature_extractor(str(tmp_path))(random_images(3))
    assert output.features.shape == (3, 8) and output.logits is None


def test_grayscale_images_and_grayscale_models(tmp_path):
    gray = random_images(4, channels=1)
    save_resnet(tmp_path / "rgb")
    rgb_model = load_feature_extractor(str(tmp_path / "rgb"))
    torch.testing.assert_close(rgb_model(gray).features, rgb_model(gray.expand(-1, 3, -1, -1)).features)
    save_resnet(tmp_path / "gray", num_channels=1)
    gray_model = load_feature_extractor(str(tmp_path / "gray"))
    torch.testing.assert_close(gray_model(gray).features, gray_model(gray.expand(-1, 3, -1, -1)).features)


def test_any_network_in_python():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.Dropout(0.5))
    extractor = NetworkExtractor(network, name="mine", preprocess=lambda images: images.float() / 255)
    images = random_images(7, channels=3, size=2)
    output = extract_features(extractor, images, batch_size=3)
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(output.features, network(images.float() / 255))
    assert extractor.name == "mine" and output.logits is None
    from_batches = extract_features(extractor, iter([images[:1], images[1:]]))
    torch.testing.assert_close(from_batches.features, output.features)
    with_logits = NetworkExtractor(lambda x: (x.flatten(1), x.flatten(1)[:, :2]), id2label={0: "a", 1: "b"})
    assert extract_features(with_logits, images, batch_size=3).logits.shape == (7, 2)
    assert isinstance(with_logits(images), FeatureOutput)


@pytest.mark.parametrize(
    "network, message",
    [
        (lambda x: x, r"features of shape \(2, D\) for 2 images, not \(2, 3, 4, 4\)"),
        (lambda x: x.flatten(1)[:1], r"not \(1, 48\)"),
        (lambda x: {"features": x}, "not dict"),
    ],
)
def test_networks_that_give_no_features_are_refused(network, message):
    with pytest.raises(ValueError, match=message):
        NetworkExtractor(network)(random_images(2, size=4))


def test_no_images_are_refused(digits):
    for images in (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), []):
        with pytest.raises(ValueError, match="no images"):
            extract_features(digits, images)


def test_your_own_network_by_name(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "import torch\n"
        "def mean_colour(images):\n    return images.float().mean(dim=(2, 3))\n"
        "class Bright(torch.nn.Module):\n"
        "    id2label = {0: 'dark', 1: 'bright'}\n"
        "    def forward(self, images):\n"
        "        mean = images.float().mean(dim=(1, 2, 3))[:, None] / 255\n"
        "        return mean, torch.cat([0.5 - mean, mean - 0.5], dim=1)\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    images = random_images(2)
    extractor = load_feature_extractor("my_networks:mean_colour")
    assert extractor.name == "my_networks:mean_colour" and extractor(images).features.shape == (2, 3)
    extractor = load_feature_extractor("my_networks:Bright")
    assert extractor.id2label == {0: "dark", 1: "bright"}
    assert extractor(torch.full((1, 1, 4, 4), 255, dtype=torch.uint8)).logits.argmax().item() == 1
    for name in ("number", "absent"):
        with pytest.raises(ValueError, match="must name a function, module or class in my_networks"):
            load_feature_extractor(f"my_networks:{name}")
    with pytest.raises(ImportError, match="PYTHONPATH"):
        load_feature_extractor("no_such_module_of_mine:thing")


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="the optional extra is installed")
@pytest.mark.parametrize("name, extra", [("inception", "fidelity"), ("torchmetrics", "torchmetrics")])
def test_a_missing_extra_is_named(name, extra):
    with pytest.raises(ImportError, match=rf'pip install "diffusers_ext\[{extra}\]"'):
        load_feature_extractor(name)


def test_the_room_does_not_import_heavy_libraries():
    heavy = ("sklearn", "transformers", "datasets")
    code = f"import sys, diffusers_ext.metrics; print([m for m in {heavy} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_a_single_file_is_no_feature_extractor(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ValueError, match="model.safetensors is a single file, but a feature extractor is a folder"):
        load_feature_extractor(str(tmp_path / "model.safetensors"))
