"""https://github.com/naoto0804/pytorch-AdaIN: style transfer by adaptive instance normalization."""

from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.naoto0804.adain import convert_adain
from diffusers_ext.converters.original_arguments import path
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import StyleTransferPipeline


def _adain(state_dict: StateDict, options: dict) -> Conversion:
    encoder_file = options.pop("encoder_file", None)
    if encoder_file is not None:
        encoder = read_state_dict(encoder_file)
        state_dict = {f"decoder.{key}": tensor for key, tensor in state_dict.items()}
        state_dict |= {f"vgg.{key}": tensor for key, tensor in encoder.items()}
    return Conversion({"": StyleTransferPipeline(convert_adain(state_dict, **options))})


FAMILIES = (
    Family(
        name="adain",
        description="A decoder of pytorch-AdaIN becomes a StyleTransferPipeline, together with the encoder that "
        "`encoder_file` names. One file may also hold the whole `Net`.",
        example="decoder.pth adain --option encoder_file=vgg_normalised.pth",
        convert=_adain,
        options={"encoder_file": path},
        functions=(convert_adain,),
    ),
)
