"""Images token by token, from texts, class labels or nothing: DALL-E and the transformers of VQGAN."""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from transformers import (
    CLIPModel,
    CLIPProcessor,
    DynamicCache,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
)

from .checks import (
    check_callback_inputs,
    check_generator,
    check_latents,
    check_output_type,
    check_positive,
    check_positive_int,
)
from .image_tokens import ImageTokens, TokenPipelineMixin, get_label_prefix, guide_logits
from .images import ImageInput, denormalize, read_images_of_shape, to_output
from .labels import ClassLabels, check_class_labels_given, check_label_range, count_images, read_id2label
from .masks import Box
from .prompts import list_prompts, warn_of_long_prompts
from .token_sequences import count_text_tokens, draw_codes, get_null_prefix, get_text_prefix
from .uniform_numbers import rand_tensor


class TokensToImagePipeline(TokenPipelineMixin, DiffusionPipeline):
    r"""
    Generates images from texts, class labels or nothing, token by token: a transformer predicts each code of an image
    from those before it, and an autoencoder makes pixels of them.

    With texts it is DALL-E ("Zero-Shot Text-to-Image Generation", Ramesh et al. 2021,
    https://huggingface.co/papers/2102.12092), with class labels the second stage of VQGAN ("Taming Transformers for
    High-Resolution Image Synthesis", Esser et al. 2021, https://huggingface.co/papers/2012.09841).

    Args:
        transformer ([`GPT2LMHeadModel`]):
            Predicts tokens from those before. The first tokens of its vocabulary are the codes. Then come those of
            the labels; or with a `tokenizer` those of texts, and one for each position that fills up short texts.
        vqvae ([`ModelMixin`]):
            The autoencoder whose codes are the tokens; see [`ImageTokens`].
        token_height, token_width (`int`, defaults to 16):
            Height and width of the map of codes of an image.
        tokenizer ([`PreTrainedTokenizerBase`], *optional*):
            Makes tokens of texts; its `model_max_length` is the number of text tokens in front of the codes.
        clip ([`CLIPModel`], *optional*), clip_processor ([`CLIPProcessor`], *optional*):
            Choose the image that fits the text best among several candidates (section 2.4).
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.
        null_class_label (`int`, *optional*):
            The label that stands for "no class", which the network saw in training where the label was hidden.
        knows_no_text (`bool`, defaults to `False`):
            With a `tokenizer`: whether texts were hidden in training, so that guidance works.

    Raises:
        ValueError: if the parts do not fit together.
    """

    pipeline_tag = "text-to-image"
    samples_from_noise = True
    model_cpu_offload_seq = "transformer->vqvae->clip"
    _optional_components = ["tokenizer", "clip", "clip_processor"]
    _callback_tensor_inputs = ["tokens"]

    def __init__(
        self,
        transformer: GPT2LMHeadModel,
        vqvae: ModelMixin,
        token_height: int = 16,
        token_width: int = 16,
        tokenizer: PreTrainedTokenizerBase | None = None,
        clip: CLIPModel | None = None,
        clip_processor: CLIPProcessor | None = None,
        # JSON has no integer keys, so that model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
        null_class_label: int | None = None,
        knows_no_text: bool = False,
    ):
        super().__init__()
        id2label = read_id2label(id2label)
        num_codes, config = ImageTokens(vqvae).num_codes, transformer.config
        num_others = config.vocab_size - num_codes
        if num_others < 1 or (tokenizer is not None and num_others != count_text_tokens(tokenizer)):
            wanted = "one label at least" if tokenizer is None else f"{count_text_tokens(tokenizer)} tokens of texts"
            raise ValueError(
                f"`transformer` has {config.vocab_size} tokens, but must have those of the {num_codes} codes of "
                f"`vqvae` and {wanted}."
            )
        prefix_length = 1 if tokenizer is None else tokenizer.model_max_length
        needed = prefix_length + token_height * token_width - 1
        if config.n_positions < needed:
            raise ValueError(
                f"`transformer` has {config.n_positions} positions, but needs {needed} for {prefix_length} tokens of "
                f"the condition and {token_height}x{token_width} codes, of which the last is not fed."
            )
        num_labels = num_others if tokenizer is None else 0
        check_label_range("id2label", id2label or (), num_labels)
        check_label_range("null_class_label", [null_class_label], num_labels)
        self.register_modules(
            transformer=transformer, vqvae=vqvae, tokenizer=tokenizer, clip=clip, clip_processor=clip_processor
        )
        self.register_to_config(
            token_height=token_height,
            token_width=token_width,
            id2label=id2label,
            null_class_label=null_class_label,
            knows_no_text=knows_no_text,
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        class_labels: ClassLabels | None = None,
        num_images_per_prompt: int = 1,
        num_images_per_label: int = 1,
        batch_size: int | None = None,
        image: ImageInput | list[ImageInput] | None = None,
        mask_image: ImageInput | Box | list | None = None,
        guidance_scale: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        num_candidates: int = 1,
        use_cache: bool = True,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end=None,
        callback_on_step_end_tensor_inputs: list[str] = ["tokens"],  # noqa: B006, as in diffusers
    ) -> ImagePipelineOutput | tuple:
        r"""
        Generates images, those of one prompt or label next to each other.

        The steps are the rows of the map of codes, from the top.

        Args:
            prompt (`str` or `list[str]`, *optional*):
                What to draw, for a network of texts.
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many, for a network of classes.
            num_images_per_prompt, num_images_per_label (`int`, defaults to 1):
                The number of images for each entry of `prompt` or of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1, or to the number of images given as `image`):
                The number of images without a prompt or label.
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Images to complete: one for all, or one for each image of the call. What is kept are their codes, so
                that also kept parts look as the autoencoder reconstructs them.
            mask_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, a box or a list, *optional*):
                White where codes have to be drawn, of the size of `image`, or a box `(left, top, right, bottom)`; by
                default the lower half. A code depends only on those before it in raster order.
            guidance_scale (`float`, defaults to 1.0):
                Above 1, the logits go further in the direction of the condition (Ho & Salimans 2022,
                https://huggingface.co/papers/2207.12598).
            temperature (`float`, defaults to 1.0):
                Below 1 codes are drawn closer to the most probable ones.
            top_k (`int`, *optional*), top_p (`float`, *optional*):
                Draw only from the so many most probable codes, or from the most probable ones that together have this
                probability. `top_k=1` takes the most probable code.
            num_candidates (`int`, defaults to 1):
                With `clip`: so many images are drawn for each that is asked for, and the one nearest to the prompt is
                returned.
            use_cache (`bool`, defaults to `True`):
                Whether keys and values of earlier tokens are kept. Without, the transformer is called for all of them
                again for each token; the images are the same up to rounding.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible. With a list, image i depends on generator i alone.
            latents (`torch.Tensor`, *optional*):
                The uniform numbers in `[0, 1)` that codes are drawn by, `(N, num_candidates, h * w)`, instead of
                those drawn from `generator`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called after each row as `callback(pipe, row, row, {"tokens": tokens})`, int64 `(N, h * w)`, with zeros
                where nothing is drawn yet; it may return changed ones.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["tokens"]`):
                What the callback gets.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> pipe = TokensToImagePipeline.from_pretrained("user/mini-dalle")
        >>> images = pipe("a small red seven", num_images_per_prompt=4, guidance_scale=2.0).images
        ```
        """
        # 1. Inputs
        given = None if image is None else read_images_of_shape("image", image, self.image_shape)
        prompt = None if prompt is None else list_prompts("prompt", prompt)
        number = self.check_inputs(
            prompt,
            class_labels,
            num_images_per_prompt,
            num_images_per_label,
            batch_size,
            given,
            mask_image,
            guidance_scale,
            temperature,
            top_k,
            top_p,
            num_candidates,
            generator,
            latents,
            output_type,
        )
        check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        device, (height, width) = self._execution_device, self.token_size
        prefix = self.get_prefix(prompt, class_labels, number, device)
        if guidance_scale != 1:
            prefix = torch.cat([prefix, self.get_null_condition(device).expand(number, -1)])
        prefix = prefix.repeat_interleave(num_candidates, dim=0)
        uniforms = self.prepare_latents(number, num_candidates, device, generator, latents).flatten(0, 1)
        tokens = torch.zeros(number * num_candidates, self.num_tokens, dtype=torch.int64, device=device)
        is_made = torch.ones_like(tokens, dtype=torch.bool)
        if given is not None:
            _, made_pixels, codes = self.prepare_image(given, mask_image, number, device)
            is_made = self.get_made_tokens(made_pixels).flatten(1).repeat_interleave(num_candidates, dim=0)
            codes = codes.flatten(1).repeat_interleave(num_candidates, dim=0)
            tokens = torch.where(is_made, tokens, codes)

        # 2. Codes in raster order
        cache = DynamicCache() if use_cache else None
        self._interrupt = False
        for row in self.progress_bar(range(height)):
            if self._interrupt:
                continue
            for position in range(row * width, (row + 1) * width):
                logits = self._predict_next(prefix, tokens[:, :position], cache, guidance_scale)
                drawn = draw_codes(logits, uniforms[:, position], temperature, top_k, top_p)
                tokens[:, position] = torch.where(is_made[:, position], drawn, tokens[:, position])
            if callback_on_step_end is not None:
                changed = callback_on_step_end(self, row, row, {"tokens": tokens}) or {}
                tokens = changed.get("tokens", tokens)

        # 3. Pixels
        images = denormalize(ImageTokens(self.vqvae).decode(tokens.view(-1, height, width)))
        if num_candidates > 1:
            images = self.choose_best(images, prompt, number)
        images = to_output(images, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _predict_next(
        self, prefix: torch.Tensor, tokens: torch.Tensor, cache: DynamicCache | None, guidance_scale: float
    ) -> torch.Tensor:
        """The logits `(N, K)` of the next code, float32; the prefixes without condition stand behind the others."""
        sequence = torch.cat([prefix, tokens if guidance_scale == 1 else torch.cat([tokens, tokens])], dim=1)
        seen = 0 if cache is None else cache.get_seq_length()
        # the name of the second argument has changed between the versions of transformers, but not its place
        output = self.transformer(sequence[:, seen:], cache, use_cache=cache is not None)
        num_codes = ImageTokens(self.vqvae).num_codes
        return guide_logits(output.logits[:, -1, :num_codes].float(), guidance_scale)

    @torch.no_grad()
    def choose_best(self, images: torch.Tensor, prompt: list[str], number: int) -> torch.Tensor:
        """
        The images that `clip` finds nearest to their prompts (Ramesh et al. 2021, section 2.4).

        Args:
            images (`torch.Tensor` of shape `(number * C, C, H, W)`): in `[0, 1]`, the C candidates of an image next
                to each other.
            prompt (`list[str]`): as many as images, or each for several images next to each other.
            number (`int`): of images that are returned.
        """
        texts = [text for text in prompt for _ in range(number // len(prompt))]
        # CLIP's images are bytes
        pictures = list((images.clamp(0, 1) * 255).round().byte().cpu())
        inputs = self.clip_processor(text=texts, images=pictures, padding=True, truncation=True, return_tensors="pt")
        output = self.clip(
            input_ids=inputs.input_ids.to(images.device),
            attention_mask=inputs.attention_mask.to(images.device),
            pixel_values=inputs.pixel_values.to(images.device, self.clip.dtype),
        )
        similarities = (output.image_embeds.unflatten(0, (number, -1)) * output.text_embeds[:, None]).sum(dim=2)
        best = similarities.argmax(dim=1)
        return images.unflatten(0, (number, -1))[torch.arange(number, device=best.device), best]

    def get_prefix(
        self, prompt: list[str] | None, class_labels: ClassLabels | None, number: int, device: torch.device
    ) -> torch.Tensor:
        """The tokens `(number, P)` before the codes of each image."""
        num_codes = ImageTokens(self.vqvae).num_codes
        if self.tokenizer is None:
            return get_label_prefix(self.get_labels(class_labels, number, device), number, num_codes, device)
        if prompt is None:
            return self.get_null_condition(device).expand(number, -1)
        warn_of_long_prompts(self.tokenizer, prompt, self.tokenizer.model_max_length)
        texts = get_text_prefix(self.tokenizer, prompt, num_codes, device)
        return texts.repeat_interleave(number // len(prompt), dim=0)

    def get_null_condition(self, device: torch.device) -> torch.Tensor:
        """The tokens `(1, P)` before the codes of an image without a text or class."""
        num_codes = ImageTokens(self.vqvae).num_codes
        if self.tokenizer is not None:
            return get_null_prefix(self.tokenizer, num_codes, device)
        return torch.tensor([[num_codes + self.config.null_class_label]], device=device)

    def prepare_latents(
        self,
        number: int,
        num_candidates: int,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The uniform numbers `(number, num_candidates, h * w)` by which codes are drawn, in float32."""
        if latents is not None:
            return latents.to(device, torch.float32)
        return rand_tensor((number, num_candidates, self.num_tokens), generator, device)

    @property
    def num_labels(self) -> int:
        """How many tokens stand for labels; 0 for a network of texts."""
        return 0 if self.tokenizer is not None else self._num_others

    @property
    def _num_others(self) -> int:
        return self.transformer.config.vocab_size - ImageTokens(self.vqvae).num_codes

    @property
    def can_guide(self) -> bool:
        """Whether the network knows what it is to have no condition."""
        return self.config.knows_no_text if self.tokenizer is not None else self.config.null_class_label is not None

    def check_inputs(
        self,
        prompt: list[str] | None,
        class_labels: ClassLabels | None,
        num_images_per_prompt: int,
        num_images_per_label: int,
        batch_size: int | None,
        given: torch.Tensor | None,
        mask_image: ImageInput | Box | list | None,
        guidance_scale: float,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        num_candidates: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
    ) -> int:
        """
        Refuses what the call could not carry out, with a `ValueError` of one sentence.

        Returns:
            `int`: the number of images.
        """
        has_text = self.tokenizer is not None
        check_class_labels_given(class_labels, self.num_labels > 1, self.config.null_class_label)
        if prompt is not None and not has_text:
            raise ValueError("`prompt` must be left out, because the pipeline has no `tokenizer`.")
        if prompt is None and has_text and not self.config.knows_no_text:
            raise ValueError("`prompt` must be given, because the network has never seen an image without text.")
        if prompt is not None:
            if num_images_per_label != 1:
                raise ValueError("`num_images_per_label` is for `class_labels`: pass `num_images_per_prompt`.")
            check_positive_int("num_images_per_prompt", num_images_per_prompt)
            number = count_images(len(prompt), num_images_per_prompt, batch_size)
        else:
            if num_images_per_prompt != 1:
                raise ValueError("`num_images_per_prompt` needs a `prompt`.")
            num_labels = None if class_labels is None else len(self.get_label_ids(class_labels))
            number = count_images(num_labels, num_images_per_label, batch_size)
        has_condition = prompt is not None or class_labels is not None
        number = self.check_given(given, mask_image, number, not has_condition and batch_size is None)
        self.check_guidance(guidance_scale, has_condition)
        check_positive("temperature", temperature)
        if top_k is not None:
            check_positive_int("top_k", top_k)
        if top_p is not None:
            check_positive("top_p", top_p)
        check_positive_int("num_candidates", num_candidates)
        if num_candidates > 1 and (prompt is None or self.clip is None or self.clip_processor is None):
            raise ValueError(
                "`num_candidates` above 1 needs a `prompt` and a pipeline with `clip` and `clip_processor`."
            )
        check_latents(latents, (number, num_candidates, self.num_tokens))
        check_generator(generator, number)
        check_output_type(output_type, self.image_shape[0])
        return number
