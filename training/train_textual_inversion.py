r"""Textual inversion: teach a text-to-image model a new word, from a few images of what it means.

    accelerate launch training/train_textual_inversion.py --pretrained_model_name_or_path <base> \
        --train_data_dir ~/my_cat --placeholder_token "<my-cat>" --initializer_token cat

Gal et al. 2023 ("An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual Inversion"): all
networks stay unchanged, and only the embedding of the word is trained, in each CLIP text encoder of the base. The
result is `learned_embeds.safetensors`, which `load_textual_inversion` of diffusers reads, and for a second text
encoder `learned_embeds_2.safetensors`. With two encoders, `learned_embeds_clip.safetensors` contains both embeddings
as `clip_l` and `clip_g`, the layout of other programs.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from safetensors.torch import save_file

from diffusers_ext.data.subjects import Subject
from diffusers_ext.training.loop.configuration import option
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.model_files import write_whole
from diffusers_ext.training.text_to_image.placeholder_token import Placeholder
from diffusers_ext.training.text_to_image.subject_images import SubjectsConfig, SubjectsRecipe
from diffusers_ext.training.text_to_image.text_to_image_recipe import TextToImageConfig


logger = logging.getLogger(__name__)

FILES = {"text_encoder": "learned_embeds.safetensors", "text_encoder_2": "learned_embeds_2.safetensors"}
FILE_OF_ALL = "learned_embeds_clip.safetensors"
KEYS_OF_ALL = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


class TextualInversionRecipe(SubjectsRecipe):
    """Gal et al. 2023, section 4: the diffusion loss, minimised over the embedding of a word."""

    def trained_networks(self):
        self.placeholder.install()
        self.placeholder.set_vectors(self._initial())
        if self.config.gradient_checkpointing:
            self.base.denoiser.enable_gradient_checkpointing()
        return {"placeholder_vectors": self._initial}

    def prompts(self, batch, draw):
        captions, chosen = super().prompts(batch, draw), draw.host.integers(len(self.templates)).tolist()
        return [self.templates[i].replace("{}", caption) for i, caption in zip(chosen, captions, strict=True)]

    def encode_prompts(self, prompts):
        token_ids = self.base.tokenize(self.placeholder.expand(prompts))
        self.placeholder.set_vectors(self.placeholder_vectors())
        return self.encode({name: ids.to(self.context.device) for name, ids in token_ids.items()})

    def pipeline(self, placeholder_vectors):
        self.placeholder.set_vectors(placeholder_vectors())
        return super().pipeline()

    def save(self, pipeline, folder: Path):
        vectors = {name: rows.detach().cpu().float() for name, rows in self.network("placeholder_vectors")().items()}

        def write(unfinished: Path) -> None:
            for name, rows in vectors.items():
                save_file({self.config.placeholder_token: rows}, unfinished / FILES[name], {"format": "pt"})
            if len(vectors) > 1:
                of_all = {KEYS_OF_ALL[name]: rows for name, rows in vectors.items()}
                save_file(of_all, unfinished / FILE_OF_ALL, {"format": "pt"})

        write_whole(write, folder, last=FILES["text_encoder"])

    # What stands around the algorithm

    def __init__(self, config: TextualInversionConfig, context: TrainingContext):
        super().__init__(config, context)
        self._initial = self.placeholder.initial_vectors(config.initializer_token)
        self.templates = self._fitting_templates()
        self._check_captions()

    @cached_property
    def placeholder(self) -> Placeholder:
        """The new word, of which the base knows nothing until the networks are built."""
        return Placeholder(self.base, self.config.placeholder_token, self.config.num_vectors)

    def num_tokens(self, name: str, prompts: list[str]) -> list[int]:
        return self.placeholder.num_tokens(name, prompts)

    def image_subjects(self) -> list[Subject]:
        # The caption of each image is the word, which is inserted into the templates.
        config = self.config
        return [
            Subject(config.placeholder_token, config.train_data_dir, config.dataset_name, config.dataset_config_name)
        ]

    def _fitting_templates(self) -> list[str]:
        """The sentences that are not truncated within the word."""
        config = self.config
        if config.caption_column is not None:
            return ["{}"]
        templates = config.prompt_templates or TEMPLATES[config.learnable_property]
        fitting = [t for t in templates if self.placeholder.fits(t.replace("{}", config.placeholder_token))]
        cut = [t for t in templates if t not in fitting]
        if cut and (config.prompt_templates or not fitting):
            raise ValueError(
                f"The {config.num_vectors} tokens of {config.placeholder_token} don't fit into {cut[0]!r} for "
                f"{self.base.name}: use shorter --prompt_templates, or fewer --num_vectors."
            )
        if cut:
            logger.warning(
                f"{len(cut)} of {len(templates)} templates are too long for {self.base.name} and are left out."
            )
        return list(fitting)

    def _check_captions(self) -> None:
        word = self.config.placeholder_token
        for caption in self.dataset.captions:
            if word not in caption:
                raise ValueError(f"Every caption must contain the new word {word}, unlike {caption!r}.")
            if not self.placeholder.fits(caption):
                raise ValueError(f"The caption {caption!r} is too long for {self.base.name}: {word} is cut off.")

    def identity(self) -> dict:
        names = ("placeholder_token", "initializer_token")
        options = {name: getattr(self.config, name) for name in names}
        return {**super().identity(), **options, "templates": self.templates}

    def generate(self, generate, inputs):
        return super().generate(generate, {**inputs, "prompt": self.placeholder.expand(inputs["prompt"])})

    def default_prompts(self):
        return [self.templates[0].replace("{}", self.dataset.captions[0])]

    def describe(self) -> dict:
        config = self.config
        return {
            "task": f"Text to image: the word `{config.placeholder_token}` for a {self.base.class_name}, learned by "
            f"textual inversion in {config.num_vectors} vector{'s' * (config.num_vectors > 1)}.",
            "loading": self._loading(),
            "base_model": self.base_model(),
            "tags": ["text-to-image", "textual_inversion"],
            "pipeline_tag": "text-to-image",
        }

    def _loading(self) -> str:
        prompt, lines = repr(self.validation_inputs()["prompt"][0]), self.base.loading()
        if not hasattr(self.base.pipeline, "load_textual_inversion"):
            mixin = "TextualInversionLoaderMixin"
            lines = f"from diffusers.loaders import {mixin}\n{lines}"
            lines += "# This pipeline can't load embeddings by itself: add the loader of the other pipelines.\n"
            lines += f'pipe.__class__ = type("Pipeline", (type(pipe), {mixin}), {{}})\n'
            prompt = f"pipe.maybe_convert_prompt({prompt}, pipe.tokenizer)"
        lines += 'pipe.load_textual_inversion("{address}")\n'
        if "text_encoder_2" in self.placeholder.names:
            lines += (
                f'pipe.load_textual_inversion(\n    "{{address}}", weight_name="{FILES["text_encoder_2"]}", '
                "text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2\n)\n"
            )
        return f"{lines}image = pipe({prompt}).images[0]"


# Prompts for images of a thing or in a style, in words that say nothing else about the image.
TEMPLATES = {
    "object": (
        *("a photo of a {}", "a photo of the {}", "a photo of my {}", "a photo of one {}", "one {}", "the {}"),
        *("a good photo of a {}", "a bright photo of a {}", "a dark photo of the {}", "a close-up of a {}"),
        *("a picture of a {}", "a picture of the {}", "an image of a {}", "an image of the {}", "a nice {}"),
        *("a cropped photo of the {}", "a photo of a clean {}", "a photo of a small {}", "a large {}"),
    ),
    "style": (
        *("a painting in the style of {}", "a drawing in the style of {}", "a picture in the style of {}"),
        *("a work in the style of {}", "a scene in the style of {}", "a print in the style of {}"),
        *("a sketch in the style of {}", "an image in the style of {}", "art in the style of {}"),
        *("a small painting in the style of {}", "a large painting in the style of {}", "in the style of {}"),
        *("a dark painting in the style of {}", "a bright painting in the style of {}"),
    ),
}


@dataclass
class TextualInversionConfig(TextToImageConfig, SubjectsConfig):
    """The options of train_textual_inversion.py."""

    placeholder_token: str | None = option(
        help="The new word, which the base does not know yet, such as <my-cat>.", group="network", essential=True
    )
    initializer_token: str | None = option(
        help="A known word to start from, of one token or of --num_vectors tokens; by default the mean of all words.",
        group="network",
        essential=True,
    )
    num_vectors: int = option(
        1, help="The number of tokens of the new word: more tokens can describe more details.", group="network"
    )
    learnable_property: Literal["object", "style"] = option(
        "object",
        help="What the images have in common. It selects the prompts of the training: `a photo of a {}`, or `a "
        "painting in the style of {}`.",
        group="data",
    )
    prompt_templates: list[str] | None = option(
        help="Your own prompts instead, with {} for the new word.", group="data"
    )
    caption_column: str | None = option(
        help="The column with captions, instead of such prompts. Each caption must contain the new word. `text` if "
        "the captions are in text files beside the images."
    )

    # A word has few numbers, and its images are few
    learning_rate: float = option(5e-3, help="The learning rate after the warm-up.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    train_batch_size: int = option(4, help="Images per process and step.")
    num_train_epochs: int = option(400, help="How often to go through the data.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")

    def __post_init__(self):
        super().__post_init__()
        self.require(bool(self.placeholder_token), "--placeholder_token is required: the new word, such as <my-cat>")
        self.require_at_least(1, "num_vectors")
        self.require(
            self.caption_column is None or self.prompt_templates is None,
            "--caption_column and --prompt_templates both set the prompts of images: leave out one of them",
        )
        for template in self.prompt_templates or ():
            self.require("{}" in template, f"--prompt_templates need a {{}} for the new word, unlike {template!r}")
        self.require(self.prompt_templates != [], "--prompt_templates must contain at least one")
        self.require(
            not self.cache_text_embeddings,
            "--cache_text_embeddings would keep embeddings that a new word changes: leave it out",
        )


if __name__ == "__main__":
    run(TextualInversionRecipe, TextualInversionConfig)
