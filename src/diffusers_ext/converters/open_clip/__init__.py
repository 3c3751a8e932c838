"""https://github.com/mlfoundations/open_clip."""

from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.open_clip.clip import OPEN_CLIP_ARGUMENTS, convert_open_clip
from diffusers_ext.converters.state_dicts import StateDict


def _open_clip(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": convert_open_clip(state_dict, **options)})


_SMALL = {"context_length": 77, "vocab_size": 49408, "layers": 12}

FAMILIES = (
    Family(
        name="open_clip",
        description="A CLIP of open_clip with a vision transformer becomes transformers' CLIPModel.",
        example="open_clip_pytorch_model.bin clip-vit-b-32 --preset ViT-B-32",
        convert=_open_clip,
        options=OPEN_CLIP_ARGUMENTS,
        functions=(convert_open_clip,),
        presets={
            "ViT-B-32": {
                "embed_dim": 512,
                "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
                "text_cfg": {**_SMALL, "width": 512, "heads": 8},
            },
            "ViT-B-16": {
                "embed_dim": 512,
                "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
                "text_cfg": {**_SMALL, "width": 512, "heads": 8},
            },
            "ViT-L-14": {
                "embed_dim": 768,
                "vision_cfg": {"image_size": 224, "layers": 24, "width": 1024, "patch_size": 14},
                "text_cfg": {**_SMALL, "width": 768, "heads": 12},
            },
            "ViT-H-14": {
                "embed_dim": 1024,
                "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80, "patch_size": 14},
                "text_cfg": {**_SMALL, "layers": 24, "width": 1024, "heads": 16},
            },
        },
    ),
)
