"""A cascade (Ho et al. 2022): a model of small images and a super-resolver become one pipeline, which is measured.

    accelerate launch training/train_diffusion.py --config examples/cascade_base.yaml
    accelerate launch training/train_palette.py --config examples/cascade_super_resolver.yaml
    python examples/cascade.py --dataset_name digits --feature_extractor digits

How much noise the small images should have is found by trying (section 4.2 of the paper). The level of the lowest FID
becomes the one of the published pipeline.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm.auto import tqdm

from diffusers_ext import CascadePipeline, ClassConditionalPipeline, PalettePipeline
from diffusers_ext.atomic import write_text_atomically
from diffusers_ext.hub.card import markdown_table
from diffusers_ext.metrics import FeatureOutput, compute_metrics, load_feature_extractor
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.configuration import DataConfig, EvaluationConfig, option, parse_config
from diffusers_ext.training.loop.outputs import save_image


@dataclass
class CascadeConfig(DataConfig, EvaluationConfig):
    base: str = option("outputs/cascade_base", help="The pipeline of small images by class.")
    super_resolver: str = option("outputs/cascade_super_resolver", help="The pipeline that makes them larger.")
    noise_levels: list[float] = option([0.0, 0.2, 0.35, 0.5, 0.7], help="The levels to try.")
    guidance_scale: float = option(1.0, help="The guidance scale of the base model.")
    output_dir: str = option("outputs/cascade", help="Where the cascade goes.")

    def __post_init__(self):
        super().__post_init__()
        self.require(self.feature_extractor is not None, "--feature_extractor is required")


class Sampler:
    """Images of all classes in turn; the noise of image i is the same whatever the arguments."""

    def __init__(self, pipe: CascadePipeline, guidance_scale: float):
        self.pipe, self.guidance_scale = pipe, guidance_scale

    def labels(self, indices: Iterable[int]) -> list[int]:
        classes = list(self.pipe.config.id2label)
        return [classes[i % len(classes)] for i in indices]

    def stages(self, indices: Iterable[int], **arguments) -> list[torch.Tensor]:
        """What each stage makes, uint8 `(N, C, H, W)`."""
        output = self.pipe(
            self.labels(indices),
            guidance_scale=self.guidance_scale,
            generator=[torch.Generator().manual_seed(i) for i in indices],
            output_type="pt",
            output_stage_images=True,
            **arguments,
        )
        return [(images * 255).round().to(torch.uint8).cpu() for images in output.stage_images]


def features(batches: Iterable[torch.Tensor], extractor) -> FeatureOutput:
    outputs = [extractor(images) for images in batches]
    logits = None if outputs[0].logits is None else torch.cat([output.logits for output in outputs])
    return FeatureOutput(torch.cat([output.features for output in outputs]), logits)


def measure(sampler: Sampler, config: CascadeConfig) -> list[dict]:
    """A row for each level of noise, on top of finished images and left in unfinished ones."""
    extractor, pipe = load_feature_extractor(config.feature_extractor), sampler.pipe
    dataset = config.load_dataset(pipe.sample_size, pipe.unet.config.in_channels)
    real = (batch["pixel_values"] for batch in dataset.reference_batches(config.evaluation_batch_size))
    real, indices = features(real, extractor), range(config.num_evaluation_samples)
    batches = [indices[i : i + config.evaluation_batch_size] for i in indices[:: config.evaluation_batch_size]]
    ways = [(level, truncated) for level in config.noise_levels for truncated in (False, True)[: 1 + (level > 0)]]
    rows = []
    for level, truncated in tqdm(ways):
        made = (sampler.stages(batch, conditioning_noise_level=level, truncated=truncated)[-1] for batch in batches)
        values = compute_metrics(
            real,
            features(made, extractor),
            config.metrics,
            extractor=extractor,
            requested_labels=sampler.labels(indices),
            id2label=pipe.config.id2label,
        )
        values = {name: value for name, value in values.items() if isinstance(value, float)}
        rows.append({"noise level": level, "truncated": truncated, **values})
    return rows


def main() -> None:
    config = parse_config(CascadeConfig, sys.argv[1:])
    base = ClassConditionalPipeline.from_pretrained(config.base)
    pipe = CascadePipeline.from_pipelines(base, PalettePipeline.from_pretrained(config.super_resolver))
    pipe.set_progress_bar_config(disable=True)
    rows = measure(Sampler(pipe, config.guidance_scale), config)
    print(markdown_table(rows))

    best = min((row for row in rows if not row["truncated"]), key=lambda row: row["fid"])
    stages = {name: dict(options) for name, options in pipe.config.stages.items()}
    stages["unet_2"]["conditioning_noise_level"] = best["noise level"]
    pipe = CascadePipeline.from_pipe(pipe, stages=stages)
    pipe.save_pretrained(config.output_dir)
    write_text_atomically(Path(config.output_dir) / "noise_levels.md", markdown_table(rows) + "\n")

    classes = len(pipe.config.id2label)
    small, large = Sampler(pipe, config.guidance_scale).stages(range(4 * classes))
    small = torch.nn.functional.interpolate(small, large.shape[2:], mode="nearest")
    shown = [images[i : i + classes] for i in range(0, len(large), classes) for images in (small, large)]
    titles = list(pipe.config.id2label.values())
    save_image(sample_grid(torch.cat(shown), columns=classes, titles=titles), Path(config.output_dir) / "samples.png")


if __name__ == "__main__":
    main()
