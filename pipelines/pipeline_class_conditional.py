"""Images from a pixel-space diffusion or flow-matching network, class-conditional or not."""

import difflib
import inspect
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import (
    BaseGuidance,
    ClassifierFreeGuidance,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    ImagePipelineOutput,
    ModelMixin,
    SASolverScheduler,
    SchedulerMixin,
    UNet2DModel,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils.torch_utils import randn_tensor, unwrap_module


def accepts(function: Callable, argument: str) -> bool:
    return argument in inspect.signature(function).parameters


def check_positive_int(name: str, value: Any):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, but is {value!r}.")


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


class ClassConditionalPipeline(DiffusionPipeline):
    r"""
    Generates images in pixel space from class labels, or from nothing but noise.

    The scheduler owns the step mathematics: any scheduler of diffusers fits that knows what the network predicts
    (noise, image, velocity, flow). Guidance is a guider: classifier-free guidance (Ho & Salimans 2022,
    https://huggingface.co/papers/2207.12598) or one of its relatives. Conditional and unconditional predictions share
    one forward pass unless the guider changes the network between them.

    Args:
        unet ([`UNet2DModel`]):
            The denoiser, or any model with the same call: `unet(sample, timesteps, class_labels=...,
            return_dict=False)` with `sample` `(N, C, H, W)`, `timesteps` `(N,)` and `class_labels` `(N,)` or `None`
            returns a tuple whose first entry is `(N, C, H, W)`, or `(N, 2C, H, W)` where the network predicts the
            variance too (Nichol & Dhariwal 2021, section 3.1, https://huggingface.co/papers/2102.09672). Images are
            in `[-1, 1]`.
        scheduler ([`SchedulerMixin`]):
            The noise schedule and the solver.
        guider ([`BaseGuidance`], *optional*):
            How conditional and unconditional predictions are combined. Without one, a `guidance_scale` given in the
            call means plain classifier-free guidance.
        classifier ([`ModelMixin`], *optional*):
            What a guider for classifier guidance (Dhariwal & Nichol 2021, https://huggingface.co/papers/2105.05233)
            guides by, such as `NoisyClassifier`: `classifier(sample, timesteps, return_dict=False)[0]` are the logits
            of the classes for noisy images. With it, images of a class come also from a network without classes.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.
        null_class_label (`int`, *optional*):
            The label that stands for "no class": what the network saw in training where the label was dropped.
        default_num_inference_steps (`int`, defaults to 50):
            The number of steps of a call that does not say how many: what the scheduler of this pipeline needs.

    Raises:
        ValueError: if `id2label`, `null_class_label` or `default_num_inference_steps` do not fit.
    """

    model_cpu_offload_seq = "unet"
    _optional_components = ["guider", "classifier"]
    _callback_tensor_inputs = ["latents", "noise_pred"]

    def __init__(
        self,
        unet: UNet2DModel | ModelMixin,
        scheduler: SchedulerMixin,
        guider: BaseGuidance | None = None,
        classifier: ModelMixin | None = None,
        # JSON has no integer keys: model_index.json gives strings back.
        id2label: dict[int, str] | dict[str, str] | None = None,
        null_class_label: int | None = None,
        default_num_inference_steps: int = 50,
    ):
        super().__init__()
        if id2label is not None:
            if not all(str(label).isdigit() for label in id2label):
                raise ValueError(f"`id2label` must map class ids to names, but has the keys {list(id2label)[:5]}.")
            id2label = {int(label): name for label, name in id2label.items()}
        num_labels = unet.config.get("num_class_embeds") or math.inf
        for name, labels in (("id2label", id2label or ()), ("null_class_label", (null_class_label,))):
            for label in labels:
                if label is not None and not 0 <= label < num_labels:
                    raise ValueError(f"`{name}` has the label {label}, but the network has {num_labels}, from 0 on.")
        check_positive_int("default_num_inference_steps", default_num_inference_steps)

        self.register_modules(unet=unet, scheduler=scheduler, guider=guider, classifier=classifier)
        self.register_to_config(
            id2label=id2label,
            null_class_label=null_class_label,
            default_num_inference_steps=default_num_inference_steps,
        )
        self._interrupt = False
        self._num_timesteps = 0

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "ClassConditionalPipeline":
        """As in diffusers, which alone would leave behind models of other classes than the signature names."""
        models = {name: model for name, model in pipeline.components.items() if isinstance(model, ModelMixin)}
        models = {name: model for name, model in models.items() if accepts(cls.__init__, name)}
        return super().from_pipe(pipeline, **{**models, **kwargs})

    @property
    def _has_classes(self) -> bool | None:
        """Whether the network itself, and not only a classifier, takes labels; `None` if its config does not tell."""
        config = self.unet.config
        if any(config.get(key) is not None for key in ("num_class_embeds", "class_embed_type")):
            return True
        return False if "num_class_embeds" in config else None

    @property
    def _has_classifier_guidance(self) -> bool:
        return hasattr(self.guider, "guide")

    @property
    def _reads_variance(self) -> bool:
        """Whether the scheduler's step wants the learned variance behind the prediction, as ancestral ones do."""
        # A config keeps the options of other classes, hence the look at the signature; these solvers have the option
        # only to drop what lies behind the third channel.
        scheduler = self.scheduler
        if isinstance(scheduler, (DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, SASolverScheduler)):
            return False
        has_option = accepts(type(scheduler).__init__, "variance_type")
        return has_option and scheduler.config.variance_type in ("learned", "learned_range")

    @property
    def _num_labels(self) -> int | None:
        """How many labels there are to ask for, those of no class included; `None` if nobody knows."""
        counts = [self.unet.config.get("num_class_embeds")]
        if self._has_classifier_guidance and self.classifier is not None:
            counts.append(self.classifier.config.get("num_classes"))
        return min((count for count in counts if count is not None), default=None)

    @property
    def interrupt(self) -> bool:
        """A callback that sets `pipe._interrupt = True` makes the step the last one."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """The number of scheduler steps of the latest call."""
        return self._num_timesteps

    def get_label_ids(self, class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray) -> list[int]:
        r"""
        The class ids of labels given by id or by name, where a name counts only as `id2label` spells it.

        Raises:
            ValueError: for no label at all, an unknown or ambiguous name, an id out of range, or anything else.
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
        if isinstance(label, str):
            label = self._get_id_of_name(label)
        if isinstance(label, bool) or not isinstance(label, int):
            raise ValueError(f"`class_labels` must hold class ids (integers) or class names, but holds {label!r}.")

        num_labels, null_label = self._num_labels, self.config.null_class_label
        if label == null_label:
            raise ValueError(
                f"The label {label} stands for no class: leave `class_labels` out for unconditional images."
            )
        known = range(num_labels) if num_labels is not None else self.config.id2label
        if label < 0 or (known is not None and label not in known):
            ids = [known_label for known_label in known or () if known_label != null_label]
            known = f"the class ids are {min(ids)} to {max(ids)}" if ids else "class ids start at 0"
            raise ValueError(f"There is no class {label}: {known}.")
        return label

    def _get_id_of_name(self, name: str) -> int:
        id2label = self.config.id2label or {}
        ids = [label for label, known_name in id2label.items() if known_name == name]
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise ValueError(f"The name {name!r} belongs to the classes {ids}: pass the id of the one you mean.")
        if not id2label:
            raise ValueError(
                f"The name {name!r} cannot be looked up, for the pipeline has no `id2label`: pass a class id."
            )
        names = difflib.get_close_matches(name, id2label.values()) or list(id2label.values())
        names = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
        raise ValueError(f"There is no class named {name!r}: did you mean one of {names}?")

    def check_inputs(
        self,
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None,
        num_images_per_label: int,
        batch_size: int | None,
        num_inference_steps: int | None,
        timesteps: list[int] | None,
        sigmas: list[float] | None,
        guidance_scale: float | None,
        eta: float,
        height: int,
        width: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        callback_on_step_end_tensor_inputs: list[str],
    ):
        """Refuses, with a `ValueError` of one sentence, what the call could not carry out."""
        num_images = self._check_labels(class_labels, num_images_per_label, batch_size)
        self._check_guidance(class_labels, guidance_scale)
        self._check_steps(num_inference_steps, timesteps, sigmas, eta)

        # a UNet2DModel halves the image after each block but the last
        multiple = 2 ** (len(self.unet.config.get("block_out_channels", [0])) - 1)
        for name, size in (("height", height), ("width", width)):
            check_positive_int(name, size)
            if size % multiple != 0:
                raise ValueError(
                    f"`{name}` must be a multiple of {multiple}, for the network halves images, but is {size}."
                )
        channels = self.unet.config.in_channels
        shape = (num_images, channels, height, width)
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
        if class_labels is not None:
            if self._has_classes is False and not self._has_classifier_guidance:
                raise ValueError("`class_labels` must be left out, for the network has no classes.")
            if batch_size is not None:
                raise ValueError("`batch_size` is for unconditional images: pass `num_images_per_label` instead.")
            return len(self.get_label_ids(class_labels)) * num_images_per_label

        if self._has_classes and self.config.null_class_label is None:
            raise ValueError(
                "`class_labels` must be given, for the pipeline has no `null_class_label` to stand for none."
            )
        if num_images_per_label != 1:
            raise ValueError(
                "`num_images_per_label` needs `class_labels`: pass `batch_size` for unconditional images."
            )
        if batch_size is not None:
            check_positive_int("batch_size", batch_size)
        return batch_size or 1

    def _check_guidance(self, class_labels, guidance_scale):
        if self._has_classifier_guidance and self.classifier is None:
            raise ValueError(f"{type(self.guider).__name__} needs the `classifier` component, which is missing.")
        if guidance_scale is None:
            return
        is_number = isinstance(guidance_scale, (int, float, np.number)) and not isinstance(guidance_scale, bool)
        if not is_number or not math.isfinite(guidance_scale):
            raise ValueError(f"`guidance_scale` must be a finite number, but is {guidance_scale!r}.")
        if self.guider is not None and "guidance_scale" not in self.guider.config:
            raise ValueError(
                f"`guidance_scale` is no parameter of the pipeline's guider, {type(self.guider).__name__}."
            )
        if self.guider is None and class_labels is None and guidance_scale != 1:
            raise ValueError(f"`guidance_scale={guidance_scale}` needs `class_labels` to guide to.")

    def _check_steps(self, num_inference_steps, timesteps, sigmas, eta):
        scheduler = type(self.scheduler).__name__
        schedules = {"num_inference_steps": num_inference_steps, "timesteps": timesteps, "sigmas": sigmas}
        given = [name for name, value in schedules.items() if value is not None]
        if len(given) > 1:
            raise ValueError(
                f"Only one of `num_inference_steps`, `timesteps` and `sigmas` can be given, but {given} are."
            )
        if num_inference_steps is not None:
            check_positive_int("num_inference_steps", num_inference_steps)
        for name in given:
            if not accepts(self.scheduler.set_timesteps, name):
                raise ValueError(f"`{name}` cannot be given, for {scheduler} makes its own.")
        if not isinstance(eta, (int, float, np.number)) or not 0 <= eta <= 1:
            raise ValueError(f"`eta` must be between 0 (DDIM) and 1 (DDPM), but is {eta!r}.")
        if eta != 0 and not accepts(self.scheduler.step, "eta"):
            raise ValueError(f"`eta` must be 0, for {scheduler} does not know it, but is {eta}.")

    def prepare_latents(
        self,
        shape: tuple[int, int, int, int],
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
    ) -> torch.Tensor:
        """The noise `(N, C, H, W)` to start from, as strong as the scheduler wants it; float32, see `__call__`."""
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        return latents.to(device, torch.float32) * getattr(self.scheduler, "init_noise_sigma", 1.0)

    def _prepare_guider(self, guidance_scale: float | None) -> BaseGuidance:
        if self.guider is not None and guidance_scale is None:
            return self.guider
        with quiet_guiders():
            if self.guider is not None:
                return self.guider.new(guidance_scale=guidance_scale)
            return ClassifierFreeGuidance(guidance_scale=1.0 if guidance_scale is None else guidance_scale)

    def _check_null_label(self, guider: BaseGuidance, timesteps: torch.Tensor, class_labels: torch.Tensor):
        """Whether a guider wants an unconditional prediction can depend on the step: asks for all steps beforehand."""
        for i, t in enumerate(timesteps):
            guider.set_state(step=i, num_inference_steps=len(timesteps), timestep=t)
            batches = guider.prepare_inputs({"class_labels": (class_labels, None)})
            if any(batch.class_labels is None for batch in batches):
                raise ValueError(
                    "Guidance needs predictions without class, but the pipeline has no `null_class_label` to ask for."
                )

    def _run_unet(
        self, guider: BaseGuidance, batches: list, timestep: torch.Tensor, dtype: torch.dtype
    ) -> list[torch.Tensor]:
        """The float32 output of the network, whose own is `dtype`, for each batch that the guider asks for."""

        def forward(sample, class_labels):
            timesteps = timestep.expand(len(sample))
            return self.unet(sample.to(dtype), timesteps, class_labels=class_labels, return_dict=False)[0].float()

        if type(guider).prepare_models is BaseGuidance.prepare_models:
            # the network is the same for all of them: one forward pass
            samples = torch.cat([batch.sample for batch in batches])
            labels = None if batches[0].class_labels is None else torch.cat([batch.class_labels for batch in batches])
            return forward(samples, labels).chunk(len(batches))

        outputs, unet = [], unwrap_module(self.unet)  # guiders find layers by the names they had before compilation
        for batch in batches:
            try:
                guider.prepare_models(unet)
                outputs.append(forward(batch.sample, batch.class_labels))
            finally:
                guider.cleanup_models(unet)
        return outputs

    def _predict(
        self,
        guider: BaseGuidance,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        class_labels: torch.Tensor | None,
        null_labels: torch.Tensor | None,
        dtype: torch.dtype,
        with_variance: bool,
    ) -> torch.Tensor:
        """The guided prediction, `(N, C, H, W)`, or `(N, 2C, H, W)` together with a learned variance."""
        batches = guider.prepare_inputs({"sample": sample, "class_labels": (class_labels, null_labels)})
        outputs = self._run_unet(guider, batches, timestep, dtype)
        channels = sample.shape[1]
        for batch, output in zip(batches, outputs, strict=True):
            batch.noise_pred = output[:, :channels]
        noise_pred = guider(batches)[0]

        # Guidance is for the mean; the variance is that of the conditional prediction, the first one of every guider.
        if with_variance:
            noise_pred = torch.cat([noise_pred, outputs[0][:, channels:]], dim=1)
        return noise_pred

    def _call_back(
        self, callback: Callable | None, names: list[str], step: int, timestep: torch.Tensor, tensors: dict
    ) -> torch.Tensor:
        """The latents after a step: those of `tensors`, unless a callback, which sees `names`, returns others."""
        if callback is None:
            return tensors["latents"]
        outputs = callback(self, step, timestep, {name: tensors[name] for name in names})
        return tensors["latents"] if outputs is None else outputs.pop("latents", tensors["latents"])

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None = None,
        num_images_per_label: int = 1,
        batch_size: int | None = None,
        num_inference_steps: int | None = None,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float | None = None,
        eta: float = 0.0,
        height: int | None = None,
        width: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[DiffusionPipeline, int, torch.Tensor, dict], dict]
        | PipelineCallback
        | MultiPipelineCallbacks
        | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006, as in diffusers
    ) -> ImagePipelineOutput | tuple:
        r"""
        Generates `len(class_labels) * num_images_per_label` images, those of one label next to each other.

        The latents are kept in float32 whatever the dtype of the network, whose input and output are cast: the steps
        of a solver are too small for 16 bits.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many. Without, the images are unconditional.
            num_images_per_label (`int`, defaults to 1):
                The number of images for each entry of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1):
                The number of unconditional images.
            num_inference_steps (`int`, *optional*, defaults to `default_num_inference_steps` of the pipeline):
                The number of denoising steps.
            timesteps (`list[int]`, *optional*):
                Descending timesteps to use instead, with a scheduler that takes them.
            sigmas (`list[float]`, *optional*):
                Descending noise levels to use instead, with a scheduler that takes them.
            guidance_scale (`float`, *optional*):
                The scale of the guider, or of plain classifier-free guidance in a pipeline without one; 1 is the
                conditional prediction alone. Without, the guider has its own, and a pipeline without guider does not
                guide.
            eta (`float`, defaults to 0.0):
                Noise of a DDIM step, from 0 (none) to 1 (DDPM): eq. 16 of https://huggingface.co/papers/2010.02502.
            height, width (`int`, *optional*, default to `sample_size` of the network):
                The size of the images in pixels.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible, on the CPU also for a network on another device.
            latents (`torch.Tensor`, *optional*):
                The noise of unit variance `(N, C, H, W)` to start from, instead of one drawn from `generator`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step, timestep, callback_kwargs)` after each step; may return a dict with
                other `latents`.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                What `callback_kwargs` holds: `"latents"` and `"noise_pred"`, the guided prediction.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out, before any step is made.

        Example:

        ```py
        >>> pipe = ClassConditionalPipeline.from_pretrained("user/digits")
        >>> images = pipe(class_labels=[3, "seven"], num_images_per_label=4, guidance_scale=2.0).images
        ```
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs

        # 1. Defaults and checks
        sample_size = self.unet.config.sample_size
        if not isinstance(sample_size, (list, tuple)):
            sample_size = (sample_size, sample_size)
        height = sample_size[0] if height is None else height
        width = sample_size[1] if width is None else width
        self.check_inputs(
            class_labels,
            num_images_per_label,
            batch_size,
            num_inference_steps,
            timesteps,
            sigmas,
            guidance_scale,
            eta,
            height,
            width,
            generator,
            latents,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        device = self._execution_device
        self._interrupt = False

        # 2. Labels
        num_images, null_label, null_labels, target_labels = batch_size or 1, self.config.null_class_label, None, None
        if class_labels is not None:
            class_labels = torch.tensor(self.get_label_ids(class_labels), device=device)
            target_labels = class_labels.repeat_interleave(num_images_per_label)
            num_images = len(target_labels)
        if null_label is not None:
            null_labels = torch.full((num_images,), null_label, device=device)

        # 3. Timesteps
        schedule = {"num_inference_steps": num_inference_steps, "timesteps": timesteps, "sigmas": sigmas}
        schedule = {name: value for name, value in schedule.items() if value is not None}
        if not schedule:
            schedule["num_inference_steps"] = self.config.default_num_inference_steps
        self.scheduler.set_timesteps(device=device, **schedule)
        timesteps = self.scheduler.timesteps
        self._num_timesteps = len(timesteps)
        if hasattr(self.scheduler, "set_begin_index"):
            # Otherwise the scheduler looks up its first timestep, which waits for the device.
            self.scheduler.set_begin_index(0)

        # 4. Guidance
        guider = self._prepare_guider(guidance_scale)
        if self._has_classifier_guidance:
            guider.guide(self.classifier, self.scheduler, target_labels)
        class_labels = null_labels if target_labels is None else target_labels
        if self._has_classes is False:
            class_labels = None
        elif target_labels is not None and null_labels is None:
            self._check_null_label(guider, timesteps, class_labels)

        # 5. Latents and what this scheduler's step takes beyond them
        shape = (num_images, self.unet.config.in_channels, height, width)
        latents = self.prepare_latents(shape, device, generator, latents)
        step_kwargs = {"eta": eta, "generator": generator}
        step_kwargs = {name: value for name, value in step_kwargs.items() if accepts(self.scheduler.step, name)}
        # This property walks through all the modules: too slow to ask in each step.
        dtype = self.unet.dtype
        with_variance = self._reads_variance
        scales_input = hasattr(self.scheduler, "scale_model_input")
        takes_gradient = accepts(self.scheduler.step, "condition_gradient")

        # 6. Denoising
        with self.progress_bar(total=len(timesteps)) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    break
                guider.set_state(step=i, num_inference_steps=len(timesteps), timestep=t)
                sample = self.scheduler.scale_model_input(latents, t) if scales_input else latents
                noise_pred = self._predict(guider, sample, t, class_labels, null_labels, dtype, with_variance)
                if takes_gradient:
                    step_kwargs["condition_gradient"] = getattr(guider, "condition_gradient", None)
                latents = self.scheduler.step(noise_pred, t, latents, **step_kwargs, return_dict=False)[0]
                tensors = {"latents": latents, "noise_pred": noise_pred}
                latents = self._call_back(callback_on_step_end, callback_on_step_end_tensor_inputs, i, t, tensors)
                progress_bar.update()

        # 7. Images
        images = (latents / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)

        self.maybe_free_model_hooks()

        if not return_dict:
            return (images,)
        return ImagePipelineOutput(images=images)
