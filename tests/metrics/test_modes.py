import pytest
import torch

from diffusers_ext.metrics import class_coverage, load_feature_extractor
from diffusers_ext.models import LeNet


def logits(counts, confidence=0.99, classes=4) -> torch.Tensor:
    """Logits with this number of images of each class, with this probability."""
    rows = torch.full((sum(counts), classes), (1 - confidence) / (classes - 1)).log()
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows[torch.arange(len(rows)), labels] = torch.tensor(confidence).log()
    return rows


def test_a_class_is_covered_from_a_tenth_of_its_share_on():
    assert class_coverage(logits([97, 1, 1, 1]))["classes_covered"] == 1.0
    assert class_coverage(logits([90, 3, 3, 4]))["classes_covered"] == 4.0
    assert class_coverage(logits([3, 1]))["classes_covered"] == 2.0


def test_only_confident_images_count():
    assert class_coverage(logits([25] * 4, confidence=0.79)) == {"classes_covered": 0.0, "recognised": 0.0}
    mixed = torch.cat([logits([25] * 4, confidence=0.81), logits([100], confidence=0.5)])
    assert class_coverage(mixed) == {"classes_covered": 4.0, "recognised": 0.5}


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="The logits have NaN"):
        class_coverage(torch.tensor([[float("nan"), 0.0]]))


@pytest.fixture
def lenet(tmp_path):
    torch.manual_seed(0)
    network = LeNet(id2label={label: f"class {label}" for label in range(10)})
    network.save_pretrained(tmp_path / "judge")
    return network.eval(), load_feature_extractor(str(tmp_path / "judge"))


@torch.no_grad()
def test_a_folder_of_a_lenet_is_an_extractor(lenet):
    network, extractor = lenet
    images = torch.randint(256, (3, 1, 32, 32), dtype=torch.uint8)
    output, expected = extractor(images), network(images / 255)
    assert extractor.name == "judge" and extractor.id2label[3] == "class 3"
    torch.testing.assert_close(output.features, expected.features)
    torch.testing.assert_close(output.logits, expected.logits)


def test_it_takes_colours_and_other_sizes(lenet):
    _, extractor = lenet
    small = torch.full((2, 1, 28, 28), 200, dtype=torch.uint8)
    same = extractor(small.expand(-1, 3, -1, -1))
    torch.testing.assert_close(extractor(small).logits, same.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(extractor(torch.full((2, 1, 32, 32), 200, dtype=torch.uint8)).logits, same.logits)
