"""LoRA files of https://github.com/kohya-ss/sd-scripts, which WebUIs read, to and from diffusers' LoRA files.

    python -m diffusers_ext.converters.kohya lora.safetensors out/ --base stabilityai/stable-diffusion-xl-base-1.0

The numbers stay the same, and the file shows which direction is meant. kohya's names are the names in the original
networks with `_` in place of `.`, so that only the networks themselves show which layer a name means. SD 1.x and 2.x
have diffusers' names; SDXL and SD3 have their authors' names. The authors' SD3 has a single layer for query, key and
value. Three adapters with equal `down` tensors become one of the same rank. Three others become one of three times the
rank, whose blocks stay apart. Reading separates either into three again.

Files of kohya's layout that other programs wrote are read too: with diffusers' names of layers for any base, such as
those of diffusers' own `convert_state_dict_to_kohya`, and without alphas, which are then the ranks. Refused are LoHa,
LoKr, Tucker decompositions and other adapters than LoRA and DoRA, magnitudes of DoRA along the inputs of a layer, and
files that are damaged, incomplete or for another base.
"""

from diffusers_ext.exports import lazy_attributes


# The conversion of a LoRA needs its pipeline. Therefore it has its own command.
FAMILIES = ()

__getattr__, __dir__ = lazy_attributes(__name__)
