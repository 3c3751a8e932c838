"""Train a transformer that predicts image tokens one after the other: from texts (DALL-E), classes or nothing.

    accelerate launch training/train_image_tokens.py --config examples/digits_tokens.yaml

The tokens are the codes of a frozen autoencoder. With classes or nothing this is the second stage of VQGAN (Esser et
al. 2021), with `--caption_column` the second stage of DALL-E (Ramesh et al. 2021). The transformer is
[`GPT2LMHeadModel`] of transformers, and the result a [`TokensToImagePipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from diffusers_ext.data import ImageDataset
from diffusers_ext.pipelines import TokensToImagePipeline
from diffusers_ext.pipelines.image_tokens import get_label_prefix
from diffusers_ext.pipelines.token_sequences import count_text_tokens, get_null_prefix, get_text_prefix
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.configuration import option
from diffusers_ext.training.text_and_image.caption_tokenizer import (
    load_tokenizer,
    longest_caption,
    make_caption_tokenizer,
    warn_of_cut_captions,
)
from diffusers_ext.training.tokens.token_recipe import TokenConfig, TokenRecipe, build_transformer


USUAL = {"n_embd": 128, "n_layer": 4, "n_head": 4}
IMAGE_WEIGHT = 7 / 8  # of the loss; the rest is for texts (Ramesh et al. 2021, section 2.2)
GRID_ROWS, GRID_COLUMNS = 6, 8


class ImageTokenRecipe(TokenRecipe):
    """Esser et al. 2021, eq. 10 and 11: the likelihood of an image is the product of those of its codes in order."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The transformer, with a vocabulary of codes and of what stands before them."""
        decided = {
            "vocab_size": self.tokens.num_codes + self.num_prefix_tokens,
            "n_positions": self.prefix_length + self.length - 1,
            "bos_token_id": None,
            "eos_token_id": None,
            "tie_word_embeddings": False,
        }
        usual = {**USUAL, **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), self.config.dropout)}
        given = self.config.transformer
        return {"transformer": build_transformer(GPT2LMHeadModel, GPT2Config, given, usual=usual, decided=decided)}

    def step(self, batch, draw):
        codes, prefix = self.image_codes(batch), self.prefix(batch, draw)
        sequence = torch.cat([prefix, codes], dim=1)
        logits = self.transformer(sequence[:, :-1], use_cache=False).logits
        self.minimise("transformer", self.losses(logits, prefix, codes))

    def prefix(self, batch: dict[str, torch.Tensor], draw) -> torch.Tensor:
        """What stands before the codes of each image, (N, P): its class, perhaps hidden, or a start token."""
        labels = self.labels(batch, draw)
        number, device = len(batch["pixel_values"]), batch["pixel_values"].device
        return get_label_prefix(labels, number, self.tokens.num_codes, device)

    def losses(self, logits: torch.Tensor, prefix: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """The mean negative log-likelihood of the codes (N, L) of each image, in nats, of shape (N,)."""
        of_codes = logits[:, prefix.shape[1] - 1 :, : self.tokens.num_codes]
        return F.cross_entropy(of_codes.transpose(1, 2), codes, reduction="none").mean(dim=1)

    def pipeline(self, transformer) -> TokensToImagePipeline:
        """The pipeline that draws images."""
        return TokensToImagePipeline(
            transformer,
            self.tokens.vqvae,
            **self.token_sides,
            id2label=self.id2label,
            null_class_label=self.null_class_label,
        )

    # What stands around the algorithm

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens the vocabulary has beside the codes."""
        return self.num_labels

    @property
    def prefix_length(self) -> int:
        """How many tokens stand before the codes."""
        return 1

    def describe(self) -> dict:
        kind, names = self.kind, self.id2label
        call = "batch_size=4" if names is None else f"class_labels={list(names.values())[:2]}, num_images_per_label=4"
        return {
            "task": f"{kind.capitalize()} image generation token by token: a transformer of the codes of its "
            f"{type(self.tokens.vqvae).__name__}, trained from random weights by maximum likelihood.",
            "usage": f"images = pipe({call}).images",
            "pipeline_tag": "unconditional-image-generation",
            "tags": [f"{kind}-image-generation", "autoregressive", "image-tokens"],
        }


class TextToTokensRecipe(ImageTokenRecipe):
    """Ramesh et al. 2021, section 2.2: texts and images are one sequence of tokens, and each is predicted."""

    def prefix(self, batch, draw):
        """The tokens (N, P) of the captions, some of which are hidden."""
        captions = [self.dataset.captions[index] for index in batch["caption_ids"].tolist()]
        device, num_codes = batch["pixel_values"].device, self.tokens.num_codes
        texts = get_text_prefix(self.tokenizer, captions, num_codes, device)
        is_hidden = draw.uniform() < self.config.caption_dropout
        return torch.where(is_hidden[:, None], get_null_prefix(self.tokenizer, num_codes, device), texts)

    def losses(self, logits, prefix, codes):
        """The weighted mean of the likelihoods of the text and of the image."""
        num_codes = self.tokens.num_codes
        of_texts = logits[:, : prefix.shape[1] - 1, num_codes:]
        text = F.cross_entropy(of_texts.transpose(1, 2), prefix[:, 1:] - num_codes, reduction="none").mean(dim=1)
        image = super().losses(logits, prefix, codes)
        self.log(text_loss=text, image_loss=image)
        return (1 - IMAGE_WEIGHT) * text + IMAGE_WEIGHT * image

    def pipeline(self, transformer):
        return TokensToImagePipeline(
            transformer,
            self.tokens.vqvae,
            **self.token_sides,
            tokenizer=self.tokenizer,
            knows_no_text=self.config.caption_dropout > 0,
        )

    # What stands around the algorithm

    def __init__(self, config: ImageTokenConfig, context):
        super().__init__(config, context)
        captions, name = self.dataset.captions, config.tokenizer_name_or_path
        if config.streaming and (name is None or config.max_caption_length is None):
            raise ValueError(
                "The captions of a stream are not known before: give a --tokenizer_name_or_path and a "
                "--max_caption_length."
            )
        if name is None:
            self.tokenizer = make_caption_tokenizer(captions, config.vocabulary_size)
        else:
            self.tokenizer = load_tokenizer(name, config.cache_dir, "--tokenizer_name_or_path")
        self.tokenizer.model_max_length = config.max_caption_length or longest_caption(self.tokenizer, captions)
        if not config.streaming:
            warn_of_cut_captions(self.tokenizer, captions, self.tokenizer.model_max_length)

    @property
    def num_prefix_tokens(self) -> int:
        return count_text_tokens(self.tokenizer)

    @property
    def prefix_length(self) -> int:
        return self.tokenizer.model_max_length

    def identity(self) -> dict:
        return {**super().identity(), "tokenizer": self.tokenizer.get_vocab()}

    def guidance(self) -> dict:
        return {"guidance_scale": max(self.config.guidance_scales)} if self.config.caption_dropout > 0 else {}

    def sample_grid(self, generate):
        """A row for each of a few captions."""
        captions = list(dict.fromkeys(self.dataset.captions))[:GRID_ROWS]
        prompts = [caption for caption in captions for _ in range(GRID_COLUMNS)]
        images = generate.images(len(prompts), per_image={"prompt": prompts}, **self.guidance())
        return sample_grid(images, GRID_COLUMNS, row_titles=captions)

    def evaluate(self, generate):
        """Nothing: how images fit texts is for a judge of these texts."""
        return []

    def describe(self) -> dict:
        caption = self.dataset.captions[0] if not self.config.streaming else "a text"
        return {
            "task": "Text-to-image generation token by token (DALL-E): a transformer of texts and of the codes of its "
            f"{type(self.tokens.vqvae).__name__}, trained from random weights by maximum likelihood.",
            "usage": f"images = pipe({caption!r}, num_images_per_prompt=4).images",
            "pipeline_tag": "text-to-image",
            "tags": ["text-to-image", "autoregressive", "image-tokens", "dall-e"],
        }


def image_token_recipe(config: ImageTokenConfig, context) -> ImageTokenRecipe:
    """The recipe for texts, or for classes or nothing."""
    return (ImageTokenRecipe if config.caption_column is None else TextToTokensRecipe)(config, context)


@dataclass
class ImageTokenConfig(TokenConfig):
    """The options of train_image_tokens.py."""

    dropout: float = option(0.1, help="How often a feature or an attention is zeroed.", group="network")
    caption_column: str | None = option(
        help="Learn to draw from texts: the column with one caption or several for each image. A folder of images has "
        "its captions in a metadata file, or in text files beside the images.",
        group="data",
    )
    caption_dropout: float = option(0.1, help="How often a caption is hidden in training, so that guidance works.")
    tokenizer_name_or_path: str | None = option(
        help="A tokenizer to use, instead of one that is made from the captions.", group="network"
    )
    vocabulary_size: int = option(
        1000, help="At most so many tokens in a tokenizer that is made from the captions.", group="network"
    )
    max_caption_length: int | None = option(
        help="The longest text in tokens, those that mark its ends included; by default that of the longest caption.",
        group="network",
    )

    def __post_init__(self):
        super().__post_init__()
        self.require(0 <= self.dropout < 1, f"--dropout must be in [0, 1), not {self.dropout}")
        self.require(0 <= self.caption_dropout < 1, f"--caption_dropout must be in [0, 1), not {self.caption_dropout}")
        self.require_at_least(3, "max_caption_length")
        self.require_at_least(514, "vocabulary_size")
        self.require(
            self.caption_column is None or not self.class_conditional,
            "--caption_column and --class_conditional exclude each other: images are drawn from texts or from classes",
        )
        names = ("caption_dropout", "tokenizer_name_or_path", "vocabulary_size", "max_caption_length")
        self.require_default(self.caption_column is not None, names, "is for --caption_column, which is not set")
        self.require_default(
            self.tokenizer_name_or_path is None,
            ("vocabulary_size",),
            "is for a tokenizer that is made from the captions, and not for --tokenizer_name_or_path",
        )

    def load_dataset(self, size: tuple[int, int], channels: int, *augmentations, **options) -> ImageDataset:
        """The images that these options name, with their captions if these are used."""
        if self.caption_column is not None:
            options["caption_column"] = self.caption_column
        return super().load_dataset(size, channels, *augmentations, **options)


if __name__ == "__main__":
    run(image_token_recipe, ImageTokenConfig)
