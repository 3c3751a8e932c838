"""The log-density of images under a diffusion or flow model, by the probability-flow ODE of the model.

All models with Gaussian noise have the same ODE, whatever their process and prediction type. If the noise level is
written as an angle, `x = cos(angle) * clean + sin(angle) * noise`, the ODE is `dx/dangle = v(x, angle)`, where v is
the expected velocity `cos(angle) * noise - sin(angle) * clean` (Salimans and Ho 2022, app. D). Angle 0 is the clean
image, and pi/2 is standard normal noise. The noise-to-signal ratio `sigma` of Karras et al. (2022) is tan(angle).
Along the ODE, the log-density changes by minus the divergence of v (Song et al. 2021, eq. 39; Chen et al. 2018).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch


# Flows do not define a smallest noise level. This is EDM's (Karras et al. 2022), which is below one 8-bit level.
FLOW_SIGMA_MIN = 0.002

# How closely, in radians, steps resolve the end of a process that ends in pure noise.
NOISE_MARGIN = 0.01


class VariancePreservingFlow:
    """A network that predicts noise, image or v, at the noise levels of `alphas_cumprod` and between them."""

    def __init__(self, scheduler):
        signal = scheduler.alphas_cumprod.double().cpu().numpy()
        self.prediction_type = scheduler.config.prediction_type
        if self.prediction_type == "epsilon" and signal[-1] == 0:
            raise ValueError(
                "At zero terminal SNR a network that predicts the noise has no ODE, because pure noise has no "
                "information about the image: use prediction_type 'sample' or 'v_prediction'."
            )
        # Timesteps are interpolated by the angle, which is finite even where the log-SNR is not (zero terminal SNR).
        self.angles = np.arctan2(np.sqrt(1 - signal), np.sqrt(signal))
        self.start, self.end = float(self.angles[0]), float(self.angles[-1])

    def model_input(self, x: torch.Tensor, angle: float) -> tuple[torch.Tensor, float]:
        return x, float(np.interp(angle, self.angles, np.arange(len(self.angles))))

    def velocity(self, output: torch.Tensor, x: torch.Tensor, angle: float) -> torch.Tensor:
        if self.prediction_type == "v_prediction":
            return output
        if self.prediction_type == "epsilon":
            return (output - math.sin(angle) * x) / math.cos(angle)
        return (math.cos(angle) * x - output) / math.sin(angle)


class RectifiedFlow:
    """A network that predicts `noise - clean` at `(1 - t) * clean + t * noise`, for any t in [0, 1]."""

    def __init__(self, scheduler):
        self.num_train_timesteps = scheduler.config.num_train_timesteps
        self.start, self.end = math.atan(FLOW_SIGMA_MIN), math.pi / 2

    def model_input(self, x: torch.Tensor, angle: float) -> tuple[torch.Tensor, float]:
        norm = math.cos(angle) + math.sin(angle)
        return x / norm, math.sin(angle) / norm * self.num_train_timesteps

    def velocity(self, output: torch.Tensor, x: torch.Tensor, angle: float) -> torch.Tensor:
        cos, sin = math.cos(angle), math.sin(angle)
        return ((cos - sin) * x + output) / (cos + sin)


class PreconditionedFlow:
    """A network with EDM's preconditioning, from `sigma_min` to `sigma_max` of the scheduler."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.start, self.end = math.atan(scheduler.config.sigma_min), math.atan(scheduler.config.sigma_max)

    def model_input(self, x: torch.Tensor, angle: float) -> tuple[torch.Tensor, float]:
        sigma = math.tan(angle)
        scaled = self.scheduler.precondition_inputs(x / math.cos(angle), sigma)
        return scaled, self.scheduler.precondition_noise(sigma).item()

    def velocity(self, output: torch.Tensor, x: torch.Tensor, angle: float) -> torch.Tensor:
        clean = self.scheduler.precondition_outputs(x / math.cos(angle), output, math.tan(angle))
        return (math.cos(angle) * x - clean) / math.sin(angle)


def probability_flow(scheduler) -> VariancePreservingFlow | RectifiedFlow | PreconditionedFlow:
    """The ODE of networks that are sampled with this scheduler.

    Raises:
        ValueError: for a scheduler of another kind, and for noise prediction at zero terminal SNR.
    """
    if hasattr(scheduler, "precondition_outputs"):
        return PreconditionedFlow(scheduler)
    is_variance_preserving = hasattr(scheduler, "alphas_cumprod")
    kind = scheduler.config.get("prediction_type", None if is_variance_preserving else "flow_prediction")
    if kind == "flow_prediction":
        return RectifiedFlow(scheduler)
    if is_variance_preserving and kind in ("epsilon", "sample", "v_prediction"):
        return VariancePreservingFlow(scheduler)
    raise ValueError(
        f"The ODE likelihood needs a variance-preserving, flow-matching or EDM scheduler, not "
        f"{type(scheduler).__name__} with prediction_type={kind!r}."
    )


@dataclass
class ODELogLikelihood:
    """The log-density of N images.

    Attributes:
        log_likelihood (`torch.Tensor` of shape (N,)): in nats.
        error (`torch.Tensor` of shape (N,)): the difference from the result with half as many steps, which bounds the
            solver's error; it does not include the error of random probes.
        num_function_evaluations (`int`): how often the network was called for each image, including the solution with
            half the steps.
    """

    log_likelihood: torch.Tensor
    error: torch.Tensor
    num_function_evaluations: int


