"""The images at which the chains of earlier steps have arrived."""

import torch

from diffusers_ext.training.loop.draws import Draw


class ReplayBuffer:
    """Keeps images, each with its class, from which chains go on: persistent contrastive divergence.

    Tieleman 2008; Du and Mordatch 2019 (section 3.2); in the form of https://github.com/wgrathwohl/JEM, where the
    buffer is filled with noise at first, and a chain returns its images to the places where it has found them. A step
    sees the buffer as it was before the step, so that a batch does not depend on how it is divided among processes.

    Args:
        size (`int`): how many images it keeps.
        shape (`tuple[int, ...]`): of an image.
        num_classes (`int`, *optional*): how many classes there are.
        restart_probability (`float`): how often a chain starts from new noise instead, with a new class.
        generator (`torch.Generator`): draws the first images and classes, on the CPU.
    """

    def __init__(
        self,
        size: int,
        shape: tuple[int, ...],
        num_classes: int | None,
        restart_probability: float,
        generator: torch.Generator,
    ):
        self.num_classes, self.restart_probability = num_classes, restart_probability
        self.images = 2 * torch.rand((size, *shape), generator=generator) - 1
        self.labels = torch.randint(num_classes or 1, (size,), generator=generator)

    def to(self, device: torch.device) -> "ReplayBuffer":
        """Move the images to a device."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        return self

    def sample(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where the chains of a step begin.

        Args:
            draw (`Draw`): the source of the random decisions, equally many in every step.

        Returns:
            `tuple`: images (N, ...) in [-1, 1], their classes (N,), and their places in the buffer (N,).
        """
        places, restarts = draw.integers(len(self.images)), draw.uniform() < self.restart_probability
        fresh, fresh_labels = 2 * draw.uniform(*self.images.shape[1:]) - 1, draw.integers(self.num_classes or 1)
        images = torch.where(restarts[:, None, None, None], fresh, self.images[places])
        return images, torch.where(restarts, fresh_labels, self.labels[places]), places

    def update(self, images: torch.Tensor, labels: torch.Tensor, places: torch.Tensor) -> None:
        """Put the images and classes with which the chains of the whole batch, (M, ...), end at their places."""
        # Of several images for one place the last stays. All of them are replaced by it, so that it does not matter in
        # which order a device writes.
        order = torch.arange(1, len(places) + 1, device=places.device)
        last = ((places[:, None] == places[None]) * order).argmax(dim=1)
        self.images.index_copy_(0, places, images[last])
        self.labels.index_copy_(0, places, labels[last])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The images and their classes."""
        return {"images": self.images, "labels": self.labels}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue with saved images."""
        self.images, self.labels = state["images"], state["labels"]
