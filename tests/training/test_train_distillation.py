import json

import pytest
import torch
from diffusers import (
    ClassifierFreeGuidance,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    UniPCMultistepScheduler,
)
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from diffusers_ext import ClassConditionalPipeline, GANPipeline, PalettePipeline, TextToImagePixelPipeline
from diffusers_ext.losses import pseudo_huber_loss
from diffusers_ext.models import MLPGenerator
from diffusers_ext.training.evaluation.pipeline_classes import find_pipeline_class
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_diffusion import DiffusionConfig
from diffusers_ext.training.train_distillation import DistillationConfig, distillation_recipe
from tests.pipelines.tiny_text import tiny_text_encoder, tiny_text_unet, tiny_tokenizer
from tests.tiny_unet import tiny_unet
from tests.training.runs import context, tensors, trainer, weights
from tests.waits import waits_of_an_update


NAMES = "zero one two three four five six seven eight nine".split()
ID2LABEL = dict(enumerate(NAMES))


def scheduler(kind="flow_prediction"):
    return (
        DiffusionConfig(dataset_name="digits", resolution=[8], prediction_type=kind).objective().sampling_scheduler()
    )


def save_teacher(folder, kind="flow_prediction", classes=True, seed=0, **config):
    """A diffusion model of digits with random weights."""
    labels = {"id2label": ID2LABEL, "null_class_label": 10} if classes else {}
    unet = tiny_unet(seed, in_channels=1, out_channels=1, num_class_embeds=11 if classes else None)
    ClassConditionalPipeline(unet, scheduler(kind), **labels | config).save_pretrained(folder)
    return folder


