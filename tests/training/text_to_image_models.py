"""Tiny text-to-image pipelines with random weights, saved once per test session, without downloads."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


FAMILIES = ("sd1", "sd2", "sdxl", "sd3")
PROMPT_LENGTH = 24  # tokens; these tokenizers have one for each letter
SIZE = 16  # pixels: 8x8 latents


@functools.cache
def tiny_base(family: str) -> str:
    """The folder of a pipeline: "sd1" (epsilon), "sd2" (v), "sdxl" or "sd3" (a flow, without its T5 encoder)."""
    folder = Path(tempfile.mkdtemp()) / family
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    with torch.random.fork_rng():
        torch.manual_seed(FAMILIES.index(family))
        {"sd1": _sd1, "sd2": _sd2, "sdxl": _sdxl, "sd3": _sd3}[family]().save_pretrained(folder)
    return str(folder)


def captioned_images(folder: Path, count: int = 6, size: int = SIZE) -> str:
    """Make a folder of small pictures, each with its caption in a text file of the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    for index in range(count):
        pixels = noise.integers(0, 255, (size + index, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"picture {index}\n")
    return str(folder)


def tokenizer() -> CLIPTokenizer:
    """A tokenizer with one token for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    words = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=PROMPT_LENGTH)


def text_config(words: CLIPTokenizer, hidden_size: int = 16) -> CLIPTextConfig:
    """The configuration of a text encoder with two layers."""
    return CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=hidden_size,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=PROMPT_LENGTH,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )


def _vae(**options) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
        **options,
    )


def _unet(**options) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **{
            "sample_size": SIZE // 2,
            "block_out_channels": (8, 16),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 4,
            "cross_attention_dim": 16,
            **options,
        }
    )


def _scheduler(**options) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **options,
    )


def _stable_diffusion(unet: UNet2DConditionModel, scheduler: DDIMScheduler) -> DiffusionPipeline:
    words = tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(text_config(words, unet.config.cross_attention_dim)),
        tokenizer=words,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sd1() -> DiffusionPipeline:
    return _stable_diffusion(_unet(), _scheduler())


def _sd2() -> DiffusionPipeline:
    unet = _unet(use_linear_projection=True, attention_head_dim=(2, 4), cross_attention_dim=24)
    return _stable_diffusion(unet, _scheduler(prediction_type="v_prediction"))


def _sdxl() -> DiffusionPipeline:
    words = tokenizer()
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(text_config(words)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(words)),
        tokenizer=words,
        tokenizer_2=words,
        unet=_unet(
            use_linear_projection=True,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(2, 4),
            transformer_layers_per_block=(1, 2),
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 16,
        ),
        scheduler=_scheduler(),
        add_watermarker=False,
    )


def _sd3() -> DiffusionPipeline:
    words = tokenizer()
    return StableDiffusion3Pipeline(
        vae=_vae(shift_factor=0.0609, scaling_factor=1.5305, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=CLIPTextModelWithProjection(text_config(words)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(words)),
        text_encoder_3=None,
        tokenizer=words,
        tokenizer_2=words,
        tokenizer_3=None,
        transformer=SD3Transformer2DModel(
            sample_size=SIZE // 2,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            pos_embed_max_size=16,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
