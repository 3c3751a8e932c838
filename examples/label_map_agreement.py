"""Measure whether images follow the label maps from which they were made, with a segmenter that is trained for this.

    python examples/label_map_agreement.py --train_data_dir ~/camvid --conditioning_image_column conditioning_image \
        --conditioning_num_labels 12 --resolution 96 128 --pipelines outputs/camvid_semantic

The segmenter, a small U-Net, learns from the real pairs of the split `train`. It then finds the labels in images that
pipelines make of the maps of the split `test`. A row gives the share of pixels whose label is that of the map, the
mean IoU over the labels, and the FID in the features of the segmenter's middle, which only compares rows of one table.
Two rows say what can be reached: the real images, and, as chance, the real images of other maps.
"""

from diffusers_ext.training.loop.command import one_sentence

import sys
import time
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, UNet2DModel
from tqdm import trange

from diffusers_ext import pipelines
from diffusers_ext.data.loading import check_resolution
from diffusers_ext.metrics.frechet import fid
from diffusers_ext.pixels import to_pixel_values
from diffusers_ext.training.loop.configuration import DataConfig, option, parse_config


@dataclass
class AgreementConfig(DataConfig):
    """The options of label_map_agreement.py."""

    pipelines: list[str] = option([], help="The folders of pipelines that make images of label maps.")
    resolution: list[int] = option([32], help="Height and width of the images, or one number for both.")
    channels: int = option(3, help="1 (grayscale) or 3 (RGB).")
    max_train_steps: int = option(300, help="How long the segmenter is trained.")
    train_batch_size: int = option(16, help="Images per update.")
    random_flip: bool = option(False, help="Mirror half of the images that the segmenter is trained with.")
    num_images: int = option(500, help="How many maps of the split `test` are used.")

    def __post_init__(self):
        self.conditioning_label_maps = "levels"
        super().__post_init__()
        self.require(self.conditioning_num_labels is not None, "--conditioning_num_labels is required")


class Segmenter(UNet2DModel):
    """Finds labels in images (N, C, H, W) in [-1, 1]."""

    def find(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The labels of each pixel, (N, H, W), and features of each image, (N, D)."""
        features = []
        hook = self.mid_block.register_forward_hook(lambda *arguments: features.append(arguments[-1].mean(dim=(2, 3))))
        with torch.no_grad():
            labels = torch.cat([self(part, 0).sample.argmax(dim=1) for part in images.split(50)])
        hook.remove()
        return labels, torch.cat(features)


def label_numbers(batch: dict) -> torch.Tensor:
    """The labels of each pixel, (N, H, W), in maps of [0, 255] or [-1, 1]."""
    maps = batch["conditioning_pixel_values"][:, 0]
    return (maps * 127.5 + 127.5).round().long() if maps.is_floating_point() else maps.long()


def train_segmenter(config: AgreementConfig, dataset) -> Segmenter:
    torch.manual_seed(0)
    segmenter = Segmenter(
        in_channels=config.channels,
        out_channels=config.conditioning_num_labels,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        add_attention=False,
    )
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, config.max_train_steps)
    batches = dataset.batches(config.train_batch_size, seed=0)
    for _ in trange(config.max_train_steps, desc="segmenter"):
        batch = next(batches)
        loss = F.cross_entropy(segmenter(batch["pixel_values"], 0).sample, label_numbers(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    return segmenter.eval()


def agreement(found: torch.Tensor, given: torch.Tensor, num_labels: int) -> dict[str, float]:
    """The share of pixels with equal labels, and the mean over the given labels of intersection over union."""
    counts = torch.bincount((given * num_labels + found).flatten(), minlength=num_labels**2)
    counts = counts.view(num_labels, num_labels).double()
    both, union = counts.diag(), counts.sum(dim=0) + counts.sum(dim=1) - counts.diag()
    present = counts.sum(dim=1) > 0
    return {"pixels": (both.sum() / counts.sum()).item(), "mean IoU": (both / union)[present].mean().item()}


def main() -> None:
    config = parse_config(AgreementConfig, sys.argv[1:])
    size = check_resolution(config.resolution)
    trained = config.load_dataset(size, config.channels, random_flip=config.random_flip)
    held_out = replace(config, dataset_split="test").load_dataset(size, config.channels)
    segmenter = train_segmenter(config, trained)

    pairs = list(held_out.reference_batches(50, limit=config.num_images))
    real = torch.cat([to_pixel_values(pair["pixel_values"]) for pair in pairs])
    given = torch.cat([label_numbers(pair) for pair in pairs])
    real_labels, real_features = segmenter.find(real)
    half = len(given) // 2
    rows = {
        "real images": agreement(real_labels, given, config.conditioning_num_labels),
        "real images of other maps": agreement(real_labels.roll(half, 0), given, config.conditioning_num_labels),
    }
    for folder in config.pipelines:
        pipe = load_pipeline(folder)
        pipe.set_progress_bar_config(disable=True)
        started = time.process_time()
        # Pipelines without a network of label maps see the maps as their training did, which is left to the data set.
        takes_labels = getattr(pipe, "conditioner", None) is not None
        takes_labels |= isinstance(pipe, pipelines.SemanticSynthesisPipeline)
        shown = given if takes_labels else colour_images(config, size)[: len(given)]
        generator = torch.Generator().manual_seed(0)
        made = torch.cat([pipe(list(part), output_type="pt", generator=generator).images for part in shown.split(50)])
        seconds = (time.process_time() - started) / len(made)
        labels, features = segmenter.find(made * 2 - 1)
        rows[folder] = agreement(labels, given, config.conditioning_num_labels)
        rows[folder] |= {"FID": fid(real_features, features), "CPU s per image": seconds}
    for name, values in rows.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in values.items()))


def load_pipeline(folder: str) -> DiffusionPipeline:
    """The pipeline in a folder, of whichever class of this package it is."""
    name = DiffusionPipeline.load_config(folder)["_class_name"]
    return getattr(pipelines, name if isinstance(name, str) else name[-1]).from_pretrained(folder)


def colour_images(config: AgreementConfig, size) -> torch.Tensor:
    """The conditioning images of the split `test`, (N, C, H, W) in [0, 1], coloured where images have colours."""
    kind = "colors" if config.channels == 3 else "levels"
    options = {"conditioning_label_maps": kind, "conditioning_num_labels": None, "split": "test"}
    batches = config.load_dataset(size, config.channels, **options).reference_batches(50, limit=config.num_images)
    return torch.cat([to_pixel_values(batch["conditioning_pixel_values"]) for batch in batches]) / 2 + 0.5


if __name__ == "__main__":
    with one_sentence(ValueError, OSError, ImportError, status=2):
        main()
