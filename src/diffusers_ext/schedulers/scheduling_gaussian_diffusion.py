"""DDPM, DDIM and DDIM inversion as in the papers, with the same numbers as the reference implementation.

`alphas_cumprod` is alpha_bar_t, so q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, 1 - alpha_bar_t). A *chain* is the
ascending list of the timesteps that sampling visits. It is a process of its own, with the steps
beta_i = 1 - alpha_bar_i / alpha_bar_{i-1}, alpha_bar_{-1} = 1 (Nichol and Dhariwal 2021, sec. 4). In this file
t - 1 and t + 1 are the neighbours of t in the chain.

References: Ho et al. 2020 (DDPM); Song et al. 2021 (DDIM); Nichol and Dhariwal 2021 (learned variances, respacing);
Dhariwal and Nichol 2021 (classifier guidance); github.com/openai/guided-diffusion, gaussian_diffusion.py, respace.py.
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import diffusers
import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor


VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned", "learned_range")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
TIMESTEP_SPACINGS = ("linspace", "leading", "trailing")
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace")
MAX_BETA = 0.999


@dataclass
class GaussianDiffusionOutput(BaseOutput):
    """The next sample, `prev_sample`, and the predicted x_0. Both have the shape of the sample."""

    prev_sample: torch.Tensor
    pred_original_sample: torch.Tensor | None = None


@dataclass
class PMeanVarianceOutput(BaseOutput):
    """p(x_{t-1} | x_t) = N(mean, variance), with the predicted x_0 and the noise that would turn this x_0 into x_t."""

    mean: torch.Tensor
    variance: torch.Tensor
    log_variance: torch.Tensor
    pred_original_sample: torch.Tensor
    pred_epsilon: torch.Tensor


class Marginal(NamedTuple):
    """q(x_t | x_0): Ho et al. 2020, eq. 4."""

    signal: float  # sqrt(alpha_bar_t)
    noise: float  # sqrt(1 - alpha_bar_t)
    variance: float
    log_variance: float
    log_snr: float


class StepCoefficients(NamedTuple):
    """All the numbers that a step from one entry of the chain needs."""

    signal: float  # sqrt(alpha_bar_t)
    noise: float  # sqrt(1 - alpha_bar_t)
    # x_0 = inverse_signal x_t - noise_to_signal epsilon
    inverse_signal: float  # 1 / sqrt(alpha_bar_t)
    noise_to_signal: float  # sqrt(1 / alpha_bar_t - 1)
    # epsilon = (epsilon_gain x_t - x_0) epsilon_scale
    epsilon_gain: float  # 1 / sqrt(alpha_bar_t)
    epsilon_scale: float  # 1 / sqrt(1 / alpha_bar_t - 1)
    # q(x_{t-1} | x_t, x_0) = N(mean_original x_0 + mean_sample x_t, posterior_variance): Ho et al. 2020, eqs. 6 and 7
    mean_original: float
    mean_sample: float
    posterior_variance: float
    posterior_log_variance: float
    # p(x_{t-1} | x_t) with a fixed variance
    variance: float
    log_variance: float
    # ... with a learned range, log variance = middle + half_range v: Nichol and Dhariwal 2021, eq. 15
    log_variance_middle: float
    log_variance_half_range: float
    noisy: float  # 0 for the step that ends the chain, which adds no noise, 1 for the others
    # DDIM, down and up: sigma^2 = eta^2 fresh (1 - alpha_bar_{t-1}), kept = 1 - fresh: Song et al. 2021, eqs. 12, 16
    signal_previous: float
    noise_previous: float
    fresh: float
    kept: float
    signal_next: float
    noise_next: float


class TimestepTable:
    """Numbers for each timestep: plain floats for one timestep, float32 tensors for a batch of different timesteps.

    Args:
        timesteps (`list[int]`): ascending.
        columns: a NamedTuple of float64 arrays, with an entry for each timestep.
    """

    def __init__(self, timesteps: list[int], columns: NamedTuple):
        values = np.stack(columns, axis=1)
        self.row_type = type(columns)
        self.rows = dict(zip(timesteps, map(self.row_type._make, values.tolist()), strict=True))
        # Timesteps outside the chain get the last row, which is NaN. On a GPU a check would have to wait for the
        # device; a NaN shows the mistake without waiting.
        self.values = torch.tensor(np.vstack([values, np.full_like(values[:1], np.nan)]), dtype=torch.float32)
        # Timestep t is found at place t + 1. The first and the last place stand for all smaller and larger timesteps.
        self.index = torch.full((timesteps[-1] + 3,), len(timesteps))
        self.index[1:-1][timesteps] = torch.arange(len(timesteps))

    def row(self, timestep: int) -> NamedTuple:
        if timestep not in self.rows:
            raise ValueError(
                f"timestep {timestep} is none of the {len(self.rows)} timesteps of the scheduler's chain, which goes "
                f"from {max(self.rows)} to {min(self.rows)}."
            )
        return self.rows[timestep]

    def columns(self, timesteps: torch.Tensor, ndim: int, device: torch.device) -> NamedTuple:
        """Tensors of shape (N, 1, ...) for timesteps of shape (N,)."""
        if timesteps.device.type == "cpu":
            for timestep in timesteps.tolist():
                self.row(timestep)
        values = self.gather(timesteps.to(device))
        return self.row_type._make(values.T.reshape(-1, len(timesteps), *[1] * (ndim - 1)))

    def gather(self, timesteps: torch.Tensor) -> torch.Tensor:
        """The rows (N, columns) of timesteps of shape (N,), on their device; NaN outside the chain."""
        self.values, self.index = self.values.to(timesteps.device), self.index.to(timesteps.device)
        places = (timesteps.long() + 1).clamp(0, len(self.index) - 1)
        return self.values[self.index[places]]


def add_scaled(total: torch.Tensor, scale: float | torch.Tensor, term: torch.Tensor) -> torch.Tensor:
    """`total += scale * term`, in place."""
    return total.add_(term, alpha=scale) if isinstance(scale, float) else total.addcmul_(term, scale)


def combine(a: float | torch.Tensor, x: torch.Tensor, b: float | torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """`a x + b y`."""
    return add_scaled(x * a, b, y)


def spread(value: float | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`value` in the shape of `like`."""
    return torch.full_like(like, value) if isinstance(value, float) else value.expand_as(like)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, but is {value!r}.")


