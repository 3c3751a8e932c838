"""What recipes have in common that train a denoiser of images or films which reads captions."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline, ModelMixin

from diffusers_ext.training.diffusion.objectives import process
from diffusers_ext.training.evaluation.pipeline_classes import load_pipeline
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.text_and_image.caption_tokenizer import warn_of_cut_captions


class CaptionedDenoiserRecipe(Recipe):
    """A denoiser, a text encoder and a tokenizer, which are new or those of a trained pipeline.

    Attributes:
        objective ([`Objective`]): the noise process and what the denoiser predicts.
        pretrained ([`DiffusionPipeline`]): that of `--pretrained_model_name_or_path`, or `None`.
        tokenizer: makes tokens of captions, all filled up to its `model_max_length`.
        text_encoder: reads them; it is one of the networks if it is trained.
    """

    pipeline_class: type[DiffusionPipeline]
    # What the denoiser was trained for: entries of the pipeline's configuration.
    trained_for: dict = {}  # noqa: RUF012, never changed

    def new_unet(self, text_width: int) -> ModelMixin:
        """A denoiser with random weights for the states of texts."""
        raise NotImplementedError

    def channels(self) -> dict[str, int]:
        """The numbers of channels of the denoiser's input and output."""
        raise NotImplementedError

    def known_texts(self) -> list[str] | None:
        """The texts of the training, if they are known before."""
        raise NotImplementedError

    def __init__(self, config, context):
        super().__init__(config, context)
        self.objective, self.pretrained = config.objective(), None
        name, texts = config.pretrained_model_name_or_path, self.known_texts()
        if name is None:
            self.tokenizer = config.load_tokenizer(texts, config.cache_dir)
        else:
            option = "--pretrained_model_name_or_path"
            self.pretrained = load_pipeline(name, config.cache_dir, option, self.pipeline_class)
            self.tokenizer = self.pretrained.tokenizer
        if texts is not None:
            warn_of_cut_captions(self.tokenizer, texts, self.tokenizer.model_max_length)

    def networks(self) -> dict[str, torch.nn.Module]:
        """The denoiser, and the text encoder if it is trained with it."""
        if self.pretrained is None:
            self.text_encoder = self.config.build_text_encoder(self.tokenizer, self.config.cache_dir)
            unet = self.new_unet(self.text_encoder.config.hidden_size)
        else:
            self.text_encoder = self.pretrained.text_encoder.requires_grad_(self.config.train_text_encoder)
            unet = self.pretrained_unet()
        if any(weight.requires_grad for weight in self.text_encoder.parameters()):
            return {"unet": unet, "text_encoder": self.text_encoder}
        self.text_encoder = self.text_encoder.eval().to(self.context.device)
        return {"unet": unet}

    def pretrained_unet(self) -> ModelMixin:
        """The denoiser to train on.

        Raises:
            ValueError: if it is for images or films of other channels, another task, or another process.
        """
        pretrained, name = self.pretrained, self.config.pretrained_model_name_or_path
        needed = {**self.channels(), **self.trained_for, **process(self.objective.sampling_scheduler())}
        found = {**pretrained.unet.config, **pretrained.config, **process(pretrained.scheduler)}
        for key, value in needed.items():
            if found.get(key) != value:
                raise ValueError(f"{name} has {key}={found.get(key)}, but this run needs {value}.")
        return pretrained.unet
