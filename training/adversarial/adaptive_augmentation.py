"""Adaptive discriminator augmentation: as many changes of images as keep the discriminator from memorising them.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data",
https://huggingface.co/papers/2006.06676. Each change is made with the probability p, independently for each image, so
that a generator whose images have the changes in them would be found out as long as p is well below 1.
"""

import math

import torch
import torch.nn.functional as F


# The kinds of changes in the order of appendix B; the names on the right are those of the paper's figure 4.
GEOMETRY = ("flip", "turn", "move", "scale", "rotate", "stretch", "shift")
COLOUR = ("brightness", "contrast", "invert", "hue", "saturation")
AUGMENTATION_SETS = {"b": GEOMETRY[:3], "bg": GEOMETRY, "bgc": GEOMETRY + COLOUR}
LOG2_SCALE_STD = 0.2  # of the scale and of the stretch, in powers of two
SHIFT_STD = 0.125  # as a fraction of the side
LARGEST_MOVE = 0.125  # by whole pixels, as a fraction of the side
BRIGHTNESS_STD, LOG2_CONTRAST_STD, LOG2_SATURATION_STD = 0.2, 0.5, 1.0


def check_augmentations(names: list[str]) -> None:
    """Refuses a name that is no change and no set of changes."""
    known = (*AUGMENTATION_SETS, *GEOMETRY, *COLOUR)
    for name in names:
        if name not in known:
            raise ValueError(f"There is no augmentation {name!r}: the names are {', '.join(known)}.")


def augment_images(images: torch.Tensor, names: list[str], probability: torch.Tensor, draw) -> torch.Tensor:
    r"""
    Images with each of the changes `names`, each made with `probability`.

    All geometric changes are one map of positions, by which the image is sampled once, bilinearly, with its reflection
    around it. Colours change along and around the grey axis.

    Args:
        images (`torch.Tensor` of shape (N, C, H, W)): in [-1, 1]; colours can leave this range.
        names (`list[str]`): changes, or keys of `AUGMENTATION_SETS`.
        probability (`torch.Tensor`): p, a single number.
        draw ([`~diffusers_ext.training.loop.draws.Draw`]): the random numbers of N samples. The same numbers are drawn
            whatever the probability.
    """
    chosen = {change for name in names for change in AUGMENTATION_SETS.get(name, (name,))}
    geometry = [name for name in GEOMETRY if name in chosen]
    colour = [name for name in COLOUR if name in chosen]
    if geometry:
        chances, values = draw.uniform(len(geometry)) < probability, _geometric_values(draw)
        images = _sampled(images, _positions(images, geometry, chances, values))
    if colour:
        chances, normal = draw.uniform(len(colour)) < probability, draw.normal(len(COLOUR))
        for number, name in enumerate(colour):
            changed = _recoloured(images, name, normal[:, COLOUR.index(name)])
            images = torch.where(chances[:, number, None, None, None], changed, images)
    return images


def _geometric_values(draw) -> dict[str, torch.Tensor]:
    """The random numbers of all geometric changes: a row per image."""
    return {"uniform": draw.uniform(6), "normal": draw.normal(4)}


