"""The table of generative models: its commands are on its page, and its rows become Markdown."""

from pathlib import Path

import pytest

from tests.examples.loading import EXAMPLES, load_example


generative_table = load_example("generative_table")
PAGE = (EXAMPLES.parent / "docs" / "generative_models_compared.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("data", generative_table.DATA)
def test_the_page_has_the_commands(data, capsys):
    generative_table.main([data, "--print_commands"])
    commands = capsys.readouterr().out
    assert commands.count("training/train_") == len(generative_table.ROWS) and commands in PAGE


def test_a_local_folder_takes_the_place_of_the_hub():
    table = generative_table.Table("mnist", "mine", Path("out"), 10)
    for command in (table.lenet(), table.training("GAN"), *table.evaluations("GAN")):
        assert "--dataset_name" not in command and command[command.index("--train_data_dir") + 1] == "mine"


def test_the_training_of_a_row_with_codes_includes_that_of_its_autoencoder():
    rows = {"VQ-VAE": {"training": 20.0}, "VAE": {"training": 30.0, "fid": 1.5, "per_image": 0.25}}
    rows["VQ-VAE, MaskGIT"] = {"training": 40.0, "fid": 0.5, "accuracy": 0.987, "per_image": 1.0}
    assert generative_table.markdown(rows).splitlines()[2:] == [
        "| VAE | 1.5 |  |  |  |  | 30 | 0.25 |",
        "| VQ-VAE, MaskGIT | 0.5 |  |  | 98.7% |  | 60 | 1 |",
    ]
