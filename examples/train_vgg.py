"""Train a small VGG, whose layers measure content and style for style transfer where no weights can be downloaded.

    python examples/train_vgg.py --train_data_dir photos --output_dir outputs/vgg

The folder has a subfolder per class. The result is for `--feature_network outputs/vgg` of `training/train_style.py`,
and for Gatys' optimisation in [`StyleTransferPipeline`]. Its channels are scaled to a mean square of 1.
"""

from diffusers_ext.training.loop.command import one_sentence

import sys
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from tqdm import trange

from diffusers_ext.atomic import refuse_content, written_beside
from diffusers_ext.data import ImageDataset
from diffusers_ext.losses.style_features import normalize_activations
from diffusers_ext.metrics import class_accuracy
from diffusers_ext.models import VGG
from diffusers_ext.training.loop.configuration import DataConfig, option, parse_config


@dataclass
class VGGConfig(DataConfig):
    """The options of train_vgg.py."""

    validation_split: str = option("test", help="The split to report the accuracy on, or `none`.")
    resolution: int = option(48, help="The side of the images in pixels.")
    block_out_channels: list[int] = option([16, 32, 64, 128], help="Channels of the levels.")
    layers_per_block: list[int] = option(
        [2, 2, 4, 2], help="Convolutions of the levels; AdaIN needs those of VGG-19 in the first three."
    )
    max_train_steps: int = option(800, help="How many updates to make.")
    train_batch_size: int = option(32, help="Images per update.")
    learning_rate: float = option(1e-3, help="The largest learning rate, of a cycle that starts and ends near zero.")
    seed: int = option(0, help="The seed of the weights and the order of the images.")
    output_dir: str = option("outputs/vgg", help="Where the network goes.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "resolution", "max_train_steps", "train_batch_size")


def load_split(config: VGGConfig, split: str, **options) -> ImageDataset:
    """The images of a split with their classes."""
    dataset = replace(config, dataset_split=split).load_dataset((config.resolution,) * 2, 3, **options)
    if dataset.id2label is None:
        raise ValueError(f"A classifier needs labels, but {split} has none: name the column with --label_column.")
    return dataset


def train(config: VGGConfig, dataset: ImageDataset) -> VGG:
    """Fit a network by cross-entropy."""
    torch.manual_seed(config.seed)
    network = VGG(
        config.block_out_channels,
        config.layers_per_block,
        padding_mode="reflect",
        num_classes=len(dataset.id2label),
        id2label=dataset.id2label,
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.max_train_steps)
    batches = dataset.batches(config.train_batch_size, seed=config.seed)
    for _ in (progress := trange(config.max_train_steps)):
        batch = next(batches)
        logits = network(batch["pixel_values"] / 2 + 0.5).logits
        loss = F.cross_entropy(logits, batch["class_labels"], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    normalize_activations(network, torch.cat([next(batches)["pixel_values"] for _ in range(4)]) / 2 + 0.5)
    return network.eval()


@torch.no_grad()
def accuracy(network: VGG, dataset: ImageDataset) -> float:
    """How often the network sees the class of an image."""
    batches = list(dataset.reference_batches(100))
    logits = torch.cat([network(batch["pixel_values"] / 255).logits for batch in batches])
    return class_accuracy(logits, torch.cat([batch["class_labels"] for batch in batches]))["accuracy"]


def main(arguments: list[str] | None = None) -> None:
    """Train and save a network as the command line says, and print its accuracy."""
    config = parse_config(VGGConfig, sys.argv[1:] if arguments is None else arguments)
    refuse_content(config.output_dir)
    dataset = load_split(config, config.dataset_split, random_flip=True)
    held_out = None if config.validation_split == "none" else load_split(config, config.validation_split)
    network = train(config, dataset)
    with written_beside(config.output_dir) as folder:
        network.save_pretrained(folder)
    if held_out is not None:
        print(f"accuracy on the {config.validation_split} split: {accuracy(network, held_out):.3f}")


if __name__ == "__main__":
    with one_sentence(ValueError, OSError, status=2):
        main()
