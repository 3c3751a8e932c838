"""The message at the end of a run: its Python lines run, its command measures, and it publishes what was trained."""

from diffusers_ext.training.loop.command import run

import re
import shlex

import pytest

from diffusers_ext.training.evaluate_pipeline import main as evaluate
from diffusers_ext.training.train_autoencoder import AutoencoderConfig, autoencoder_recipe
from diffusers_ext.training.train_gan import GANConfig, GANRecipe
from diffusers_ext.training.train_palette import PaletteConfig, PaletteRecipe


COMMANDS = {
    "palette": (
        PaletteRecipe,
        PaletteConfig,
        [
            "--tasks",
            "inpainting",
            "super_resolution",
            '--task_options={"super_resolution": {"factor": 2}}',
            '--unet={"block_out_channels": [8, 8], "norm_num_groups": 4}',
        ],
    ),
    "gan": (GANRecipe, GANConfig, ["--architecture=mlp", "--class_conditional"]),
    "autoencoder": (autoencoder_recipe, AutoencoderConfig, ["--architecture=mlp", "--objective=autoencoder"]),
}


def sections(text: str) -> dict[str, list[str]]:
    """The indented lines by the heading above them."""
    found = {}
    for line in text.splitlines():
        heading = re.fullmatch(r"(Load|Measure|Publish) it.*:", line)
        if heading:
            lines = found.setdefault(heading[1], [])
        elif found and line.startswith("    "):
            lines.append(line[4:])
    return found


@pytest.mark.parametrize("command", [pytest.param("palette", marks=pytest.mark.slow), "gan", "autoencoder"])
def test_the_next_steps_are_right_for_the_pipeline(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    build_recipe, config_class, options = COMMANDS[command]
    options = [
        *("--dataset_name=digits", "--resolution=8", "--channels=1", "--max_train_steps=2", "--train_batch_size=4"),
        *("--num_evaluation_samples=12", f"--output_dir=outputs/é {command}", *options),
    ]
    run(build_recipe, config_class, options)
    found = sections(capsys.readouterr().out)
    lines = [line for line in found["Load"] if "Image.open" not in line and ".png" not in line]
    namespace = {}
    exec("\n".join(lines[:2]), namespace)
    assert namespace["pipe"].image_shape == (1, 8, 8)
    if command == "gan":
        exec("\n".join(lines[2:]), namespace)
        assert len(namespace["images"]) > 1
    assert found["Publish"] == [
        "python -c 'from diffusers_ext.hub import publish_folder; "
        f"""publish_folder("outputs/é {command}", "YOUR_NAME/{command}")'"""
    ]
    if command == "autoencoder":  # it makes no images from noise
        assert "Measure" not in found
        return
    (measure,) = found["Measure"]
    launch = ["accelerate", "launch", "-m", "diffusers_ext.training.evaluate_pipeline"]
    words = shlex.split(measure)
    assert words[:4] == launch and "--feature_extractor" in words
    evaluate(words[4:])
    assert "fid" in capsys.readouterr().out
