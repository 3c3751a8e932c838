"""A trained CLIP that other networks learn from."""

from collections.abc import Sequence

import torch
from transformers import (
    AutoConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from diffusers_ext.pipelines.clip_embeddings import PromptEmbeddings, embed_images, embed_tokens
from diffusers_ext.training.loop.weights import weights_fingerprint
from diffusers_ext.training.text_and_image.caption_tokenizer import load_tokenizer, tokenize, warn_of_cut_captions


class FrozenCLIP:
    """Both towers of a [`CLIPModel`] with its tokenizer and image processor; none of them is trained.

    Args:
        name (`str`): its folder or its name on the Hub.
        cache_dir (`str`, *optional*): where it is kept after a download.
        device (`torch.device`): where the towers are.

    Raises:
        ValueError: naming `--clip`, if it is no `CLIPModel`, if its tokenizer has more tokens than it knows, or if
            the states of its tokens and its embeddings differ in width, which networks of diffusers for unCLIP do not
            take.
    """

    def __init__(self, name: str, cache_dir: str | None, device: torch.device):
        clip, self.tokenizer, self.image_processor = load_whole_clip(name, cache_dir)
        self.name = name
        self.text_encoder = _tower(CLIPTextModelWithProjection(clip.config.text_config), clip).to(device)
        self.image_encoder = _tower(CLIPVisionModelWithProjection(clip.config.vision_config), clip).to(device)
        known = self.text_encoder.config.vocab_size
        if len(self.tokenizer) > known:
            raise ValueError(
                f"--clip: the tokenizer of {name} has {len(self.tokenizer)} tokens, but its text encoder knows only "
                f"{known}."
            )
        states, embeddings = self.text_encoder.config.hidden_size, self.embedding_dim
        if states != embeddings:
            raise ValueError(
                f"--clip: the states of its tokens have {states} channels and its embeddings {embeddings}, but the "
                "networks of unCLIP take only one width: train a CLIP with --projection_dim equal to hidden_size in "
                "--text_config."
            )

    @property
    def embedding_dim(self) -> int:
        """The width of the embeddings."""
        return self.text_encoder.config.projection_dim

    @property
    def max_length(self) -> int:
        """The tokens of a text."""
        return self.text_encoder.config.max_position_embeddings

    @torch.no_grad()
    def image_embeds(self, pixels: torch.Tensor) -> torch.Tensor:
        """The embeddings (N, D), of any length, of images (N, C, H, W) in [-1, 1]."""
        return embed_images(self.image_encoder, self.image_processor, (pixels + 1) / 2)

    @torch.no_grad()
    def prompt_embeds(self, prompts: list[str]) -> PromptEmbeddings:
        """The embeddings of prompts, of which longer ones are cut, and the states of their tokens."""
        return embed_tokens(self.text_encoder, *tokenize(self.tokenizer, prompts, self.max_length))

    def warn_of_cut_captions(self, captions: Sequence[str]) -> None:
        """Say how many captions are longer than the CLIP reads."""
        warn_of_cut_captions(self.tokenizer, captions, self.max_length)

    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify the weights."""
        return weights_fingerprint(self.text_encoder, self.image_encoder)


def load_whole_clip(name: str, cache_dir: str | None) -> tuple[CLIPModel, PreTrainedTokenizerBase, CLIPImageProcessor]:
    """The CLIP that `--clip` names, with its tokenizer and its image processor.

    Raises:
        ValueError: naming `--clip`, if it is no `CLIPModel`, or has no tokenizer or image processor.
    """
    try:
        kind = AutoConfig.from_pretrained(name, cache_dir=cache_dir).model_type
    except (OSError, ValueError) as error:
        raise ValueError(f"--clip: {name} is no CLIPModel of transformers, such as train_clip.py makes.") from error
    if kind != "clip":
        raise ValueError(f"--clip: {name} is a model of the type {kind}, but must be a CLIPModel.")
    tokenizer = load_tokenizer(name, cache_dir, "--clip")
    try:
        image_processor = CLIPImageProcessor.from_pretrained(name, cache_dir=cache_dir)
    except OSError as error:
        raise ValueError(f"--clip: there is no image processor in {name}.") from error
    return CLIPModel.from_pretrained(name, cache_dir=cache_dir), tokenizer, image_processor


def _tower(tower: PreTrainedModel, clip: CLIPModel) -> PreTrainedModel:
    """A tower with its weights of both; they have the same names."""
    weights = clip.state_dict()
    tower.load_state_dict({name: weights[name] for name in tower.state_dict()})
    return tower.eval().requires_grad_(False)
