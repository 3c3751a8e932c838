"""The start of a run: what is wrong with it is said before an image is decoded."""

from diffusers_ext.training.loop.command import run

import pytest

from diffusers_ext.data.image_dataset import ImageDataset
from diffusers_ext.training.train_autoencoder import AutoencoderConfig, autoencoder_recipe
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
from diffusers_ext.training.train_gan import GANConfig, GANRecipe
from diffusers_ext.training.train_palette import PaletteConfig, PaletteRecipe
from diffusers_ext.training.train_translation import TranslationConfig, translation_recipe


COMMANDS = {
    "diffusion": (DiffusionRecipe, DiffusionConfig, []),
    "palette": (PaletteRecipe, PaletteConfig, ["--tasks=inpainting"]),
    "gan": (GANRecipe, GANConfig, []),
    "autoencoder": (autoencoder_recipe, AutoencoderConfig, ["--architecture=conv"]),
    "pix2pix": (translation_recipe, TranslationConfig, ["--method=pix2pix", "--inputs=super_resolution"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_wrong_is_said_before_an_image_is_decoded(tmp_path, monkeypatch, capsys, command):
    def decode(*arguments):
        raise AssertionError("an image is decoded")

    monkeypatch.setattr(ImageDataset, "_decode", decode)
    build_recipe, config_class, options = COMMANDS[command]
    options = [
        *("--dataset_name=digits", "--resolution=8", "--channels=1", "--max_train_steps=2", *options),
        *(f"--output_dir={tmp_path}", "--resume_from_checkpoint=checkpoint-9"),
    ]
    with pytest.raises(SystemExit) as stopped:
        run(build_recipe, config_class, options)
    assert stopped.value.code == 2 and "there is no checkpoint checkpoint-9" in capsys.readouterr().err
    with pytest.raises(AssertionError, match="an image is decoded"):
        run(build_recipe, config_class, options[:-1])
