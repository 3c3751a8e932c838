"""What only a GPU can show: low precision, compilation, fused optimizers, memory, and that no update waits.

CUDA_TESTS_ON_CPU=1 python -m pytest tests/cuda  # tries the tests without a GPU
"""

import json
import math
import statistics
import subprocess
import sys

import pytest
import torch
from diffusers import UNet2DModel

from diffusers_ext import ClassConditionalPipeline
from diffusers_ext.training.loop.compiling import compile_network
from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.loop.flat_adamw import FlatAdamW
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
from diffusers_ext.training.train_gan import GANConfig, GANRecipe
from diffusers_ext.training.train_palette import PaletteConfig, PaletteRecipe
from diffusers_ext.training.train_translation import translation_recipe
from diffusers_ext.training.translation.translation_recipe import TranslationConfig
from tests.tiny_unet import tiny_unet
from tests.training.runs import arguments, environment, records, tensors, trainer
from tests.waits import waits_of_an_update


UNET = json.dumps({"block_out_channels": [32, 64]})
NO_UNET = {"unet": None, "lr_scheduler": "constant_with_warmup"}
PAIRS = {"resolution": 16, "inputs": "edges", "generator_channels": 8, "discriminator_channels": 8}
RECIPES = {
    "diffusion": (DiffusionRecipe, DiffusionConfig, {"unet": UNET}),
    "gan": (GANRecipe, GANConfig, {"resolution": 8, **NO_UNET}),
    "palette": (PaletteRecipe, PaletteConfig, {"unet": UNET, "tasks": "inpainting"}),
    "pix2pix": (translation_recipe, TranslationConfig, {**PAIRS, **NO_UNET}),
}


def job(name: str, output_dir, **options):
    """A trainer of a recipe; options that are `None` are left out."""
    recipe, config_class, own = RECIPES[name]
    given = arguments(output_dir, **{**own, **options})
    config = parse_config(config_class, [argument for argument in given if not argument.endswith("=None")])
    return trainer(
        recipe,
        config,
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
    )


def ready_job(name: str, output_dir, **options):
    """A trainer after its first updates, which allocate memory and choose algorithms."""
    run = job(name, output_dir, **options)
    run.start()
    for _ in range(3):
        run.update()
    run.reports.read()
    return run


def assert_finite(lines: list[dict]) -> None:
    for line in lines:
        for name, value in line.items():
            assert not isinstance(value, float) or math.isfinite(value), (name, value, line)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    "options",
    [{}, {"mixed_precision": "bf16"}, {"channels_last": True}, {"gradient_accumulation_steps": 2}],
    ids=str,
)
def test_a_run_ends_with_finite_losses_and_a_pipeline(tmp_path, device, name, options):
    run = job(name, tmp_path, **options)
    assert run.train() and all(network.device.type == device.type for network in run.networks.values())
    assert len(records(tmp_path)) >= 12 and (tmp_path / "model_index.json").exists()
    assert_finite(records(tmp_path))


@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
@pytest.mark.parametrize("name", RECIPES)
def test_losses_fall_in_every_precision(tmp_path, device, name, precision):
    """The losses of a discriminator and of a generator against it need not fall."""
    if precision == "fp16" and device.type == "cpu":
        pytest.skip("Accelerate has fp16 on GPUs only")
    assert job(name, tmp_path, mixed_precision=precision, max_train_steps=100, checkpointing_steps=100).train()
    lines = [line for line in records(tmp_path) if any(key.endswith("loss") for key in line)]
    assert_finite(lines)
    falling = {"diffusion": "loss", "palette": "loss", "pix2pix": "l1", "gan": None}[name]
    if falling is not None:
        values = [line[falling] for line in lines]
        assert len(values) == 100 and statistics.mean(values[-25:]) < 0.9 * statistics.mean(values[:25])


@pytest.mark.parametrize("options", [{"compile": True}, {"gradient_checkpointing": True}], ids=str)
def test_a_unet_is_compiled_and_computes_activations_twice(tmp_path, device, options):
    if options.get("compile") and device.type == "cpu":
        pytest.skip("the trainer refuses compiled networks on CPUs")
    assert job("diffusion", tmp_path, **options).train()


