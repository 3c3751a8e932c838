"""The options that all text-to-image recipes have."""

from dataclasses import dataclass
from typing import Literal

from diffusers_ext.data.buckets import aspect_ratio_buckets
from diffusers_ext.training.loop.configuration import TrainingConfig, option


@dataclass
class TextToImageConfig(TrainingConfig):
    """Options that all text-to-image recipes have."""

    # The base
    pretrained_model_name_or_path: str | None = option(
        help="The text-to-image pipeline to build on, a local folder or a Hub name: Stable Diffusion 1.x, 2.x, XL, 3."
    )
    revision: str | None = option(help="The commit, tag or branch of the base on the Hub.")
    variant: str | None = option(help="The variant of the base's weight files, such as fp16.")
    resolution: list[int] = option([512], help="Image size in pixels: one number, or height and width.")

    # Images
    caption_column: str = option(
        "text",
        help="The column of captions, or of several for each image; a folder of images has them in a metadata file, "
        "or in text files beside the images.",
    )
    aspect_ratio_buckets: bool = option(
        False,
        help="Crop each image to the nearest of several aspect ratios, of about as many pixels as --resolution; each "
        "batch has images of one.",
    )
    bucket_step: int = option(64, help="What the sides of those sizes are multiples of.")

    # The diffusion step
    prompt_dropout: float = option(0.0, help="How often a prompt is hidden in training, so that guidance works.")
    timestep_sampling: Literal["uniform", "logit_normal"] | None = option(
        help="How noise levels are drawn: logit_normal (Esser et al. 2024) prefers the middle ones, and is the "
        "default of flows; that of the others is uniform."
    )
    loss_weighting: Literal["none", "min_snr"] = option(
        "none", help="How squared errors are weighted by noise level: min_snr is that of Hang et al. (2023)."
    )
    snr_gamma: float = option(5.0, help="min_snr: the largest signal-to-noise ratio that counts.")
    noise_offset: float = option(
        0.0, help="The standard deviation of noise that is added to a whole channel, for darker and brighter images."
    )

    # Caches
    cache_latents: bool = option(False, help="Encode each image once, and keep that on the disk.")
    cache_text_embeddings: bool = option(
        False, help="Encode each prompt once, and keep that on the disk; not where text encoders learn."
    )
    latent_cache_dir: str | None = option(help="Where the caches are kept; by default in --output_dir.")

    # Samples and measures
    validation_prompts: list[str] | None = option(
        help="The prompts of the grids and of the measures; by default the first captions."
    )
    num_validation_images: int = option(4, help="Images of each of them.")
    num_inference_steps: int | None = option(help="Steps of the sampler; by default as many as the pipeline makes.")
    guidance_scale: float | None = option(help="The guidance scale of samples; by default the pipeline's own.")
    clip_model: str | None = option(
        help="A CLIP model (a folder or Hub name): measures how alike samples and training images are (clip_i), and "
        "how well samples fit their prompts (clip_t)."
    )
    dino_model: str | None = option(
        help="An image model such as facebook/dino-vits16: measures how alike samples and training images are (dino)."
    )
    prior_prompts: list[str] | None = option(
        help="Prompts whose images shall stay what they were: measures how far they drift (prior_drift), from 0."
    )

    def __post_init__(self):
        # Before the checks of TrainingConfig, which name the measures of other recipes.
        self.require(
            self.feature_extractor is None and self.metrics is None,
            "--feature_extractor and --metrics are not for text-to-image models: name --clip_model or --dino_model",
        )
        super().__post_init__()
        self.require(self.pretrained_model_name_or_path is not None, "--pretrained_model_name_or_path is required")
        self.require(self.channels == 3, f"--channels must be 3 for text-to-image models, not {self.channels}")
        self.require_at_least(1, "num_validation_images", "num_inference_steps")
        self.require_at_least(0, "snr_gamma", "noise_offset")
        self.require(0 <= self.prompt_dropout < 1, f"--prompt_dropout must be in [0, 1), not {self.prompt_dropout}")
        self.require(
            not self.prior_prompts or bool(self.clip_model or self.dino_model),
            "--prior_prompts need an image model to compare images: name --clip_model or --dino_model",
        )
        self.require(
            not self.streaming or bool(self.validation_prompts),
            "--streaming has no captions to show before it is read: name --validation_prompts",
        )

    def load_dataset(self, size, channels, center_crop=False, random_flip=False, **options):
        """The images with their captions; see [`DataConfig.load_dataset`]."""
        options = {"caption_column": self.caption_column, **options}
        if self.aspect_ratio_buckets:
            self.require(
                size[0] == size[1], f"--aspect_ratio_buckets need one number as --resolution, not {self.resolution}"
            )
            options["buckets"] = aspect_ratio_buckets(size[0], self.bucket_step)
        return super().load_dataset(size, channels, center_crop, random_flip, **options)
