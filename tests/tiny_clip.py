"""A CLIP with random weights, and captioned pictures, small enough for tests of what is built on it."""

import json
from pathlib import Path

import torch
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from diffusers_ext.training.text_and_image.caption_tokenizer import make_caption_tokenizer
from diffusers_ext.training.text_and_image.clip_networks import new_clip, new_image_processor


SIZE, LENGTH, WIDTH = 8, 12, 16
TOWER = {"hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0)}


def tiny_clip(seed: int = 0, **changes) -> tuple[CLIPModel, CLIPTokenizer, CLIPImageProcessor]:
    """The model, its tokenizer and its image processor; `changes` are arguments of [`new_clip`]."""
    tokenizer = make_caption_tokenizer(["a red picture", "a green picture"], 520)
    tokenizer.model_max_length = LENGTH
    torch.manual_seed(seed)
    options = {"text_config": TOWER, "vision_config": {**TOWER, "patch_size": 4}, "projection_dim": WIDTH, **changes}
    clip = new_clip(sigmoid=False, size=SIZE, channels=3, max_length=LENGTH, tokenizer=tokenizer, **options).eval()
    with torch.no_grad():  # fresh embeddings hardly differ
        clip.text_projection.weight.mul_(20)
        clip.visual_projection.weight.mul_(20)
    return clip, tokenizer, new_image_processor(SIZE, 3)


def save_tiny_clip(folder: Path, seed: int = 0, **changes) -> str:
    """Its folder, as `train_clip.py` leaves it."""
    for part in tiny_clip(seed, **changes):
        part.save_pretrained(folder)
    return str(folder)


def clip_parts(seed: int = 0) -> dict:
    """The towers as pipelines for unCLIP have them."""
    clip, tokenizer, image_processor = tiny_clip(seed)
    text_encoder = CLIPTextModelWithProjection(clip.config.text_config).eval()
    image_encoder = CLIPVisionModelWithProjection(clip.config.vision_config).eval()
    for tower in (text_encoder, image_encoder):
        tower.load_state_dict({name: clip.state_dict()[name] for name in tower.state_dict()})
    return {
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "image_encoder": image_encoder,
        "image_processor": image_processor,
    }


def write_pictures(folder: Path, count: int = 12) -> str:
    """Plain pictures with captions and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        name = list(COLOURS)[index % 2]
        colour = tuple(value * (index + 4) // (count + 4) for value in COLOURS[name])
        Image.new("RGB", (SIZE, SIZE), colour).save(folder / f"{index}.png")
        lines.append(json.dumps({"file_name": f"{index}.png", "text": f"a {name} picture", "label": name}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return str(folder)
