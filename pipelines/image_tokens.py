"""Images as grids of codes, and back, by any autoencoder with a codebook."""

import torch
from diffusers import DiffusionPipeline, ModelMixin, VQModel
from torch.nn import functional as F

from .checks import check_number
from .images import ImageInput
from .labels import ClassLabels, check_class_labels_given, look_up_labels
from .masks import Box, read_masks
from .networks import get_shared_models


class ImageTokens:
    """
    The codes of a vector-quantised autoencoder, as tokens of images (Esser et al. 2021, section 3.2,
    https://huggingface.co/papers/2012.09841; Ramesh et al. 2021, section 2.1, https://huggingface.co/papers/2102.12092).

    Args:
        vqvae ([`ModelMixin`]): a [`VQModel`] of diffusers, or a model with the methods `encode`, `quantize`,
            `embed_codes` and `decode` of [`VQVAEModel`], which makes maps of codes.

    Attributes:
        num_codes (`int`): how many codes there are.
        image_channels (`int`): of the images.
        pixels_per_code (`int`): how many pixels a code stands for along each side.

    Raises:
        ValueError: if the model has no maps of codes.
    """

    def __init__(self, vqvae: ModelMixin):
        config = vqvae.config
        is_map = isinstance(vqvae, VQModel) or (hasattr(vqvae, "embed_codes") and config.get("body", "conv") == "conv")
        if not is_map or config.get("num_top_downsamples") is not None:
            raise ValueError(
                "`vqvae` must make one map of codes of each image, as a VQModel or a VQVAEModel with convolutions "
                f"does, but its class is {type(vqvae).__name__}."
            )
        self.vqvae = vqvae
        self.image_channels = config.in_channels
        if isinstance(vqvae, VQModel):
            self.num_codes, self.pixels_per_code = config.num_vq_embeddings, 2 ** (len(config.block_out_channels) - 1)
        else:
            self.num_codes, self.pixels_per_code = config.num_embeddings, vqvae.stride
        self._is_unit_range = tuple(config.get("sample_range") or (-1, 1)) == (0, 1)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """The codes `(N, h, w)`, int64, of images `(N, C, H, W)` in `[-1, 1]`."""
        images = images / 2 + 0.5 if self._is_unit_range else images
        latents = self.vqvae.encode(images.to(self.vqvae.dtype), return_dict=False)[0]
        if isinstance(self.vqvae, VQModel):
            _, _, (_, _, codes) = self.vqvae.quantize(latents)
            return codes.view(len(latents), *latents.shape[2:])
        return self.vqvae.quantize(latents).codes

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """The images `(N, C, H, W)` around `[-1, 1]`, float32, of codes `(N, h, w)`."""
        if isinstance(self.vqvae, VQModel):
            entries = self.vqvae.quantize.get_codebook_entry(codes.flatten(), (*codes.shape, -1))
        else:
            entries = self.vqvae.embed_codes(codes)
        images = self.vqvae.decode(entries.to(self.vqvae.dtype), return_dict=False)[0].float()
        return images * 2 - 1 if self._is_unit_range else images


def get_label_prefix(
    labels: torch.Tensor | None, num_images: int, num_codes: int, device: torch.device
) -> torch.Tensor:
    """The token `(N, 1)` before the codes of each image: of its class, or the one of all images without classes."""
    if labels is None:
        labels = torch.zeros(num_images, dtype=torch.int64, device=device)
    return labels[:, None] + num_codes


def guide_logits(logits: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """
    Classifier-free guidance of logits (Ho & Salimans 2022, https://huggingface.co/papers/2207.12598).

    Args:
        logits (`torch.Tensor`): those of the condition `(N, ...)`; unless the scale is 1, `(2N, ...)` with those
            without condition behind them.
        guidance_scale (`float`): 1 is the condition itself, and 0 none.
    """
    if guidance_scale == 1:
        return logits
    conditional, unconditional = logits.chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)


class TokenPipelineMixin:
    """What pipelines of image tokens share. They have a `vqvae`, and in their configuration `token_height`,
    `token_width`, `id2label` and `null_class_label`; `num_labels` counts the labels, among them the one for no class.
    """

    @property
    def token_size(self) -> tuple[int, int]:
        """Height and width of the map of codes of an image."""
        return self.config.token_height, self.config.token_width

    @property
    def num_tokens(self) -> int:
        """How many codes an image has."""
        return self.config.token_height * self.config.token_width

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        tokens = ImageTokens(self.vqvae)
        return (tokens.image_channels, *(side * tokens.pixels_per_code for side in self.token_size))

    def get_label_ids(self, class_labels: ClassLabels) -> list[int]:
        r"""
        The class ids of labels that are given by id or by name. Names are spelled as in `id2label`.

        Raises:
            ValueError: for no label at all, an unknown or ambiguous name, an id out of range, or anything else, and
                if the network has no classes.
        """
        check_class_labels_given(class_labels, self.num_labels > 1, None)
        null = [self.config.null_class_label]
        return look_up_labels(class_labels, self.config.id2label, self.num_labels, null)

    def get_labels(self, class_labels: ClassLabels | None, number: int, device: torch.device) -> torch.Tensor | None:
        """The labels `(number,)`, as many of each as there are images of it; `None` for a network without classes."""
        if class_labels is None:
            null = self.config.null_class_label
            return None if null is None else torch.full((number,), null, device=device)
        labels = torch.tensor(self.get_label_ids(class_labels), device=device)
        return labels.repeat_interleave(number // len(labels))

    def prepare_image(
        self, given: torch.Tensor, mask_image: ImageInput | Box | list | None, number: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images `(N, C, H, W)` in `[-1, 1]`, which pixels of them are to be made `(N, 1, H, W)`, and their codes."""
        height, width = given.shape[2:]
        lower_half = (0, height // 2, width, height)
        is_made = read_masks(lower_half if mask_image is None else mask_image, number, height, width)
        images = 2 * given.to(device) - 1
        codes = ImageTokens(self.vqvae).encode(images).expand(number, -1, -1)
        return images.expand(number, -1, -1, -1), is_made.to(device), codes

    def get_made_tokens(self, is_made: torch.Tensor) -> torch.Tensor:
        """The tokens `(N, h, w)` with a pixel that is to be made, by pixels `(N, 1, H, W)`."""
        factor = ImageTokens(self.vqvae).pixels_per_code
        return F.max_pool2d(is_made.float(), factor).squeeze(1) > 0

    def check_given(self, given: torch.Tensor | None, mask_image, number: int, may_follow: bool) -> int:
        """The number of images of a call, which follows that of the given ones if `may_follow`."""
        if mask_image is not None and given is None:
            raise ValueError("`mask_image` is for changing an `image`, which is not given.")
        if given is None:
            return number
        number = len(given) if may_follow else number
        if len(given) not in (1, number):
            raise ValueError(f"`image` must be one image or {number}, one for each of the call, but is {len(given)}.")
        return number

    def check_guidance(self, guidance_scale: float, has_condition: bool):
        """Refuses guidance without a condition, or by a network that never saw its absence."""
        check_number("guidance_scale", guidance_scale)
        if guidance_scale != 1 and not has_condition:
            raise ValueError("`guidance_scale` guides to a condition, which is not given.")
        if guidance_scale != 1 and not self.can_guide:
            raise ValueError(
                "`guidance_scale` must be 1, because the network has always seen the condition: there is no "
                "`null_class_label`."
            )

    @property
    def can_guide(self) -> bool:
        """Whether the network knows what it is to have no condition."""
        return self.config.null_class_label is not None

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs):
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})
