"""Data sets of images and captions, and the functions that degrade, simplify or fill their images.

A data set is an endless, reproducible stream of batches (`load_image_dataset`; of sketches `SketchDataset`). There is
one registry for each kind of operation on images: `corruptions` for restoration tasks (`load_corruptions`),
`conditions` for the control images of ControlNets (`load_condition`), and `untrained_fills` for hidden pixels
(`load_fill`).
"""

from diffusers_ext.data.conditions import (
    CONDITIONS as CONDITIONS,
    describe_conditions as describe_conditions,
    load_condition as load_condition,
)
from diffusers_ext.data.corruptions import (
    CORRUPTIONS as CORRUPTIONS,
    Corruption as Corruption,
    describe_corruptions as describe_corruptions,
    load_corruptions as load_corruptions,
)
from diffusers_ext.data.decoding import (
    UnreadableImagesError as UnreadableImagesError,
    decode_image as decode_image,
    decode_label_colors as decode_label_colors,
)
from diffusers_ext.data.image_dataset import ImageDataset as ImageDataset
from diffusers_ext.data.loading import load_image_dataset as load_image_dataset
from diffusers_ext.data.randomness import derive_seed as derive_seed
from diffusers_ext.data.sketch_dataset import SketchDataset as SketchDataset
from diffusers_ext.data.sketch_files import load_sketches as load_sketches
