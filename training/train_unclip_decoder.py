"""Train the decoder of DALL-E 2: a diffusion model of pixels that draws images from their CLIP embeddings.

    accelerate launch training/train_unclip_decoder.py --config examples/mini_text_to_image/unclip_decoder.yaml

Ramesh et al. 2022 ("Hierarchical Text-Conditional Image Generation with CLIP Latents"), section 2.1. The embeddings
are those of `--clip`, which `train_clip.py` trains. With `--prior_model`, which `train_prior.py` trains, the result
draws images of prompts; without, it varies and mixes given images. The result is an [`UnCLIPPixelPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import UNet2DConditionModel

from diffusers_ext.models import UnCLIPConditioner
from diffusers_ext.pipelines import UnCLIPPixelPipeline, UnCLIPPriorPipeline
from diffusers_ext.training.diffusion.objectives import DiscreteDiffusion, WeightingConfig
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pipeline_classes import load_pipeline
from diffusers_ext.training.evaluation.samples import SamplingConfig
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.loop.weights import weights_fingerprint
from diffusers_ext.training.text_and_image.captions import CaptionedImagesConfig, draw_captions
from diffusers_ext.training.text_and_image.decoder_evaluation import DecoderEvaluator
from diffusers_ext.training.text_and_image.frozen_clip import FrozenCLIP


EXTRA_TOKENS = 4  # that the embedding of an image becomes, beside its part of the time embedding
USUAL_DECODER = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "attention_head_dim": 4,  # the number of heads in this class
    "cross_attention_dim": 64,
    "resnet_time_scale_shift": "scale_shift",
}
GRID_ROWS, GRID_COLUMNS = 6, 6


class UnCLIPDecoderRecipe(Recipe):
    """Ramesh et al. 2022, section 2.1: the embedding of the image is added to that of the timestep and becomes four
    tokens of context. Now and then it is hidden, and more often the caption, so that guidance works."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The U-Net, and what makes its conditions of embeddings."""
        config, size = self.config, self.config.size
        decided = {
            "sample_size": size[0],
            "in_channels": config.channels,
            "out_channels": config.channels,
            "class_embed_type": "identity",
        }
        decoder = build_network(
            UNet2DConditionModel, "--decoder", config.decoder, usual=USUAL_DECODER, decided=decided, trial=self.try_out
        )
        return {"decoder": decoder, "conditioner": self.conditioner_of(decoder)}

    def step(self, batch, draw):
        clean = batch["pixel_values"]
        is_hidden = draw.uniform() < self.config.embedding_dropout
        captions = draw_captions(self.dataset.captions, batch, self.config.prompt_dropout, draw)
        text = self.clip.prompt_embeds(captions)
        conditions = self.conditioner(self.clip.image_embeds(clean), *text, is_hidden)
        timesteps, noise = self.objective.draw_timesteps(draw), draw.normal_like(clean)
        noisy = self.objective.add_noise(clean, noise, timesteps)

        output = self.decoder(noisy, timesteps, **conditions).sample

        losses = self.objective.losses(output, clean, noisy, noise, timesteps)
        self.minimise(("decoder", "conditioner"), losses)

    def pipeline(self, decoder: torch.nn.Module, conditioner: torch.nn.Module) -> UnCLIPPixelPipeline:
        """The pipeline with a fast sampler, and with the prior where there is one."""
        prior = {}
        if self.prior is not None:
            prior = {"prior": self.prior.prior, "prior_scheduler": self.prior.scheduler}
        return UnCLIPPixelPipeline(
            decoder=decoder,
            conditioner=conditioner,
            text_encoder=self.clip.text_encoder,
            tokenizer=self.clip.tokenizer,
            image_encoder=self.clip.image_encoder,
            image_processor=self.clip.image_processor,
            scheduler=self.objective.sampling_scheduler(),
            default_num_inference_steps=self.config.num_inference_steps,
            **prior,
        )

    # What stands around the algorithm

    def __init__(self, config: UnCLIPDecoderConfig, context):
        super().__init__(config, context)
        self.clip = FrozenCLIP(config.clip, config.cache_dir, context.device)
        self.clip.warn_of_cut_captions(self.dataset.captions)
        self.prior = None if config.prior_model is None else self._load_prior()
        self.validation_images = config.load_validation_dataset(self.dataset, same_classes=True)
        self.objective = DiscreteDiffusion(
            prediction_type=config.prediction_type,
            num_train_timesteps=config.num_train_timesteps,
            beta_schedule="squaredcos_cap_v2",
            timestep_sampling=config.timestep_sampling,
            weighting=config.weighting(),
        )
        self.evaluator = DecoderEvaluator(
            self.validation_images,
            num_images=config.num_evaluation_samples,
            split=config.validation_split or config.dataset_split,
            has_prior=self.prior is not None,
        )

    def _load_prior(self) -> UnCLIPPriorPipeline:
        name = self.config.prior_model
        prior = load_pipeline(name, self.config.cache_dir, "--prior_model", UnCLIPPriorPipeline)
        if weights_fingerprint(prior.text_encoder.cpu()) != weights_fingerprint(self.clip.text_encoder):
            raise ValueError(f"--prior_model: {name} is a prior for another CLIP than --clip {self.config.clip}.")
        prior.prior.requires_grad_(False).to(self.context.device)
        return prior

    def conditioner_of(self, decoder: UNet2DConditionModel) -> UnCLIPConditioner:
        """What makes the conditions of this decoder of the embeddings of the CLIP."""
        return UnCLIPConditioner(
            clip_extra_context_tokens=EXTRA_TOKENS,
            clip_embeddings_dim=self.clip.embedding_dim,
            time_embed_dim=decoder.config.time_embedding_dim or 4 * decoder.config.block_out_channels[0],
            cross_attention_dim=decoder.config.cross_attention_dim,
        )

    def try_out(self, decoder: torch.nn.Module) -> None:
        """Call a decoder with a blank image."""
        config = decoder.config
        time_embeds = torch.zeros(1, config.time_embedding_dim or 4 * config.block_out_channels[0])
        context = torch.zeros(1, EXTRA_TOKENS, config.cross_attention_dim)
        image = torch.zeros(1, self.config.channels, *self.config.size)
        decoder(image, torch.zeros(1), context, class_labels=time_embeds)

    def before_training(self):
        super().before_training()
        self.validation_images.prepare()

    def identity(self) -> dict:
        options = {name: getattr(self.config, name) for name in ("embedding_dropout", "prompt_dropout")}
        return {**self.objective.identity(), "clip": self.clip.fingerprint(), **options}

    def sample_grid(self, generate):
        """A row for each of a few images: the image, and its variations."""
        images = self.evaluator.images(min(GRID_ROWS, self.evaluator.num_images))[0]
        variations = self.evaluator.variations(
            generate, images.repeat_interleave(GRID_COLUMNS - 1, dim=0), self.config.guidance_scales[-1]
        )
        rows = variations.unflatten(0, (len(images), GRID_COLUMNS - 1))
        grid = torch.cat([images[:, None], rows], dim=1).flatten(0, 1)
        return sample_grid(grid, GRID_COLUMNS, titles=["image", *["variation"] * (GRID_COLUMNS - 1)])

    def evaluate(self, generate):
        return self.evaluator(generate, self.config.guidance_scales)

    def describe(self) -> dict:
        prior = "" if self.prior is None else "images = pipe('a prompt', num_images_per_prompt=4).images\n"
        return {
            "task": "Images from CLIP embeddings of images: variations and interpolations of images"
            + (", and images of prompts by a diffusion prior" if self.prior is not None else "")
            + f". The decoder of DALL-E 2, trained from random weights for the CLIP {self.config.clip}.",
            "usage": f"{prior}variations = pipe(image=image, num_images_per_prompt=4).images",
            "base_model": self.config.clip,
            "tags": ["unclip", "text-to-image", "image-variations", "diffusion"],
        }


