"""Embeddings of images from prompts: the diffusion prior of DALL-E 2."""

from dataclasses import dataclass

import torch
from diffusers import BaseGuidance, DiffusionPipeline, ModelMixin, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerBase

from .checks import check_generator, check_latents, check_positive_int
from .clip_embeddings import embed_with_empty
from .denoising import build_guider, check_guidance_scale, check_needs_no_classifier
from .image_priors import check_prior, sample_image_embeds
from .prompts import check_tokenizer, list_prompts
from .schedules import check_schedule


@dataclass
class ImageEmbedsOutput(BaseOutput):
    """
    The output of a pipeline that makes embeddings of images.

    Args:
        image_embeds (`torch.Tensor` of shape `(N, D)`):
            Embeddings in float32, of the length that the image encoder of the CLIP gives them.
    """

    image_embeds: torch.Tensor


class UnCLIPPriorPipeline(DiffusionPipeline):
    r"""
    Makes CLIP embeddings of images that fit prompts, by the diffusion prior of DALL-E 2 (Ramesh et al. 2022, section
    2.2, https://huggingface.co/papers/2204.06125).

    Args:
        prior ([`PriorTransformer`] or [`MultiQueryPriorTransformer`]):
            Predicts the embedding of an image, standardised by its `clip_mean` and `clip_std`, from a noisy one and
            from the prompt.
        text_encoder ([`CLIPTextModelWithProjection`]):
            The text encoder of the CLIP.
        tokenizer ([`CLIPTokenizer`]):
            Makes its tokens.
        scheduler ([`SchedulerMixin`]):
            The noise schedule and the solver, for networks that predict the sample.
        guider ([`BaseGuidance`], *optional*):
            How the predictions for the prompt and for an empty one are combined. Without a guider, a `guidance_scale`
            in the call means plain classifier-free guidance.
        default_num_inference_steps (`int`, defaults to 25):
            The number of steps of a call without `num_inference_steps`.

    Raises:
        ValueError: if the prior is for a CLIP of other widths, or for texts of another length, or if the tokenizer
            does not fit the text encoder.
    """

    pipeline_tag = "text-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "text_encoder->prior"
    _optional_components = ["guider"]

    def __init__(
        self,
        prior: ModelMixin,
        text_encoder: CLIPTextModelWithProjection,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
        guider: BaseGuidance | None = None,
        default_num_inference_steps: int = 25,
    ):
        super().__init__()
        check_tokenizer(tokenizer, text_encoder)
        check_prior(prior, text_encoder)
        check_positive_int("default_num_inference_steps", default_num_inference_steps)
        self.register_modules(
            prior=prior, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler, guider=guider
        )
        self.register_to_config(default_num_inference_steps=default_num_inference_steps)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        num_images_per_prompt: int = 1,
        num_candidates: int = 2,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> ImageEmbedsOutput | tuple:
        r"""
        Makes `len(prompt) * num_images_per_prompt` embeddings; those of one prompt are next to each other.

        Args:
            prompt (`str` or `list[str]`):
                What the images show.
            num_images_per_prompt (`int`, defaults to 1):
                The number of embeddings for each prompt.
            num_candidates (`int`, defaults to 2):
                So many embeddings are drawn for each, and the one with the largest dot product with the embedding of
                the prompt is kept (section 2.2).
            num_inference_steps (`int`, *optional*, defaults to `default_num_inference_steps` of the pipeline):
                The number of denoising steps.
            guidance_scale (`float`, *optional*):
                The scale of the guider, or of plain classifier-free guidance in a pipeline without one; 1 is the
                prediction for the prompt alone, the default without guider.
            generator (`torch.Generator` or a list of one for each embedding, *optional*):
                Makes the embeddings reproducible.
            latents (`torch.Tensor` of shape `(N, num_candidates, D)`, *optional*):
                The noise of unit variance to start from, instead of one drawn from `generator`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImageEmbedsOutput`] instead of a tuple.

        Returns:
            [`ImageEmbedsOutput`] or `tuple`: the embeddings, in `.image_embeds` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out, before any step is made.

        Example:

        ```py
        >>> pipe = UnCLIPPriorPipeline.from_pretrained("user/prior")
        >>> image_embeds = pipe(["a red three", "two green fives"], guidance_scale=2.0).image_embeds
        ```
        """
        # 1. Checks
        prompts = list_prompts("prompt", prompt)
        check_positive_int("num_images_per_prompt", num_images_per_prompt)
        check_positive_int("num_candidates", num_candidates)
        count = len(prompts) * num_images_per_prompt
        check_generator(generator, count)
        check_needs_no_classifier(self.guider)
        check_guidance_scale(guidance_scale, self.guider)
        check_schedule(self.scheduler, num_inference_steps)
        shape = (count, num_candidates, self.prior.config.embedding_dim)
        check_latents(latents, shape)
        device = self._execution_device

        # 2. Text, of each prompt and of none
        text, empty_text = embed_with_empty(self.tokenizer, self.text_encoder, prompts, num_images_per_prompt)

        # 3. Embeddings
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        image_embeds = sample_image_embeds(
            self.prior,
            self.scheduler,
            build_guider(self.guider, guidance_scale),
            text,
            empty_text,
            latents.to(device, torch.float32),
            num_inference_steps or self.config.default_num_inference_steps,
            generator,
            self.progress_bar,
        )
        self.maybe_free_model_hooks()
        return ImageEmbedsOutput(image_embeds=image_embeds) if return_dict else (image_embeds,)
