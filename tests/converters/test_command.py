"""The command: from a checkpoint on disk to a folder, and what it refuses."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from diffusers_ext.converters.__main__ import main, parse_option
from diffusers_ext.models import NoisyClassifier
from tests.converters.cases import CLASS_COND, IMPROVED, load_case, save


def refusal(capsys, tmp_path, *arguments) -> str:
    """The error message of a command that writes nothing."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as exit:
        main([*arguments])
    assert exit.value.code == 2
    assert sorted(tmp_path.rglob("*")) == before
    message = capsys.readouterr().err.strip()
    assert message.startswith("error: ") and "\n" not in message
    return message


@pytest.mark.slow
def test_the_command_itself(tmp_path):
    case = load_case("guided_diffusion_classifier", "pool_attention")
    save_file(case.weights, tmp_path / "model.safetensors")
    command = [sys.executable, "-m", "diffusers_ext.converters", tmp_path / "model.safetensors", tmp_path / "out"]
    command += ["--family", "guided_diffusion_classifier", "--option", "image_size=16", "num_head_channels=16"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Wrote NoisyClassifier in" in result.stdout and "use_new_attention_order=False" in result.stdout

    classifier = NoisyClassifier.from_pretrained(tmp_path / "out")
    logits = classifier(case.inputs["x"], case.inputs["timesteps"]).logits
    torch.testing.assert_close(logits, case.outputs["logits"], rtol=0, atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "out"]


@pytest.mark.parametrize(
    "missing", ["image_size", "num_heads", "diffusion_steps", "noise_schedule", "rescale_timesteps"]
)
def test_what_the_file_does_not_show_is_asked_for(tmp_path, capsys, missing):
    file = save(load_case("improved_diffusion_unet", "rescaled_timesteps_sigma"), tmp_path / "m.pt")
    options = [option for option in IMPROVED if not option.startswith(missing)]
    message = refusal(
        capsys, tmp_path, file, str(tmp_path / "o"), "--family", "improved_diffusion", "--option", *options
    )
    assert f"`{missing}`" in message


def test_refusals(tmp_path, capsys):
    case = load_case("guided_diffusion_unet", "new_attention_class_cond")
    file, out = save(case, tmp_path / "m.pt"), str(tmp_path / "out")
    family = ["--family", "guided_diffusion"]
    message = refusal(capsys, tmp_path, file, out, *family, "--preset", "256x256_diffusion")
    assert "`out_channels` is given as 6, but the checkpoint has 3" in message
    assert "it must be one of 64x64_diffusion" in refusal(capsys, tmp_path, file, out, *family, "--preset", "256")
    wrong = ["--family", "guided_diffusion_classifier", "--preset", "64x64_classifier"]
    assert "a whole U-Net" in refusal(capsys, tmp_path, file, out, *wrong)
    assert "There is no file" in refusal(capsys, tmp_path, file + "x", out, *family, "--option", *CLASS_COND)
    assert "NAME=VALUE" in refusal(capsys, tmp_path, file, out, *family, "--option", "num_heads")
    bad = [*CLASS_COND, "noise_schedule=sqrt"]
    assert "`noise_schedule` must be" in refusal(capsys, tmp_path, file, out, *family, "--option", *bad)

    bad = [*CLASS_COND, "noise_schedule=[1]"]
    assert "`noise_schedule` must be" in refusal(capsys, tmp_path, file, out, *family, "--option", *bad)

    bad = [*CLASS_COND, "sigma_small=no"]
    assert "`sigma_small` must be True or False" in refusal(capsys, tmp_path, file, out, *family, "--option", *bad)

    (tmp_path / "names.json").write_text("[")
    named = [*family, "--option", *CLASS_COND, "--id2label", str(tmp_path / "names.json")]
    assert "not a JSON file" in refusal(capsys, tmp_path, file, out, *named)
    for names, message in (
        (range(8), "must name the classes from 0 to 6, but also has 7."),
        (range(5), "must name the classes from 0 to 6, but lacks 5, 6."),
        (range(1, 8), "must name the classes from 0 to 6, but lacks 0 and also has 7."),
    ):
        (tmp_path / "names.json").write_text(json.dumps({str(label): f"class {label}" for label in names}))
        assert f"`id2label` {message}" in refusal(capsys, tmp_path, file, out, *named)
    (tmp_path / "names.json").write_text(json.dumps({str(label): ["tench", "fish"] for label in range(7)}))
    assert "but the name of class 0 is ['tench', 'fish']" in refusal(capsys, tmp_path, file, out, *named)

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert "is not empty" in refusal(capsys, tmp_path, file, str(tmp_path / "taken"), *family, "--option", *CLASS_COND)

    content = (tmp_path / "m.pt").read_bytes()
    (tmp_path / "m.pt").write_bytes(content[: len(content) // 2])
    assert "is damaged" in refusal(capsys, tmp_path, file, out, *family)  # before options are asked for


@pytest.mark.parametrize(
    "text, value",
    [
        ("4", 4),
        ("0.1", 0.1),
        ("true", True),
        ("False", False),
        ("none", None),
        ("1,2,4", (1, 2, 4)),
        ("[0.5, 1]", [0.5, 1]),
        ("cosine", "cosine"),
        ("", ""),
    ],
)
def test_values_of_options(text, value):
    assert parse_option(f"name={text}") == ("name", value)
