"""https://github.com/tamarott/SinGAN: the folder of a trained pyramid, whose scales are folders of their own."""

import os
from pathlib import Path

import torch

from diffusers_ext.converters.checkpoint_files import read_pickle, read_state_dict
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.converters.tamarott_singan.networks import convert_singan
from diffusers_ext.models.modeling_singan import SinGANGenerator
from diffusers_ext.pipelines import SinGANPipeline


# The lists of tensors and numbers beside the scales; Gs.pth, a list of pickled modules, is not needed.
IMAGES, NOISE, AMPLITUDES = "reals.pth", "Zs.pth", "NoiseAmp.pth"


def _read(path: str | os.PathLike) -> dict:
    """The state of each scale's generator, from the coarsest, and the lists beside them."""
    folder = Path(path)
    missing = [name for name in ("0/netG.pth", IMAGES, NOISE, AMPLITUDES) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{path} is not the folder of a trained SinGAN, TrainedModels/NAME/scale_factor=0.750000,alpha=10: it has "
            f"no {', '.join(missing)}."
        )
    files = [folder / str(scale) / "netG.pth" for scale in range(len(list(folder.glob("*/netG.pth"))))]
    content = {name: read_pickle(folder / name) for name in (IMAGES, NOISE, AMPLITUDES)}
    for name, values in content.items():
        if not isinstance(values, list) or not all(isinstance(value, (torch.Tensor, int, float)) for value in values):
            raise ValueError(f"{folder / name} must be a list of tensors or numbers.")
    return {"scales": [read_state_dict(file) for file in files], **content}


def _pyramid(state: dict[str, list], options: dict) -> Conversion:
    scales: list[StateDict] = state["scales"]
    counts = {"netG.pth": len(scales), **{name: len(state[name]) for name in (IMAGES, NOISE, AMPLITUDES)}}
    if len(set(counts.values())) > 1:
        raise ValueError(f"The files are of different numbers of scales: {counts}.")
    networks = [convert_singan(scale) for scale in scales]
    sizes = [tuple(image.shape[2:]) for image in state[IMAGES]]
    generator = SinGANGenerator.from_scales(networks, sizes)
    generator.noise_amplitudes.copy_(torch.tensor([float(value) for value in state[AMPLITUDES]]))
    # Padded with zeros, and repeated for each channel
    margin = networks[0].layers.margin
    height, width = sizes[0]
    generator.fixed_noise.copy_(state[NOISE][0][:1, :1, margin : margin + height, margin : margin + width])
    return Conversion({"": SinGANPipeline(generator.eval())})


FAMILIES = (
    Family(
        name="singan",
        description="The folder of a trained SinGAN (0/netG.pth, 1/netG.pth ..., reals.pth, Zs.pth, NoiseAmp.pth) "
        "becomes a SinGANPipeline. Each image is normalized by its own statistics, as the original samples.",
        example='"TrainedModels/birds/scale_factor=0.750000,alpha=10" birds',
        convert=_pyramid,
        options={},
        functions=(convert_singan,),
        read=_read,
    ),
)
