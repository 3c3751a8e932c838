"""MaskGIT's parallel decoding: which tokens are drawn, and which of them are masked again."""

import math
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput


# 1 - x ** exponent
POWERS = {"linear": 1.0, "square": 2.0, "cubic": 3.0, "square_root": 0.5}
SCHEDULES = ("cosine", *POWERS, "exponential", "logarithmic")


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


class MaskGITScheduler(SchedulerMixin, ConfigMixin):
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
            `"cubic"`, `"square_root"`, `"exponential"` or `"logarithmic"` (section 3.3).
        choice_temperature (`float`, defaults to 4.5):
            The weight of random numbers in the choice of tokens, which falls to 0 with the steps: more gives more
            diverse and less certain images.
        num_inference_steps (`int`, defaults to 8):
            The number of steps of a call that does not say it.

    Raises:
        ValueError: for an unknown schedule, or numbers that are not possible.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        mask_token_id: int,
        masking_schedule: str = "cosine",
        choice_temperature: float = 4.5,
        num_inference_steps: int = 8,
    ):
        if masking_schedule not in SCHEDULES:
            raise ValueError(f"`masking_schedule` must be one of {', '.join(SCHEDULES)}, but is {masking_schedule!r}.")
        if mask_token_id < 0 or choice_temperature < 0:
            raise ValueError(
                f"`mask_token_id` and `choice_temperature` must be at least 0, but are {mask_token_id} and "
                f"{choice_temperature}."
            )
        self.set_timesteps()

    def set_timesteps(self, num_inference_steps: int | None = None, device: str | torch.device | None = None) -> None:
        """
        Sets the timesteps: how many steps follow, down to 0.

        Args:
            num_inference_steps (`int`, *optional*): the number of steps, by default that of the configuration.
            device (`str` or `torch.device`, *optional*): where `timesteps` lies.

        Raises:
            ValueError: for anything but a positive integer.
        """
        number = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ValueError(f"`num_inference_steps` must be a positive integer, but is {number!r}.")
        self.num_inference_steps = number
        self.timesteps = torch.arange(number - 1, -1, -1, device=device)

    def mask_ratio(self, progress: torch.Tensor, num_tokens: int | torch.Tensor) -> torch.Tensor:
        """
        The fraction gamma of tokens that are masked (section 3.3).

        Args:
            progress (`torch.Tensor`): from 0, where nothing is decided, to 1.
            num_tokens (`int` or `torch.Tensor`): of how many tokens, for the exponential and the logarithmic schedule.

        Returns:
            `torch.Tensor`: in the shape of `progress`, from 1e-6 to 1.
        """
        schedule = self.config.masking_schedule
        if schedule == "cosine":
            ratio = torch.cos(progress * (math.pi / 2))
        elif schedule in POWERS:
            ratio = 1 - progress ** POWERS[schedule]
        else:
            bits = torch.log2(torch.as_tensor(num_tokens, dtype=torch.float32, device=progress.device))
            is_exponential = schedule == "exponential"
            ratio = 1 - torch.exp2(-bits * (1 - progress)) if is_exponential else -torch.log2(progress) / bits
        return ratio.clamp(1e-6, 1)

    def add_noise(
        self, original_samples: torch.Tensor, uniforms: torch.Tensor, progress: torch.Tensor
    ) -> torch.Tensor:
        """
        Tokens of which as many are masked as the schedule says, at random places, and at least one (section 3.1).

        Args:
            original_samples (`torch.Tensor` of shape `(N, L)`): the tokens.
            uniforms (`torch.Tensor` of shape `(N, L)`): random numbers: the least are masked.
            progress (`torch.Tensor` of shape `(N,)`): from 0, where all is masked, to 1.
        """
        length = original_samples.shape[1]
        count = (self.mask_ratio(progress, length) * length).round().clamp(min=1)
        is_masked = uniforms.argsort(dim=1).argsort(dim=1) < count[:, None]
        return torch.where(is_masked, self.config.mask_token_id, original_samples)

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

    def __len__(self) -> int:
        return self.config.num_inference_steps
