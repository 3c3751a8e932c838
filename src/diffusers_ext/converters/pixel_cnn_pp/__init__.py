"""https://github.com/pclucas14/pixel-cnn-pp: PixelCNN++ in PyTorch."""

from diffusers_ext.converters.family import Conversion, Family, assumptions
from diffusers_ext.converters.pixel_cnn_pp.network import IMAGE_SIZE, PIXEL_CNN_PP_ARGUMENTS, convert_pixel_cnn_pp
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import AutoregressivePipeline


def _pixel_cnn_pp(state_dict: StateDict, options: dict) -> Conversion:
    assumed = assumptions(options, {"image_size": IMAGE_SIZE})
    return Conversion({"": AutoregressivePipeline(convert_pixel_cnn_pp(state_dict, **options))}, assumed)


FAMILIES = (
    Family(
        name="pixel_cnn_pp",
        description="A PixelCNN++ of pclucas14/pixel-cnn-pp becomes an AutoregressivePipeline.",
        example="pcnn_lr:0.00040_nr-resnet5_nr-filters160_889.pth cifar10-pixelcnn",
        convert=_pixel_cnn_pp,
        options=PIXEL_CNN_PP_ARGUMENTS,
        functions=(convert_pixel_cnn_pp,),
    ),
)