@pytest.mark.usefixtures("cuda")
def test_a_compiled_unet_has_its_gradients_in_bfloat16():
    # With the compiler's own options most of these are zero on a CPU (PyTorch 2.13).
    images, timesteps = torch.randn(4, 1, 16, 16, device="cuda"), torch.tensor([1, 200, 500, 900], device="cuda")
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    found = {}
    for compiled in (False, True):
        torch.manual_seed(0)
        unet = UNet2DModel(16, 1, 1, block_out_channels=[32, 64], layers_per_block=1, **blocks).to("cuda")
        if compiled:
            compile_network(unet)
        with torch.autocast("cuda", torch.bfloat16):
            prediction = unet(images, timesteps).sample
        prediction.float().square().mean().backward()
        found[compiled] = torch.stack([parameter.grad.norm() for parameter in unet.parameters()])
    torch.testing.assert_close(found[True], found[False], rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_an_update_waits_for_nothing(tmp_path, device, name, precision):
    if device.type == "cpu":
        assert not waits_of_an_update(job(name, tmp_path, mixed_precision=precision))
        return
    run = ready_job(name, tmp_path, mixed_precision=precision)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(run.reports.read()[0]) == 1


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("name", RECIPES)
def test_an_update_is_issued_with_its_copies_while_the_device_is_busy(tmp_path, name):
    run = ready_job(name, tmp_path)
    torch.cuda.synchronize()
    torch.cuda._sleep(10_000_000_000)  # cycles: some seconds
    busy = torch.cuda.Event()
    busy.record()
    run.update()
    assert not busy.query()
    ((step, values),) = run.reports.read()[0]
    assert step == 4 and all(math.isfinite(value) for value in values.values())


def test_a_resumed_run_is_an_uninterrupted_one(tmp_path, deterministic):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert job("diffusion", whole).train()
    assert job("diffusion", parts).train()
    assert job("diffusion", parts, resume_from_checkpoint="checkpoint-9").train()
    expected, found = tensors(whole, 12), tensors(parts, 12)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_decisions_are_drawn_on_the_host(tmp_path, device):
    draw = job("palette", tmp_path).draw.begin(0, range(4))
    assert draw.normal(2).device.type == device.type and draw.host.uniform().device.type == "cpu"
    assert torch.equal(draw.host.begin(3, range(4)).uniform(), draw.host.begin(3, range(4)).uniform())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_fused_and_flat_optimizers_are_that_over_single_tensors(device, memory_format):
    options = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}
    expected = updated(torch.optim.AdamW, device, memory_format, foreach=False, fused=False, **options)
    for optimizer_class, kind in ((torch.optim.AdamW, "fused"), (torch.optim.AdamW, "foreach"), (FlatAdamW, "fused")):
        found = updated(optimizer_class, device, memory_format, **{kind: True}, **options)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def updated(optimizer_class, device, memory_format, **options) -> list[torch.Tensor]:
    """Weights after 20 clipped updates with gradients that are always the same."""
    torch.manual_seed(0)
    network = tiny_unet().to(device, memory_format=memory_format)
    weights = list(network.parameters())
    optimizer = optimizer_class(weights, **options)
    flat = isinstance(optimizer, FlatAdamW)
    for step in range(20):
        optimizer.zero_grad(set_to_none=not flat)
        generator = torch.Generator().manual_seed(step)
        for weight in weights:
            gradient = torch.randn(weight.shape, generator=generator).to(device)
            weight.grad = weight.grad.copy_(gradient) if flat else torch.empty_like(weight).copy_(gradient)
        torch.nn.utils.clip_grad_norm_([optimizer.flat] if flat else weights, 0.5)
        optimizer.step()
    return [weight.detach().contiguous() for weight in weights]


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("name", RECIPES)
def test_the_memory_of_a_recipe_is_shown(tmp_path, capsys, name):
    found = {}
    for precision in ("no", "bf16"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        ready_job(name, tmp_path / precision, mixed_precision=precision)
        found[precision] = torch.cuda.max_memory_allocated() / 1e6
    with capsys.disabled():
        print(f"\n{name}: {found['no']:.1f} MB in float32, {found['bf16']:.1f} MB in bf16")
    assert min(found.values()) > 0


@pytest.mark.usefixtures("cuda")
def test_gradient_checkpointing_saves_memory():
    def peak(checkpointing: bool) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        network = UNet2DModel(block_out_channels=(64, 128), layers_per_block=4, norm_num_groups=32, **BLOCKS).cuda()
        if checkpointing:
            network.enable_gradient_checkpointing()
        network(torch.zeros(8, 3, 64, 64, device="cuda"), 1).sample.sum().backward()
        return torch.cuda.max_memory_allocated()

    assert peak(True) < 0.8 * peak(False)


BLOCKS = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}


@pytest.mark.usefixtures("cuda")
def test_a_pipeline_is_offloaded(tmp_path):
    assert job("diffusion", tmp_path).train()
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path)
    pipe.enable_model_cpu_offload()
    assert len(pipe([3], num_inference_steps=2).images) == 1


def test_two_devices_follow_one(tmp_path, device):
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    for count in (1, 2):
        options = {"unet": UNET, "train_batch_size": 8 // count, "mixed_precision": "no", "allow_tf32": False}
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        command += ["-m", "diffusers_ext.training.train_diffusion", *arguments(tmp_path / str(count), **options)]
        subprocess.run(command, check=True, env=environment(), timeout=1800)
    one, two = (records(tmp_path / str(count)) for count in (1, 2))
    for line, other in zip(one, two, strict=True):
        if "loss" in line:
            assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)
