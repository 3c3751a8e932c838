"""What an autoencoder minimises beside the error of a reconstruction: a divergence from a prior, or a commitment."""

import torch
from accelerate import PartialState

from diffusers_ext.losses.elbo import decompose_kl, standard_normal_kl, weighted_kl, weighted_kl_parts
from diffusers_ext.training.autoencoding.evaluation import active_units, code_statistics
from diffusers_ext.training.autoencoding.networks import LATENT_DIFFUSION_ARCHITECTURES, Pass, Runner
from diffusers_ext.training.loop.sampling import all_rows


class Regularisation:
    """What keeps the latents of an autoencoder in order, by `--objective`.

    Args:
        config ([`~diffusers_ext.training.train_autoencoder.AutoencoderConfig`]): the options.
        runner ([`~diffusers_ext.training.autoencoding.networks.Runner`]): runs the autoencoder.
        num_examples (`int`, *optional*): the images of the training set, for estimates of their aggregate posterior;
            `None` of a stream.

    Raises:
        ValueError: if that can't be estimated.
    """

    def __init__(self, config, runner: Runner, num_examples: int | None):
        self.config, self.runner, self.num_examples = config, runner, num_examples
        batch_size = config.train_batch_size * PartialState().num_processes
        if config.objective == "beta_tc" and (num_examples is None or batch_size > num_examples):
            raise ValueError(
                f"--objective beta_tc needs a data set of {batch_size} images or more, as many as are in a batch, but "
                f"this one {'is a stream of unknown length' if num_examples is None else f'has {num_examples}'}."
            )

    def __call__(
        self,
        output: Pass,
        errors: torch.Tensor,
        step: int,
        latent_discriminator: torch.nn.Module | None = None,
    ) -> tuple[torch.Tensor | float, dict[str, torch.Tensor]]:
        """What is added to the error of each image.

        Args:
            output ([`~diffusers_ext.training.autoencoding.networks.Pass`]): the pass through the autoencoder.
            errors (`torch.Tensor` of shape (N,)): those of the reconstructions, in nats.
            step (`int`): the update that it is, for weights that rise.
            latent_discriminator (`torch.nn.Module`, *optional*): that of FactorVAE.

        Returns:
            `tuple`: the loss, (N,) or a number, and values to report.
        """
        if output.quantization_loss is not None:
            statistics = code_statistics(output.codes, self.runner.num_codes)
            loss = self._quantization_weight(output) * output.quantization_loss.float()
            return loss, {"quantization_loss": output.quantization_loss, **statistics}
        if self.config.objective == "autoencoder":
            return 0.0, {}
        kl = standard_normal_kl(output.mean, output.logvar).flatten(1).sum(dim=1)
        loss, values = self._divergence(output, kl, step, latent_discriminator)
        values |= {"kl": kl, "elbo": -errors - kl, "active_units": active_units(output.mean)}
        return rising(step, self.config.kl_warmup_steps) * loss, values

    def _divergence(
        self, output: Pass, kl: torch.Tensor, step: int, latent_discriminator: torch.nn.Module | None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted divergence (N,), and the parts of it that the objective knows."""
        config, weight = self.config, self.config.divergence_weight
        if config.objective == "beta_tc":
            parts = self._parts(output)
            return weighted_kl_parts(parts, weight), dict(vars(parts))
        if config.objective == "factor":
            # Its logits are log D(z) / (1 - D(z)), the estimate of the total correlation (Kim and Mnih 2018, eq. 3).
            total_correlation = latent_discriminator(output.latents).logits.float()
            return kl + weight * total_correlation, {"total_correlation": total_correlation}
        capacity = None
        if config.kl_capacity is not None:
            capacity = config.kl_capacity * rising(step, config.kl_capacity_steps)
        return weighted_kl(kl, weight, capacity), {}

    def _parts(self, output: Pass):
        """The parts of the divergence, estimated from the batches of all processes together."""
        first = PartialState().process_index * len(output.latents)
        return decompose_kl(
            output.latents,
            all_rows(output.mean),
            all_rows(output.logvar),
            self.num_examples,
            self.config.total_correlation_estimator,
            rows=torch.arange(first, first + len(output.latents), device=output.latents.device),
        )

    def _quantization_weight(self, output: Pass) -> float:
        """Of the quantiser's loss, a mean over a codebook's latents, beside the mean error of a value.

        The terms of van den Oord et al. (2017, eq. 3) are sums, over values and over latents; Esser et al. (2021) take
        means of both.
        """
        if self.config.architecture in LATENT_DIFFUSION_ARCHITECTURES:
            return 1.0
        num_codes = sum(codes[0].numel() for codes in output.codes) / len(output.codes)
        return num_codes * self.runner.network.config.embedding_dim / output.sample[0].numel()


def rising(step: int, num_steps: int) -> float:
    """From 0 at step 0 to 1 after `num_steps`; always 1 for none."""
    return 1.0 if step >= num_steps else step / num_steps
