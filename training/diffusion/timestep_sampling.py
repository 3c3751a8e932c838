"""Timesteps drawn as often as their losses ask for (Nichol and Dhariwal 2021, section 3.3)."""

import torch


class LossSecondMoment:
    """Draws timestep t with probability p(t) ~ sqrt(E[L_t**2]), over the latest losses of each timestep.

    Until each timestep has its full history, they are drawn uniformly. The weights 1 / (T p(t)) make the mean of the
    losses what it would be under uniform drawing, with less variance: meant for the variational losses, which differ
    by orders of magnitude between timesteps.

    Args:
        num_train_timesteps (`int`): T.
        history_per_timestep (`int`): how many losses of each timestep count.
        uniform_probability (`float`): the part of the samples that is drawn uniformly ever after.
    """

    def __init__(self, num_train_timesteps: int, history_per_timestep: int = 10, uniform_probability: float = 0.001):
        self.uniform_probability = uniform_probability
        self.losses = torch.zeros(num_train_timesteps, history_per_timestep, dtype=torch.float64)
        self.counts = torch.zeros(num_train_timesteps, dtype=torch.int64)

    def probabilities(self) -> torch.Tensor:
        """p(t), float64 of shape (T,)."""
        num_timesteps, size = self.losses.shape
        if self.counts.min() < size:
            return torch.full((num_timesteps,), 1 / num_timesteps, dtype=torch.float64)
        importance = self.losses.square().mean(dim=1).sqrt()
        uniform = self.uniform_probability
        return (1 - uniform) * importance / importance.sum() + uniform / num_timesteps

    def draw(self, draw) -> tuple[torch.Tensor, torch.Tensor]:
        """A timestep for each sample, int64 of shape (N,), and the weights of their losses, float32 of shape (N,)."""
        uniform = draw.host.uniform()
        probabilities = self.probabilities()
        cumulative = probabilities.cumsum(0)
        timesteps = torch.searchsorted(cumulative, uniform.double() * cumulative[-1], right=True)
        weights = 1 / (len(probabilities) * probabilities[timesteps])
        return timesteps.to(draw.device), weights.float().to(draw.device)

    def record(self, timesteps: torch.Tensor, losses: torch.Tensor) -> None:
        """Take in the unweighted losses of one update, of all processes and in the order of the global batch."""
        history, counts = self.losses.numpy(), self.counts.numpy()
        for timestep, loss in zip(timesteps.tolist(), losses.tolist(), strict=True):
            history[timestep, counts[timestep] % history.shape[1]] = loss
            counts[timestep] += 1

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The history."""
        return {"losses": self.losses, "counts": self.counts}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue with a saved history."""
        self.losses.copy_(state["losses"])
        self.counts.copy_(state["counts"])