def is_integer(value) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def space_timesteps(num_train_timesteps: int, respacing: str | Sequence[int]) -> list[int]:
    """Choose the timesteps that a shorter chain keeps, ascending: Nichol and Dhariwal 2021, sec. 4.

    Args:
        num_train_timesteps (`int`): T, the length of the full chain.
        respacing (`str` or `list[int]`): `"250"` spreads 250 timesteps evenly from 0 to T - 1; `"10,15,20"`, or
            `[10, 15, 20]`, does so in each of three equal sections; `"ddim50"` takes every k-th timestep, starting
            at 0, with the whole number k that gives 50 of them (Song et al. 2021); `""` keeps all timesteps.

    Raises:
        ValueError: if `respacing` cannot be read, asks for more timesteps than there are, or if no whole stride
            gives the number after "ddim".
    """
    if isinstance(respacing, str) and respacing.startswith("ddim"):
        count = _parse_count(respacing[len("ddim") :], respacing)
        for stride in range(1, num_train_timesteps + 1):
            if len(range(0, num_train_timesteps, stride)) == count:
                return list(range(0, num_train_timesteps, stride))
        raise ValueError(
            f"{respacing!r} is not possible with {num_train_timesteps} timesteps: no whole stride gives {count}."
        )

    if not isinstance(respacing, Sequence):
        raise ValueError(f"A respacing is a string like '250' or a list of counts like [10, 15], not {respacing!r}.")
    parts = respacing.split(",") if isinstance(respacing, str) else respacing
    counts = [_parse_count(str(part), respacing) for part in parts] if respacing else [num_train_timesteps]
    timesteps, start = [], 0
    for i, count in enumerate(counts):
        size = num_train_timesteps // len(counts) + (i < num_train_timesteps % len(counts))
        if count > size:
            raise ValueError(f"{respacing!r} asks for {count} timesteps of a section that has {size}.")
        stride = (size - 1) / (count - 1) if count > 1 else 1
        # The reference adds the strides up. A multiplication would round differently halfway between two timesteps.
        position = 0.0
        for _ in range(count):
            timesteps.append(start + round(position))
            position += stride
        start += size
    if not timesteps:
        raise ValueError(f"{respacing!r} keeps no timestep at all.")
    return timesteps


def _parse_count(text: str, respacing) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"A respacing is like '250', '10,15,20' or 'ddim50', not {respacing!r}.")
    return int(text)


def make_betas(beta_schedule: str, beta_start: float, beta_end: float, num_train_timesteps: int) -> np.ndarray:
    """The variances of the full chain's steps, float64 of shape (T,).

    `linear` (Ho et al. 2020), `scaled_linear` (linear in the square root: Rombach et al. 2022), `squaredcos_cap_v2`
    (Nichol and Dhariwal 2021, eq. 17), `sigmoid` (Xu et al. 2022) and `laplace` (Hang et al. 2024), as in diffusers.
    """
    check_choice("beta_schedule", beta_schedule, BETA_SCHEDULES)
    if beta_schedule == "linear":
        return np.linspace(beta_start, beta_end, num_train_timesteps)
    if beta_schedule == "scaled_linear":
        return np.linspace(beta_start**0.5, beta_end**0.5, num_train_timesteps) ** 2
    if beta_schedule == "sigmoid":
        return beta_start + (beta_end - beta_start) / (1 + np.exp(-np.linspace(-6, 6, num_train_timesteps)))
    times = np.arange(num_train_timesteps + 1) / num_train_timesteps
    if beta_schedule == "squaredcos_cap_v2":
        alphas_cumprod = np.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
    else:
        log_snr = -0.5 * np.copysign(1, 0.5 - times) * np.log(1 - 2 * np.abs(0.5 - times) + 1e-6)
        alphas_cumprod = (1 + np.exp(-log_snr)) ** -0.5
    return np.minimum(1 - alphas_cumprod[1:] / alphas_cumprod[:-1], MAX_BETA)


