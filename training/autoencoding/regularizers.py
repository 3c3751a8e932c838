"""What an autoencoder minimises beside the error of a reconstruction: a divergence from a prior, or a commitment."""

from collections.abc import Callable

import torch

from diffusers_ext.losses.discrete_vae import uniform_kl
from diffusers_ext.losses.elbo import decompose_kl, standard_normal_kl, weighted_kl, weighted_kl_parts
from diffusers_ext.training.autoencoding.evaluation import active_units, code_statistics
from diffusers_ext.training.autoencoding.networks import Pass
from diffusers_ext.training.loop.context import Context


class Regularizer:
    """Adds nothing to the error: a plain autoencoder. Subclasses add a loss."""

    def __call__(
        self, output: Pass, errors: torch.Tensor, step: int
    ) -> tuple[torch.Tensor | float, dict[str, torch.Tensor]]:
        """The loss that is added to the error of each image.

        Args:
            output ([`Pass`]): the pass through the autoencoder.
            errors (`torch.Tensor` of shape (N,)): of the reconstructions, in nats.
            step (`int`): the number of the update, from 0, for weights that rise.

        Returns:
            `tuple`: the loss, (N,) or a number, and values to report.
        """
        return 0.0, {}

    def rows(self, output: Pass) -> dict[str, torch.Tensor]:
        """What [`~Regularizer.statistics`] are computed from, with a row or more for each image of a pass."""
        return {}

    def statistics(self, rows: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Values to report that are no means over images, from the rows of the whole batch."""
        return {}


class Quantization(Regularizer):
    """The commitment to codes, and a codebook's own loss (van den Oord et al. 2017, eq. 3).

    Args:
        num_codes (`int`): how many entries a codebook has.
        embedding_dim (`int`, *optional*): the length of an entry. With it, the loss counts as in van den Oord et al.
            (2017), where the terms are sums over pixels and over latents, although here both are means. Without it,
            both are means (Esser et al. 2021).
    """

    def __init__(self, num_codes: int, embedding_dim: int | None = None):
        self.num_codes, self.embedding_dim = num_codes, embedding_dim

    def __call__(self, output, errors, step):
        return self._weight(output) * output.quantization_loss.float(), {"quantization_loss": output.quantization_loss}

    def rows(self, output):
        return {f"codes_{level}": codes for level, codes in enumerate(output.codes)}

    def statistics(self, rows):
        codes = [rows[name] for name in sorted(rows) if name.startswith("codes_")]
        return code_statistics(codes, self.num_codes)

    def _weight(self, output: Pass) -> float:
        if self.embedding_dim is None:
            return 1.0
        codes_per_image = sum(codes[0].numel() for codes in output.codes) / len(output.codes)
        return codes_per_image * self.embedding_dim / output.sample[0].numel()


class Divergence(Regularizer):
    """The divergence from the prior: VAE (Kingma and Welling 2014) and beta-VAE (Higgins et al. 2017).

    Args:
        beta (`float`): the weight of the divergence; 1 for the evidence lower bound.
        warmup_steps (`int`): updates in which the whole loss rises from 0.
        capacity (`float`, *optional*): draw the divergence to this many nats, and not to 0 (Burgess et al. 2018).
        capacity_steps (`int`): updates in which the capacity rises from 0.
    """

    def __init__(self, beta: float, warmup_steps: int = 0, capacity: float | None = None, capacity_steps: int = 0):
        self.beta, self.warmup_steps = beta, warmup_steps
        self.capacity, self.capacity_steps = capacity, capacity_steps

    def __call__(self, output, errors, step):
        kl = standard_normal_kl(output.mean, output.logvar).flatten(1).sum(dim=1)
        loss, parts = self.weighted(output, kl, step)
        return rising(step, self.warmup_steps) * loss, {**parts, "kl": kl, "elbo": -errors - kl}

    def rows(self, output):
        return {"means": output.mean}

    def statistics(self, rows):
        return {"active_units": active_units(rows["means"])}

    def weighted(self, output: Pass, kl: torch.Tensor, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted divergence (N,), and the parts of it that this objective knows.

        Args:
            output ([`Pass`]): the pass through the autoencoder.
            kl (`torch.Tensor` of shape (N,)): the divergence of each posterior.
            step (`int`): the number of the update, from 0.
        """
        capacity = None if self.capacity is None else self.capacity * rising(step, self.capacity_steps)
        return weighted_kl(kl, self.beta, capacity), {}


class UniformDivergence(Quantization):
    """The divergence of distributions of codes from the uniform one (Ramesh et al. 2021, eq. 1).

    Args:
        num_codes (`int`): how many codes there are.
        beta (`float`): the weight of the divergence; 1 for the evidence lower bound.
        warmup_steps (`int`): updates in which the weight rises from 0.
    """

    def __init__(self, num_codes: int, beta: float, warmup_steps: int = 0):
        super().__init__(num_codes)
        self.beta, self.warmup_steps = beta, warmup_steps

    def __call__(self, output, errors, step):
        kl = uniform_kl(output.logits)
        return rising(step, self.warmup_steps) * self.beta * kl, {"kl": kl, "elbo": -errors - kl}


class EstimatedTotalCorrelation(Divergence):
    """Beta-TCVAE (Chen et al. 2018): `beta` weights only the total correlation, which is estimated from a batch.

    Args:
        beta, warmup_steps: see [`Divergence`].
        estimator (`str`): see [`decompose_kl`].
        batch_size (`int`): images per process and call.
        num_examples (`int` or `None`): the number of training images; `None` if it is not known.
        context ([`Context`]): the other processes.

    Raises:
        ValueError: if the number of images is not known, or smaller than a batch of all processes.
    """

    def __init__(
        self,
        beta: float,
        warmup_steps: int = 0,
        *,
        estimator: str,
        batch_size: int,
        num_examples: int | None,
        context: Context,
    ):
        super().__init__(beta, warmup_steps)
        self.estimator, self.num_examples, self.context = estimator, num_examples, context
        rows = batch_size * context.num_processes
        if num_examples is None or rows > num_examples:
            raise ValueError(
                f"--objective beta_tc needs a data set of {rows} images or more, as many as are in a batch, but this "
                f"one {'is a stream of unknown length' if num_examples is None else f'has {num_examples}'}."
            )

    def weighted(self, output, kl, step):
        first = self.context.process_index * len(output.latents)
        parts = decompose_kl(
            output.latents,
            self.context.all_rows(output.mean),
            self.context.all_rows(output.logvar),
            self.num_examples,
            self.estimator,
            rows=torch.arange(first, first + len(output.latents), device=output.latents.device),
        )
        return weighted_kl_parts(parts, self.beta), dict(vars(parts))


class JudgedTotalCorrelation(Divergence):
    """FactorVAE (Kim and Mnih 2018, eq. 2): the divergence, and the total correlation as a discriminator estimates it.

    Args:
        beta (`float`): the weight of the total correlation; the paper calls it gamma.
        warmup_steps (`int`): see [`Divergence`].
        estimate (`Callable`): the estimate for latents (N, D), of shape (N,).
    """

    def __init__(self, beta: float, warmup_steps: int, estimate: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__(beta, warmup_steps)
        self.estimate = estimate

    def weighted(self, output, kl, step):
        total_correlation = self.estimate(output.latents)
        return kl + self.beta * total_correlation, {"total_correlation": total_correlation}


def rising(step: int, num_steps: int) -> float:
    """From 0 at step 0 to 1 after `num_steps`; always 1 if `num_steps` is 0."""
    return 1.0 if step >= num_steps else step / num_steps
