"""How well an autoencoder says images again, how much it knows of them, and what that looks like."""

import itertools
import math
from collections.abc import Iterator
from functools import partial

import torch
from accelerate import PartialState
from PIL import Image

from diffusers_ext.data import ImageDataset, derive_seed
from diffusers_ext.data.transforms import to_pixel_values
from diffusers_ext.losses.elbo import reconstruction_error, standard_normal_kl
from diffusers_ext.metrics.compute import FEWEST_IMAGES
from diffusers_ext.metrics.extractors import FeatureExtractor
from diffusers_ext.metrics.perceptual import as_uint8
from diffusers_ext.metrics.restoration import restoration_metrics
from diffusers_ext.training.autoencoding.networks import Runner
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pairs import ssim_window
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.sampling import Generation, gather_rows


PANEL_COLUMNS = 8
ACTIVE = 0.01  # the variance of a unit's mean from which it counts as active: Burda et al. 2016, section 5.2


def active_units(mean: torch.Tensor) -> torch.Tensor:
    """How many latents tell images apart: those whose posterior mean varies over images (N, ...) by more than 0.01."""
    return (mean.float().flatten(1).var(dim=0, correction=0) > ACTIVE).float().sum()


def code_statistics(codes: list[torch.Tensor], num_codes: int) -> dict[str, torch.Tensor]:
    """Which part of each codebook some codes use, and their perplexity: the number of codes, if all are used alike.

    Args:
        codes (`list[torch.Tensor]`): those of one codebook, or of the top and the bottom one.
        num_codes (`int`): how many entries a codebook has.
    """
    statistics = {}
    for level, indices in zip(("",) if len(codes) == 1 else ("_top", "_bottom"), codes, strict=True):
        frequencies = torch.bincount(indices.flatten(), minlength=num_codes) / indices.numel()
        statistics[f"codebook_usage{level}"] = (frequencies > 0).float().mean()
        statistics[f"codebook_perplexity{level}"] = torch.special.entr(frequencies).sum().exp()
    return statistics


