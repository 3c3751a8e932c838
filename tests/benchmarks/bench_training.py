"""Training: our loop against the inner loop of diffusers' train_unconditional_image_generation example.

    python -m tests.benchmarks.bench_training

Both train the same network on the same digits with the same loss in float32, and both average the weights; the
example's loop is written out below with its own data path (PIL transforms in a DataLoader), optimizer and average. A
round is a few updates of one, then of the other.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import Dataset
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image

from diffusers_ext.data.digits import load_digits_dataset
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
from tests.benchmarks.timing import alternate, report


UPDATES = 5


def network_options(size: int) -> dict:
    return {
        "block_out_channels": (32, 64),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
    }


class ExampleLoop:
    """The example's inner loop, for one process and no accumulation."""

    def __init__(self, size: int, batch_size: int):
        pictures = [image.convert("RGB") for image in load_digits_dataset()["train"]["image"]]
        dataset = Dataset.from_dict({"image": pictures})
        dataset.set_transform(lambda examples: {"input": [self.transform(image) for image in examples["image"]]})
        self.size = size
        self.accelerator = Accelerator(cpu=True)
        model = UNet2DModel(sample_size=size, in_channels=3, out_channels=3, **network_options(size))
        self.ema_model = EMAModel(
            model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75, model_config=model.config
        )
        self.noise_scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-08)
        loader = torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True)
        lr_scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=100_000)
        self.model, self.optimizer, self.loader, self.lr_scheduler = self.accelerator.prepare(
            model, optimizer, loader, lr_scheduler
        )
        self.batches = self.endless()

    def transform(self, image: Image.Image) -> torch.Tensor:
        # What Resize, CenterCrop, RandomHorizontalFlip, ToTensor and Normalize([0.5], [0.5]) of torchvision do.
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        if torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous().div(255)
        return tensor.sub_(0.5).div_(0.5)

    def endless(self):
        while True:
            yield from self.loader

    def update(self) -> float:
        clean_images = next(self.batches)["input"].to(torch.float32)
        noise = torch.randn(clean_images.shape, dtype=torch.float32, device=clean_images.device)
        timesteps = torch.randint(0, self.noise_scheduler.config.num_train_timesteps, (len(clean_images),)).long()
        noisy_images = self.noise_scheduler.add_noise(clean_images, noise, timesteps)
        with self.accelerator.accumulate(self.model):
            model_output = self.model(noisy_images, timesteps).sample
            loss = F.mse_loss(model_output.float(), noise.float())
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.lr_scheduler.step()
            self.optimizer.zero_grad()
        self.ema_model.step(self.model.parameters())
        return loss.detach().item()


def our_trainer(size: int, batch_size: int, output_dir: str, **options) -> Trainer:
    config = DiffusionConfig(
        dataset_name="digits",
        label_column="none",
        channels=3,
        resolution=[size],
        random_flip=True,
        unet=network_options(size),
        prediction_type="epsilon",
        beta_schedule="linear",
        train_batch_size=batch_size,
        max_train_steps=100_000,
        learning_rate=1e-4,
        lr_scheduler="cosine",
        lr_warmup_steps=500,
        output_dir=output_dir,
        **options,
    )
    accelerator = build_accelerator()
    return Trainer(DiffusionRecipe(config, TrainingContext(accelerator)), accelerator)


def repeated(update: Callable[[], object]) -> Callable[[], None]:
    """A round of updates."""

    def round_() -> None:
        for _ in range(UPDATES):
            update()

    return round_


def update_and_read(trainer: Trainer) -> None:
    """A step, and its values on the CPU, as in a run with --logging_steps 1."""
    trainer.update()
    trainer.reports.read()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--compile", action="store_true", help="Also compile our network (takes minutes).")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as output_dir:
        for size, batch_size in ((8, 64), (8, 16), (32, 16)):
            variants = {"channels_last": {"channels_last": True}, "plain": {}}
            if arguments.compile:
                variants["compiled"] = {"compile": True}
            trainers = {
                f"ours, {name}": our_trainer(size, batch_size, f"{output_dir}/{name}", **options)
                for name, options in variants.items()
            }
            for trainer in trainers.values():
                trainer.start()
            functions = {"diffusers' example": repeated(ExampleLoop(size, batch_size).update)}
            for name, trainer in trainers.items():
                functions[name] = repeated(partial(update_and_read, trainer))
            medians = alternate(functions, arguments.rounds)
            title = f"{UPDATES} updates, {size}x{size} RGB, batch {batch_size}, float32"
            report(title, medians, "diffusers' example")


if __name__ == "__main__":
    main()
