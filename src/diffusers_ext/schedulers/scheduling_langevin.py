"""Langevin steps down an energy, as energy-based models are trained and sampled with."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput


class LangevinScheduler(SchedulerMixin, ConfigMixin):
    r"""
    Steps of a Langevin chain: a little noise, and a step down the gradient of an energy, whose values are limited.

    Du & Mordatch 2019 (https://huggingface.co/papers/1903.08689, eq. 2). In theory the noise has the variance of twice
    the step size; in practice, as here, it is far smaller, so that short chains arrive.

    Args:
        num_inference_steps (`int`, defaults to 100):
            The number of steps of a call that does not say it.
        step_size (`float`, defaults to 10.0):
            What the gradient is multiplied by.
        noise_std (`float`, defaults to 0.005):
            The standard deviation of the noise, of images in `[-1, 1]`.
        final_noise_std (`float`, *optional*):
            That of the last step, if the noise decays, geometrically from step to step.
        max_gradient (`float`, *optional*, defaults to 0.03):
            Each value of the gradient is limited to this magnitude; `None` for no limit.
        noise_order (`str`, defaults to `"before"`):
            Whether noise is added `"before"` the gradient is computed (Du & Mordatch), or `"after"` (JEM).
        clip_noisy_sample (`bool`, defaults to `True`):
            Whether images are clipped to `[-1, 1]` after the noise that comes before the gradient.
        clip_sample (`bool`, defaults to `True`):
            Whether images are clipped to `[-1, 1]` after each step.

    Raises:
        ValueError: for numbers that are not possible.
    """

    order = 1

    @register_to_config
    def __init__(
        self,
        num_inference_steps: int = 100,
        step_size: float = 10.0,
        noise_std: float = 0.005,
        final_noise_std: float | None = None,
        max_gradient: float | None = 0.03,
        noise_order: str = "before",
        clip_noisy_sample: bool = True,
        clip_sample: bool = True,
    ):
        if noise_order not in ("before", "after"):
            raise ValueError(f"`noise_order` must be 'before' or 'after', but is {noise_order!r}.")
        if step_size <= 0 or (max_gradient is not None and max_gradient <= 0):
            raise ValueError(f"`step_size` and `max_gradient` must be positive, not {step_size} and {max_gradient}.")
        if noise_std < 0 or (final_noise_std is not None and not 0 < final_noise_std <= noise_std):
            raise ValueError(
                "`noise_std` must be at least 0, and `final_noise_std` above 0 and at most `noise_std`, but they are "
                f"{noise_std} and {final_noise_std}."
            )
        self.init_noise_sigma = 1.0
        self.set_timesteps()

    def set_timesteps(self, num_inference_steps: int | None = None, device: str | torch.device | None = None) -> None:
        """
        Sets the timesteps: how many steps follow, down to 0.

        Args:
            num_inference_steps (`int`, *optional*): the number of steps, by default that of the configuration.
            device (`str` or `torch.device`, *optional*): where `timesteps` lies.

        Raises:
            ValueError: for less than one step.
        """
        number = self.config.num_inference_steps if num_inference_steps is None else num_inference_steps
        if number < 1:
            raise ValueError(f"`num_inference_steps` must be at least 1, but is {number}.")
        self.num_inference_steps = number
        self.timesteps = torch.arange(number - 1, -1, -1, device=device)

    def scale_model_input(self, sample: torch.Tensor, timestep: int | torch.Tensor | None = None) -> torch.Tensor:
        """The sample as it is, for pipelines that call it for every scheduler."""
        return sample

    def noise_std_at(self, timestep: int | torch.Tensor) -> float | torch.Tensor:
        """The standard deviation of the noise of a step."""
        start, end = self.config.noise_std, self.config.final_noise_std
        if end is None or self.num_inference_steps == 1:
            return start
        done = 1 - timestep / (self.num_inference_steps - 1)
        return start * (end / start) ** done

    def perturb(self, sample: torch.Tensor, timestep: int | torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """
        The first half of a step: the images of which the gradient is computed.

        Args:
            sample (`torch.Tensor` of shape `(N, ...)`): the images.
            timestep (`int` or `torch.Tensor`): one of `timesteps`.
            noise (`torch.Tensor` of shape `(N, ...)`): standard normal numbers, the same as for [`~step`].
        """
        if self.config.noise_order == "after":
            return sample
        sample = sample + self.noise_std_at(timestep) * noise
        return sample.clamp(-1, 1) if self.config.clip_noisy_sample else sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        noise: torch.Tensor,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """
        The second half of a step: down the gradient.

        Args:
            model_output (`torch.Tensor` of shape `(N, ...)`): the gradient of the energy with respect to `sample`.
            timestep (`int` or `torch.Tensor`): one of `timesteps`.
            sample (`torch.Tensor` of shape `(N, ...)`): the result of [`~perturb`].
            noise (`torch.Tensor` of shape `(N, ...)`): standard normal numbers, the same as for [`~perturb`].
            return_dict (`bool`, defaults to `True`): whether to return a `SchedulerOutput` instead of a tuple.

        Returns:
            `SchedulerOutput` or `tuple`: the images after the step.
        """
        limit = self.config.max_gradient
        gradient = model_output if limit is None else model_output.clamp(-limit, limit)
        sample = sample - self.config.step_size * gradient
        if self.config.noise_order == "after":
            sample = sample + self.noise_std_at(timestep) * noise
        if self.config.clip_sample:
            sample = sample.clamp(-1, 1)
        return SchedulerOutput(prev_sample=sample) if return_dict else (sample,)

    def __len__(self) -> int:
        return self.config.num_inference_steps
