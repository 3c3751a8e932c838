"""Parallel decoding of image tokens in an order that spreads each step over the whole image."""

import functools
import itertools
import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from .masked_tokens import MaskedTokensMixin
from .scheduling_maskgit import MaskGITSchedulerOutput


class HaltonScheduler(MaskedTokensMixin, SchedulerMixin, ConfigMixin):
    r"""
    Steps of MaskGIT whose places are those of a Halton sequence, instead of those that the network is most sure of
    (Besnier et al. 2025, section 3.3, https://huggingface.co/papers/2503.17076).

    Tokens that are drawn in the same step don't know each other. The places of a step are far apart, where tokens
    depend least on each other. It takes the place of [`MaskGITScheduler`] in a pipeline; the network is the same.

    The order and the numbers of tokens are those of https://github.com/valeoai/Maskgit-pytorch, which however draws
    all tokens so far again in each step. Here tokens stay once they are drawn, as in the paper, and so do given ones.

    Args:
        mask_token_id (`int`):
            The number of the mask token.
        masking_schedule (`str`, defaults to `"arccos"`):
            What fraction of the tokens is masked after a fraction of the steps; see [`MaskGITScheduler`].
        token_height (`int`, *optional*):
            The height of the map of tokens; by default it is square.
        num_inference_steps (`int`, defaults to 8):
            The number of steps of a call that does not say it.

    Raises:
        ValueError: for an unknown schedule, or numbers that are not possible.
    """

    @register_to_config
    def __init__(
        self,
        mask_token_id: int,
        masking_schedule: str = "arccos",
        token_height: int | None = None,
        num_inference_steps: int = 8,
    ):
        self.check_schedule()
        if token_height is not None and (type(token_height) is not int or token_height < 1):
            raise ValueError(f"`token_height` must be a positive integer, but is {token_height!r}.")
        self.set_timesteps()

    def num_drawn(self, timestep: int | torch.Tensor, num_tokens: int) -> torch.Tensor:
        """How many of the tokens are drawn after a step: those of the schedule, and at least one in each step."""
        step = self.num_inference_steps - torch.as_tensor(timestep)
        scheduled = (1 - self.mask_ratio(step / self.num_inference_steps, num_tokens)) * num_tokens
        drawn = torch.maximum(scheduled.floor().long(), step).clamp(max=num_tokens)
        return torch.where(step == self.num_inference_steps, num_tokens, drawn)

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        token_noise: torch.Tensor,
        choice_noise: torch.Tensor | None = None,
        num_unknown: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> MaskGITSchedulerOutput | tuple[torch.Tensor, ...]:
        """
        Draws the masked tokens at the next places of the sequence.

        Args:
            model_output (`torch.Tensor` of shape `(N, L, K)`): the logits of the codes.
            timestep (`int` or `torch.Tensor`): one of `timesteps`.
            sample (`torch.Tensor` of shape `(N, L)`): the tokens, some of them masked.
            token_noise (`torch.Tensor` of shape `(N, L, K)`): Gumbel noise, by which tokens are drawn.
            choice_noise, num_unknown: have no effect; see [`MaskGITScheduler.step`].
            return_dict (`bool`, defaults to `True`): whether to return a [`MaskGITSchedulerOutput`].

        Raises:
            ValueError: if the tokens are no map of this height, or by default no square.
        """
        length = sample.shape[1]
        height = self.config.token_height or math.isqrt(length)
        if length % height or (self.config.token_height is None and height**2 != length):
            shape = "a square" if self.config.token_height is None else f"a map of height {height}"
            raise ValueError(f"The {length} tokens are not {shape}: set `token_height` of the scheduler.")
        places = torch.tensor(halton_order(height, length // height), device=sample.device)
        is_due = places.argsort() < self.num_drawn(timestep, length).to(sample.device)
        is_unknown = sample == self.config.mask_token_id
        drawn = torch.where(is_unknown, (model_output + token_noise).argmax(dim=-1), sample)
        masked = torch.where(is_due | ~is_unknown, drawn, self.config.mask_token_id)
        return MaskGITSchedulerOutput(masked, drawn) if return_dict else (masked, drawn)


@functools.lru_cache
def halton_order(height: int, width: int) -> tuple[int, ...]:
    """The places of a map, row by row, in the order of their first visits by the Halton sequence of bases 2 and 3."""
    visited = {}
    for index in itertools.count(1):
        row, column = _scaled_halton(index, 2, height), _scaled_halton(index, 3, width)
        visited.setdefault(row * width + column)
        if len(visited) == height * width:
            return tuple(visited)


def _scaled_halton(index: int, base: int, size: int) -> int:
    """A number of the sequence times a size, rounded down: the digits of the index after the point, the last first."""
    numerator, denominator = 0, 1
    while index:
        index, digit = divmod(index, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return numerator * size // denominator
