"""Train a text-to-image model on captioned images: all of it, or low-rank adapters (LoRA).

    accelerate launch training/train_text_to_image.py --pretrained_model_name_or_path <base> \
        --train_data_dir ~/captioned --lora_rank 16

The result of full training is the whole pipeline; that of LoRA is `pytorch_lora_weights.safetensors`, which
`load_lora_weights` of the base's pipeline reads. A base with random weights is trained from nothing.
"""

from dataclasses import dataclass
from pathlib import Path

from diffusers_ext.training.loop.command import run
from diffusers_ext.training.loop.configuration import option
from diffusers_ext.training.text_to_image.lora import FILE, LoraConfig, add_adapters, save_adapters
from diffusers_ext.training.text_to_image.options import TextToImageConfig
from diffusers_ext.training.text_to_image.recipe import TextToImageRecipe
from diffusers_ext.training.text_to_image.saving import save_pipeline, write_whole
from diffusers_ext.training.text_to_image.text_encoders import TextEncoders


@dataclass
class FineTuningConfig(LoraConfig, TextToImageConfig):
    """The options of train_text_to_image.py."""

    train_text_encoder: bool = option(False, help="Train the CLIP text encoders too; with LoRA, adapters of them.")
    text_encoder_lr: float | None = option(help="Their learning rate; by default --learning_rate.")

    def __post_init__(self):
        super().__post_init__()
        self.require(
            self.text_encoder_lr is None or (self.train_text_encoder and self.text_encoder_lr > 0),
            f"--text_encoder_lr is positive, and needs --train_text_encoder, not {self.text_encoder_lr}",
        )
        self.require(
            not (self.cache_text_embeddings and self.train_text_encoder),
            "--cache_text_embeddings keeps what --train_text_encoder changes: leave out one of them",
        )


class FineTuningRecipe(TextToImageRecipe):
    """The denoiser learns, and the text encoders if asked to: whole, or by adapters."""

    config_class = FineTuningConfig

    def __init__(self, config: FineTuningConfig):
        self.saves_the_base = config.lora_rank is None
        super().__init__(config)

    def identity(self) -> dict:
        names = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "use_dora", "train_text_encoder")
        return {**super().identity(), **{name: getattr(self.config, name) for name in names}}

    def trained_networks(self):
        base, config = self.base, self.config
        if config.lora_rank is not None:
            add_adapters(base, config, config.train_text_encoder)
        else:
            base.denoiser.requires_grad_(True)
            for name in base.learning_text_encoders if config.train_text_encoder else ():
                base.train_text_encoder(name)
        networks = {base.denoiser_name: base.denoiser}
        return {**networks, "text_encoders": TextEncoders(base)} if config.train_text_encoder else networks

    def optimizer_options(self, name: str) -> dict:
        rate = self.config.text_encoder_lr
        return {} if rate is None or name != "text_encoders" else {"learning_rate": rate}

    def save(self, pipeline, folder: Path):
        if self.saves_the_base:
            write_whole(lambda unfinished: save_pipeline(pipeline, unfinished), folder, last="model_index.json")
        else:
            write_whole(lambda unfinished: save_adapters(self.base, unfinished), folder, last=FILE)

    def describe(self) -> dict:
        config = self.config
        learnt = "the denoiser and the text encoders" if config.train_text_encoder else "the denoiser"
        how = f"low-rank adapters (LoRA, rank {config.lora_rank}) of {learnt}" if config.lora_rank else learnt
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


if __name__ == "__main__":
    run(FineTuningRecipe)
