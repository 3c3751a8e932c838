"""Images from embeddings of images: DALL-E 2 in pixels, with its variations, interpolations and text differences."""

from functools import partial

import torch
from diffusers import (
    BaseGuidance,
    DDIMInverseScheduler,
    DiffusionPipeline,
    ImagePipelineOutput,
    ModelMixin,
    SchedulerMixin,
    UNet2DConditionModel,
)
from diffusers.utils.torch_utils import randn_tensor
from transformers import (
    CLIPImageProcessor,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerBase,
)

from .checks import check_callback_inputs, check_generator, check_latents, check_output_type, check_positive_int
from .clip_embeddings import PromptEmbeddings, embed_images, embed_prompts, embed_with_empty
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
from .image_priors import check_prior, sample_image_embeds
from .images import ImageInput, check_one_size, denormalize, fit_channels, list_images, read_image, to_output
from .interpolation import slerp
from .processes import TrainedProcessMixin
from .prompts import check_tokenizer, list_prompts
from .schedules import check_schedule, set_timesteps


class UnCLIPPixelPipeline(TrainedProcessMixin, DenoisingCallMixin, DiffusionPipeline):
    r"""
    Draws images from CLIP embeddings of images, which a diffusion prior makes of prompts or which are those of given
    images (Ramesh et al. 2022, https://huggingface.co/papers/2204.06125).

    - `pipe("a red three")`: an image of a prompt, by the prior.
    - `pipe(image=image)`: variations of an image (section 3.1).
    - `pipe(image_embeds=pipe.interpolate(one, other, 5))`: images between two images (section 3.2).
    - `pipe(image_embeds=pipe.move(embeds, "a red three", "a blue three"))`: a text difference (section 3.3).

    Args:
        decoder ([`UNet2DConditionModel`]):
            The denoiser of pixels, with `class_embed_type="identity"`: it gets the embedding of the image beside that
            of the timestep and, with the states of the prompt's tokens, as context.
        conditioner ([`UnCLIPConditioner`]):
            Makes of embeddings what the decoder is told.
        text_encoder ([`CLIPTextModelWithProjection`]), tokenizer ([`CLIPTokenizer`]):
            The text tower of the CLIP, and what makes its tokens.
        image_encoder ([`CLIPVisionModelWithProjection`]), image_processor ([`CLIPImageProcessor`]):
            The image tower of the CLIP, and how its images are normalised.
        scheduler ([`SchedulerMixin`]):
            The noise schedule and the solver of the decoder.
        prior ([`PriorTransformer`] or [`MultiQueryPriorTransformer`], *optional*):
            The prior of an [`UnCLIPPriorPipeline`] for the same CLIP. Without it, images are given.
        prior_scheduler ([`SchedulerMixin`], *optional*):
            Its noise schedule and solver.
        guider ([`BaseGuidance`], *optional*):
            How the predictions with and without embeddings are combined. Without a guider, a `guidance_scale` in the
            call means plain classifier-free guidance.
        default_num_inference_steps (`int`, defaults to 20):
            The number of the decoder's steps in a call without `num_inference_steps`.
        trained_processes (`dict[str, dict]`, *optional*):
            The noise process of the decoder's training, as `save_pretrained` writes it; by default the scheduler's.

    Raises:
        ValueError: if parts are for CLIPs of different widths, the tokenizer does not fit, or the prior or its
            scheduler is missing alone.
    """

    pipeline_tag = "text-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "text_encoder->image_encoder->prior->conditioner->decoder"
    _optional_components = ["prior", "prior_scheduler", "guider"]
    _callback_tensor_inputs = ["latents", "noise_pred"]

    def __init__(
        self,
        decoder: UNet2DConditionModel,
        conditioner: ModelMixin,
        text_encoder: CLIPTextModelWithProjection,
        tokenizer: PreTrainedTokenizerBase,
        image_encoder: CLIPVisionModelWithProjection,
        image_processor: CLIPImageProcessor,
        scheduler: SchedulerMixin,
        prior: ModelMixin | None = None,
        prior_scheduler: SchedulerMixin | None = None,
        guider: BaseGuidance | None = None,
        default_num_inference_steps: int = 20,
        trained_processes: dict[str, dict] | None = None,
    ):
        super().__init__()
        check_tokenizer(tokenizer, text_encoder)
        wanted = conditioner.config.clip_embeddings_dim
        for name, tower in (("text_encoder", text_encoder), ("image_encoder", image_encoder)):
            given = tower.config.projection_dim
            if given != wanted:
                raise ValueError(f"`conditioner` is for embeddings of {wanted} channels, but `{name}` has {given}.")
        if (prior is None) != (prior_scheduler is None):
            raise ValueError("`prior` and `prior_scheduler` belong together: give both or none.")
        if prior is not None:
            check_prior(prior, text_encoder)
        check_positive_int("default_num_inference_steps", default_num_inference_steps)
        self.register_modules(
            decoder=decoder,
            conditioner=conditioner,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            image_processor=image_processor,
            scheduler=scheduler,
            prior=prior,
            prior_scheduler=prior_scheduler,
            guider=guider,
        )
        self.register_to_config(default_num_inference_steps=default_num_inference_steps)
        self._remember_processes({"decoder": "scheduler"}, trained_processes)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: ImageInput | list[ImageInput] | None = None,
        image_embeds: torch.Tensor | None = None,
        num_images_per_prompt: int = 1,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        prior_num_inference_steps: int = 25,
        prior_guidance_scale: float | None = None,
        num_candidates: int = 2,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006, as in diffusers
    ) -> ImagePipelineOutput | tuple:
        r"""
        Draws `num_images_per_prompt` images for each prompt, image or embedding; they are next to each other.

        Args:
            prompt (`str` or `list[str]`, *optional*):
                What the images show. Without `image` and `image_embeds`, the prior makes embeddings of it. The decoder
                sees it in any case, and otherwise an empty text.
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Images to vary, of one size; they are resized for the CLIP.
            image_embeds (`torch.Tensor` of shape `(N, D)`, *optional*):
                Embeddings of images, instead of `image`.
            num_images_per_prompt (`int`, defaults to 1):
                The number of images of each.
            num_inference_steps (`int`, *optional*, defaults to `default_num_inference_steps` of the pipeline):
                The number of steps of the decoder.
            guidance_scale (`float`, *optional*):
                The scale of the guider, or of plain classifier-free guidance in a pipeline without one; 1, the default
                without guider, is the prediction with embeddings alone.
            prior_num_inference_steps (`int`, defaults to 25), prior_guidance_scale (`float`, *optional*),
            num_candidates (`int`, defaults to 2):
                The steps, the guidance and the candidates of the prior, see [`UnCLIPPriorPipeline`].
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible.
            latents (`torch.Tensor` of shape `(N, C, H, W)`, *optional*):
                The noise of unit variance that the decoder starts from, such as [`~UnCLIPPixelPipeline.invert`] finds.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step, timestep, callback_kwargs)` after each step of the decoder. It may
                return a dict with other `latents`.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                What `callback_kwargs` holds: `"latents"` and `"noise_pred"`, the guided prediction.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out, before any step is made.

        Example:

        ```py
        >>> pipe = UnCLIPPixelPipeline.from_pretrained("user/unclip")
        >>> images = pipe("a red three", num_images_per_prompt=4, guidance_scale=2.0).images
        >>> variations = pipe(image=images[0], num_images_per_prompt=4, guidance_scale=2.0).images
        ```
        """
        # 1. Checks
        callback_inputs = get_callback_inputs(callback_on_step_end, callback_on_step_end_tensor_inputs)
        self.check_inputs(
            prompt,
            image,
            image_embeds,
            num_images_per_prompt,
            num_inference_steps,
            guidance_scale,
            prior_num_inference_steps,
            prior_guidance_scale,
            num_candidates,
            output_type,
            callback_inputs,
        )
        device = self._execution_device
        self._interrupt = False

        # 2. Text
        if image is not None:
            image_embeds = self.embed_images(image)
        rows = len(list_prompts("prompt", prompt)) if image_embeds is None else len(image_embeds)
        count = rows * num_images_per_prompt
        shape = (count, *self.image_shape)
        check_generator(generator, count)
        check_latents(latents, shape)
        prompts = list_prompts("prompt", "" if prompt is None else prompt, rows)
        text, empty_text = embed_with_empty(self.tokenizer, self.text_encoder, prompts, num_images_per_prompt)

        # 3. Embeddings of images
        if image_embeds is None:
            noise_shape = (count, num_candidates, self.prior.config.embedding_dim)
            image_embeds = sample_image_embeds(
                self.prior,
                self.prior_scheduler,
                build_guider(None, prior_guidance_scale),
                text,
                empty_text,
                randn_tensor(noise_shape, generator=generator, device=device, dtype=torch.float32),
                prior_num_inference_steps,
                generator,
                self.progress_bar,
            )
        else:
            image_embeds = image_embeds.to(device).repeat_interleave(num_images_per_prompt, dim=0)
        given, empty = self._get_conditions(image_embeds, text), self._get_conditions(None, empty_text)
        conditions = {name: (given[name], empty[name]) for name in given}

        # 4. Denoising
        timesteps = set_timesteps(
            self.scheduler, device, self.config.default_num_inference_steps, num_inference_steps=num_inference_steps
        )
        self._num_timesteps = len(timesteps)
        guider = build_guider(self.guider, guidance_scale)
        self._guidance_scale = get_guidance_scale(guider)
        latents = denoise(
            self,
            self.decoder,
            guider,
            timesteps,
            draw_latents(self.scheduler, shape, device, generator, latents),
            partial(run_network, self.decoder, dtype=self.decoder.dtype),
            conditions,
            generator=generator,
            callback=callback_on_step_end,
            callback_inputs=callback_inputs,
        )

        # 5. Images
        images = to_output(denormalize(latents), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    @torch.no_grad()
    def embed_images(self, image: ImageInput | list[ImageInput]) -> torch.Tensor:
        """The CLIP embeddings `(N, D)` of images of one size, which may be any."""
        channels = self.image_encoder.config.num_channels
        images = [fit_channels("image", read_image("image", one), channels) for one in list_images("image", image)]
        check_one_size(images)
        return embed_images(self.image_encoder, self.image_processor, torch.stack(images).to(self._execution_device))

    def interpolate(self, start: ImageInput, end: ImageInput, count: int) -> torch.Tensor:
        """
        Embeddings on the arc between those of two images (Ramesh et al. 2022, section 3.2).

        Args:
            start, end: one image each, as for the call.
            count (`int`): how many, at least 2, those of both images included.

        Returns:
            `torch.Tensor` of shape `(count, D)`: for `image_embeds` of a call, with `latents` of one noise for all if
            only the embedding is to change.
        """
        check_positive_int("count", count, least=2)
        first, last = self.embed_images(start), self.embed_images(end)
        return slerp(first, last, torch.linspace(0, 1, count, device=first.device)[:, None])

    @torch.no_grad()
    def move(self, image_embeds: torch.Tensor, source: str, target: str, fraction: float = 0.3) -> torch.Tensor:
        """
        Embeddings that differ from given ones as one text differs from another (Ramesh et al. 2022, section 3.3).

        Args:
            image_embeds (`torch.Tensor` of shape `(N, D)`): embeddings of images, which keep their length.
            source, target (`str`): a text for the images as they are, and one for what they shall be.
            fraction (`float`, defaults to 0.3): how far on the arc to the direction of the difference; 0.25 to 0.5 in
                the paper.

        Returns:
            `torch.Tensor` of shape `(N, D)`.
        """
        embeds = embed_prompts(self.tokenizer, self.text_encoder, [source, target]).embeds
        embeds = torch.nn.functional.normalize(embeds, dim=-1)
        difference = torch.nn.functional.normalize(embeds[1:] - embeds[:1], dim=-1)
        length = image_embeds.norm(dim=-1, keepdim=True)
        return slerp(image_embeds, length * difference, torch.tensor(fraction, device=image_embeds.device))

    @torch.no_grad()
    def invert(
        self,
        image: ImageInput | list[ImageInput],
        num_inference_steps: int = 50,
        prompt: str | list[str] | None = None,
    ) -> torch.Tensor:
        """
        The noise that DDIM, run backwards, finds for images (Ramesh et al. 2022, section 3.1).

        With it as `latents`, and with the embedding of the image, a call without guidance draws the image again; with
        other embeddings it draws what differs from the image in them alone.

        Args:
            image: images of the decoder's size, as for the call.
            num_inference_steps (`int`, defaults to 50): the more, the more exactly the image is drawn again.
            prompt (`str` or `list[str]`, *optional*): the text that the decoder sees.

        Returns:
            `torch.Tensor` of shape `(N, C, H, W)`.
        """
        images = [read_image("image", one) for one in list_images("image", image)]
        images = torch.stack([fit_channels("image", one, self.image_shape[0]) for one in images])
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(f"`image` must have the shape {self.image_shape}, but has {tuple(images.shape[1:])}.")
        count = len(images)
        prompts = list_prompts("prompt", "" if prompt is None else prompt, count)
        text = embed_prompts(self.tokenizer, self.text_encoder, prompts)
        conditions = self._get_conditions(self.embed_images(image), text)
        scheduler = DDIMInverseScheduler.from_config(self.scheduler.config, clip_sample=False)
        scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        latents = 2 * images.to(self._execution_device) - 1
        for t in self.progress_bar(scheduler.timesteps):
            noise_pred = run_network(self.decoder, latents, t, self.decoder.dtype, **conditions)
            latents = scheduler.step(noise_pred[:, : latents.shape[1]], t, latents).prev_sample
        return latents

    def _get_conditions(self, image_embeds: torch.Tensor | None, text: PromptEmbeddings) -> dict[str, torch.Tensor]:
        """What the decoder is told beside the noisy images, by its arguments; of no images for `None`."""
        is_hidden = None
        if image_embeds is None:
            image_embeds = text.embeds
            is_hidden = torch.ones(len(image_embeds), dtype=torch.bool, device=image_embeds.device)
        return {**self.conditioner(image_embeds.to(text.embeds.dtype), *text, is_hidden)}

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        size = self.decoder.config.sample_size
        return (self.decoder.config.in_channels, *((size, size) if isinstance(size, int) else tuple(size)))

    def check_inputs(
        self,
        prompt: str | list[str] | None,
        image: ImageInput | list[ImageInput] | None,
        image_embeds: torch.Tensor | None,
        num_images_per_prompt: int,
        num_inference_steps: int | None,
        guidance_scale: float | None,
        prior_num_inference_steps: int,
        prior_guidance_scale: float | None,
        num_candidates: int,
        output_type: str,
        callback_on_step_end_tensor_inputs: list[str],
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        if image is not None and image_embeds is not None:
            raise ValueError("Give `image` or `image_embeds`, not both.")
        if image is None and image_embeds is None:
            if prompt is None:
                raise ValueError("Give a `prompt`, an `image` or `image_embeds`.")
            if self.prior is None:
                raise ValueError(
                    "A `prompt` alone needs the `prior` component, which is missing: give `image` or `image_embeds`."
                )
        if prompt is not None:
            list_prompts("prompt", prompt)
        if image_embeds is not None:
            width = self.conditioner.config.clip_embeddings_dim
            if not torch.is_tensor(image_embeds) or image_embeds.ndim != 2 or image_embeds.shape[1] != width:
                found = tuple(image_embeds.shape) if torch.is_tensor(image_embeds) else type(image_embeds).__name__
                raise ValueError(f"`image_embeds` must be a tensor of the shape (N, {width}), but is {found}.")
        for name, value in (
            ("num_images_per_prompt", num_images_per_prompt),
            ("prior_num_inference_steps", prior_num_inference_steps),
            ("num_candidates", num_candidates),
        ):
            check_positive_int(name, value)
        check_needs_no_classifier(self.guider)
        check_guidance_scale(guidance_scale, self.guider)
        check_guidance_scale(prior_guidance_scale, None)
        self._trained_processes["decoder"].check(self.decoder, self.scheduler)
        check_schedule(self.scheduler, num_inference_steps)
        check_output_type(output_type, self.image_shape[0])
        check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