def rescale_zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Shifts and scales sqrt(alpha_bar) to end at zero: Lin et al. 2024, algorithm 1."""
    signal = np.cumprod(1 - betas) ** 0.5
    if len(betas) == 1:
        raise ValueError("`rescale_betas_zero_snr` needs more than one timestep, because the first one is not moved.")
    signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    return 1 - signal**2 / np.append(1.0, signal[:-1] ** 2)


def check_betas(betas: np.ndarray) -> None:
    if not ((betas > 0) & (betas <= 1)).all():
        raise ValueError(f"Betas must lie in (0, 1], but go from {betas.min():g} to {betas.max():g}.")
    signal_ends = int((np.cumprod(1 - betas) > 0).sum())
    if signal_ends < len(betas) - 1:
        raise ValueError(
            f"Only the last of the {len(betas)} timesteps may have no signal, but timestep {signal_ends} has none "
            f"already: its beta is {betas[signal_ends]:g}."
        )


def refuse_other_processes(config: dict) -> None:
    """Refuse the config of a flow or of EDM. It is recognised by its parameters, because it may not name its class."""
    is_flow = config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas") or "shift" in config
    if is_flow or "sigma_data" in config:
        raise ValueError(
            f"This config belongs to {'a flow' if is_flow else 'EDM'}. This scheduler takes only the configs of "
            "discrete variance-preserving processes, such as DDPM."
        )


class GaussianDiffusionScheduler(SchedulerMixin, ConfigMixin):
    """What the schedulers of this file share: the config, the timesteps, q(...) and p(...).

    The config has the parameters of diffusers' `DDPMScheduler` and `DDIMScheduler` with the same meanings.
    `from_config` accepts the configs of both and of all compatible schedulers, and they accept ours. The process stays
    the same: a parameter that a config leaves open gets the default of the class that wrote the config. Configs of
    flows and of EDM are refused, because they describe other processes.

    Tables are computed in float64 and steps in float32. The results have the dtype of the sample. The schedulers keep
    no state between steps: any timestep of the chain may follow any other.

    Args:
        num_train_timesteps (`int`): T.
        beta_start, beta_end (`float`, *optional*): by default 0.1 / T and 20 / T (at most 0.999), the process of Ho et
            al. 2020 for each T. The config holds the resulting numbers.
        beta_schedule (`str`): see [`make_betas`].
        trained_betas (`list[float]`, *optional*): T numbers in (0, 1] to use instead; only the last can be 1.
        variance_type (`str`): `fixed_small` is the posterior's variance, `fixed_large` beta_t (Ho et al. 2020, sec.
            3.2); the names with `_log` mean the same. With `learned` the network predicts the log variance, with
            `learned_range` an interpolation between the two (Nichol and Dhariwal 2021, eq. 15), in C further output
            channels. With a fixed variance these channels are ignored.
        clip_sample (`bool`), clip_sample_range (`float`): whether to clip x_0, and to which magnitude.
        prediction_type (`str`): `epsilon`, `sample` or `v_prediction`.
        timestep_spacing (`str`): `linspace` (from 0 to T - 1), `leading` or `trailing`: Lin et al. 2024, table 2.
        steps_offset (`int`): added to `leading` timesteps; reduced where the largest timestep would exceed T - 1.
        rescale_betas_zero_snr (`bool`): see [`rescale_zero_terminal_snr`].
        set_alpha_to_one (`bool`): whether DDIM's last step leads to alpha_bar = 1, or to the alpha_bar of timestep 0.
        thresholding (`bool`), dynamic_thresholding_ratio (`float`), sample_max_value (`float`): dynamic thresholding
            (Saharia et al. 2022, sec. 2.3) in place of clipping.

    Raises:
        ValueError: for an unknown choice, for betas outside (0, 1], and if alpha_bar is 0 before the last timestep.
    """

    _compatibles = [scheduler.name for scheduler in KarrasDiffusionSchedulers]
    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float | None = None,
        beta_end: float | None = None,
        beta_schedule: str = "linear",
        trained_betas: np.ndarray | list[float] | None = None,
        variance_type: str = "fixed_small",
        clip_sample: bool = True,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "linspace",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
        set_alpha_to_one: bool = True,
    ):
        check_choice("variance_type", variance_type, VARIANCE_TYPES)
        check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
        check_choice("timestep_spacing", timestep_spacing, TIMESTEP_SPACINGS)
        if not is_integer(num_train_timesteps) or num_train_timesteps < 1:
            raise ValueError(f"`num_train_timesteps` must be a positive integer, but is {num_train_timesteps!r}.")

        beta_start = 0.1 / num_train_timesteps if beta_start is None else beta_start
        beta_end = min(20 / num_train_timesteps, MAX_BETA) if beta_end is None else beta_end
        if trained_betas is None:
            betas = make_betas(beta_schedule, beta_start, beta_end, num_train_timesteps)
        else:
            betas = np.array(trained_betas, dtype=np.float64)
            trained_betas = betas.tolist()
            if betas.shape != (num_train_timesteps,):
                raise ValueError(
                    f"`trained_betas` must be {num_train_timesteps} numbers, but has shape {betas.shape}."
                )
        check_betas(betas)
        if rescale_betas_zero_snr:
            betas = rescale_zero_terminal_snr(betas)
            check_betas(betas)
        # `from_config` would replace parameters that nobody chose by the other class's defaults, which differ.
        self.register_to_config(
            beta_start=beta_start, beta_end=beta_end, trained_betas=trained_betas, _use_default_values=[]
        )

        alphas_cumprod = np.cumprod(1 - betas)
        self.betas = torch.tensor(betas, dtype=torch.float32)
        self.alphas = torch.tensor(1 - betas, dtype=torch.float32)
        self.alphas_cumprod = torch.tensor(alphas_cumprod, dtype=torch.float32)
        self.final_alpha_cumprod = torch.tensor(1.0) if set_alpha_to_one else self.alphas_cumprod[0]
        self.variance_type = variance_type
        self.init_noise_sigma = 1.0
        self.num_inference_steps = None

        full_chain = list(range(num_train_timesteps))
        self._alphas_cumprod = alphas_cumprod
        self._marginals = TimestepTable(full_chain, marginals(alphas_cumprod))
        self._set_chain(full_chain, device=None)

    @classmethod
    def extract_init_dict(cls, config_dict, **kwargs):
        # A config means the process that its own class would build, with the defaults of that class.
        name = config_dict.get("_class_name")
        source = getattr(diffusers, name, cls) if isinstance(name, str) else cls
        parameters = inspect.signature(source.__init__).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        config = {key: value for key, value in {**defaults, **config_dict}.items() if key != "_use_default_values"}
        refuse_other_processes({**config, **kwargs})
        if config.get("variance_type") is None:  # DPM-Solver writes None for networks without a learned variance
            config["variance_type"] = "fixed_small"
        return super().extract_init_dict(config, **kwargs)

    def __len__(self) -> int:
        return self.config.num_train_timesteps

    # Timesteps

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[int] | None = None,
        respacing: str | Sequence[int] | None = None,
    ) -> None:
        """Choose the chain. Exactly one of `num_inference_steps`, `timesteps` and `respacing` must be given.

        Args:
            num_inference_steps (`int`): from 1 to T, spaced by `timestep_spacing`.
            device: the device for `self.timesteps`.
            timesteps (`list[int]`): the timesteps themselves, descending.
            respacing (`str` or `list[int]`): see [`space_timesteps`].

        Raises:
            ValueError: if not exactly one is given, or its value is not possible.
        """
        if sum(choice is not None for choice in (num_inference_steps, timesteps, respacing)) != 1:
            raise ValueError("Give exactly one of `num_inference_steps`, `timesteps` and `respacing`.")
        if respacing is not None:
            chain = space_timesteps(self.config.num_train_timesteps, respacing)
        elif timesteps is not None:
            chain = self._check_timesteps(timesteps)[::-1]
        else:
            chain = self._space(num_inference_steps)
        self.num_inference_steps = len(chain)
        self._set_chain(chain, device)

    def _space(self, count: int) -> list[int]:
        """Lin et al. 2024, table 2, rounded as in diffusers; ascending."""
        total = self.config.num_train_timesteps
        if not is_integer(count) or not 1 <= count <= total:
            raise ValueError(f"`num_inference_steps` must be an integer from 1 to {total}, but is {count!r}.")
        if self.config.timestep_spacing == "linspace":
            return np.linspace(0, total - 1, count).round().astype(int).tolist()
        if self.config.timestep_spacing == "leading":
            stride = total // count
            offset = min(self.config.steps_offset, total - 1 - (count - 1) * stride)
            return [offset + i * stride for i in range(count)]
        # Rounding may give one timestep too many.
        timesteps = np.arange(total, 0, -total / count)[:count].round().astype(int) - 1
        return timesteps[::-1].tolist()

    def _check_timesteps(self, timesteps: Sequence[int]) -> list[int]:
        last = self.config.num_train_timesteps - 1
        if isinstance(timesteps, (torch.Tensor, np.ndarray)):
            timesteps = timesteps.tolist()
        integers = isinstance(timesteps, Sequence) and len(timesteps) > 0 and all(map(is_integer, timesteps))
        if (
            not integers
            or sorted(set(timesteps), reverse=True) != list(timesteps)
            or timesteps[0] > last
            or timesteps[-1] < 0
        ):
            raise ValueError(f"`timesteps` must be descending integers between {last} and 0, but is {timesteps}.")
        return [int(timestep) for timestep in timesteps]

    def _set_chain(self, chain: list[int], device: str | torch.device | None) -> None:
        final_alpha_cumprod = 1.0 if self.config.set_alpha_to_one else self._alphas_cumprod[0]
        large = self.config.variance_type.startswith("fixed_large")
        self._steps = TimestepTable(chain, step_coefficients(self._alphas_cumprod[chain], final_alpha_cumprod, large))
        self._walk = self._in_walking_order(chain)
        self.timesteps = self._own_timesteps = torch.tensor(self._walk, device=device)

    def _in_walking_order(self, chain: list[int]) -> list[int]:
        return chain[::-1]

    def _lookup(self, table: TimestepTable, timesteps: int | torch.Tensor, sample: torch.Tensor) -> NamedTuple:
        if not torch.is_tensor(timesteps):
            return table.row(timesteps)
        if timesteps.ndim == 0:
            return table.row(self._number(timesteps))
        if timesteps.ndim > 1 or len(timesteps) not in (1, len(sample)):
            raise ValueError(
                f"Timesteps must be one number, or one for each of the {len(sample)} samples, but have the shape "
                f"{tuple(timesteps.shape)}."
            )
        return table.columns(timesteps, sample.ndim, sample.device)

    def _number(self, timestep: torch.Tensor) -> int:
        own = self._own_timesteps
        if timestep.device.type != "cpu" and timestep.device == own.device:
            if timestep.untyped_storage().data_ptr() == own.untyped_storage().data_ptr():
                # The timestep is an element of `self.timesteps`: its position gives its value without waiting for the
                # device.
                return self._walk[timestep.storage_offset()]
        return timestep.item()

    # The forward process

    def q_mean_variance(
        self, clean: torch.Tensor, timesteps: int | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q(x_t | x_0): Ho et al. 2020, eq. 4.

        Args:
            clean (`torch.Tensor` of shape (N, C, ...)): x_0.
            timesteps (`int`, or `torch.Tensor` of shape () or (N,)): from 0 to T - 1.

        Returns:
            mean, variance and log variance, each of the shape of `clean`.
        """
        level, x = self._lookup(self._marginals, timesteps, clean), clean.float()
        values = (x * level.signal, spread(level.variance, x), spread(level.log_variance, x))
        return tuple(value.to(clean.dtype) for value in values)

    def q_sample(self, clean: torch.Tensor, timesteps: int | torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise; arguments as in [`q_mean_variance`]."""
        level = self._lookup(self._marginals, timesteps, clean)
        return combine(level.signal, clean.float(), level.noise, noise.float()).to(clean.dtype)

    def q_posterior(
        self, clean: torch.Tensor, sample: torch.Tensor, timesteps: int | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q(x_{t-1} | x_t, x_0): Ho et al. 2020, eqs. 6 and 7.

        Args:
            clean, sample (`torch.Tensor` of shape (N, C, ...)): x_0 and x_t.
            timesteps (`int`, or `torch.Tensor` of shape () or (N,)): of the chain.

        Returns:
            mean, variance and log variance, each of the shape of `sample`. The variance of the chain's first timestep
            is 0. To stay finite, its log variance is set to the log variance of the second timestep.
        """
        c = self._lookup(self._steps, timesteps, sample)
        mean = combine(c.mean_original, clean.float(), c.mean_sample, sample.float())
        values = (mean, spread(c.posterior_variance, mean), spread(c.posterior_log_variance, mean))
        return tuple(value.to(sample.dtype) for value in values)

    def log_snr(self, timesteps: int | torch.Tensor) -> torch.Tensor:
        """log(alpha_bar_t / (1 - alpha_bar_t)), float32 in the shape of the timesteps, which are from 0 to T - 1."""
        timesteps = torch.as_tensor(timesteps)
        return self._marginals.columns(timesteps.flatten(), 1, timesteps.device).log_snr.view(timesteps.shape)

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: int | torch.Tensor
    ) -> torch.Tensor:
        """The same as [`q_sample`], under diffusers' name."""
        return self.q_sample(original_samples, timesteps, noise)

    def get_velocity(self, sample: torch.Tensor, noise: torch.Tensor, timesteps: int | torch.Tensor) -> torch.Tensor:
        """v = sqrt(alpha_bar_t) noise - sqrt(1 - alpha_bar_t) x_0 (Salimans and Ho 2022, app. D); `sample` is x_0."""
        level = self._lookup(self._marginals, timesteps, sample)
        return combine(level.signal, noise.float(), -level.noise, sample.float()).to(sample.dtype)

    def scale_model_input(self, sample: torch.Tensor, timestep: int | torch.Tensor | None = None) -> torch.Tensor:
        """Returns the sample unchanged, because networks of this process take x_t itself."""
        return sample

    # The reverse process

    def p_mean_variance(
        self,
        model_output: torch.Tensor,
        timesteps: int | torch.Tensor,
        sample: torch.Tensor,
        clip_sample: bool | None = None,
    ) -> PMeanVarianceOutput:
        """p(x_{t-1} | x_t): Ho et al. 2020, eq. 1; with a learned variance, Nichol and Dhariwal 2021, eq. 15.

        Args:
            model_output (`torch.Tensor` of shape (N, C, ...), or (N, 2C, ...) with the variance).
            timesteps (`int`, or `torch.Tensor` of shape () or (N,)): of the chain.
            sample (`torch.Tensor` of shape (N, C, ...)): x_t.
            clip_sample (`bool`, *optional*): whether to clip x_0; by default the config's `clip_sample`.

        Raises:
            ValueError: for a timestep outside the chain, and for an output of another shape.
        """
        c = self._lookup(self._steps, timesteps, sample)
        output, values = self._split(model_output, sample)
        x = sample.float()
        original = self._clip(self._predict_original(output, x, c), clip_sample)
        mean = combine(c.mean_original, original, c.mean_sample, x)
        log_variance = self._learned_log_variance(values, c)
        if log_variance is None:
            variance, log_variance = spread(c.variance, x), spread(c.log_variance, x)
        else:
            variance = log_variance.exp()
        epsilon = self._unscaled_epsilon(original, x, c) * c.epsilon_scale
        values = (mean, variance, log_variance, original, epsilon)
        return PMeanVarianceOutput(*[value.to(sample.dtype) for value in values])

    def _split(self, model_output: torch.Tensor, sample: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The prediction and, if the output has it, the variance; both float32."""
        if model_output.shape == sample.shape:
            return model_output.float(), None
        batch_size, channels, *size = sample.shape
        if model_output.shape != (batch_size, 2 * channels, *size):
            raise ValueError(
                f"For a sample of shape {tuple(sample.shape)} the network's output must have that shape, or twice the "
                f"channels, but has the shape {tuple(model_output.shape)}."
            )
        return model_output.float().split(channels, dim=1)

    def _predict_original(self, output: torch.Tensor, x: torch.Tensor, c: StepCoefficients) -> torch.Tensor:
        if self.config.prediction_type == "sample":
            return output
        if self.config.prediction_type == "v_prediction":
            return combine(c.signal, x, -c.noise, output)
        # The reference computes two products and their difference. Another order rounds differently.
        return (x * c.inverse_signal).sub_(output * c.noise_to_signal)

    def _clip(self, original: torch.Tensor, clip_sample: bool | None = None) -> torch.Tensor:
        if clip_sample is None and self.config.thresholding:
            limits = original.flatten(1).abs().quantile(self.config.dynamic_thresholding_ratio, dim=1)
            limits = limits.clamp(min=1, max=self.config.sample_max_value).view(-1, *[1] * (original.ndim - 1))
            return original.clamp(-limits, limits) / limits
        if self.config.clip_sample if clip_sample is None else clip_sample:
            return original.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
        return original

    def _unscaled_epsilon(self, original: torch.Tensor, x: torch.Tensor, c: StepCoefficients) -> torch.Tensor:
        # The reference computes in this order. With little noise another order rounds differently.
        return (x * c.epsilon_gain).sub_(original)

    def _learned_log_variance(self, values: torch.Tensor | None, c: StepCoefficients) -> torch.Tensor | None:
        if not self.config.variance_type.startswith("learned"):
            return None
        if values is None:
            raise ValueError(
                f"`variance_type={self.config.variance_type!r}` needs a network with twice the sample's channels."
            )
        if self.config.variance_type == "learned":
            return values
        return values * c.log_variance_half_range + c.log_variance_middle


def marginals(alphas_cumprod: np.ndarray) -> Marginal:
    variance = 1 - alphas_cumprod
    with np.errstate(divide="ignore"):  # log 0 at zero terminal SNR
        log_snr = np.log(alphas_cumprod) - np.log(variance)
    return Marginal(alphas_cumprod**0.5, variance**0.5, variance, np.log(variance), log_snr)


def step_coefficients(alphas_cumprod: np.ndarray, final_alpha_cumprod: float, large: bool) -> StepCoefficients:
    """The coefficients of each step of a chain.

    Args:
        alphas_cumprod (`np.ndarray` of shape (n,)): alpha_bar of the chain's timesteps, ascending.
        final_alpha_cumprod (`float`): the alpha_bar after DDIM's last step.
        large (`bool`): whether the fixed variance is beta_t instead of the posterior's variance.
    """
    previous = np.append(1.0, alphas_cumprod[:-1])
    alphas, noise_variance = alphas_cumprod / previous, 1 - alphas_cumprod
    betas = 1 - alphas
    posterior_variance = betas * (1 - previous) / noise_variance

    # The variance of the last step is 0. For its logarithm the reference takes the variance of the step before it.
    # A chain of one step has no step before it and takes beta.
    stand_in = posterior_variance[1] if len(betas) > 1 else betas[0]
    posterior_log_variance = np.log(np.append(stand_in, posterior_variance[1:]))
    variance, log_variance = posterior_variance, posterior_log_variance
    if large:
        variance = np.append(stand_in, betas[1:])
        log_variance = np.log(variance)

    # Without any signal (zero terminal SNR) x_0 does not follow from epsilon. The smallest half-precision number keeps
    # the quotient finite, as in diffusers' Euler scheduler. In the other direction nothing can overflow.
    some_signal = np.where(alphas_cumprod > 0, alphas_cumprod, 2.0**-24)
    more_exact = np.where(alphas_cumprod > 0, alphas_cumprod, 2.0**-40)

    # The reference computes these in float32, and the rounding of 1 - alpha_bar changes the sixth digit of a sample.
    target = np.append(final_alpha_cumprod, alphas_cumprod[:-1]).astype(np.float32)
    following = np.append(alphas_cumprod[1:], 0.0).astype(np.float32)
    kept = np.append(1.0, (alphas * (1 - previous) / noise_variance)[1:])
    return StepCoefficients(
        signal=alphas_cumprod**0.5,
        noise=noise_variance**0.5,
        inverse_signal=some_signal**-0.5,
        noise_to_signal=(1 / some_signal - 1) ** 0.5,
        epsilon_gain=more_exact**-0.5,
        epsilon_scale=(1 / more_exact - 1) ** -0.5,
        mean_original=betas * previous**0.5 / noise_variance,
        mean_sample=alphas**0.5 * (1 - previous) / noise_variance,
        posterior_variance=posterior_variance,
        posterior_log_variance=posterior_log_variance,
        variance=variance,
        log_variance=log_variance,
        log_variance_middle=(np.log(betas) + posterior_log_variance) / 2,
        log_variance_half_range=(np.log(betas) - posterior_log_variance) / 2,
        noisy=np.append(0.0, np.ones(len(betas) - 1)),
        signal_previous=target**0.5,
        noise_previous=(1 - target) ** 0.5,
        fresh=1 - kept,
        kept=kept,
        signal_next=following**0.5,
        noise_next=(1 - following) ** 0.5,
    )


def draw_noise(
    x: torch.Tensor, generator: torch.Generator | list[torch.Generator] | None, variance_noise: torch.Tensor | None
) -> torch.Tensor:
    if variance_noise is None:
        return randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    if generator is not None:
        raise ValueError("Give only one of `generator` and `variance_noise`.")
    return variance_noise.to(x.dtype)


def as_output(previous: torch.Tensor, original: torch.Tensor, dtype: torch.dtype, return_dict: bool):
    previous, original = previous.to(dtype), original.to(dtype)
    if not return_dict:
        return previous, original
    return GaussianDiffusionOutput(prev_sample=previous, pred_original_sample=original)


class ExactDDPMScheduler(GaussianDiffusionScheduler):
    """Ancestral sampling: Ho et al. 2020, algorithm 2. A drop-in for diffusers' `DDPMScheduler`.

    Arguments: see [`GaussianDiffusionScheduler`].
    """

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        *,
        variance_noise: torch.Tensor | None = None,
        condition_gradient: torch.Tensor | None = None,
    ) -> GaussianDiffusionOutput | tuple[torch.Tensor, torch.Tensor]:
        """Draws x_{t-1} from p(x_{t-1} | x_t). The last step of the chain adds no noise.

        Args:
            model_output, timestep, sample: as in [`~GaussianDiffusionScheduler.p_mean_variance`], with its errors.
            generator (`torch.Generator`, or a list of one per sample, *optional*): draws the noise.
            variance_noise (`torch.Tensor` of shape (N, C, ...), *optional*): the standard normal noise itself.
            condition_gradient (`torch.Tensor` of shape (N, C, ...), *optional*): scale times the gradient of
                log p(y | x_t) at x_t. The mean moves by the variance times this gradient, after x_0 was clipped:
                Dhariwal and Nichol 2021, algorithm 1.
        """
        c = self._lookup(self._steps, timestep, sample)
        output, values = self._split(model_output, sample)
        x = sample.float()
        original = self._clip(self._predict_original(output, x, c))
        previous = combine(c.mean_original, original, c.mean_sample, x)
        log_variance = self._learned_log_variance(values, c)
        if condition_gradient is not None:
            variance = c.variance if log_variance is None else log_variance.exp()
            add_scaled(previous, variance, condition_gradient.float())
        if torch.is_tensor(c.noisy) or c.noisy:
            deviation = c.variance**0.5 if log_variance is None else (0.5 * log_variance).exp()
            add_scaled(previous, deviation * c.noisy, draw_noise(x, generator, variance_noise))
        return as_output(previous, original, sample.dtype, return_dict)


class ExactDDIMScheduler(GaussianDiffusionScheduler):
    """DDIM: Song et al. 2021, eq. 12. A drop-in for diffusers' `DDIMScheduler`.

    Each step leads to the next timestep of the chain, so that every spacing is exact. Arguments: see
    [`GaussianDiffusionScheduler`].
    """

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: torch.Tensor | None = None,
        return_dict: bool = True,
        *,
        condition_gradient: torch.Tensor | None = None,
    ) -> GaussianDiffusionOutput | tuple[torch.Tensor, torch.Tensor]:
        """x_{t-1} = sqrt(alpha_bar_{t-1}) x_0 + sqrt(1 - alpha_bar_{t-1} - sigma^2) epsilon + sigma noise.

        Args:
            model_output, timestep, sample: as in [`~GaussianDiffusionScheduler.p_mean_variance`], with its errors. A
                variance in the output is ignored.
            eta (`float`): the amount of noise, from 0 (none) to 1 (as much as DDPM adds): Song et al. 2021, eq. 16.
                The last step adds none.
            use_clipped_model_output (`bool`, *optional*): True, the default and the reference's way, computes epsilon
                from the clipped x_0. False takes the network's epsilon, which is the default of diffusers'
                `DDIMScheduler`.
            generator (`torch.Generator`, or a list of one per sample, *optional*): draws the noise.
            variance_noise (`torch.Tensor` of shape (N, C, ...), *optional*): the standard normal noise itself.
            condition_gradient (`torch.Tensor` of shape (N, C, ...), *optional*): scale times the gradient of
                log p(y | x_t) at x_t. Epsilon moves by -sqrt(1 - alpha_bar_t) times this gradient, and x_0 follows
                from it. x_0 is clipped before and not again: Dhariwal and Nichol 2021, algorithm 2.
        """
        if not 0 <= eta <= 1:
            raise ValueError(f"`eta` must be between 0 (DDIM) and 1 (DDPM), but is {eta}.")
        c = self._lookup(self._steps, timestep, sample)
        x = sample.float()
        predicted = self._predict_original(self._split(model_output, sample)[0], x, c)
        original = self._clip(predicted)
        unscaled_epsilon = self._unscaled_epsilon(predicted if use_clipped_model_output is False else original, x, c)
        if condition_gradient is not None:
            # epsilon - sqrt(1 - alpha_bar) gradient, in terms of x_0
            shift = c.noise_to_signal * c.noise * condition_gradient.float()
            original, unscaled_epsilon = original + shift, unscaled_epsilon - shift

        direction = c.noise_previous * (1 - eta**2 + eta**2 * c.kept) ** 0.5
        previous = combine(c.signal_previous, original, direction * c.epsilon_scale, unscaled_epsilon)
        if eta > 0 and (torch.is_tensor(c.noisy) or c.noisy):
            sigma = eta * c.noise_previous * c.fresh**0.5
            add_scaled(previous, sigma, draw_noise(x, generator, variance_noise))
        return as_output(previous, original, sample.dtype, return_dict)


class ExactDDIMInverseScheduler(GaussianDiffusionScheduler):
    """Finds the noise from which DDIM would generate an image, like the reference's `ddim_reverse_sample`.

    It visits the timesteps in ascending order: each step turns x_t into x_{t+1}, and the last one, with alpha_bar = 0,
    into epsilon. Its `timesteps[:-1]` lead from the chain's first timestep to its last, and the timesteps of
    [`ExactDDIMScheduler`] lead back. The way back is exact if epsilon depends neither on the sample nor on the
    timestep. Arguments: see [`GaussianDiffusionScheduler`].
    """

    def _in_walking_order(self, chain: list[int]) -> list[int]:
        return chain

    def step(
        self,
        model_output: torch.Tensor,
        timestep: int | torch.Tensor,
        sample: torch.Tensor,
        return_dict: bool = True,
    ) -> GaussianDiffusionOutput | tuple[torch.Tensor, torch.Tensor]:
        """x_{t+1} = sqrt(alpha_bar_{t+1}) x_0 + sqrt(1 - alpha_bar_{t+1}) epsilon, epsilon from the clipped x_0.

        Args:
            model_output, timestep, sample: as in [`ExactDDIMScheduler.step`]. `prev_sample` is x_{t+1}.
        """
        c = self._lookup(self._steps, timestep, sample)
        x = sample.float()
        original = self._clip(self._predict_original(self._split(model_output, sample)[0], x, c))
        unscaled_epsilon = self._unscaled_epsilon(original, x, c)
        following = combine(c.signal_next, original, c.noise_next * c.epsilon_scale, unscaled_epsilon)
        return as_output(following, original, sample.dtype, return_dict)
