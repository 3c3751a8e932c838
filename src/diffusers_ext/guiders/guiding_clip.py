"""CLIP guidance: guidance to a text by the gradient of how well images fit it."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SchedulerMixin
from diffusers.configuration_utils import register_to_config

from .gradients import GradientGuidance, predicted_image


class CLIPGuidance(GradientGuidance):
    r"""
    CLIP guidance (Nichol et al. 2021, section 3.2, https://huggingface.co/papers/2112.10741), alone or combined with
    classifier-free guidance.

    Each step is guided by the gradient of `guidance_scale * s * cosine(image, text)`, where s is the learned scale of
    the CLIP. A [`NoisyCLIPModel`] sees the input of the denoiser, x_t, and the gradient is taken there, as in GLIDE.
    Any other CLIP knows only clean images. It sees the image x_0 that the denoiser predicts, and the gradient goes
    back through the denoiser to x_t. If its images are smaller than x_0, it sees random squares of x_0, as cut-outs in
    Katherine Crowson's CLIP-guided diffusion.

    Every pipeline that takes a guider draws what [`~CLIPGuidance.guide_to_texts`] sets before the call. Schedulers use
    the gradient as described for [`ClassifierGuidance`].

    Args:
        guidance_scale (`float`, defaults to 1.0):
            The scale of the gradient; 0 disables CLIP guidance.
        classifier_free_guidance_scale (`float`, defaults to 1.0):
            The scale of classifier-free guidance between conditional and unconditional predictions of the denoiser; 1
            uses only the conditional prediction, whose x_0 a clean CLIP sees in any case.
        num_cutouts (`int`, defaults to 16):
            How many cut-outs a clean CLIP sees at each step, if its images are smaller than x_0.
        cutout_power (`float`, defaults to 1.0):
            The distribution of their side: `u**cutout_power` of the way from the side of CLIP's images to that of x_0,
            for u uniform in [0, 1]. Larger values make them smaller.
        cutout_seed (`int`, defaults to 0):
            The seed of the cut-outs, which are the same for all images of a step.
        start, stop (`float`, default to 0.0 and 1.0):
            The interval of steps with guidance of either kind, as fractions of the number of steps.
        enabled (`bool`, defaults to `True`):
            Whether there is any guidance.

    Raises:
        ValueError: if a scale is not a finite number, there are no cut-outs, their power is negative, or the interval
            is invalid.
    """

    @register_to_config
    def __init__(
        self,
        guidance_scale: float = 1.0,
        classifier_free_guidance_scale: float = 1.0,
        num_cutouts: int = 16,
        cutout_power: float = 1.0,
        cutout_seed: int = 0,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ):
        super().__init__(guidance_scale, classifier_free_guidance_scale, start, stop, enabled)
        if num_cutouts < 1:
            raise ValueError(f"`num_cutouts` must be at least 1, but is {num_cutouts}.")
        if cutout_power < 0:
            raise ValueError(f"`cutout_power` must be at least 0, but is {cutout_power}.")
        self._clip = self._text_embeds = self._image_processor = None

    @torch.no_grad()
    def guide_to_texts(
        self,
        clip: torch.nn.Module,
        scheduler: SchedulerMixin,
        tokens: Mapping[str, torch.Tensor],
        image_processor: Any = None,
    ) -> None:
        """
        Sets the CLIP and the texts that guide the next calls of a pipeline.

        Args:
            clip ([`NoisyCLIPModel`], [`CLIPModel`] or [`CLIPResNetModel`]):
                The network that compares images with texts. One for noisy images must be trained for the noise of
                `scheduler`.
            scheduler ([`SchedulerMixin`]):
                The scheduler of the pipeline, for the noise level of each timestep and the prediction type.
            tokens (mapping of `torch.Tensor`, each `(1, L)` or `(N, L)`):
                What the tokenizer of `clip` makes of one text for all N images, or of a text for each of them:
                `input_ids` and, optionally, `attention_mask`.
            image_processor ([`CLIPImageProcessor`], *optional*):
                How a CLIP for clean images is shown images: its `crop_size`, `image_mean` and `image_std`.

        Raises:
            ValueError: if `clip` is for clean images, and `image_processor` is missing.
        """
        is_noisy = "timesteps" in inspect.signature(clip.get_image_features).parameters
        if not is_noisy and image_processor is None:
            raise ValueError(f"{type(clip).__name__} sees clean images: give its `image_processor`.")
        tokens = {name: values.to(clip.device) for name, values in tokens.items()}
        self._text_embeds = _embeddings(clip.get_text_features(**tokens))
        self._clip, self._image_processor = clip, None if is_noisy else image_processor
        self._use_scheduler(scheduler)

    def new(self, **kwargs) -> "CLIPGuidance":
        """A copy with other parameters, which is guided to the same texts."""
        guider = super().new(**kwargs)
        guider._clip, guider._image_processor, guider._text_embeds = (
            self._clip,
            self._image_processor,
            self._text_embeds,
        )
        if self._scheduler is not None:
            guider._use_scheduler(self._scheduler)
        return guider

    @property
    def _has_target(self) -> bool:
        return self._clip is not None

    @property
    def _is_through_denoiser(self) -> bool:
        return self._image_processor is not None and self._follows_gradient()

    def prepare_inputs(self, data: dict[str, torch.Tensor | tuple]) -> list:
        if "sample" in data and self._is_through_denoiser:
            data = {**data, "sample": data["sample"].detach().float().requires_grad_()}
        return super().prepare_inputs(data)

    def prepare_models(self, denoiser: torch.nn.Module) -> None:
        """Pipelines run denoisers without gradients. The conditional prediction, which is the first, needs them."""
        super().prepare_models(denoiser)
        self._had_gradients = torch.is_grad_enabled()
        torch.set_grad_enabled(self.is_conditional and self._is_through_denoiser)

    def cleanup_models(self, denoiser: torch.nn.Module) -> None:
        torch.set_grad_enabled(self._had_gradients)

    @torch.enable_grad()
    def _gradient(self, pred: torch.Tensor) -> torch.Tensor:
        """The gradient of s * cosine at the input of the denoiser, `(N, C, H, W)` in float32."""
        if self._image_processor is None:
            sample = self._sample.detach().float().requires_grad_()
            timesteps = torch.as_tensor(self._timestep, device=sample.device).expand(len(sample))
            images = _embeddings(self._clip.get_image_features(sample.to(self._clip.dtype), timesteps))
        else:
            sample = self._sample
            images = self._embeddings_of_clean(predicted_image(self._scheduler, *self._levels(), sample, pred))
        similarity = self._clip.logit_scale.exp().float() * (images * self._text_embeds).sum(dim=-1)
        return torch.autograd.grad(similarity.sum(), sample)[0]

    def _embeddings_of_clean(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings `(N, D)` of images in `[-1, 1]`; of cut-outs, the mean."""
        processor = self._image_processor
        mean, std = (images.new_tensor(v).view(-1, 1, 1) for v in (processor.image_mean, processor.image_std))
        cutouts = self._cut_out((images + 1) / 2, processor.crop_size["height"])
        pixels = ((torch.cat(cutouts) - mean) / std).to(self._clip.dtype)
        embeddings = _embeddings(self._clip.get_image_features(pixel_values=pixels))
        return embeddings.unflatten(0, (len(cutouts), len(images))).mean(dim=0)

    def _cut_out(self, images: torch.Tensor, side: int) -> list[torch.Tensor]:
        """Random squares, resized to `side`; whole images, where these are not larger."""
        height, width = images.shape[2:]
        if min(height, width) <= side:
            return [F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)]
        draw = torch.Generator().manual_seed(self.config.cutout_seed + self._step)
        cutouts = []
        for share, down, right in torch.rand(self.config.num_cutouts, 3, generator=draw).tolist():
            size = side + int(share**self.config.cutout_power * (min(height, width) - side + 1))
            top, left = int(down * (height - size + 1)), int(right * (width - size + 1))
            square = images[:, :, top : top + size, left : left + size]
            cutouts.append(F.interpolate(square, size=(side, side), mode="bilinear", antialias=True))
        return cutouts


def _embeddings(features) -> torch.Tensor:
    """Unit embeddings in float32; newer versions of transformers return features in an output class."""
    return F.normalize(getattr(features, "pooler_output", features).float(), dim=-1)
