"""https://github.com/CompVis/taming-transformers: the transformers of codes; its VQGANs are in `compvis`."""

from diffusers_ext.converters.class_names import class_names
from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.original_arguments import anything
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.taming_transformers.net2net import (
    N_CLASSES,
    N_HEAD,
    NET2NET_ARGUMENTS,
    RESOLUTION,
    convert_net2net,
    convert_taming_transformer,
)


def _net2net(state_dict: StateDict, options: dict) -> Conversion:
    names = options.pop("id2label", None)
    assumed = assumptions(options, {"n_head": N_HEAD, "n_classes": N_CLASSES, "resolution": RESOLUTION})
    pipeline = convert_net2net(state_dict, **options)
    num_classes = pipeline.num_labels if pipeline.num_labels > 1 else None
    pipeline.register_to_config(id2label=class_names(names, num_classes))
    return Conversion({"": pipeline}, assumed)


FAMILIES = (
    Family(
        name="taming_transformer",
        description="A Net2NetTransformer of CompVis/taming-transformers with class labels or nothing before the "
        "codes becomes a TokensToImagePipeline. `n_classes` is 1 for one without classes; `resolution` is that of the "
        "images it draws.",
        example="cin_transformer.ckpt imagenet-tokens --preset cin_transformer",
        convert=_net2net,
        options={**NET2NET_ARGUMENTS, "id2label": anything},
        functions=(convert_net2net, convert_taming_transformer),
        presets={
            "cin_transformer": {"n_head": 16, "n_classes": 1000, "resolution": 256},
            "celebahq_transformer": {"n_head": 16, "n_classes": 1, "resolution": 256},
            "ffhq_transformer": {"n_head": 16, "n_classes": 1, "resolution": 256},
        },
    ),
)
