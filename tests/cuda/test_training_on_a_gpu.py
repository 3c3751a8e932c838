"""What only a GPU can show: low precision, compilation, fused optimizers, memory, and that no update waits."""

import json
import subprocess
import sys

import pytest
import torch
from diffusers import UNet2DModel

from diffusers_ext import ClassConditionalPipeline
from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
from diffusers_ext.training.train_gan import GANConfig, GANRecipe
from diffusers_ext.training.train_palette import PaletteConfig, PaletteRecipe
from tests.training.runs import arguments, environment, records, tensors, trainer


pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

UNET = json.dumps({"block_out_channels": [32, 64]})
RECIPES = {
    "diffusion": (DiffusionRecipe, DiffusionConfig, {"unet": UNET}),
    "gan": (GANRecipe, GANConfig, {"resolution": 8, "unet": None, "lr_scheduler": "constant_with_warmup"}),
    "palette": (PaletteRecipe, PaletteConfig, {"unet": UNET, "tasks": "inpainting"}),
}


def job(name: str, output_dir, **options):
    recipe, config_class, own = RECIPES[name]
    chosen = {**own, **options}
    given = [argument for argument in arguments(output_dir, **chosen) if not argument.endswith("=None")]
    config = parse_config(config_class, given)
    return trainer(
        recipe,
        config,
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
    )


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mixed_precision": "bf16"},
        {"mixed_precision": "fp16"},
        {"channels_last": True},
        {"gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_a_run_ends_with_finite_losses_and_a_pipeline(tmp_path, name, options):
    run = job(name, tmp_path, **options)
    assert run.train() and all(network.device.type == "cuda" for network in run.networks.values())
    assert len(records(tmp_path)) >= 12


@pytest.mark.parametrize("options", [{"compile": True}, {"gradient_checkpointing": True}], ids=str)
def test_a_unet_is_compiled_and_computes_activations_twice(tmp_path, options):
    assert job("diffusion", tmp_path, **options).train()


@pytest.mark.parametrize("name", RECIPES)
def test_an_update_waits_for_nothing(tmp_path, name):
    run = job(name, tmp_path)
    run.start()
    for _ in range(3):  # the first updates allocate memory and choose algorithms
        run.update()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(run.reports.read()[0]) == 4


def test_a_resumed_run_is_an_uninterrupted_one(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert job("diffusion", whole, unet=UNET).train()
    assert job("diffusion", parts, unet=UNET, max_train_steps=12).train()
    assert job("diffusion", parts, unet=UNET, resume_from_checkpoint="checkpoint-9").train()
    expected, found = tensors(whole, 12), tensors(parts, 12)
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_decisions_are_drawn_on_the_host(tmp_path):
    draw = job("palette", tmp_path).draw.begin(0, range(4))
    assert draw.normal(2).device.type == "cuda" and draw.host.uniform().device.type == "cpu"
    assert torch.equal(draw.host.begin(3, range(4)).uniform(), draw.host.begin(3, range(4)).uniform())


def test_gradient_checkpointing_saves_memory():
    def peak(checkpointing: bool) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        network = UNet2DModel(block_out_channels=(64, 128), layers_per_block=4, norm_num_groups=32).cuda()
        if checkpointing:
            network.enable_gradient_checkpointing()
        network(torch.zeros(8, 3, 64, 64, device="cuda"), 1).sample.sum().backward()
        return torch.cuda.max_memory_allocated()

    assert peak(True) < 0.8 * peak(False)


def test_a_pipeline_is_offloaded(tmp_path):
    assert job("diffusion", tmp_path).train()
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path)
    pipe.enable_model_cpu_offload()
    assert len(pipe([3], num_inference_steps=2).images) == 1


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_devices_follow_one(tmp_path):
    for count in (1, 2):
        options = arguments(tmp_path / str(count), unet=UNET, train_batch_size=8 // count)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        command += ["-m", "diffusers_ext.training.train_diffusion", *options]
        subprocess.run(command, check=True, env=environment(), timeout=600)
    one, two = (records(tmp_path / str(count)) for count in (1, 2))
    for line, other in zip(one, two, strict=True):
        if "loss" in line:
            assert line["loss"] == pytest.approx(other["loss"], abs=1e-4)
