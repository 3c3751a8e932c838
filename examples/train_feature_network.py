"""Train a small image classifier whose features measure images: FID, perceptual distance and so on without downloads.

    python examples/train_feature_network.py --train_data_dir photos --resolution 64 --output_dir outputs/features

The result is a ResNet of Transformers with its image processor, for `--feature_extractor outputs/features` and
`load_feature_extractor`. Numbers are comparable only between images measured with the same folder, so name it beside
them, with the accuracy printed at the end. Its training images should not be those that are measured.
"""

from diffusers_ext.training.loop.command import one_sentence

import sys
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tqdm import trange
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from diffusers_ext.atomic import refuse_content, written_beside
from diffusers_ext.data import ImageDataset
from diffusers_ext.metrics import class_accuracy, extract_features, load_feature_extractor
from diffusers_ext.training.loop.configuration import DataConfig, option, parse_config


@dataclass
class FeatureNetworkConfig(DataConfig):
    """The options of train_feature_network.py."""

    validation_split: str = option("test", help="The split to report the accuracy on, or `none`.")
    resolution: int = option(64, help="The side of the images in pixels.")
    channels: int = option(3, help="1 (grayscale) or 3 (RGB).")
    hidden_sizes: list[int] = option(
        [32, 64, 128, 128],
        help="Channels of the stages. The last is the number of features, and FID wants more images than that.",
    )
    depths: list[int] = option([1, 1, 1, 1], help="Blocks of the stages.")
    max_train_steps: int = option(2000, help="How many updates to make.")
    train_batch_size: int = option(64, help="Images per update.")
    learning_rate: float = option(2e-3, help="The largest learning rate, of a cycle that starts and ends near zero.")
    seed: int = option(0, help="The seed of the weights and the order of the images.")
    output_dir: str = option("outputs/features", help="Where the network goes.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "resolution", "max_train_steps", "train_batch_size")
        self.require(self.channels in (1, 3), f"--channels must be 1 or 3, not {self.channels}")
        same = len(self.hidden_sizes) == len(self.depths)
        self.require(same, "--hidden_sizes and --depths must have a number for each stage")


def build_network(config: FeatureNetworkConfig, id2label: dict[int, str]) -> ResNetForImageClassification:
    architecture = ResNetConfig(
        num_channels=config.channels,
        embedding_size=config.hidden_sizes[0],
        hidden_sizes=config.hidden_sizes,
        depths=config.depths,
        layer_type="basic",
        id2label=id2label,
        label2id={name: label for label, name in id2label.items()},
    )
    return ResNetForImageClassification(architecture)


def load_split(config: FeatureNetworkConfig, split: str, **options) -> ImageDataset:
    size = (config.resolution, config.resolution)
    dataset = replace(config, dataset_split=split).load_dataset(size, config.channels, **options)
    if dataset.id2label is None:
        raise ValueError(f"A classifier needs labels, but {split} has none: name the column with --label_column.")
    return dataset


def train(config: FeatureNetworkConfig, dataset: ImageDataset, device: torch.device) -> None:
    """Train the network and save it with its image processor."""
    torch.manual_seed(config.seed)
    network = build_network(config, dataset.id2label).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.max_train_steps)
    batches = dataset.batches(config.train_batch_size, seed=config.seed)
    for _ in (progress := trange(config.max_train_steps)):
        batch = next(batches)
        logits = network(batch["pixel_values"].to(device)).logits
        loss = F.cross_entropy(logits, batch["class_labels"].to(device), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)

    statistics = [0.5] * config.channels
    processor = ConvNextImageProcessor(
        size={"shortest_edge": config.resolution}, crop_pct=1.0, image_mean=statistics, image_std=statistics
    )
    with written_beside(config.output_dir) as folder:
        network.save_pretrained(folder)
        processor.save_pretrained(folder)


def accuracy(config: FeatureNetworkConfig, dataset: ImageDataset, device: torch.device) -> float:
    """How often the saved network sees the class of an image."""
    batches = list(dataset.reference_batches(config.train_batch_size))
    extractor = load_feature_extractor(config.output_dir, device)
    logits = extract_features(extractor, [batch["pixel_values"] for batch in batches]).logits
    return class_accuracy(logits, torch.cat([batch["class_labels"] for batch in batches]))["accuracy"]


def main() -> None:
    config, device = parse_config(FeatureNetworkConfig, sys.argv[1:]), Accelerator().device
    refuse_content(config.output_dir)
    dataset = load_split(config, config.dataset_split, random_flip=True)
    held_out = None if config.validation_split == "none" else load_split(config, config.validation_split)
    train(config, dataset, device)
    if held_out is not None:
        print(f"accuracy on the {config.validation_split} split: {accuracy(config, held_out, device):.3f}")


if __name__ == "__main__":
    with one_sentence(ValueError, OSError, ImportError, status=2):
        main()
