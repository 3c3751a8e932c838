"""Restoration in one pass trains, resumes and is published; and what does not fit is refused."""

import pytest
import torch
from diffusers import DiffusionPipeline

from diffusers_ext import RestorationPipeline
from diffusers_ext.losses import charbonnier_loss, l2_loss, real_loss, relative_logits
from diffusers_ext.models.modeling_deepdeblur import halve
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_restoration import RestorationRecipe, RestorationTrainingConfig
from tests.training import runs
from tests.training.runs import context, steps, tensors, weights


OPTIONS = {
    "dataset_name": "digits",
    "resolution": [16],
    "channels": 1,
    "generator_options": {"base_channels": 4, "num_blocks": 1},
    "max_train_steps": 4,
    "train_batch_size": 4,
    "checkpointing_steps": 2,
}
ADVERSARIAL = {"adversarial_weight": 0.1, "discriminator_options": {"base_channels": 4}}


def configuration(output_dir, **options) -> RestorationTrainingConfig:
    return RestorationTrainingConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def trainer(output_dir, **options) -> Trainer:
    return runs.trainer(RestorationRecipe, configuration(output_dir, **options))


VARIANTS = {
    "srresnet, x2": {"scale": 2},
    "msrresnet, x4, degraded": {"scale": 4, "generator": "msrresnet", "tasks": ["camera_noise", "second_order"]},
    "rrdb, x2": {
        "scale": 2,
        "generator": "rrdb",
        "generator_options": {"base_channels": 4, "growth_channels": 2, "num_blocks": 1},
        "content_loss": "charbonnier",
    },
    "gan": {"scale": 2, **ADVERSARIAL, "discriminator": "srgan", "content_loss": "l2"},
    "relativistic": {"tasks": ["inpainting"], **ADVERSARIAL, "relativistic": True},
    "wasserstein, resnet": {
        "tasks": ["deblurring"],
        "generator": "resnet",
        **ADVERSARIAL,
        "adversarial_loss": "wasserstein",
        "gradient_penalty": 10.0,
        "discriminator_options": {"base_channels": 4, "spectral_norm": False},
    },
    "deblurgan": {"tasks": ["motion_blur"], "generator": "deblurgan"},
    "fpn": {
        "resolution": [64],
        "tasks": ["motion_blur"],
        "generator": "fpn",
        "generator_options": {"backbone_channels": [4, 4, 4, 4, 8, 8, 8], "pyramid_channels": 8},
    },
    "deepdeblur": {"tasks": ["motion_blur"], "generator": "deepdeblur"},
    "context encoder": {
        "tasks": ["inpainting"],
        "task_options": {"inpainting": {"center": True}},
        "generator": "context_encoder",
        "generator_options": {"base_channels": 4, "bottleneck_channels": 8, "num_levels": 2},
    },
    "unet": {"tasks": ["exposure_clipping"], "generator": "unet", "generator_options": {"block_out_channels": [4, 8]}},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_all_networks_learn(tmp_path, options):
    run = trainer(tmp_path, **options)
    before = {name: weights(network) for name, network in run.networks.items()}
    steps(run, 2)
    assert len(before) == (2 if "adversarial_weight" in options else 1)
    assert not any(torch.equal(weights(network), before[name]) for name, network in run.networks.items())


def test_the_losses_of_a_step_are_those_of_the_papers(tmp_path):
    """A relativistic GAN of denoising without an update: recomputed from the networks."""
    options = {"tasks": ["exposure_clipping"], **ADVERSARIAL, "relativistic": True, "content_weight": 2.0}
    options["generator_options"] = {"base_channels": 4, "num_blocks": 1, "normalization": "none"}
    job, losses = RestorationRecipe(configuration(tmp_path, **options), context()), {}
    networks = job.networks()
    networks = {name: network.eval() for name, network in networks.items()}
    for name, network in networks.items():
        setattr(job, name, network)
    logged = {}
    job.network, job.log = networks.get, lambda **values: logged.update(values)
    job.minimise = lambda name, loss: losses.update({name: loss.detach()})
    truth = torch.rand(3, 1, 16, 16) * 2 - 1
    draw = Draw(0, torch.device("cpu"))
    job.step({"pixel_values": truth}, draw.begin(0, range(3)))

    shown = job.degraded.mix({"pixel_values": truth}, draw.begin(0, range(3)))
    with torch.no_grad():
        output = networks["generator"](shown / 2 + 0.5).sample * 2 - 1
        on_truth, on_output = (networks["discriminator"](images).logits for images in (truth, output))
    l1 = (output - truth).abs().mean(dim=(1, 2, 3))
    expected = 2 * l1 + 0.1 * torch.nn.functional.softplus(on_truth - on_output).mean(dim=(1, 2, 3))
    torch.testing.assert_close(losses["generator"], expected)
    expected = torch.nn.functional.softplus(on_output - on_truth).mean(dim=(1, 2, 3))
    torch.testing.assert_close(losses["discriminator"], expected)
    assert torch.equal(logged["pair_accuracy"], (on_truth > on_output).flatten())
    assert "real_accuracy" not in logged


def test_the_loss_of_a_network_of_several_sizes_is_a_sum_over_them(tmp_path):
    job = RestorationRecipe(configuration(tmp_path, tasks=["motion_blur"], generator="deepdeblur"), context())
    job.generator, job.log = job.networks()["generator"].eval(), lambda **values: None
    truth = torch.rand(2, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        outputs = job.restore(truth)
    assert [output.shape[-1] for output in outputs] == [16, 8, 4]
    levels = [truth, halve(truth), halve(halve(truth))]
    expected = sum((out - level).abs().mean(dim=(1, 2, 3)) for out, level in zip(outputs, levels, strict=True))
    torch.testing.assert_close(job.content_losses(outputs[0], truth, outputs[1:]), expected)


def test_losses_of_pixels():
    images, target = torch.zeros(2, 1, 2, 2), torch.tensor([3.0, 0.0]).view(2, 1, 1, 1).expand(-1, 1, 2, 2)
    assert l2_loss(images, target).tolist() == [9.0, 0.0]
    torch.testing.assert_close(charbonnier_loss(images, target, epsilon=4.0), torch.tensor([5.0, 4.0]))
    logits = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [1.0]])]
    relative = relative_logits(logits, [torch.zeros(2), torch.ones(2, 1)])
    assert [scores.flatten().tolist() for scores in relative] == [[1.0, 2.0], [2.0, 0.0]]
    assert real_loss("wasserstein", relative).tolist() == [-1.5, -1.0]


