"""How well images fit prompts, by a CLIP: with gradients, and perhaps by random squares of the images."""

import torch
from diffusers import ModelMixin
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPModel, PreTrainedTokenizerBase

from .clip_embeddings import normalized_pixels


def check_clip(clip: CLIPModel, generator: ModelMixin) -> None:
    """Refuses a network that is no CLIP, or one that can't see the images of a generator, with a `ValueError`."""
    if not isinstance(clip, CLIPModel):
        raise ValueError(f"`clip` must be a CLIPModel of transformers, but is a {type(clip).__name__}.")
    seen, made = clip.config.vision_config.num_channels, generator.config.out_channels
    if made not in (seen, 1):
        raise ValueError(f"`clip` sees images of {seen} channels, but the generator makes {made}.")


def embed_texts(clip: CLIPModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> torch.Tensor:
    """The embeddings `(N, D)`, of length 1, of prompts; those that are longer than the network reads are cut."""
    tokens = tokenizer(
        prompts,
        padding="max_length",
        max_length=clip.config.text_config.max_position_embeddings,
        truncation=True,
        return_tensors="pt",
    )
    return _unit(clip.get_text_features(**{name: values.to(clip.device) for name, values in tokens.items()}))


def embed_views(
    clip: CLIPModel,
    image_processor: CLIPImageProcessor,
    images: torch.Tensor,
    num_cutouts: int = 0,
    smallest_cutout: float = 0.8,
    source: torch.Generator | None = None,
) -> torch.Tensor:
    """
    The embeddings of images, of length 1; of cut-outs, their mean, so that products with texts are mean cosines.

    Args:
        clip ([`CLIPModel`]), image_processor ([`CLIPImageProcessor`]): the CLIP, and how it is shown images.
        images (`torch.Tensor` of shape `(N, C, H, W)`): in `[0, 1]`; gray ones are shown as RGB where the CLIP sees
            colours.
        num_cutouts (`int`): how many random squares are shown, the same for all images; 0 shows whole images.
        smallest_cutout (`float`): the side of the smallest squares, as a fraction of the shorter side of images.
        source (`torch.Generator`, *optional*): what the squares are drawn from, on the CPU.

    Returns:
        `torch.Tensor` of shape `(N, D)`, float32.
    """
    vision = clip.config.vision_config
    images = images.expand(-1, vision.num_channels, -1, -1)
    views = random_squares(images, num_cutouts, smallest_cutout, source) if num_cutouts else [images]
    side = (vision.image_size, vision.image_size)
    pixels = torch.cat([F.interpolate(view, side, mode="bilinear", antialias=True) for view in views])
    features = clip.get_image_features(pixel_values=normalized_pixels(image_processor, pixels).to(clip.dtype))
    return _unit(features).unflatten(0, (len(views), len(images))).mean(dim=0)


def random_squares(
    images: torch.Tensor, number: int, smallest: float, source: torch.Generator | None
) -> list[torch.Tensor]:
    """Squares at uniform places, whose sides are uniform between a fraction `smallest` of the shorter side and it."""
    height, width = images.shape[2:]
    squares = []
    for share, down, right in torch.rand(number, 3, generator=source).tolist():
        side = max(1, round((smallest + share * (1 - smallest)) * min(height, width)))
        top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
        squares.append(images[:, :, top : top + side, left : left + side])
    return squares


def _unit(features) -> torch.Tensor:
    """Float32, of length 1; newer versions of transformers return features in an output class."""
    return F.normalize(getattr(features, "pooler_output", features).float(), dim=-1)
