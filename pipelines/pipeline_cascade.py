"""Images from a cascade: a diffusion model of small images, and others that each make them larger."""

import inspect
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import (
    BaseGuidance,
    ClassifierFreeGuidance,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    ModelMixin,
    SASolverScheduler,
    SchedulerMixin,
    UNet2DModel,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor, unwrap_module
from torch.nn import functional as F


SUFFIXES = ("", "_2", "_3", "_4", "_5")
STAGE_OPTIONS = {
    "default_num_inference_steps": 50,
    "null_class_label": None,
    "noise_conditioning": "timestep",
    "conditioning_augmentation": 0.0,
    "conditioning_noise_level": None,
}
NOISE_CONDITIONINGS = ("timestep", "gamma", "sqrt_gamma")


def accepts(function: Callable, argument: str) -> bool:
    return argument in inspect.signature(function).parameters


def is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def check_positive_int(name: str, value: Any):
    if not is_integer(value) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, but is {value!r}.")


# Copied from diffusers_ext.pipelines.pipeline_class_conditional.quiet_guiders
@contextmanager
def quiet_guiders() -> Iterator[None]:
    """Every guider built warns that guiders are experimental; who passed a mere number did not choose one."""
    logger = logging.getLogger("diffusers.guiders.guider_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def signal_and_noise(scheduler: SchedulerMixin, timestep: torch.Tensor) -> tuple[float, float]:
    """`alpha` and `sigma` of latents `alpha * image + sigma * noise` at a timestep, as the scheduler would add it."""
    one, zero = torch.ones(1, 1, 1, 1, device=timestep.device), torch.zeros(1, 1, 1, 1, device=timestep.device)
    timesteps = timestep.reshape(1)
    if hasattr(scheduler, "scale_noise"):  # flow matching
        alpha, sigma = scheduler.scale_noise(one, timesteps, zero), scheduler.scale_noise(zero, timesteps, one)
    else:
        alpha, sigma = scheduler.add_noise(one, zero, timesteps), scheduler.add_noise(zero, one, timesteps)
    return alpha.item(), sigma.item()


def enlarge(images: torch.Tensor, size: tuple[int, int], are_images: bool) -> torch.Tensor:
    """
    `(N, C, h, w)` to `(N, C, *size)`, by Pillow's bicubic filter (a = -0.5).

    Of images in `[-1, 1]` it is to the bit what Pillow makes of them, as in the training of super-resolvers: one axis
    after the other, in bytes, halves rounded up. Noise is not rounded.
    """
    if not are_images:
        return F.interpolate(images, size, mode="bicubic", antialias=True)
    levels = ((images / 2 + 0.5).clamp(0, 1) * 255).round()
    for step in ((images.shape[2], size[1]), size):
        levels = (F.interpolate(levels, step, mode="bicubic", antialias=True) + 0.5).floor().clamp(0, 255)
    return levels / 255 * 2 - 1


@dataclass
class Stage:
    """One model of a cascade, with what its components and options are in the pipeline's `__init__`."""

    suffix: str  # of their names: "" of the base model
    unet: ModelMixin
    scheduler: SchedulerMixin
    guider: BaseGuidance | None
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return f"unet{self.suffix}"

    @property
    def size(self) -> tuple[int, int]:
        return image_size(self.unet)

    @property
    def takes_classes(self) -> bool:
        return any(self.unet.config.get(key) is not None for key in ("num_class_embeds", "class_embed_type"))

    @property
    def null_class_label(self) -> int | None:
        return self.options["null_class_label"]


@dataclass
class CascadePipelineOutput(BaseOutput):
    """
    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            The images of the last stage.
        stage_images (`list`, *optional*):
            If asked for, the images of every stage, the last one's at the end. With truncated conditioning, those of
            all but the last are the noisy ones that the next stage was given, clipped to the range of images.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    stage_images: list | None = None


class CascadePipeline(DiffusionPipeline):
    r"""
    Generates images by a cascade of diffusion models (CDM: Ho et al. 2022, https://huggingface.co/papers/2106.15282).

    The first stage makes small images of class labels or of nothing but noise. Each other one, a super-resolver, makes
    them larger, with the class too if it knows classes. So that a super-resolver forgives the flaws of generated
    images, it is trained with *conditioning augmentation*: Gaussian noise in the small images, of whose level `s` it
    is told. A small image `z` then becomes `sqrt(1 - s**2) * z + s * noise` before it is enlarged (section 4.2). The
    noise comes on top of the finished image, or, with *truncated* conditioning, is what is left of the noise that the
    stage before starts from: this stops once its own level has fallen to `s` or below, and what it then lacks is
    added.

    [`~CascadePipeline.from_pipelines`] makes a cascade of a [`ClassConditionalPipeline`], or any other unconditional
    one, and of [`PalettePipeline`]s that were trained for super-resolution.

    Args:
        unet ([`UNet2DModel`]):
            The denoiser of the base model, or any model with the same call: `unet(sample, timesteps,
            class_labels=..., return_dict=False)` with `sample` `(N, C, H, W)` returns a tuple whose first entry is
            `(N, C, H, W)`, or `(N, 2C, H, W)` where the network predicts the variance too. Images are in `[-1, 1]`
            and as large as the `sample_size` of its configuration.
        scheduler ([`SchedulerMixin`]):
            The noise schedule and the solver of the base model.
        unet_2, unet_3, unet_4, unet_5 ([`UNet2DModel`], all but the first *optional*):
            The denoisers of the super-resolvers. Their `sample` is the enlarged image `(N, C, H, W)`, then, where the
            network is told the level `s`, a channel that is `s` everywhere, and then the noisy image `(N, C, H, W)`. A
            network with `low_res_channels` in its configuration, as the upsamplers of ADM (Dhariwal & Nichol 2021),
            is given the image as `low_res` instead, and it is enlarged by bilinear interpolation.
        scheduler_2, scheduler_3, scheduler_4, scheduler_5 ([`SchedulerMixin`], all but the first *optional*):
            Those of the super-resolvers.
        guider, guider_2, guider_3, guider_4, guider_5 ([`BaseGuidance`], *optional*):
            How the conditional and the unconditional predictions of a stage are combined. The unconditional one is
            that without class in the base model, and for a conditioning image of zeros, with the same class, in a
            super-resolver. Without one, a `guidance_scale` given in the call means plain classifier-free guidance.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.
        stages (`dict[str, dict]`, *optional*):
            Options by the name of the stage's network, as in `{"unet_2": {"conditioning_augmentation": 0.4}}`:
            `default_num_inference_steps` (50); `null_class_label`, the label that stands for "no class" (none);
            and of super-resolvers `noise_conditioning`, which is what the network is told of the noise of its own
            process (`"timestep"`, `"gamma"` or `"sqrt_gamma"`, as in [`PalettePipeline`]);
            `conditioning_augmentation`, the highest level `s` that it was trained for (0, which is none); and
            `conditioning_noise_level`, the level `s` of a call that does not say (half of the highest).

    Raises:
        ValueError: if the stages do not fit one another.
    """

    model_cpu_offload_seq = "unet->unet_2->unet_3->unet_4->unet_5"
    _optional_components = [
        *("guider", "guider_2", "unet_3", "scheduler_3", "guider_3"),
        *("unet_4", "scheduler_4", "guider_4", "unet_5", "scheduler_5", "guider_5"),
    ]
    _callback_tensor_inputs = ["latents", "noise_pred"]

    # diffusers finds the components of a repository by the names in this signature, hence their fixed number.
    def __init__(
        self,
        unet: UNet2DModel | ModelMixin,
        scheduler: SchedulerMixin,
        unet_2: UNet2DModel | ModelMixin,
        scheduler_2: SchedulerMixin,
        unet_3: UNet2DModel | ModelMixin | None = None,
        scheduler_3: SchedulerMixin | None = None,
        unet_4: UNet2DModel | ModelMixin | None = None,
        scheduler_4: SchedulerMixin | None = None,
        unet_5: UNet2DModel | ModelMixin | None = None,
        scheduler_5: SchedulerMixin | None = None,
        guider: BaseGuidance | None = None,
        guider_2: BaseGuidance | None = None,
        guider_3: BaseGuidance | None = None,
        guider_4: BaseGuidance | None = None,
        guider_5: BaseGuidance | None = None,
        # JSON has no integer keys: model_index.json gives strings back.
        id2label: dict[int, str] | dict[str, str] | None = None,
        stages: dict[str, dict[str, Any]] | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, guider=guider)
        self.register_modules(unet_2=unet_2, scheduler_2=scheduler_2, guider_2=guider_2)
        self.register_modules(unet_3=unet_3, scheduler_3=scheduler_3, guider_3=guider_3)
        self.register_modules(unet_4=unet_4, scheduler_4=scheduler_4, guider_4=guider_4)
        self.register_modules(unet_5=unet_5, scheduler_5=scheduler_5, guider_5=guider_5)
        self._check_components()
        if id2label is not None:
            if not all(str(label).isdigit() for label in id2label):
                raise ValueError(f"`id2label` must map class ids to names, but has the keys {list(id2label)[:5]}.")
            id2label = {int(label): name for label, name in id2label.items()}
        self.register_to_config(id2label=id2label, stages=self._complete_options(stages or {}))
        self._check_labels_of_stages()
        self._interrupt = False
        self._num_timesteps = 0
        self._stage = 0

    @classmethod
    def from_pipelines(cls, base: DiffusionPipeline, *super_resolvers: DiffusionPipeline) -> "CascadePipeline":
        r"""
        A cascade of pipelines, whose components it shares.

        Args:
            base ([`ClassConditionalPipeline`] or another with `unet` and `scheduler`):
                Makes the small images.
            super_resolvers ([`PalettePipeline`]):
                Make them larger, one after the other.

        Raises:
            ValueError: if a pipeline is not such a one, or does not fit the one before.
        """
        pipelines = (base, *super_resolvers)
        if not 2 <= len(pipelines) <= len(SUFFIXES):
            raise ValueError(
                f"A cascade has a base and 1 to {len(SUFFIXES) - 1} super-resolvers, but got {len(super_resolvers)}."
            )
        components, stages, names = {}, {}, {}
        for i, pipeline in enumerate(pipelines):
            suffix = SUFFIXES[i]
            for name in ("unet", "scheduler"):
                if getattr(pipeline, name, None) is None:
                    raise ValueError(f"Stage {i + 1} is a {type(pipeline).__name__}, which has no `{name}`.")
            components |= {f"unet{suffix}": pipeline.unet, f"scheduler{suffix}": pipeline.scheduler}
            components[f"guider{suffix}"] = getattr(pipeline, "guider", None)
            if i > 0:
                cls._check_super_resolver(i, pipeline, pipelines[i - 1])
            known = {name: pipeline.config.get(name, default) for name, default in STAGE_OPTIONS.items()}
            stages[f"unet{suffix}"] = known
            own_names = pipeline.config.get("id2label")
            if own_names and names and dict(own_names) != names:
                raise ValueError(f"The classes of stage {i + 1}, its `id2label`, are not those of the stages before.")
            names = names or dict(own_names or {})
        return cls(**components, id2label=names or None, stages=stages)

    @staticmethod
    def _check_super_resolver(i: int, pipeline: DiffusionPipeline, previous: DiffusionPipeline):
        tasks, factor = pipeline.config.get("tasks"), pipeline.config.get("default_scale_factor")
        if tasks is not None and not any("super_resolution" in task.split("+") for task in tasks):
            raise ValueError(f"Stage {i + 1} was not trained for super_resolution, but for {', '.join(tasks)}.")
        if pipeline.config.get("source_noise") is not None:
            raise ValueError(
                f"Stage {i + 1} has a `source_noise`, to start from images, but a cascade starts from noise alone."
            )
        size, small = image_size(pipeline.unet), image_size(previous.unet)
        if factor is not None and tuple(round(side / factor) for side in size) != small:
            raise ValueError(
                f"Stage {i + 1} was trained to make images {factor:g} times as large, of {size[0]} x {size[1]} "
                f"pixels, and does not fit stage {i}, which makes {small[0]} x {small[1]}."
            )

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "CascadePipeline":
        """As in diffusers, which alone would leave behind models of other classes than the signature names."""
        models = {name: model for name, model in pipeline.components.items() if isinstance(model, ModelMixin)}
        models = {name: model for name, model in models.items() if accepts(cls.__init__, name)}
        return super().from_pipe(pipeline, **{**models, **kwargs})

    # What the stages are

    @property
    def _stages(self) -> list[Stage]:
        options, stages = self.config.get("stages", {}), []
        for suffix in SUFFIXES:
            unet, scheduler, guider = (getattr(self, name + suffix) for name in ("unet", "scheduler", "guider"))
            if unet is not None:
                stages.append(Stage(suffix, unet, scheduler, guider, options.get(f"unet{suffix}", {})))
        return stages

    @property
    def num_stages(self) -> int:
        """The number of stages, that of the base model included."""
        return len(self._stages)

    @property
    def sample_size(self) -> tuple[int, int]:
        """Height and width of the images, which are those of the last stage."""
        return self._stages[-1].size

    @property
    def stage(self) -> int:
        """The stage that runs, for callbacks: 0 is the base model."""
        return self._stage

    @property
    def num_timesteps(self) -> int:
        """The number of scheduler steps of the stage that runs, if it is not truncated."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """A callback that sets `pipe._interrupt = True` makes the step the last one, and its stage too."""
        return self._interrupt

    @property
    def _channels(self) -> int:
        """C, the channels of an image."""
        return self.unet.config.in_channels

    def _is_told_noise_level(self, stage: Stage) -> bool:
        return stage.unet.config.in_channels == 2 * self._channels + 1

    def _check_components(self):
        if self.unet is None or self.unet_2 is None:
            raise ValueError("A cascade needs a base model, `unet`, and a super-resolver, `unet_2`.")
        for i, suffix in enumerate(SUFFIXES):
            given = [name for name in ("unet", "scheduler", "guider") if getattr(self, name + suffix) is not None]
            if given and not {"unet", "scheduler"} <= set(given):
                raise ValueError(f"A stage needs a network and a scheduler, but there is only `{given[0]}{suffix}`.")
            if given and i > 0 and getattr(self, f"unet{SUFFIXES[i - 1]}") is None:
                raise ValueError(f"There is `unet{suffix}`, but no `unet{SUFFIXES[i - 1]}` before it.")
        channels, previous = self._channels, None
        for stage in self._stages:
            config, size = stage.unet.config, stage.size
            fitting = (2 * channels, 2 * channels + 1) if stage.suffix else (channels,)
            if config.in_channels not in fitting or config.out_channels not in (channels, 2 * channels):
                raise ValueError(
                    f"`{stage.name}` must have {' or '.join(map(str, fitting))} input and {channels} or "
                    f"{2 * channels} output channels, as the base model's images have {channels}, but has "
                    f"{config.in_channels} and {config.out_channels}."
                )
            if previous and (size[0] < previous[0] or size[1] < previous[1] or size == previous):
                raise ValueError(
                    f"`{stage.name}` must make larger images than the stage before, but it makes {size[0]} x "
                    f"{size[1]} pixels of {previous[0]} x {previous[1]}."
                )
            previous = size

    def _complete_options(self, stages: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """All options of all stages, checked."""
        names = [stage.name for stage in self._stages]
        unknown = set(stages) - set(names)
        if unknown:
            raise ValueError(f"`stages` must name networks of the cascade, {names}, but has {sorted(unknown)}.")
        return {name: self._complete_stage(name, stages.get(name, {})) for name in names}

    def _complete_stage(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        unknown = set(given) - set(STAGE_OPTIONS)
        if unknown:
            raise ValueError(f"`stages` has options of `{name}` that there are not: {sorted(unknown)}.")
        options = {**STAGE_OPTIONS, **given}
        check_positive_int("default_num_inference_steps", options["default_num_inference_steps"])
        if options["noise_conditioning"] not in NOISE_CONDITIONINGS:
            raise ValueError(
                f"`noise_conditioning` of `{name}` must be one of {', '.join(NOISE_CONDITIONINGS)}, but is "
                f"{options['noise_conditioning']!r}."
            )
        if options["conditioning_noise_level"] is None:
            options["conditioning_noise_level"] = options["conditioning_augmentation"] / 2
        for option in ("conditioning_augmentation", "conditioning_noise_level"):
            if not is_number(options[option]) or not 0 <= options[option] < 1:
                raise ValueError(f"`{option}` of `{name}` must be from 0 to less than 1, but is {options[option]!r}.")
        return options

    def _check_labels_of_stages(self):
        for stage in self._stages:
            num_labels, null_label = stage.unet.config.get("num_class_embeds"), stage.null_class_label
            labels = [*(self.config.id2label or ()), *([] if null_label is None else [null_label])]
            for label in labels if num_labels else ():
                if not 0 <= label < num_labels:
                    raise ValueError(f"There is a label {label}, but `{stage.name}` has {num_labels}, from 0 on.")

    # What the user passes

    @staticmethod
    def _for_stages(name: str, value: Any, stages: list[Stage], default: str | None = None) -> list:
        """One value for each of the stages, of a list or of one for all; for `None` the stage's option `default`."""
        values = list(value) if isinstance(value, (list, tuple)) else [value] * len(stages)
        if len(values) != len(stages):
            raise ValueError(f"`{name}` must be one or a list of {len(stages)}, but is a list of {len(values)}.")
        return [
            stage.options[default] if value is None and default else value
            for stage, value in zip(stages, values, strict=True)
        ]

    def get_label_ids(self, class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray) -> list[int]:
        r"""
        The class ids of labels given by id or by name, where a name counts only as `id2label` spells it.

        Raises:
            ValueError: for no label at all, or one that a stage does not know.
        """
        if isinstance(class_labels, (torch.Tensor, np.ndarray)):
            class_labels = class_labels.tolist()
        if not isinstance(class_labels, (list, tuple, range)):
            class_labels = [class_labels]
        if len(class_labels) == 0:
            raise ValueError("`class_labels` is empty: leave it out for unconditional images.")
        return [self._get_label_id(label) for label in class_labels]

    def _get_label_id(self, label: int | str | np.generic | torch.Tensor) -> int:
        if isinstance(label, (np.generic, np.ndarray, torch.Tensor)) and label.ndim == 0:
            label = label.item()
        id2label = self.config.id2label or {}
        if isinstance(label, str):
            ids = [known_id for known_id, name in id2label.items() if name == label]
            if len(ids) != 1:
                names = ", ".join(map(repr, list(id2label.values())[:20])) or "no names at all"
                raise ValueError(f"The name {label!r} stands for {len(ids)} classes: the pipeline knows {names}.")
            return ids[0]
        if not is_integer(label):
            raise ValueError(f"`class_labels` must hold class ids (integers) or class names, but holds {label!r}.")
        for stage in self._stages:
            num_labels = stage.unet.config.get("num_class_embeds") or math.inf
            if not 0 <= label < num_labels or label == stage.null_class_label:
                raise ValueError(f"There is no class {label} among the {num_labels} labels of `{stage.name}`.")
        return label

    def check_inputs(
        self,
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None,
        num_images_per_label: int,
        batch_size: int | None,
        num_inference_steps: list[int],
        guidance_scales: list[float | None],
        noise_levels: list[float],
        truncated: bool,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        callback_on_step_end_tensor_inputs: list[str],
    ):
        """Refuses, with a `ValueError` of one sentence, what the call could not carry out; lists are by stage."""
        num_images = self._check_labels(class_labels, num_images_per_label, batch_size)
        for value in num_inference_steps:
            check_positive_int("num_inference_steps", value)
        self._check_guidance(class_labels, guidance_scales)
        base = self._stages[0]
        if class_labels is not None and base.takes_classes and base.null_class_label is None:
            self._check_null_label(self._prepare_guider(base, guidance_scales[0]), num_inference_steps[0])
        self._check_noise(noise_levels, truncated)

        channels = self._channels
        shape = (num_images, channels, *base.size)
        if latents is not None and tuple(latents.shape) != shape:
            raise ValueError(f"`latents` must have the shape {shape}, but has {tuple(latents.shape)}.")
        if isinstance(generator, list) and len(generator) != num_images:
            raise ValueError(
                f"`generator` must be one generator or {num_images}, one per image, but is {len(generator)}."
            )
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` must be 'pil', 'np' or 'pt', but is {output_type!r}.")
        if output_type == "pil" and channels not in (1, 3, 4):
            raise ValueError(f"PIL has no images of {channels} channels: pass `output_type='np'` or 'pt'.")
        for name in callback_on_step_end_tensor_inputs:
            if name not in self._callback_tensor_inputs:
                known = self._callback_tensor_inputs
                raise ValueError(f"`callback_on_step_end_tensor_inputs` must be among {known}, but has {name!r}.")

    def _check_labels(self, class_labels, num_images_per_label, batch_size) -> int:
        """Returns the number of images."""
        check_positive_int("num_images_per_label", num_images_per_label)
        needy = [stage for stage in self._stages if stage.takes_classes]
        if class_labels is not None:
            if not needy:
                raise ValueError("`class_labels` must be left out, for no stage has classes.")
            if batch_size is not None:
                raise ValueError("`batch_size` is for unconditional images: pass `num_images_per_label` instead.")
            return len(self.get_label_ids(class_labels)) * num_images_per_label
        for stage in needy:
            if stage.null_class_label is None:
                raise ValueError(
                    f"`class_labels` must be given, for `{stage.name}` has classes and no `null_class_label` for none."
                )
        if num_images_per_label != 1:
            raise ValueError(
                "`num_images_per_label` needs `class_labels`: pass `batch_size` for unconditional images."
            )
        if batch_size is not None:
            check_positive_int("batch_size", batch_size)
        return batch_size or 1

    def _check_guidance(self, class_labels, guidance_scales):
        for stage, scale in zip(self._stages, guidance_scales, strict=True):
            guider = stage.guider
            if hasattr(guider, "guide"):
                raise ValueError(f"{type(guider).__name__} needs a classifier, which a cascade does not have.")
            if scale is None:
                continue
            if not is_number(scale):
                raise ValueError(f"`guidance_scale` must be a finite number, but is {scale!r}.")
            if guider is not None and "guidance_scale" not in guider.config:
                raise ValueError(
                    f"`guidance_scale` is no parameter of `guider{stage.suffix}`, a {type(guider).__name__}."
                )
            is_base = not stage.suffix
            if is_base and guider is None and scale != 1 and (class_labels is None or not stage.takes_classes):
                raise ValueError(f"`guidance_scale={scale}` needs `class_labels` to guide the base model to.")

    def _check_null_label(self, guider: BaseGuidance, num_inference_steps: int):
        """Whether a guider wants an unconditional prediction can depend on the step: asks for all steps beforehand."""
        for i in range(num_inference_steps):
            guider.set_state(step=i, num_inference_steps=num_inference_steps, timestep=None)
            batches = guider.prepare_inputs({"class_labels": (True, None)})
            if any(batch.class_labels is None for batch in batches):
                raise ValueError("Guidance needs a `null_class_label` of the base model, which it does not have.")

    def _check_noise(self, noise_levels, truncated):
        stages = self._stages
        for stage, level in zip(stages[1:], noise_levels, strict=True):
            if not is_number(level) or not 0 <= level < 1:
                raise ValueError(f"`conditioning_noise_level` must be from 0 to less than 1, but is {level!r}.")
            highest = stage.options["conditioning_augmentation"]
            if self._is_told_noise_level(stage) and level > highest:
                raise ValueError(
                    f"`conditioning_noise_level` must be at most {highest}, what `{stage.name}` was trained for, but "
                    f"is {level}."
                )
        if truncated and max(noise_levels) == 0:
            raise ValueError(
                "`truncated` needs a `conditioning_noise_level` above 0: without noise nothing is left out."
            )
        for stage in stages[:-1] if truncated else ():
            if not hasattr(stage.scheduler, "add_noise") and not hasattr(stage.scheduler, "scale_noise"):
                raise ValueError(
                    f"`truncated` must be false, for `scheduler{stage.suffix}`, a {type(stage.scheduler).__name__}, "
                    "does not tell its noise levels."
                )
        for stage in stages[1:]:
            scheduler, told = stage.scheduler, stage.options["noise_conditioning"]
            # A solver can integrate flows, and keeps a table of alphas then that means nothing.
            is_flow = not hasattr(scheduler, "alphas_cumprod") or scheduler.config.get("use_flow_sigmas", False)
            if told != "timestep" and is_flow:
                raise ValueError(
                    f"`{stage.name}` is told {told!r}, the noise level of a diffusion process, which "
                    f"{type(scheduler).__name__} does not have."
                )

    # Sampling

    @staticmethod
    def _prepare_guider(stage: Stage, guidance_scale: float | None) -> BaseGuidance:
        if stage.guider is not None and guidance_scale is None:
            return stage.guider
        with quiet_guiders():
            if stage.guider is not None:
                return stage.guider.new(guidance_scale=guidance_scale)
            return ClassifierFreeGuidance(guidance_scale=1.0 if guidance_scale is None else guidance_scale)

    @staticmethod
    def _get_noise_levels(stage: Stage, timesteps: torch.Tensor) -> torch.Tensor:
        """What the network is told at each of the timesteps; alpha_bar is interpolated where they are no integers."""
        told = stage.options["noise_conditioning"]
        if told == "timestep":
            return timesteps
        gammas = stage.scheduler.alphas_cumprod.to(timesteps.device, torch.float32)
        timesteps = timesteps.float().clamp(0, len(gammas) - 1)
        gamma = torch.lerp(gammas[timesteps.floor().long()], gammas[timesteps.ceil().long()], timesteps.frac())
        return gamma if told == "gamma" else gamma.sqrt()

    def _prepare_conditioning(
        self,
        stage: Stage,
        images: torch.Tensor,
        level: float,
        wanted_level: float,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> torch.Tensor:
        """What a super-resolver is shown of `sqrt(1 - level**2) * image + level * noise`, at `wanted_level`."""

        def resize(tensor, are_images):
            if stage.unet.config.get("low_res_channels"):
                return F.interpolate(tensor, stage.size, mode="bilinear")
            return enlarge(tensor, stage.size, are_images)

        # q(z_s | z_level): the process goes on from where it is. Enlarging is linear, so noise can be added after it.
        kept = math.sqrt((1 - wanted_level**2) / (1 - level**2))
        added = math.sqrt(max(wanted_level**2 - (kept * level) ** 2, 0.0))
        conditioning = kept * resize(images, are_images=level == 0)
        if added > 0:
            noise = randn_tensor(images.shape, generator=generator, device=images.device, dtype=torch.float32)
            conditioning = conditioning + added * resize(noise, are_images=False)
        if self._is_told_noise_level(stage):
            conditioning = torch.cat([conditioning, torch.full_like(conditioning[:, :1], wanted_level)], dim=1)
        return conditioning

    def _predict(
        self,
        stage: Stage,
        guider: BaseGuidance,
        inputs: dict[str, torch.Tensor | tuple],
        noise_level: torch.Tensor,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """The guided prediction, `(N, C, H, W)`, or `(N, 2C, H, W)` with the variance where the scheduler reads it."""
        unet = stage.unet

        def run(batches):
            sample = torch.cat([batch.sample for batch in batches])
            kwargs = {}
            if batches[0].class_labels is not None:
                kwargs["class_labels"] = torch.cat([batch.class_labels for batch in batches])
            if batches[0].conditioning is not None:
                conditioning = torch.cat([batch.conditioning for batch in batches])
                if unet.config.get("low_res_channels"):
                    kwargs["low_res"] = conditioning.to(dtype)
                else:
                    sample = torch.cat([conditioning, sample], dim=1)
            return unet(sample.to(dtype), noise_level.expand(len(sample)), return_dict=False, **kwargs)[0].float()

        batches = guider.prepare_inputs(inputs)
        if type(guider).prepare_models is BaseGuidance.prepare_models:
            # the network is the same for all of them: one forward pass
            outputs = run(batches).chunk(len(batches))
        else:
            outputs, layers = [], unwrap_module(unet)  # guiders find layers by the names from before compilation
            for batch in batches:
                try:
                    guider.prepare_models(layers)
                    outputs.append(run([batch]))
                finally:
                    guider.cleanup_models(layers)

        for batch, output in zip(batches, outputs, strict=True):
            batch.noise_pred = output[:, : self._channels]
        noise_pred = guider(batches)[0]
        # Guidance is for the mean; the variance is that of the conditional prediction, the first one of every guider.
        if reads_variance(stage.scheduler):
            noise_pred = torch.cat([noise_pred, outputs[0][:, self._channels :]], dim=1)
        return noise_pred

    def _run_stage(
        self,
        stage: Stage,
        latents: torch.Tensor,
        inputs: dict[str, tuple],
        guider: BaseGuidance,
        num_inference_steps: int,
        stop_level: float,
        generator: torch.Generator | list[torch.Generator] | None,
        on_step_end: Callable[[int, torch.Tensor, dict], torch.Tensor],
    ) -> tuple[torch.Tensor, float]:
        """
        Denoises noise of unit variance `(N, C, H, W)`.

        Returns:
            `tuple`: images in `[-1, 1]` and 0, or what is left, `sqrt(1 - level**2) * image + level * noise`, of the
            first step that ends with a level of `stop_level` or less, and this level.
        """
        scheduler = stage.scheduler
        scheduler.set_timesteps(num_inference_steps, device=latents.device)
        timesteps = scheduler.timesteps
        self._num_timesteps = len(timesteps)
        if hasattr(scheduler, "set_begin_index"):
            # Otherwise the scheduler looks up its first timestep, which waits for the device.
            scheduler.set_begin_index(0)
        noise_levels = self._get_noise_levels(stage, timesteps)
        latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
        step_kwargs = {"generator": generator} if accepts(scheduler.step, "generator") else {}
        # This property walks through all the modules: too slow to ask in each step.
        dtype = stage.unet.dtype
        order = getattr(scheduler, "order", 1)

        with self.progress_bar(total=len(timesteps)) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    break
                # a solver of second order is between two levels after every other step
                if stop_level > 0 and i > 0 and i % order == 0:
                    alpha, sigma = signal_and_noise(scheduler, t)
                    norm = math.hypot(alpha, sigma)
                    if sigma / norm <= stop_level:
                        return latents / norm, sigma / norm
                guider.set_state(step=i, num_inference_steps=len(timesteps), timestep=t)
                sample = latents
                if hasattr(scheduler, "scale_model_input"):
                    sample = scheduler.scale_model_input(latents, t)
                noise_pred = self._predict(stage, guider, {"sample": sample, **inputs}, noise_levels[i], dtype)
                latents = scheduler.step(noise_pred, t, latents, **step_kwargs, return_dict=False)[0]
                latents = on_step_end(i, t, {"latents": latents, "noise_pred": noise_pred})
                progress_bar.update()
        return latents, 0.0

    # Copied from diffusers_ext.pipelines.pipeline_class_conditional.ClassConditionalPipeline._call_back
    def _call_back(
        self, callback: Callable | None, names: list[str], step: int, timestep: torch.Tensor, tensors: dict
    ) -> torch.Tensor:
        """The latents after a step: those of `tensors`, unless a callback, which sees `names`, returns others."""
        if callback is None:
            return tensors["latents"]
        outputs = callback(self, step, timestep, {name: tensors[name] for name in names})
        return tensors["latents"] if outputs is None else outputs.pop("latents", tensors["latents"])

    def _to_output(self, images: torch.Tensor, output_type: str) -> list[PIL.Image.Image] | np.ndarray | torch.Tensor:
        images = (images / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).cpu().numpy()
        return self.numpy_to_pil(images) if output_type == "pil" else images

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None = None,
        num_images_per_label: int = 1,
        batch_size: int | None = None,
        num_inference_steps: int | list[int | None] | None = None,
        guidance_scale: float | list[float | None] | None = None,
        conditioning_noise_level: float | list[float | None] | None = None,
        truncated: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        output_stage_images: bool = False,
        return_dict: bool = True,
        callback_on_step_end: Callable[[DiffusionPipeline, int, torch.Tensor, dict], dict]
        | PipelineCallback
        | MultiPipelineCallbacks
        | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006, as in diffusers
    ) -> CascadePipelineOutput | tuple:
        r"""
        Generates `len(class_labels) * num_images_per_label` images, those of one label next to each other.

        The latents are kept in float32 whatever the dtype of a network, whose input and output are cast: the steps of
        a solver are too small for 16 bits.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many, for every stage that takes classes. Without, the
                images are unconditional.
            num_images_per_label (`int`, defaults to 1):
                The number of images for each entry of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1):
                The number of unconditional images.
            num_inference_steps (`int` or a list of one for each stage, *optional*):
                The number of denoising steps. `None` is `default_num_inference_steps` of the stage.
            guidance_scale (`float` or a list of one for each stage, *optional*):
                The scale of the stage's guider, or of plain classifier-free guidance where it has none; 1 is the
                conditional prediction alone. A single number is for the base model. `None` leaves it to the guider,
                and a stage without one does not guide.
            conditioning_noise_level (`float` or a list of one for each super-resolver, *optional*):
                How much noise is in the small images: the level `s` in `[0, 1)`, 0 is none. `None` is
                `conditioning_noise_level` of the stage.
            truncated (`bool`, defaults to `False`):
                Whether the noise is, as far as may be, that which the sampling of a stage leaves when it is stopped
                early, instead of noise on top of the finished images.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible, on the CPU also for a network on another device. For every stage after
                the other it draws the noise of the small images, the latents, and what the scheduler needs.
            latents (`torch.Tensor`, *optional*):
                The noise of unit variance `(N, C, h, w)` that the base model starts from, instead of one drawn from
                `generator`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            output_stage_images (`bool`, defaults to `False`):
                Whether to return the images of every stage, too.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`CascadePipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step, timestep, callback_kwargs)` after each step, which is counted from 0 in
                every stage; `pipe.stage` tells the stage. It may return a dict with other `latents`. One that sets
                `pipe._interrupt = True` ends the cascade: the images have the size of that stage.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                What `callback_kwargs` holds: `"latents"` and `"noise_pred"`, the guided prediction.

        Returns:
            [`CascadePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry, and those of the
            stages, if asked for, in `.stage_images` or as the second entry.

        Raises:
            ValueError: for input that cannot be carried out, before any step is made.

        Example:

        ```py
        >>> base = ClassConditionalPipeline.from_pretrained("user/digits-4px")
        >>> pipe = CascadePipeline.from_pipelines(base, PalettePipeline.from_pretrained("user/digits-4px-to-8px"))
        >>> images = pipe(["three", "seven"], num_images_per_label=4, guidance_scale=2.0).images
        >>> pipe.push_to_hub("user/digits-cascade")
        ```
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs

        # 1. Defaults and checks
        stages = self._stages
        if guidance_scale is not None and not isinstance(guidance_scale, (list, tuple)):
            guidance_scale = [guidance_scale] + [None] * (len(stages) - 1)
        scales = self._for_stages("guidance_scale", guidance_scale, stages)
        steps = self._for_stages(
            "num_inference_steps", num_inference_steps, stages, default="default_num_inference_steps"
        )
        levels = self._for_stages(
            "conditioning_noise_level", conditioning_noise_level, stages[1:], default="conditioning_noise_level"
        )
        self.check_inputs(
            class_labels,
            num_images_per_label,
            batch_size,
            steps,
            scales,
            levels,
            truncated,
            generator,
            latents,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        device = self._execution_device
        self._interrupt = False

        # 2. Labels
        num_images, labels = batch_size or 1, None
        if class_labels is not None:
            labels = torch.tensor(self.get_label_ids(class_labels), device=device)
            labels = labels.repeat_interleave(num_images_per_label)
            num_images = len(labels)

        # 3. The stages
        on_step_end = partial(self._call_back, callback_on_step_end, callback_on_step_end_tensor_inputs)
        images, level, stage_images = None, 0.0, []
        for i, stage in enumerate(stages):
            self._stage = i
            conditioning, null_conditioning = None, None
            if i > 0:
                conditioning = self._prepare_conditioning(stage, images, level, levels[i - 1], generator)
                null_conditioning = torch.zeros_like(conditioning)
            shape = (num_images, self._channels, *stage.size)
            if i > 0 or latents is None:
                latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
            inputs = {
                "class_labels": self._labels_of_stage(stage, labels, num_images, device),
                "conditioning": (conditioning, null_conditioning),
            }
            is_truncated = truncated and i + 1 < len(stages)
            images, level = self._run_stage(
                stage,
                latents.to(device, torch.float32),
                inputs,
                self._prepare_guider(stage, scales[i]),
                steps[i],
                levels[i] if is_truncated else 0.0,
                generator,
                on_step_end,
            )
            stage_images.append(images)
            if self.interrupt:
                break

        # 4. Images
        stage_images = [self._to_output(images, output_type) for images in stage_images]
        self.maybe_free_model_hooks()
        if not return_dict:
            return (stage_images[-1], stage_images) if output_stage_images else (stage_images[-1],)
        return CascadePipelineOutput(
            images=stage_images[-1], stage_images=stage_images if output_stage_images else None
        )

    def _labels_of_stage(
        self, stage: Stage, labels: torch.Tensor | None, num_images: int, device: torch.device
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The labels of the conditional and of the unconditional prediction of a stage, `(N,)` each."""
        if not stage.takes_classes:
            return None, None
        null_labels = None
        if stage.null_class_label is not None:
            null_labels = torch.full((num_images,), stage.null_class_label, device=device)
        labels = null_labels if labels is None else labels
        # The unconditional prediction of a super-resolver is that for no image, as in training.
        return labels, labels if stage.suffix else null_labels


def image_size(unet: ModelMixin) -> tuple[int, int]:
    """Height and width of what a network makes, by its configuration."""
    size = unet.config.get("sample_size")
    if size is None:
        raise ValueError(f"The configuration of a {type(unet).__name__} must have a `sample_size`, which is missing.")
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


def reads_variance(scheduler: SchedulerMixin) -> bool:
    """Whether a scheduler's step wants the learned variance behind the prediction, as ancestral ones do."""
    # A config keeps the options of other classes, hence the look at the signature; these solvers have the option only
    # to drop what lies behind the third channel.
    if isinstance(scheduler, (DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, SASolverScheduler)):
        return False
    has_option = accepts(type(scheduler).__init__, "variance_type")
    return has_option and scheduler.config.variance_type in ("learned", "learned_range")
