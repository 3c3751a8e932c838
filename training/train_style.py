"""Train a network that paints images in a style, in one pass: of one style, or in the style of any image.

    accelerate launch training/train_style.py --config examples/photos_one_style.yaml --train_data_dir ~/photos

With `--style_image`, the network of Johnson et al. (2016), which learns one style; with `--style_data_dir`, the
decoder of AdaIN (Huang and Belongie 2017), which gets the style as a second image. The losses are distances in the
layers of `--feature_network`: a VGG, from `examples/train_vgg.py` or converted from torchvision, or for one style any
image model of Transformers. The result is a [`StyleTransferPipeline`].
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from diffusers_ext.data import decode_image
from diffusers_ext.data.decoding import UnreadableImageError
from diffusers_ext.data.unpaired import load_unpaired_dataset
from diffusers_ext.hub.card import trained_from
from diffusers_ext.losses import gram_loss, gram_matrix, map_loss, statistics_loss, total_variation
from diffusers_ext.models import VGG, AdaINStyleNet, FastStyleNet
from diffusers_ext.pipelines import StyleTransferPipeline
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe
from diffusers_ext.training.style.evaluation import StyleEvaluator
from diffusers_ext.training.style.networks import (
    adain_from_vgg,
    freeze_encoder,
    load_feature_network,
    pretrained_style_net,
    usual_layers,
)


class StyleRecipe(Recipe):
    """A network whose outputs are near to an image in its content, and near to another in its style."""

    def weighted(self, content: torch.Tensor, style: torch.Tensor, painted: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the losses, of shape (N,)."""
        config, variation = self.config, total_variation(painted)
        self.log(content=content, style=style, variation=variation)
        return config.content_weight * content + config.style_weight * style + config.variation_weight * variation

    def pipeline(self, generator: nn.Module) -> StyleTransferPipeline:
        """The pipeline of the network."""
        return StyleTransferPipeline(generator)

    # What stands around the algorithm

    def __init__(self, config: StyleConfig, context):
        super().__init__(config, context)
        self.validation_images = config.load_validation_dataset(self.dataset)
        self.evaluator = StyleEvaluator(
            self.validation_pairs,
            self.see,
            context,
            num_samples=config.num_evaluation_samples,
            takes_styles=config.style_image is None,
            provenance={"split": config.validation_split or config.dataset_split, "feature_network": config.seen_by},
        )

    def before_training(self) -> None:
        super().before_training()
        self.validation_images.prepare()

    def validation_batches(self, dataset, process_index: int, num_processes: int):
        """The measured images of a process in batches, float32 in `[0, 1]`."""
        config = self.config
        batches = dataset.reference_batches(
            config.evaluation_batch_size, process_index, num_processes, config.num_evaluation_samples
        )
        return (batch["pixel_values"] / 255 for batch in batches)

    def identity(self) -> dict:
        names = ("content_weight", "style_weight", "variation_weight", "content_layer", "style_layers")
        return {**{name: getattr(self.config, name) for name in names}, "feature_network": self.config.seen_by}

    def sample_grid(self, generate):
        """Rows of content, style and painted image."""
        return self.evaluator.panel(generate)

    def evaluate(self, generate):
        """Distances to content and style: of painted images, of the images, and of the styles."""
        return self.evaluator(generate)

    def described(self, what: str, usage: str, tag: str) -> dict:
        config = self.config
        return {
            "task": f"{what}; the losses are of features of {config.seen_by}; "
            f"{trained_from(config.pretrained_model_name_or_path)}.",
            "usage": usage,
            "base_model": config.pretrained_model_name_or_path,
            "tags": ["image-to-image", "style-transfer", tag],
        }


