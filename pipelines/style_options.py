"""Checks of what a generator with styles takes: styles, noise and truncation."""

import math

import torch
from diffusers import ModelMixin


NOISE_KINDS = ("constant", "random", "none")


def has_styles(generator: ModelMixin) -> bool:
    """Whether images are made from styles, one for each layer."""
    return hasattr(generator, "num_styles")


def per_layer(styles: torch.Tensor, num_styles: int) -> torch.Tensor:
    """The styles of all layers, `(N, num_styles, style_dim)`, from these or from one for all, `(N, style_dim)`."""
    return styles[:, None].repeat(1, num_styles, 1) if styles.ndim == 2 else styles


def check_styles(generator: ModelMixin, styles: torch.Tensor, name: str, num_points: int | None = None) -> None:
    """
    Refuses styles that the generator can't use.

    Args:
        name (`str`): of the argument.
        num_points (`int`, *optional*): what they must have behind the first dimension.
    """
    if not has_styles(generator):
        raise ValueError(f"`{name}` must be left out, because a {type(generator).__name__} has no styles.")
    points = () if num_points is None else (num_points,)
    style_dim, num_styles = generator.config.style_dim, generator.num_styles
    shapes = (*points, style_dim), (*points, num_styles, style_dim)
    is_fitting = torch.is_tensor(styles) and styles.shape[1:] in shapes and len(styles) > 0
    if not is_fitting or not styles.isfinite().all():
        found = tuple(styles.shape) if torch.is_tensor(styles) else type(styles).__name__
        wanted = " or ".join(f"(N, {', '.join(map(str, shape))})" for shape in shapes)
        raise ValueError(f"`{name}` must be a finite tensor of the shape {wanted}, but is {found}.")


def check_style_options(
    generator: ModelMixin,
    number: int,
    noise: str | list[torch.Tensor],
    truncation_psi: float,
    truncation_cutoff: int | None,
    needs_styles: bool = False,
) -> None:
    """Refuses noise or a truncation that the generator can't use; one without styles has none of them."""
    if not has_styles(generator):
        given = {
            "noise": noise != "constant",
            "truncation_psi": truncation_psi != 1,
            "truncation_cutoff": truncation_cutoff is not None,
            "space": needs_styles,
        }
        for name in (name for name, is_given in given.items() if is_given):
            raise ValueError(f"`{name}` must be left out, because a {type(generator).__name__} has no styles.")
        return
    if isinstance(noise, str):
        if noise not in NOISE_KINDS:
            raise ValueError(f"`noise` must be one of {NOISE_KINDS} or a list of maps, but is {noise!r}.")
    else:
        found, shapes = [tuple(values.shape) for values in noise], generator.noise_shapes
        if len(found) != len(shapes) or any(
            shape not in ((1, *wanted), (number, *wanted)) for shape, wanted in zip(found, shapes, strict=True)
        ):
            raise ValueError(f"`noise` must be {number} or one map of each of the shapes {shapes}, but is {found}.")
    is_number = isinstance(truncation_psi, (int, float)) and math.isfinite(truncation_psi)
    if not is_number:
        raise ValueError(f"`truncation_psi` must be a number, but is {truncation_psi!r}.")
    is_cutoff = isinstance(truncation_cutoff, int) and 0 <= truncation_cutoff <= generator.num_styles
    if truncation_cutoff is not None and not is_cutoff:
        raise ValueError(
            f"`truncation_cutoff` must be an integer from 0 to {generator.num_styles}, but is {truncation_cutoff!r}."
        )
    if truncation_cutoff is not None and truncation_psi == 1:
        raise ValueError("`truncation_cutoff` is for a `truncation_psi` other than 1.")