def ode_log_likelihood(
    network: Callable,
    scheduler,
    images: torch.Tensor,
    probes: torch.Tensor,
    class_labels: torch.Tensor | None = None,
    num_steps: int = 50,
) -> ODELogLikelihood:
    """The log-density of images under a model (Song et al. 2021, eq. 39-40), by the Runge-Kutta method of order 4.

    It is the density of the model's images at the smallest noise level of the model, that is, of `clean + sigma_min *
    noise`: the first level of a discrete process, `sigma_min` of EDM, or 0.002 for a flow.

    Args:
        network: a denoiser that is called like UNet2DModel: `network(sample, timesteps, class_labels=...,
            return_dict=False)[0]` is differentiated with respect to `sample`. Timesteps can be fractional.
        scheduler: the scheduler of the network, see [`probability_flow`].
        images (`torch.Tensor` of shape (N, C, H, W)): any real numbers.
        probes (`torch.Tensor` of shape (K, N, C, H, W)): vectors whose products with the Jacobian give the divergence:
            random vectors with mean 0 and variance 1, or [`exact_trace_probes`].
        class_labels (`torch.Tensor` of shape (N,), *optional*): the classes, for p(image | class).
        num_steps (`int`): the number of steps with four evaluations each; an even number.

    Raises:
        ValueError: for an odd `num_steps`, an unknown scheduler, and a result that is not finite.
    """
    if num_steps < 2 or num_steps % 2:
        raise ValueError(f"num_steps must be an even number of at least 2, not {num_steps}.")
    flow = probability_flow(scheduler)
    images, channels = images.float(), images.shape[1]
    dtype = getattr(network, "dtype", torch.float32)

    def velocity(x: torch.Tensor, angle: float) -> torch.Tensor:
        sample, timestep = flow.model_input(x, angle)
        timesteps = torch.full((len(x),), timestep, device=x.device)
        output = network(sample.to(dtype), timesteps, class_labels=class_labels, return_dict=False)[0]
        # The further channels of a learned variance are not part of the ODE.
        return flow.velocity(output[:, :channels].float(), x, angle)

    def solve(num_steps: int) -> torch.Tensor:
        # The scaling to x = cos(angle) * image shrinks volumes by cos(angle) per dimension.
        cos, dimension = math.cos(flow.start), images[0].numel()
        angles = step_angles(flow.start, flow.end, num_steps)
        x, divergence = integrate(velocity, cos * images, probes, angles)
        log_prior = -0.5 * (x.square().flatten(1).sum(dim=1) + dimension * math.log(2 * math.pi))
        return log_prior + divergence + dimension * math.log(cos)

    fine, coarse = solve(num_steps), solve(num_steps // 2)
    if not fine.isfinite().all():
        raise ValueError("The log-likelihood is not finite: the output of the network is not finite, or unbounded.")
    return ODELogLikelihood(fine, (fine - coarse).abs(), num_function_evaluations(num_steps))


def num_function_evaluations(num_steps: int) -> int:
    """How often [`ode_log_likelihood`] calls the network: four times per step, and again with half the steps."""
    return 4 * num_steps + 4 * (num_steps // 2)


def step_angles(start: float, end: float, num_steps: int) -> list[float]:
    """`num_steps + 1` angles from `start` to `end`, which are denser where there is little noise or little signal.

    There the log-SNR changes fastest, and so does the velocity of a predicted image or noise.
    """
    limit = math.pi / 2 if end < math.pi / 2 else end + NOISE_MARGIN
    logits = np.linspace(math.log(start / (limit - start)), math.log(end / (limit - end)), num_steps + 1)
    angles = limit / (1 + np.exp(-logits))
    return [start, *angles[1:-1].tolist(), end]


def integrate(
    velocity: Callable[[torch.Tensor, float], torch.Tensor],
    x: torch.Tensor,
    probes: torch.Tensor,
    angles: list[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Solves dx/dangle = velocity(x, angle) through `angles`, by the classical Runge-Kutta method.

    Returns:
        `x` at the last angle, and the integral of the velocity's divergence along the path, of shape (N,).
    """
    total = torch.zeros(len(x), device=x.device)
    for start, end in pairwise(angles):
        step, middle = end - start, (start + end) / 2
        v1, d1 = velocity_and_divergence(velocity, x, start, probes)
        v2, d2 = velocity_and_divergence(velocity, x + step / 2 * v1, middle, probes)
        v3, d3 = velocity_and_divergence(velocity, x + step / 2 * v2, middle, probes)
        v4, d4 = velocity_and_divergence(velocity, x + step * v3, end, probes)
        x = x + step / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
        total = total + step / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    return x, total


def velocity_and_divergence(
    velocity: Callable[[torch.Tensor, float], torch.Tensor], x: torch.Tensor, angle: float, probes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """v (N, C, H, W), and the trace of its Jacobian (N,) as the mean of `probe^T J probe` (Hutchinson 1990)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(x, angle)
        traces = []
        for i, probe in enumerate(probes):
            (product,) = torch.autograd.grad(v, x, probe, retain_graph=i + 1 < len(probes))
            traces.append((product * probe).flatten(1).sum(dim=1))
    return v.detach(), torch.stack(traces).mean(dim=0)


def exact_trace_probes(images: torch.Tensor) -> torch.Tensor:
    """Probes (D, N, C, H, W) that give the exact trace: one for each dimension, so only for tiny images."""
    dimension = images[0].numel()
    basis = math.sqrt(dimension) * torch.eye(dimension, device=images.device)
    return basis.view(dimension, 1, *images.shape[1:]).expand(-1, len(images), -1, -1, -1)
