"""MaskGIT's parallel decoding: which tokens are drawn, and which of them are masked again."""

from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput

from .masked_tokens import MaskedTokensMixin


@dataclass
class MaskGITSchedulerOutput(BaseOutput):
    """
    The output of [`MaskGITScheduler.step`].

    Args:
        prev_sample (`torch.Tensor` of shape `(N, L)`):
            The tokens, of which the least certain are masked again; after the last step none is.
        pred_original_sample (`torch.Tensor` of shape `(N, L)`):
            All tokens as they are drawn in this step.
    """

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None


class MaskGITScheduler(MaskedTokensMixin, SchedulerMixin, ConfigMixin):
    r"""
    Steps of MaskGIT (Chang et al. 2022, section 3.2, https://huggingface.co/papers/2202.04200): all masked tokens are
    drawn at once, and those that the network was least sure of are masked again, fewer from step to step.

    It computes what https://github.com/google-research/maskgit does. diffusers' `AmusedScheduler` does the same with
    the temperatures `(choice_temperature * (1 - 1 / steps), 0)`, for the cosine and the linear schedule.

    Args:
        mask_token_id (`int`):
            The number of the mask token.
        masking_schedule (`str`, defaults to `"cosine"`):
            What fraction of the tokens is masked after a fraction of the steps: `"cosine"`, `"linear"`, `"square"`,
            `"cubic"`, `"square_root"`, `"exponential"` or `"logarithmic"` (section 3.3), or `"arccos"` (Besnier and
            Chen 2023, https://huggingface.co/papers/2310.14400).
        choice_temperature (`float`, defaults to 4.5):
            The weight of random numbers in the choice of tokens, which falls to 0 with the steps: more gives more
            diverse and less certain images.
        num_inference_steps (`int`, defaults to 8):
            The number of steps of a call that does not say it.

    Raises:
        ValueError: for an unknown schedule, or numbers that are not possible.
    """

    @register_to_config
    def __init__(
        self,
        mask_token_id: int,
        masking_schedule: str = "cosine",
        choice_temperature: float = 4.5,
        num_inference_steps: int = 8,
    ):
        self.check_schedule()
        if not 0 <= choice_temperature < torch.inf:
            raise ValueError(f"`choice_temperature` must be finite and at least 0, but is {choice_temperature}.")
        self.set_timesteps()

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        token_noise: torch.Tensor,
        choice_noise: torch.Tensor,
        num_unknown: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> MaskGITSchedulerOutput | tuple[torch.Tensor, ...]:
        """
        Draws the masked tokens, and masks the least certain of them again.

        Args:
            model_output (`torch.Tensor` of shape `(N, L, K)`): the logits of the codes.
            timestep (`int` or `torch.Tensor`): one of `timesteps`.
            sample (`torch.Tensor` of shape `(N, L)`): the tokens, some of them masked.
            token_noise (`torch.Tensor` of shape `(N, L, K)`): Gumbel noise, by which tokens are drawn.
            choice_noise (`torch.Tensor` of shape `(N, L)`): Gumbel noise, which is added to the certainties.
            num_unknown (`torch.Tensor` of shape `(N, 1)`, *optional*): how many tokens were masked before the first
                step; all by default.
            return_dict (`bool`, defaults to `True`): whether to return a [`MaskGITSchedulerOutput`].
        """
        is_unknown = sample == self.config.mask_token_id
        drawn = torch.where(is_unknown, (model_output + token_noise).argmax(dim=-1), sample)
        progress = 1 - torch.as_tensor(timestep, device=sample.device) / self.num_inference_steps
        if num_unknown is None:
            num_unknown = torch.full_like(sample[:, :1], sample.shape[1])
        count = (num_unknown * self.mask_ratio(progress, num_unknown)).floor().long()
        count = torch.minimum(count, is_unknown.sum(dim=1, keepdim=True) - 1).clamp(min=1)
        known = model_output.log_softmax(dim=-1).gather(2, drawn[:, :, None].clamp(max=model_output.shape[2] - 1))
        certainty = known.squeeze(2) + self.config.choice_temperature * (1 - progress) * choice_noise
        certainty = torch.where(is_unknown, certainty, torch.inf)
        # the last step masks nothing: what it would mask again is never drawn
        is_last = torch.as_tensor(timestep, device=sample.device) == 0
        is_masked = (certainty < certainty.sort(dim=1).values.gather(1, count)) & ~is_last
        masked = torch.where(is_masked, self.config.mask_token_id, drawn)
        return MaskGITSchedulerOutput(masked, drawn) if return_dict else (masked, drawn)
