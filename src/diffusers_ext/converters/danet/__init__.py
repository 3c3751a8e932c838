"""https://github.com/zsyOAOA/DANet: its denoiser and its generator of noise."""

import os
from collections.abc import Mapping

from diffusers_ext.converters.checkpoint_files import read_pickle, read_state_dict
from diffusers_ext.converters.danet.unet import convert_danet
from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.state_dicts import StateDict, part
from diffusers_ext.pipelines import RestorationPipeline


def _read(path: str | os.PathLike) -> StateDict:
    """The tensors of the networks `D` and `G` of a checkpoint; a file of one network has a denoiser, `D`."""
    content = {} if str(path).endswith(".safetensors") else read_pickle(path)
    names = [name for name in ("D", "G") if isinstance(content, Mapping) and name in content]
    if not names:
        return {f"D.{key}": tensor for key, tensor in read_state_dict(path).items()}
    return {f"{name}.{key}": tensor for name in names for key, tensor in read_state_dict(path, nested=(name,)).items()}


def _danet(state_dict: StateDict, options: dict) -> Conversion:
    networks = [convert_danet(part(state_dict, "D."))]
    if any(name.startswith("G.") for name in state_dict):
        networks.append(convert_danet(part(state_dict, "G.")))
    kinds = [network.config.noise_channels > 0 for network in networks]
    if kinds not in ([False], [False, True]):
        raise ValueError("The network D must be a denoiser, and G a generator of noise, whose first layer sees noise.")
    noise_generator = networks[1] if len(networks) > 1 else None
    return Conversion({"": RestorationPipeline(networks[0], noise_generator=noise_generator)})


FAMILIES = (
    Family(
        name="danet",
        description="The denoiser of DANet becomes a RestorationPipeline, with the generator of noise if it is in the "
        "file.",
        example="DANet.pt danet",
        convert=_danet,
        options={},
        functions=(convert_danet,),
        read=_read,
    ),
)
