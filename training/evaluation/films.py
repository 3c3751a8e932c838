"""Measures and pictures of films."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from PIL import Image

from diffusers_ext.metrics import compute_metrics
from diffusers_ext.metrics.extractors import FeatureExtractor
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.sampling import Generation


@dataclass
class _Films:
    """A pipeline whose films are called images, by which [`Generation`] knows what a pipeline makes."""

    pipeline: DiffusionPipeline

    def __call__(self, **arguments) -> ImagePipelineOutput:
        return ImagePipelineOutput(images=self.pipeline(**arguments).frames)


def film_strips(generate: Generation, titles: list[str], per_film: dict[str, list], **arguments) -> Image.Image:
    """Films, each a row of its frames.

    Args:
        generate ([`Generation`]): samples the pipeline.
        titles (`list[str]`): what stands beside each film.
        per_film (`dict[str, list]`): arguments of the pipeline's call, a value for each film.
        arguments: further arguments of the pipeline's call.
    """
    generate = replace(generate, pipeline=_Films(generate.pipeline))
    films = generate.images(len(titles), per_image=per_film, **arguments)
    return sample_grid(films.flatten(0, 1), columns=films.shape[1], row_titles=[title or "-" for title in titles])


def measure_frames(
    generate: Generation,
    real: Iterable[torch.Tensor],
    count: int,
    per_film: dict[str, list],
    *,
    extractor: FeatureExtractor,
    metrics: list[str] | None,
    split: str,
    **arguments,
) -> dict:
    """Measures of the frames of films, as a set of images: they do not see whether the films move as they should.

    Args:
        generate ([`Generation`]): samples the pipeline.
        real (`Iterable[torch.Tensor]`): this process's share of the films of the data set, uint8 (B, C, F, H, W).
        count (`int`): how many films are sampled.
        per_film (`dict[str, list]`): arguments of the pipeline's call, a value for each film.
        extractor ([`FeatureExtractor`]), metrics (`list[str]`, *optional*): see [`compute_metrics`].
        split (`str`): the name of the split that `real` is, reported beside the measures.
        arguments: further arguments of the pipeline's call, reported too.
    """
    context = generate.context
    real = context.gather_features(extractor, (films.transpose(1, 2).flatten(0, 1) for films in real))
    films = replace(generate, pipeline=_Films(generate.pipeline)).batches(count, per_image=per_film, **arguments)
    frames = (batch.flatten(0, 1) for batch in context.progress(films, "Sampling"))
    return compute_metrics(
        real,
        context.gather_features(extractor, frames),
        metrics,
        extractor=extractor,
        provenance={**arguments, "measured": "single frames", "sampling_seed": generate.seed, "split": split},
    )