class FastStyleRecipe(StyleRecipe):
    """Johnson et al. 2016, eq. 5: a network of one style."""

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        if config.pretrained_model_name_or_path is not None:
            network = pretrained_style_net(config.pretrained_model_name_or_path, FastStyleNet, config.cache_dir)
            return {"generator": network}
        decided = {"in_channels": 3, "out_channels": 3}
        blank = torch.zeros(1, 3, *config.size)
        network = build_network(
            FastStyleNet,
            "--generator_options",
            config.generator_options,
            decided=decided,
            trial=lambda network: network(blank.to("meta")),
        )
        return {"generator": network}

    def step(self, batch, draw):
        images = batch["pixel_values"] / 2 + 0.5
        painted = self.generator(images).sample
        content, style = self.see(painted)
        with torch.no_grad():
            wanted, _ = self.see(images)
        self.minimise("generator", self.weighted(map_loss(content, wanted), gram_loss(style, self.grams), painted))

    def see(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The map of the content, and those of the style, of images in `[0, 1]`."""
        maps = dict(zip(self.features.layers, self.features.encode(images), strict=True))
        return maps[self.content_layer], [maps[name] for name in self.style_layers]

    # What stands around the algorithm

    def __init__(self, config: StyleConfig, context):
        self.features = load_feature_network(config.feature_network, context.device)
        content_layer, style_layers = usual_layers(self.features.layers)
        self.content_layer = config.content_layer or content_layer
        self.style_layers = config.style_layers or style_layers
        unknown = {self.content_layer, *self.style_layers} - set(self.features.layers)
        if unknown:
            raise ValueError(
                f"--content_layer and --style_layers must be among the layers of {config.seen_by}, "
                f"{', '.join(self.features.layers)}, not {', '.join(sorted(unknown))}."
            )
        self.style = read_style(config.style_image, config.style_size)
        least = getattr(self.features, "smallest_side", 1)
        if min(self.style.shape[2:]) < least:
            height, width = self.style.shape[2:]
            raise ValueError(
                f"--style_image, by --style_size, is seen in {height}x{width} pixels, but {config.seen_by} needs "
                f"sides of at least {least}."
            )
        super().__init__(config, context)
        with torch.no_grad():
            self.grams = [gram_matrix(layer) for layer in self.see(self.style.to(context.device))[1]]

    def validation_pairs(self, process_index: int, num_processes: int):
        height, width = self.config.size
        shown = F.interpolate(self.style, (height, width), mode="bilinear", antialias=True)
        for images in self.validation_batches(self.validation_images, process_index, num_processes):
            yield images, shown.expand(len(images), -1, -1, -1)

    def identity(self) -> dict:
        return {**super().identity(), "style": hashlib.blake2b(self.style.numpy().tobytes()).hexdigest()[:32]}

    def describe(self) -> dict:
        name = Path(self.config.style_image).stem
        what = f"Images in the style of one image ({name}), by a feed-forward network (Johnson et al. 2016)"
        return self.described(what, "image = pipe(image).images[0]", "fast-neural-style")


class AdaINRecipe(StyleRecipe):
    """Huang and Belongie 2017, eq. 11 to 13: a decoder of features that have the statistics of another image's."""

    def networks(self) -> dict[str, nn.Module]:
        config = self.config
        if config.pretrained_model_name_or_path is not None:
            network = pretrained_style_net(config.pretrained_model_name_or_path, AdaINStyleNet, config.cache_dir)
            return {"generator": freeze_encoder(network)}
        vgg = load_feature_network(config.feature_network)
        if not isinstance(vgg, VGG):
            raise ValueError(f"--feature_network must be a VGG for AdaIN, and {config.feature_network} is none.")
        images = next(self.dataset.source.reference_batches(NORMALIZED_BY))["pixel_values"] / 255
        return {"generator": adain_from_vgg(vgg, config.seen_by, images)}

    def step(self, batch, draw):
        images, style = (batch[name] / 2 + 0.5 for name in ("conditioning_pixel_values", "pixel_values"))
        output = self.generator(images, style)
        features = self.network("generator").encode(output.sample)
        content_loss = map_loss(features[-1], output.target.detach())
        style_loss = statistics_loss(features, output.style_features)
        self.minimise("generator", self.weighted(content_loss, style_loss, output.sample))

    def see(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The map of the content, and those of the style, of images in `[0, 1]`."""
        maps = self.network("generator").encode(images)
        return maps[-1], maps

    # What stands around the algorithm

    def validation_pairs(self, process_index: int, num_processes: int):
        sets = (self.validation_images.source, self.validation_images.target)
        parts = [self.validation_batches(part, process_index, num_processes) for part in sets]
        for images, styles in zip(*parts, strict=False):  # as many pairs as the smaller of the two sets has images
            count = min(len(images), len(styles))
            yield images[:count], styles[:count]

    def describe(self) -> dict:
        what = "Images in the style of any image, by adaptive instance normalization (Huang and Belongie 2017)"
        return self.described(what, "image = pipe(image, style_image).images[0]", "adain")


NORMALIZED_BY = 32  # images, by which the encoder of AdaIN is scaled


def read_style(path: str, size: int | None) -> torch.Tensor:
    """The image of a style, `(1, 3, H, W)` in `[0, 1]`, its shorter side resized to `size` if that is given.

    Raises:
        ValueError: naming `--style_image`, if it can't be read.
    """
    try:
        image = decode_image(path, 3)[None].float() / 255
    except UnreadableImageError as error:
        raise ValueError(f"--style_image {path} can't be read: {error}.") from error
    if size is None:
        return image
    height, width = image.shape[2:]
    target = tuple(round(side * size / min(height, width)) for side in (height, width))
    return F.interpolate(image, target, mode="bilinear", antialias=True).clamp(0, 1)


def style_recipe(config: StyleConfig, context) -> StyleRecipe:
    """The recipe of one style, or of any."""
    recipe_class = AdaINRecipe if config.style_image is None else FastStyleRecipe
    return recipe_class(config, context)


@dataclass
class StyleConfig(ValidationConfig):
    """The options of train_style.py."""

    style_image: str | None = option(
        help="The file of one style, which a network of Johnson et al. learns.", group="data", essential=True
    )
    style_data_dir: str | None = option(
        help="A folder of images whose styles the decoder of AdaIN learns to give, instead of --style_image.",
        group="data",
        essential=True,
    )
    style_split: str = option("train", help="The split of --style_data_dir to train on.", group="data")
    validation_style_split: str | None = option(
        help="The split of --style_data_dir that is measured and shown; by default the one for training.",
        group="evaluation",
    )
    style_size: int | None = option(
        help="The shorter side of --style_image in pixels, which decides the size of its strokes; by default its own.",
        group="data",
    )

    # Networks
    feature_network: str | None = option(
        help="The network that sees content and style: the folder of a VGG (examples/train_vgg.py, or one of "
        "torchvision, converted with --family torchvision_vgg), or for --style_image an image model of Transformers.",
        group="network",
        essential=True,
    )
    generator_options: JSONObject = option(
        JSONObject(), help="Arguments of FastStyleNet, as JSON or a YAML mapping: {num_blocks: 3}.", group="network"
    )
    pretrained_model_name_or_path: str | None = option(
        help="A StyleTransferPipeline whose network to train further; AdaIN then has its encoder for a feature "
        "network.",
        group="network",
    )

    # What is minimised
    content_layer: str | None = option(
        help="--style_image: the layer that sees the content; by default relu2_2, or the second stage."
    )
    style_layers: list[str] | None = option(
        help="--style_image: the layers that see the style; by default the last of each of four levels, or stages."
    )
    content_weight: float = option(1.0, help="The weight of the distance to the content.")
    style_weight: float | None = option(
        help="The weight of the distance to the style; by default 1e5 for --style_image, whose Gram matrices are "
        "small, and 10 for AdaIN, the ratios of the reference implementations."
    )
    variation_weight: float = option(0.0, help="The weight of the total variation, which makes images smooth.")

    # Usual for these networks
    learning_rate: float = option(1e-3, help="The learning rate after the warm-up; for AdaIN, 1e-4 is usual.")
    lr_warmup_steps: int = option(0, help="Updates until the learning rate is reached.")
    adam_weight_decay: float = option(0.0, help="AdamW's weight decay.")
    train_batch_size: int = option(4, help="Images per process and step.")
    use_ema: bool = option(False, help="Average the network's weights; the average is what is published.")
    num_evaluation_samples: int = option(64, help="How many images are measured.")
    evaluation_batch_size: int = option(16, help="Images that are read at once.")

    def __post_init__(self):
        self.require(
            self.feature_extractor is None and self.metrics is None,
            "--feature_extractor and --metrics are not for style transfer, which is measured by --feature_network",
        )
        if self.style_weight is None:
            self.style_weight = 10.0 if self.style_image is None else 1e5
        super().__post_init__()
        self.require(
            (self.style_image is None) != (self.style_data_dir is None),
            "--style_image, for one style, or --style_data_dir, for any, is required, and not both",
        )
        is_fast = self.style_image is not None
        self.require_at_least(1, "style_size")
        self.require_at_least(0, "content_weight", "style_weight", "variation_weight")
        self.require(self.style_weight > 0, "--style_weight must be above 0")
        self.require(self.channels == 3, f"--channels must be 3, as feature networks see colours, not {self.channels}")
        multiple = 4 if is_fast else 8
        self.require(
            all(side % multiple == 0 and side >= 16 for side in self.size),
            f"--resolution must be a multiple of {multiple} and at least 16, not {self.resolution}",
        )
        has_encoder = not is_fast and self.pretrained_model_name_or_path is not None
        self.require(
            (self.feature_network is None) == has_encoder,
            "--feature_network is required, except for AdaIN with --pretrained_model_name_or_path, which has one",
        )
        of_one = ("style_size", "generator_options", "content_layer", "style_layers")
        self.require_default(is_fast, of_one, "is for --style_image, which is not set")
        self.require_default(
            not is_fast, ("style_split", "validation_style_split"), "is for --style_data_dir, which is not set"
        )
        self.require(
            not (self.generator_options and self.pretrained_model_name_or_path),
            "--generator_options exclude --pretrained_model_name_or_path, whose network has its shape",
        )

    @property
    def seen_by(self) -> str:
        """The name of the network that sees content and style."""
        name = self.feature_network or f"the encoder of {self.pretrained_model_name_or_path}"
        return Path(name).resolve().name if Path(name).is_dir() else name

    def load_dataset(
        self, size: tuple[int, int], channels: int, center_crop: bool = False, random_flip: bool = False, **options
    ):
        """The images, and with `--style_data_dir` the styles beside them."""
        if self.style_data_dir is None:
            return super().load_dataset(size, channels, center_crop, random_flip, **options)
        names = ("dataset_name", "dataset_config_name", "train_data_dir", "image_column", "cache_dir", "streaming")
        names += ("shuffle_buffer_size", "cache_images", "verify_images", "skip_unreadable_images", "max_image_pixels")
        return load_unpaired_dataset(
            target_data_dir=self.style_data_dir,
            target_split=self.style_split,
            split=self.dataset_split,
            resolution=size,
            channels=channels,
            center_crop=center_crop,
            random_flip=random_flip,
            **{name: getattr(self, name) for name in names},
            **options,
        )

    def validation_splits(self) -> dict:
        """The options that name the validation images, and the validation styles, if they differ."""
        styles = {} if self.validation_style_split is None else {"style_split": self.validation_style_split}
        return {**super().validation_splits(), **styles}


if __name__ == "__main__":
    run(style_recipe, StyleConfig)