@dataclass
class UnCLIPDecoderConfig(WeightingConfig, SamplingConfig, CaptionedImagesConfig):
    """The options of train_unclip_decoder.py."""

    clip: str | None = option(
        help="The CLIPModel whose embeddings are drawn: a local folder or a Hub name.",
        group="network",
        essential=True,
    )
    prior_model: str | None = option(
        help="A prior for this CLIP, which becomes a part of the result: the folder or Hub name of an "
        "UnCLIPPriorPipeline.",
        group="network",
    )
    decoder: JSONObject = option(
        JSONObject(),
        help="Arguments of UNet2DConditionModel, as JSON or a YAML mapping; by default small.",
        group="network",
    )
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = option(
        "v_prediction", help="What the decoder predicts."
    )
    num_train_timesteps: int = option(1000, help="The number of noise levels.")
    timestep_sampling: Literal["uniform", "logit_normal"] = option(
        "uniform", help="How noise levels are drawn: logit_normal (Esser et al. 2024) prefers middle levels."
    )
    embedding_dropout: float = option(0.1, help="How often the embedding of an image is hidden in training.")
    prompt_dropout: float = option(0.5, help="How often a caption is hidden in training.")
    num_inference_steps: int = option(20, help="Steps of the decoder's sampler.", group="evaluation")

    def __post_init__(self):
        super().__post_init__()
        height, width = self.size
        self.require(height == width, f"--resolution must be square for unCLIP, not {height}x{width}")
        self.require(self.clip is not None, "--clip is required: it names the CLIP whose embeddings are drawn")
        self.require_at_least(1, "num_train_timesteps")
        for name in ("embedding_dropout", "prompt_dropout"):
            value = getattr(self, name)
            self.require(0 <= value <= 1, f"--{name} must be from 0 to 1, not {value}")
        self.require(not self.streaming, "--streaming is not for decoders, whose variations need given images")


if __name__ == "__main__":
    run(UnCLIPDecoderRecipe, UnCLIPDecoderConfig)
