"""What networks that compute energies have in common: their output, and checks."""

from dataclasses import dataclass

import torch
from diffusers import ModelMixin
from diffusers.utils import BaseOutput


@dataclass
class EnergyModelOutput(BaseOutput):
    """
    The output of networks that compute energies.

    Args:
        energy (`torch.Tensor` of shape `(N,)`):
            The energy of each image: minus the logarithm of its density, up to a constant. Low is likely.
        class_energies (`torch.Tensor` of shape `(N, num_classes)`, *optional*):
            The energy of each image with each class, where a network computes them all at once.
    """

    energy: torch.Tensor
    class_energies: torch.Tensor | None = None


def energy_output(
    logits: torch.Tensor, class_labels: torch.Tensor | None, return_dict: bool
) -> EnergyModelOutput | tuple[torch.Tensor, ...]:
    """
    Energies from the logits of a classifier (Grathwohl et al. 2020, eqs. 5 and 6).

    Args:
        logits (`torch.Tensor` of shape `(N, K)`): minus the energy of each class, or of a single one.
        class_labels (`torch.Tensor` of shape `(N,)`, *optional*): the class of each image. Without them it is the
            energy of the image with any class.
        return_dict (`bool`): whether to return an [`EnergyModelOutput`] instead of a tuple.
    """
    if class_labels is None:
        energy = -logits.logsumexp(dim=1)  # of a single logit, that logit
    else:
        energy = -logits.gather(1, class_labels.long()[:, None]).squeeze(1)
    class_energies = -logits if logits.shape[1] > 1 else None
    if not return_dict:
        return (energy,) if class_energies is None else (energy, class_energies)
    return EnergyModelOutput(energy=energy, class_energies=class_energies)


def check_energy_arguments(num_classes: int | None, **sizes: int) -> None:
    """Refuses sizes below 1, and a single class, which would be none."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{name}` must be at least 1, but is {size}.")
    if num_classes is not None and num_classes < 2:
        raise ValueError(
            f"`num_classes` must be at least 2, or None for a network without classes, not {num_classes}."
        )


def check_energy_inputs(model: ModelMixin, sample: torch.Tensor, class_labels: torch.Tensor | None) -> None:
    """Refuses images of other channels or of another size, and labels that do not fit the network."""
    channels, size = model.config.in_channels, model.config.get("sample_size")
    size = (size, size) if isinstance(size, int) else size
    wanted = ("H", "W") if size is None or not model.has_fixed_size else tuple(size)
    fits = sample.ndim == 4 and sample.shape[1] == channels and wanted in (("H", "W"), tuple(sample.shape[2:]))
    if not fits:
        shape = ", ".join(map(str, (channels, *wanted)))
        raise ValueError(f"`sample` must be (N, {shape}), but is {tuple(sample.shape)}.")
    if class_labels is None:
        if model.needs_class_labels:
            raise ValueError("`class_labels` must be given, because the network has classes.")
    elif model.config.num_classes is None:
        raise ValueError("`class_labels` must be left out, because the network has no classes.")
    elif class_labels.shape != sample.shape[:1]:
        raise ValueError(f"`class_labels` must be ({len(sample)},), one per image, not {tuple(class_labels.shape)}.")
