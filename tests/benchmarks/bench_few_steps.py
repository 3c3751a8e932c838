"""Students of few steps: seconds per image against their teacher's, at an equal FID.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.bench_few_steps outputs/digits outputs/digits_in_one_step \
        outputs/digits_in_two_steps outputs/digits_in_four_steps --dataset_name digits --feature_extractor digits

Each student is compared with its teacher in as many steps as that needs for the student's FID, by the sampler of its
pipeline and by diffusers' loop with `FlowMatchEulerDiscreteScheduler` or `DDIMScheduler`. The same samples are
measured and timed, one after the other in one process, in float32.
"""

import argparse
from functools import partial

import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor

from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.training.evaluation.samples import SampleEvaluator, balanced_labels
from diffusers_ext.training.loop.accelerator import build_accelerator
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.sampling import Generation
from diffusers_ext.training.train_diffusion import DiffusionConfig
from tests.benchmarks.timing import alternate


STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 50)
FLOW = "flow_prediction"


class DiffusersLoop:
    """The loop of diffusers' DDIMPipeline, with class labels and, if there is guidance, two predictions per step."""

    def __init__(self, teacher: ClassConditionalPipeline):
        self.unet, self.config = teacher.unet, teacher.config
        own = teacher.scheduler.config
        if own.prediction_type == FLOW:
            self.scheduler = FlowMatchEulerDiscreteScheduler()
        else:
            self.scheduler = DDIMScheduler.from_config({**own, "timestep_spacing": "trailing"})

    @torch.no_grad()
    def __call__(self, class_labels, generator, num_inference_steps, guidance_scale, **_):
        """Images of [0, 1], (N, C, H, W)."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        image = randn_tensor((len(class_labels), self.unet.config.in_channels, height, width), generator)
        labels = torch.as_tensor(class_labels)
        null_labels = torch.full_like(labels, self.config.null_class_label)
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            prediction = self.unet(image, t, class_labels=labels).sample
            if guidance_scale != 1:
                unconditional = self.unet(image, t, class_labels=null_labels).sample
                prediction = unconditional + guidance_scale * (prediction - unconditional)
            image = self.scheduler.step(prediction, t, image).prev_sample
        return argparse.Namespace(images=VaeImageProcessor(vae_scale_factor=1).postprocess(image, output_type="pt"))


class Bench:
    """Measures and times ways to sample one teacher and its students."""

    def __init__(self, arguments: argparse.Namespace, teacher: ClassConditionalPipeline):
        self.arguments = arguments
        self.context = TrainingContext(build_accelerator(cpu_threads=1))
        channels, *size = teacher.image_shape
        config = DiffusionConfig(
            dataset_name=arguments.dataset_name,
            train_data_dir=arguments.train_data_dir,
            dataset_split=arguments.dataset_split,
            resolution=size,
            channels=channels,
        )
        self.labels = balanced_labels(teacher.config.id2label, arguments.samples)
        self.evaluator = SampleEvaluator(
            config.load_dataset(config.size, channels),
            split=arguments.dataset_split,
            device=self.context.device,
            feature_extractor=arguments.feature_extractor,
            metrics=["fid", "accuracy"],
            num_samples=arguments.samples,
            batch_size=100,
        )

    def measure(self, name: str, pipeline, steps: int, scale: float) -> float:
        """The FID, which is printed with the accuracy."""
        generate = Generation(pipeline, self.context, seed=0, batch_size=100)
        values = self.evaluator.measure(generate, self.labels, num_inference_steps=steps, guidance_scale=scale)
        print(f"| {name} | {steps} | {values['fid']:.3f} | {values['accuracy']:.1%} |", flush=True)
        return values["fid"]

    def fewest_steps(self, name: str, pipeline, scale: float, fids: list[float]) -> dict[float, int]:
        """For each of `fids`, the fewest of `STEPS` with which `pipeline` is as good."""
        found = {}
        for steps in STEPS:
            fid = self.measure(name, pipeline, steps, scale)
            found |= {wanted: steps for wanted in fids if fid <= wanted and wanted not in found}
            if len(found) == len(fids):
                break
        return found

    def sample(self, pipeline, steps: int, scale: float, batch_size: int):
        labels = self.labels[:batch_size]
        generators = [torch.Generator().manual_seed(i) for i in range(batch_size)]
        return pipeline(
            class_labels=labels,
            generator=generators,
            num_inference_steps=steps,
            guidance_scale=scale,
            output_type="pt",
        )


def load(name: str) -> ClassConditionalPipeline:
    pipe = ClassConditionalPipeline.from_pretrained(name)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", help="A class-conditional pipeline, trained with --label_dropout.")
    parser.add_argument("students", nargs="+", help="Pipelines that train_distillation.py has made of it.")
    parser.add_argument("--guidance_scale", type=float, default=1.0, help="The one that the students have learned.")
    parser.add_argument("--dataset_name")
    parser.add_argument("--train_data_dir")
    parser.add_argument("--dataset_split", default="train", help="The real images that samples are compared with.")
    parser.add_argument("--feature_extractor", required=True)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    teacher, scale = load(arguments.teacher), arguments.guidance_scale
    students = {name: load(name) for name in arguments.students}
    bench, loop = Bench(arguments, teacher), DiffusersLoop(teacher)

    print("| sampler | steps | FID | accuracy |\n|---|---|---|---|", flush=True)
    steps = {name: pipe.config.default_num_inference_steps for name, pipe in students.items()}
    fids = {name: bench.measure(name, pipe, steps[name], 1.0) for name, pipe in students.items()}
    default = teacher.config.default_num_inference_steps
    bench.measure("teacher, its default", teacher, default, scale)
    samplers = {"teacher's sampler": teacher, f"diffusers' {type(loop.scheduler).__name__}": loop}
    fewest = {name: bench.fewest_steps(name, pipe, scale, list(fids.values())) for name, pipe in samplers.items()}

    for batch_size in arguments.batch_sizes:
        for student, pipe in students.items():
            count = f"{steps[student]} step{'s' if steps[student] > 1 else ''}"
            ways = {f"student, {count}": (pipe, steps[student], 1.0)}
            for name, sampler in samplers.items():
                enough = fewest[name].get(fids[student])
                text = f"{enough} steps" if enough else f"{STEPS[-1]} steps, not as good"
                ways[f"{name}, {text}"] = (sampler, enough or STEPS[-1], scale)
            ways[f"teacher's default, {default} steps"] = (teacher, default, scale)
            functions = {name: partial(bench.sample, *way, batch_size) for name, way in ways.items()}
            medians = alternate(functions, arguments.rounds)
            print(f"\n{student}, batch {batch_size}: milliseconds per image, and how many times as long")
            for name, seconds in medians.items():
                ratio = seconds / medians[f"student, {count}"]
                print(f"  {name:<60} {seconds / batch_size * 1000:8.2f} {ratio:6.2f}x", flush=True)


if __name__ == "__main__":
    main()