def _positions(images, names: list[str], chances, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """The matrices (N, 2, 3) from positions of the new image to positions of the old one, both in [-1, 1]."""
    number, _, height, width = images.shape
    matrix = torch.eye(3, device=images.device).repeat(number, 1, 1)
    uniform, normal = values["uniform"].unbind(dim=1), values["normal"].unbind(dim=1)
    ones, zeros = torch.ones_like(uniform[0]), torch.zeros_like(uniform[0])
    for position, name in enumerate(names):
        if name == "flip":
            change = _affine(torch.where(uniform[0] < 0.5, -ones, ones), zeros, zeros, ones)
        elif name == "turn":
            angle = (uniform[1] * 4).floor() * (math.pi / 2)
            change = _affine(angle.cos(), -angle.sin(), angle.sin(), angle.cos())
        elif name == "move":  # by whole pixels
            moves = [(2 * u - 1) * LARGEST_MOVE for u in uniform[2:4]]
            moves = [(move * side).round() * 2 / side for move, side in zip(moves, (width, height), strict=True)]
            change = _affine(ones, zeros, zeros, ones, *moves)
        elif name == "scale":
            scale = (normal[0] * LOG2_SCALE_STD).exp2()
            change = _affine(scale, zeros, zeros, scale)
        elif name == "rotate":
            angle = (2 * uniform[4] - 1) * math.pi
            change = _affine(angle.cos(), -angle.sin(), angle.sin(), angle.cos())
        elif name == "stretch":
            scale = (normal[1] * LOG2_SCALE_STD).exp2()
            change = _affine(scale, zeros, zeros, 1 / scale)
        else:
            change = _affine(ones, zeros, zeros, ones, normal[2] * SHIFT_STD * 2, normal[3] * SHIFT_STD * 2)
        changed = matrix @ change
        matrix = torch.where(chances[:, position, None, None], changed, matrix)
    return matrix[:, :2]


def _affine(a, b, c, d, x=None, y=None) -> torch.Tensor:
    """Matrices (N, 3, 3) of the four numbers and the offset, each (N,)."""
    zeros, ones = torch.zeros_like(a), torch.ones_like(a)
    rows = (a, b, zeros if x is None else x), (c, d, zeros if y is None else y), (zeros, zeros, ones)
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _sampled(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False).to(images.dtype)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _recoloured(images: torch.Tensor, name: str, normal: torch.Tensor) -> torch.Tensor:
    normal = normal[:, None, None, None].to(images.dtype)
    if name == "brightness":
        return images + normal * BRIGHTNESS_STD
    if name == "contrast":
        return images * (normal * LOG2_CONTRAST_STD).exp2()
    grey = images.mean(dim=1, keepdim=True)
    if name == "invert":  # the brightness alone; half of the images, because this is no change that can be found out
        return torch.where(normal < 0, images - 2 * grey, images)
    if name == "saturation":
        return grey + (images - grey) * (normal * LOG2_SATURATION_STD).exp2()
    if images.shape[1] != 3:
        return images  # there is no hue
    # A rotation around the grey axis (Rodrigues), by any angle alike.
    angle = torch.special.ndtr(normal) * (2 * math.pi)
    crossed = (images.roll(1, dims=1) - images.roll(-1, dims=1)) / math.sqrt(3)
    return grey + (images - grey) * angle.cos() + crossed * angle.sin()


class AdaptiveProbability:
    r"""
    The probability of changes, which follows the overfitting of the discriminator (section 3 of the paper).

    The measure is r = E[sign(D(x))] for real images x: 1 for a discriminator that knows them all. When r is above the
    target, the probability rises, and falls otherwise.

    Args:
        start (`float`): the first probability.
        target (`float`, *optional*): of r; `None` keeps the probability.
        images_to_one (`int`): after how many images it rises from 0 to 1.
        interval (`int`): every which update it changes.
        device (`torch.device`): where it is kept.
    """

    def __init__(self, start: float, target: float | None, images_to_one: int, interval: int, device: torch.device):
        self.target, self.images_to_one, self.interval = target, images_to_one, interval
        self.value = torch.tensor(start, dtype=torch.float32, device=device)
        # The sum of signs and the number of images since the last change, and the updates since then.
        self.seen = torch.zeros(3, device=device)

    def update(self, real_logits: torch.Tensor) -> torch.Tensor:
        """Take the scores (M,) of the real images of an update into account, and return their mean sign."""
        signs = real_logits.float().sign()
        if self.target is not None:
            self.seen = self.seen + torch.stack([signs.sum(), signs.new_tensor(len(signs)), signs.new_tensor(1.0)])
            step = self.seen[1] / self.images_to_one
            changed = self.value + (self.seen[0] / self.seen[1] - self.target).sign() * step
            is_due = self.seen[2] >= self.interval
            self.value = torch.where(is_due, changed.clamp(0, 1), self.value)
            self.seen = torch.where(is_due, torch.zeros_like(self.seen), self.seen)
        return signs.mean()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"augmentation_probability": self.value, "signs_seen": self.seen}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        device = self.value.device
        self.value, self.seen = state["augmentation_probability"].to(device), state["signs_seen"].to(device)
