"""Moving averages of a network's weights, kept in float32."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _NormBase

from diffusers_ext.training.loop.sharding import divided_like, local


def trained_state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes, by name: parameters that require gradients, and buffers that are saved."""
    frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in network.state_dict().items() if name not in frozen}


def running_statistics(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The running means and variances of a network's normalizations, by name."""
    return {
        f"{name}.{kind}" if name else kind: getattr(module, kind)
        for name, module in network.named_modules()
        if isinstance(module, _NormBase) and module.track_running_stats
        for kind in ("running_mean", "running_var")
    }


class WeightAverage:
    """An average of a network's trained parameters over its training.

    The running statistics of normalizations are averaged too, because the latest ones belong to the latest weights,
    which are far from the average where the learning rate is high. Statistics that are computed anew with the average
    need images, and were not much better (FID of DCGANs: 2% worse to 8% better). Other buffers, such as codebooks, are
    the latest ones. The average is kept in float32 whatever the precision of the network, and divided among processes
    like its weights. Subclasses define its decay.

    Args:
        network (`torch.nn.Module`): the network to follow.
    """

    def __init__(self, network: torch.nn.Module):
        # Listed once, because searching the modules takes as long as averaging. Buffers must be updated in place, as
        # DDP requires too.
        averaged = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        averaged |= running_statistics(network)
        self._averaged = list(averaged.values())
        self._tensors = {**averaged, **dict(network.named_buffers())}
        self.averages = {name: tensor.detach().float().clone() for name, tensor in averaged.items()}
        others = {name: buffer for name, buffer in network.named_buffers() if name not in averaged}
        self.buffers = {name: buffer.detach().clone() for name, buffer in others.items()}

    def decay_at(self, num_updates: int) -> float:
        """The weight of the old average in the `num_updates`-th update (from 1), in [0, 1)."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Add the network's weights after its `num_updates`-th update (from 1) to the average."""
        latest = [local(tensor.detach()).float() for tensor in self._averaged]
        averages = [local(average) for average in self.averages.values()]
        torch._foreach_lerp_(averages, latest, 1 - self.decay_at(num_updates))
        for name, buffer in self.buffers.items():
            buffer.copy_(self._tensors[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside of this context the network holds the average; afterwards it gets its own weights back."""
        own = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
        self._copy_to_network({**self.averages, **self.buffers})
        try:
            yield
        finally:
            self._copy_to_network(own)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The averages and the other buffers, under the names that they have in the network."""
        return {**self.averages, **self.buffers}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from a saved average.

        Raises:
            ValueError: if names are missing or left over.
        """
        own = self.state_dict()
        if state.keys() != own.keys():
            raise ValueError(
                f"The saved average belongs to another network: {sorted(own.keys() - state.keys())} are missing, and "
                f"{sorted(state.keys() - own.keys())} are left over."
            )
        for name, tensor in own.items():
            tensor.copy_(divided_like(state[name], tensor))

    @torch.no_grad()
    def _copy_to_network(self, values: dict[str, torch.Tensor]) -> None:
        for name, tensor in self._tensors.items():
            tensor.copy_(values[name])


class HalfLifeEMA(WeightAverage):
    """The exponential moving average whose half-life is given in images (Karras et al. 2018 and later).

    Args:
        network (`torch.nn.Module`): the network to follow.
        half_life (`int`): after how many images an old weight counts half.
        batch_size (`int`): the images of an update.
        rampup (`float`, *optional*): the half-life is at most this fraction of the images seen so far.
    """

    def __init__(self, network: torch.nn.Module, half_life: int, batch_size: int, rampup: float | None = None):
        super().__init__(network)
        self.half_life, self.batch_size, self.rampup = half_life, batch_size, rampup

    def decay_at(self, num_updates: int) -> float:
        half_life = self.half_life
        if self.rampup is not None:
            half_life = min(half_life, num_updates * self.batch_size * self.rampup)
        return 0.5 ** (self.batch_size / half_life)


class EMA(WeightAverage):
    """The exponential moving average, with a faster decay at the beginning.

    Its decay is min(decay, (1 + n) / (10 + n)) after n updates, so the random initial weights soon have no weight.

    Args:
        network (`torch.nn.Module`): the network to follow.
        decay (`float`): in [0, 1).
    """

    def __init__(self, network: torch.nn.Module, decay: float):
        super().__init__(network)
        self.decay = decay

    def decay_at(self, num_updates: int) -> float:
        return min(self.decay, (1 + num_updates) / (10 + num_updates))
