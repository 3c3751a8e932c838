"""Train a student that makes images in one to four steps, as its teacher, a diffusion pipeline, does in many.

    accelerate launch training/train_distillation.py --config examples/digits_in_one_step.yaml

Multistep consistency distillation (Heek et al. 2024): the path from noise to an image, along which the teacher goes in
small steps, is divided into the steps of the student. From each point of a part, the student learns to jump to the end
of that part. With one step this is consistency distillation (Song et al. 2023); with two steps of the teacher in each
step of the student, it is a round of progressive distillation (Salimans and Ho 2022). The result is a pipeline of the
teacher's class, with the guidance of `--guidance_scale` inside its network.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import copy
import math
from dataclasses import dataclass, replace

import torch
from diffusers import DiffusionPipeline

from diffusers_ext.losses import pseudo_huber_loss
from diffusers_ext.pipelines import ClassConditionalPipeline, PalettePipeline, TextToImagePixelPipeline
from diffusers_ext.pipelines.checks import accepts
from diffusers_ext.pipelines.prompts import encode_tokens, get_max_length
from diffusers_ext.pipelines.schedules import get_noise_levels
from diffusers_ext.training.diffusion.denoiser_classes import keep_labels
from diffusers_ext.training.diffusion.few_steps import TeacherPath, few_step_scheduler
from diffusers_ext.training.diffusion.latents import EncodingConfig, Latents
from diffusers_ext.training.diffusion.objectives import hides_images_in_noise, prediction_type, process
from diffusers_ext.training.evaluation.grids import class_grid, sample_grid
from diffusers_ext.training.evaluation.pipeline_classes import find_pipeline_class
from diffusers_ext.training.evaluation.samples import SampleEvaluator
from diffusers_ext.training.loop.configuration import LRScheduler, ValidationConfig, option
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.loop.weights import weights_fingerprint
from diffusers_ext.training.restoration.evaluation import RestorationEvaluator
from diffusers_ext.training.restoration.palette_inputs import PaletteInputs, enlargement, usage
from diffusers_ext.training.restoration.tasks import RestorationConfig, Tasks
from diffusers_ext.training.text_and_image.caption_tokenizer import tokenize


# What pipelines have beside the denoiser and the scheduler, and students have from their teachers
OTHERS = ("vae", "class_embedder", "conditioner", "text_encoder", "tokenizer")
GRID_ROWS, GRID_COLUMNS = 6, 4  # captions and their images in the picture of samples


@dataclass
class Condition:
    """What a network is given beside the noisy image.

    Attributes:
        class_labels (`torch.Tensor` of shape (N,), *optional*): the class of each image.
        image (`torch.Tensor` of shape (N, C, H, W), *optional*): the conditioning image of a [`PalettePipeline`].
        texts (`dict`, *optional*): what the network is told of the texts of a [`TextToImagePixelPipeline`].
    """

    class_labels: torch.Tensor | None = None
    image: torch.Tensor | None = None
    texts: dict[str, torch.Tensor] | None = None


class DistillationRecipe(Recipe):
    """Heek et al. 2024, algorithm 1, with DDIM steps of a teacher."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The student, which begins as a copy of the teacher."""
        return keep_labels({"unet": copy.deepcopy(self.teacher.unet).requires_grad_(True).train()})

    def step(self, batch, draw):
        clean = self.latents.encode(batch["pixel_values"], draw)
        condition, noise, mask = self.inputs(batch, draw)
        start, middle, end = self.path.draw(draw)
        noisy = self.path.add_noise(clean, noise, start)
        if mask is not None:  # known pixels stay clean, as in the pipeline
            noisy = torch.where(mask > 0, noisy, clean)

        with torch.no_grad():
            # A small step of the teacher, and from there a jump of the student, which is nearer to the end.
            nearer = self.path.jump(noisy, self.teachers_estimate(noisy, start, condition), start, middle)
            if mask is not None:
                nearer = torch.where(mask > 0, nearer, clean)
            target = self.path.jump(nearer, self.estimate(nearer, middle, condition), middle, end)
        output = self.path.jump(noisy, self.estimate(noisy, start, condition), start, end)

        if mask is not None:
            output, target = torch.where(mask > 0, output, clean), torch.where(mask > 0, target, clean)
        self.minimise("unet", pseudo_huber_loss(output, target))

    def estimate(self, noisy: torch.Tensor, position: torch.Tensor, condition: Condition) -> torch.Tensor:
        """The clean image, (N, C, H, W), in whose direction the student jumps."""
        prediction = self.predict(self.unet, noisy, position, condition)
        return self.path.pred_original_sample(self.prediction_type, prediction, noisy, position)

    def teachers_estimate(self, noisy: torch.Tensor, position: torch.Tensor, condition: Condition) -> torch.Tensor:
        """The clean image, (N, C, H, W), that the guided teacher predicts."""
        unet, scale = self.teacher.unet, self.config.guidance_scale
        with self.context.autocast():
            prediction = self.predict(unet, noisy, position, condition)
            if scale != 1:  # Ho and Salimans 2022, eq. 6, with another meaning of the scale: 1 is no guidance
                unconditional = self.predict(unet, noisy, position, self.unconditional(condition))
                prediction = unconditional + scale * (prediction - unconditional)
        kind = prediction_type(self.teacher.scheduler)
        estimate = self.path.pred_original_sample(kind, prediction, noisy, position)
        return estimate.clamp(-1, 1) if self.clips else estimate

    def predict(
        self, unet: torch.nn.Module, noisy: torch.Tensor, position: torch.Tensor, condition: Condition
    ) -> torch.Tensor:
        """The output of a network, the teacher's or the student's."""
        sample = noisy if condition.image is None else torch.cat([condition.image, noisy], dim=1)
        embedder, told = getattr(self.teacher, "class_embedder", None), condition.texts
        if embedder is not None:
            told = {"encoder_hidden_states": embedder(condition.class_labels)}
        elif told is None:
            told = {"class_labels": condition.class_labels}
        return unet(sample, self.noise_levels[position], **told).sample

    def inputs(self, batch, draw) -> tuple[Condition, torch.Tensor, torch.Tensor | None]:
        """The condition, the noise that the path starts from, and a mask of the pixels that are made, if any."""
        raise NotImplementedError

    def unconditional(self, condition: Condition) -> Condition:
        """What the teacher is given where it predicts without the condition."""
        null_label = self.teacher.config.null_class_label
        labels = condition.class_labels
        if labels is not None and null_label is not None:
            labels = torch.full_like(labels, null_label)
        return Condition(labels, None if condition.image is None else torch.zeros_like(condition.image))

    def pipeline(self, unet: torch.nn.Module) -> DiffusionPipeline:
        """A pipeline as the teacher's, with DDIM, and without a guider: the network has learned its predictions."""
        others = {name: getattr(self.teacher, name) for name in OTHERS if name in self.teacher.components}
        entries = {name: value for name, value in self.teacher.config.items() if not name.startswith("_")}
        entries = {name: value for name, value in entries.items() if name not in self.teacher.components}
        entries |= {"default_num_inference_steps": self.config.num_inference_steps, "trained_processes": None}
        if "null_class_label" in entries:
            entries["null_class_label"] = None
        return type(self.teacher)(unet=unet, scheduler=self.scheduler, **others, **entries)

    # What stands around the algorithm

    def __init__(self, config: DistillationConfig, context, teacher: DiffusionPipeline):
        super().__init__(config, context)
        self.teacher = teacher.to(context.device)
        for network in ("unet", *OTHERS):
            if isinstance(getattr(teacher, network, None), torch.nn.Module):
                getattr(teacher, network).requires_grad_(False).eval()
        self.latents = Latents(getattr(teacher, "vae", None), config.size, config.channels, context)
        self.scheduler = few_step_scheduler(teacher.scheduler, config.num_inference_steps)
        self.prediction_type = prediction_type(self.scheduler)
        self.path = TeacherPath(
            teacher.scheduler, config.num_inference_steps, config.num_teacher_steps, context.device
        )
        conditioning = teacher.config.get("noise_conditioning", "timestep")
        self.noise_levels = get_noise_levels(self.scheduler, self.path.timesteps, conditioning)
        # A configuration keeps the options of other classes, so the signature decides.
        options = [name for name in ("thresholding", "clip_sample") if accepts(type(teacher.scheduler).__init__, name)]
        self.clips = any(teacher.scheduler.config[name] for name in options)
        is_noise = prediction_type(teacher.scheduler) == "epsilon"
        if is_noise and not self.clips and hides_images_in_noise(teacher.scheduler):
            name = config.pretrained_teacher_model
            raise ValueError(
                f"--pretrained_teacher_model {name} can't be a teacher: it predicts epsilon, from which an image "
                "can't be computed in pure noise, and what it makes is not clipped."
            )

    def before_training(self):
        super().before_training()
        self.latents.prepare(self.config)

    def identity(self) -> dict:
        config, parts = self.config, self.teacher.components.values()
        networks = [part for part in parts if isinstance(part, torch.nn.Module)]
        options = ("num_inference_steps", "num_teacher_steps", "guidance_scale")
        return {
            "pretrained_teacher_model": weights_fingerprint(*networks),
            **process(self.teacher.scheduler),
            **{name: getattr(config, name) for name in options},
        }

    def describe(self) -> dict:
        config = self.config
        scale, steps = config.guidance_scale, config.num_inference_steps
        guidance = "without guidance" if scale == 1 else f"with guidance of scale {scale}, which is in its network"
        teacher, many = type(self.teacher).__name__, self.teacher.config.default_num_inference_steps
        return {
            "task": f"Images in {steps} step{'s' if steps > 1 else ''}: a student of a {teacher} of "
            f"{self.latents.kind} that takes {many} steps, {guidance}; by multistep consistency distillation (Heek et "
            "al. 2024).",
            "base_model": config.pretrained_teacher_model,
            "tags": ["distillation", "diffusion"],
        }


