"""Post-hoc EMA (Karras et al. 2024, section 3 and appendix C): averages of any length, made after the training.

The training keeps averages with a profile p(tau) ~ tau**gamma over the training so far, for one or two exponents, and
stores them at regular intervals. Any other such profile is nearly a linear combination of the stored ones, and the
same combination of the stored weights is the average with that profile. A profile is identified by its standard
deviation relative to the length of the training, sigma_rel in the paper: 0.10 averages over about the last tenth.
"""

import json
import math
import re
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffusers_ext.atomic import written_beside
from diffusers_ext.training.loop.ema import WeightAverage
from diffusers_ext.training.loop.sharding import gathered


FOLDER = "posthoc_ema"
LARGEST_STD = 12**-0.5  # gamma = 0, the plain mean over the whole training


def gamma_of_std(std: float) -> float:
    """The exponent gamma of the profile with this relative standard deviation.

    Raises:
        ValueError: if `std` is not between 0 and 0.2887, the value of the plain mean.
    """
    if not 0 < std < LARGEST_STD:
        raise ValueError(f"The length of an average must be between 0 and {LARGEST_STD:.4f}, not {std}.")
    # std**2 = (gamma + 1) / ((gamma + 2)**2 (gamma + 3)), multiplied out. Exactly one root is not negative.
    t = std**-2
    return float(np.roots([1.0, 7.0, 16.0 - t, 12.0 - t]).real.max())


def profile_product(gamma_a, step_a, gamma_b, step_b) -> np.ndarray:
    """The inner product of two profiles, the integral of p_a(tau) p_b(tau); the arguments broadcast.

    p(tau) = (gamma + 1) tau**gamma / step**(gamma + 1) from 0 to its step, and 0 after it.
    """
    overlap = np.minimum(step_a, step_b)
    powers = (overlap / step_a) ** gamma_a * (overlap / step_b) ** gamma_b
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * powers / np.maximum(step_a, step_b)


def posthoc_coefficients(stored: list[tuple[float, int]], std: float, step: int) -> tuple[list[float], float]:
    """The combination of stored profiles that is nearest to a wanted profile, by least squares (section 3.2).

    Args:
        stored (`list[tuple[float, int]]`): the length (relative standard deviation) and the step of each profile.
        std, step: the length and the step of the wanted profile.

    Returns:
        `tuple`: a coefficient for each stored profile, and the relative L2 error of the combination.

    Raises:
        ValueError: if a length is out of range.
    """
    if (std, step) in stored:
        # The solution is known exactly; solving the equations would add rounding errors.
        return [float(profile == (std, step)) for profile in stored], 0.0
    gammas = np.array([gamma_of_std(length) for length, _ in stored])
    steps = np.array([float(at) for _, at in stored])
    gamma = gamma_of_std(std)
    products = profile_product(gammas[:, None], steps[:, None], gammas, steps)
    projections = profile_product(gammas, steps, gamma, float(step))
    coefficients = np.linalg.solve(products, projections)
    # The combination is an orthogonal projection.
    missed = 1 - coefficients @ projections / profile_product(gamma, float(step), gamma, float(step))
    return coefficients.tolist(), math.sqrt(max(missed, 0.0))


class PowerEMA(WeightAverage):
    """The average with the profile tau**gamma over the training so far (section 3.1).

    Args:
        network (`torch.nn.Module`): the network to follow.
        std (`float`): the relative standard deviation of the profile, between 0 and 0.2887.
    """

    def __init__(self, network: torch.nn.Module, std: float):
        super().__init__(network)
        self.gamma = gamma_of_std(std)

    def decay_at(self, num_updates: int) -> float:
        return (1 - 1 / num_updates) ** (self.gamma + 1)


