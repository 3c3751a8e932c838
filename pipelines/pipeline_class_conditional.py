"""Images from a diffusion or flow-matching network of pixels or latents, class-conditional or not."""

from functools import partial

import torch
from diffusers import (
    BaseGuidance,
    DiffusionPipeline,
    ImagePipelineOutput,
    ModelMixin,
    SchedulerMixin,
    UNet2DModel,
)

from .checks import (
    check_callback_inputs,
    check_generator,
    check_latents,
    check_multiple,
    check_output_type,
    check_positive_int,
)
from .denoising import (
    DenoisingCallMixin,
    StepCallback,
    build_guider,
    check_guidance_scale,
    check_null_label,
    denoise,
    draw_latents,
    get_callback_inputs,
    get_guidance_scale,
    run_network,
)
from .images import denormalize, to_output
from .labels import (
    ClassLabels,
    check_class_labels_given,
    check_label_range,
    count_images,
    look_up_labels,
    read_id2label,
)
from .latent_space import LatentSpaceMixin, check_space
from .networks import get_num_labels, takes_classes
from .processes import TrainedProcessMixin
from .schedules import check_schedule, set_timesteps


class ClassConditionalPipeline(TrainedProcessMixin, LatentSpaceMixin, DenoisingCallMixin, DiffusionPipeline):
    r"""
    Generates images from class labels, or from nothing but noise: pixels, or latents that an autoencoder decodes
    (Rombach et al. 2022, https://huggingface.co/papers/2112.10752).

    The scheduler owns the mathematics of a step: every scheduler of diffusers fits that knows what the network
    predicts (noise, image, velocity, flow). Guidance is a guider: classifier-free guidance (Ho & Salimans 2022,
    https://huggingface.co/papers/2207.12598) or a relative of it. Conditional and unconditional predictions share one
    forward pass unless the guider changes the network between them.

    Args:
        unet ([`UNet2DModel`]):
            The denoiser, or any model with the same call: `unet(sample, timesteps, class_labels=...,
            return_dict=False)` with `sample` `(N, C, H, W)`, `timesteps` `(N,)` and `class_labels` `(N,)` or `None`
            returns a tuple whose first entry is `(N, C, H, W)`, or `(N, 2C, H, W)` where the network predicts the
            variance too (Nichol & Dhariwal 2021, section 3.1, https://huggingface.co/papers/2102.09672). Images are
            in `[-1, 1]`. A [`DiTTransformer2DModel`] (Peebles & Xie 2023) is such a model. With a `class_embedder`, it
            is a [`UNet2DConditionModel`], which gets `encoder_hidden_states` instead of labels.
        scheduler ([`SchedulerMixin`]):
            The noise schedule and the solver. The scheduler with which the pipeline is built or was saved defines what
            the network predicts, and other schedulers must fit this.
        guider ([`BaseGuidance`], *optional*):
            How conditional and unconditional predictions are combined. Without a guider, a `guidance_scale` in the
            call means plain classifier-free guidance.
        classifier ([`ModelMixin`], *optional*):
            The classifier of a guider for classifier guidance (Dhariwal & Nichol 2021,
            https://huggingface.co/papers/2105.05233), such as `NoisyClassifier`: `classifier(sample, timesteps,
            return_dict=False)[0]` are the logits of the classes for noisy images. With it, a network without classes
            makes images of a class, too.
        vae ([`ModelMixin`], *optional*):
            The autoencoder in whose latents the denoiser works, such as an [`AutoencoderKL`] or a [`VQModel`]; see
            [`LatentSpace`].
        class_embedder ([`ModelMixin`], *optional*):
            Makes the context of cross-attention from labels, `(N,)` to `(N, L, D)`, such as [`ClassEmbedder`].
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.
        null_class_label (`int`, *optional*):
            The label that stands for "no class", which the network saw in training where the label was dropped.
        default_num_inference_steps (`int`, defaults to 50):
            The number of steps of a call without `num_inference_steps`: as many as this scheduler needs.
        trained_processes (`dict[str, dict]`, *optional*):
            The noise process of the network's training, as `save_pretrained` writes it; by default the scheduler's.

    Raises:
        ValueError: if `id2label`, `null_class_label` or `default_num_inference_steps` do not fit.
    """

    pipeline_tag = "unconditional-image-generation"
    samples_from_noise = True
    model_cpu_offload_seq = "class_embedder->unet->vae"
    _optional_components = ["guider", "classifier", "vae", "class_embedder"]
    _callback_tensor_inputs = ["latents", "noise_pred"]

    def __init__(
        self,
        unet: UNet2DModel | ModelMixin,
        scheduler: SchedulerMixin,
        guider: BaseGuidance | None = None,
        classifier: ModelMixin | None = None,
        vae: ModelMixin | None = None,
        class_embedder: ModelMixin | None = None,
        # JSON has no integer keys, so that model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
        null_class_label: int | None = None,
        default_num_inference_steps: int = 50,
        trained_processes: dict[str, dict] | None = None,
    ):
        super().__init__()
        id2label = read_id2label(id2label)
        num_labels = get_num_labels(unet if class_embedder is None else class_embedder)
        check_label_range("id2label", id2label or (), num_labels)
        check_label_range("null_class_label", [null_class_label], num_labels)
        check_positive_int("default_num_inference_steps", default_num_inference_steps)

        self.register_modules(
            unet=unet,
            scheduler=scheduler,
            guider=guider,
            classifier=classifier,
            vae=vae,
            class_embedder=class_embedder,
        )
        check_space(self._space, unet.config.in_channels)
        self.register_to_config(
            id2label=id2label,
            null_class_label=null_class_label,
            default_num_inference_steps=default_num_inference_steps,
        )
        self._remember_processes({"unet": "scheduler"}, trained_processes)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: ClassLabels | None = None,
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
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006, as in diffusers
    ) -> ImagePipelineOutput | tuple:
        r"""
        Generates `len(class_labels) * num_images_per_label` images; images of one label are next to each other.

        The latents are float32 whatever the dtype of the network, and are cast for it: the steps of a solver are too
        small for 16 bits.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many. If not given, the images are unconditional.
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
                conditional prediction alone. If not given, the guider keeps its own scale, and a pipeline without
                guider does not guide.
            eta (`float`, defaults to 0.0):
                Noise of a DDIM step, from 0 (none) to 1 (DDPM): eq. 16 of https://huggingface.co/papers/2010.02502.
            height, width (`int`, *optional*, default to `sample_size` of the network):
                The size of the images in pixels.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible, on the CPU also for a network on another device.
            latents (`torch.Tensor`, *optional*):
                The noise of unit variance to start from, instead of one drawn from `generator`: `(N, C, H, W)`, or
                `(N, C, h, w)` in the size of the latents of `vae`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step, timestep, callback_kwargs)` after each step. It may return a dict with
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
        callback_inputs = get_callback_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs)

        # 1. Defaults and checks
        _, default_height, default_width = self.image_shape
        height = default_height if height is None else height
        width = default_width if width is None else width
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
            callback_inputs,
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
        timesteps = set_timesteps(
            self.scheduler,
            device,
            self.config.default_num_inference_steps,
            num_inference_steps=num_inference_steps,
            timesteps=timesteps,
            sigmas=sigmas,
        )
        self._num_timesteps = len(timesteps)

        # 4. Guidance
        guider = build_guider(self.guider, guidance_scale)
        self._guidance_scale = get_guidance_scale(guider)
        if self._has_classifier_guidance:
            guider.guide(self.classifier, self.scheduler, target_labels)
        class_labels = null_labels if target_labels is None else target_labels
        if self._has_classes is False:
            class_labels = None
        elif target_labels is not None and null_labels is None:
            check_null_label(guider, timesteps)
        labels = (class_labels, null_labels)

        # 5. Latents
        shape = self._get_latents_shape(num_images, height, width)
        latents = self.prepare_latents(shape, device, generator, latents)

        # 6. Denoising
        latents = denoise(
            self,
            self.unet,
            guider,
            timesteps,
            latents,
            partial(self._predict_for_labels, dtype=self.unet.dtype),
            {"class_labels": labels},
            eta=eta,
            generator=generator,
            callback=callback_on_step_end,
            callback_inputs=callback_inputs,
        )

        # 7. Images
        images = to_output(denormalize(self._space.decode(latents)), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def prepare_latents(
        self,
        shape: tuple[int, int, int, int],
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
    ) -> torch.Tensor:
        """The noise `(N, C, H, W)` to start from, as strong as the scheduler wants it; float32, see `__call__`."""
        return draw_latents(self.scheduler, shape, device, generator, latents)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "ClassConditionalPipeline":
        """As in diffusers; the `vqvae` of an [`LDMPipeline`] becomes the `vae`."""
        autoencoder = {} if getattr(pipeline, "vqvae", None) is None else {"vae": pipeline.vqvae}
        return super().from_pipe(pipeline, **{**autoencoder, **kwargs})

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels, height and width of the images of a call without `height` and `width`."""
        return (self._space.image_channels, *self._image_sides)

    def _get_latents_shape(self, num_images: int, height: int, width: int) -> tuple[int, int, int, int]:
        factor = self._space.pixels_per_latent
        return (num_images, self.unet.config.in_channels, height // factor, width // factor)

    def _predict_for_labels(self, class_labels: torch.Tensor | None, **inputs) -> torch.Tensor:
        """The output of the denoiser; see [`run_network`]."""
        if self.class_embedder is None:
            return run_network(self.unet, class_labels=class_labels, **inputs)
        return run_network(self.unet, encoder_hidden_states=self.class_embedder(class_labels), **inputs)

    @property
    def _has_classes(self) -> bool | None:
        """Whether the network itself, and not only a classifier, takes labels; `None` if this is unknown."""
        if self.class_embedder is not None or takes_classes(self.unet):
            return True
        return False if "num_class_embeds" in self.unet.config else None

    @property
    def _has_classifier_guidance(self) -> bool:
        return hasattr(self.guider, "guide")

    @property
    def _num_labels(self) -> int | None:
        """The number of labels, with those for no class; `None` if no configuration has it."""
        counts = [get_num_labels(self.unet if self.class_embedder is None else self.class_embedder)]
        if self._has_classifier_guidance and self.classifier is not None:
            counts.append(self.classifier.config.get("num_classes"))
        return min((count for count in counts if count is not None), default=None)

    def get_label_ids(self, class_labels: ClassLabels) -> list[int]:
        r"""
        The class ids of labels that are given by id or by name. Names are spelled as in `id2label`.

        Raises:
            ValueError: for no label at all, an unknown or ambiguous name, an id out of range, or anything else.
        """
        return look_up_labels(
            class_labels, self.config.id2label, self._num_labels, null_class_labels=[self.config.null_class_label]
        )

    def check_inputs(
        self,
        class_labels: ClassLabels | None,
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
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        has_classes = True if class_labels is not None and self._has_classifier_guidance else self._has_classes
        check_class_labels_given(class_labels, has_classes, self.config.null_class_label)
        num_labels = None if class_labels is None else len(self.get_label_ids(class_labels))
        num_images = count_images(num_labels, num_images_per_label, batch_size)
        if self._has_classifier_guidance and self.classifier is None:
            raise ValueError(f"{type(self.guider).__name__} needs the `classifier` component, which is missing.")
        check_guidance_scale(guidance_scale, self.guider)
        if self.guider is None and class_labels is None and guidance_scale not in (None, 1):
            raise ValueError(f"`guidance_scale={guidance_scale}` needs `class_labels` to guide to.")
        self._trained_processes["unet"].check(self.unet, self.scheduler)
        check_schedule(self.scheduler, num_inference_steps, timesteps, sigmas, eta)
        for name, size in (("height", height), ("width", width)):
            check_positive_int(name, size)
            check_multiple(f"`{name}`", size, self._side_multiple)
        check_latents(latents, self._get_latents_shape(num_images, height, width))
        check_generator(generator, num_images)
        check_output_type(output_type, self._space.image_channels)
        check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
