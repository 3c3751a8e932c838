"""Films of pixels from a text, by a diffusion or flow-matching network of space and time."""

from functools import partial

import torch
from diffusers import BaseGuidance, DiffusionPipeline, SchedulerMixin, UNet3DConditionModel, UNetMotionModel
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
from .films import FilmInput, FilmPipelineOutput, enlarge_films, read_films, to_films
from .images import denormalize
from .networks import get_sample_size, get_size_multiple
from .processes import TrainedProcessMixin
from .prompts import (
    check_text_encoder,
    encode_film_tokens,
    film_inputs,
    get_max_length,
    list_prompts,
    tokenize_prompts,
)
from .schedules import check_schedule, set_timesteps


class TextToVideoPixelPipeline(TrainedProcessMixin, DenoisingCallMixin, DiffusionPipeline):
    r"""
    Generates films of pixels from texts, in the way of Imagen Video (Ho et al. 2022,
    https://huggingface.co/papers/2210.02303): by a U-Net whose layers see the frames one by one or, where they attend
    over time, each pixel in all frames.

    There are two kinds of networks, which `in_channels` of their configuration tells apart. A *base model* sees only
    the noisy film and the text. A *super-resolver* also sees a film of fewer pixels or frames, enlarged: with a base
    model before it, it makes a cascade.

    Guidance is a guider: classifier-free guidance (Ho & Salimans 2022) or a relative of it, whose unconditional
    prediction is that for an empty text.

    Args:
        unet ([`UNetMotionModel`] or [`UNet3DConditionModel`]):
            The denoiser: `unet(sample, timesteps, encoder_hidden_states=..., return_dict=False)` with `sample`
            `(N, C, F, H, W)` and `timesteps` `(N,)` returns a tuple whose first entry is `(N, C, F, H, W)`. Pixels are
            in `[-1, 1]`. For a super-resolver, the channels of the enlarged small film follow in `sample`. What it is
            told beside the states of the text is described at `film_inputs` in `prompts.py`.
        scheduler ([`SchedulerMixin`]):
            The noise schedule and the solver. The scheduler with which the pipeline is built or was saved defines what
            the network predicts, and other schedulers must fit this.
        text_encoder ([`PreTrainedModel`]):
            Any encoder of transformers whose output has a `last_hidden_state`, such as a [`CLIPTextModel`] or a
            [`T5EncoderModel`].
        tokenizer ([`PreTrainedTokenizerBase`]):
            The encoder's tokenizer; prompts are filled up to its `model_max_length` or what the encoder reads.
        guider ([`BaseGuidance`], *optional*):
            How the predictions with and without the text are combined. Without a guider, a `guidance_scale` in the
            call means plain classifier-free guidance.
        image_channels (`int`, *optional*, defaults to `in_channels` of the network):
            C, the channels of the frames.
        conditioning_augmentation (`float`, defaults to 0.0):
            The highest level s of the noise in small films, `sqrt(1 - s**2) film + s noise`, that a super-resolver was
            trained for.
        default_num_frames (`int`, defaults to 16):
            The frames of a film of a call without `num_frames`.
        default_num_inference_steps (`int`, defaults to 50):
            The number of steps of a call without `num_inference_steps`.
        trained_processes (`dict[str, dict]`, *optional*):
            The noise process of the network's training, as `save_pretrained` writes it; by default the scheduler's.

    Raises:
        ValueError: if tokenizer, text encoder and network do not fit each other, or a default is no positive integer.
    """

    pipeline_tag = "text-to-video"
    samples_from_noise = False  # it makes films, and no images that the evaluation of images could measure
    model_cpu_offload_seq = "text_encoder->unet"
    _optional_components = ["guider"]
    _callback_tensor_inputs = ["latents", "noise_pred"]

    def __init__(
        self,
        unet: UNetMotionModel | UNet3DConditionModel,
        scheduler: SchedulerMixin,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        guider: BaseGuidance | None = None,
        image_channels: int | None = None,
        conditioning_augmentation: float = 0.0,
        default_num_frames: int = 16,
        default_num_inference_steps: int = 50,
        trained_processes: dict[str, dict] | None = None,
    ):
        super().__init__()
        check_positive_int("default_num_frames", default_num_frames)
        check_positive_int("default_num_inference_steps", default_num_inference_steps)
        image_channels = unet.config.in_channels if image_channels is None else image_channels
        check_positive_int("image_channels", image_channels)
        check_fraction("conditioning_augmentation", conditioning_augmentation)
        if unet.config.in_channels not in (image_channels, 2 * image_channels):
            raise ValueError(
                f"`unet` has {unet.config.in_channels} input channels, but must have as many as the frames, "
                f"{image_channels}, or twice as many as a super-resolver."
            )
        check_text_encoder(tokenizer, text_encoder, unet)
        get_max_length(tokenizer, text_encoder, None)
        self.register_modules(
            unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer, guider=guider
        )
        self.register_to_config(
            image_channels=image_channels,
            conditioning_augmentation=conditioning_augmentation,
            default_num_frames=default_num_frames,
            default_num_inference_steps=default_num_inference_steps,
        )
        self._remember_processes({"unet": "scheduler"}, trained_processes)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        low_res_video: FilmInput | list[FilmInput] | None = None,
        num_videos_per_prompt: int = 1,
        batch_size: int | None = None,
        num_frames: int | None = None,
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
    ) -> FilmPipelineOutput | tuple:
        r"""
        Generates `len(prompt) * num_videos_per_prompt` films; films of one prompt are next to each other.

        Args:
            prompt (`str` or `list[str]`, *optional*):
                What the films show. If not given, they are unconditional, which is what an empty text means.
            low_res_video (a film or a list of them, *optional*):
                For a super-resolver, the small films, one for each prompt, such as `frames` of another call: lists of
                pictures, arrays `(f, h, w, C)` or tensors `(f, C, h, w)` in `[0, 1]`.
            num_videos_per_prompt (`int`, defaults to 1):
                The number of films for each prompt.
            batch_size (`int`, *optional*, defaults to 1):
                The number of films without a prompt.
            num_frames (`int`, *optional*, defaults to `default_num_frames` of the pipeline):
                The frames of each film, at most `motion_max_seq_length` of the network, where it has that. One frame
                is an image. For a super-resolver, a multiple of the frames of the small films.
            num_inference_steps (`int`, *optional*, defaults to `default_num_inference_steps` of the pipeline):
                The number of denoising steps.
            timesteps (`list[int]`, *optional*):
                Descending timesteps to use instead, with a scheduler that takes them.
            sigmas (`list[float]`, *optional*):
                Descending noise levels to use instead, with a scheduler that takes them.
            guidance_scale (`float`, *optional*):
                The scale of the guider, or of plain classifier-free guidance in a pipeline without one; 1 is the
                prediction for the prompt alone. If not given, the guider keeps its own scale, and a pipeline without
                guider does not guide.
            conditioning_noise_level (`float`, *optional*, defaults to half of `conditioning_augmentation`):
                The level s of the noise that is added to small films, from 0 to `conditioning_augmentation`.
            eta (`float`, defaults to 0.0):
                Noise of a DDIM step, from 0 (none) to 1 (DDPM): eq. 16 of https://huggingface.co/papers/2010.02502.
            height, width (`int`, *optional*, default to `sample_size` of the network):
                The size of the frames in pixels.
            generator (`torch.Generator` or a list of one for each film, *optional*):
                Makes the films reproducible, on the CPU also for a network on another device.
            latents (`torch.Tensor` of shape `(N, C, F, H, W)`, *optional*):
                The noise of unit variance to start from, instead of one drawn from `generator`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image` of each film, `"np"` for an array `(N, F, H, W, C)`, `"pt"` for
                a tensor `(N, F, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`FilmPipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step, timestep, callback_kwargs)` after each step. It may return a dict with
                other `latents`.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                What `callback_kwargs` holds: `"latents"` and `"noise_pred"`, the guided prediction.

        Returns:
            [`FilmPipelineOutput`] or `tuple`: the films, in `.frames` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out, before any step is made.

        Example:

        ```py
        >>> pipe = TextToVideoPixelPipeline.from_pretrained("user/moving-digits")
        >>> frames = pipe("a seven moving to the right", guidance_scale=2.0).frames[0]
        >>> frames[0].save("seven.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)
        ```
        """
        callback_inputs = get_callback_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs)

        # 1. Defaults and checks
        low_res = self._read_small_films(low_res_video)
        num_unconditional = (1 if low_res is None else len(low_res)) if batch_size is None else batch_size
        check_positive_int("batch_size", num_unconditional)
        check_positive_int("num_videos_per_prompt", num_videos_per_prompt)
        prompts = [""] * num_unconditional if prompt is None else list_prompts("prompt", prompt)
        if conditioning_noise_level is None:
            conditioning_noise_level = self.config.conditioning_augmentation / 2
        default_height, default_width = get_sample_size(self.unet)
        shape = (
            len(prompts) * num_videos_per_prompt,
            self.config.image_channels,
            self.config.default_num_frames if num_frames is None else num_frames,
            default_height if height is None else height,
            default_width if width is None else width,
        )
        check_schedule(self.scheduler, num_inference_steps, timesteps, sigmas, eta)
        self.check_inputs(
            prompt,
            batch_size,
            shape,
            guidance_scale,
            conditioning_noise_level,
            generator,
            latents,
            output_type,
            callback_inputs,
        )
        self._check_low_res(low_res, len(prompts), shape[2])
        device = self._execution_device
        self._interrupt = False

        # 2. Texts
        texts = self.encode_prompt(prompts, num_videos_per_prompt)
        empty_texts = self.encode_prompt([""], shape[0])

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

        # 5. What the network sees beside the noisy film
        conditions = {name: (texts[name], empty_texts[name]) for name in texts}
        if low_res is not None:
            low_res = low_res.repeat_interleave(num_videos_per_prompt, dim=0).to(device)
            noisy = add_conditioning_noise(low_res, conditioning_noise_level, generator)
            conditions["shown"] = enlarge_films(noisy, shape[2], shape[3:])
            conditions["noise_levels"] = torch.full((shape[0],), conditioning_noise_level, device=device)

        # 6. Denoising, in float32 whatever the dtype of the network
        latents = draw_latents(self.scheduler, shape, device, generator, latents)
        latents = denoise(
            self,
            self.unet,
            guider,
            timesteps,
            latents,
            partial(self._predict_films, dtype=self.unet.dtype),
            conditions,
            eta=eta,
            generator=generator,
            callback=callback_on_step_end,
            callback_inputs=callback_inputs,
        )

        # 7. Films
        frames = to_films(denormalize(latents), output_type)
        self.maybe_free_model_hooks()
        return FilmPipelineOutput(frames=frames) if return_dict else (frames,)

    def encode_prompt(self, prompts: list[str], num_videos_per_prompt: int) -> dict[str, torch.Tensor]:
        """
        What the network is told of the prompts, one for each film, see [`encode_film_tokens`].
        """
        length = get_max_length(self.tokenizer, self.text_encoder, None)
        ids, mask = (part.to(self._execution_device) for part in tokenize_prompts(self.tokenizer, prompts, length))
        told = encode_film_tokens(self.text_encoder, ids, mask)
        return {
            name: states.to(self.unet.dtype).repeat_interleave(num_videos_per_prompt, dim=0)
            for name, states in told.items()
        }

    def _predict_films(
        self,
        sample: torch.Tensor,
        noise_level,
        dtype: torch.dtype,
        shown: torch.Tensor | None = None,
        noise_levels: torch.Tensor | None = None,
        **texts,
    ) -> torch.Tensor:
        """The network's output for films `(N, C, F, H, W)` with these texts, float32."""
        inputs = film_inputs(self.unet, texts, sample.shape[2], noise_levels)
        if shown is not None:
            sample = torch.cat([sample, shown], dim=1)
        return run_network(self.unet, sample, noise_level, dtype, **inputs)

    def _read_small_films(self, low_res_video) -> torch.Tensor | None:
        """The small films `(N, C, f, h, w)` in `[-1, 1]`, rounded to bytes as those of a training."""
        check_small_input("low_res_video", low_res_video, self.is_super_resolver)
        if low_res_video is None:
            return None
        films = read_films("low_res_video", low_res_video, self.config.image_channels)
        return (films * 255).round() / 127.5 - 1

    @property
    def is_super_resolver(self) -> bool:
        """Whether the network enlarges small films."""
        return self.unet.config.in_channels == 2 * self.config.image_channels

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels, height and width of the frames of a call without `height` and `width`."""
        return (self.config.image_channels, *get_sample_size(self.unet))

    def check_inputs(
        self,
        prompt: str | list[str] | None,
        batch_size: int | None,
        shape: tuple[int, int, int, int, int],
        guidance_scale: float | None,
        conditioning_noise_level: float,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        callback_on_step_end_tensor_inputs: list[str],
    ):
        """Refuses what the call could not carry out for films of `shape`, with a `ValueError` of one sentence."""
        num_films, channels, num_frames, height, width = shape
        if None not in (prompt, batch_size):
            raise ValueError("`batch_size` is for films without a prompt: pass either it or `prompt`.")
        check_needs_no_classifier(self.guider)
        check_guidance_scale(guidance_scale, self.guider)
        if self.guider is None and prompt is None and guidance_scale not in (None, 1):
            raise ValueError(f"`guidance_scale={guidance_scale}` needs a `prompt` to guide to.")
        self._trained_processes["unet"].check(self.unet, self.scheduler)
        for name, size in (("num_frames", num_frames), ("height", height), ("width", width)):
            check_positive_int(name, size)
        for name, size in (("height", height), ("width", width)):
            check_multiple(f"`{name}`", size, get_size_multiple(self.unet))
        check_conditioning_noise(conditioning_noise_level, self.config.conditioning_augmentation)
        longest = self.unet.config.get("motion_max_seq_length")
        if longest is not None and num_frames > longest:
            raise ValueError(f"`num_frames` must be at most {longest}, which the network can order, not {num_frames}.")
        check_latents(latents, shape)
        check_generator(generator, num_films)
        check_output_type(output_type, channels)
        check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)

    @staticmethod
    def _check_low_res(low_res: torch.Tensor | None, num_prompts: int, num_frames: int):
        if low_res is None:
            return
        if len(low_res) != num_prompts:
            raise ValueError(f"`low_res_video` must be {num_prompts} films, one per prompt, but is {len(low_res)}.")
        if num_frames % low_res.shape[2]:
            raise ValueError(
                f"`num_frames` must be a multiple of {low_res.shape[2]}, the frames of `low_res_video`, but is "
                f"{num_frames}."
            )
