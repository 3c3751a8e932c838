"""https://github.com/orpatashnik/StyleCLIP: its latent mappers, each for one prompt."""

from diffusers_ext.converters.family import Conversion, Family
from diffusers_ext.converters.original_arguments import positive_integer
from diffusers_ext.converters.orpatashnik.latent_mapper import convert_latent_mapper
from diffusers_ext.converters.state_dicts import StateDict, part


def _latent_mapper(state_dict: StateDict, options: dict) -> Conversion:
    """A checkpoint also has the tensors of the generator, which is converted on its own."""
    return Conversion({"": convert_latent_mapper(part(state_dict, "mapper.") or state_dict, **options)})


FAMILIES = (
    Family(
        name="latent_mapper",
        description="A latent mapper of StyleCLIP becomes a LatentMapper, for a StyleCLIPMapperPipeline together with "
        "the converted generator.",
        example="afro.pt mapper",
        convert=_latent_mapper,
        options={"num_styles": positive_integer},
        functions=(convert_latent_mapper,),
    ),
)
