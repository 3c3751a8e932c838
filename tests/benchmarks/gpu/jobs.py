"""The trainings that are measured: a job of each family, small ones on a CPU."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from accelerate.state import AcceleratorState
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.configuration import TrainingConfig
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.text_to_image.fine_tuning import FineTuningConfig, FineTuningRecipe
from diffusers_ext.training.train_autoencoder import AutoencoderConfig, autoencoder_recipe
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
from diffusers_ext.training.train_gan import GANConfig, GANRecipe
from diffusers_ext.training.train_palette import PaletteConfig, PaletteRecipe
from diffusers_ext.training.train_translation import translation_recipe
from diffusers_ext.training.translation.translation_recipe import TranslationConfig
from tests.benchmarks.bench_gan import write_images
from tests.benchmarks.gpu.clock import Bench
from tests.training.text_to_image_models import captioned_images, text_config, tokenizer


SMALL_UNET = {"block_out_channels": [8, 16], "layers_per_block": 1}


@dataclass(frozen=True)
class Job:
    """A training.

    Args:
        title (`str`): what is trained, at which size.
        recipe (`Callable`): builds the recipe.
        config (`Callable`): builds the options, from a `Bench`.
    """

    title: str
    recipe: Callable
    config: Callable[[Bench], TrainingConfig]


def images(bench: Bench, height: int, width: int) -> dict:
    """Options that name images of this size, on a CPU of 32 pixels."""
    if bench.is_small:
        height, width = 32, 32 * width // height
    folder = bench.folder / f"images {height}x{width}"
    data = str(folder) if folder.exists() else write_images(folder, height, width, count=128)
    return {"train_data_dir": data, "resolution": [height], "label_column": "none"}


def diffusion(bench: Bench) -> TrainingConfig:
    own = {"unet": SMALL_UNET} if bench.is_small else {}
    return DiffusionConfig(**images(bench, 64, 64), train_batch_size=2 if bench.is_small else 64, **own)


def palette(bench: Bench) -> TrainingConfig:
    own = {"unet": SMALL_UNET} if bench.is_small else {}
    batch_size = 2 if bench.is_small else 64
    return PaletteConfig(**images(bench, 64, 64), tasks=["inpainting"], train_batch_size=batch_size, **own)


def gan(bench: Bench) -> TrainingConfig:
    channels = {"channels": 4} if bench.is_small else {}
    batch_size = 4 if bench.is_small else 128
    own = {"generator": dict(channels), "discriminator": dict(channels)}
    return GANConfig(**images(bench, 64, 64), train_batch_size=batch_size, **own)


def autoencoder(architecture: str) -> Callable[[Bench], TrainingConfig]:
    def config(bench: Bench) -> TrainingConfig:
        own = {"block_out_channels": [8, 16]} if bench.is_small else {}
        return AutoencoderConfig(
            **images(bench, 128, 128),
            architecture=architecture,
            autoencoder=own,
            adversarial_weight=0.5,
            train_batch_size=2 if bench.is_small else 16,
        )

    return config


def pix2pix(bench: Bench) -> TrainingConfig:
    channels = 4 if bench.is_small else 64
    pairs = images(bench, 256, 512)
    del pairs["label_column"]
    return TranslationConfig(
        **pairs, side_by_side=True, generator_channels=channels, discriminator_channels=channels, train_batch_size=1
    )


def lora(bench: Bench) -> TrainingConfig:
    size = 32 if bench.is_small else 512
    return FineTuningConfig(
        pretrained_model_name_or_path=stable_diffusion(bench),
        train_data_dir=captioned_images(bench.folder / "captioned", count=8, size=size),
        resolution=[size],
        lora_rank=16,
        train_batch_size=1 if bench.is_small else 8,
    )


def stable_diffusion(bench: Bench) -> str:
    """A base with random weights: a third of the width of Stable Diffusion, on a CPU a tiny one."""
    folder = bench.folder / "base"
    if folder.exists():
        return str(folder)
    unit = 8 if bench.is_small else 128
    words, levels = tokenizer(), 3
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8, 16, 16) if bench.is_small else (64, 128, 128, 128),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=8,
            sample_size=512,
        ),
        text_encoder=CLIPTextModel(text_config(words, hidden_size=4 * unit)),
        tokenizer=words,
        unet=UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(unit, 2 * unit, 4 * unit),
            down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
            norm_num_groups=8,
            cross_attention_dim=4 * unit,
        ),
        scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return str(folder)


JOBS = {
    "diffusion": Job("diffusion, U-Net, 64 px, batch 64", DiffusionRecipe, diffusion),
    "palette": Job("palette, inpainting, 64 px, batch 64", PaletteRecipe, palette),
    "gan": Job("DCGAN, 64 px, batch 128", GANRecipe, gan),
    "kl": Job("autoencoder KL, 128 px, batch 16", autoencoder_recipe, autoencoder("kl")),
    "vq": Job("autoencoder VQ, 128 px, batch 16", autoencoder_recipe, autoencoder("vq")),
    "pix2pix": Job("pix2pix, 256 px, batch 1", translation_recipe, pix2pix),
    "lora": Job("text to image, LoRA, 512 px, batch 8", FineTuningRecipe, lora),
}


def build_trainer(job: Job, bench: Bench, precision: str = "no", **options) -> Trainer:
    """A new trainer of a job, ready for its first update."""
    AcceleratorState._reset_state()  # all accelerators of a process share its precision
    accelerator = build_accelerator(mixed_precision=precision)
    if bench.device.type == "cpu":
        options.pop("compile", None)
    config = replace(
        job.config(bench),
        max_train_steps=100_000,
        output_dir=_new_folder(bench),
        cache_dir=str(bench.folder),
        **options,
    )
    trainer = Trainer(job.recipe(config, TrainingContext(accelerator)), accelerator)
    trainer.start()
    return trainer


def _new_folder(bench: Bench) -> str:
    return str(bench.folder / f"output {len(list(bench.folder.glob('output *')))}")
