"""What schedulers of masked tokens share: how many tokens are masked."""

import math

import torch


# 1 - x ** exponent
POWERS = {"linear": 1.0, "square": 2.0, "cubic": 3.0, "square_root": 0.5}
SCHEDULES = ("cosine", "arccos", *POWERS, "exponential", "logarithmic")


class MaskedTokensMixin:
    """
    The mask schedules of MaskGIT (Chang et al. 2022, section 3.3, https://huggingface.co/papers/2202.04200), for
    schedulers whose configuration has a `mask_token_id`, a `masking_schedule` and `num_inference_steps`.
    """

    order = 1

    def check_schedule(self) -> None:
        """
        Raises:
            ValueError: for an unknown `masking_schedule`, or a `mask_token_id` that numbers no token.
        """
        schedule, mask_token_id = self.config.masking_schedule, self.config.mask_token_id
        if schedule not in SCHEDULES:
            raise ValueError(f"`masking_schedule` must be one of {', '.join(SCHEDULES)}, but is {schedule!r}.")
        if type(mask_token_id) is not int or mask_token_id < 0:
            raise ValueError(f"`mask_token_id` must be an integer of at least 0, but is {mask_token_id!r}.")

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
        The fraction gamma of tokens that are masked.

        Args:
            progress (`torch.Tensor`): from 0, where nothing is decided, to 1.
            num_tokens (`int` or `torch.Tensor`): of how many tokens, for the exponential and the logarithmic schedule.

        Returns:
            `torch.Tensor`: in the shape of `progress`, from 1e-6 to 1.
        """
        schedule = self.config.masking_schedule
        if schedule == "cosine":
            ratio = torch.cos(progress * (math.pi / 2))
        elif schedule == "arccos":
            ratio = torch.arccos(progress) / (math.pi / 2)
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
        Tokens of which as many are masked as the schedule says, at random places, and at least one.

        Args:
            original_samples (`torch.Tensor` of shape `(N, L)`): the tokens.
            uniforms (`torch.Tensor` of shape `(N, L)`): random numbers: the least are masked.
            progress (`torch.Tensor` of shape `(N,)`): from 0, where all is masked, to 1.
        """
        length = original_samples.shape[1]
        count = (self.mask_ratio(progress, length) * length).round().clamp(min=1)
        is_masked = uniforms.argsort(dim=1).argsort(dim=1) < count[:, None]
        return torch.where(is_masked, self.config.mask_token_id, original_samples)

    def __len__(self) -> int:
        return self.config.num_inference_steps
