"""Time to quality: which share of other recipes' training time ours needs for the same FID and accuracy.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_time_to_quality --dataset_name digits --resolution 8 \
        --measured_split train --feature_extractor digits
    OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_time_to_quality --train_data_dir ~/fashion_mnist \
        --resolution 16 --feature_extractor outputs/lenet

Each of the others trains for `--seconds` of CPU time on one core, and is measured then. Ours, with the defaults of
train_diffusion.py, is planned for shares of that time, because its learning rate falls to the end of a training. All
train the same network with the same stream of images and labels; only training is timed. The others are

- `train_unconditional_image_generation` of https://github.com/huggingface/diffusers with `--use_ema`;
- `Trainer` of https://github.com/lucidrains/denoising-diffusion-pytorch, without mirrored images,

with their default settings and class labels. They are sampled by 20 steps of DDIM, ours by its 10 default steps.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.training.evaluation.samples import SampleEvaluator, balanced_labels
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe


BATCH_SIZE = 16  # the default of all three


def network_options(size: int) -> dict:
    widths = (24, 48) if size < 16 else (32, 64, 64)
    return {
        "block_out_channels": list(widths),
        "down_block_types": ["DownBlock2D"] * len(widths),
        "up_block_types": ["UpBlock2D"] * len(widths),
        "layers_per_block": 1,
        "norm_num_groups": 8,
    }


class DiffusersLoop:
    """The settings of diffusers' example: noise is predicted, linear betas, the rate falls over 100 epochs."""

    def __init__(self, unet: torch.nn.Module, epoch_length: int):
        self.unet = unet
        self.noise = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        self.optimizer = torch.optim.AdamW(
            unet.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        updates = 100 * epoch_length // BATCH_SIZE
        self.rate = get_scheduler("cosine", self.optimizer, num_warmup_steps=500, num_training_steps=updates)
        self.average = EMAModel(unet.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def update(self, clean: torch.Tensor, labels: torch.Tensor) -> None:
        noise, timesteps = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),))
        output = self.unet(self.noise.add_noise(clean, noise, timesteps), timesteps, class_labels=labels).sample
        F.mse_loss(output, noise).backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.rate.step()
        self.optimizer.zero_grad()
        self.average.step(self.unet.parameters())

    def averaged(self) -> torch.nn.Module:
        averaged = copy.deepcopy(self.unet)
        self.average.copy_to(averaged.parameters())
        return averaged


class LucidrainsLoop:
    """The settings of lucidrains: velocities, a sigmoid schedule, a constant rate, an average each tenth update."""

    def __init__(self, unet: torch.nn.Module, epoch_length: int):
        self.unet, self.average, self.step = unet, copy.deepcopy(unet), 0
        # The cumulative product of 1 - beta falls like a sigmoid from -3 to 3.
        time_ = torch.linspace(0, 1, 1001, dtype=torch.float64)
        left, right = torch.tensor([-3.0, 3.0], dtype=torch.float64).sigmoid()
        cumulative = (right - (6 * time_ - 3).sigmoid()) / (right - left)
        betas = (1 - cumulative[1:] / cumulative[:-1]).clamp(0, 0.999).float()
        self.noise = DDPMScheduler(trained_betas=betas.numpy(), prediction_type="v_prediction")
        self.optimizer = torch.optim.Adam(unet.parameters(), lr=1e-4, betas=(0.9, 0.99))

    def update(self, clean: torch.Tensor, labels: torch.Tensor) -> None:
        noise, timesteps = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),))
        output = self.unet(self.noise.add_noise(clean, noise, timesteps), timesteps, class_labels=labels).sample
        target = self.noise.get_velocity(clean, noise, timesteps)
        # snr / (snr + 1) is the cumulative product.
        weights = self.noise.alphas_cumprod[timesteps]
        (weights * (output - target).square().mean(dim=(1, 2, 3))).mean().backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        if self.step % 10 == 0:
            self._update_average()

    def _update_average(self) -> None:
        # The average counts its own updates, and copies the weights for the first 100 of them.
        updates = self.step // 10 - 100
        decay = 0.0 if updates <= 1 else min(1 - updates ** (-2 / 3), 0.995)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.unet.parameters()), 1 - decay)

    def averaged(self) -> torch.nn.Module:
        return self.average


OTHERS = {"diffusers": DiffusersLoop, "lucidrains": LucidrainsLoop}