class ClassConditionalDistillation(DistillationRecipe):
    """The student of a [`ClassConditionalPipeline`]."""

    def inputs(self, batch, draw):
        labels = None if self.id2label is None else batch["class_labels"]
        return Condition(labels), draw.normal(*self.latents.shape), None

    def __init__(self, config, context, teacher):
        super().__init__(config, context, teacher)
        self.id2label = teacher.config.id2label
        check_classes(self.dataset.id2label, self.id2label)
        self.evaluator = SampleEvaluator(
            self.dataset, split=config.dataset_split, device=context.device, **config.measured()
        )

    def sample_grid(self, generate):
        return class_grid(generate, self.id2label)

    def evaluate(self, generate):
        return self.evaluator(generate, self.config.num_inference_steps, [1.0])

    def describe(self):
        call = "batch_size=4"
        if self.id2label is not None:
            call = f"class_labels={list(self.id2label.values())[:2]}, num_images_per_label=4"
        return {**super().describe(), "usage": f"images = pipe({call}).images"}


class PaletteDistillation(DistillationRecipe):
    """The student of a [`PalettePipeline`]."""

    def inputs(self, batch, draw):
        corruption = self.tasks.mix(batch, draw)
        labels = None if self.id2label is None else batch["class_labels"]
        condition = Condition(labels, self.shown.show(corruption, draw, self.teacher.conditioner))
        return condition, self.shown.draw_noise(corruption, draw), self.shown.made(corruption)

    def __init__(self, config, context, teacher):
        super().__init__(config, context, teacher)
        trained = teacher.config
        self.id2label = trained.id2label
        check_classes(self.dataset.id2label, self.id2label)
        self.tasks = Tasks(config.tasks, config.task_options, config.size, config.channels)
        self.shown = PaletteInputs(
            self.latents,
            encoding=trained.conditioning_encoding,
            has_mask=teacher._mask_channels > 0,
            fill=trained.conditioning_fill,
            augmentation=trained.conditioning_augmentation,
            source_noise=trained.source_noise,
            scale_factor=enlargement(config.task_options),
            num_labels=teacher.conditioner and teacher.conditioner.config.in_channels,
        )
        self.evaluator = RestorationEvaluator(
            self.tasks,
            config.load_validation_dataset(self.dataset, same_classes=self.id2label is not None),
            context,
            split=config.validation_split or config.dataset_split,
            seed=config.seed,
            **config.restored(),
        )

    def identity(self):
        config = self.config
        return {**super().identity(), "tasks": config.tasks, "task_options": dict(config.task_options)}

    def before_training(self):
        self.evaluator.try_call_options(self.pipeline(unet=self.network("unet").eval()))
        self.network("unet").train()
        super().before_training()

    def sample_grid(self, generate):
        return self.evaluator.panel(generate)

    def evaluate(self, generate):
        if self.config.metrics is None and self.config.feature_extractor is None:
            return []
        return self.evaluator(generate, self.config.num_inference_steps, [1.0])

    def describe(self):
        return {
            **super().describe(),
            "usage": "\n".join(map(usage, self.config.tasks)),
            "pipeline_tag": "image-to-image",
        }


