"""The history of generated images that CycleGAN shows its discriminators."""

import torch

from diffusers_ext.training.loop.draws import Draw


class ImagePool:
    """Keeps images of earlier steps, and shows a discriminator one of them in place of every second new one.

    Shrivastava et al. 2017 (section 2.3), Zhu et al. 2017 (section 4): a discriminator that sees the latest images
    only forgets what it has learned, and the two networks go round in circles. As in
    https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix, the pool fills up with the first images, which are shown
    as they are; afterwards an image that is replaced takes the place of the one that is shown.

    What is shown comes from the pool as it was before the step, and the pool changes after it: so the images of a
    batch do not depend on how it is divided over processes, and with one image per step it is the original's.

    Args:
        size (`int`): how many images it holds; 0 for no history.
    """

    def __init__(self, size: int):
        self.size = size
        self.images: torch.Tensor | None = None

    def query(self, images: torch.Tensor, draw: Draw) -> tuple[torch.Tensor, torch.Tensor]:
        """Images to show instead of new ones.

        Args:
            images (`torch.Tensor` of shape (N, ...)): the new ones, without gradients.
            draw (`Draw`): draws for each of them; as much in every step.

        Returns:
            `tuple`: the images to show, like `images`; and the places in the pool, int64 (N,), that the new ones shall
            take, -1 for none, to be given to `update`.
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
        """Take in new images (M, ...), those of the whole batch, at their `places` (M,)."""
        if self.size == 0:
            return
        if self.images is None or len(self.images) < self.size:
            kept = images[:0] if self.images is None else self.images.to(images)
            self.images = torch.cat([kept, images])[: self.size].clone()
            return
        for image, place in zip(images, places.tolist(), strict=True):
            if place >= 0:
                self.images[place] = image

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The images, once there are any."""
        return {} if self.images is None else {"images": self.images}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue with saved images."""
        self.images = state.get("images")
