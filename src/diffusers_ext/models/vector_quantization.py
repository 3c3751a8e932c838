"""Vector quantization: a codebook, whose entries replace latent vectors."""

import torch
import torch.nn.functional as F
from torch import nn


SMOOTHING = 1e-5  # added to the counts, as in Sonnet, so that the count of an unused entry is not zero


class VectorQuantizer(nn.Module):
    r"""
    A codebook: each latent vector is replaced by the nearest entry.

    The entries are trained by gradients ("Neural Discrete Representation Learning", van den Oord et al. 2017, eq. 3,
    https://huggingface.co/papers/1711.00937) or, with `use_ema`, are running means of their latents ("Generating
    Diverse High-Fidelity Images with VQ-VAE-2", Razavi et al. 2019, appendix A, eq. 2,
    https://huggingface.co/papers/1906.00446). An entry that is no longer used is moved to a random latent, as in
    Jukebox (Dhariwal et al. 2020, section 3.1, https://huggingface.co/papers/2005.00341).
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float,
        use_ema: bool,
        ema_decay: float,
        revival_threshold: float,
        codebook_cost: float = 1.0,
    ):
        super().__init__()
        self.commitment_cost = commitment_cost
        self.codebook_cost = codebook_cost
        self.use_ema = use_ema
        self.ema_decay = ema_decay
        self.revival_threshold = revival_threshold
        embeddings = torch.empty(num_embeddings, embedding_dim).uniform_(-1 / num_embeddings, 1 / num_embeddings)
        if use_ema:
            self.register_buffer("embeddings", embeddings)
            # N and m of eq. 2: each entry starts as the mean of one latent
            self.register_buffer("cluster_sizes", torch.ones(num_embeddings))
            self.register_buffer("cluster_sums", embeddings.clone())
        else:
            self.embeddings = nn.Parameter(embeddings)

    def forward(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """From latents `(N, C, ...)` to quantized latents `(N, C, ...)`, codes `(N, ...)` and the loss `(N,)`."""
        latents = latents.movedim(1, -1)
        codes = self.nearest(latents.detach())
        quantized = F.embedding(codes, self.embeddings)

        loss = self.commitment_cost * mean_squared_distance(latents, quantized.detach())
        if not self.use_ema:
            loss = loss + self.codebook_cost * mean_squared_distance(latents.detach(), quantized)
        quantized = latents + (quantized - latents).detach()  # gradients ignore the quantization (straight-through)
        return quantized.movedim(-1, 1), codes, loss

    def nearest(self, latents: torch.Tensor) -> torch.Tensor:
        """The numbers of the nearest entries, computed in float32 because entries are close to each other."""
        with torch.autocast(latents.device.type, enabled=False):
            entries = self.embeddings.detach().float()
            # |z - e|^2 without |z|^2, which does not depend on the entry e
            distances = entries.square().sum(dim=1) - 2 * latents.float() @ entries.T
        return distances.argmin(dim=-1)

    @torch.no_grad()
    def update(self, codes: torch.Tensor, latents: torch.Tensor, generator: torch.Generator | None) -> None:
        """Moves the entries to the running means of their latents `(N, C, ...)`, and unused ones to random latents."""
        latents = latents.movedim(1, -1).flatten(0, -2).to(self.cluster_sums.dtype)
        num_embeddings = len(self.embeddings)
        # a matrix product, because a sum by index is not reproducible on a GPU
        one_hot = (codes.flatten()[:, None] == torch.arange(num_embeddings, device=codes.device)).to(latents.dtype)
        sizes = self.cluster_sizes * self.ema_decay + one_hot.sum(dim=0) * (1 - self.ema_decay)
        sums = self.cluster_sums * self.ema_decay + one_hot.T @ latents * (1 - self.ema_decay)
        total = sizes.sum()
        sizes = (sizes + SMOOTHING) / (total + num_embeddings * SMOOTHING) * total

        if self.revival_threshold > 0:
            mean_size = total / num_embeddings
            device = latents.device if generator is None else generator.device
            rows = torch.randint(len(latents), (num_embeddings,), generator=generator, device=device)
            is_dead = sizes < self.revival_threshold * mean_size
            sizes = torch.where(is_dead, mean_size, sizes)
            sums = torch.where(is_dead[:, None], latents[rows.to(latents.device)] * mean_size, sums)

        self.cluster_sizes.copy_(sizes)
        self.cluster_sums.copy_(sums)
        self.embeddings.copy_(sums / sizes[:, None])

    def frequencies(self, codes: torch.Tensor) -> torch.Tensor:
        """The frequency of each entry, `(num_embeddings,)`; they add up to 1."""
        counts = torch.bincount(codes.flatten(), minlength=len(self.embeddings))
        return counts / codes.numel()


def mean_squared_distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The mean squared difference of each sample, `(N,)`, in float32."""
    return (first - second).float().square().flatten(1).mean(dim=1)


def perplexity(frequencies: torch.Tensor) -> torch.Tensor:
    """The number of equally frequent entries with the same entropy."""
    return torch.special.entr(frequencies).sum().exp()
