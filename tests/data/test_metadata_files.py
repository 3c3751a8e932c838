"""Metadata files: captions and file names are text, whatever they look like, and may have line breaks."""

import json

import pytest
from datasets import load_dataset

from diffusers_ext.data import load_image_dataset

from .drawing import write_images


def captions(folder, **options) -> list[str]:
    dataset = load_image_dataset(train_data_dir=str(folder), **({"resolution": 8, "caption_column": "text"} | options))
    batch = next(dataset.reference_batches(10))
    return [dataset.captions[index] for index in batch["caption_ids"]]


@pytest.mark.parametrize("size", [100, 3 << 19])
def test_captions_of_a_csv_file_may_have_line_breaks(tmp_path, size):
    write_images(tmp_path, "a.png", "b.png")
    long = "a cat\n, and\n" * (size // 12)
    (tmp_path / "metadata.csv").write_text(f'file_name,text\na.png,"{long}"\nb.png,"a\r\ndog"\n', newline="")
    assert captions(tmp_path) == [long, "a\r\ndog"]


@pytest.mark.parametrize(
    "texts", [["007", "1984"], ["1.50", "2"], ["2024-05-01", "2024-05-02 10:00:00"], ["true", "12:30"]]
)
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_captions_may_look_like_numbers_and_dates(tmp_path, name, texts):
    write_images(tmp_path, "a.png", "b.png")
    rows = [
        {"file_name": file, "text": text, "label": 3} for file, text in zip(("a.png", "b.png"), texts, strict=True)
    ]
    if name.endswith("csv"):
        lines = ["file_name,text,label", *(",".join(map(str, row.values())) for row in rows)]
    else:
        lines = map(json.dumps, rows)
    (tmp_path / name).write_text("\n".join(lines))
    assert captions(tmp_path) == texts


def test_captions_of_a_table_of_paths_may_look_like_numbers(tmp_path):
    write_images(tmp_path / "images", "a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text(f"image,text\n{tmp_path}/images/a.png,007\n")
    assert captions(tmp_path / "set", cache_dir=str(tmp_path / "cache")) == ["007"]
    assert load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))["train"][0]["text"] == 7


def test_long_lines_of_a_jsonl_file(tmp_path):
    write_images(tmp_path, "a.png", "b.png")
    long = "x" * (3 << 19)
    rows = [{"file_name": "a.png", "text": long}, {"file_name": "b.png", "text": "b", "more": "2024-05-01"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert captions(tmp_path) == [long, "b"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [("[1]", "line 2 must be a JSON object with a file_name, not"), ("{", "line 2 is not JSON"), ("\ufeff", "line 2")],
)
def test_a_line_that_is_no_row_is_named(tmp_path, line, sentence):
    write_images(tmp_path, "a.png")
    (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.png"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=f"metadata.jsonl' cannot be read: {sentence}"):
        captions(tmp_path)
