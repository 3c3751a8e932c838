"""Images from images: colorization, inpainting, uncropping, restoration, super-resolution and paired translation."""

from functools import partial

import numpy as np
import torch
from diffusers import (
    BaseGuidance,
    DiffusionPipeline,
    ImagePipelineOutput,
    ModelMixin,
    SchedulerMixin,
    UNet2DModel,
)
from diffusers.utils.torch_utils import randn_tensor
from torch.nn import functional as F

from .checks import (
    check_callback_inputs,
    check_choice,
    check_fraction,
    check_generator,
    check_latents,
    check_output_type,
    check_positive_int,
    is_integer,
    is_number,
)
from .denoising import (
    DenoisingCallMixin,
    StepCallback,
    build_guider,
    call_back,
    check_guidance_scale,
    check_needs_no_classifier,
    follow_guidance_scale,
    get_callback_inputs,
    get_guidance_scale,
    predict,
    run_network,
)
from .fills import SHOWN_FILLS, fill_padding, smooth_fill
from .images import (
    ImageInput,
    carry_profiles,
    check_one_size,
    denormalize,
    enlarge_images,
    fit_channels,
    list_images,
    pad_images,
    read_image,
    to_gray,
    to_output,
)
from .label_maps import check_labels, one_hot_labels, read_label_map
from .labels import (
    ClassLabels,
    check_class_labels_given,
    check_label_range,
    look_up_labels,
    read_id2label,
)
from .latent_conditioning import CONDITIONING_ENCODINGS, count_image_channels, encode_shown
from .latent_space import LatentSpace, LatentSpaceMixin
from .masks import Box, blend_hidden, read_masks
from .networks import takes_classes
from .palette_tasks import (
    check_scale_factor,
    check_task_arguments,
    check_task_names,
    choose_task,
    get_enlarged_size,
    parse_task,
)
from .panorama import blend_mirrored, blend_seam, check_panorama, widen
from .processes import TrainedProcessMixin
from .schedules import (
    NOISE_CONDITIONINGS,
    add_noise,
    check_noise_conditioning,
    check_schedule,
    check_strength,
    get_noise_levels,
    get_step_arguments,
    is_flow,
    reads_variance,
    scale_input,
    set_timesteps,
)
from .tiles import Tiling, check_tiling, plan_tiling, predict_tiled, round_up


