"""EDM's preconditioning and stochastic Heun sampler (Karras et al. 2022, table 1 and algorithm 2).

In diffusers, `EDMEulerScheduler` has the preconditioning, but makes Euler steps, and adds the churn after the call of
the network; `HeunDiscreteScheduler` makes Heun steps, but has neither preconditioning nor churn.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor


@dataclass
class EDMHeunOutput(BaseOutput):
    """The result of a step, with the shape of the sample: the next sample, and the denoised image D."""

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None


class EDMHeunScheduler(SchedulerMixin, ConfigMixin):
    """Second-order sampling of networks with EDM's preconditioning. It accepts the config of `EDMEulerScheduler`.

    The network is F in D(x; sigma) = c_skip x + c_out F(c_in x; log(sigma) / 4) (Karras et al. 2022, eq. 7). Each of
    the n steps calls it twice, at the noise levels of this step and of the next step. Only the last step calls
    it once, because it ends without noise. So `timesteps` has 2n - 1 entries, in the order of the calls, and `step`
    must be called after each of them. The noise levels with churn are known in advance, so `timesteps` contains them.
    The noise of the churn is drawn at the end of the previous step, and for the first step it is part of
    `init_noise_sigma`.

    Args:
        sigma_min, sigma_max (`float`): the noise levels of the last and the first step.
        sigma_data (`float`): the standard deviation of the images.
        sigma_schedule (`str`): `karras` (Karras et al. 2022, eq. 5) or `exponential`.
        num_train_timesteps (`int`): the number of steps before `set_timesteps` is called.
        prediction_type (`str`): `epsilon` for F, `v_prediction` for -F.
        rho (`float`): how much denser the steps of `karras` are at low noise levels.
        final_sigmas_type (`str`): the noise level after the last step: `zero` or `sigma_min`.
        s_churn, s_tmin, s_tmax, s_noise (`float`): the parameters of algorithm 2; None for `s_tmax` means no limit.

    Raises:
        ValueError: for an unknown choice.
    """

    _compatibles = ["EDMEulerScheduler"]
    order = 2

    @register_to_config
    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float = 0.5,
        sigma_schedule: str = "karras",
        num_train_timesteps: int = 1000,
        prediction_type: str = "epsilon",
        rho: float = 7.0,
        final_sigmas_type: str = "zero",
        s_churn: float = 0.0,
        s_tmin: float = 0.0,
        s_tmax: float | None = None,
        s_noise: float = 1.0,
    ):
        choices = {
            "sigma_schedule": ("karras", "exponential"),
            "prediction_type": ("epsilon", "v_prediction"),
            "final_sigmas_type": ("zero", "sigma_min"),
        }
        for name, allowed in choices.items():
            if self.config[name] not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, but is {self.config[name]!r}.")
        self.set_timesteps(num_train_timesteps)
        self.num_inference_steps = None

    @property
    def step_index(self) -> int | None:
        """The index in `timesteps` of the next call of `step`."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at this index in `timesteps`. By default, the timestep of the first call defines the start."""
        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: list[float] | None = None,
    ) -> None:
        """Choose the noise levels: `num_inference_steps` of them, or descending `sigmas`.

        Raises:
            ValueError: unless exactly one of the two is given, and it is valid.
        """
        if (num_inference_steps is None) == (sigmas is None):
            raise ValueError("Give exactly one of `num_inference_steps` and `sigmas`.")
        sigmas = self._sigmas(num_inference_steps) if sigmas is None else [float(sigma) for sigma in sigmas]
        if not sigmas or sigmas[-1] <= 0 or any(b >= a for a, b in pairwise(sigmas)):
            raise ValueError(f"`sigmas` must be positive and descending, but is {sigmas}.")
        self.num_inference_steps = len(sigmas)
        churned = [sigma * (1 + self._gamma(sigma)) for sigma in sigmas]
        self._levels = list(zip(sigmas, churned, strict=True))
        self._final_sigma = 0.0 if self.config.final_sigmas_type == "zero" else sigmas[-1]

        # The calls of the network: at the level of each step with churn, and at the level of the next step without.
        calls = [churned[0]]
        for sigma, churned_sigma in self._levels[1:]:
            calls += [sigma, churned_sigma]
        calls = torch.tensor(calls, dtype=torch.float64)
        self.sigmas = torch.cat([calls, calls.new_tensor([self._final_sigma])]).float()
        self.timesteps = self.precondition_noise(calls).to(device, torch.float32)
        # Including the churn of the first step: the sum of two independent normal variables is normal.
        self.init_noise_sigma = math.hypot(sigmas[0], self._added_noise(0))
        self._step_index = self._begin_index = None
        self._churned_sample = self._derivative = None

    def _sigmas(self, count: int) -> list[float]:
        """`count` noise levels: Karras et al. 2022, eq. 5."""
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"`num_inference_steps` must be a positive integer, but is {count!r}.")
        ramp = torch.linspace(0, 1, count, dtype=torch.float64)
        low, high, rho = self.config.sigma_min, self.config.sigma_max, self.config.rho
        if self.config.sigma_schedule == "exponential":
            return (math.log(high) + ramp * (math.log(low) - math.log(high))).exp().tolist()
        return ((high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho).tolist()

    def _gamma(self, sigma: float) -> float:
        s_tmax = math.inf if self.config.s_tmax is None else self.config.s_tmax
        if not self.config.s_tmin <= sigma <= s_tmax:
            return 0.0
        return min(self.config.s_churn / self.num_inference_steps, math.sqrt(2) - 1)

    def _added_noise(self, step: int) -> float:
        """The standard deviation of the noise that is added before this step."""
        sigma, churned = self._levels[step]
        return self.config.s_noise * math.sqrt(churned**2 - sigma**2)

    # Preconditioning: Karras et al. 2022, table 1

    def precondition_noise(self, sigma: float | torch.Tensor) -> torch.Tensor:
        """c_noise = log(sigma) / 4, the timestep in the network's input."""
        return torch.as_tensor(sigma).log() / 4

    def precondition_inputs(self, sample: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """c_in x, with c_in = 1 / sqrt(sigma^2 + sigma_data^2)."""
        return sample * (sigma**2 + self.config.sigma_data**2) ** -0.5

    def precondition_outputs(
        self, sample: torch.Tensor, model_output: torch.Tensor, sigma: float | torch.Tensor
    ) -> torch.Tensor:
        """D = c_skip x + c_out F."""
        variance, data_variance = sigma**2, self.config.sigma_data**2
        c_skip = data_variance / (variance + data_variance)
        c_out = sigma * self.config.sigma_data * (variance + data_variance) ** -0.5
        if self.config.prediction_type == "v_prediction":
            c_out = -c_out
        return c_skip * sample + c_out * model_output

    # Sampling

    def scale_model_input(self, sample: torch.Tensor, timestep: float | torch.Tensor) -> torch.Tensor:
        """The input of the network; see [`precondition_inputs`]."""
        self._find_step(timestep)
        return self.precondition_inputs(sample, self._call_sigma(self._step_index)).to(sample.dtype)

    def _call_sigma(self, index: int) -> float:
        plain, churned = self._levels[(index + 1) // 2]
        return plain if index % 2 else churned

    def _find_step(self, timestep: float | torch.Tensor) -> None:
        if self._step_index is not None:
            return
        if self._begin_index is not None:
            self._step_index = self._begin_index
            return
        places = (self.timesteps == torch.as_tensor(timestep, device=self.timesteps.device)).nonzero().flatten()
        if not len(places):
            raise ValueError(f"timestep {float(timestep)} is not one of the scheduler's timesteps.")
        # If two timesteps are equal, the second one starts a step.
        self._step_index = places[-1].item()

    def step(
        self,
        model_output: torch.Tensor,
        timestep: float | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        *,
        variance_noise: torch.Tensor | None = None,
    ) -> EDMHeunOutput | tuple[torch.Tensor, torch.Tensor]:
        """Half a step: from a sample to Euler's estimate of the next one, or from this estimate to Heun's.

        Args:
            model_output (`torch.Tensor` of shape (N, C, ...)): the output F of the network.
            timestep (`float` or `torch.Tensor`): the entries of `timesteps`, in order.
            sample (`torch.Tensor` of shape (N, C, ...)): the result of the previous half step.
            generator (`torch.Generator`, or a list of one per sample, *optional*): draws the noise of the churn.
            variance_noise (`torch.Tensor` of shape (N, C, ...), *optional*): standard normal noise for the churn,
                instead of a drawn one.

        Raises:
            ValueError: for a first timestep that is not in `timesteps`, and after the last step.
        """
        self._find_step(timestep)
        index = self._step_index
        if index >= len(self.timesteps):
            raise ValueError("All steps are done: call `set_timesteps` before the next sampling.")
        dtype = torch.promote_types(sample.dtype, torch.float32)
        x, sigma = sample.to(dtype), self._call_sigma(index)
        denoised = self.precondition_outputs(x, model_output.to(dtype), sigma)
        derivative = (x - denoised) / sigma

        if index % 2 == 0:
            # Algorithm 2, lines 7 and 8
            last = index == len(self.timesteps) - 1
            target = self._final_sigma if last else self._call_sigma(index + 1)
            previous = x + (target - sigma) * derivative
            self._churned_sample, self._derivative = x, derivative
        else:
            # Lines 10 and 11, and lines 5 and 6 of the next step
            if self._churned_sample is None:
                raise ValueError(
                    f"timestep {float(timestep)} ends a step; sampling must start with a timestep that starts a step."
                )
            started = self._call_sigma(index - 1)
            previous = self._churned_sample + (sigma - started) * (self._derivative + derivative) / 2
            added = self._added_noise((index + 1) // 2)
            if added > 0:
                if variance_noise is None:
                    variance_noise = randn_tensor(x.shape, generator=generator, device=x.device, dtype=dtype)
                previous = previous + added * variance_noise
        self._step_index += 1

        previous, denoised = previous.to(sample.dtype), denoised.to(sample.dtype)
        if not return_dict:
            return previous, denoised
        return EDMHeunOutput(prev_sample=previous, pred_original_sample=denoised)

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x + sigma n, with sigma = exp(4 timestep)."""
        sigma = (4 * timesteps.to(original_samples.device, torch.float32)).exp()
        sigma = sigma.view(-1, *[1] * (original_samples.ndim - 1))
        return (original_samples.float() + sigma * noise.float()).to(original_samples.dtype)

    def __len__(self) -> int:
        return self.config.num_train_timesteps