class TextDistillation(DistillationRecipe):
    """The student of a [`TextToImagePixelPipeline`] that is a base model."""

    def inputs(self, batch, draw):
        captions = [self.dataset.captions[index] for index in batch["caption_ids"].tolist()]
        return Condition(texts=self.texts(captions)), draw.normal(*self.latents.shape), None

    @torch.no_grad()
    def texts(self, captions: list[str]) -> dict[str, torch.Tensor]:
        """What a network is told of these captions."""
        teacher, device = self.teacher, self.context.device
        length = get_max_length(teacher.tokenizer, teacher.text_encoder, teacher.config.max_prompt_length)
        ids, mask = tokenize(teacher.tokenizer, captions, length)
        return encode_tokens(teacher.text_encoder, teacher.unet, captions, ids.to(device), mask.to(device))

    def unconditional(self, condition):
        count = len(condition.texts["encoder_hidden_states"])
        return Condition(texts=self.texts([""] * count))

    def load_dataset(self):
        config = self.config
        options = {"load_size": config.load_size, "caption_column": config.caption_column}
        return config.load_dataset(config.size, config.channels, config.center_crop, config.random_flip, **options)

    def __init__(self, config, context, teacher):
        super().__init__(config, context, teacher)
        self.evaluator = SampleEvaluator(
            self.dataset, split=config.dataset_split, device=context.device, **config.measured()
        )

    def prompts(self, count: int) -> list[str]:
        """The first captions, again from the start where these are fewer."""
        return [self.dataset.captions[index % len(self.dataset.captions)] for index in range(count)]

    def sample_grid(self, generate):
        prompts = self.prompts(GRID_ROWS)
        repeated = [prompt for prompt in prompts for _ in range(GRID_COLUMNS)]
        images = generate.images(len(repeated), per_image={"prompt": repeated})
        return sample_grid(images, GRID_COLUMNS, row_titles=prompts)

    def evaluate(self, generate):
        if self.evaluator.extractor is None:
            return []
        prompts = self.prompts(self.config.num_evaluation_samples)
        return [self.evaluator.measure(generate, per_image={"prompt": prompts})]

    def describe(self):
        usage = f"images = pipe({self.dataset.captions[0]!r}, num_images_per_prompt=4).images"
        return {**super().describe(), "usage": usage, "pipeline_tag": "text-to-image"}


