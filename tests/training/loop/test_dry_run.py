"""`--dry_run`: it tells what a run would be, and leaves nothing behind."""

from diffusers_ext.training.loop.command import run

import re

import pytest

from diffusers_ext.training.train_autoencoder import AutoencoderConfig, autoencoder_recipe
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
from diffusers_ext.training.train_gan import GANConfig, GANRecipe
from diffusers_ext.training.train_palette import PaletteConfig, PaletteRecipe
from diffusers_ext.training.train_translation import TranslationConfig, translation_recipe
from tests.training.runs import arguments, finish, records, tensors


COMMANDS = {
    "diffusion": (DiffusionRecipe, DiffusionConfig, []),
    "palette": (PaletteRecipe, PaletteConfig, ["--tasks=inpainting", '--unet={"block_out_channels": [8, 8]}']),
    "gan": (GANRecipe, GANConfig, ["--architecture=mlp"]),
    "autoencoder": (autoencoder_recipe, AutoencoderConfig, ["--architecture=conv"]),
    "pix2pix": (
        translation_recipe,
        TranslationConfig,
        ["--method=pix2pix", "--inputs=super_resolution", "--generator_channels=8", "--discriminator_channels=8"],
    ),
}
OF_A_DIFFUSION = ('--unet={"block_out_channels": [8, 8], "norm_num_groups": 4}',)


def dry_run(command, folder, *options):
    build_recipe, config_class, own = COMMANDS[command]
    own = [*own, *(OF_A_DIFFUSION if command == "diffusion" else ())]
    common = ["--dataset_name=digits", "--resolution=8", "--channels=1", "--max_train_steps=500", "--dry_run"]
    run(build_recipe, config_class, [*common, *own, f"--output_dir={folder}", *options])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_recipe_says_what_it_would_train(tmp_path, capsys, command):
    dry_run(command, tmp_path / "outputs" / "new")
    text = capsys.readouterr().out
    assert "1266 images, 8x8x1, 10 classes: zero, one, two" in text
    assert re.search(r"^  \w+ +\w+, [\d,]+ parameters", text, re.MULTILINE)
    assert re.search(r"^  steps +500 steps of (\d+ images|1 example), which is [\d.]+ epochs", text, re.MULTILINE)
    assert re.search(r"^  time +\S+ \S+ per step .*, \S+ \S+ for all", text, re.MULTILINE)
    assert re.search(r"^  memory +[\d.]+ .B of .* GB", text, re.MULTILINE)
    assert re.search(r"^  disk +[\d.]+ MB for 1 checkpoint, [\d.]+ .B are free", text, re.MULTILINE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--train_data_dir=nowhere", "--train_data_dir"),
        ("--resume_from_checkpoint=checkpoint-7", "there is no checkpoint checkpoint-7"),
        ("--resolution=7", "--resolution"),
    ],
)
def test_what_a_run_would_refuse_is_refused(tmp_path, capsys, option, sentence):
    with pytest.raises(SystemExit) as stopped:
        dry_run("diffusion", tmp_path / "new", option)
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_with_another_model_is_refused(tmp_path, capsys):
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(SystemExit):
        dry_run("gan", tmp_path)
    assert "which no run of this program wrote" in capsys.readouterr().err


def everything(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_real_run_is_not_changed_by_dry_runs_before_and_within_it(tmp_path):
    untouched, rehearsed, log = tmp_path / "untouched", tmp_path / "rehearsed", tmp_path / "log"
    assert finish(arguments(untouched)) == 0
    assert finish(arguments(rehearsed, dry_run=True), log) == 0
    assert not rehearsed.exists() and "12 steps of 8 images" in log.read_text()
    assert finish(arguments(rehearsed, max_train_steps=6, lr_scheduler="constant")) == 0
    before = everything(rehearsed)
    assert finish(arguments(rehearsed, resume_from_checkpoint="latest", dry_run=True), log) == 0
    assert "6 steps of 8 images, up to step 12" in log.read_text()
    assert everything(rehearsed) == before
    again = tmp_path / "again"
    assert finish(arguments(again, dry_run=True)) == 0 and finish(arguments(again)) == 0
    found, wanted = tensors(again, 12), tensors(untouched, 12)
    assert all((found[name] == wanted[name]).all() for name in wanted) and records(again) == records(untouched)
