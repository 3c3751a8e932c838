"""What recipes share that train a transformer of the codes of a frozen autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PretrainedConfig, PreTrainedModel

from diffusers_ext.pipelines.image_tokens import ImageTokens
from diffusers_ext.training.diffusion.latents import EncodingConfig, load_autoencoder
from diffusers_ext.training.evaluation.grids import class_grid
from diffusers_ext.training.evaluation.sampled_recipe import SampledRecipe
from diffusers_ext.training.evaluation.samples import balanced_labels
from diffusers_ext.training.loop.configuration import JSONObject, TrainingConfig, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.weights import weights_fingerprint
from diffusers_ext.training.tokens.code_cache import CodeCache


class TokenRecipe(SampledRecipe):
    """Esser et al. 2021, section 3.2: the second stage, on the codes of an autoencoder that is trained already.

    Attributes:
        tokens ([`ImageTokens`]): encodes and decodes.
        token_size (`tuple[int, int]`): height and width of a map of codes.
    """

    def image_codes(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The codes (N, L) of the images of a batch, row by row."""
        return self._codes(batch["pixel_values"]).flatten(1)

    def labels(self, batch: dict[str, torch.Tensor], draw) -> torch.Tensor | None:
        """The classes (N,) of a batch, some of them hidden for guidance; `None` without classes."""
        if self.id2label is None:
            return None
        labels = batch["class_labels"]
        if self.null_class_label is None:
            return labels
        return draw.dropout(labels, self.config.label_dropout, self.null_class_label)

    @property
    def num_labels(self) -> int:
        """How many tokens stand for labels: the classes and that for no class, or one without classes."""
        if self.id2label is None:
            return 1
        return self.num_classes + (self.null_class_label is not None)

    @property
    def length(self) -> int:
        """How many codes an image has."""
        return self.token_size[0] * self.token_size[1]

    @property
    def token_sides(self) -> dict[str, int]:
        """Height and width of a map of codes, as arguments of a pipeline."""
        return dict(zip(("token_height", "token_width"), self.token_size, strict=True))

    # What stands around the algorithm

    def __init__(self, config: TokenConfig, context):
        super().__init__(config, context)
        vae = load_autoencoder(config.vae, config.cache_dir).requires_grad_(False).eval()
        try:
            self.tokens = ImageTokens(vae)
        except ValueError as error:
            raise ValueError(str(error).replace("`vqvae`", "--vae")) from error
        self.token_size = _token_size(self.tokens, config.size, config.channels)
        hides = self.id2label is not None and config.label_dropout > 0
        self.null_class_label = self.num_classes if hides else None

    def before_training(self) -> None:
        super().before_training()
        self.tokens.vqvae.to(self.context.device)
        folder = None
        if self.config.cache_latents:
            folder = Path(self.config.latent_cache_dir or Path(self.config.output_dir) / "cache")
        self._codes = CodeCache(folder, self.tokens)

    def identity(self) -> dict:
        return {"vae": weights_fingerprint(self.tokens.vqvae)}

    def sample_grid(self, generate):
        return class_grid(generate, self.id2label, **self.guidance())

    def evaluate(self, generate):
        if self.evaluator.extractor is None:
            return []
        labels = balanced_labels(self.id2label, self.evaluator.num_samples)
        return [
            self.evaluator.measure(generate, labels, guidance_scale=scale)
            for scale in (self.config.guidance_scales if self.null_class_label is not None else [1.0])
        ]

    def guidance(self) -> dict:
        """The guidance of the samples to look at: the strongest that is measured, where labels were hidden."""
        scales = self.config.guidance_scales
        return {} if self.null_class_label is None else {"guidance_scale": max(scales)}


def _token_size(tokens: ImageTokens, size: tuple[int, int], channels: int) -> tuple[int, int]:
    """Height and width of the maps of codes of such images.

    Raises:
        ValueError: if the autoencoder is not for them.
    """
    factor = tokens.pixels_per_code
    if channels != tokens.image_channels:
        raise ValueError(
            f"--vae encodes images of {tokens.image_channels} channels: --channels must be that, not {channels}."
        )
    if any(side % factor for side in size):
        raise ValueError(
            f"--resolution must be a multiple of {factor}, the pixels of a code of --vae, not "
            f"{' '.join(map(str, size))}."
        )
    return tuple(side // factor for side in size)


def build_transformer(
    model_class: type[PreTrainedModel],
    config_class: type[PretrainedConfig],
    given: dict,
    *,
    usual: dict,
    decided: dict,
) -> PreTrainedModel:
    """A new transformer of transformers.

    Args:
        model_class, config_class (`type`): its class, and that of its configuration.
        given (`dict`): arguments of the configuration that the user gives as --transformer.
        usual (`dict`): arguments that they replace.
        decided (`dict`): arguments that other options decide.

    Raises:
        ValueError: naming --transformer.
    """
    arguments = build_network(config_class, "--transformer", given, usual=usual, decided=decided)
    try:
        return model_class(arguments)
    except ValueError as error:
        raise ValueError(f"--transformer: {' '.join(str(error).split())}") from error


@dataclass
class TokenConfig(EncodingConfig, TrainingConfig):
    """The options that recipes of image tokens share."""

    vae: str | None = option(
        help="The autoencoder whose codes are the tokens (VQModel, VQVAEModel or DiscreteVAE): a folder or a Hub name "
        "of a model, or of a pipeline that has one.",
        group="network",
        essential=True,
    )
    transformer: JSONObject = option(
        JSONObject(),
        help="Arguments of the transformer's configuration, as JSON or a YAML mapping; by default small.",
        group="network",
    )
    class_conditional: bool = option(False, help="Give the transformer the class of the image.", group="network")
    label_dropout: float = option(0.1, help="How often the class is hidden in training, so that guidance works.")
    guidance_scales: list[float] = option(
        [1.0, 2.0], help="The guidance scales to measure, where labels were hidden.", group="evaluation"
    )

    learning_rate: float = option(1e-3, help="The learning rate after the warm-up.")
    lr_warmup_steps: int = option(50, help="Updates until the learning rate is reached.")
    ema_decay: float = option(0.999, help="The decay of the weights' average.")
    train_batch_size: int = option(64, help="Images per process and step.")

    def __post_init__(self):
        super().__post_init__()
        self.require(self.vae is not None, "--vae must name an autoencoder with a codebook, such as a VQModel")
        self.require(0 <= self.label_dropout < 1, f"--label_dropout must be in [0, 1), not {self.label_dropout}")
