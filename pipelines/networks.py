"""What pipelines want to know of their networks."""

from diffusers import DiffusionPipeline, ModelMixin
from torch import nn

from .checks import accepts


def get_sample_size(network: ModelMixin) -> tuple[int | None, int | None]:
    """Height and width of the images of a network by its `sample_size`; `None` where this is missing."""
    size = network.config.get("sample_size")
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)


def get_size_multiple(network: ModelMixin) -> int:
    """
    What the sides of a network's input must be multiples of: a UNet2DModel halves them after each block but the last,
    an Efficient U-Net (`downsample_first`) before each block, and a transformer cuts them into patches.
    """
    if network.config.get("patch_size") is not None:
        return network.config.patch_size
    blocks = len(network.config.get("block_out_channels", [0]))
    return 2 ** (blocks if network.config.get("downsample_first") else blocks - 1)


def takes_classes(network: ModelMixin) -> bool:
    """Whether a network takes class labels, by the configuration of a UNet2DModel or a DiTTransformer2DModel."""
    keys = ("num_class_embeds", "class_embed_type", "num_embeds_ada_norm")
    return any(network.config.get(key) is not None for key in keys)


def get_num_labels(network: ModelMixin) -> int | None:
    """How many labels a network has, with those for no class; `None` if its configuration does not say it."""
    num_classes = network.config.get("num_embeds_ada_norm")
    if num_classes is not None:  # a DiTTransformer2DModel has one more label, for no class
        return num_classes + 1
    return network.config.get("num_class_embeds")


def get_shared_models(pipeline: DiffusionPipeline, pipeline_class: type[DiffusionPipeline]) -> dict[str, nn.Module]:
    """
    The models of a pipeline that a pipeline of another class has a component for, by name.

    This is for `from_pipe`, because diffusers would leave behind models of other classes than the signature names.
    """
    models = {name: model for name, model in pipeline.components.items() if isinstance(model, nn.Module)}
    return {name: model for name, model in models.items() if accepts(pipeline_class.__init__, name)}
