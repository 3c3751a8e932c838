"""The denoisers of pixel diffusion: a new UNet2DModel that suits the images, or one to go on with."""

from diffusers import DiffusionPipeline, UNet2DModel

from diffusers_ext.training.diffusion.objectives import process


def build_unet(
    config,
    pipeline_class: type[DiffusionPipeline],
    in_channels: int,
    out_channels: int,
    id2label: dict[int, str] | None,
    null_class_label: int | None,
    **trained_for,
) -> UNet2DModel:
    """A new network, or that of the pipeline to start from.

    Args:
        config: the recipe's options: `size`, `unet`, and `pretrained_model_name_or_path` of such a pipeline.
        pipeline_class (`type`): what the recipe trains.
        in_channels, out_channels (`int`): of the network.
        id2label, null_class_label: its classes, and its label for none, each of which gets an embedding.
        trained_for: what else the pipeline must have been trained for: entries of its configuration, or of the
            [`process`] of its scheduler.

    Raises:
        ValueError: if the pipeline is for something else, or the network can't halve images of this size.
    """
    num_class_embeds = None if id2label is None else len(id2label) + (null_class_label is not None)
    shape = {"in_channels": in_channels, "out_channels": out_channels, "num_class_embeds": num_class_embeds}
    if config.pretrained_model_name_or_path is None:
        unet = UNet2DModel(**{**(config.unet or default_unet(config.size)), **shape, "sample_size": config.size})
    else:
        labels = {"null_class_label": null_class_label, "id2label": id2label}
        unet = _pretrained_unet(config, pipeline_class, {**shape, **labels, **trained_for})
    multiple = 2 ** (len(unet.config.block_out_channels) - 1)
    if any(side % multiple for side in config.size):
        raise ValueError(f"--resolution must be a multiple of {multiple} for this network, not {config.size}.")
    return unet


def _pretrained_unet(config, pipeline_class: type[DiffusionPipeline], needed: dict) -> UNet2DModel:
    name = config.pretrained_model_name_or_path
    pipeline = pipeline_class.from_pretrained(name, cache_dir=config.cache_dir)
    found = {**pipeline.unet.config, **pipeline.config, **process(pipeline.scheduler)}
    for key, value in needed.items():
        if found.get(key) != value:
            raise ValueError(f"{name} has {key}={found.get(key)}, but this run needs {value}.")
    pipeline.unet.register_to_config(sample_size=config.size)
    return pipeline.unet


def default_unet(size: tuple[int, int]) -> dict:
    """A UNet2DModel of the usual width for a size in pixels: down to 4 to 8 pixels, attention from 16 pixels down."""
    smallest = min(size)
    levels = max(2, smallest.bit_length() - 3)
    while levels > 1 and any(side % 2 ** (levels - 1) for side in size):
        levels -= 1
    widths = [128, 256, 256, 256, 512, 512, 512][:levels]
    has_attention = [smallest >> level <= 16 for level in range(levels)]
    return {
        "block_out_channels": tuple(widths),
        "down_block_types": tuple("AttnDownBlock2D" if has else "DownBlock2D" for has in has_attention),
        "up_block_types": tuple("AttnUpBlock2D" if has else "UpBlock2D" for has in reversed(has_attention)),
        "layers_per_block": 2,
        "attention_head_dim": 64,
    }
