"""Images from tokens that are drawn all at once, in a few steps: MaskGIT."""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin, SchedulerMixin
from transformers import BertForMaskedLM, PreTrainedModel

from .checks import check_callback_inputs, check_generator, check_output_type
from .image_tokens import ImageTokens, TokenPipelineMixin, get_label_prefix, guide_logits
from .images import ImageInput, denormalize, read_images_of_shape, to_output
from .labels import ClassLabels, check_class_labels_given, check_label_range, count_images, read_id2label
from .masks import Box, blend_hidden
from .uniform_numbers import rand_tensor


class MaskGITPipeline(TokenPipelineMixin, DiffusionPipeline):
    r"""
    Generates images from class labels or from nothing, and makes parts of images anew: a transformer fills in the
    masked tokens of an image, of which an autoencoder makes pixels.

    "MaskGIT: Masked Generative Image Transformer" (Chang et al. 2022, https://huggingface.co/papers/2202.04200).

    Args:
        transformer ([`BertForMaskedLM`]):
            Predicts tokens in both directions. The first tokens of its vocabulary are the codes, then come those of
            the labels, and the last one stands for masked tokens. Its first position is that of the label.
        vqvae ([`ModelMixin`]):
            The autoencoder whose codes are the tokens; see [`ImageTokens`].
        scheduler ([`MaskGITScheduler`] or [`HaltonScheduler`]):
            Which tokens are drawn in a step, and which are masked again.
        token_height, token_width (`int`, defaults to 16):
            Height and width of the map of codes of an image.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.
        null_class_label (`int`, *optional*):
            The label that stands for "no class", which the network saw in training where the label was hidden.

    Raises:
        ValueError: if the parts do not fit together.
    """

    pipeline_tag = "unconditional-image-generation"
    samples_from_noise = True
    model_cpu_offload_seq = "transformer->vqvae"
    _callback_tensor_inputs = ["tokens"]

    def __init__(
        self,
        transformer: BertForMaskedLM | PreTrainedModel,
        vqvae: ModelMixin,
        scheduler: SchedulerMixin,
        token_height: int = 16,
        token_width: int = 16,
        # JSON has no integer keys, so that model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
        null_class_label: int | None = None,
    ):
        super().__init__()
        id2label = read_id2label(id2label)
        num_codes, length = ImageTokens(vqvae).num_codes, token_height * token_width
        config, mask_token_id = transformer.config, scheduler.config.mask_token_id
        if mask_token_id != config.vocab_size - 1 or mask_token_id < num_codes + 1:
            raise ValueError(
                f"The mask token of `scheduler` is {mask_token_id}, but must be the last of the {config.vocab_size} "
                f"tokens of `transformer`, after the {num_codes} codes of `vqvae` and one label at least."
            )
        if config.max_position_embeddings <= length:
            raise ValueError(
                f"`transformer` has {config.max_position_embeddings} positions, but {token_height}x{token_width} "
                "codes and a label need one for each."
            )
        num_labels = mask_token_id - num_codes
        check_label_range("id2label", id2label or (), num_labels)
        check_label_range("null_class_label", [null_class_label], num_labels)
        self.register_modules(transformer=transformer, vqvae=vqvae, scheduler=scheduler)
        self.register_to_config(
            token_height=token_height, token_width=token_width, id2label=id2label, null_class_label=null_class_label
        )

    @torch.no_grad()
    def __call__(
        self,
        class_labels: ClassLabels | None = None,
        num_images_per_label: int = 1,
        batch_size: int | None = None,
        image: ImageInput | list[ImageInput] | None = None,
        mask_image: ImageInput | Box | list | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end=None,
        callback_on_step_end_tensor_inputs: list[str] = ["tokens"],  # noqa: B006, as in diffusers
    ) -> ImagePipelineOutput | tuple:
        r"""
        Generates `len(class_labels) * num_images_per_label` images, those of one label next to each other.

        With `image`, parts of it are made anew: inpainting, with a mask that leaves only the middle uncropping, and
        with another class class-conditional editing (section 4.3).

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many, for a network with classes.
            num_images_per_label (`int`, defaults to 1):
                The number of images for each entry of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1, or to the number of images given as `image`):
                The number of images without `class_labels`.
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Images of which a part is made anew: one for all, or one for each image of the call.
            mask_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, a box or a list, *optional*):
                White where pixels have to be made, of the size of `image`, or a box `(left, top, right, bottom)`; by
                default the lower half. A token is drawn if one of its pixels has to be made; the other pixels of
                `image` are kept.
            num_inference_steps (`int`, *optional*):
                The number of steps, by default that of the scheduler.
            guidance_scale (`float`, defaults to 1.0):
                Above 1, the logits go further in the direction of the class (Ho & Salimans 2022,
                https://huggingface.co/papers/2207.12598). It needs a `null_class_label`.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible. With a list, image i depends on generator i alone.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called after each step as `callback(pipe, step, timestep, {"tokens": tokens})`, int64 `(N, h * w)`; it
                may return changed ones.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["tokens"]`):
                What the callback gets.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> pipe = MaskGITPipeline.from_pretrained("user/digits-maskgit")
        >>> images = pipe(class_labels=[3, "seven"], num_images_per_label=4, guidance_scale=2.0).images
        >>> changed = pipe(class_labels=8, image=images[0], mask_image=(0, 0, 4, 8)).images[0]
        ```
        """
        # 1. Inputs
        given = None if image is None else read_images_of_shape("image", image, self.image_shape)
        number = self.check_inputs(
            class_labels, num_images_per_label, batch_size, given, mask_image, guidance_scale, generator, output_type
        )
        check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        device, image_tokens = self._execution_device, ImageTokens(self.vqvae)
        labels = self.get_labels(class_labels, number, device)
        prefix = get_label_prefix(labels, number, image_tokens.num_codes, device)
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        mask_token_id = self.scheduler.config.mask_token_id
        tokens = torch.full((number, self.num_tokens), mask_token_id, device=device)
        if given is not None:
            given, is_made, codes = self.prepare_image(given, mask_image, number, device)
            tokens = torch.where(self.get_made_tokens(is_made).flatten(1), tokens, codes.flatten(1))
        num_unknown = (tokens == mask_token_id).sum(dim=1, keepdim=True)

        # 2. Steps
        self._interrupt = False
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            if self._interrupt:
                continue
            logits = self._predict_masked(prefix, tokens, guidance_scale)
            token_noise, choice_noise = self._draw_noise(number, image_tokens.num_codes, generator, device)
            tokens, drawn = self.scheduler.step(
                logits, timestep, tokens, token_noise, choice_noise, num_unknown, return_dict=False
            )
            if callback_on_step_end is not None:
                changed = callback_on_step_end(self, step, timestep, {"tokens": tokens}) or {}
                tokens = changed.get("tokens", tokens)
        tokens = torch.where(tokens == mask_token_id, drawn, tokens)  # after an interruption some are masked

        # 3. Pixels
        images = image_tokens.decode(tokens.view(number, *self.token_size))
        if given is not None:
            images = blend_hidden(images, given, is_made)
        images = to_output(denormalize(images), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _predict_masked(self, prefix: torch.Tensor, tokens: torch.Tensor, guidance_scale: float) -> torch.Tensor:
        """The logits `(N, L, K)` of the codes, float32."""
        num_codes = ImageTokens(self.vqvae).num_codes
        if guidance_scale != 1:
            null = torch.full_like(prefix, num_codes + self.config.null_class_label)
            prefix, tokens = torch.cat([prefix, null]), torch.cat([tokens, tokens])
        logits = self.transformer(torch.cat([prefix, tokens], dim=1)).logits
        return guide_logits(logits[:, 1:, :num_codes].float(), guidance_scale)

    def _draw_noise(
        self,
        number: int,
        num_codes: int,
        generator: torch.Generator | list[torch.Generator] | None,
        device: torch.device,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gumbel noise for tokens `(N, L, K)` and for the choice among them `(N, L)`."""
        uniforms = rand_tensor((number, self.num_tokens, num_codes + 1), generator, device).clamp(min=1e-20)
        noise = -torch.log((-torch.log(uniforms)).clamp(min=1e-20))
        return noise[:, :, :-1], noise[:, :, -1]

    def check_inputs(
        self,
        class_labels: ClassLabels | None,
        num_images_per_label: int,
        batch_size: int | None,
        given: torch.Tensor | None,
        mask_image: ImageInput | Box | list | None,
        guidance_scale: float,
        generator: torch.Generator | list[torch.Generator] | None,
        output_type: str,
    ) -> int:
        """
        Refuses what the call could not carry out, with a `ValueError` of one sentence.

        Returns:
            `int`: the number of images.
        """
        check_class_labels_given(class_labels, self.num_labels > 1, self.config.null_class_label)
        num_labels = None if class_labels is None else len(self.get_label_ids(class_labels))
        number = count_images(num_labels, num_images_per_label, batch_size)
        number = self.check_given(given, mask_image, number, class_labels is None and batch_size is None)
        self.check_guidance(guidance_scale, class_labels is not None)
        check_generator(generator, number)
        check_output_type(output_type, self.image_shape[0])
        return number

    @property
    def num_labels(self) -> int:
        """How many tokens stand for labels."""
        return self.scheduler.config.mask_token_id - ImageTokens(self.vqvae).num_codes
