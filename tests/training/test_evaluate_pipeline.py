import json
import subprocess
import sys

import pytest
from diffusers import DDIMScheduler

from diffusers_ext import (
    AutoencoderMLP,
    AutoencoderPipeline,
    CascadePipeline,
    ClassConditionalPipeline,
    PalettePipeline,
)
from diffusers_ext.training.evaluate_pipeline import main
from diffusers_ext.training.evaluation.samplers import build_scheduler
from tests.tiny_unet import tiny_unet
from tests.training.runs import environment


@pytest.fixture(scope="module")
def pipeline():
    unet = tiny_unet(in_channels=1, out_channels=1, num_class_embeds=11)
    names = dict(enumerate("zero one two three four five six seven eight nine".split()))
    pipe = ClassConditionalPipeline(unet, DDIMScheduler(), id2label=names, null_class_label=10)
    pipe.set_progress_bar_config(disable=True)
    return pipe


EVALUATION = ["--dataset_name=digits", "--feature_extractor=digits", "--num_evaluation_samples=25", "--seed=1"]
EVALUATION += ["--evaluation_batch_size=8", "--num_inference_steps=2", "--guidance_scales", "1", "3"]


@pytest.mark.slow
def test_evaluating_a_folder_gives_the_same_rows_on_one_and_two_processes(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "pipeline")
    options = [f"--pretrained_model_name_or_path={tmp_path / 'pipeline'}", *EVALUATION]
    main([*options, f"--output_file={tmp_path / 'one.json'}"])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "diffusers_ext.training.evaluate_pipeline", *options, f"--output_file={tmp_path / 'two.json'}"]
    subprocess.run(command, check=True, env=environment(), capture_output=True, timeout=1800)
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert [row["guidance_scale"] for row in one] == [1.0, 3.0] and len(one) == len(two)
    for row, other in zip(one, two, strict=True):
        assert row["provenance"] == other["provenance"]
        assert row["fid"] == pytest.approx(other["fid"], rel=1e-3)
        assert row["accuracy"] == pytest.approx(other["accuracy"], abs=0.05)


def cascade():
    base = ClassConditionalPipeline(tiny_unet(sample_size=4), DDIMScheduler(), default_num_inference_steps=2)
    resolver = {"tasks": ["super_resolution"], "default_scale_factor": 2, "default_num_inference_steps": 2}
    resolver = PalettePipeline(tiny_unet(in_channels=6), DDIMScheduler(), **resolver)
    return CascadePipeline.from_pipelines(base, resolver)


def variational_autoencoder():
    return AutoencoderPipeline(AutoencoderMLP(sample_size=8, hidden_dims=(16,), latent_dim=5))


@pytest.mark.parametrize("make", [cascade, variational_autoencoder])
def test_pipelines_with_one_way_to_sample_are_measured_as_they_make_images(make, tmp_path, capsys):
    make().save_pretrained(tmp_path)
    options = [f"--pretrained_model_name_or_path={tmp_path}", "--dataset_name=digits", "--feature_extractor=digits"]
    main([*options, "--num_evaluation_samples=20"])
    (row,) = json.loads(capsys.readouterr().out)
    assert row["fid"] > 0 and row["provenance"]["num_generated"] == 20
    with pytest.raises(SystemExit):
        main([*options, "--schedulers", "DDIMScheduler"])
    assert f"--schedulers is not for the class {type(make()).__name__}" in capsys.readouterr().err


def test_an_autoencoder_without_a_prior_says_so(tmp_path, capsys):
    AutoencoderPipeline(AutoencoderMLP(sample_size=8, hidden_dims=(16,), variational=False)).save_pretrained(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([f"--pretrained_model_name_or_path={tmp_path}", "--dataset_name=digits", "--feature_extractor=digits"])
    assert stop.value.code == 2 and "has no prior to sample from" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["--pretrained_model_name_or_path", "--feature_extractor"])
def test_evaluation_says_what_it_lacks(tmp_path, capsys, missing):
    options = [f"--pretrained_model_name_or_path={tmp_path}", "--feature_extractor=digits", "--dataset_name=digits"]
    with pytest.raises(SystemExit) as stop:
        main([option for option in options if not option.startswith(missing)])
    message = capsys.readouterr().err
    assert stop.value.code == 2 and missing in message and "is required" in message


@pytest.mark.parametrize(
    ("class_name", "options", "sentence"),
    [
        ("ImageTranslationPipeline", [], " is ImageTranslationPipeline, which makes no images from noise"),
        ("GANPipeline", ["--tasks", "inpainting"], " is GANPipeline"),
        ("PalettePipeline", [], "--tasks are for a PalettePipeline, which needs them"),
        ("ClassConditionalPipeline", ["--tasks", "inpainting"], " is ClassConditionalPipeline"),
    ],
)
def test_pipelines_of_another_kind_are_refused(tmp_path, capsys, class_name, options, sentence):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": ["pipeline_x", class_name]}))
    with pytest.raises(SystemExit) as stop:
        main([f"--pretrained_model_name_or_path={tmp_path}", *EVALUATION, *options])
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, message",
    [
        ("NoScheduler", "neither diffusers nor diffusers_ext has a scheduler NoScheduler"),
        ("UNet2DModel", "neither diffusers nor diffusers_ext has a scheduler UNet2DModel"),
        ("SchedulerMixin", "neither diffusers nor diffusers_ext has a scheduler SchedulerMixin"),
        ("VQDiffusionScheduler", "VQDiffusionScheduler does not sample pixels"),
    ],
)
def test_schedulers_that_cannot_be_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        build_scheduler(name, DDIMScheduler().config)


def test_a_bad_number_of_steps_is_refused_before_sampling(pipeline, tmp_path, capsys):
    pipeline.save_pretrained(tmp_path)
    options = [f"--pretrained_model_name_or_path={tmp_path}", "--feature_extractor=digits", "--dataset_name=digits"]
    with pytest.raises(SystemExit) as stop:
        main([*options, "--num_evaluation_samples=1000000", "--num_inference_steps", "2", "1001"])
    assert stop.value.code == 2 and "1001" in capsys.readouterr().err
