"""Fine-tuning of the denoiser of a base, and of its text encoders: of all their weights, or by adapters (LoRA)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusers_ext.training.loop.configuration import option
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.model_files import save_pipeline, write_whole
from diffusers_ext.training.text_to_image.lora import FILE, AdapterConfig, add_adapters, load_adapters, save_adapters
from diffusers_ext.training.text_to_image.text_encoders import TextEncoders
from diffusers_ext.training.text_to_image.text_to_image_recipe import TextToImageConfig, TextToImageRecipe


class FineTuningRecipe(TextToImageRecipe):
    """Train the denoiser, and on request the text encoders: all their weights, or low-rank adapters."""

    def trained_networks(self):
        base, config = self.base, self.config
        if config.lora_rank is not None:
            self._add_adapters()
        else:
            base.denoiser.requires_grad_(True)
            for name in base.learning_text_encoders if config.train_text_encoder else ():
                base.train_text_encoder(name)
        networks = {base.denoiser_name: base.denoiser}
        return {**networks, "text_encoders": TextEncoders(base)} if config.train_text_encoder else networks

    def _add_adapters(self) -> None:
        config = self.config
        add_adapters(
            self.base,
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            targets=config.lora_targets,
            use_dora=config.use_dora,
            init=config.lora_init,
            train_text_encoders=config.train_text_encoder,
        )
        if config.lora_weights is not None:
            load_adapters(self.base, config.lora_weights)

    def save(self, pipeline, folder: Path):
        if self.saves_the_base:
            write_whole(lambda unfinished: save_pipeline(pipeline, unfinished), folder, last="model_index.json")
        else:
            write_whole(lambda unfinished: save_adapters(self.base, unfinished), folder, last=FILE)

    # What stands around the algorithm

    def __init__(self, config: FineTuningConfig, context: TrainingContext):
        self.saves_the_base = config.lora_rank is None
        super().__init__(config, context)

    def optimizer_options(self, name: str) -> dict:
        rate = self.config.text_encoder_lr
        return {} if rate is None or name != "text_encoders" else {"learning_rate": rate}

    def identity(self) -> dict:
        names = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "use_dora", "train_text_encoder")
        return {**super().identity(), **{name: getattr(self.config, name) for name in names}}

    def describe(self) -> dict:
        config = self.config
        trained = "the denoiser and the text encoders" if config.train_text_encoder else "the denoiser"
        how = f"low-rank adapters (LoRA, rank {config.lora_rank}) of {trained}" if config.lora_rank else trained
        load_lora = "" if self.saves_the_base else 'pipe.load_lora_weights("{address}")\n'
        return {
            "task": f"Text to image: a {self.base.class_name} fine-tuned on captioned images; trained: {how}.",
            "loading": self.base.loading("{address}" if self.saves_the_base else None)
            + load_lora
            + f"image = pipe({self.validation_inputs()['prompt'][0]!r}).images[0]",
            "base_model": self.base_model(),
            "tags": ["text-to-image", *([] if self.saves_the_base else ["lora"])],
            "pipeline_tag": "text-to-image",
        }


@dataclass
class FineTuningConfig(AdapterConfig, TextToImageConfig):
    """The options of train_text_to_image.py."""

    train_text_encoder: bool = option(
        False, help="Train the CLIP text encoders too; with LoRA, adapters of them.", group="network"
    )
    text_encoder_lr: float | None = option(
        help="Their learning rate; by default --learning_rate.", group="optimisation"
    )

    def __post_init__(self):
        super().__post_init__()
        self.require(
            self.text_encoder_lr is None or (self.train_text_encoder and self.text_encoder_lr > 0),
            f"--text_encoder_lr must be positive and needs --train_text_encoder, not {self.text_encoder_lr}",
        )
        self.require(
            not (self.cache_text_embeddings and self.train_text_encoder),
            "--cache_text_embeddings would keep embeddings that --train_text_encoder changes: turn off one of them",
        )
