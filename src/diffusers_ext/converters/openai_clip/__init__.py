"""https://github.com/openai/CLIP."""

from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.openai_clip.clip import CLIP_ARGUMENTS, convert_clip
from diffusers_ext.converters.openai_clip.presets import CLIPS
from diffusers_ext.converters.state_dicts import StateDict


def _clip(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": convert_clip(state_dict, **options)})


FAMILIES = (
    Family(
        name="clip",
        description="A CLIP of openai/CLIP becomes transformers' CLIPModel, or with a residual network a "
        "CLIPResNetModel. Its archives of TorchScript are read without running them.",
        example="ViT-B-32.pt clip-vit-base-patch32 --preset ViT-B/32",
        convert=_clip,
        options=CLIP_ARGUMENTS,
        functions=(convert_clip,),
        presets=CLIPS,
    ),
)
