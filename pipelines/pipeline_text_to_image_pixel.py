"""Images from texts, by a diffusion or flow-matching network of pixels: GLIDE, Imagen and their relatives."""

from functools import partial

import torch
from diffusers import (
    BaseGuidance,
    DiffusionPipeline,
    ImagePipelineOutput,
    ModelMixin,
    SchedulerMixin,
    UNet2DConditionModel,
)
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .checks import (
    check_callback_inputs,
    check_fraction,
    check_generator,
    check_latents,
    check_multiple,
    check_output_type,
    check_positive_int,
    check_small_input,
)
from .conditioning_augmentation import add_conditioning_noise, check_conditioning_noise
from .denoising import (
    DenoisingCallMixin,
    StepCallback,
    build_guider,
    check_guidance_scale,
    check_needs_no_classifier,
    denoise,
    draw_latents,
    get_callback_inputs,
    get_guidance_scale,
    run_network,
)
from .images import ImageInput, check_one_size, denormalize, fit_channels, list_images, read_image, to_output
from .known_pixels import keep_known_pixels
from .networks import get_sample_size, get_size_multiple
from .processes import TrainedProcessMixin
from .prompts import (
    NOISE_LEVELS,
    check_text_encoder,
    encode_tokens,
    get_max_length,
    list_prompts,
    tokenize_prompts,
)
from .schedules import check_schedule, set_timesteps


