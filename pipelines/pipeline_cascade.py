"""Images from a cascade: a diffusion model of small images, and others that each make them larger."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers import BaseGuidance, DiffusionPipeline, ModelMixin, SchedulerMixin, UNet2DModel
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor

from .cascade_stages import (
    STAGE_OPTIONS,
    SUFFIXES,
    CascadeStage,
    check_components,
    check_stages,
    check_super_resolver,
    complete_stage_options,
    spread,
)
from .checks import (
    check_callback_inputs,
    check_generator,
    check_latents,
    check_output_type,
    check_positive_int,
)
from .conditioning_augmentation import check_conditioning_noise, get_forward_step, to_noisy_image
from .denoising import (
    DenoisingCallMixin,
    StepCallback,
    build_guider,
    call_back,
    check_guidance_scale,
    check_needs_no_classifier,
    check_null_label,
    follow_guidance_scale,
    get_callback_inputs,
    get_guidance_scale,
    predict,
)
from .images import denormalize, to_output
from .labels import ClassLabels, check_class_labels_given, count_images, look_up_labels, read_id2label
from .networks import takes_classes
from .processes import TrainedProcessMixin
from .schedules import (
    can_add_noise,
    check_noise_conditioning,
    get_noise_levels,
    get_step_arguments,
    reads_variance,
    scale_input,
    set_timesteps,
)


@dataclass
class CascadePipelineOutput(BaseOutput):
    """
    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            The images of the last stage.
        stage_images (`list`, *optional*):
            If asked for, the images of every stage, the last stage at the end. With truncated conditioning, all stages
            but the last have the noisy images that the next stage was given, clipped to the range of images.
    """

    images: list[PIL.Image.Image] | np.ndarray | torch.Tensor
    stage_images: list | None = None


class CascadePipeline(TrainedProcessMixin, DenoisingCallMixin, DiffusionPipeline):
    r"""
    Generates images by a cascade of diffusion models (CDM: Ho et al. 2022, https://huggingface.co/papers/2106.15282).

    The first stage makes small images from class labels, or from nothing but noise. Each other stage, a
    super-resolver, makes them larger, with the class too if its network takes classes.

    So that a super-resolver forgives the flaws of generated images, it is trained with *conditioning augmentation*
    (section 4): Gaussian noise in the small images, whose level `s` it is given. A small image `z` becomes
    `sqrt(1 - s**2) * z + s * noise` before it is enlarged. In *non-truncated* conditioning augmentation the noise is
    added to the finished image. In *truncated* conditioning augmentation it is noise that the stage before has not yet
    removed: that stage stops when its own noise has fallen to the level `s` or below, and what is then missing is
    added.

    [`~CascadePipeline.from_pipelines`] makes a cascade of a [`ClassConditionalPipeline`], or any other unconditional
    one, and of [`PalettePipeline`]s that were trained for super-resolution.

    Args:
        unet ([`UNet2DModel`]):
            The denoiser of the base model, or any model with the same call: `unet(sample, timesteps,
            class_labels=..., return_dict=False)` with `sample` `(N, C, H, W)` returns a tuple whose first entry is
            `(N, C, H, W)`, or `(N, 2C, H, W)` if the network predicts the variance too. Images are in `[-1, 1]` and
            as large as the `sample_size` of its configuration.
        scheduler ([`SchedulerMixin`]):
            The noise schedule and the solver of the base model.
        unet_2, unet_3, unet_4, unet_5 ([`UNet2DModel`], all but the first *optional*):
            The denoisers of the super-resolvers. Their `sample` is the enlarged image `(N, C, H, W)`, then, if the
            network takes the level `s`, a channel that is `s` everywhere, and then the noisy image `(N, C, H, W)`. A
            network with `low_res_channels` in its configuration, as the upsamplers of ADM (Dhariwal & Nichol 2021),
            gets the image as `low_res` instead, and it is enlarged by bilinear interpolation.
        scheduler_2, scheduler_3, scheduler_4, scheduler_5 ([`SchedulerMixin`], all but the first *optional*):
            The schedulers of the super-resolvers.
        guider, guider_2, guider_3, guider_4, guider_5 ([`BaseGuidance`], *optional*):
            How the conditional and the unconditional predictions of a stage are combined. The unconditional prediction
            is that without class in the base model, and that for a conditioning image of zeros, with the same class,
            in a super-resolver. Without a guider, a `guidance_scale` given in the call means plain classifier-free
            guidance.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.
        stages (`dict[str, dict]`, *optional*):
            Options by the name of the stage's network, as in `{"unet_2": {"conditioning_augmentation": 0.4}}`:
            `default_num_inference_steps` (50); `null_class_label`, the label that stands for "no class" (none);
            and for super-resolvers `noise_conditioning`, what the network is given as the noise level of its own
            process (`"timestep"`, `"gamma"` or `"sqrt_gamma"`, as in [`PalettePipeline`]);
            `conditioning_augmentation`, the highest level `s` that it was trained for (0, which is none); and
            `conditioning_noise_level`, the level `s` if a call does not give it (half of the highest).
        trained_processes (`dict[str, dict]`, *optional*):
            The noise process of each network's training, as `save_pretrained` writes it; by default the schedulers'.

    Raises:
        ValueError: if the stages do not fit one another.
    """

    model_cpu_offload_seq = "unet->unet_2->unet_3->unet_4->unet_5"
    pipeline_tag = "unconditional-image-generation"
    samples_from_noise = True
    _optional_components = [
        *("guider", "guider_2", "unet_3", "scheduler_3", "guider_3"),
        *("unet_4", "scheduler_4", "guider_4", "unet_5", "scheduler_5", "guider_5"),
    ]
    _callback_tensor_inputs = ["latents", "noise_pred"]

    # diffusers finds the components of a repository by the names in this signature, so their number is fixed.
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
        # JSON has no integer keys, so model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
        stages: dict[str, dict[str, Any]] | None = None,
        trained_processes: dict[str, dict] | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, guider=guider)
        self.register_modules(unet_2=unet_2, scheduler_2=scheduler_2, guider_2=guider_2)
        self.register_modules(unet_3=unet_3, scheduler_3=scheduler_3, guider_3=guider_3)
        self.register_modules(unet_4=unet_4, scheduler_4=scheduler_4, guider_4=guider_4)
        self.register_modules(unet_5=unet_5, scheduler_5=scheduler_5, guider_5=guider_5)
        check_components(self.components)
        options = complete_stage_options([stage.name for stage in self._stages], stages or {})
        id2label = read_id2label(id2label)
        self.register_to_config(id2label=id2label, stages=options)
        check_stages(self._stages, list(id2label or ()))
        schedulers = {stage.name: f"scheduler{stage.suffix}" for stage in self._stages}
        self._remember_processes(schedulers, trained_processes)
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
            ValueError: if a pipeline cannot be a stage, or does not fit the pipeline before it.
        """
        pipelines = (base, *super_resolvers)
        if not 2 <= len(pipelines) <= len(SUFFIXES):
            raise ValueError(
                f"A cascade has a base and 1 to {len(SUFFIXES) - 1} super-resolvers, but got {len(super_resolvers)}."
            )
        components, stages, id2label = {}, {}, {}
        for i, (suffix, pipeline) in enumerate(zip(SUFFIXES, pipelines, strict=False)):
            for name in ("unet", "scheduler"):
                if getattr(pipeline, name, None) is None:
                    raise ValueError(f"Stage {i + 1} ({type(pipeline).__name__}) has no `{name}`.")
            if i > 0:
                check_super_resolver(i + 1, pipeline, pipelines[i - 1])
            components |= {f"unet{suffix}": pipeline.unet, f"scheduler{suffix}": pipeline.scheduler}
            components[f"guider{suffix}"] = getattr(pipeline, "guider", None)
            stages[f"unet{suffix}"] = {
                option: pipeline.config.get(option, default) for option, default in STAGE_OPTIONS.items()
            }
            own_id2label = dict(pipeline.config.get("id2label") or {})
            if own_id2label and id2label and own_id2label != id2label:
                raise ValueError(f"The classes of stage {i + 1}, its `id2label`, differ from the stages before.")
            id2label = id2label or own_id2label
        cascade = cls(**components, id2label=id2label or None, stages=stages)
        for name, pipeline in zip(stages, pipelines, strict=True):
            cascade._take_processes({name: "unet"}, pipeline)
        return cascade

    @torch.no_grad()
    def __call__(
        self,
        class_labels: ClassLabels | None = None,
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
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006, as in diffusers
    ) -> CascadePipelineOutput | tuple:
        r"""
        Generates `len(class_labels) * num_images_per_label` images; images of one label are next to each other.

        The latents are kept in float32 whatever the dtype of a network, whose input and output are cast: the steps of
        a solver are too small for 16 bits.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many, for every stage that takes classes. If not given,
                the images are unconditional.
            num_images_per_label (`int`, defaults to 1):
                The number of images for each entry of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1):
                The number of unconditional images.
            num_inference_steps (`int` or a list of one for each stage, *optional*):
                The number of denoising steps. `None` is `default_num_inference_steps` of the stage.
            guidance_scale (`float` or a list of one for each stage, *optional*):
                The scale of the stage's guider, or of plain classifier-free guidance if it has none; 1 is the
                conditional prediction alone. A single number is for the base model. With `None` the guider keeps its
                own scale, and a stage without guider does not guide.
            conditioning_noise_level (`float` or a list of one for each super-resolver, *optional*):
                How much noise is in the small images: the level `s` in `[0, 1)`, 0 is none. `None` is
                `conditioning_noise_level` of the stage.
            truncated (`bool`, defaults to `False`):
                Whether a stage is stopped early and leaves its own noise in the small images (truncated conditioning
                augmentation), instead of noise being added to finished ones (non-truncated).
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible, on the CPU also for a network on another device. For one stage after the
                other it draws the noise in the small images, the latents, and what the scheduler needs.
            latents (`torch.Tensor`, *optional*):
                The noise of unit variance `(N, C, h, w)` that the base model starts from, instead of noise from
                `generator`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            output_stage_images (`bool`, defaults to `False`):
                Whether to return the images of every stage, too.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`CascadePipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step, timestep, callback_kwargs)` after each step, counted from 0 in every
                stage; `pipe.stage` is the stage. It may return a dict with other `latents`. One that sets
                `pipe._interrupt = True` ends the cascade: the images have the size of that stage.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                What `callback_kwargs` holds: `"latents"` and `"noise_pred"`, the guided prediction.

        Returns:
            [`CascadePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry, and the images of the
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
        # 1. Defaults and checks
        tensor_names = get_callback_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs)
        stages = self._stages
        if guidance_scale is not None and not isinstance(guidance_scale, (list, tuple)):
            guidance_scale = [guidance_scale] + [None] * (len(stages) - 1)
        scales = spread("guidance_scale", guidance_scale, stages)
        steps = spread("num_inference_steps", num_inference_steps, stages, "default_num_inference_steps")
        levels = spread("conditioning_noise_level", conditioning_noise_level, stages[1:], "conditioning_noise_level")
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
            tensor_names,
        )
        device = self._execution_device
        self._interrupt = False

        # 2. Labels
        num_images, labels = batch_size or 1, None
        if class_labels is not None:
            labels = torch.tensor(self.get_label_ids(class_labels), device=device)
            labels = labels.repeat_interleave(num_images_per_label)
            num_images = len(labels)

        # 3. One stage after the other: each makes sqrt(1 - level**2) * image + level * noise
        images, level, stage_images = None, 0.0, []
        for i, stage in enumerate(stages):
            self._stage = i
            conditioning, null_conditioning = None, None
            if not stage.is_base:
                conditioning = self._prepare_conditioning(stage, images, level, levels[i - 1], generator)
                null_conditioning = torch.zeros_like(conditioning)
            conditions = {
                "conditioning": (conditioning, null_conditioning),
                "class_labels": stage.get_labels(labels, num_images, device),
            }
            if not stage.is_base or latents is None:
                shape = (num_images, stage.channels, *stage.size)
                latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
            is_truncated = truncated and i + 1 < len(stages)
            images, level = self._run_stage(
                stage,
                latents.to(device, torch.float32),
                conditions,
                scales[i],
                steps[i],
                stop_level=levels[i] if is_truncated else 0.0,
                generator=generator,
                callback_on_step_end=callback_on_step_end,
                tensor_names=tensor_names,
            )
            stage_images.append(images)
            if self.interrupt:
                break

        # 4. Images
        stage_images = [to_output(denormalize(images), output_type) for images in stage_images]
        self.maybe_free_model_hooks()
        if not return_dict:
            return (stage_images[-1], stage_images) if output_stage_images else (stage_images[-1],)
        return CascadePipelineOutput(
            images=stage_images[-1], stage_images=stage_images if output_stage_images else None
        )

    def _prepare_conditioning(
        self,
        stage: CascadeStage,
        images: torch.Tensor,
        level: float,
        wanted_level: float,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> torch.Tensor:
        """
        What a super-resolver is shown: small images with noise of the wanted level, enlarged.

        Args:
            stage ([`CascadeStage`]): the super-resolver.
            images (`torch.Tensor` of shape `(N, C, h, w)`): `sqrt(1 - level**2) * image + level * noise`.
            level (`float`): how much noise is in the images: 0 for finished ones.
            wanted_level (`float`): how much noise shall be in them, `level` or more.
            generator (`torch.Generator` or a list of one for each image, *optional*): draws the added noise.

        Returns:
            `torch.Tensor`: `(N, C, H, W)`, or `(N, C + 1, H, W)` with the level if the network takes it.
        """
        kept, added = get_forward_step(level, wanted_level)
        # Enlarging is linear, so noise can be added after it.
        conditioning = kept * stage.enlarge(images, is_noisy=level > 0)
        if added > 0:
            noise = randn_tensor(images.shape, generator=generator, device=images.device, dtype=torch.float32)
            conditioning = conditioning + added * stage.enlarge(noise, is_noisy=True)
        if stage.takes_noise_level:
            conditioning = torch.cat([conditioning, torch.full_like(conditioning[:, :1], wanted_level)], dim=1)
        return conditioning

    def _run_stage(
        self,
        stage: CascadeStage,
        latents: torch.Tensor,
        conditions: dict[str, tuple],
        guidance_scale: float | None,
        num_inference_steps: int,
        stop_level: float,
        generator: torch.Generator | list[torch.Generator] | None,
        callback_on_step_end: StepCallback | None,
        tensor_names: list[str],
    ) -> tuple[torch.Tensor, float]:
        """
        Denoises noise of unit variance `(N, C, H, W)` until its level is `stop_level` or less.

        Returns:
            `tuple`: images in `[-1, 1]` and 0, or truncated before, `sqrt(1 - level**2) * image + level * noise` and
            this level.
        """
        scheduler, guider = stage.scheduler, build_guider(stage.guider, guidance_scale)
        self._guidance_scale = get_guidance_scale(guider)
        timesteps = set_timesteps(scheduler, latents.device, num_inference_steps)
        self._num_timesteps = len(timesteps)
        noise_levels = get_noise_levels(scheduler, timesteps, stage.options["noise_conditioning"])
        latents = latents * getattr(scheduler, "init_noise_sigma", 1.0)
        step_kwargs = get_step_arguments(scheduler, generator=generator)
        dtype, with_variance = stage.unet.dtype, reads_variance(scheduler)
        order = getattr(scheduler, "order", 1)

        with self.progress_bar(total=len(timesteps)) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    break
                # Truncated conditioning: the rest of the noise is left to the next stage. A solver of second order is
                # between two levels after every other step.
                if stop_level > 0 and i > 0 and i % order == 0:
                    noisy_images, level = to_noisy_image(latents, scheduler, t)
                    if level <= stop_level:
                        return noisy_images, level
                guider = follow_guidance_scale(guider, self._guidance_scale)
                guider.set_state(step=i, num_inference_steps=len(timesteps), timestep=t)
                inputs = {"sample": scale_input(scheduler, latents, t), **conditions}
                forward = partial(stage.run_unet, noise_levels[i], dtype)
                noise_pred = predict(guider, stage.unet, forward, inputs, stage.channels, with_variance)
                latents = scheduler.step(noise_pred, t, latents, **step_kwargs, return_dict=False)[0]
                tensors = {"latents": latents, "noise_pred": noise_pred}
                latents = call_back(self, callback_on_step_end, tensor_names, i, t, tensors)
                progress_bar.update()
        return latents, 0.0

    def get_label_ids(self, class_labels: ClassLabels) -> list[int]:
        r"""
        The class ids of labels that are given by id or by name. Names are spelled as in `id2label`.

        Raises:
            ValueError: for no label at all, or one that a stage does not know.
        """
        stages = self._stages
        num_labels = min((stage.num_labels for stage in stages if stage.num_labels is not None), default=None)
        null_class_labels = [stage.null_class_label for stage in stages]
        return look_up_labels(class_labels, self.config.id2label, num_labels, null_class_labels)

    # Properties

    @property
    def _stages(self) -> list[CascadeStage]:
        options = self.config.get("stages", {})
        return [
            CascadeStage(
                suffix,
                self.unet.config.in_channels,
                getattr(self, f"unet{suffix}"),
                getattr(self, f"scheduler{suffix}"),
                getattr(self, f"guider{suffix}"),
                options.get(f"unet{suffix}", {}),
            )
            for suffix in SUFFIXES
            if getattr(self, f"unet{suffix}") is not None
        ]

    @property
    def num_stages(self) -> int:
        """The number of stages, including the base model."""
        return len(self._stages)

    @property
    def sample_size(self) -> tuple[int, int]:
        """Height and width of the last stage's images."""
        return self._stages[-1].size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return self.unet.config.in_channels, *self.sample_size

    @property
    def stage(self) -> int:
        """The stage that runs, for callbacks: 0 is the base model. The scale and steps are its own."""
        return self._stage

    # Checks

    def check_inputs(
        self,
        class_labels: ClassLabels | None,
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
        self._check_classes_of_stages(class_labels)
        num_labels = None if class_labels is None else len(self.get_label_ids(class_labels))
        num_images = count_images(num_labels, num_images_per_label, batch_size)
        for value in num_inference_steps:
            check_positive_int("num_inference_steps", value)
        self._check_guidance(class_labels, guidance_scales, num_inference_steps[0])
        self._check_noise(noise_levels)
        self._check_schedulers()
        if truncated:
            self._check_truncated(noise_levels)
        base = self._stages[0]
        check_latents(latents, (num_images, base.channels, *base.size))
        check_generator(generator, num_images)
        check_output_type(output_type, base.channels)
        check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)

    def _check_classes_of_stages(self, class_labels: ClassLabels | None):
        stages = [stage for stage in self._stages if takes_classes(stage.unet)]
        if class_labels is not None and not stages:
            raise ValueError("`class_labels` must be left out, because no stage has classes.")
        for stage in stages:
            check_class_labels_given(class_labels, True, stage.null_class_label, f"`{stage.name}`")

    def _check_guidance(
        self, class_labels: ClassLabels | None, guidance_scales: list[float | None], num_inference_steps: int
    ):
        for stage, scale in zip(self._stages, guidance_scales, strict=True):
            check_needs_no_classifier(stage.guider)
            check_guidance_scale(scale, stage.guider, f"guider{stage.suffix}")
        base, scale = self._stages[0], guidance_scales[0]
        is_conditional = class_labels is not None and takes_classes(base.unet)
        if not is_conditional and base.guider is None and scale not in (None, 1):
            raise ValueError(f"`guidance_scale={scale}` needs `class_labels` to guide the base model to.")
        if is_conditional and base.null_class_label is None:
            check_null_label(build_guider(base.guider, scale), [None] * num_inference_steps)

    def _check_schedulers(self):
        for stage in self._stages:
            takes_any_levels = stage.options["noise_conditioning"] != "timestep"
            trained = self._trained_processes.get(stage.name)
            if trained is not None:
                trained.check(
                    stage.unet, stage.scheduler, takes_any_levels, f"`{stage.name}`", f"scheduler{stage.suffix}"
                )

    def _check_noise(self, noise_levels: list[float]):
        for stage, level in zip(self._stages[1:], noise_levels, strict=True):
            check_noise_conditioning(stage.options["noise_conditioning"], stage.scheduler, f"`{stage.name}`")
            highest = stage.options["conditioning_augmentation"] if stage.takes_noise_level else 1.0
            check_conditioning_noise(level, highest, f"`{stage.name}`")

    def _check_truncated(self, noise_levels: list[float]):
        if max(noise_levels) == 0:
            raise ValueError(
                "`truncated` needs a `conditioning_noise_level` above 0: without noise nothing is left out."
            )
        for stage in self._stages[:-1]:
            if not can_add_noise(stage.scheduler):
                raise ValueError(
                    f"`truncated` must be false, because `scheduler{stage.suffix}`, a "
                    f"{type(stage.scheduler).__name__}, does not tell its noise levels."
                )
