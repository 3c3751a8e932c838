"""The stages of a cascade: each is a network with its scheduler, its guider, and what it was trained for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import BaseGuidance, DiffusionPipeline, ModelMixin, SchedulerMixin
from torch.nn import functional as F

from .checks import check_choice, check_fraction, check_positive_int
from .denoising import run_network
from .images import denormalize, enlarge_images
from .labels import check_label_range
from .networks import get_sample_size, takes_classes
from .palette_tasks import parse_task
from .schedules import NOISE_CONDITIONINGS


SUFFIXES = ("", "_2", "_3", "_4", "_5")
STAGE_OPTIONS = {
    "default_num_inference_steps": 50,
    "null_class_label": None,
    "noise_conditioning": "timestep",
    "conditioning_augmentation": 0.0,
    "conditioning_noise_level": None,
}


@dataclass(frozen=True)
class CascadeStage:
    """One model of a cascade. `options` has the keys of `STAGE_OPTIONS`."""

    suffix: str  # of the names of its components; "" for the base model
    channels: int  # C, of an image
    unet: ModelMixin
    scheduler: SchedulerMixin
    guider: BaseGuidance | None
    options: dict[str, Any]

    @property
    def is_base(self) -> bool:
        return self.suffix == ""

    @property
    def name(self) -> str:
        return f"unet{self.suffix}"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return get_stage_size(self.unet)

    @property
    def num_labels(self) -> int | None:
        return self.unet.config.get("num_class_embeds")

    @property
    def null_class_label(self) -> int | None:
        return self.options["null_class_label"]

    @property
    def takes_low_res(self) -> bool:
        """Whether the network takes the small image as `low_res`, as the upsamplers of ADM do."""
        return bool(self.unet.config.get("low_res_channels"))

    @property
    def takes_noise_level(self) -> bool:
        """Whether the network takes the noise level of the small image in a channel of its own."""
        return self.unet.config.in_channels == 2 * self.channels + 1

    def enlarge(self, images: torch.Tensor, is_noisy: bool) -> torch.Tensor:
        """
        Small images `(N, C, h, w)` at the size of this stage, enlarged as in the training of its network.

        Super-resolvers are trained with images in bytes, by Pillow's bicubic filter. Noise is not rounded.
        """
        if self.takes_low_res:
            return F.interpolate(images, self.size, mode="bilinear")
        if is_noisy:
            return F.interpolate(images, self.size, mode="bicubic", antialias=True)
        return enlarge_images(denormalize(images), self.size) * 2 - 1

    def get_labels(
        self, labels: torch.Tensor | None, num_images: int, device: torch.device
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """The labels for the conditional and the unconditional prediction, `(N,)` each."""
        if not takes_classes(self.unet):
            return None, None
        null_labels = None
        if self.null_class_label is not None:
            null_labels = torch.full((num_images,), self.null_class_label, device=device)
        labels = null_labels if labels is None else labels
        # The unconditional prediction of a super-resolver is that for no image, with the same class, as in training.
        return labels, null_labels if self.is_base else labels

    def run_unet(
        self,
        noise_level: torch.Tensor,
        dtype: torch.dtype,
        sample: torch.Tensor,
        conditioning: torch.Tensor | None,
        class_labels: torch.Tensor | None,
    ) -> torch.Tensor:
        """The output of the network for noisy images, float32 `(n, C, H, W)` or `(n, 2C, H, W)`."""
        conditions = {}
        if class_labels is not None:
            conditions["class_labels"] = class_labels
        if conditioning is not None and self.takes_low_res:
            conditions["low_res"] = conditioning.to(dtype)
        elif conditioning is not None:
            sample = torch.cat([conditioning, sample], dim=1)
        return run_network(self.unet, sample, noise_level, dtype, **conditions)


def get_stage_size(network: ModelMixin) -> tuple[int, int]:
    """Height and width of the images of a network, which must be in its configuration."""
    size = get_sample_size(network)
    if None in size:
        raise ValueError(
            f"The configuration of the {type(network).__name__} must have a `sample_size`, which is missing."
        )
    return size


def spread(name: str, value: Any, stages: Sequence[CascadeStage], default: str | None = None) -> list:
    """
    An argument of a call for each of the stages.

    Args:
        name (`str`): the argument's name, for errors.
        value: a list of one value for each stage, or one value for all. `None` stands for the default.
        stages (`Sequence[CascadeStage]`): the stages.
        default (`str`, *optional*): the option of a stage that is its default.

    Raises:
        ValueError: for a list of another length.
    """
    values = list(value) if isinstance(value, (list, tuple)) else [value] * len(stages)
    if len(values) != len(stages):
        raise ValueError(f"`{name}` must be one or a list of {len(stages)}, but is a list of {len(values)}.")
    return [
        stage.options[default] if value is None and default else value
        for stage, value in zip(stages, values, strict=True)
    ]


# Checks


def check_components(components: dict[str, Any]):
    """Refuses a cascade without base model or super-resolver, incomplete stages, and stages after a missing one."""
    if components["unet"] is None or components["unet_2"] is None:
        raise ValueError("A cascade needs a base model, `unet`, and a super-resolver, `unet_2`.")
    for i, suffix in enumerate(SUFFIXES):
        given = [name for name in ("unet", "scheduler", "guider") if components[name + suffix] is not None]
        if given and not {"unet", "scheduler"} <= set(given):
            raise ValueError(f"A stage needs a network and a scheduler, but there is only `{given[0]}{suffix}`.")
        if given and i > 0 and components[f"unet{SUFFIXES[i - 1]}"] is None:
            raise ValueError(f"There is `unet{suffix}`, but no `unet{SUFFIXES[i - 1]}` before it.")


def check_stages(stages: Sequence[CascadeStage], labels: Sequence[int]):
    """Refuses stages whose channels, sizes or class labels (`labels` are those with names) do not fit each other."""
    for stage, previous in zip(stages, (None, *stages[:-1]), strict=True):
        config, channels, size = stage.unet.config, stage.channels, stage.size
        fitting = (channels,) if stage.is_base else (2 * channels, 2 * channels + 1)
        if config.in_channels not in fitting or config.out_channels not in (channels, 2 * channels):
            raise ValueError(
                f"`{stage.name}` must have {' or '.join(map(str, fitting))} input and {channels} or {2 * channels} "
                f"output channels, as the base model's images have {channels}, but has {config.in_channels} and "
                f"{config.out_channels}."
            )
        if previous is not None and (
            size == previous.size or any(a < b for a, b in zip(size, previous.size, strict=True))
        ):
            raise ValueError(
                f"`{stage.name}` must make larger images than the stage before, but it makes {size[0]} x {size[1]} "
                f"pixels from {previous.size[0]} x {previous.size[1]}."
            )
        network = f"`{stage.name}`"
        check_label_range("id2label", labels, stage.num_labels, network)
        check_label_range("null_class_label", (stage.null_class_label,), stage.num_labels, network)


def check_super_resolver(number: int, pipeline: DiffusionPipeline, previous: DiffusionPipeline):
    """Refuses a pipeline for stage `number` of a cascade that does not enlarge the images of the previous one."""
    tasks, factor = pipeline.config.get("tasks"), pipeline.config.get("default_scale_factor")
    if tasks is not None and not any(parse_task(task).enlarges for task in tasks):
        raise ValueError(f"Stage {number} was not trained for super_resolution, but for {', '.join(tasks)}.")
    if pipeline.config.get("source_noise") is not None:
        raise ValueError(
            f"Stage {number} has a `source_noise`, to start from images, but a cascade starts from noise alone."
        )
    size, small = get_stage_size(pipeline.unet), get_stage_size(previous.unet)
    if factor is not None and tuple(round(side / factor) for side in size) != small:
        raise ValueError(
            f"Stage {number} was trained to make images {factor:g} times as large, of {size[0]} x {size[1]} pixels, "
            f"and does not fit stage {number - 1}, which makes {small[0]} x {small[1]}."
        )


def complete_stage_options(names: Sequence[str], given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """
    All options of all stages.

    Args:
        names (`Sequence[str]`): the names of the stages' networks.
        given (`dict[str, dict]`): options by these names; all others keep the values of `STAGE_OPTIONS`.

    Raises:
        ValueError: for other names, unknown options, or options out of range.
    """
    unknown = set(given) - set(names)
    if unknown:
        raise ValueError(f"`stages` must name networks of the cascade, {list(names)}, but has {sorted(unknown)}.")
    return {name: _complete_options(name, given.get(name, {})) for name in names}


def _complete_options(name: str, given: dict[str, Any]) -> dict[str, Any]:
    unknown = set(given) - set(STAGE_OPTIONS)
    if unknown:
        raise ValueError(
            f"`stages` has unknown options of `{name}`, {sorted(unknown)}: there are {', '.join(STAGE_OPTIONS)}."
        )
    options = {**STAGE_OPTIONS, **given}
    if options["conditioning_noise_level"] is None:
        options["conditioning_noise_level"] = options["conditioning_augmentation"] / 2
    check_positive_int("default_num_inference_steps", options["default_num_inference_steps"])
    check_choice(f"stages[{name!r}]['noise_conditioning']", options["noise_conditioning"], NOISE_CONDITIONINGS)
    for option in ("conditioning_augmentation", "conditioning_noise_level"):
        check_fraction(f"stages[{name!r}][{option!r}]", options[option])
    return options
