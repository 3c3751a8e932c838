"""GANs of several families train on two processes like on one."""

import numpy as np
import pytest
from PIL import Image

from tests.training.runs import records
from tests.training.text_to_image_runs import run_on_one_and_two_processes


DIGITS = {"dataset_name": "digits", "resolution": 8, "channels": 1}
# The groups of the minibatch standard deviation and of the pulling-away term are those of each process: the networks
# here do without, and what EBGAN reports of the term is another number.
OF_EACH_PROCESS = {"pulling_away"}
COMMANDS = {
    "train_biggan": {
        **DIGITS,
        "class_conditional": True,
        "generator": '{"attention_size": null, "latent_dim": 6, "block_out_channels": [8, 8, 4]}',
        "discriminator": '{"attention_size": null, "block_out_channels": [4, 8, 8]}',
        "statistics_batches": 1,
    },
    "train_ebgan": {
        **DIGITS,
        "generator": '{"latent_dim": 6, "block_out_channels": [6, 4]}',
        "discriminator": '{"channels": 4, "embedding_dim": 5}',
        "pulling_away": 0.0,
    },
    "train_stylegan": {
        **DIGITS,
        "class_conditional": True,
        "generator": '{"latent_dim": 6, "style_dim": 6, "num_mapping_layers": 1, "block_out_channels": [6, 4]}',
        "discriminator": '{"block_out_channels": [6, 4], "num_mapping_layers": 1, "num_stddev_channels": 0}',
        "augmentations": "bgc",
        "augmentation_probability": 0.3,
        "r1_interval": 2,
        "path_length_interval": 2,
    },
    "train_progressive_gan": {
        **DIGITS,
        "class_conditional": True,
        "generator": '{"latent_dim": 6, "block_out_channels": [6, 4]}',
        "discriminator": '{"block_out_channels": [6, 4], "stddev_group_size": 1}',
        "fading_images": 8,
        "stable_images": 8,
    },
    "train_singan": {
        "resolution": 16,
        "min_size": 12,
        "generator": '{"layer_channels": [4, 4]}',
        "discriminator": '{"layer_channels": [4, 4]}',
        "steps_per_scale": 3,
        "num_evaluation_samples": 2,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_two_processes_train_like_one(tmp_path, command):
    options = {**COMMANDS[command], "max_train_steps": 6, "logging_steps": 1}
    if "dataset_name" not in options:
        photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (tmp_path / "photo").mkdir()
        Image.fromarray(photo).save(tmp_path / "photo" / "photo.png")
        options["train_data_dir"] = str(tmp_path / "photo")
    one, two = run_on_one_and_two_processes(command, options, tmp_path)
    for line, other in zip(records(two), records(one), strict=True):
        assert line.keys() == other.keys()
        for name in other.keys() - OF_EACH_PROCESS:
            assert line[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), name
