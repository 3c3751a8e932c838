"""Small films, and the smallest networks for them."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import UNetMotionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffusers_ext.training.text_and_image.caption_tokenizer import make_caption_tokenizer


TINY_MOTION_UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlockMotion", "CrossAttnDownBlockMotion"],
    "up_block_types": ["CrossAttnUpBlockMotion", "UpBlockMotion"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "num_attention_heads": 2,
    "motion_num_attention_heads": 2,
    "motion_max_seq_length": 4,
}
TINY_CONVOLUTIONAL_UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D"],
    "up_block_types": ["CrossAttnUpBlock3D", "UpBlock3D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
}
TINY_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}


def gray_frames(number: int, count: int = 5, side: int = 8) -> np.ndarray:
    """Frames (count, side, side) of bytes, different for each number."""
    return np.random.default_rng(number).integers(0, 256, (count, side, side), dtype=np.uint8)


def write_film(frames: np.ndarray, path: Path) -> None:
    """Frames of bytes as an animation that loses nothing."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    first.save(path, save_all=True, append_images=others, duration=40, **lossless)


def write_captioned_films(folder: Path, count: int = 6) -> Path:
    """Films of five frames with captions and labels."""
    lines = []
    for number in range(count):
        write_film(gray_frames(number), folder / f"{number}.gif")
        word = ("one", "two")[number % 2]
        lines.append(json.dumps({"file_name": f"{number}.gif", "text": [f"a {word}", word], "label": word}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def tiny_tokenizer() -> CLIPTokenizer:
    tokenizer = make_caption_tokenizer(["a one", "a two"])
    tokenizer.model_max_length = 6
    return tokenizer


def tiny_text_encoder(tokenizer: CLIPTokenizer, **changes) -> CLIPTextModel:
    torch.manual_seed(1)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    arguments = {**TINY_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 6, **special, **changes}
    return CLIPTextModel(CLIPTextConfig(**arguments)).eval()


def tiny_motion_unet(**changes) -> UNetMotionModel:
    torch.manual_seed(0)
    arguments = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "cross_attention_dim": 16, **changes}
    return UNetMotionModel(**TINY_MOTION_UNET, **arguments).eval()


def tiny_film_super_resolver() -> UNetMotionModel:
    """It sees a small film, and is told the number of frames and the level of the noise."""
    told = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 24,
    }
    return tiny_motion_unet(in_channels=2, **told)
