"""A generator's checkpoint and, if the option `discriminator_file` names one, its discriminator's checkpoint."""

from collections.abc import Callable

from diffusers import ModelMixin

from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.family import Saveable
from diffusers_ext.converters.state_dicts import StateDict
from diffusers_ext.pipelines import GANPipeline


def generator_and_discriminator(
    convert: Callable[..., ModelMixin],
    generator_class: type[ModelMixin],
    state_dict: StateDict,
    options: dict,
    of_generator: tuple[str, ...],
) -> dict[str, Saveable]:
    """A [`GANPipeline`], or the discriminator if the checkpoint is one.

    Args:
        convert (`Callable`): makes either network from its tensors and arguments.
        generator_class (`type`): the class of the generator.
        state_dict (`Mapping`): the tensors of the original.
        options (`dict`): arguments of `convert`, and `discriminator_file`.
        of_generator (`tuple`): the arguments that a discriminator does not have.

    Raises:
        ValueError: if the two networks do not belong together.
    """
    discriminator_file = options.pop("discriminator_file", None)
    network = convert(state_dict, **options)
    if discriminator_file is None:
        return {"": GANPipeline(network) if isinstance(network, generator_class) else network}
    if not isinstance(network, generator_class):
        raise ValueError("`discriminator_file` needs a generator, but the checkpoint itself is a discriminator.")
    for_both = {name: value for name, value in options.items() if name not in of_generator}
    discriminator = convert(read_state_dict(discriminator_file), **for_both)
    if isinstance(discriminator, generator_class):
        raise ValueError(f"`discriminator_file` must be a discriminator, but {discriminator_file} is a generator.")
    return {"": gan_pipeline(network, discriminator)}


def gan_pipeline(generator: ModelMixin, discriminator: ModelMixin | None) -> GANPipeline:
    """The pipeline of two networks, or of a generator alone.

    Raises:
        ValueError: if their images differ.
    """
    if discriminator is not None:
        made, judged = generator.config, discriminator.config
        if made.out_channels != judged.in_channels:
            raise ValueError(
                f"The generator makes images of {made.out_channels} channels, but the discriminator takes "
                f"{judged.in_channels}."
            )
        if made.sample_size != judged.sample_size:
            raise ValueError(
                f"The generator makes images of the size {made.sample_size}, but the discriminator takes "
                f"{judged.sample_size}."
            )
    return GANPipeline(generator, discriminator)