class PostHocEMA:
    """The power-function averages of some networks, and their snapshots in `posthoc_ema/step-<step>`.

    Args:
        output_dir (`str` or `Path`): the output folder of the run.
        networks (`dict`): the unwrapped networks, by name.
        stds (`list[float]`): the relative standard deviations of the profiles to keep.
    """

    def __init__(self, output_dir: str | Path, networks: dict[str, torch.nn.Module], stds: list[float]):
        self.output_dir = Path(output_dir)
        self._averages = {(name, std): PowerEMA(network, std) for name, network in networks.items() for std in stds}

    @property
    def averages(self) -> dict[str, PowerEMA]:
        """The averages, by the name of a file for each."""
        return {f"{name}_{std}": average for (name, std), average in self._averages.items()}

    def update(self, num_updates: int) -> None:
        """Add the networks' weights after their `num_updates`-th update (from 1) to the averages."""
        for average in self._averages.values():
            average.update(num_updates)

    def write_snapshot(self, step: int, is_main_process: bool = True) -> None:
        """Write all averages to `posthoc_ema/step-<step>`, which appears only when it is complete.

        All processes call it; the main process writes.
        """
        states = {key: gathered(average.state_dict(), is_main_process) for key, average in self._averages.items()}
        if not is_main_process:
            return
        with written_beside(self.output_dir / FOLDER / f"step-{step}") as folder:
            for (name, std), average in self._averages.items():
                metadata = {"network": name, "std": std, "buffers": list(average.buffers)}
                tensors = {key: tensor.contiguous() for key, tensor in states[name, std].items()}
                # A single entry, because the order of several entries would differ from file to file.
                save_file(tensors, folder / f"{name}_{std}.safetensors", {"average": json.dumps(metadata)})


class Snapshots:
    """The snapshots that a run left in its output folder.

    Args:
        output_dir (`str` or `Path`): the output folder of the run.

    Raises:
        FileNotFoundError: if there are none.
    """

    def __init__(self, output_dir: str | Path):
        folder = Path(output_dir) / FOLDER
        self._files = {}
        for path in folder.glob("step-*/*.safetensors"):
            with safe_open(path, framework="pt") as file:
                metadata = _metadata(file)
            profile = metadata["std"], int(re.fullmatch(r"step-(\d+)", path.parent.name)[1])
            self._files.setdefault(metadata["network"], {})[profile] = path
        if not self._files:
            raise FileNotFoundError(f"{folder} has no snapshots: train with --posthoc_ema_stds.")

    @property
    def networks(self) -> list[str]:
        """The networks that have snapshots."""
        return sorted(self._files)

    @property
    def steps(self) -> list[int]:
        """The steps that have snapshots, in ascending order."""
        return sorted({step for files in self._files.values() for _, step in files})

    def reconstruct(self, network: str, std: float, step: int) -> tuple[dict[str, torch.Tensor], float]:
        """The average of a network's weights with another profile, and its other buffers as they were at `step`.

        The running statistics of normalizations are averaged like weights.

        Args:
            network (`str`): its name in the recipe.
            std (`float`): the relative standard deviation of the profile, between 0 and 0.2887. The result is best
                between the stored lengths; other lengths need snapshots at short intervals.
            step (`int`): where the average ends: a step that has a snapshot.

        Returns:
            `tuple`: the tensors by name (weights in float32, buffers as they are), and the relative L2 error of the
                profile.

        Raises:
            ValueError: if the step has no snapshot, or `std` is out of range.
        """
        if step not in self.steps:
            raise ValueError(f"There is no snapshot of step {step}, only of {', '.join(map(str, self.steps))}.")
        # Later snapshots contain later weights, which would only have to be cancelled out.
        files = {profile: path for profile, path in sorted(self._files[network].items()) if profile[1] <= step}
        coefficients, error = posthoc_coefficients(list(files), std, step)
        sums, buffers = {}, {}
        for (profile, path), coefficient in zip(files.items(), coefficients, strict=True):
            with safe_open(path, framework="pt") as file:
                buffer_names = _metadata(file)["buffers"]
                if profile[1] == step:
                    buffers = {name: file.get_tensor(name) for name in buffer_names}
                if coefficient == 0:
                    continue
                for name in sorted(set(file.keys()) - set(buffer_names)):
                    term = coefficient * file.get_tensor(name).double()
                    sums[name] = sums[name] + term if name in sums else term
        for name in sums:
            if name.rpartition(".")[2] == "running_var":  # some coefficients are negative, but no variance is
                sums[name] = sums[name].clamp(min=0)
        return {**{name: total.float() for name, total in sums.items()}, **buffers}, error


def _metadata(file) -> dict:
    metadata = file.metadata() or {}
    if "average" not in metadata:
        raise ValueError(f"A file in {FOLDER} is not a snapshot of an average.")
    return json.loads(metadata["average"])