class TextToImagePixelPipeline(TrainedProcessMixin, DenoisingCallMixin, DiffusionPipeline):
    r"""
    Makes images from texts with a denoiser of pixels, as GLIDE (Nichol et al. 2021,
    https://huggingface.co/papers/2112.10741) and Imagen (Saharia et al. 2022,
    https://huggingface.co/papers/2205.11487).

    There are three kinds of networks, which `in_channels` of their configuration and `shows_known_pixels` tell apart.
    A *base model* sees only the noisy image and the text. A *super-resolver* also sees a small image, enlarged: with a
    base model before it, it makes a cascade. An *inpainting model* also sees the known part of an image. A
    super-resolver can be an inpainting model, too.

    The prediction without text is that for the empty prompt, or for a `negative_prompt`. Large guidance scales drive
    pixels out of range, which *dynamic thresholding* (Imagen, section 2.3) counters. It is an option of diffusers'
    schedulers: `thresholding=True`, `dynamic_thresholding_ratio=0.995` and a large `sample_max_value`. With the
    default `sample_max_value=1.0`, thresholding is plain clipping to `[-1, 1]`.

    Args:
        unet ([`UNet2DConditionModel`]):
            The denoiser, or any model with the same call: `unet(sample, timesteps, encoder_hidden_states,
            class_labels=..., return_dict=False)`. Its `sample` is the noisy image `(N, C, H, W)`, then, for an
            inpainting model, the known pixels `(N, C, H, W)` in `[-1, 1]`, 0 where they are unknown, and the mask
            `(N, 1, H, W)`, 1 where they are known; then, for a super-resolver, the small image `(N, C, H, W)`. Where
            `class_embed_type` is `"identity"` or a projection, `class_labels` is the text as a whole, `pooler_output`
            of the text encoder. Where it is `"timestep"`, it is 1000 times the level of the noise in the small image.
            An [`ImagenUNet`] also gets the `encoder_attention_mask` of the tokens, which hides the empty prompt.
        scheduler ([`SchedulerMixin`]):
            The noise schedule and the solver. The scheduler with which the pipeline is built or was saved defines what
            the network predicts, and other schedulers must fit this.
        tokenizer ([`PreTrainedTokenizerBase`]):
            Makes tokens of prompts.
        text_encoder ([`PreTrainedModel`] or [`ModelMixin`]):
            Any text encoder of transformers, such as [`T5EncoderModel`] or [`CLIPTextModel`], or [`GlideTextModel`]:
            `text_encoder(input_ids=..., attention_mask=...)` has a `last_hidden_state` `(N, L, D)`.
        guider ([`BaseGuidance`], *optional*):
            How the predictions with and without text are combined. Without a guider, a `guidance_scale` in the call
            means plain classifier-free guidance.
        image_channels (`int`, defaults to 3):
            C, the channels of the images.
        max_prompt_length (`int`, *optional*):
            The length in tokens that prompts are filled up to; by default that of the tokenizer and text encoder.
        shows_known_pixels (`bool`, defaults to `False`):
            Whether the network is an inpainting model.
        conditioning_augmentation (`float`, defaults to 0.0):
            The highest level s of the noise in small images, `sqrt(1 - s**2) image + s noise`, that a super-resolver
            was trained for (Imagen, section 2.4; Ho et al. 2022, https://huggingface.co/papers/2106.15282).
        default_num_inference_steps (`int`, defaults to 50):
            The number of steps of a call without `num_inference_steps`.
        trained_processes (`dict[str, dict]`, *optional*):
            The noise process of the network's training, as `save_pretrained` writes it; by default the scheduler's.

    Raises:
        ValueError: if the components do not fit each other, or an option is out of range.
    """

    pipeline_tag = "text-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "text_encoder->unet"
    _optional_components = ["guider"]
    _callback_tensor_inputs = ["latents", "noise_pred"]

    def __init__(
        self,
        unet: UNet2DConditionModel | ModelMixin,
        scheduler: SchedulerMixin,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: PreTrainedModel | ModelMixin,
        guider: BaseGuidance | None = None,
        image_channels: int = 3,
        max_prompt_length: int | None = None,
        shows_known_pixels: bool = False,
        conditioning_augmentation: float = 0.0,
        default_num_inference_steps: int = 50,
        trained_processes: dict[str, dict] | None = None,
    ):
        super().__init__()
        check_text_encoder(tokenizer, text_encoder, unet)
        get_max_length(tokenizer, text_encoder, max_prompt_length)
        check_positive_int("image_channels", image_channels)
        check_fraction("conditioning_augmentation", conditioning_augmentation)
        check_positive_int("default_num_inference_steps", default_num_inference_steps)
        self.register_modules(
            unet=unet, scheduler=scheduler, tokenizer=tokenizer, text_encoder=text_encoder, guider=guider
        )
        self.register_to_config(
            image_channels=image_channels,
            max_prompt_length=max_prompt_length,
            shows_known_pixels=shows_known_pixels,
            conditioning_augmentation=conditioning_augmentation,
            default_num_inference_steps=default_num_inference_steps,
        )
        self._check_channels()
        if conditioning_augmentation > 0 and not self._takes_noise_level:
            raise ValueError(
                "`conditioning_augmentation` is for a super-resolver that is told the noise level, by "
                '`class_embed_type="timestep"`.'
            )
        self._remember_processes({"unet": "scheduler"}, trained_processes)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] = "",
        low_res_image: ImageInput | list[ImageInput] | None = None,
        image: ImageInput | list[ImageInput] | None = None,
        mask_image: ImageInput | list[ImageInput] | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float | None = None,
        conditioning_noise_level: float | None = None,
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
        Makes `len(prompt) * num_images_per_prompt` images; images of one prompt are next to each other.

        The latents are float32 whatever the dtype of the network, and are cast for it: the steps of a solver are too
        small for 16 bits.

        Args:
            prompt (`str` or `list[str]`):
                The texts to make images of.
            negative_prompt (`str` or `list[str]`, defaults to `""`):
                What guidance leads away from: one for all prompts or one for each.
            low_res_image (an image or a list of them, *optional*):
                For a super-resolver, the small images, one for each prompt: pictures, paths, arrays `(H, W, C)` or
                tensors `(C, H, W)` in `[0, 1]`.
            image (an image or a list of them, *optional*):
                For an inpainting model, the images with a known part, one for each prompt. Without it nothing is
                known.
            mask_image (an image or a list of them, *optional*):
                Where these images are unknown: white, or 1, is to be made, black is known.
            num_images_per_prompt (`int`, defaults to 1):
                The number of images for each prompt.
            num_inference_steps (`int`, *optional*, defaults to `default_num_inference_steps` of the pipeline):
                The number of denoising steps.
            timesteps (`list[int]`, *optional*):
                Descending timesteps to use instead, with a scheduler that takes them.
            sigmas (`list[float]`, *optional*):
                Descending noise levels to use instead, with a scheduler that takes them.
            guidance_scale (`float`, *optional*):
                The scale of the guider, or of plain classifier-free guidance in a pipeline without one; 1 is the
                prediction with text alone. If not given, the guider keeps its own scale, and a pipeline without guider
                does not guide.
            conditioning_noise_level (`float`, *optional*, defaults to half of `conditioning_augmentation`):
                The level s of the noise that is added to small images, from 0 to `conditioning_augmentation`.
            eta (`float`, defaults to 0.0):
                Noise of a DDIM step, from 0 (none) to 1 (DDPM).
            height, width (`int`, *optional*, default to `sample_size` of the network):
                The size of the images in pixels.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible, on the CPU also for a network on another device.
            latents (`torch.Tensor` of shape `(N, C, H, W)`, *optional*):
                The noise of unit variance to start from, instead of one drawn from `generator`.
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
        >>> base = TextToImagePixelPipeline.from_pretrained("user/digits-16px")
        >>> super_resolver = TextToImagePixelPipeline.from_pretrained("user/digits-32px")
        >>> small = base("two red sevens", guidance_scale=3.0).images
        >>> images = super_resolver("two red sevens", low_res_image=small).images
        ```
        """
        callback_inputs = get_callback_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs)

        # 1. Defaults and checks
        _, default_height, default_width = self.image_shape
        size = (default_height if height is None else height, default_width if width is None else width)
        prompts = list_prompts("prompt", prompt)
        negative_prompts = list_prompts("negative_prompt", negative_prompt, len(prompts))
        check_positive_int("num_images_per_prompt", num_images_per_prompt)
        num_images = len(prompts) * num_images_per_prompt
        if conditioning_noise_level is None:
            conditioning_noise_level = self.config.conditioning_augmentation / 2
        self.check_inputs(
            num_images,
            num_inference_steps,
            timesteps,
            sigmas,
            guidance_scale,
            conditioning_noise_level,
            eta,
            *size,
            generator,
            latents,
            output_type,
            callback_inputs,
        )
        low_res = self._read_low_res(low_res_image, len(prompts))
        known, mask = self._read_known(image, mask_image, len(prompts), size)
        device, channels = self._execution_device, self.config.image_channels
        self._interrupt = False

        # 2. Texts
        conditions = self.encode_prompts(prompts, negative_prompts, num_images_per_prompt)

        # 3. Timesteps and guidance
        timesteps = set_timesteps(
            self.scheduler,
            device,
            self.config.default_num_inference_steps,
            num_inference_steps=num_inference_steps,
            timesteps=timesteps,
            sigmas=sigmas,
        )
        self._num_timesteps = len(timesteps)
        guider = build_guider(self.guider, guidance_scale)
        self._guidance_scale = get_guidance_scale(guider)

        # 4. What the network sees beside the noisy image
        shown, correct = [], None
        if known is not None:
            known, mask = (x.repeat_interleave(num_images_per_prompt, dim=0).to(device) for x in (known, mask))
            shown += [known * mask, mask]
            correct = partial(keep_known_pixels, self.scheduler, known=known, mask=mask)
        if low_res is not None:
            low_res = low_res.repeat_interleave(num_images_per_prompt, dim=0).to(device)
            if self._takes_noise_level:
                low_res = add_conditioning_noise(low_res, conditioning_noise_level, generator)
                level = NOISE_LEVELS * conditioning_noise_level
                conditions["class_labels"] = torch.full((num_images,), level, device=device)
            shown.append(F.interpolate(low_res, size, mode="bilinear"))
        if shown:
            conditions["shown"] = torch.cat(shown, dim=1)

        # 5. Denoising
        latents = draw_latents(self.scheduler, (num_images, channels, *size), device, generator, latents)
        latents = denoise(
            self,
            self.unet,
            guider,
            timesteps,
            latents,
            partial(self._predict_for_texts, dtype=self.unet.dtype),
            conditions,
            eta=eta,
            generator=generator,
            callback=callback_on_step_end,
            callback_inputs=callback_inputs,
            correct=correct,
        )

        # 6. Images
        images = to_output(denormalize(latents), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def encode_prompts(
        self, prompts: list[str], negative_prompts: list[str], num_images_per_prompt: int = 1
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """
        What the network is told of prompts, as in [`encode_tokens`]: each a tuple of that for the prompts and that
        for the negative prompts, with a row per image.
        """
        length = get_max_length(self.tokenizer, self.text_encoder, self.config.max_prompt_length)
        texts = [*prompts, *negative_prompts]
        ids, mask = tokenize_prompts(self.tokenizer, texts, length)
        device = self._execution_device
        told = encode_tokens(self.text_encoder, self.unet, texts, ids.to(device), mask.to(device))
        dtype = self.unet.dtype
        return {
            name: tuple(part.repeat_interleave(num_images_per_prompt, dim=0).to(dtype) for part in states.chunk(2))
            for name, states in told.items()
        }

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels, height and width of the images of a call without `height` and `width`."""
        return (self.config.image_channels, *get_sample_size(self.unet))

    @property
    def is_super_resolver(self) -> bool:
        """Whether the network enlarges small images."""
        return self.unet.config.in_channels - self._inpainting_channels == 2 * self.config.image_channels

    @property
    def _inpainting_channels(self) -> int:
        return self.config.image_channels + 1 if self.config.shows_known_pixels else 0

    @property
    def _takes_noise_level(self) -> bool:
        return self.is_super_resolver and self.unet.config.get("class_embed_type") == "timestep"

    def _predict_for_texts(self, sample: torch.Tensor, shown: torch.Tensor | None = None, **inputs) -> torch.Tensor:
        """The output of the denoiser; see [`run_network`]."""
        if shown is not None:
            sample = torch.cat([sample, shown], dim=1)
        return run_network(self.unet, sample, **inputs)

    def _read_low_res(self, low_res_image, count: int) -> torch.Tensor | None:
        """The small images `(count, C, h, w)` in `[-1, 1]`, rounded to bytes as the pictures of a training."""
        check_small_input("low_res_image", low_res_image, self.is_super_resolver)
        if low_res_image is None:
            return None
        return (self._read("low_res_image", low_res_image, count) * 255).round() / 127.5 - 1

    def _read_known(
        self, image, mask_image, count: int, size: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor] | tuple[None, None]:
        """The images `(count, C, H, W)` in `[-1, 1]`, and the mask `(count, 1, H, W)`, 1 where they are known."""
        if not self.config.shows_known_pixels:
            if image is not None or mask_image is not None:
                raise ValueError("`image` and `mask_image` must be left out: this pipeline is no inpainting model.")
            return None, None
        if (image is None) != (mask_image is None):
            raise ValueError("`image` and `mask_image` need each other.")
        if image is None:
            return torch.zeros(count, self.config.image_channels, *size), torch.zeros(count, 1, *size)
        known = self._read("image", image, count) * 2 - 1
        mask = self._read("mask_image", mask_image, count, channels=1)
        for name, pixels in (("image", known), ("mask_image", mask)):
            if tuple(pixels.shape[2:]) != size:
                raise ValueError(f"`{name}` must have the size {size} of the result, but has {pixels.shape[2:]}.")
        return known, (mask < 0.5).float()

    def _read(self, name: str, images, count: int, channels: int | None = None) -> torch.Tensor:
        """Images `(count, C, H, W)` in `[0, 1]`; a single one is for all prompts."""
        channels = self.config.image_channels if channels is None else channels
        read = [fit_channels(name, read_image(name, image), channels) for image in list_images(name, images)]
        if len(read) not in (1, count):
            raise ValueError(f"`{name}` must be one image or {count}, one per prompt, but is {len(read)}.")
        check_one_size(read)
        return torch.stack(read * count if len(read) == 1 else read)

    def _check_channels(self):
        config, channels = self.unet.config, self.config.image_channels
        images = config.in_channels - self._inpainting_channels
        if images not in (channels, 2 * channels) or config.out_channels not in (channels, 2 * channels):
            raise ValueError(
                f"`unet` has {config.in_channels} input and {config.out_channels} output channels, which are no base "
                "model, super-resolver or inpainting model."
            )

    def check_inputs(
        self,
        num_images: int,
        num_inference_steps: int | None,
        timesteps: list[int] | None,
        sigmas: list[float] | None,
        guidance_scale: float | None,
        conditioning_noise_level: float,
        eta: float,
        height: int,
        width: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        callback_on_step_end_tensor_inputs: list[str],
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        check_needs_no_classifier(self.guider)
        check_guidance_scale(guidance_scale, self.guider)
        check_conditioning_noise(conditioning_noise_level, self.config.conditioning_augmentation)
        self._trained_processes["unet"].check(self.unet, self.scheduler)
        check_schedule(self.scheduler, num_inference_steps, timesteps, sigmas, eta)
        for name, side in (("height", height), ("width", width)):
            check_positive_int(name, side)
            check_multiple(f"`{name}`", side, get_size_multiple(self.unet))
        check_latents(latents, (num_images, self.config.image_channels, height, width))
        check_generator(generator, num_images)
        check_output_type(output_type, self.config.image_channels)
        check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
