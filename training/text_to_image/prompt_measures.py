"""Measures of the samples of prompts, by image and text encoders: CLIP-I, CLIP-T, DINO, and prior drift."""

import logging
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from transformers import AutoTokenizer

from diffusers_ext.metrics import load_feature_extractor


logger = logging.getLogger(__name__)


class PromptMeasures:
    """Measures of samples (Ruiz et al. 2023, "DreamBooth", section 4.1), each a mean of cosines in [-1, 1].

    clip_i and dino are means over all pairs of a sample and a training image, clip_t is the mean over all samples and
    their prompts. prior_drift is 1 minus the mean cosine between the images that the model makes of the same prompts
    and noise before and after the training.

    Args:
        clip_model (`str`, *optional*): the folder or Hub name of a CLIP model, for clip_i and clip_t.
        dino_model (`str`, *optional*): the folder or Hub name of an image model such as DINO, for dino.
        device (`torch.device`): where they run.

    Raises:
        ValueError: if `clip_model` has no text encoder.
        OSError: if a model does not exist.
    """

    def __init__(self, clip_model: str | None, dino_model: str | None, device: torch.device):
        names = {"clip_i": clip_model, "dino": dino_model}
        names = {measure: name for measure, name in names.items() if name is not None}
        self.provenance = {"extractor": ", ".join(names.values())}
        self.models = {measure: load_feature_extractor(name, device=device) for measure, name in names.items()}
        self._references, self._prior = {}, None
        if clip_model is not None:
            if not hasattr(self.models["clip_i"].model, "get_text_features"):
                raise ValueError(
                    f"--clip_model must encode text as well as images, as CLIP does; {clip_model} does not."
                )
            self.tokenizer = AutoTokenizer.from_pretrained(clip_model)

    def __call__(
        self, images: torch.Tensor, prompts: list[str], references: Iterable[torch.Tensor]
    ) -> dict[str, float]:
        """
        Args:
            images: the samples, uint8 (N, 3, H, W).
            prompts: the prompt of each.
            references: batches of training images, also uint8; they are read in the first call only.
        """
        if not self._references:
            self._references = self._means(references)
        values = {}
        for measure, model in self.models.items():
            # The mean over all pairs is the product of the two means.
            mean = embed(model, images).mean(dim=0)
            values[measure] = (mean @ self._references[measure]).item()
        if "clip_i" in self.models:
            text = self._embed_text(prompts)
            values["clip_t"] = (embed(self.models["clip_i"], images) * text).sum(dim=1).mean().item()
        return values

    def warn_of_cut_prompts(self, prompts: list[str]) -> None:
        """Say how many prompts clip_t compares the beginnings of, because the CLIP model does not read their ends."""
        if "clip_i" not in self.models or not prompts:
            return
        limit = self.models["clip_i"].model.config.text_config.max_position_embeddings
        lengths = [len(row) for row in self.tokenizer(prompts, truncation=False, verbose=False).input_ids]
        num_cut = sum(length > limit for length in lengths)
        if num_cut:
            logger.warning(
                f"{num_cut} of {len(prompts)} --validation_prompts are longer than --clip_model reads ({limit} "
                "tokens): clip_t compares images with their beginnings only."
            )

    def remember_prior(self, images: torch.Tensor) -> None:
        """Keep the embeddings of images, uint8 (N, 3, H, W), that the model made before the training."""
        self._prior = embed(self._prior_model, images)

    def prior_drift(self, images: torch.Tensor) -> dict[str, float]:
        """The drift of images, uint8 (N, 3, H, W), made after the training from the same prompts and noise."""
        cosines = (embed(self._prior_model, images) * self._prior).sum(dim=1)
        return {"prior_drift": 1 - cosines.mean().item()}

    @property
    def _prior_model(self):
        return self.models.get("dino", self.models.get("clip_i"))

    def _means(self, batches: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
        embedded = {measure: [] for measure in self.models}
        for images in batches:
            for measure, model in self.models.items():
                embedded[measure].append(embed(model, images))
        return {measure: torch.cat(rows).mean(dim=0) for measure, rows in embedded.items()}

    @torch.no_grad()
    def _embed_text(self, prompts: list[str]) -> torch.Tensor:
        model = self.models["clip_i"].model
        tokens = self.tokenizer(prompts, padding=True, truncation=True, return_tensors="pt").to(model.device)
        features = model.get_text_features(**tokens)
        return F.normalize(getattr(features, "pooler_output", features).float(), dim=1).cpu()


def embed(model, images: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
    """The features of images, uint8 (N, 3, H, W), scaled to length 1: (N, D) on the CPU."""
    features = [model(batch).features.cpu() for batch in images.split(batch_size)]
    return F.normalize(torch.cat(features), dim=1)
