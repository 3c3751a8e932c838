"""Train the diffusion prior of DALL-E 2: from the embedding of a caption to embeddings of images that fit it.

    accelerate launch training/train_prior.py --config examples/mini_text_to_image/prior.yaml

Ramesh et al. 2022 ("Hierarchical Text-Conditional Image Generation with CLIP Latents"), section 2.2. The embeddings
are those of `--clip`, which `train_clip.py` trains. The result is an [`UnCLIPPriorPipeline`], whose parts diffusers'
own unCLIP pipelines load too.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, PriorTransformer

from diffusers_ext.pipelines import UnCLIPPriorPipeline
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.samples import SamplingConfig
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.text_and_image.captions import CaptionedImagesConfig, draw_captions
from diffusers_ext.training.text_and_image.contrastive_evaluation import ContrastiveEvaluator
from diffusers_ext.training.text_and_image.frozen_clip import FrozenCLIP
from diffusers_ext.training.text_and_image.prior_evaluation import PriorEvaluator


STATISTICS_IMAGES = 20_000  # of which the mean and the standard deviation of embeddings are measured
CLIP_SAMPLE_RANGE = 10.0  # standard deviations, within which predicted embeddings are kept
USUAL_PRIOR = {"num_attention_heads": 4, "attention_head_dim": 16, "num_layers": 3}
GRID_ROWS, GRID_COLUMNS = 6, 8


class PriorRecipe(Recipe):
    """Ramesh et al. 2022, equation 2: the network predicts the embedding of the image itself, not its noise.

    Embeddings are standardised in each dimension, as in https://github.com/kakaobrain/karlo.
    """

    def networks(self) -> dict[str, torch.nn.Module]:
        """The transformer; the mean and the deviation of embeddings are among its weights, but are not trained."""
        width, length = self.clip.embedding_dim, self.clip.max_length

        def trial(prior: torch.nn.Module) -> None:
            mask = torch.ones(1, length, dtype=torch.bool)
            prior(torch.zeros(1, width), 0, torch.zeros(1, width), torch.zeros(1, length, width), mask)

        decided = {"embedding_dim": width, "num_embeddings": length}
        prior = build_network(
            PriorTransformer, "--prior", self.config.prior, usual=USUAL_PRIOR, decided=decided, trial=trial
        )
        for statistic in (prior.clip_mean, prior.clip_std):
            statistic.requires_grad_(False)
        return {"prior": prior}

    def step(self, batch, draw):
        prior = self.network("prior")
        clean = (self.clip.image_embeds(batch["pixel_values"]) - prior.clip_mean) / prior.clip_std
        captions = draw_captions(self.dataset.captions, batch, self.config.prompt_dropout, draw)
        text = self.clip.prompt_embeds(captions)
        timesteps, noise = draw.integers(self.scheduler.config.num_train_timesteps), draw.normal_like(clean)
        noisy = self.scheduler.add_noise(clean, noise, timesteps)

        predicted = self.prior(noisy, timesteps, text.embeds, text.hidden_states, text.mask).predicted_image_embedding

        self.minimise("prior", (predicted.float() - clean).square().mean(dim=1))

    def pipeline(self, prior: torch.nn.Module) -> UnCLIPPriorPipeline:
        """The pipeline with the ancestral sampler, as in the paper."""
        return UnCLIPPriorPipeline(
            prior=prior,
            text_encoder=self.clip.text_encoder,
            tokenizer=self.clip.tokenizer,
            scheduler=DDPMScheduler.from_config(self.scheduler.config),
            default_num_inference_steps=self.config.num_inference_steps,
        )

    # What stands around the algorithm

    def __init__(self, config: PriorConfig, context):
        super().__init__(config, context)
        self.clip = FrozenCLIP(config.clip, config.cache_dir, context.device)
        self.clip.warn_of_cut_captions(self.dataset.captions)
        self.validation_images = config.load_validation_dataset(self.dataset, same_classes=True)
        # Karlo's process; UnCLIPScheduler is the same, but its first step is inexact.
        self.scheduler = DDPMScheduler(
            beta_schedule="squaredcos_cap_v2",
            variance_type="fixed_small",
            prediction_type="sample",
            clip_sample_range=CLIP_SAMPLE_RANGE,
            timestep_spacing="linspace",
        )
        images = {
            "num_images": config.num_evaluation_samples,
            "batch_size": config.evaluation_batch_size,
            "split": config.validation_split or config.dataset_split,
        }
        self.retrieval = ContrastiveEvaluator(self.validation_images, self.dataset, templates=[], **images)
        self.evaluator = PriorEvaluator(self.validation_images, self.dataset, self.clip, **images)

    @torch.no_grad()
    def before_training(self):
        super().before_training()
        self.validation_images.prepare()
        embeddings = self.evaluator.image_embeds(self.dataset, self.context, limit=STATISTICS_IMAGES)[0]
        prior = self.network("prior")
        prior.clip_mean.copy_(embeddings.mean(dim=0))
        prior.clip_std.copy_(embeddings.std(dim=0).clamp(min=1e-6))

    def identity(self) -> dict:
        return {"clip": self.clip.fingerprint(), "prompt_dropout": self.config.prompt_dropout}

    @torch.no_grad()
    def sample_grid(self, generate):
        """A row for each of a few captions: the images whose embeddings are nearest to those that the prior makes."""
        captions = list(dict.fromkeys(self.validation_images.captions))[:GRID_ROWS]
        columns = min(GRID_COLUMNS, self.config.num_evaluation_samples, self.validation_images.num_examples)

        def embed_images(pixels: torch.Tensor, rows) -> torch.Tensor:
            return F.normalize(self.evaluator.embed_bytes(pixels), dim=1)

        def embed_texts(texts: list[str]) -> torch.Tensor:
            return F.normalize(self.evaluator.sample(generate, texts, self.config.guidance_scales[-1]), dim=1)

        images = self.retrieval.best_images(captions, columns, embed_images, embed_texts, generate.context)
        return sample_grid(images, columns, row_titles=captions)

    @torch.no_grad()
    def evaluate(self, generate):
        return self.evaluator(generate, self.config.guidance_scales)

    def describe(self) -> dict:
        caption = next(iter(self.validation_images.captions))
        return {
            "task": f"From texts to CLIP embeddings of images that fit them: the diffusion prior of DALL-E 2, trained "
            f"from random weights for the CLIP {self.config.clip}.",
            "usage": f"image_embeds = pipe({caption!r}, num_images_per_prompt=4).image_embeds",
            "base_model": self.config.clip,
            "tags": ["unclip", "diffusion-prior", "diffusion"],
        }


@dataclass
class PriorConfig(SamplingConfig, CaptionedImagesConfig):
    """The options of train_prior.py."""

    clip: str | None = option(
        help="The CLIPModel whose embeddings are learned: a local folder or a Hub name.",
        group="network",
        essential=True,
    )
    prior: JSONObject = option(
        JSONObject(),
        help="Arguments of PriorTransformer, as JSON or a YAML mapping; by default small.",
        group="network",
    )
    prompt_dropout: float = option(0.1, help="How often a caption is hidden in training, so that guidance works.")
    num_inference_steps: int = option(25, help="Steps of the sampler.", group="evaluation")

    def __post_init__(self):
        super().__post_init__()
        self.require(self.clip is not None, "--clip is required: it names the CLIP whose embeddings are learned")
        self.require(0 <= self.prompt_dropout < 1, f"--prompt_dropout must be in [0, 1), not {self.prompt_dropout}")
        self.require(not self.streaming, "--streaming is not for priors, whose embeddings are measured beforehand")


if __name__ == "__main__":
    run(PriorRecipe, PriorConfig)
