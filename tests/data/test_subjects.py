import numpy as np
import pytest
from datasets import Dataset, Features, Value
from PIL import Image

from diffusers_ext.data.subjects import Subject, load_subjects


@pytest.fixture
def folders(tmp_path):
    made = []
    for name, count in (("dog", 3), ("cat", 2)):
        folder = tmp_path / name
        folder.mkdir()
        for index in range(count):
            pixels = np.random.default_rng([count, index]).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
            (folder / f"{index}.txt").write_text(f"{name} {index}")
        made.append(str(folder))
    return made


def labelled_captions(dataset) -> list[tuple[int, str]]:
    batches = dataset.reference_batches(4)
    rows = [
        pair
        for batch in batches
        for pair in zip(batch["class_labels"].tolist(), batch["caption_ids"].tolist(), strict=True)
    ]
    return [(label, dataset.captions[caption]) for label, caption in rows]


def test_subjects_are_one_set_with_a_label_for_each(folders):
    dataset = load_subjects([Subject("a sks dog", folders[0]), Subject("my cat", folders[1])], resolution=8)
    assert labelled_captions(dataset) == [(0, "a sks dog")] * 3 + [(1, "my cat")] * 2
    assert dataset.id2label == {0: "a sks dog", 1: "my cat"} and dataset.num_examples == 5
    turned = load_subjects([Subject("my cat", folders[1]), Subject("a sks dog", folders[0])], resolution=8)
    assert turned.fingerprint() != dataset.fingerprint()


def test_one_subject_has_no_names_of_classes(folders):
    dataset = load_subjects([Subject("a sks dog", folders[0])], resolution=8)
    assert dataset.id2label is None and labelled_captions(dataset) == [(0, "a sks dog")] * 3
    assert next(dataset.batches(2, seed=0))["time_ids"].tolist() == [[8, 8, 0, 0, 8, 8]] * 2


def test_captions_of_their_own_come_before_prompts(folders):
    subjects = [Subject("a sks dog", folders[0]), Subject(None, folders[1])]
    dataset = load_subjects(subjects, resolution=8, caption_column="text")
    assert labelled_captions(dataset) == [(0, f"dog {i}") for i in range(3)] + [(1, f"cat {i}") for i in range(2)]


def test_what_can_not_be_one_set_is_refused(folders, tmp_path):
    with pytest.raises(ValueError, match="need a prompt or a column of captions"):
        load_subjects([Subject(None, folders[0])], resolution=8)
    paths = Dataset.from_dict({"image": ["0.png"]}, features=Features({"image": Value("string")}))
    paths.save_to_disk(tmp_path / "paths")
    with pytest.raises(ValueError, match="must be stored in the same way"):
        load_subjects([Subject("a", folders[0]), Subject("b", str(tmp_path / "paths"))], resolution=8)
