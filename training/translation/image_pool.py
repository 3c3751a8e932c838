"""The history of generated images that CycleGAN shows its discriminators."""

import torch

from diffusers_ext.training.loop.draws import Draw


class ImagePool:
    """Keeps images of earlier steps, and shows a discriminator one of them in place of every second new image.

    Shrivastava et al. 2017 (section 2.3), Zhu et al. 2017 (section 4): a discriminator that sees only the latest
    images forgets what it has learned, and the two networks go round in circles. As in
    https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix, the first images fill the pool and are shown unchanged.
    Afterwards, a new image that is not shown takes the place of the image that is shown instead.

    A step shows images from the pool as it was before the step, and the pool changes after the step. So the images of
    a batch do not depend on how it is divided among processes. With one image per step this is the original algorithm.

    Args:
        size (`int`): how many images the pool holds; 0 for no history.
    """

    def __init__(self, size: int):
        self.size = size
        self.images: torch.Tensor | None = None

    def query(self, images: torch.Tensor, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        """The images to show instead of new ones.

        Args:
            images (`torch.Tensor` of shape (N, ...)): the new images, without gradients.
            draw (`Draw`): the source of the random decisions, equally many in every step.

        Returns:
            `tuple`: the images to show, shaped like `images`; and the places in the pool for the new images, int64
            (N,), -1 for none, which `update` takes.
        """
        if self.size == 0:
            return images, torch.full((len(images),), -1, device=images.device)
        swapped, places = draw.uniform() < 0.5, draw.integers(self.size)
        if self.images is None or len(self.images) < self.size:
            return images, torch.full_like(places, -1)
        old = self.images.index_select(0, places.to(self.images.device)).to(images)
        shown = torch.where(swapped.view(-1, *[1] * (images.ndim - 1)), old, images)
        return shown, torch.where(swapped, places, -1)

    def update(self, images: torch.Tensor, places: torch.Tensor) -> None:
        """Put the new images of the whole batch, (M, ...), at their `places` (M,)."""
        if self.size == 0:
            return
        if self.images is None or len(self.images) < self.size:
            kept = images[:0] if self.images is None else self.images.to(images)
            self.images = torch.cat([kept, images])[: self.size].clone()
            return
        # One image after the other: the last one stays in a place that several have. No wait for the device.
        comes = places[:, None] == torch.arange(self.size, device=places.device)
        last = (comes * torch.arange(1, len(images) + 1, device=places.device)[:, None]).amax(dim=0)
        replaced = (last > 0).view(-1, *[1] * (images.ndim - 1))
        self.images = torch.where(replaced, images.to(self.images)[(last - 1).clamp(min=0)], self.images)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The images of the pool, if it has any."""
        return {} if self.images is None else {"images": self.images}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue with saved images."""
        self.images = state.get("images")