class AutoencoderEvaluator:
    """Measures reconstructions, and the bound of a variational autoencoder.

    Args:
        config (`AutoencoderConfig`): how many images are measured, the noise of a denoising one, and the seed. What is
            random of image i depends on the seed and i.
        dataset (`ImageDataset`): the images; best such as were not trained on.
        runner ([`~diffusers_ext.training.autoencoding.networks.Runner`]): runs the autoencoder.
        reconstruction_type (`str`): what the decoder's output is taken for, see `reconstruction_error`.
        extractor (`FeatureExtractor`, *optional*): for the FID of reconstructions.
    """

    def __init__(
        self,
        config,
        dataset: ImageDataset,
        runner: Runner,
        reconstruction_type: str,
        extractor: FeatureExtractor | None,
    ):
        self.config, self.dataset, self.runner = config, dataset, runner
        self.reconstruction_type, self.extractor = reconstruction_type, extractor
        self._num_images = min(config.num_evaluation_samples, dataset.num_examples or math.inf)

    @torch.no_grad()
    def __call__(self, generate: Generation) -> dict:
        """The measures of the reconstructions, those of a variational autoencoder being of the posterior's mean.

        - `mse`, of values in [0, 1], `psnr`, `ssim`, and `reconstruction_fid` with a feature extractor;
        - `elbo`, in nats per image, with one draw of latents for each, `reconstruction` and `kl`, and `active_units`;
        - `codebook_usage` and `codebook_perplexity`, over all images.
        """
        gather = partial(gather_rows, accelerator=generate.accelerator)
        truth, restored, table, means, codes = [], [], [], [], []
        for indices, images, inputs in self._batches():
            inputs = self.runner.to_network(inputs)
            output = self.runner(self.runner.network, inputs, None)
            reconstruction = self.runner.from_network(output.sample)
            columns = {"mse": (0.5 * (reconstruction - images)).square().mean(dim=(1, 2, 3))}
            if output.mean is not None:
                columns |= self._bound(indices, images, inputs)
                means.append(output.mean.float())
            codes.append([level.reshape(len(images), -1) for level in output.codes])
            table.append(columns)
            truth.append(as_uint8(images).cpu())
            restored.append(as_uint8(reconstruction).cpu())

        values = gather([torch.stack(list(columns.values()), dim=1).double() for columns in table]).mean(dim=0)
        row = dict(zip(table[0], values.tolist(), strict=True))
        if means:
            row["active_units"] = active_units(gather(means)).item()
        if codes[0]:
            gathered = [gather(list(level)) for level in zip(*codes, strict=True)]
            row |= {k: v.item() for k, v in code_statistics(gathered, self.runner.num_codes).items()}
        return {"method": "reconstruction", **row, **self._likeness(truth, restored, gather)}

    def _bound(self, indices: list[int], images: torch.Tensor, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The bound of each image and its terms, by one draw of the posterior."""
        generators = [torch.Generator().manual_seed(derive_seed(self.config.seed, "posterior", i)) for i in indices]
        output = self.runner(self.runner.network, inputs, generators)
        target = self.runner.to_network(images)
        reconstruction = reconstruction_error(self.reconstruction_type, output.sample, target)
        kl = standard_normal_kl(output.mean, output.logvar).flatten(1).sum(dim=1)
        return {"reconstruction": reconstruction, "kl": kl, "elbo": -reconstruction - kl}

    def _likeness(self, truth: list[torch.Tensor], restored: list[torch.Tensor], gather) -> dict:
        metrics = (
            ["psnr"]
            + (["ssim"] if min(self.dataset.resolution) >= 3 else [])
            + (["fid"] if self.extractor is not None and self._num_images >= FEWEST_IMAGES["fid"] else [])
        )
        row = restoration_metrics(
            truth,
            restored,
            metrics,
            extractor=self.extractor,
            ssim_window_size=ssim_window(self.dataset.resolution),
            gather=gather,
            provenance={
                "split": self.config.validation_split or self.config.dataset_split,
                "reconstruction_loss": self.reconstruction_type,
                "denoising": self.config.denoising,
                "sampling_seed": self.config.seed,
            },
        )
        row.pop("per_image")
        if "fid" in row:
            row["reconstruction_fid"] = row.pop("fid")
        return row

    def _batches(
        self, limit: int | None = None, is_shared: bool = True
    ) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
        """Indices, images and what the network is shown of them, in [-1, 1], of this process's share or of all."""
        state = PartialState()
        process, processes = (state.process_index, state.num_processes) if is_shared else (0, 1)
        counter = itertools.count(process, processes)
        for batch in self.dataset.reference_batches(
            self.config.evaluation_batch_size,
            process_index=process,
            num_processes=processes,
            limit=limit or self.config.num_evaluation_samples,
        ):
            images = to_pixel_values(batch["pixel_values"])
            indices = list(itertools.islice(counter, len(images)))
            draw = Draw(derive_seed(self.config.seed, "denoising"), torch.device("cpu")).begin(0, indices)
            inputs = corrupt(images, self.config.denoising, draw)
            yield indices, images.to(state.device), inputs.to(state.device)

    @torch.no_grad()
    def panel(self, generate: Generation) -> Image.Image:
        """Images above their reconstructions, with the noisy input in between, and samples where there is a prior."""
        _, images, inputs = next(self._batches(limit=2 * PANEL_COLUMNS, is_shared=False))
        output = self.runner(self.runner.network, self.runner.to_network(inputs), None)
        shown = {"original": images, "reconstruction": self.runner.from_network(output.sample)}
        if self.config.denoising > 0:
            shown = {"original": images, "input": inputs, "reconstruction": shown["reconstruction"]}
        columns = min(PANEL_COLUMNS, len(images))
        cells, titles = [], []
        for start in range(0, len(images) - columns + 1, columns):
            cells += [as_uint8(values[start : start + columns]).cpu() for values in shown.values()]
            titles += list(shown)
        if generate.pipeline.has_prior:
            cells.append(generate.images(2 * columns))
            titles += ["sample"] * 2
        return sample_grid(torch.cat(cells), columns, row_titles=titles)


def corrupt(images: torch.Tensor, noise_level: float, draw: Draw) -> torch.Tensor:
    """Images in [-1, 1] with normal noise, kept in that range as any picture of them will be."""
    if noise_level == 0:
        return images
    return (images + noise_level * draw.normal_like(images)).clamp(-1, 1)