class Bench:
    """Trains and measures on one data set."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        self.accelerator = build_accelerator(cpu_threads=1)
        self.context = TrainingContext(self.accelerator)
        config = self.config(0, dataset_split=arguments.measured_split)
        self.evaluator = SampleEvaluator(
            config.load_dataset(config.size, config.channels),
            split=arguments.measured_split,
            device=self.context.device,
            feature_extractor=arguments.feature_extractor,
            metrics=["fid", "accuracy"],
            num_samples=arguments.samples,
            batch_size=100,
        )

    def config(self, seed: int, **options) -> DiffusionConfig:
        """Our defaults, but for what is the same for all."""
        arguments = self.arguments
        return DiffusionConfig(
            dataset_name=arguments.dataset_name,
            train_data_dir=arguments.train_data_dir,
            resolution=[arguments.resolution],
            channels=arguments.channels,
            unet=network_options(arguments.resolution),
            seed=seed,
            **options,
        )

    def ours(self, seed: int, steps: int) -> Iterator[Trainer]:
        """A trainer that starts now."""
        with tempfile.TemporaryDirectory() as output_dir:
            config = self.config(seed, max_train_steps=steps, output_dir=output_dir)
            trainer = Trainer(DiffusionRecipe(config, TrainingContext(self.accelerator)), self.accelerator)
            trainer.start()
            yield trainer

    def seconds_per_update(self) -> float:
        for trainer in self.ours(0, 30):
            repeat(trainer.update, 5)
            return repeat(trainer.update, 25) / 25

    def train_ours(self, seed: int, steps: int) -> tuple[float, float, float]:
        """The CPU seconds, FID and accuracy of a training of so many steps."""
        for trainer in self.ours(seed, steps):
            next(trainer.batches)  # decodes the images
            trainer.start()
            seconds = repeat(trainer.update, steps)
            unet = trainer.networks["unet"]
            with ExitStack() as stack:
                for average in trainer.averages.values():
                    stack.enter_context(average.applied())
                pipeline = trainer.recipe.pipeline(unet=unet.eval())
                return seconds, *self.measure(pipeline, trainer.config.num_inference_steps)

    def train_other(self, loop_class: Callable, seed: int) -> tuple[float, int, float, float]:
        """The CPU seconds, updates, FID and accuracy of the other training."""
        config = self.config(seed, label_dropout=0.0)
        recipe = DiffusionRecipe(config, TrainingContext(self.accelerator))
        torch.manual_seed(seed)
        loop = loop_class(recipe.networks()["unet"].train(), recipe.dataset.epoch_length)
        batches = recipe.dataset.batches(BATCH_SIZE, seed=seed)
        next(batches)
        started, updates = time.process_time(), 0
        while time.process_time() - started < self.arguments.seconds:
            batch = next(batches)
            loop.update(batch["pixel_values"], batch["class_labels"])
            updates += 1
        seconds = time.process_time() - started
        sampler = DDIMScheduler.from_config(loop.noise.config, timestep_spacing="trailing")
        pipeline = ClassConditionalPipeline(
            unet=loop.averaged().eval(), scheduler=sampler, id2label=recipe.dataset.id2label
        )
        return seconds, updates, *self.measure(pipeline, 20)

    def measure(self, pipeline: ClassConditionalPipeline, steps: int) -> tuple[float, float]:
        pipeline.set_progress_bar_config(disable=True)
        generate = Generation(pipeline, self.context, seed=0, batch_size=100)
        labels = balanced_labels(pipeline.config.id2label, self.arguments.samples)
        values = self.evaluator.measure(generate, labels, num_inference_steps=steps, guidance_scale=1.0)
        return values["fid"], values["accuracy"]


def repeat(update: Callable[[], object], count: int) -> float:
    """The CPU seconds of `count` updates."""
    started = time.process_time()
    for _ in range(count):
        update()
    return time.process_time() - started


def report(name: str, seed: int, seconds: float, updates: int, fid: float, accuracy: float) -> None:
    print(f"| {name} | {seed} | {seconds:.1f} | {updates} | {fid:.2f} | {accuracy:.1%} |", flush=True)


def speed_text(fid: float, accuracy: float, seconds: float, own: list[tuple[float, float, float]]) -> str:
    """How many times faster ours is at this FID, and at this FID and accuracy."""
    by_fid = [row[0] for row in own if row[1] <= fid]
    by_both = [row[0] for row in own if row[1] <= fid and row[2] >= accuracy]
    return ", ".join(f"{seconds / min(rows):.1f}x" if rows else "not reached" for rows in (by_fid, by_both))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset_name")
    parser.add_argument("--train_data_dir")
    parser.add_argument("--resolution", type=int, required=True)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--feature_extractor", required=True)
    parser.add_argument("--measured_split", default="test", help="The real images that samples are compared with.")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60, help="CPU seconds of the other recipes.")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.04, 0.1, 0.25], help="Of that time, for which ours is planned."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--others", nargs="*", default=list(OTHERS), choices=list(OTHERS))
    arguments = parser.parse_args()
    bench = Bench(arguments)
    rate = bench.seconds_per_update()
    print("| recipe | seed | CPU seconds | updates | FID | accuracy |\n|---|---|---|---|---|---|", flush=True)
    for seed in arguments.seeds:
        own = []
        for share in arguments.shares:
            steps = max(1, round(share * arguments.seconds / rate))
            own.append(bench.train_ours(seed, steps))
            report("ours", seed, own[-1][0], steps, *own[-1][1:])
        for name in arguments.others:
            seconds, updates, fid, accuracy = bench.train_other(OTHERS[name], seed)
            report(name, seed, seconds, updates, fid, accuracy)
            text = speed_text(fid, accuracy, seconds, own)
            print(f"Ours is as good as {name}, seed {seed}, in FID, and in FID and accuracy: {text}", flush=True)


if __name__ == "__main__":
    main()
