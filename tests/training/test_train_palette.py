import itertools
import json
import pathlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DModel
from PIL import Image

from diffusers_ext import CascadePipeline, ClassConditionalPipeline, PalettePipeline
from diffusers_ext.data.corruptions import Corruption, inpainting, uncropping
from diffusers_ext.data.untrained_fills import load_fill, mean_fill
from diffusers_ext.pipelines.fills import SHOWN_FILLS, smooth_fill
from diffusers_ext.training import evaluate_pipeline
from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.restoration.evaluation import pipeline_inputs, untrained_methods
from diffusers_ext.training.restoration.palette_inputs import augment_conditioning
from diffusers_ext.training.restoration.tasks import Tasks
from diffusers_ext.training.train_palette import PaletteConfig, PaletteRecipe
from tests.hub.hub_server import card_errors
from tests.training.runs import context, tensors, trainer
from tests.waits import waits_of_an_update


UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock2D"] * 2,
    "up_block_types": ["UpBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
OPTIONS = {
    "tasks": ["inpainting"],
    "resolution": [8],
    "channels": 1,
    "unet": UNET,
    "max_train_steps": 3,
    "train_batch_size": 8,
    "num_inference_steps": 2,
}


DIGITS = {"dataset_name": "digits", "train_data_dir": None}


@pytest.fixture(scope="module", autouse=True)
def photographs(tmp_path_factory):
    """What recipes train on if nothing else is said: few, and thus soon read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(pictures(tmp_path_factory.mktemp("data") / "photographs")))
        yield


def configuration(output_dir, **options) -> PaletteConfig:
    return PaletteConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


def recipe(output_dir, **options) -> PaletteRecipe:
    return PaletteRecipe(configuration(output_dir, **options), context())


def trained(output_dir, **options):
    """A short run, and its pipeline as it is published."""
    assert trainer(PaletteRecipe, configuration(output_dir, **options)).train()
    pipe = PalettePipeline.from_pretrained(output_dir)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(rows, step=0):
    return Draw(0, torch.device("cpu")).begin(step, rows)


def images(count, channels=1, size=8):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def pictures(folder, count=6):
    """A folder of photographs of several sizes and modes."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for index, (mode, channels) in zip(range(count), itertools.cycle([("RGB", 3), ("L", 0), ("RGBA", 4)])):
        size = (20 + index, 14) + ((channels,) if channels else ())
        Image.fromarray(noise.integers(0, 255, size, dtype=np.uint8), mode).save(folder / f"{index}.png")
    return folder


def half_hidden(images, draw):
    """A task of a user: the left half is hidden, the right one is negative."""
    mask = torch.zeros_like(images[:, :1])
    mask[..., : images.shape[-1] // 2] = 1
    return Corruption(torch.where(mask > 0, draw.normal_like(images), -images), hidden=mask)


def too_bright(images, draw):
    return Corruption(images + 2)


# The step


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_loss_is_that_of_the_pixels_to_be_made(norm):
    clean, mask = images(4, 3), (images(4) > 0).float()
    objective = PaletteConfig(**OPTIONS, prediction_type="sample").objective()
    output, timesteps = (clean + 0.5).requires_grad_(), torch.tensor([0, 10, 500, 999])
    losses = objective.losses(output, clean, clean, clean, timesteps, mask, norm)
    expected = {"l1": 0.5, "l2": 0.25}[norm] * mask.mean(dim=(1, 2, 3))
    torch.testing.assert_close(losses, expected)
    (gradient,) = torch.autograd.grad(losses.sum(), output)
    assert torch.equal(gradient != 0, (mask > 0).expand_as(gradient))


@dataclass
class Seen:
    """What a network was shown."""

    sample: torch.Tensor
    timesteps: torch.Tensor
    class_labels: torch.Tensor | None


def one_step(tmp_path, batch, **options):
    """What a step shows the network, which says zero, and the losses."""
    job = recipe(tmp_path, **options)
    job.unet, seen, losses = job.networks()["unet"], [], []
    for parameter in job.unet.conv_out.parameters():
        torch.nn.init.zeros_(parameter)
    job.unet.register_forward_pre_hook(
        lambda _, args, keywords: seen.append(Seen(*args, **keywords)), with_kwargs=True
    )
    job.minimise = lambda names, loss: losses.append(loss)
    job.step(batch, draw(range(len(batch["pixel_values"]))))
    return job, seen[0], losses[0].detach()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow_prediction", "regression"])
def test_known_pixels_are_seen_clean_and_cost_nothing(tmp_path, prediction_type):
    clean = images(16)
    _, seen, losses = one_step(tmp_path, {"pixel_values": clean}, prediction_type=prediction_type)
    rows = draw(range(16))
    rows.integers(1)
    corruption = inpainting(clean, rows)
    conditioning, noisy = seen.sample.chunk(2, dim=1)
    known = corruption.mask == 0
    assert torch.equal(conditioning, corruption.conditioning_image)
    assert torch.equal(noisy[known], clean[known])
    assert (noisy[~known] != clean[~known]).float().mean() > 0.9
    if prediction_type == "regression":  # the network says zero, and should have said the image
        torch.testing.assert_close(losses, (corruption.mask * clean).square().mean(dim=(1, 2, 3)))
        assert (seen.timesteps == 999).all()
    assert losses.shape == (16,) and (losses > 0).all()


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction", "flow_prediction"])
def test_noise_levels_may_count_as_their_signal_to_noise_ratios(tmp_path, prediction_type):
    batch, options = {"pixel_values": images(64)}, {"prediction_type": prediction_type, "num_train_timesteps": 100}
    _, _, plain = one_step(tmp_path, batch, **options)
    job, seen, weighted = one_step(tmp_path, batch, loss_weighting="min_snr", snr_gamma=3.0, **options)
    alpha, sigma = (level.flatten() for level in job.objective.levels(seen.timesteps))
    of_clean = {"epsilon": sigma / alpha, "sample": 1, "v_prediction": sigma, "flow_prediction": sigma}
    expected = (alpha / sigma).square().clamp(max=3.0) * of_clean[prediction_type] ** 2
    torch.testing.assert_close(weighted, expected * plain, rtol=1e-3, atol=1e-6)


def test_a_flow_may_start_from_the_degraded_image(tmp_path):
    clean = images(64)
    options = {"tasks": ["denoising", f"{__name__}:half_hidden"], "source_noise": 0.2}
    job, seen, losses = one_step(tmp_path, {"pixel_values": clean}, **options)
    conditioning, noisy = seen.sample.chunk(2, dim=1)
    time = (seen.timesteps / 1000)[:, None, None, None]
    source = (noisy - (1 - time) * clean) / time
    hidden = torch.zeros_like(clean[:, :1])
    hidden[..., :4] = (conditioning[..., 4:] == -clean[..., 4:]).all(dim=(1, 2, 3))[:, None, None, None]
    assert 0 < hidden[:, 0, 0, 0].sum() < 64
    noise = source - smooth_fill(conditioning, hidden)
    assert abs(noise.square().mean().sqrt() - 0.2) < 0.01 and abs(noise.mean()) < 0.01
    # The network says zero, and should have said the way from the image to the source.
    torch.testing.assert_close(losses, (source - clean).square().mean(dim=(1, 2, 3)), rtol=1e-3, atol=1e-5)
    pipe = job.pipeline(unet=job.unet)
    assert pipe.config.source_noise == 0.2


@pytest.mark.parametrize("fill", ["smooth", "mirror"])
def test_what_is_hidden_may_be_shown_filled(tmp_path, fill):
    job, seen, _ = one_step(tmp_path, {"pixel_values": images(4)}, conditioning_fill=fill)
    rows = draw(range(4))
    rows.integers(1)
    corruption = inpainting(images(4), rows)
    expected = SHOWN_FILLS[fill](corruption.conditioning_image, corruption.hidden)
    assert torch.equal(seen.sample.chunk(2, dim=1)[0], expected)
    pipe = job.pipeline(unet=job.unet)
    assert pipe.config.conditioning_fill == fill
    pipe.save_pretrained(tmp_path / fill)
    recipe(tmp_path, tasks=["inpainting"]).pipeline(unet=job.unet).save_pretrained(tmp_path / "noise")
    start = {"unet": {}, "tasks": ["inpainting"], "conditioning_fill": fill}
    for name in ("noise", fill):
        recipe(tmp_path, **start, pretrained_model_name_or_path=str(tmp_path / name)).networks()
    start = {**start, "conditioning_fill": "noise", "pretrained_model_name_or_path": str(tmp_path / fill)}
    with pytest.raises(ValueError, match=f"has conditioning_fill={fill}, but this run needs noise"):
        recipe(tmp_path, **start).networks()


def test_a_fill_is_no_matter_where_nothing_is_hidden(tmp_path):
    batch, options = {"pixel_values": images(4)}, {"tasks": ["denoising"]}
    shown = [one_step(tmp_path, batch, conditioning_fill=fill, **options)[1].sample for fill in ("noise", "mirror")]
    assert torch.equal(*shown)


@pytest.mark.parametrize("kind", ["gamma", "sqrt_gamma"])
def test_the_network_is_told_the_level_of_the_noise_it_sees(tmp_path, kind):
    batch = {"pixel_values": torch.zeros(400, 1, 8, 8)}
    options = {"tasks": ["denoising"], "prediction_type": "epsilon", "noise_conditioning": kind}
    job, seen, _ = one_step(tmp_path, batch, num_train_timesteps=20, **options)
    gamma = seen.timesteps if kind == "gamma" else seen.timesteps**2
    # The images are zero, so what is noisy is noise of the variance 1 - gamma.
    variance = seen.sample[:, 1:].square().mean(dim=(1, 2, 3))
    assert ((variance / (1 - gamma) - 1).abs() < 1).all() and abs((variance / (1 - gamma)).mean() - 1) < 0.02
    levels = job.objective.scheduler.alphas_cumprod
    assert levels[-1] <= gamma.min() and gamma.max() <= levels[0]
    # Uniform between neighbours, each pair of which is as likely as any other, and never on a level.
    intervals = torch.bucketize(gamma, levels.flip(0)).bincount()
    assert len(intervals[intervals > 0]) == 19 and intervals.max() < 45
    assert not torch.isin(gamma, levels).any()


def test_conditioning_images_and_labels_are_hidden_as_often_as_asked(tmp_path):
    batch = {"pixel_values": images(400), "class_labels": torch.zeros(400, dtype=torch.int64)}
    options = {"tasks": ["denoising"], "conditioning_dropout": 0.3, "class_conditional": True, "label_dropout": 0.2}
    _, seen, _ = one_step(tmp_path, batch, **options, **DIGITS)
    hidden = (seen.sample[:, :1] == 0).flatten(1).all(dim=1)
    assert 0.2 < hidden.float().mean() < 0.4 and not (seen.sample[:, 1:] == 0).flatten(1).all(dim=1).any()
    assert 0.1 < (seen.class_labels == 10).float().mean() < 0.3 and set(seen.class_labels.tolist()) == {0, 10}


# Several tasks


def test_each_sample_has_a_task_of_its_own(tmp_path):
    tasks, clean = Tasks(["inpainting", "uncropping", "denoising"], {}, (8, 8), 1), images(60)
    corruption = tasks.mix({"pixel_values": clean}, draw(range(60)))
    chosen = draw(range(60)).integers(3)
    assert chosen.bincount(minlength=3).min() > 10
    for index, function in enumerate((inpainting, uncropping)):
        # One sample alone is what it is among others.
        for row in (chosen == index).nonzero().flatten().tolist()[:5]:
            own = draw([row])
            own.integers(3)
            alone = function(clean[row : row + 1], own)
            assert torch.equal(corruption.conditioning_image[row], alone.conditioning_image[0])
            assert torch.equal(corruption.mask[row], alone.mask[0])
    assert (corruption.mask[chosen == 2] == 1).all()


def test_batches_in_parts_are_the_same_batch(tmp_path):
    tasks, clean = Tasks(["denoising", "inpainting"], {}, (8, 8), 1), images(12)
    whole = tasks.mix({"pixel_values": clean}, draw(range(12)))
    parts = [tasks.mix({"pixel_values": clean[rows]}, draw(rows)) for rows in ([0, 3, 7], [11, 2])]
    for part, rows in zip(parts, ([0, 3, 7], [11, 2]), strict=True):
        assert torch.equal(part.conditioning_image, whole.conditioning_image[rows])
        assert torch.equal(part.mask, whole.mask[rows])


# Whole runs


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A run on several tasks with everything that is measured and drawn on the way."""
    folder = tmp_path_factory.mktemp("several")
    pipe = trained(
        folder,
        **DIGITS,
        tasks=["inpainting", "super_resolution", "denoising"],
        task_options={"super_resolution": {"factor": 2}},
        validation_split="test",
        validation_steps=2,
        evaluation_steps=2,
        feature_extractor="digits",
        metrics=["psnr", "ssim", "fid", "diversity"],
        num_restorations=2,
        num_evaluation_samples=30,
        conditioning_dropout=0.2,
        guidance_scales=[1.0, 2.0],
    )
    return folder, pipe


def test_a_run_leaves_a_pipeline_for_its_tasks(several):
    folder, pipe = several
    assert set(pipe.config.tasks) == {"inpainting", "super_resolution", "denoising"}
    assert pipe.config.default_num_inference_steps == 2 and pipe.config.default_scale_factor == 2
    image = images(1)[0] / 2 + 0.5
    output = pipe(image, mask_image=(0, 0, 4, 8), output_type="pt").images[0]
    assert torch.equal(output[..., 4:], image[..., 4:]) and not torch.equal(output, image)
    assert pipe(image[:, :4, :4], task="super_resolution").images[0].size == (8, 8)
    with pytest.raises(ValueError, match="not trained for the task 'colorization'"):
        pipe(image, task="colorization")
    # And without this package.
    other = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    same = other(image, mask_image=(0, 0, 4, 8), output_type="pt", generator=torch.Generator().manual_seed(0))
    ours = pipe(image, mask_image=(0, 0, 4, 8), output_type="pt", generator=torch.Generator().manual_seed(0))
    assert torch.equal(same.images, ours.images)


def test_a_run_leaves_panels_measures_and_a_card(several):
    folder, _ = several
    for name in ("samples.png", "samples/step-2.png"):
        with Image.open(folder / name) as panel:  # 3 rows of 4 times input, output and truth
            assert panel.width > 12 * 64 and panel.height > 3 * 64
    rows = json.loads((folder / "metrics.json").read_text())["evaluations"]
    assert [(row["task"], row["guidance_scale"]) for row in rows] == [
        (task, scale) for task in ("inpainting", "super_resolution", "denoising") for scale in (1.0, 2.0)
    ]
    for row in rows:
        assert {"psnr", "ssim", "fid", "perceptual_distance_diversity"} <= row.keys()
        assert row["provenance"]["split"] == "test" and row["provenance"]["num_images"] == 30
    card = (folder / "README.md").read_text()
    assert "pipeline_tag: image-to-image" in card and "mask_image=mask" in card and "| task | method |" in card


def test_the_same_images_are_measured_beside_methods_without_training(several, tmp_path, capsys):
    folder, _ = several
    command = [
        f"--pretrained_model_name_or_path={folder}",
        "--dataset_name=digits",
        "--dataset_split=test",
        "--tasks",
        "inpainting",
        "denoising",
        "--num_evaluation_samples=20",
        "--feature_extractor=digits",
        "--num_restorations=2",
        "--metrics",
        "psnr",
        "diversity",
        '--call_options={"denoising": {"strength": 0.5}}',
        f"--output_file={tmp_path / 'restored.json'}",
    ]
    evaluate_pipeline.main(command)
    rows = json.loads((tmp_path / "restored.json").read_text())
    methods = [(row["task"], row["method"]) for row in rows if "(" not in row["method"]]
    assert methods == [
        ("inpainting", "grey fill"),
        ("inpainting", "mean fill"),
        ("inpainting", "model"),
        ("inpainting", "model"),
        ("denoising", "input"),
        ("denoising", "model"),
        ("denoising", "model"),
    ]
    assert [row["provenance"]["call_options"] for row in rows[-2:]] == [{"strength": 0.5}] * 2
    for row in rows:
        assert (row["perceptual_distance_diversity"] > 0) == (row["method"] == "model") and row["psnr"] > 0
    table = (tmp_path / "restored.md").read_text()
    assert table.strip() in capsys.readouterr().out and table.count("\n") == len(rows) + 2
    with Image.open(tmp_path / "restored.png") as panel:
        assert panel.width > 12 * 64

    command[4] = "colorization"
    with pytest.raises(SystemExit) as stop:
        evaluate_pipeline.main(command)
    assert stop.value.code == 2 and "colorization needs images of 3 channels" in capsys.readouterr().err


def test_a_resumed_run_is_an_uninterrupted_one(tmp_path):
    options = {"tasks": ["inpainting", "denoising"], "checkpointing_steps": 2}
    trained(tmp_path / "whole", max_train_steps=4, lr_warmup_steps=0, **options)
    trained(tmp_path / "parts", max_train_steps=2, lr_warmup_steps=0, **options)
    trained(tmp_path / "parts", max_train_steps=4, lr_warmup_steps=0, resume_from_checkpoint="latest", **options)
    whole, parts = tensors(tmp_path / "whole", 4), tensors(tmp_path / "parts", 4)
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.items())
    with pytest.raises(ValueError, match="tasks"):
        trained(tmp_path / "parts", resume_from_checkpoint="latest", **{**options, "tasks": ["denoising"]})


@pytest.mark.parametrize(
    "options",
    [
        {"prediction_type": "epsilon", "noise_conditioning": "gamma", "loss_norm": "l1"},
        pytest.param(
            {
                "prediction_type": "v_prediction",
                "noise_conditioning": "sqrt_gamma",
                "class_conditional": True,
                **DIGITS,
            },
            marks=pytest.mark.slow,
        ),
        pytest.param({"prediction_type": "regression"}, marks=pytest.mark.slow),
    ],
)
def test_what_is_published_samples_and_can_be_trained_further(tmp_path, options):
    pipe = trained(tmp_path / "first", **options)
    assert pipe.config.noise_conditioning == options.get("noise_conditioning", "timestep")
    image = images(2) / 2 + 0.5
    output = pipe(image, mask_image=(2, 2, 6, 6), output_type="pt").images
    assert output.isfinite().all() and (output[..., 2:6, 2:6] != image[..., 2:6, 2:6]).any()
    if options["prediction_type"] == "regression":
        assert pipe.config.default_num_inference_steps == 1
    start = {**options, "pretrained_model_name_or_path": str(tmp_path / "first"), "unet": {}, "max_train_steps": 1}
    trained(tmp_path / "second", **start)
    with pytest.raises(ValueError, match="has (prediction_type|noise_conditioning)="):
        changed = {"prediction_type": "flow_prediction", "noise_conditioning": "timestep"}
        recipe(tmp_path / "third", **{**start, **changed}).networks()


def test_a_regression_network_says_its_output(tmp_path):
    pipe = trained(tmp_path, prediction_type="regression", tasks=["denoising"])
    image = images(1) / 2 + 0.5
    output = pipe(image, output_type="pt", generator=torch.Generator().manual_seed(3)).images
    noise = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        said = pipe.unet(torch.cat([image * 2 - 1, noise], dim=1), 999).sample
    torch.testing.assert_close(output, (said / 2 + 0.5).clamp(0, 1))


def test_pairs_are_translated(tmp_path):
    folder, noise = tmp_path / "pairs", np.random.default_rng(0)
    folder.mkdir()
    for name in "abc":
        for kind in ("photo", "map"):
            Image.fromarray(noise.integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(folder / f"{kind}_{name}.png")
    lines = [{"file_name": f"photo_{n}.png", "conditioning_image_file_name": f"map_{n}.png"} for n in "abc"]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = {
        "train_data_dir": str(folder),
        "channels": 3,
        "conditioning_image_column": "conditioning_image",
    }
    pipe = trained(tmp_path / "out", tasks=["translation", "colorization"], metrics=["psnr"], **options)
    assert pipe.unet.config.in_channels == 6
    assert pipe(Image.open(folder / "map_a.png").crop((0, 0, 8, 8))).images[0].size == (8, 8)


def test_a_folder_of_photographs_of_all_kinds(tmp_path):
    task = f"{__name__}:half_hidden"
    pipe = trained(tmp_path, channels=3, tasks=["colorization", "inpainting+jpeg_restoration", task])
    picture = Image.new("L", (8, 8), 99)
    assert pipe(picture).images[0].mode == "RGB"
    assert pipe(picture, task="inpainting+jpeg_restoration", mask_image=(0, 0, 3, 3)).images[0].size == (8, 8)


# Cascades


def test_a_super_resolver_for_a_cascade(tmp_path):
    options = {
        **DIGITS,
        "tasks": ["super_resolution"],
        "task_options": {"super_resolution": {"factor": 2}},
        "conditioning_augmentation": 0.6,
        "class_conditional": True,
        "metrics": ["psnr"],
        "num_evaluation_samples": 10,
    }
    pipe = trained(tmp_path / "first", **options)
    assert pipe.unet.config.in_channels == 3 and pipe.config.conditioning_augmentation == 0.6
    assert pipe(images(2, size=4) / 2 + 0.5, class_labels=[3, 4]).images[0].size == (8, 8)
    base = UNet2DModel(sample_size=4, in_channels=1, out_channels=1, num_class_embeds=11, **UNET)
    base = ClassConditionalPipeline(base, DDIMScheduler(), id2label=pipe.config.id2label, null_class_label=10)
    cascade = CascadePipeline.from_pipelines(base, pipe)
    assert cascade.config.stages["unet_2"]["conditioning_augmentation"] == 0.6
    arguments = {"conditioning_noise_level": 0.6, "num_inference_steps": 2}
    assert cascade("three", **arguments).images[0].size == (8, 8)

    start = {**options, "pretrained_model_name_or_path": str(tmp_path / "first"), "unet": {}, "max_train_steps": 1}
    trained(tmp_path / "second", **start)
    with pytest.raises(ValueError, match="has in_channels=3, but this run needs 2"):
        recipe(tmp_path / "third", **{**start, "conditioning_augmentation": 0.0}).networks()
    with pytest.raises(ValueError, match="has conditioning_augmentation=0.6, but this run needs 0.5"):
        recipe(tmp_path / "third", **{**start, "conditioning_augmentation": 0.5}).networks()


def test_conditioning_is_augmented_in_training_as_in_the_cascade():
    """What the network is shown and told of small images is the same here and there, at every level."""
    torch.manual_seed(0)
    pipe = CascadePipeline(
        UNet2DModel(sample_size=4, in_channels=1, out_channels=1, **UNET),
        DDIMScheduler(),
        UNet2DModel(sample_size=8, in_channels=3, out_channels=1, **UNET),
        DDIMScheduler(),
    )
    # of whole bytes, and pale enough for the bicubic filter not to leave the range
    small = ((0.5 * images(3, size=4) + 1) * 127.5).round() / 127.5 - 1
    levels, noise = torch.tensor([0.0, 0.3, 0.9]), torch.randn(3, 1, 4, 4)
    enlarged = pipe._prepare_conditioning(pipe._stages[1], small, 0.0, 0.0, None)[:, :1]
    augmented = augment_conditioning(enlarged, levels, noise)
    for i, level in enumerate(levels.tolist()):
        noisy = (1 - level**2) ** 0.5 * small[i : i + 1] + level * noise[i : i + 1]
        expected = pipe._prepare_conditioning(pipe._stages[1], noisy, level, level, None)
        # images without noise are rounded to bytes
        torch.testing.assert_close(augmented[i : i + 1], expected, rtol=0, atol=0.01)
    assert torch.equal(augmented[:1, :1], enlarged[:1])


def test_levels_of_augmentation_are_up_to_the_highest(tmp_path):
    seen = []
    training = recipe(tmp_path, tasks=["super_resolution"], conditioning_augmentation=0.6)
    training.unet = training.networks()["unet"]
    training.unet.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    training.minimise = lambda name, losses: None
    training.step({"pixel_values": images(400)}, draw(range(400)))
    level = seen[0][:, 1]
    assert (level.flatten(1).std(dim=1) == 0).all()
    assert 0 <= level.min() < 0.02 and 0.58 < level.max() < 0.6
    assert abs(level.mean() - 0.3) < 0.03


# Measures


def test_what_is_measured_is_what_the_network_was_trained_to_undo(tmp_path):
    """The pipeline makes of a corruption's inputs what the network is shown in training."""
    names = ["inpainting", "uncropping", "super_resolution", "inpainting+denoising"]
    tasks, clean = Tasks(names, {}, (8, 8), 1), ((images(3) + 1) * 127.5).round() / 127.5 - 1
    pipe = recipe(tmp_path, tasks=names)
    pipe = pipe.pipeline(**pipe.networks())
    for task in names:
        corruption = tasks.corrupt(task, {"pixel_values": clean}, draw(range(3)))
        _, shown, hidden = pipe.prepare_images(**pipeline_inputs(task, corruption))
        if corruption.hidden is None:
            assert hidden is None
            hidden = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
        else:
            assert torch.equal(hidden, corruption.hidden > 0)
        expected = (corruption.conditioning_image / 2 + 0.5)[~hidden]
        torch.testing.assert_close(shown[~hidden], expected)


def test_methods_without_training_fill_what_is_hidden():
    clean = images(3)
    corruption = inpainting(clean, draw(range(3)))
    filled = mean_fill(corruption)
    hidden = corruption.hidden > 0
    assert torch.equal(filled[~hidden], clean[~hidden])
    for image, original, holes in zip(filled, clean, hidden, strict=True):
        torch.testing.assert_close(image[holes], original[~holes].mean().expand(int(holes.sum())))
    for name, method in untrained_methods("inpainting", corruption).items():
        restored = method(corruption)
        assert torch.equal(restored[~hidden], clean[~hidden]), name
        assert restored.shape == clean.shape and restored.abs().max() <= 1, name


def test_a_first_guess_that_does_not_take_such_images_is_refused():
    with pytest.raises(ValueError, match="--first_guess telea needs images of"):
        load_fill("telea", channels=4)


def test_a_restoration_starts_from_the_first_guess(tmp_path):
    """At a strength of one step of a thousand, hidden pixels stay next to what they were guessed to be."""
    pipe = recipe(tmp_path, tasks=["inpainting"])
    pipe = pipe.pipeline(**pipe.networks())
    corruption = inpainting(images(3) / 2 + 0.5, draw(range(3)))  # bright ones, whose mean is not grey
    inputs = pipeline_inputs("inpainting", corruption, mean_fill)
    restored = pipe(**inputs, strength=0.01, num_inference_steps=100, output_type="pt").images
    assert (restored - inputs["image"]).abs().max() < 0.05
    assert (restored - pipeline_inputs("inpainting", corruption)["image"]).abs().max() > 0.2


def test_an_old_checkpoint_is_whole_or_gone(tmp_path, monkeypatch):
    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusers_ext.training.loop.checkpoints.remove", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, checkpointing_steps=1, checkpoints_total_limit=1)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_the_card_names_no_folder_of_this_machine_as_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(pathlib.Path(OPTIONS["train_data_dir"]).parent))
    trained(tmp_path / "base", train_data_dir="~/photographs")
    options = {"unet": {}, "pretrained_model_name_or_path": str(tmp_path / "base")}
    trained(tmp_path / "tuned", train_data_dir="~/photographs", **options)
    for name in ("base", "tuned"):
        card = (tmp_path / name / "README.md").read_text()
        assert card_errors(card) == [] and "`photographs`, split `train`" in card


# Refusals


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tasks": None}, "--tasks is required"),
        ({"tasks": ["flying"]}, "there is no task 'flying'"),
        ({"tasks": ["inpainting", "inpainting"]}, "tasks must be different"),
        ({"tasks": ["colorization"]}, "colorization needs images of 3 channels"),
        ({"task_options": {"inpainting": {"shape": 1}}}, "the task 'inpainting' .* does not accept"),
        ({"task_options": {"inpainting": {"area": 2}}}, "area must be"),
        ({"task_options": {"denoising": {}}}, "there are options for denoising"),
        ({"call_options": {"denoising": {}}}, "--call_options are for inpainting, not for denoising"),
        ({"call_options": {"inpainting": 0.5}}, "--call_options of inpainting must be a mapping, not 0.5"),
        (
            {"call_options": {"inpainting": {"strenght": 0.5}}},
            "--call_options must be among strength, .*, not strenght",
        ),
        ({"task_options": {"inpainting": 4}}, "--task_options of inpainting must be a mapping, not 4"),
        ({"tasks": ["translation"]}, "--conditioning_image_column, which names its inputs, need each other"),
        ({"conditioning_image_column": "edges"}, "need each other"),
        ({"noise_conditioning": "gamma"}, "gamma is for epsilon, sample and v_prediction, not for .* flow_prediction"),
        ({"prediction_type": "regression", "conditioning_dropout": 0.1}, "no noise levels and no guidance"),
        ({"guidance_scales": [2.0]}, "need a --conditioning_dropout above 0"),
        ({"conditioning_dropout": 1.0}, r"--conditioning_dropout must be in \[0, 1\)"),
        ({"class_conditional": True}, "--class_conditional needs labels"),
        ({"source_noise": 0.0}, "--source_noise must be above 0"),
        ({"loss_weighting": "min_snr", "loss_norm": "l1"}, "--loss_weighting min_snr is for squared errors"),
        ({"loss_weighting": "p2", "prediction_type": "regression"}, "--loss_weighting p2 is for squared errors"),
        ({"snr_gamma": -1.0}, "--snr_gamma must be at least 0"),
        ({"source_noise": 0.2, "prediction_type": "epsilon"}, "is only for --prediction_type flow_prediction"),
        (
            {"source_noise": 0.2, "conditioning_augmentation": 0.5, "tasks": ["super_resolution"]},
            "--source_noise and --conditioning_augmentation exclude each other",
        ),
        ({"load_size": [1, 2, 3]}, "--load_size takes one number, or height and width"),
        ({"load_size": [4]}, r"load_size must be at least the resolution, \(8, 8\), not \(4, 4\)"),
        ({"conditioning_augmentation": 0.5}, "--tasks must be super_resolution, .*, not inpainting"),
        ({"conditioning_augmentation": 1.0}, r"--conditioning_augmentation must be in \[0, 1\)"),
        ({"metrics": ["fid"]}, "--metrics fid needs --feature_extractor"),
        ({"metrics": ["psnr", "nonsense"]}, "--metrics must be among psnr, ssim"),
        ({"metrics": ["diversity"], "feature_extractor": "digits"}, "it needs --num_restorations 2 or more"),
        ({"resolution": [9]}, "--resolution must be a multiple of 2"),
        (
            {"tasks": ["translation"], "conditioning_image_column": "edges", "task_options": {"inpainting": {}}},
            "--tasks translation has no --task_options",
        ),
        ({"tasks": [f"{__name__}:too_bright"]}, r"too_bright must give images in \[-1, 1\]"),
        ({"pretrained_model_name_or_path": "somewhere"}, "--unet and --pretrained_model_name_or_path exclude"),
    ],
)
def test_what_cannot_work_is_refused_before_training(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        recipe(tmp_path, **options).networks()


@pytest.mark.parametrize("options", [{"resolution": [8, 8, 8], "tasks": ["inpainting"]}, {"resolution": [8]}])
def test_the_size_of_what_is_measured_is_for_restorations(options):
    with pytest.raises(ValueError, match="--resolution takes one number, or height and width, and is for --tasks"):
        evaluate_pipeline.EvaluateConfig(pretrained_model_name_or_path="x", feature_extractor="digits", **options)


@pytest.mark.parametrize("name", ["", "restored.md", "restored.png"])
def test_a_file_that_cannot_hold_the_measures_is_refused_before_measuring(tmp_path, name):
    options = {"pretrained_model_name_or_path": "somewhere", "tasks": ["inpainting"]}
    with pytest.raises(ValueError, match="--output_file must be a JSON file"):
        evaluate_pipeline.EvaluateConfig(**options, output_file=str(tmp_path / name))


def test_help_lists_the_tasks(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_config(PaletteConfig, ["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "jpeg_restoration: JPEG of low quality" in text and "translation: paired images" in text


@pytest.mark.parametrize(
    "tasks", [["inpainting"], ["uncropping"], ["colorization"], ["super_resolution"], ["deblurring", "denoising"]]
)
def test_an_update_waits_for_no_device(tmp_path, tasks):
    assert not waits_of_an_update(trainer(PaletteRecipe, configuration(tmp_path, tasks=tasks, channels=3)))


def test_compressing_images_needs_them_on_the_cpu(tmp_path):
    waits = waits_of_an_update(trainer(PaletteRecipe, configuration(tmp_path, tasks=["jpeg_restoration"])))
    assert waits and all(place.startswith("jpeg.py") for place in waits)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"strength": 3}, "strength"), ({"tile_size": 1}, "tile_size"), ({"eta": "x"}, "eta")],
)
def test_wrong_call_options_are_refused_before_the_training(tmp_path, options, reason):
    with pytest.raises(ValueError, match=f"--call_options of inpainting, .*{reason}"):
        trainer(PaletteRecipe, configuration(tmp_path, call_options={"inpainting": options}))
