"""The example that trains a network to measure images with: on digits, which it soon knows."""

import pytest
import torch

from diffusers_ext.metrics import load_feature_extractor
from tests.examples.loading import load_example


main = load_example("train_lenet").main
DIGITS = ("--dataset_name=digits", "--max_train_steps=60", "--train_batch_size=32")


@pytest.mark.slow
def test_a_short_training_gives_an_extractor_that_knows_digits(tmp_path, capsys):
    main([*DIGITS, f"--output_dir={tmp_path / 'lenet'}"])
    printed = capsys.readouterr().out
    assert printed.startswith("Accuracy on test: ") and float(printed.split()[-1]) > 0.6
    output = load_feature_extractor(str(tmp_path / "lenet"))(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert output.features.shape[0] == 2 and output.logits.shape == (2, 10)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--label_column=none", "A classifier needs labels"),
        ("--channels=2", "--channels must be 1 or 3, not 2"),
        ("--max_train_steps=0", "--max_train_steps must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(tmp_path, capsys, option, message):
    with pytest.raises(SystemExit) as stopped:
        main([*DIGITS, f"--output_dir={tmp_path / 'lenet'}", option])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "lenet").exists()
