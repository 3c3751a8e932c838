"""Train a classifier of noisy images, which guides a diffusion model to a class.

    accelerate launch training/train_classifier.py --config examples/digits_classifier.yaml

Classifier guidance (Dhariwal & Nichol 2021, section 4): the classifier learns from images with the noise of the given
diffusion model, which need not have classes. The result is its pipeline with the classifier and the guider.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from diffusers_ext.data.loading import check_resolution
from diffusers_ext.guiders import ClassifierGuidance
from diffusers_ext.models import NoisyClassifier
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.pipelines.denoising import quiet_guiders
from diffusers_ext.schedulers import ExactDDPMScheduler
from diffusers_ext.training.diffusion.noised_images import noised_images
from diffusers_ext.training.diffusion.objectives import prediction_type
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pipeline_classes import load_pipeline
from diffusers_ext.training.evaluation.samples import SampleEvaluator, SamplingConfig
from diffusers_ext.training.loop.configuration import JSONObject, ValidationConfig, option
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.network_options import build_network
from diffusers_ext.training.loop.recipe import Recipe


ROWS_PER_SCALE = 2
NOISE_LEVELS = (0.0, 0.25, 0.5, 0.75)  # as fractions of all timesteps


class ClassifierRecipe(Recipe):
    """Dhariwal and Nichol 2021, section 4: a classifier learns by cross-entropy at all noise levels."""

    def networks(self) -> dict[str, torch.nn.Module]:
        """The half U-Net, with an output for each class."""
        channels, size = self.config.channels, self.config.size
        decided = {"in_channels": channels, "num_classes": len(self.dataset.id2label), "sample_size": size}

        def trial(classifier: NoisyClassifier) -> None:
            classifier(torch.zeros(1, channels, *size), torch.zeros(1))

        given = self.config.classifier
        return {"classifier": build_network(NoisyClassifier, "--classifier", given, decided=decided, trial=trial)}

    def step(self, batch, draw):
        clean, labels = batch["pixel_values"], batch["class_labels"]
        noisy, timesteps = noised_images(clean, draw.uniform(), draw.normal_like(clean), self.diffusion.scheduler)
        logits = self.classifier(noisy, timesteps).logits.float()
        self.minimise("classifier", F.cross_entropy(logits, labels, reduction="none"))
        self.log(accuracy=(logits.argmax(dim=1) == labels).float())

    def pipeline(self, classifier: NoisyClassifier) -> ClassConditionalPipeline:
        """The pipeline of the diffusion model, with the classifier and its guider."""
        base = self.diffusion
        pipeline = ClassConditionalPipeline(
            unet=base.unet,
            scheduler=guided_scheduler(base.scheduler),
            guider=self.guider,
            classifier=classifier,
            id2label=self.dataset.id2label,
            null_class_label=base.config.null_class_label,
            default_num_inference_steps=self.config.num_inference_steps,
        )
        return pipeline.to(classifier.device)

    # What stands around the algorithm

    def __init__(self, config: ClassifierConfig, context):
        super().__init__(config, context)
        if self.dataset.id2label is None:
            raise ValueError("A classifier needs labels: name the column with --label_column.")
        self.diffusion = load_pipeline(
            config.pretrained_model_name_or_path,
            config.cache_dir,
            "--pretrained_model_name_or_path",
            ClassConditionalPipeline,
        )
        self._check_images()
        # A guider or a feature extractor that is not available is reported now, and not after the training.
        with quiet_guiders():
            self.guider = ClassifierGuidance(guidance_scale=config.guidance_scale)
        self.validation_images = config.load_validation_dataset(self.dataset, same_classes=True)
        self.evaluator = SampleEvaluator(
            self.dataset, split=config.dataset_split, device=context.device, **config.measured()
        )

    def before_training(self) -> None:
        super().before_training()
        self.validation_images.prepare()

    def _check_images(self) -> None:
        pipeline, name = self.diffusion, self.config.pretrained_model_name_or_path
        channels, names = pipeline.unet.config.in_channels, pipeline.config.id2label
        if channels != self.config.channels:
            raise ValueError(f"{name} makes images of {channels} channels, but this run has {self.config.channels}.")
        size = check_resolution(pipeline.unet.config.sample_size)
        if size != self.config.size:
            raise ValueError(f"{name} makes images of the size {size}, but --resolution is {self.config.size}.")
        if names is not None and names != self.dataset.id2label:
            raise ValueError(f"{name} and the data set have different classes.")

    def identity(self) -> dict:
        return {"scheduler": {k: v for k, v in self.diffusion.scheduler.config.items() if not k.startswith("_")}}

    def sample_grid(self, generate):
        """A column per class (the first ten), rows by rising guidance scale, all from the same noise."""
        names, scales = self.dataset.id2label, self.config.guidance_scales
        shown = list(names)[:10]
        labels = shown * ROWS_PER_SCALE
        images = [generate.images(len(labels), labels, guidance_scale=scale) for scale in scales]
        row_titles = [f"{scale:g}" if row == 0 else "" for scale in scales for row in range(ROWS_PER_SCALE)]
        return sample_grid(torch.cat(images), len(shown), [names[label] for label in shown], row_titles)

    def evaluate(self, generate):
        """The samples at each guidance scale, after the classifier's own accuracy."""
        samples = self.evaluator(generate, self.config.num_inference_steps, self.config.guidance_scales)
        return [self._accuracies(generate), *samples]

    def _accuracies(self, generate) -> dict:
        """The classifier's own accuracy at a few noise levels, on images that it may not have seen."""
        context, classifier = generate.context, generate.pipeline.classifier
        rows = itertools.count(context.process_index, context.num_processes)
        draw, correct = Draw(self.config.seed, context.device), []
        for batch in self.validation_images.reference_batches(self.config.evaluation_batch_size, **context.share):
            clean = batch["pixel_values"].to(context.device) / 127.5 - 1
            noise = draw.begin(0, list(itertools.islice(rows, len(clean)))).normal_like(clean)
            by_level = []
            for level in NOISE_LEVELS:
                levels = torch.full_like(clean[:, 0, 0, 0], level)
                noisy, timesteps = noised_images(clean, levels, noise, self.diffusion.scheduler)
                with torch.no_grad():
                    predicted = classifier(noisy, timesteps).logits.argmax(dim=1).cpu()
                by_level.append(predicted == batch["class_labels"])
            correct.append(torch.stack(by_level, dim=1))
        accuracies = context.gather_rows(correct).float().mean(dim=0).tolist()
        names = [f"classifier_accuracy_at_{level:.0%}" for level in NOISE_LEVELS]
        split = self.config.validation_split or self.config.dataset_split
        provenance = {"split": split, "sampling_seed": self.config.seed}
        return {"guidance_scale": None, **dict(zip(names, accuracies, strict=True)), "provenance": provenance}

    def describe(self) -> dict:
        names = list(self.dataset.id2label.values())
        return {
            "task": "Class-conditional image generation by classifier guidance: a diffusion model, and a classifier "
            "of noisy images that guides it.",
            "usage": f"images = pipe(class_labels={names[:2]}, num_images_per_label=4, "
            f"guidance_scale={self.config.guidance_scale}).images",
            "base_model": self.config.pretrained_model_name_or_path,
            "tags": ["class-conditional-image-generation", "classifier-guidance", "diffusion"],
        }


def guided_scheduler(scheduler):
    """The scheduler of the paper's algorithm 1 for discrete processes: it guides after the clipping."""
    if "sigma_data" in scheduler.config or prediction_type(scheduler) == "flow_prediction":
        return scheduler
    return ExactDDPMScheduler.from_config(scheduler.config)


@dataclass
class ClassifierConfig(SamplingConfig, ValidationConfig):
    """The options of train_classifier.py."""

    pretrained_model_name_or_path: str | None = option(
        help="The pipeline of the diffusion model to guide: a local folder or a Hub name.",
        group="network",
        essential=True,
    )
    classifier: JSONObject = option(
        JSONObject(),
        help="Arguments of NoisyClassifier, as JSON or a YAML mapping; by default a small one.",
        group="network",
    )
    guidance_scale: float = option(3.0, help="The scale that the published guider starts with.", group="evaluation")
    guidance_scales: list[float] = option([0.0, 1.0, 3.0, 10.0], help="The scales to measure and to draw.")

    def __post_init__(self):
        super().__post_init__()
        self.require(self.pretrained_model_name_or_path is not None, "--pretrained_model_name_or_path is required")


if __name__ == "__main__":
    run(ClassifierRecipe, ClassifierConfig)