def test_a_resumed_run_is_an_uninterrupted_one_and_loads_in_both_ways(tmp_path):
    options = {"tasks": ["denoising", "inpainting"], **ADVERSARIAL, "lr_scheduler": "constant"}
    assert trainer(tmp_path / "whole", **options).train()
    assert trainer(tmp_path / "part", **options, max_train_steps=2).train()
    assert trainer(tmp_path / "part", **options, resume_from_checkpoint="latest").train()
    whole, resumed = (tensors(tmp_path / name, 4) for name in ("whole", "part"))
    assert whole.keys() == resumed.keys() and all(torch.equal(resumed[key], whole[key]) for key in whole)

    image = torch.rand(1, 20, 12)
    installed = RestorationPipeline.from_pretrained(tmp_path / "whole")
    remote = DiffusionPipeline.from_pretrained(tmp_path / "whole", trust_remote_code=True)
    outputs = [pipe(image, output_type="pt", tile_size=8).images for pipe in (installed, remote)]
    assert torch.equal(*outputs) and outputs[0].shape == (1, 1, 20, 12)
    assert (tmp_path / "whole" / "samples.png").is_file() and "restoration" in (
        tmp_path / "whole" / "README.md"
    ).read_text()


def test_restorations_are_measured_beside_the_input(tmp_path):
    config = configuration(tmp_path, scale=2, metrics=["psnr", "ssim"], num_evaluation_samples=9)
    job = RestorationRecipe(config, context())
    pipeline = job.pipeline(job.networks()["generator"].eval())
    rows = job.evaluate(Generation(pipeline, job.context, seed=0, batch_size=4))
    assert [(row["task"], row["method"]) for row in rows] == [
        ("super_resolution", "bicubic"),
        ("super_resolution", "model"),
    ]
    assert rows[0]["psnr"] > rows[1]["psnr"] > 0  # nothing is learned yet


def test_training_goes_on_from_a_pipeline(tmp_path):
    assert trainer(tmp_path / "first", scale=2).train()
    options = {"pretrained_model_name_or_path": str(tmp_path / "first"), **ADVERSARIAL}
    run = trainer(tmp_path / "second", scale=2, **options)
    first = RestorationPipeline.from_pretrained(tmp_path / "first").generator
    assert torch.equal(weights(run.networks["generator"]), weights(first))
    with pytest.raises(ValueError, match="--scale is 4, but the network of .* has 2"):
        trainer(tmp_path / "third", scale=4, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "--tasks or a --scale above 1 is required"),
        ({"scale": 3}, "--resolution must be a multiple of --scale, 3"),
        ({"scale": 2, "relativistic": True}, "--relativistic is for --adversarial_weight, which is 0"),
        ({"scale": 2, "perceptual_network": "x"}, "--perceptual_network is for --perceptual_weight above 0"),
        ({"scale": 2, **ADVERSARIAL, "adversarial_loss": "minimax", "relativistic": True}, "is not for .* minimax"),
        ({"scale": 2, "content_weight": 0.0}, "must be above 0"),
        ({"scale": 2, "metrics": ["diversity"]}, "diversity"),
        ({"scale": 2, "tasks": ["translation"], "conditioning_image_column": "x"}, "so --scale must be 1"),
        ({"tasks": ["denoising"], "task_options": {"deblurring": {}}}, "there are options for deblurring"),
        ({"scale": 2, "generator": "unet", "generator_options": {}}, "--scale 2 is not possible for --generator unet"),
        ({"scale": 2, "generator_options": {"depth": 3}}, "--generator_options: SRResNet has no argument 'depth'"),
        (
            {"scale": 2, **ADVERSARIAL, "discriminator": "srgan", "gradient_penalty": 1.0},
            "--gradient_penalty is for discriminators without batch norm",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options)
