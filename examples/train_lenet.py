"""Train a LeNet, whose features and classes measure generated digits, clothes and the like: a minute on a CPU.

    python examples/train_lenet.py --dataset_name ylecun/mnist --output_dir outputs/lenet

The result is for `--feature_extractor outputs/lenet`. Numbers are comparable only between images measured with the
same folder, so name it beside them, with the accuracy printed at the end.
"""

from diffusers_ext.training.loop.command import one_sentence

import sys
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from tqdm import trange

from diffusers_ext.atomic import refuse_content, written_beside
from diffusers_ext.data import ImageDataset
from diffusers_ext.metrics import class_accuracy, extract_features, load_feature_extractor
from diffusers_ext.models import LeNet
from diffusers_ext.training.loop.configuration import DataConfig, option, parse_config


@dataclass
class LeNetConfig(DataConfig):
    """The options of train_lenet.py."""

    validation_split: str = option("test", help="The split to report the accuracy on.")
    channels: int = option(1, help="1 (grayscale) or 3 (RGB).")
    max_train_steps: int = option(1500, help="How many updates to make.")
    train_batch_size: int = option(64, help="Images per update.")
    learning_rate: float = option(2e-3, help="The largest learning rate, of a cycle that starts and ends near zero.")
    seed: int = option(0, help="The seed of the weights and the order of the images.")
    output_dir: str = option("outputs/lenet", help="Where the network goes.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "max_train_steps", "train_batch_size")
        self.require(self.channels in (1, 3), f"--channels must be 1 or 3, not {self.channels}")


def train(config: LeNetConfig, dataset: ImageDataset) -> LeNet:
    """Fit a network by cross-entropy."""
    torch.manual_seed(config.seed)
    network = LeNet(in_channels=config.channels, num_classes=len(dataset.id2label), id2label=dataset.id2label)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.max_train_steps)
    batches = dataset.batches(config.train_batch_size, seed=config.seed)
    for _ in trange(config.max_train_steps, desc="Training"):
        batch = next(batches)
        logits = network(batch["pixel_values"] / 2 + 0.5).logits
        loss = F.cross_entropy(logits, batch["class_labels"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def measure(config: LeNetConfig) -> float:
    """The accuracy of the saved network on the validation split, at the size of its own images."""
    size = LeNet.load_config(config.output_dir)["sample_size"]
    dataset = replace(config, dataset_split=config.validation_split).load_dataset((size, size), config.channels)
    extractor, labels = load_feature_extractor(config.output_dir), []

    def images():
        for batch in dataset.reference_batches(config.train_batch_size):
            labels.append(batch["class_labels"])
            yield batch["pixel_values"]

    logits = extract_features(extractor, images()).logits
    return class_accuracy(logits, torch.cat(labels))["accuracy"]


def main(arguments: list[str] | None = None) -> None:
    """Train and save a network as the command line says, and print its accuracy."""
    config = parse_config(LeNetConfig, sys.argv[1:] if arguments is None else arguments)
    with one_sentence(ValueError, OSError, status=2):
        refuse_content(config.output_dir)
        size = LeNet().config.sample_size
        dataset = config.load_dataset((size, size), config.channels)
        if dataset.id2label is None:
            raise ValueError("A classifier needs labels: name the column with --label_column.")
        network = train(config, dataset)
        with written_beside(config.output_dir) as folder:
            network.save_pretrained(folder)
        print(f"Accuracy on {config.validation_split}: {measure(config):.4f}")


if __name__ == "__main__":
    main()
