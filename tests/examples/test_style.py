"""The examples of style transfer: drawn styles, and a small VGG that is trained on classes of them."""

import pytest
import torch
from PIL import Image

from diffusers_ext.losses.style_features import load_style_features
from tests.examples.loading import load_example


@pytest.fixture(scope="module")
def textures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("textures")
    load_example("style_textures").main([str(folder / "drawn"), "--count", "10", "--size", "24"])
    return folder / "drawn"


def test_textures_are_drawn_from_the_seed(textures, tmp_path):
    load_example("style_textures").main([str(tmp_path / "again"), "--count", "10", "--size", "24"])
    files = sorted(path.relative_to(textures) for path in textures.rglob("*.png"))
    assert len(files) == 11
    for file in files:
        with Image.open(textures / file) as first, Image.open(tmp_path / "again" / file) as second:
            assert first.size == (24, 24) and first.tobytes() == second.tobytes()


def test_a_small_vgg_is_trained_and_its_channels_are_scaled(textures, tmp_path, capsys):
    for index, path in enumerate(sorted((textures / "train").iterdir())):
        folder = tmp_path / "classes" / ("even", "odd")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    arguments = ["--resolution=16", "--block_out_channels", "4", "6", "--layers_per_block", "1", "2"]
    arguments += ["--max_train_steps=2", "--train_batch_size=5", f"--train_data_dir={tmp_path / 'classes'}"]
    output = tmp_path / "vgg"
    load_example("train_vgg").main([*arguments, "--validation_split=train", f"--output_dir={output}"])
    assert "accuracy on the train split: " in capsys.readouterr().out
    network = load_style_features(str(output))
    assert network.config.id2label == {"0": "even", "1": "odd"} and not network.training
    means = network.encode(torch.rand(8, 3, 16, 16))[-1].mean(dim=(0, 2, 3))
    assert all(mean == 0 or 0.05 < mean < 20 for mean in means.tolist())
    with pytest.raises(SystemExit):
        load_example("train_vgg").main([*arguments, "--max_train_steps=0", f"--output_dir={output}"])