def check_classes(found: dict[int, str] | None, taught: dict[int, str] | None) -> None:
    """Refuse images whose classes differ from the teacher's.

    Raises:
        ValueError: in one sentence.
    """
    if taught is not None and found != taught:
        names = "no classes" if found is None else f"the classes {', '.join(found.values())}"
        raise ValueError(
            f"The images have {names}, but --pretrained_teacher_model was trained with {', '.join(taught.values())}: "
            "--label_column names the column of the classes."
        )


@dataclass
class DistillationConfig(RestorationConfig, EncodingConfig, ValidationConfig):
    """The options of train_distillation.py."""

    pretrained_teacher_model: str | None = option(
        help="The pipeline to learn from: a folder or a Hub name of a ClassConditionalPipeline, PalettePipeline or "
        "TextToImagePixelPipeline.",
        group="network",
        essential=True,
    )
    caption_column: str = option(
        "text",
        help="For a TextToImagePixelPipeline: the column with one caption or several for each image.",
        group="data",
    )
    num_inference_steps: int = option(1, help="Steps of the student.", group="evaluation")
    num_teacher_steps: int | None = option(
        help="Steps in which the teacher would go from noise to an image, a multiple of --num_inference_steps; by "
        "default at least 16, and two for each step of the student."
    )
    guidance_scale: float = option(
        1.0, help="The classifier-free guidance of the teacher, which the student learns; 1 is none."
    )

    resolution: list[int] | None = option(help="Image size in pixels, which must be the teacher's.")
    channels: int | None = option(help="Channels of the images, which must be the teacher's.")
    lr_scheduler: LRScheduler = option("cosine", help="How the learning rate changes after a linear warm-up.")
    lr_warmup_steps: int | None = option(
        help="Updates until the learning rate is reached; by default a twentieth of the training, at most 500."
    )

    def __post_init__(self):
        super().__post_init__()
        self.require(self.pretrained_teacher_model is not None, "--pretrained_teacher_model is required")
        self.require_at_least(1, "num_inference_steps")
        scale = self.guidance_scale
        self.require(scale > 0, f"--guidance_scale must be above 0, not {scale}: 1 is no guidance")
        if self.num_teacher_steps is None:
            self.num_teacher_steps = max(2, math.ceil(16 / self.num_inference_steps)) * self.num_inference_steps
        steps, small_steps = self.num_inference_steps, self.num_teacher_steps
        self.require(
            small_steps % steps == 0 and small_steps > steps,
            f"--num_teacher_steps must be a multiple of --num_inference_steps {steps}, and more, not {small_steps}",
        )


