"""https://github.com/huggingface/pytorch-pretrained-BigGAN: the generators of BigGAN-deep."""

from diffusers_ext.converters.class_names import class_names
from diffusers_ext.converters.family import Conversion, Family, RunFiles, assumptions
from diffusers_ext.converters.original_arguments import anything
from diffusers_ext.converters.pytorch_pretrained_biggan.generator import (
    BIGGAN_DEEP_ARGUMENTS,
    NORM_EPS,
    convert_biggan_deep,
)
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import GANPipeline


def _biggan_deep(state_dict: StateDict, options: dict) -> Conversion:
    names = options.pop("id2label", None)
    assumed = assumptions(options, {"eps": NORM_EPS, "layers": "every second one doubles"})
    generator = convert_biggan_deep(state_dict, **options)
    pipeline = GANPipeline(generator, id2label=class_names(names, generator.config.num_classes))
    return Conversion({"": pipeline}, assumed)


FAMILIES = (
    Family(
        name="biggan_deep",
        description="A generator of pytorch-pretrained-BigGAN, or the folder with its config.json, becomes a "
        "GANPipeline, whose `truncation` is twice the original's.",
        example="biggan-deep-128/pytorch_model.bin animals",
        convert=_biggan_deep,
        options={**BIGGAN_DEEP_ARGUMENTS, "id2label": anything},
        functions=(convert_biggan_deep,),
        run_files=RunFiles("pytorch_model.bin", "config.json"),
    ),
)