def save_restorer(folder, kind="flow_prediction", guider=False, **config):
    """A Palette model of digits with random weights."""
    unet = tiny_unet(in_channels=2 + (config.get("conditioning_augmentation", 0) > 0), out_channels=1)
    config = {"tasks": ["inpainting", "super_resolution"], "default_scale_factor": 2.0, "image_channels": 1, **config}
    guider = ClassifierFreeGuidance(guidance_scale=1.0) if guider else None
    PalettePipeline(unet, scheduler(kind), guider, **config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def restorer(tmp_path_factory):
    return save_restorer(tmp_path_factory.mktemp("restorer"), guider=True)


def configuration(teacher, output_dir="unused", **options) -> DistillationConfig:
    config = {
        "pretrained_teacher_model": str(teacher),
        "dataset_name": "digits",
        "max_train_steps": 3,
        "train_batch_size": 8,
        "lr_warmup_steps": 0,
        "output_dir": str(output_dir),
    }
    return DistillationConfig(**{**config, **options})


def recipe(teacher, output_dir="unused", **options):
    return distillation_recipe(configuration(teacher, output_dir, **options), context())


def distilled(teacher, folder, **options):
    """A short run, and its pipeline as it is published."""
    assert trainer(distillation_recipe, configuration(teacher, folder, **options)).train()
    pipe = find_pipeline_class(str(folder), None).from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def losses_of_a_step(recipe, batch):
    """What a step minimises."""
    found = []
    recipe.unet = recipe.networks()["unet"].eval()
    recipe.minimise = lambda name, losses: found.append(losses.detach())
    recipe.step(batch, Draw(0, torch.device("cpu")).begin(0, range(len(batch["pixel_values"]))))
    return found[0]


# What comes out


@pytest.mark.parametrize(
    ("kind", "num_steps", "sampler", "predicts"),
    [
        ("flow_prediction", 1, DPMSolverMultistepScheduler, "flow_prediction"),
        pytest.param("v_prediction", 2, DDIMScheduler, "v_prediction", marks=pytest.mark.slow),
        pytest.param("epsilon", 4, DDIMScheduler, "v_prediction", marks=pytest.mark.slow),
        pytest.param("edm", 2, EDMEulerScheduler, "epsilon", marks=pytest.mark.slow),
    ],
)
def test_the_student_is_a_pipeline_of_few_steps(tmp_path, kind, num_steps, sampler, predicts):
    teacher = save_teacher(tmp_path / "teacher", kind)
    options = {"num_inference_steps": num_steps, "feature_extractor": "digits", "num_evaluation_samples": 20}
    pipe = distilled(teacher, tmp_path / "student", **options)
    assert isinstance(pipe.scheduler, sampler) and pipe.scheduler.config.get("prediction_type") == predicts
    assert pipe.config.default_num_inference_steps == num_steps
    assert pipe.config.id2label == ID2LABEL and pipe.config.null_class_label is None and pipe.guider is None
    assert not torch.equal(
        weights(pipe.unet), weights(tiny_unet(0, in_channels=1, out_channels=1, num_class_embeds=11))
    )

    images = pipe(["two", 3], output_type="pt").images
    assert images.shape == (2, 1, 8, 8) and images.isfinite().all() and pipe.num_timesteps == num_steps
    (row,) = json.loads((tmp_path / "student" / "metrics.json").read_text())["evaluations"]
    assert row["provenance"]["num_inference_steps"] == num_steps and 0 <= row["accuracy"] <= 1
    card = (tmp_path / "student" / "README.md").read_text()
    assert "multistep consistency distillation" in card and "distillation" in card


def test_an_unconditional_teacher_has_an_unconditional_student(tmp_path):
    pipe = distilled(save_teacher(tmp_path / "teacher", classes=False), tmp_path / "student")
    assert pipe(batch_size=3, output_type="pt").images.shape == (3, 1, 8, 8)


def test_the_student_of_a_restorer_restores(tmp_path, restorer):
    options = {"tasks": ["inpainting", "super_resolution"], "num_inference_steps": 2, "metrics": ["psnr"]}
    pipe = distilled(restorer, tmp_path, **options, num_evaluation_samples=4)
    assert pipe.guider is None and pipe.config.default_scale_factor == 2.0
    assert list(pipe.config.tasks) == ["inpainting", "super_resolution"]
    image = torch.rand(1, 1, 8, 8)
    filled = pipe(image, mask_image=(2, 2, 5, 5), output_type="pt").images
    assert torch.equal(filled[..., :2], image[..., :2]) and pipe.num_timesteps == 2
    assert pipe(image[..., :4, :4], task="super_resolution", output_type="pt").images.shape == image.shape
    rows = json.loads((tmp_path / "metrics.json").read_text())["evaluations"]
    assert {row["task"] for row in rows} == {"inpainting", "super_resolution"}


@pytest.mark.parametrize("options", [{"noise_conditioning": "gamma"}, {"conditioning_augmentation": 0.3}])
def test_what_a_restorer_was_trained_for_stays(tmp_path, options):
    kind = "v_prediction" if "noise_conditioning" in options else "flow_prediction"
    teacher = save_restorer(tmp_path / "teacher", kind, **options)
    pipe = distilled(teacher, tmp_path / "student", tasks=["super_resolution"])
    assert pipe.config.items() >= options.items()
    assert pipe(torch.rand(1, 1, 4, 4), task="super_resolution", output_type="pt").images.isfinite().all()


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """Plain pictures with captions."""
    folder = tmp_path_factory.mktemp("captioned")
    for index, name in enumerate(("red", "blue")):
        Image.new("RGB", (8, 8), name).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(name)
    return {"dataset_name": None, "train_data_dir": str(folder), "train_batch_size": 2}


def save_reader(folder, **changes):
    """A text-to-image model with random weights."""
    tokenizer = tiny_tokenizer()
    parts = {"text_encoder": tiny_text_encoder(len(tokenizer)), "tokenizer": tokenizer, "image_channels": 3}
    TextToImagePixelPipeline(tiny_text_unet(**changes), scheduler(), **parts).save_pretrained(folder)
    return folder


def test_the_student_of_a_text_model_reads_the_same_texts(tmp_path, captioned):
    """Guidance leads it away from the empty text."""
    teacher = save_reader(tmp_path / "teacher")
    pipe = distilled(teacher, tmp_path / "student", **captioned, guidance_scale=2.0, num_inference_steps=2)
    assert isinstance(pipe, TextToImagePixelPipeline) and pipe.config.default_num_inference_steps == 2
    assert pipe("red", output_type="pt").images.shape == (1, 3, 8, 8) and pipe.num_timesteps == 2
    assert "pipe('red', num_images_per_prompt=4)" in (tmp_path / "student" / "README.md").read_text()

    student, seen = recipe(teacher, **captioned, guidance_scale=2.0), []
    student.teacher.unet.register_forward_pre_hook(
        lambda module, inputs, told: seen.append(told["encoder_hidden_states"]), with_kwargs=True
    )
    losses_of_a_step(student, {"pixel_values": torch.zeros(2, 3, 8, 8), "caption_ids": torch.tensor([1, 0])})
    captions = [student.dataset.captions[index] for index in (1, 0)]
    given, empty = pipe.encode_prompts(captions, ["", ""])["encoder_hidden_states"]
    # The student is a copy of the teacher with its hooks, and predicts twice.
    torch.testing.assert_close(seen, [given, empty, given, given])


def test_a_text_model_that_enlarges_is_no_teacher(tmp_path, captioned):
    with pytest.raises(ValueError, match="enlarges or fills images, but a teacher of texts must be a base model"):
        recipe(save_reader(tmp_path, in_channels=6), **captioned)


# The step


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_target_is_a_teachers_step_and_the_students_jump(teacher, guidance_scale):
    """The same by the pipeline's own parts: its guider, and its scheduler's steps."""
    student = recipe(teacher, guidance_scale=guidance_scale, num_inference_steps=2, num_teacher_steps=4)
    clean, labels = torch.rand(6, 1, 8, 8) * 2 - 1, torch.tensor([0, 1, 2, 3, 4, 5])
    losses = losses_of_a_step(student, {"pixel_values": clean, "class_labels": labels})

    draw = Draw(0, torch.device("cpu")).begin(0, range(6))
    noise = draw.normal_like(clean)
    start, _, end = student.path.draw(draw)
    unet = ClassConditionalPipeline.from_pretrained(teacher).unet
    sigmas = torch.cat([step_scheduler(4).sigmas[:4], torch.zeros(1)])
    timesteps = step_scheduler(4).timesteps
    for row, (first, last) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        x = (1 - sigmas[first]) * clean[row : row + 1] + sigmas[first] * noise[row : row + 1]
        velocity = run(unet, x, timesteps[first], labels[row])
        unguided = run(unet, x, timesteps[first], torch.tensor(10))
        jumped = x + (sigmas[last] - sigmas[first]) * velocity
        x = x + (sigmas[first + 1] - sigmas[first]) * (unguided + guidance_scale * (velocity - unguided))
        if first + 1 < last:
            x = x + (sigmas[last] - sigmas[first + 1]) * run(unet, x, timesteps[first + 1], labels[row])
        torch.testing.assert_close(losses[row], pseudo_huber_loss(jumped, x)[0], rtol=1e-4, atol=1e-6)


def step_scheduler(count):
    sampler = DPMSolverMultistepScheduler.from_config(scheduler().config, solver_order=1)
    sampler.set_timesteps(count)
    return sampler


@torch.no_grad()
def run(unet, x, timestep, label):
    return unet(x, timestep, class_labels=label[None]).sample


def test_known_pixels_are_not_learned(restorer):
    """Whatever the teacher predicts there, they are clean before and after every step."""
    student = recipe(restorer, tasks=["inpainting"])
    batch = {"pixel_values": torch.rand(4, 1, 8, 8) * 2 - 1}
    seen = []
    student.teacher.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    losses_of_a_step(student, batch)
    draw = Draw(0, torch.device("cpu")).begin(0, range(4))
    known = student.tasks.mix(batch, draw).mask == 0
    assert known.any() and torch.equal(seen[0][:, 1:][known], batch["pixel_values"][known])


def test_only_the_student_changes(tmp_path, teacher):
    run = trainer(distillation_recipe, configuration(teacher, tmp_path))
    before = weights(run.recipe.teacher.unet)
    run.start()
    run.update()
    assert torch.equal(weights(run.recipe.teacher.unet), before)
    assert not torch.equal(weights(run.recipe.network("unet")), before)


@pytest.mark.slow
def test_a_student_comes_nearer_to_its_teacher(tmp_path):
    """The images of one step, against those of many steps of the teacher from the same noise."""
    teacher = save_teacher(tmp_path / "teacher")
    options = {"max_train_steps": 60, "train_batch_size": 32, "learning_rate": 2e-3, "ema_decay": 0.9}
    student = distilled(teacher, tmp_path / "student", num_teacher_steps=8, adam_weight_decay=0.0, **options)
    pipe = ClassConditionalPipeline.from_pretrained(teacher)
    pipe.set_progress_bar_config(disable=True)
    noise = randn_tensor((40, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    labels = [row % 10 for row in range(40)]
    truth = pipe(labels, latents=noise, num_inference_steps=20, output_type="pt").images

    def error(pipe):
        return (pipe(labels, latents=noise, num_inference_steps=1, output_type="pt").images - truth).square().mean()

    assert error(student) < 0.7 * error(pipe)


# A run


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, teacher):
    options = {"max_train_steps": 4, "checkpointing_steps": 2}
    assert trainer(distillation_recipe, configuration(teacher, tmp_path / "whole", **options)).train()
    resumed = configuration(teacher, tmp_path / "whole", **options, resume_from_checkpoint="checkpoint-2")
    whole = tensors(tmp_path / "whole", 4)
    assert trainer(distillation_recipe, resumed).train()
    assert all(torch.equal(tensor, whole[name]) for name, tensor in tensors(tmp_path / "whole", 4).items())


def test_a_run_goes_on_with_its_own_teacher_only(tmp_path, teacher):
    options = {"max_train_steps": 2, "checkpointing_steps": 1}
    assert trainer(distillation_recipe, configuration(teacher, tmp_path / "run", **options)).train()
    for changed in (
        {"pretrained_teacher_model": str(save_teacher(tmp_path / "other", seed=1))},
        {"guidance_scale": 2.0},
        {"num_inference_steps": 2},
    ):
        config = configuration(teacher, tmp_path / "run", **options, resume_from_checkpoint="latest", **changed)
        with pytest.raises(ValueError, match=next(iter(changed))):
            trainer(distillation_recipe, config).start()


def test_an_update_waits_for_nothing(tmp_path, teacher):
    run = trainer(distillation_recipe, configuration(teacher, tmp_path, guidance_scale=2.0))
    assert not waits_of_an_update(run)


# Options


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"pretrained_teacher_model": None}, "--pretrained_teacher_model is required"),
        ({"guidance_scale": 0.0}, "--guidance_scale must be above 0, not 0.0: 1 is no guidance"),
        ({"num_inference_steps": 0}, "--num_inference_steps must be at least 1"),
        ({"num_inference_steps": 3, "num_teacher_steps": 8}, "--num_teacher_steps must be a multiple of .* 3"),
        ({"num_inference_steps": 8, "num_teacher_steps": 8}, "--num_teacher_steps must be .* and more, not 8"),
    ],
)
def test_options_that_fit_no_teacher_are_refused(options, error):
    with pytest.raises(ValueError, match=error):
        configuration("teacher", **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"resolution": [16]}, "--resolution must be 8 8, as of the teacher's images, not 16"),
        ({"channels": 3}, "--channels must be 1, as of the teacher's images, not 3"),
        ({"tasks": ["inpainting"]}, "--tasks are for a PalettePipeline"),
        ({"label_column": "none"}, "have no classes, but --pretrained_teacher_model was trained with zero, one"),
        ({"num_inference_steps": 60}, "--num_inference_steps 60 must be below 50, the steps of"),
    ],
)
def test_options_that_do_not_fit_the_teacher_are_refused(teacher, options, error):
    with pytest.raises(ValueError, match=error):
        recipe(teacher, **options)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({}, "--tasks is required for a PalettePipeline"),
        ({"tasks": ["colorization"]}, "--tasks must be among inpainting, super_resolution, not colorization"),
        (
            {"tasks": ["super_resolution"], "task_options": {"super_resolution": {"factor": 4}}},
            "--task_options must have the factor 2 of .*, not 4",
        ),
    ],
)
def test_options_that_do_not_fit_a_restorer_are_refused(restorer, options, error):
    with pytest.raises(ValueError, match=error):
        recipe(restorer, **options)


