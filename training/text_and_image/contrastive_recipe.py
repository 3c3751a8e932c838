"""What all recipes share that train a network to embed images and their captions near each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, ModelMixin
from transformers import CLIPImageProcessor, PreTrainedModel, PreTrainedTokenizerBase

from diffusers_ext.pixels import to_pixel_values
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.configuration import option
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.model_files import write_whole
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.text_and_image.caption_tokenizer import tokenize, warn_of_cut_captions
from diffusers_ext.training.text_and_image.captions import CaptionedImagesConfig
from diffusers_ext.training.text_and_image.clip_networks import check_tokenizer, feature_tensor
from diffusers_ext.training.text_and_image.contrastive_evaluation import ContrastiveEvaluator


GRID_ROWS, GRID_COLUMNS = 6, 8


class ImageTextParts(DiffusionPipeline):
    """A network with its tokenizer and image processor, as the trainer hands them on. It is saved in parts."""

    def __init__(
        self,
        clip: PreTrainedModel | ModelMixin,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: CLIPImageProcessor,
    ):
        super().__init__()
        self.register_modules(clip=clip, tokenizer=tokenizer, image_processor=image_processor)


class ContrastiveRecipe(Recipe):
    """Subclasses define `networks`, with the one name `clip`, the `step`, and `image_features`.

    Attributes:
        tokenizer, image_processor: what makes tokens of captions, and prepares images, for the network.
        max_length (`int`): the longest text in tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    image_processor: CLIPImageProcessor
    max_length: int
    decays_vectors = False  # nor the temperature: Radford et al. 2021, section 2.5

    def tokens(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The token ids and the attention mask of the captions of a batch, int64 (N, L) each."""
        captions = [self.dataset.captions[index] for index in batch["caption_ids"].tolist()]
        return self.token_ids(captions)

    def token_ids(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The token ids and the attention mask of texts, int64 (N, L) each."""
        ids, mask = tokenize(self.tokenizer, texts, self.max_length)
        return ids.to(self.context.device), mask.to(self.context.device)

    def image_features(self, clip: torch.nn.Module, clean: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Features (N, D) of images (N, C, H, W) in [-1, 1], at these places of a data set."""
        raise NotImplementedError

    def text_features(self, clip: torch.nn.Module, texts: list[str]) -> torch.Tensor:
        """Features (N, D) of texts."""
        raise NotImplementedError

    def pipeline(self, clip) -> ImageTextParts:
        return ImageTextParts(clip, self.tokenizer, self.image_processor)

    def save(self, pipeline: ImageTextParts, folder: Path):
        def write(unfinished: Path) -> None:
            for part in (pipeline.clip, pipeline.tokenizer, pipeline.image_processor):
                part.save_pretrained(unfinished)

        write_whole(write, folder, last="config.json")

    # What stands around the algorithm

    def __init__(self, config: ContrastiveConfig, context: TrainingContext):
        super().__init__(config, context)
        self.validation_images = config.load_validation_dataset(self.dataset, same_classes=True)
        self.evaluator = ContrastiveEvaluator(
            self.validation_images,
            self.dataset,
            templates=config.zero_shot_templates,
            num_images=config.num_evaluation_samples,
            batch_size=config.evaluation_batch_size,
            split=config.validation_split or config.dataset_split,
        )

    def check_texts(self, clip: torch.nn.Module, name: str) -> None:
        """Refuse a tokenizer that does not fit the network `name`, and say which captions it does not read whole."""
        check_tokenizer(self.tokenizer, clip, name)
        warn_of_cut_captions(self.tokenizer, self.dataset.captions, self.max_length)

    def before_training(self) -> None:
        super().before_training()
        self.validation_images.prepare()

    def identity(self) -> dict:
        return {"tokenizer": self.tokenizer.get_vocab(), "max_length": self.max_length}

    def embedders(self, clip: torch.nn.Module):
        """What the evaluator needs of a network: functions that embed images and texts, both of unit length."""

        def embed_images(pixels: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
            features = self.image_features(clip, to_pixel_values(pixels.to(self.context.device)), rows)
            return F.normalize(feature_tensor(features).float(), dim=1)

        def embed_texts(texts: list[str]) -> torch.Tensor:
            return F.normalize(feature_tensor(self.text_features(clip, texts)).float(), dim=1)

        return embed_images, embed_texts

    @torch.no_grad()
    def sample_grid(self, generate):
        """A row for each of a few captions: the images that fit it best."""
        captions = list(dict.fromkeys(self._first_captions()))[:GRID_ROWS]
        columns = min(GRID_COLUMNS, self._num_images())
        images = self.evaluator.best_images(
            captions, columns, *self.embedders(generate.pipeline.clip), generate.context
        )
        return sample_grid(images, columns, row_titles=captions)

    def _first_captions(self) -> list[str]:
        batches = self.validation_images.reference_batches(1, limit=4 * GRID_ROWS)
        return [self.validation_images.captions[batch["caption_ids"].item()] for batch in batches]

    def _num_images(self) -> int:
        known = self.validation_images.num_examples
        limit = self.config.num_evaluation_samples
        return limit if known is None else min(limit, known)

    @torch.no_grad()
    def evaluate(self, generate):
        return [self.evaluator(*self.embedders(generate.pipeline.clip), generate.context)]


@dataclass
class ContrastiveConfig(CaptionedImagesConfig):
    """Options that all of these recipes have."""

    zero_shot_templates: list[str] = option(
        ["a photo of a {}."], help="Phrases for a class, with {} in place of its name: zero-shot accuracy is by these."
    )

    adam_weight_decay: float = option(
        0.01, help="AdamW: the weight decay, which spares gains, biases and the temperature."
    )

    def __post_init__(self):
        super().__post_init__()
        height, width = self.size
        self.require(height == width, f"--resolution must be square for CLIP, not {height}x{width}")
        wrong = [template for template in self.zero_shot_templates if template.count("{}") != 1]
        self.require(
            bool(self.zero_shot_templates) and not wrong,
            f"--zero_shot_templates must each have one {{}} in place of the name of a class, not {wrong}",
        )