def distillation_recipe(config: DistillationConfig, context) -> DistillationRecipe:
    """The recipe that fits the teacher's class; the size and channels of the images are the teacher's."""
    name, option = config.pretrained_teacher_model, "--pretrained_teacher_model"
    pipeline_class = find_pipeline_class(name, config.cache_dir, option)
    if pipeline_class not in RECIPES:
        known = ", ".join(known.__name__ for known in RECIPES)
        raise ValueError(f"{option} must be one of {known}, but the class of {name} is {pipeline_class.__name__}.")
    if pipeline_class is PalettePipeline and not config.tasks:
        raise ValueError(f"--tasks is required for a PalettePipeline, as {name} is: one or several of those it makes.")
    if pipeline_class is not PalettePipeline and config.tasks:
        raise ValueError(f"--tasks are for a PalettePipeline, but the class of {name} is {pipeline_class.__name__}.")
    teacher = pipeline_class.from_pretrained(name, cache_dir=config.cache_dir)
    check_teacher(teacher, config)
    return RECIPES[pipeline_class](with_shape(config, teacher), context, teacher)


RECIPES = {
    ClassConditionalPipeline: ClassConditionalDistillation,
    PalettePipeline: PaletteDistillation,
    TextToImagePixelPipeline: TextDistillation,
}


def check_teacher(teacher: DiffusionPipeline, config: DistillationConfig) -> None:
    """Refuse options that are not for this teacher.

    Raises:
        ValueError: in one sentence that names the option.
    """
    entries, steps = teacher.config, config.num_inference_steps
    if entries.default_num_inference_steps <= steps:
        raise ValueError(
            f"--num_inference_steps {steps} must be below {entries.default_num_inference_steps}, the steps of "
            f"{config.pretrained_teacher_model}."
        )
    reads_texts = isinstance(teacher, TextToImagePixelPipeline)
    if reads_texts and (teacher.is_super_resolver or entries.shows_known_pixels):
        raise ValueError(
            f"--pretrained_teacher_model {config.pretrained_teacher_model} enlarges or fills images, but a teacher of "
            "texts must be a base model."
        )
    # A Palette model with a guider was trained with hidden conditioning images.
    hides_images = isinstance(teacher, PalettePipeline) and teacher.guider is not None
    is_guided = reads_texts or entries.null_class_label is not None or hides_images
    if config.guidance_scale != 1 and not is_guided:
        raise ValueError(
            f"--guidance_scale {config.guidance_scale} needs a teacher that predicts without its condition too, but "
            f"{config.pretrained_teacher_model} was trained without --label_dropout or --conditioning_dropout."
        )
    unknown = set(config.tasks or ()) - set(entries.get("tasks") or ())
    if unknown:
        raise ValueError(f"--tasks must be among {', '.join(entries.tasks)}, not {', '.join(sorted(unknown))}.")


def with_shape(config: DistillationConfig, teacher: DiffusionPipeline) -> DistillationConfig:
    """The options with the resolution, the channels and the enlargement of the teacher.

    Raises:
        ValueError: if other ones were given.
    """
    channels, *size = teacher.image_shape
    config = replace(config, resolution=config.resolution or size, channels=config.channels or channels)
    if config.channels != channels:
        raise ValueError(f"--channels must be {channels}, as of the teacher's images, not {config.channels}.")
    if list(config.size) != size:
        given = " ".join(map(str, config.resolution))
        raise ValueError(f"--resolution must be {size[0]} {size[1]}, as of the teacher's images, not {given}.")
    factor = teacher.config.get("default_scale_factor")
    if factor is not None and any("super_resolution" in task.split("+") for task in config.tasks):
        options = {"factor": factor} | config.task_options.get("super_resolution", {})
        config = replace(
            config, task_options=type(config.task_options)({**config.task_options, "super_resolution": options})
        )
        if enlargement(config.task_options) != factor:
            raise ValueError(
                f"--task_options must have the factor {factor:g} of {config.pretrained_teacher_model}, not "
                f"{options['factor']}."
            )
    return config


if __name__ == "__main__":
    run(distillation_recipe, DistillationConfig)
