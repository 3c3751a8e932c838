"""How well an autoencoder reconstructs images, how it uses its latents, and a picture of reconstructions."""

import itertools
import math
from collections.abc import Iterator

import torch
from PIL import Image

from diffusers_ext.data import ImageDataset, derive_seed
from diffusers_ext.losses.elbo import reconstruction_error, standard_normal_kl
from diffusers_ext.metrics.compute import FEWEST_IMAGES
from diffusers_ext.metrics.extractors import FeatureExtractor
from diffusers_ext.metrics.restoration import restoration_metrics
from diffusers_ext.pixels import as_uint8, to_pixel_values
from diffusers_ext.training.autoencoding.networks import Runner
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.evaluation.pairs import ssim_window
from diffusers_ext.training.loop.context import Context
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.sampling import Generation


PANEL_COLUMNS = 8
ACTIVE = 0.01  # a unit is active if the variance of its mean is larger: Burda et al. 2016, section 5.2


def active_units(mean: torch.Tensor) -> torch.Tensor:
    """How many latents distinguish images: those whose posterior mean (N, ...) has a variance above 0.01 over N."""
    return (mean.float().flatten(1).var(dim=0, correction=0) > ACTIVE).float().sum()


def code_statistics(codes: list[torch.Tensor], num_codes: int) -> dict[str, torch.Tensor]:
    """The used fraction of each codebook, and the perplexity of its codes: their number if all are equally frequent.

    Args:
        codes (`list[torch.Tensor]`): the codes of one codebook, or of the top and the bottom one.
        num_codes (`int`): how many entries a codebook has.
    """
    statistics = {}
    for level, indices in zip(("",) if len(codes) == 1 else ("_top", "_bottom"), codes, strict=True):
        frequencies = torch.bincount(indices.flatten(), minlength=num_codes) / indices.numel()
        statistics[f"codebook_usage{level}"] = (frequencies > 0).float().mean()
        statistics[f"codebook_perplexity{level}"] = torch.special.entr(frequencies).sum().exp()
    return statistics


class AutoencoderEvaluator:
    """Measures reconstructions, and the evidence lower bound of a variational autoencoder.

    What is random about image i depends only on the seed and i.

    Args:
        runner ([`Runner`]): calls the autoencoder.
        dataset (`ImageDataset`): the images, preferably ones that were not trained on.
        context (`Context`): the device and the other processes.
        split (`str`): the name of their split, reported beside the measures.
        seed (`int`): of the input noise and of the latents.
        reconstruction_type (`str`): how errors are measured, see [`reconstruction_error`].
        denoising (`float`): the standard deviation of the noise in the input.
        extractor (`FeatureExtractor`, *optional*): for the FID of reconstructions.
        num_samples (`int`): how many images are measured.
        batch_size (`int`): images per process and pass.
    """

    def __init__(
        self,
        runner: Runner,
        dataset: ImageDataset,
        context: Context,
        *,
        split: str,
        seed: int,
        reconstruction_type: str,
        denoising: float,
        extractor: FeatureExtractor | None,
        num_samples: int,
        batch_size: int,
    ):
        self.runner, self.dataset, self.context, self.split, self.seed = runner, dataset, context, split, seed
        self.reconstruction_type, self.denoising, self.extractor = reconstruction_type, denoising, extractor
        self.num_samples, self.batch_size = num_samples, batch_size

    @torch.no_grad()
    def __call__(self) -> dict:
        """The measures of reconstructions. A variational autoencoder decodes the mean of the posterior for them.

        - `mse`, of values in [0, 1], `psnr`, `ssim`, and with a feature extractor `reconstruction_fid`;
        - `elbo`, in nats per image, with one draw of latents for each, its terms `reconstruction` and `kl`, and
          `active_units`;
        - `codebook_usage` and `codebook_perplexity`, over all images.
        """
        gather = self.context.gather_rows
        truth, restored, table, means, codes = [], [], [], [], []
        for indices, images, inputs in self._batches(**self.context.share):
            inputs = self.runner.to_network(inputs)
            output = self.runner(self.runner.network, inputs)
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
        return {"method": "reconstruction", **row, **self._similarity(truth, restored)}

    def _bound(self, indices: list[int], images: torch.Tensor, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The bound of each image and its terms, by one draw of the posterior."""
        generators = [torch.Generator().manual_seed(derive_seed(self.seed, "posterior", i)) for i in indices]
        output = self.runner(self.runner.network, inputs, generators)
        target = self.runner.to_network(images)
        reconstruction = reconstruction_error(self.reconstruction_type, output.sample, target)
        kl = standard_normal_kl(output.mean, output.logvar).flatten(1).sum(dim=1)
        return {"reconstruction": reconstruction, "kl": kl, "elbo": -reconstruction - kl}

    def _similarity(self, truth: list[torch.Tensor], restored: list[torch.Tensor]) -> dict:
        """How similar reconstructions are to the images, one by one and as a set."""
        metrics = ["psnr", *(["ssim"] if min(self.dataset.resolution) >= 3 else [])]
        num_images = min(self.num_samples, self.dataset.num_examples or math.inf)
        if self.extractor is not None and num_images >= FEWEST_IMAGES["fid"]:
            metrics.append("fid")
        row = restoration_metrics(
            truth,
            restored,
            metrics,
            extractor=self.extractor,
            ssim_window_size=ssim_window(self.dataset.resolution),
            gather=self.context.gather_rows,
            provenance={
                "split": self.split,
                "reconstruction_loss": self.reconstruction_type,
                "denoising": self.denoising,
                "sampling_seed": self.seed,
            },
        )
        row.pop("per_image")
        if "fid" in row:
            row["reconstruction_fid"] = row.pop("fid")
        return row

    def _batches(
        self, process_index: int = 0, num_processes: int = 1, limit: int | None = None
    ) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
        """The indices, the images and the network's input for them, in [-1, 1], for a process's share of the images.

        Args:
            process_index, num_processes (`int`): the share; by default all images.
            limit (`int`, *optional*): only the first images of the data set; by default those that are measured.
        """
        indices = itertools.count(process_index, num_processes)
        for batch in self.dataset.reference_batches(
            self.batch_size,
            process_index=process_index,
            num_processes=num_processes,
            limit=limit or self.num_samples,
        ):
            images = to_pixel_values(batch["pixel_values"])
            own = list(itertools.islice(indices, len(images)))
            draw = Draw(derive_seed(self.seed, "denoising"), torch.device("cpu")).begin(0, own)
            inputs = corrupt(images, self.denoising, draw)
            yield own, images.to(self.context.device), inputs.to(self.context.device)

    @torch.no_grad()
    def panel(self, generate: Generation) -> Image.Image:
        """Images above their reconstructions, with the noisy input in between, and samples if there is a prior."""
        _, images, inputs = next(self._batches(limit=2 * PANEL_COLUMNS))
        output = self.runner(self.runner.network, self.runner.to_network(inputs))
        shown = {"original": images, "reconstruction": self.runner.from_network(output.sample)}
        if self.denoising > 0:
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
    """Images in [-1, 1] with normal noise, limited to [-1, 1] like every saved image."""
    if noise_level == 0:
        return images
    return (images + noise_level * draw.normal_like(images)).clamp(-1, 1)