class PalettePipeline(TrainedProcessMixin, LatentSpaceMixin, DenoisingCallMixin, DiffusionPipeline):
    r"""
    Makes an image from a degraded one, or from any image that goes with it: Palette (Saharia et al. 2022,
    https://huggingface.co/papers/2111.05826) and SR3 (Saharia et al. 2021, https://huggingface.co/papers/2104.07636).

    The network sees the conditioning image and, behind it, the noisy one. Where pixels are hidden, in inpainting and
    uncropping, the conditioning image is standard normal noise. Visible pixels of the noisy image are the clean ones
    in every step, and are returned unchanged. https://github.com/Janspiry/Palette-Image-to-Image-Diffusion-Models does
    the same.

    With a `vae`, all of this happens in its latents (Rombach et al. 2022, section 4.4,
    https://huggingface.co/papers/2112.10752): the network sees the encoded conditioning image, perhaps a mask, and the
    noisy latents. It makes all latents anew, and visible pixels are put back into the decoded image.

    Args:
        unet ([`UNet2DModel`]):
            The denoiser, or any model with the same call: `unet(sample, timesteps, class_labels=...,
            return_dict=False)` returns a tuple whose first entry is the prediction for the image, `(N, C, H, W)`, or
            `(N, 2C, H, W)` if the network predicts the variance too. `sample` is `(N, conditioning channels + C, H,
            W)`, the conditioning image first. Images are in `[-1, 1]`. With a `vae`, C, H and W are the shape of
            latents. Channels after the conditioning image are a mask: 1 where pixels are hidden, otherwise -1.
        scheduler ([`SchedulerMixin`]):
            The noise schedule and the solver. The scheduler with which the pipeline is built or was saved defines what
            the network predicts, and other schedulers must fit this.
        guider ([`BaseGuidance`], *optional*):
            How conditional and unconditional predictions are combined. The unconditional prediction is that for a
            conditioning image of zeros, with the same class. Without a guider, a `guidance_scale` given in the call
            means plain classifier-free guidance.
        vae ([`ModelMixin`], *optional*):
            The autoencoder in whose latents the denoiser works, see [`LatentSpace`].
        conditioner ([`ModelMixin`], *optional*):
            For the `conditioning_encoding` `"labels"`: the network that turns one-hot label maps `(N, K, H, W)` into
            what the denoiser is shown, `(N, C', h, w)` in the size of the latents, such as [`SpatialRescaler`].
        conditioning_encoding (`str`, defaults to `"latents"`):
            With a `vae`: what the network is shown of the conditioning image. Its `"latents"`; all of its `"pixels"`,
            rearranged to the size of the latents with more channels, as suits label maps of colours; the image
            `"resized"` to that size, as suits super-resolution; or what the `conditioner` makes of its `"labels"`.
        conditioning_mask (`bool`, *optional*):
            With a `vae`: whether the network is shown a mask. By default, if it has a channel more than the
            conditioning image needs; with `"resized"` images it has none by default.
        tasks (`list[str]`, *optional*):
            What the network was trained for: names among `colorization`, `inpainting`, `uncropping`,
            `jpeg_restoration`, `super_resolution`, `denoising`, `deblurring` and `translation` (any paired images),
            several of them at once as in `"deblurring+denoising"`, or the user's own. If not given, every task is
            allowed.
        noise_conditioning (`str`, defaults to `"timestep"`):
            What the network is given as the noise level: the scheduler's `"timestep"`, `"gamma"`, which is alpha_bar_t
            (Palette), or `"sqrt_gamma"`, its root (SR3).
        source_noise (`float`, *optional*):
            For flows whose network was trained to start from the degraded image, with its hidden pixels filled by
            [`smooth_fill`] and with Gaussian noise of this standard deviation, instead of from noise alone: a
            data-dependent coupling (Albergo et al. 2023, https://huggingface.co/papers/2310.03725).
        conditioning_fill (`str`, defaults to `"noise"`):
            What the network is shown where pixels are hidden: Gaussian `"noise"` (Palette), `"black"` (latent
            diffusion), or a fill made from the visible pixels, `"smooth"` by [`smooth_fill`] or `"mirror"` by
            [`mirror_fill`].
        image_channels (`int`, *optional*):
            Of the images. By default `out_channels` of the network, or half of them if they are no fewer than
            `in_channels`; with a `vae`, the channels of its images.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.
        null_class_label (`int`, *optional*):
            The label that stands for "no class".
        default_num_inference_steps (`int`, defaults to 50):
            The number of steps if a call does not give it: what the scheduler of this pipeline needs.
        default_scale_factor (`float`, *optional*):
            How much larger super-resolution makes images if a call does not give it.
        conditioning_augmentation (`float`, defaults to 0.0):
            The highest noise level of the small images that a network for a cascade was trained for. Above 0, the
            network expects the level in a channel of its own behind the conditioning image; here images are clean, and
            it is 0. See [`CascadePipeline`].
        trained_processes (`dict[str, dict]`, *optional*):
            The noise process of the network's training, as `save_pretrained` writes it; by default the scheduler's.

    Raises:
        ValueError: if arguments do not fit each other or the network.
    """

    model_cpu_offload_seq = "conditioner->unet->vae"
    pipeline_tag = "image-to-image"
    samples_from_noise = False
    _optional_components = ["guider", "vae", "conditioner"]
    _callback_tensor_inputs = ["latents", "noise_pred"]

    def __init__(
        self,
        unet: UNet2DModel | ModelMixin,
        scheduler: SchedulerMixin,
        guider: BaseGuidance | None = None,
        vae: ModelMixin | None = None,
        conditioner: ModelMixin | None = None,
        # diffusers takes lists in model_index.json for components, so a dictionary is saved, and accepted here.
        tasks: list[str] | tuple[str, ...] | dict | None = None,
        noise_conditioning: str = "timestep",
        source_noise: float | None = None,
        conditioning_fill: str = "noise",
        image_channels: int | None = None,
        # JSON has no integer keys, so model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
        null_class_label: int | None = None,
        default_num_inference_steps: int = 50,
        default_scale_factor: float | None = None,
        conditioning_augmentation: float = 0.0,
        conditioning_encoding: str = "latents",
        conditioning_mask: bool | None = None,
        trained_processes: dict[str, dict] | None = None,
    ):
        super().__init__()
        if tasks is not None:
            check_task_names(tasks)
            tasks = dict.fromkeys(tasks)
        if image_channels is None and vae is not None:
            image_channels = LatentSpace(vae).image_channels
        if image_channels is None:
            in_channels, out_channels = unet.config.in_channels, unet.config.out_channels
            image_channels = out_channels if out_channels < in_channels else out_channels // 2
        id2label = read_id2label(id2label)

        self.register_modules(unet=unet, scheduler=scheduler, guider=guider, vae=vae, conditioner=conditioner)
        self.register_to_config(
            conditioning_encoding=conditioning_encoding,
            conditioning_mask=conditioning_mask,
            tasks=tasks,
            noise_conditioning=noise_conditioning,
            source_noise=source_noise,
            conditioning_fill=conditioning_fill,
            image_channels=image_channels,
            id2label=id2label,
            null_class_label=null_class_label,
            default_num_inference_steps=default_num_inference_steps,
            default_scale_factor=default_scale_factor,
            conditioning_augmentation=conditioning_augmentation,
        )
        self._check_configuration()
        self._remember_processes({"unet": "scheduler"}, trained_processes)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | list[ImageInput],
        task: str | None = None,
        mask_image: ImageInput | Box | list | None = None,
        padding: Box | None = None,
        scale_factor: float | None = None,
        height: int | None = None,
        width: int | None = None,
        class_labels: ClassLabels | None = None,
        num_images_per_input: int = 1,
        num_inference_steps: int | None = None,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float | None = None,
        strength: float = 1.0,
        eta: float = 0.0,
        tile_size: int | None = None,
        tile_overlap: int | None = None,
        tile_batch_size: int = 16,
        seam_width: int = 0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006, as in diffusers
    ) -> ImagePipelineOutput | tuple:
        r"""
        Makes `num_images_per_input` images from each image, those from one image next to each other.

        The latents are kept in float32 whatever the dtype of the network, whose input and output are cast: the steps
        of a solver are too small for 16 bits.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them):
                What the result is made from, one or many of one size: pictures or their paths, arrays `(H, W)`,
                `(H, W, C)` or `(N, H, W, C)`, or tensors `(H, W)`, `(C, H, W)` or `(N, C, H, W)`, of bytes or of
                floats in `[0, 1]`.
                Grayscale and colour are converted to what the network takes, transparent images are put on white if it
                takes no transparency, and pictures are turned upright by their EXIF tag. Sides that the network can't
                halve are padded by reflection, and cropped again. With a `conditioner`, label maps, as of
                [`read_label_map`]: numbers from 0 to K - 1, in pictures whatever their palette.
            task (`str`, *optional*):
                One of `tasks`. If not given, the arguments decide: `mask_image` means inpainting, `padding`
                uncropping, `scale_factor` or `height` and `width` super-resolution, a gray image colorization if the
                network does that, and otherwise the one task that is left. Colorization turns images gray by itself.
            mask_image (like `image`, or boxes, *optional*):
                White, 1 or `True` where pixels have to be made, of the size of the image, and black elsewhere; or
                painted in any colour on black or on transparent pixels; or a map of one label. Soft masks are cut at
                middle gray, which is logged. Or a box `(left, top, right, bottom)` of pixels, right and bottom
                excluded; or a list of one mask, box or list of boxes for each image. A list of boxes for a single
                image is one mask.
            padding (`tuple[int, int, int, int]`, *optional*):
                How many pixels to add at the left, top, right and bottom.
            scale_factor (`float`, *optional*, defaults to `default_scale_factor` of the pipeline):
                How much larger super-resolution makes images.
            height, width (`int`, *optional*):
                The size of the images that super-resolution makes, instead of `scale_factor`.
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one for all images or one for each.
            num_images_per_input (`int`, defaults to 1):
                The number of results for each image.
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
            strength (`float`, defaults to 1.0):
                Below 1, only this part of the steps is made, the last ones, starting from the image itself with noise
                (Meng et al. 2021, https://huggingface.co/papers/2108.01073). Masked pixels are then a first guess, and
                padding gets one from [`layered_fill`], or, if the network is shown mirrored images, from
                [`mirror_fill`] of the outermost quarters.
            eta (`float`, defaults to 0.0):
                Noise of a DDIM step, from 0 (none) to 1 (DDPM): eq. 16 of https://huggingface.co/papers/2010.02502.
            tile_size (`int`, *optional*):
                Predict images longer or wider than this in square tiles, blended in every step
                (Bar-Tal et al. 2023, https://huggingface.co/papers/2302.08113). The size of the training images is
                best.
            tile_overlap (`int`, *optional*, defaults to a quarter of `tile_size`):
                By how many pixels tiles overlap at least.
            tile_batch_size (`int`, defaults to 16):
                The number of tiles in a forward pass.
            seam_width (`int`, defaults to 0):
                Visible pixels so near to hidden ones fade into what the network made; 0 leaves all visible pixels
                unchanged. An autoencoder can change colours slightly, so that a hard seam can be seen.
            generator (`torch.Generator` or a list of one for each result, *optional*):
                Makes the images reproducible, on the CPU also for a network on another device. It draws the noise of
                hidden pixels in the conditioning image, then the latents, then what the scheduler needs.
            latents (`torch.Tensor`, *optional*):
                The noise of unit variance `(N, C, H, W)` to start from, instead of noise from `generator`; with a
                `vae`, in the size of its latents. In the first step the network sees given latents as they are, while
                in drawn ones, as in all other steps, visible pixels are clean.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, with the colour profile of the image, `"np"` for an array
                `(N, H, W, C)`, `"pt"` for a tensor `(N, C, H, W)`, both float32 in `[0, 1]`.
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
        >>> pipe = PalettePipeline.from_pretrained("user/restorer")
        >>> colored = pipe(gray_photo, task="colorization").images[0]
        >>> filled = pipe(photo, mask_image=(40, 40, 90, 80)).images[0]
        >>> wider = pipe(photo, padding=(32, 0, 32, 0), num_images_per_input=4).images
        ```
        """
        # 1. Images and checks
        tensor_names = get_callback_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs)
        check_positive_int("num_images_per_input", num_images_per_input)
        image = list_images("image", image)
        task, images, hidden = self.prepare_images(image, task, mask_image, padding, scale_factor, height, width)
        images, hidden, size = self._pad(images, hidden, tile_size)
        num_inputs, _, height, width = images.shape
        space = self._space
        height, width = (side // space.pixels_per_latent for side in (height, width))
        shape = (num_inputs * num_images_per_input, space.channels, height, width)
        if self.vae is None:
            check_latents(latents, (*shape[:2], *size))
            latents = None if latents is None else pad_images(latents, height, width)
        self.check_inputs(
            shape,
            class_labels,
            num_inference_steps,
            timesteps,
            sigmas,
            guidance_scale,
            strength,
            eta,
            tile_size,
            tile_overlap,
            tile_batch_size,
            seam_width,
            generator,
            latents,
            output_type,
            tensor_names,
        )
        device = self._execution_device
        self._interrupt = False

        # 2. Conditions: the conditioning image, and the class if the network takes one
        original_images = images.to(device).repeat_interleave(num_images_per_input, dim=0)
        if hidden is not None:
            hidden = hidden.to(device).repeat_interleave(num_images_per_input, dim=0)
        keeps_pixels = hidden is not None and parse_task(task).keeps_pixels
        # Latents have no pixels to keep on the way.
        keeps_samples = keeps_pixels and self.vae is None
        images = original_images * 2 - 1
        conditioning = self._prepare_shown_images(images, hidden, generator)
        labels = self._prepare_labels(class_labels, num_inputs, num_images_per_input, device)
        conditions = {"conditioning": (conditioning, torch.zeros_like(conditioning)), "class_labels": (labels, labels)}

        # 3. Timesteps and latents
        timesteps = set_timesteps(
            self.scheduler,
            device,
            self.config.default_num_inference_steps,
            num_inference_steps,
            timesteps,
            sigmas,
            strength,
        )
        self._num_timesteps = len(timesteps)
        noise_levels = get_noise_levels(self.scheduler, timesteps, self.config.noise_conditioning)
        sees_latents_as_given = latents is not None and strength == 1
        latents = self.prepare_latents(shape, device, generator, latents, images, hidden, strength, timesteps[0])

        # 4. How to predict, and how to step
        guider = build_guider(self.guider, guidance_scale)
        self._guidance_scale = get_guidance_scale(guider)
        tiling = plan_tiling(tile_size, tile_overlap, tile_batch_size, height, width, space.pixels_per_latent)
        dtype, with_variance = self.unet.dtype, reads_variance(self.scheduler)
        step_kwargs = get_step_arguments(self.scheduler, eta=eta, generator=generator)

        # 5. Denoising: visible pixels are the clean ones in every step
        with self.progress_bar(total=len(timesteps)) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    break
                guider = follow_guidance_scale(guider, self._guidance_scale)
                guider.set_state(step=i, num_inference_steps=len(timesteps), timestep=t)
                sample = scale_input(self.scheduler, latents, t)
                if keeps_samples and not (i == 0 and sees_latents_as_given):
                    # The network was trained to see these pixels clean, but some schedulers scale them.
                    sample = torch.where(hidden, sample, images)
                forward = partial(self._run_unet, noise_levels[i], dtype, tiling)
                inputs = {"sample": sample, **conditions}
                noise_pred = predict(guider, self.unet, forward, inputs, space.channels, with_variance)
                latents = self.scheduler.step(noise_pred, t, latents, **step_kwargs, return_dict=False)[0]
                if keeps_samples:
                    latents = torch.where(hidden, latents, images)
                tensors = {"latents": latents, "noise_pred": noise_pred}
                latents = call_back(self, callback_on_step_end, tensor_names, i, t, tensors)
                progress_bar.update()

        # 6. Images
        results = denormalize(space.decode(latents))
        if keeps_pixels:
            results = blend_hidden(results, original_images, hidden, seam_width)
        self.maybe_free_model_hooks()
        results = to_output(results[..., : size[0], : size[1]], output_type)
        if output_type == "pil" and "translation" not in parse_task(task).parts:
            carry_profiles(results, image)
        return ImagePipelineOutput(images=results) if return_dict else (results,)

    def panorama(
        self,
        image: ImageInput | list[ImageInput],
        width: int,
        side: str = "both",
        window_width: int | None = None,
        blend_width: float | None = None,
        class_labels: ClassLabels | None = None,
        num_images_per_input: int = 1,
        output_type: str = "pil",
        return_dict: bool = True,
        **kwargs,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Makes images wider by uncropping again and again: each window shows the network the last half window of an end,
        and three quarters of what it makes beyond are kept.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them):
                As in `__call__`: the panorama contains it unchanged.
            width (`int`):
                The width of the panorama in pixels.
            side (`str`, defaults to `"both"`):
                Where to add pixels: `"left"`, `"right"` or `"both"`, which is the same number at either end.
            window_width (`int`, *optional*, defaults to the width of `sample_size` of the network):
                The width of the images that the network uncrops.
            blend_width (`float`, *optional*, defaults to a quarter of `window_width`):
                The difference of colour at a seam is removed, and the correction fades by e within so many pixels. If
                the network is shown mirrored images, these pass into what it makes within half as many. 0 leaves what
                it makes unchanged.
            class_labels, num_images_per_input, output_type, return_dict:
                As in `__call__`.
            kwargs:
                Other arguments of `__call__` for every window, such as `num_inference_steps` and `generator`.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the panoramas, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.
        """
        check_output_type(output_type, self.config.image_channels)
        check_positive_int("num_images_per_input", num_images_per_input)
        image = list_images("image", image)
        images = self._read_images(image)
        images = torch.stack([fit_channels("image", entry, self._conditioning_channels) for entry in images])
        if class_labels is not None:
            self._check_classes(class_labels)
            class_labels = np.repeat(self.get_label_ids(class_labels, len(images)), num_images_per_input)
        if window_width is None:
            _, _, window_width = self.image_shape
        check_positive_int("window_width", window_width)
        blend_width = window_width / 4 if blend_width is None else blend_width
        check_panorama(images.shape[3], width, side, window_width, blend_width)

        kwargs = {"task": "uncropping", "class_labels": class_labels, "output_type": "pt", **kwargs}
        blend = blend_mirrored if self.config.conditioning_fill == "mirror" else blend_seam
        images = widen(
            images.repeat_interleave(num_images_per_input, dim=0).to(self._execution_device),
            width,
            side,
            window_width,
            uncrop=lambda shown, padding: self(shown, padding=padding, **kwargs).images,
            blend=partial(blend, width=blend_width),
        )
        images = to_output(images, output_type)
        if output_type == "pil":
            carry_profiles(images, image)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    # Inputs

    def prepare_images(
        self,
        image: ImageInput | list[ImageInput],
        task: str | None = None,
        mask_image: ImageInput | Box | list | None = None,
        padding: Box | None = None,
        scale_factor: float | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> tuple[str, torch.Tensor, torch.Tensor | None]:
        """
        Reads the arguments of `__call__` of these names.

        Returns:
            `tuple`: the task; the images that the network is shown, float32 `(N, C, H, W)` in `[0, 1]`, at the size of
            the result; and where they are hidden and pixels have to be made, bool `(N, 1, H, W)`, or `None`.

        Raises:
            ValueError: for input that cannot be carried out.
        """
        images, has_size = self._read_images(image), any(value is not None for value in (scale_factor, height, width))
        task = choose_task(task, self.config.tasks, images, mask_image is not None, padding is not None, has_size)
        default_scale_factor, channels = self.config.default_scale_factor, self._conditioning_channels
        check_task_arguments(task, mask_image, padding, scale_factor, height, width, default_scale_factor)
        if (mask_image is not None or padding is not None) and channels != self.config.image_channels:
            raise ValueError(
                f"The network cannot keep pixels, because it sees images of {channels} channels and makes images of "
                f"{self.config.image_channels}."
            )

        images = torch.stack([fit_channels("image", entry, channels) for entry in images])
        if self.conditioner is not None:
            check_labels("image", images, self.conditioner.config.in_channels)
        if task.enlarges:
            scale_factor = default_scale_factor if scale_factor is None else scale_factor
            size = get_enlarged_size(tuple(images.shape[2:]), scale_factor, height, width)
            images = images if size == images.shape[2:] else enlarge_images(images, size)
        if task.removes_color and channels == 3:
            images = to_gray(images).expand(-1, 3, -1, -1)
        hidden = None
        if mask_image is not None:
            hidden = read_masks(mask_image, len(images), *images.shape[2:]).to(images.device)
        elif padding is not None:
            images, hidden = fill_padding(images, padding, is_mirrored=self.config.conditioning_fill == "mirror")
        return task.name, images, hidden

    def _read_images(self, image: ImageInput | list[ImageInput]) -> list[torch.Tensor]:
        """Each image as float32 `(C, H, W)` in `[0, 1]` with its own channels, all of one size."""
        read = read_image if self.conditioner is None else read_label_map
        images = [read("image", entry) for entry in list_images("image", image)]
        check_one_size(images)
        return images

    def get_label_ids(self, class_labels: ClassLabels, num_images: int) -> list[int]:
        r"""
        The class id of each image, by labels given by id or by a name in `id2label`, one for all or one per image.

        Raises:
            ValueError: for an unknown or ambiguous label, or another number of them.
        """
        num_labels, null_class_label = self.unet.config.get("num_class_embeds"), self.config.null_class_label
        return look_up_labels(class_labels, self.config.id2label, num_labels, (null_class_label,), num_images)

    def _prepare_labels(
        self, class_labels: ClassLabels | None, num_inputs: int, num_images_per_input: int, device: torch.device
    ) -> torch.Tensor | None:
        """The label of each result, `(N,)`; `None` for a network without classes."""
        if not takes_classes(self.unet):
            return None
        ids = [self.config.null_class_label] * num_inputs
        if class_labels is not None:
            ids = self.get_label_ids(class_labels, num_inputs)
        return torch.tensor(ids, device=device).repeat_interleave(num_images_per_input)

    def _pad(
        self, images: torch.Tensor, hidden: torch.Tensor | None, tile_size: int | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, tuple[int, int]]:
        """Images and their hidden pixels with sides that the network can halve, and the size to crop to in the end."""
        size, multiple, factor = tuple(images.shape[2:]), self._side_multiple, self._space.pixels_per_latent
        tile_size = tile_size if is_integer(tile_size) else None
        padded = [round_up(side, tile_size, multiple, factor) for side in size]
        if hidden is not None:
            hidden = pad_images(hidden.float(), *padded) > 0
        return pad_images(images, *padded), hidden, size

    def _prepare_shown_images(
        self,
        images: torch.Tensor,
        hidden: torch.Tensor | None,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> torch.Tensor:
        """What the network is shown of images `(N, C, H, W)` in `[-1, 1]`, whose hidden pixels are covered."""
        if hidden is not None and self.config.conditioning_fill != "noise":
            images = SHOWN_FILLS[self.config.conditioning_fill](images, hidden)
        elif hidden is not None:
            noise = randn_tensor(images.shape, generator=generator, device=images.device, dtype=torch.float32)
            images = torch.where(hidden, noise, images)
        images = encode_shown(self._space, self.config.conditioning_encoding, images, hidden, self._mask_channels > 0)
        if self.conditioner is not None:
            maps = one_hot_labels(images, self.conditioner.config.in_channels)
            images = self.conditioner(maps.to(self.conditioner.dtype)).float()
        return F.pad(images, (0, 0, 0, 0, 0, self._level_channels))  # the noise level is 0

    def prepare_latents(
        self,
        shape: tuple[int, int, int, int],
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        images: torch.Tensor,
        hidden: torch.Tensor | None,
        strength: float,
        timestep: torch.Tensor,
    ) -> torch.Tensor:
        """What sampling starts from, `(N, C, H, W)`: noise, or images in `[-1, 1]` with the noise of `timestep`."""
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        noise = latents.to(device, torch.float32)
        if self.config.source_noise is not None:
            source = images if hidden is None else smooth_fill(images, hidden)
            noise = source + self.config.source_noise * noise
        if strength == 1:
            return noise * getattr(self.scheduler, "init_noise_sigma", 1.0)
        return add_noise(self.scheduler, self._space.encode(images), noise, timestep.expand(len(noise)))

    def _run_unet(
        self,
        noise_level: torch.Tensor,
        dtype: torch.dtype,
        tiling: Tiling | None,
        sample: torch.Tensor,
        conditioning: torch.Tensor,
        class_labels: torch.Tensor | None,
    ) -> torch.Tensor:
        """The output of the network for noisy images, float32 `(n, C, H, W)` or `(n, 2C, H, W)`."""

        def forward(sample, class_labels):
            return run_network(self.unet, sample, noise_level, dtype, class_labels=class_labels)

        sample = torch.cat([conditioning, sample], dim=1)
        if tiling is None:
            return forward(sample, class_labels)
        return predict_tiled(forward, sample, class_labels, tiling)

    # Properties

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels, height and width of the images that the network was trained for."""
        return (self.config.image_channels, *self._image_sides)

    @property
    def _level_channels(self) -> int:
        """1 if the network is given the noise level of the conditioning image in a channel of its own, otherwise 0."""
        return 1 if self.config.conditioning_augmentation > 0 else 0

    @property
    def _shown_channels(self) -> int:
        """The channels that the network has for the conditioning image and perhaps a mask."""
        return self.unet.config.in_channels - self._space.channels - self._level_channels

    @property
    def _mask_channels(self) -> int:
        """1 if the network takes the mask as a channel, which networks for latents do if pixels are hidden."""
        encoding, has_mask = self.config.conditioning_encoding, self.config.conditioning_mask
        if self.vae is None or has_mask is not None:
            return int(bool(has_mask))
        if encoding == "latents":
            return self._shown_channels - self._space.channels
        return self._shown_channels % self._space.pixels_per_latent**2 if encoding == "pixels" else 0

    @property
    def _conditioning_channels(self) -> int:
        """The channels of conditioning images."""
        encoding, shown = self.config.conditioning_encoding, self._shown_channels - self._mask_channels
        return count_image_channels(self._space, encoding, shown)

    # Checks

    def _check_configuration(self):
        config, network = self.config, self.unet.config
        check_choice("noise_conditioning", config.noise_conditioning, NOISE_CONDITIONINGS)
        check_choice("conditioning_fill", config.conditioning_fill, ("noise", *SHOWN_FILLS))
        check_choice("conditioning_encoding", config.conditioning_encoding, CONDITIONING_ENCODINGS)
        check_fraction("conditioning_augmentation", config.conditioning_augmentation)
        is_of_labels = self.vae is not None and config.conditioning_encoding == "labels"
        if is_of_labels != (self.conditioner is not None):
            raise ValueError(
                "`conditioner` and `conditioning_encoding` 'labels' need each other, and a `vae`: they are for label "
                "maps beside latents."
            )
        if self.vae is not None:
            self._check_latents_fit()
        channels, conditioning_channels = self._space.channels, self._conditioning_channels
        if conditioning_channels < 1 or network.out_channels not in (channels, 2 * channels):
            raise ValueError(
                f"A network of {network.in_channels} input and {network.out_channels} output channels cannot make "
                f"images of {channels} channels from others: it needs conditioning channels before the noisy ones."
            )
        if config.source_noise is not None:
            if not is_number(config.source_noise) or config.source_noise <= 0:
                raise ValueError(f"`source_noise` must be above 0, but is {config.source_noise!r}.")
            self._check_start("`source_noise` must be left out")
        num_labels = network.get("num_class_embeds")
        check_label_range("id2label", config.id2label or (), num_labels)
        check_label_range("null_class_label", (config.null_class_label,), num_labels)
        check_positive_int("default_num_inference_steps", config.default_num_inference_steps)
        if config.default_scale_factor is not None:
            check_scale_factor("default_scale_factor", config.default_scale_factor)

    def _check_latents_fit(self):
        """Refuses a network that does not fit the latents, and options that are for pixels."""
        if self.config.source_noise is not None:
            raise ValueError("`source_noise` must be left out with a `vae`: it is for images of pixels.")
        if self.conditioner is not None:
            self._check_conditioner()
        elif self._shown_channels < 1 or self._mask_channels not in (0, 1):
            channels, shown = self._space.channels, self.unet.config.in_channels - self._level_channels
            raise ValueError(
                f"`unet` has {shown} input channels, but latents of {channels} channels of `vae` and a conditioning "
                f"image as {self.config.conditioning_encoding!r}, perhaps with a mask, are another number."
            )

    def _check_conditioner(self):
        """Refuses a network of label maps that does not fit the denoiser."""
        makes = self.conditioner.config.out_channels or self.conditioner.config.in_channels
        if makes != self._shown_channels or self._mask_channels or self._level_channels:
            channels, takes = self._space.channels, self.unet.config.in_channels
            raise ValueError(
                f"`unet` has {takes} input channels, but latents of {channels} channels of `vae` and label maps of "
                f"{makes} channels of `conditioner`, without a mask, are another number."
            )

    def _check_start(self, remedy: str):
        """Refuses, with `remedy`, to start from images if they have other channels than those to be made."""
        if self.conditioner is not None:
            raise ValueError(f"{remedy}, because label maps cannot be a start for images.")
        if self._conditioning_channels != self.config.image_channels:
            raise ValueError(
                f"{remedy}, because images of {self._conditioning_channels} channels cannot be a start for images of "
                f"{self.config.image_channels}."
            )

    def check_inputs(
        self,
        shape: tuple[int, int, int, int],
        class_labels: ClassLabels | None,
        num_inference_steps: int | None,
        timesteps: list[int] | None,
        sigmas: list[float] | None,
        guidance_scale: float | None,
        strength: float,
        eta: float,
        tile_size: int | None,
        tile_overlap: int | None,
        tile_batch_size: int,
        seam_width: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        callback_on_step_end_tensor_inputs: list[str],
    ):
        """Refuses, with a `ValueError` of one sentence, what the call could not carry out; `shape` is the result's."""
        self._check_classes(class_labels)
        check_needs_no_classifier(self.guider)
        check_guidance_scale(guidance_scale, self.guider)
        check_schedule(self.scheduler, num_inference_steps, timesteps, sigmas, eta)
        check_noise_conditioning(self.config.noise_conditioning, self.scheduler)
        if self.config.source_noise is not None and not is_flow(self.scheduler):
            raise ValueError(
                "The network is trained for a flow that starts from the image, but the pipeline's "
                f"{type(self.scheduler).__name__} is for diffusion."
            )
        takes_any_levels = self.config.noise_conditioning != "timestep"
        self._trained_processes["unet"].check(self.unet, self.scheduler, takes_any_levels)
        check_strength(strength, self.scheduler)
        if strength < 1:
            self._check_start("`strength` must be 1")
        check_tiling(tile_size, tile_overlap, tile_batch_size, self._side_multiple)
        if not is_integer(seam_width) or seam_width < 0:
            raise ValueError(f"`seam_width` must be a number of pixels, but is {seam_width!r}.")
        check_latents(latents, shape)
        check_generator(generator, shape[0])
        check_output_type(output_type, self.config.image_channels)
        check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)

    def _check_classes(self, class_labels: ClassLabels | None):
        check_class_labels_given(class_labels, takes_classes(self.unet), self.config.null_class_label)