def test_guidance_needs_a_teacher_that_knows_no_condition(tmp_path):
    teacher = save_teacher(tmp_path, null_class_label=None)
    with pytest.raises(ValueError, match="--guidance_scale 2.0 needs a teacher .* without --label_dropout"):
        recipe(teacher, guidance_scale=2.0)
    # A guider alone does not tell how the network predicts without a class.
    pipe = ClassConditionalPipeline.from_pretrained(teacher)
    pipe.guider = ClassifierFreeGuidance(guidance_scale=1.0)
    pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="--guidance_scale 2.0 needs a teacher"):
        recipe(tmp_path, guidance_scale=2.0)


def test_a_teacher_of_epsilon_must_clip(tmp_path):
    pipe = ClassConditionalPipeline.from_pretrained(save_teacher(tmp_path / "clipping", "epsilon"))
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config, thresholding=False)
    pipe.save_pretrained(tmp_path / "teacher")
    assert recipe(tmp_path / "clipping").clips
    with pytest.raises(ValueError, match="--pretrained_teacher_model .* can't be a teacher: it predicts epsilon"):
        recipe(tmp_path / "teacher")


def test_a_teacher_must_be_a_diffusion_pipeline(tmp_path):
    GANPipeline(MLPGenerator(sample_size=8, latent_dim=4)).save_pretrained(tmp_path / "gan")
    with pytest.raises(
        ValueError, match="must be one of ClassConditionalPipeline, PalettePipeline, .* is GANPipeline"
    ):
        recipe(tmp_path / "gan")
    (tmp_path / "file.safetensors").touch()
    with pytest.raises(ValueError, match="--pretrained_teacher_model .* is a single file"):
        recipe(tmp_path / "file.safetensors")
