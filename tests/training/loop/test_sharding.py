"""Weights that are divided among two processes (FSDP2): the same training, checkpoints and results as on one."""

import json

import pytest
import torch
from diffusers import UNet2DModel, UniPCMultistepScheduler
from PIL import Image
from safetensors.torch import load_file

from diffusers_ext import ClassConditionalPipeline
from diffusers_ext.training.loop.sharding import block_names
from tests.tiny_autoencoders import tiny_vae
from tests.tiny_unet import tiny_unet
from tests.training.runs import TINY_UNET, arguments, command_line, records
from tests.training.sharded_run import held_bytes, launch, launch_and_kill
from tests.training.text_to_image_models import captioned_images, tiny_base


STEPS = 20
DIFFUSION = "diffusers_ext.training.train_diffusion"
UNET = json.dumps({**TINY_UNET, "dropout": 0.0})


def train(output_dir, processes=2, **options):
    """A run, and what it logs and publishes."""
    options = {"max_train_steps": STEPS, "checkpointing_steps": 10, "num_inference_steps": 2, "unet": UNET, **options}
    done = launch(DIFFUSION, arguments(output_dir, train_batch_size=8 // processes, **options), processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return records(output_dir), load_file(output_dir / "unet" / "diffusion_pytorch_model.safetensors")


def assert_close(found, expected):
    for line, other in zip(found[0], expected[0], strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    assert found[1].keys() == expected[1].keys()
    for name, tensor in expected[1].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=1e-4)


def test_blocks_are_those_that_a_network_has():
    assert block_names(tiny_unet()) == {"ResnetBlock2D", "Attention"}
    assert block_names(tiny_unet(), ["ResnetBlock2D", "Other"]) == {"ResnetBlock2D"}
    assert block_names(torch.nn.Linear(1, 1)) == set()


@pytest.mark.slow
def test_two_processes_with_divided_weights_follow_one_and_resume_exactly(tmp_path):
    expected, whole = train(tmp_path / "one", 1), train(tmp_path / "two", channels_last=True)
    assert (tmp_path / "two" / "checkpoint-10" / "shards").is_dir()
    assert_close(whole, expected)
    UNet2DModel.from_pretrained(tmp_path / "two" / "unet")
    one, two = (held_bytes(tmp_path / name) for name in ("one", "two"))
    assert two < 0.6 * one, (two, one)

    def resumed(name, processes):
        """The run in a folder, from its checkpoint of step 10."""
        return train(tmp_path / name, processes, resume_from_checkpoint="checkpoint-10")

    again = resumed("two", 2)
    assert again[0] == whole[0][:10] + again[0][10:]
    for line, other in zip(again[0], whole[0], strict=True):
        assert line == other
    assert all(torch.equal(tensor, whole[1][name]) for name, tensor in again[1].items())
    assert_close(resumed("two", 1), expected)
    assert_close(resumed("one", 2), expected)


@pytest.mark.slow
def test_what_cannot_be_divided_is_refused(tmp_path):
    gan = ["--dataset_name=digits", "--resolution=8", "--channels=1", f"--output_dir={tmp_path}", "--r1=1"]
    done = launch("diffusers_ext.training.train_gan", gan)
    assert done.returncode != 0
    assert "error: A penalty of gradients (--gradient_penalty, --r1, --r2) needs the graph" in done.stderr


DIGITS = {"dataset_name": "digits", "channels": 1}
SMALL = json.dumps({"channels": 8})


def gan_options(folder):
    return {**DIGITS, "resolution": 8, "generator": SMALL, "discriminator": SMALL}


def lora_options(folder):
    return {
        "pretrained_model_name_or_path": tiny_base("sd1"),
        "train_data_dir": captioned_images(folder / "images"),
        "resolution": 16,
        "lora_rank": 2,
        "learning_rate": 1e-3,
        "num_validation_images": 1,
        "num_inference_steps": 2,
    }


def palette_options(folder):
    return {**DIGITS, "resolution": 8, "tasks": ["inpainting"], "unet": UNET, "num_inference_steps": 2}


def classifier_options(folder):
    diffusion = folder / "diffusion"
    unet = tiny_unet(in_channels=1, out_channels=1)
    ClassConditionalPipeline(unet, UniPCMultistepScheduler(prediction_type="v_prediction")).save_pretrained(diffusion)
    network = {"block_out_channels": [8, 16], "down_block_types": ["DownBlock2D"] * 2, "norm_num_groups": 4}
    options = {"pretrained_model_name_or_path": diffusion, "classifier": json.dumps(network)}
    return {**DIGITS, "resolution": 8, "num_inference_steps": 2, "guidance_scales": [0.0], **options}


def latents_options(folder):
    """Latents, with a second network that embeds the classes."""
    tiny_vae(channels=1).save_pretrained(folder / "vae")
    denoiser = {"denoiser": "UNet2DConditionModel", "unet": json.dumps({"block_out_channels": [8, 16]})}
    return {**DIGITS, "resolution": 16, "vae": folder / "vae", "num_inference_steps": 2, **denoiser}


def label_map_options(folder):
    """Latents, with a second network that rescales label maps."""
    tiny_vae(channels=3).save_pretrained(folder / "vae")
    for name in ("images", "maps"):
        (folder / name).mkdir(exist_ok=True)
    for index in range(8):
        labels = torch.randint(5, (16, 16), generator=torch.Generator().manual_seed(index), dtype=torch.uint8)
        Image.fromarray(labels.numpy()).save(folder / "maps" / f"{index}.png")
        Image.fromarray(labels.numpy() * 40).convert("RGB").save(folder / "images" / f"{index}.png")
    return {
        "train_data_dir": folder / "images",
        "conditioning_image_dir": folder / "maps",
        "conditioning_label_maps": "levels",
        "conditioning_num_labels": 5,
        "conditioning_encoding": "labels",
        "tasks": ["translation"],
        "resolution": 16,
        "vae": folder / "vae",
        "unet": UNET,
        "num_inference_steps": 2,
    }


def distillation_options(folder):
    labels = {"id2label": dict(enumerate("zero one two three four five six seven eight nine".split()))}
    unet = tiny_unet(in_channels=1, out_channels=1, num_class_embeds=10)
    scheduler = UniPCMultistepScheduler(prediction_type="v_prediction")
    ClassConditionalPipeline(unet, scheduler, **labels).save_pretrained(folder / "teacher")
    return {"dataset_name": "digits", "pretrained_teacher_model": folder / "teacher"}


# Commands, their options, and the file that they publish.
JOBS = {
    "gan": ("train_gan", gan_options, "generator/diffusion_pytorch_model.safetensors"),
    "lora": ("train_text_to_image", lora_options, "pytorch_lora_weights.safetensors"),
    "classifier": ("train_classifier", classifier_options, "classifier/diffusion_pytorch_model.safetensors"),
    "palette": ("train_palette", palette_options, "unet/diffusion_pytorch_model.safetensors"),
    "latents": ("train_diffusion", latents_options, "class_embedder/diffusion_pytorch_model.safetensors"),
    "label maps": ("train_palette", label_map_options, "conditioner/diffusion_pytorch_model.safetensors"),
    "distillation": ("train_distillation", distillation_options, "unet/diffusion_pytorch_model.safetensors"),
}


def run_job(name, folder, output, processes, kill_after=None, **options):
    """What a job logs and publishes, or `None` if it is killed."""
    command, job_options, published = JOBS[name]
    options = {**job_options(folder), "max_train_steps": STEPS, "checkpointing_steps": 10, **options}
    options |= {"train_batch_size": 4 // processes, "output_dir": str(folder / output)}
    module = f"diffusers_ext.training.{command}"
    if kill_after is not None:
        launch_and_kill(module, command_line(options), folder / output / kill_after)
        return None
    done = launch(module, command_line(options), processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return records(folder / output), load_file(folder / output / published)


def assert_equal(found, expected):
    assert found[0] == expected[0] and found[1].keys() == expected[1].keys()
    assert all(torch.equal(tensor, expected[1][name]) for name, tensor in found[1].items())


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_jobs_follow_one_process(tmp_path, name):
    """All networks, losses and published weights; then a run that was killed ends with the same bits."""
    expected, whole = (run_job(name, tmp_path, str(count), count) for count in (1, 2))
    for line, other in zip(whole[0], expected[0], strict=True):
        assert line.keys() == other.keys()
        for key in (key for key in line if key.endswith(("loss", "grad_norm"))):
            assert line[key] == pytest.approx(other[key], rel=1e-5), (key, line["step"])
    assert whole[1].keys() == expected[1].keys()
    for key, tensor in expected[1].items():
        torch.testing.assert_close(whole[1][key], tensor, rtol=1e-4, atol=1e-5)
    if name not in ("gan", "lora"):
        return  # they go on as the diffusion above does
    run_job(name, tmp_path, "killed", 2, kill_after="checkpoint-10")
    assert not (tmp_path / "killed" / JOBS[name][2]).exists()
    assert_equal(run_job(name, tmp_path, "killed", 2, resume_from_checkpoint="latest"), whole)
