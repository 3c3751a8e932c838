"""https://github.com/pytorch/vision: the layers of its VGG networks, which see content and style."""

from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.torchvision.vgg import convert_torchvision_vgg


def _vgg(state_dict: StateDict, options: dict) -> Conversion:
    return Conversion({"": convert_torchvision_vgg(state_dict, **options)})


FAMILIES = (
    Family(
        name="torchvision_vgg",
        description="The convolutions of a VGG of torchvision, without batch norm, become a VGG for style transfer.",
        example="vgg19-dcbb9e9d.pth vgg19",
        convert=_vgg,
        options={},
        functions=(convert_torchvision_vgg,),
    ),
)
