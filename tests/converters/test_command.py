"""From a golden file on disk to a folder, and back by `from_pretrained`."""

import json
import subprocess
import sys

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DiffusionPipeline, UNet2DModel
from safetensors.torch import save_file

from diffusers_ext.converters.__main__ import main, parse_option
from diffusers_ext.models import ADMUNet2DModel, NoisyClassifier
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.schedulers import ExactDDPMScheduler
from tests.converters.cases import load_case


IMPROVED = ["image_size=8", "num_heads=4", "diffusion_steps=4000", "noise_schedule=cosine", "rescale_timesteps=true"]
CLASS_COND = [
    "image_size=16",
    "num_head_channels=8",
    "use_new_attention_order=true",
    "diffusion_steps=1000",
    "noise_schedule=linear",
    "channel_mult=1,1",
    "attention_resolutions=2",
]


def save(case, path):
    torch.save(case.weights, path)
    return str(path)


def refusal(capsys, tmp_path, *arguments) -> str:
    """What the command says, having written nothing."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as exit:
        main([*arguments])
    assert exit.value.code == 2
    assert sorted(tmp_path.rglob("*")) == before
    message = capsys.readouterr().err.strip()
    assert message.startswith("error: ") and "\n" not in message
    return message


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


@torch.no_grad()
def test_improved_diffusion_walks_the_golden_trajectory(tmp_path):
    case = load_case("improved_diffusion_unet", "rescaled_timesteps_sigma")
    file = save(case, tmp_path / "ema.pt")
    main([file, str(tmp_path / "out"), "--family", "improved_diffusion", "--option", *IMPROVED])

    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "out")
    assert type(pipe.unet) is ADMUNet2DModel and type(pipe.scheduler) is ExactDDPMScheduler
    assert pipe.config.null_class_label is None and pipe.config.id2label is None
    pipe.scheduler.set_timesteps(respacing="8")
    assert pipe.scheduler.timesteps.tolist() == case.outputs["timestep_map"].flip(0).tolist()
    sample = case.inputs["x_T"]
    for i, t in enumerate(pipe.scheduler.timesteps):
        output = pipe.unet(sample, t).sample
        step = pipe.scheduler.step(output, t, sample, variance_noise=case.inputs["trajectory_noise"][i])
        sample = step.prev_sample
        torch.testing.assert_close(sample, case.outputs["trajectory"][i], rtol=0, atol=1e-4)


def test_a_class_conditional_network_becomes_a_pipeline(tmp_path):
    case = load_case("guided_diffusion_unet", "new_attention_class_cond")
    file = save(case, tmp_path / "model.pt")
    names = {str(label): f"class {label}" for label in range(7)}
    (tmp_path / "names.json").write_text(json.dumps(names))
    arguments = ["--family", "guided_diffusion", "--option", *CLASS_COND, "--id2label", str(tmp_path / "names.json")]
    main([file, str(tmp_path / "out"), *arguments])

    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe.unet) is UNet2DModel
    assert pipe.scheduler.config.variance_type == "fixed_large"
    assert pipe.config.default_num_inference_steps == 250
    images = pipe(class_labels=["class 3", 6], num_inference_steps=2, output_type="pt").images
    assert images.shape == (2, 3, 16, 16)
    # without this package's loading, by the code in the folder
    plain = DiffusionPipeline.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert type(plain).__name__ == "ClassConditionalPipeline"


def test_unnamed_classes_are_named_by_their_ids(tmp_path):
    file = save(load_case("guided_diffusion_unet", "new_attention_class_cond"), tmp_path / "model.pt")
    main([file, str(tmp_path / "out"), "--family", "guided_diffusion", "--option", *CLASS_COND])
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "out")
    assert pipe.config.id2label == {label: str(label) for label in range(7)}


@torch.no_grad()
def test_super_resolution_becomes_two_folders(tmp_path, capsys):
    case = load_case("guided_diffusion_unet", "superres")
    options = ["image_size=16", "in_channels=3", "num_heads=2", "diffusion_steps=1000", "noise_schedule=linear"]
    main([save(case, tmp_path / "m.pt"), str(tmp_path / "out"), "--family", "guided_diffusion", "--option", *options])
    assert "ADMUNet2DModel in" in capsys.readouterr().out

    unet = ADMUNet2DModel.from_pretrained(tmp_path / "out" / "unet")
    scheduler = ExactDDPMScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    assert scheduler.config.variance_type == "learned_range"
    sample = unet(case.inputs["x"], case.inputs["timesteps"], low_res=case.inputs["low_res"]).sample
    torch.testing.assert_close(sample, case.outputs["model_output"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_latent_networks_run_in_stock_classes(tmp_path):
    case = load_case("latent_diffusion_unet", "num_heads_8_scaleshift_updown")
    options = ["image_size=16", "num_heads=8", "timesteps=1000", "linear_start=0.0015", "linear_end=0.0155"]
    main([save(case, tmp_path / "m.pt"), str(tmp_path / "out"), "--family", "latent_diffusion", "--option", *options])
    unet = UNet2DModel.from_pretrained(tmp_path / "out" / "unet")
    sample = unet(case.inputs["x"], case.inputs["timesteps"]).sample
    torch.testing.assert_close(sample, case.outputs["model_output"], rtol=0, atol=1e-5)
    pipe = DDPMPipeline(unet, DDIMScheduler.from_pretrained(tmp_path / "out" / "scheduler"))
    pipe.set_progress_bar_config(disable=True)
    assert pipe(num_inference_steps=2, output_type="np").images.shape == (1, 16, 16, 4)


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
    assert "no JSON file" in refusal(capsys, tmp_path, file, out, *named)
    for names, message in (
        (range(8), "must name the classes from 0 to 6, but also has 7."),
        (range(5), "must name the classes from 0 to 6, but lacks 5, 6."),
        (range(1, 8), "must name the classes from 0 to 6, but lacks 0 and also has 7."),
    ):
        (tmp_path / "names.json").write_text(json.dumps({str(label): f"class {label}" for label in names}))
        assert f"`id2label` {message}" in refusal(capsys, tmp_path, file, out, *named)
    (tmp_path / "names.json").write_text(json.dumps({str(label): ["tench", "fish"] for label in range(7)}))
    assert "must hold names, but that of class 0 is ['tench', 'fish']" in refusal(capsys, tmp_path, file, out, *named)

    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    assert "is taken" in refusal(capsys, tmp_path, file, str(tmp_path / "taken"), *family, "--option", *CLASS_COND)

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
