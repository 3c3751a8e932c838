"""The Inception Score of class logits."""

import numpy as np

from diffusers_ext.metrics.arrays import as_matrix


def inception_score(logits, splits: int = 10, shuffle: bool = True, seed: int = 2020) -> dict[str, float]:
    """exp(E[KL(p(y|x) || p(y))]) over parts of the samples (Salimans et al. 2016), as in torch-fidelity.

    Args:
        logits: (N, K) unnormalised class scores of generated samples.
        splits: the number of parts; part i has the rows N*i//splits to N*(i+1)//splits.
        shuffle: whether to reorder the rows by `RandomState(seed).permutation(N)` first, which is necessary for
            samples that are sorted by class.
        seed: the seed of the permutation.

    Returns:
        `{"mean", "std"}` over the parts, whose values are from 1 to K; std is the population standard deviation.

    Raises:
        ValueError: for logits that are not finite, and for fewer samples than parts.
    """
    logits = as_matrix(logits, "The logits")
    count = len(logits)
    if not 1 <= splits <= count:
        raise ValueError(f"The Inception Score needs from 1 to {count} splits of {count} samples, not {splits}.")
    if shuffle:
        logits = logits[np.random.RandomState(seed).permutation(count)]
    log_probs = logits.log_softmax(dim=1)
    scores = []
    for i in range(splits):
        part = log_probs[count * i // splits : count * (i + 1) // splits]
        marginal = part.exp().mean(dim=0)
        # Classes whose probability underflows to zero add nothing: p log p -> 0.
        divergence = (part.exp() * (part - marginal.log()).where(marginal > 0, 0.0)).sum(dim=1)
        scores.append(divergence.mean().exp().item())
    return {"mean": float(np.mean(scores)), "std": float(np.std(scores))}
