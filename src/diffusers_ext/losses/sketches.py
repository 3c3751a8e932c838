"""The losses of sketch-rnn (Ha and Eck 2017, section 3.2). Everything is computed in float32."""

import math

import torch


def stroke_offset_loss(log_prob: torch.Tensor, lengths: torch.Tensor, epsilon: float = 1e-6) -> torch.Tensor:
    """The negative log-density of the offsets of sketches in nats per padded step, of shape (N,).

    Equation 9 with L for N_max: the sum over the points of a sketch is divided by L. It is a density, so that a
    negative loss is usual. `epsilon` is added to the density as in https://github.com/magenta/magenta, which leaves
    very unlikely points without a gradient.

    Args:
        log_prob (`torch.Tensor` of shape (N, L)): the log-densities.
        lengths (`torch.Tensor` of shape (N,)): the numbers of points; what comes after them does not count.
        epsilon (`float`): above 0.
    """
    log_prob = log_prob.float()
    log_prob = torch.logaddexp(log_prob, torch.full_like(log_prob, math.log(epsilon)))
    return -(log_prob * _is_point(log_prob, lengths)).mean(dim=1)


def pen_state_loss(
    pen_logits: torch.Tensor, strokes: torch.Tensor, lengths: torch.Tensor | None = None
) -> torch.Tensor:
    """The cross entropy of the states of the pen in nats per padded step, of shape (N,).

    Args:
        pen_logits (`torch.Tensor` of shape (N, L, 3)): down, lifted, end.
        strokes (`torch.Tensor` of shape (N, L, 5)): the sketches as stroke-5.
        lengths (`torch.Tensor` of shape (N,), *optional*): count the points of the sketches only, as Magenta does in
            validation. By default the ends after them count, too (equation 9), which is how the network learns to end.
    """
    entropy = -(strokes[..., 2:].float() * pen_logits.float().log_softmax(dim=2)).sum(dim=2)
    if lengths is not None:
        entropy = entropy * _is_point(entropy, lengths)
    return entropy.mean(dim=1)


def _is_point(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return torch.arange(values.shape[1], device=values.device) < lengths[:, None]
