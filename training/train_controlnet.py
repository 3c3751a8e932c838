r"""Train a ControlNet: a text-to-image model that also follows a control image, such as edges.

    accelerate launch training/train_controlnet.py --pretrained_model_name_or_path <base> \
        --train_data_dir ~/captioned --condition canny

Zhang et al. 2023 ("Adding Conditional Control to Text-to-Image Diffusion Models"). Control images are computed from
the training images, or come from a column of the data set. `ControlNetModel.from_pretrained` (for Stable Diffusion 3
`SD3ControlNetModel.from_pretrained`) and the ControlNet pipelines of diffusers read the result.
"""

from __future__ import annotations

from diffusers_ext.training.loop.command import run

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoPipelineForText2Image, DiffusionPipeline

from diffusers_ext.data.conditions import LABEL_MAP_CONDITIONS, canny, describe_conditions, load_condition
from diffusers_ext.data.decoding import UnreadableImageError, decode_image, decode_label_colors
from diffusers_ext.data.transforms import ImageTransform
from diffusers_ext.metrics import edge_f1
from diffusers_ext.pixels import as_uint8, to_pixel_values
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.loop.configuration import JSONObject, option
from diffusers_ext.training.loop.context import TrainingContext
from diffusers_ext.training.loop.model_files import save_model, write_whole
from diffusers_ext.training.text_to_image.text_to_image_recipe import (
    TextToImageConfig,
    TextToImageRecipe,
    row_title,
)


GRID_ROWS = 4


class ControlNetRecipe(TextToImageRecipe):
    """Zhang et al. 2023: the base stays unchanged, and a network beside it learns to control it."""

    def networks(self):
        name = self.config.controlnet_model_name_or_path
        # Before the base is cast to a lower precision: this copy of its weights is trained.
        self._start = self.control.new() if name is None else self.control.load(name, self.config.cache_dir)
        self.control.freeze_unread(self._start)
        return super().networks()

    def trained_networks(self):
        if self.config.gradient_checkpointing:
            self.base.denoiser.enable_gradient_checkpointing()  # gradients pass through it
        return {"controlnet": self._start}

    def residuals(self, noisy_latents, timesteps, text, batch, draw):
        condition = self.control.condition(self.control_images(batch), draw, self.moments)
        inputs = self.base.denoiser_inputs(text, batch["time_ids"])
        return self.control.residuals(self.controlnet, noisy_latents, timesteps, condition, inputs)

    def control_images(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The control images of a batch of images, (N, 3, H, W) in [-1, 1]."""
        if self.make_control is None:
            return batch["conditioning_pixel_values"]
        return self.make_control(batch["conditioning_pixel_values" if self.config.of_label_maps else "pixel_values"])

    def pipeline(self, controlnet) -> DiffusionPipeline:
        """The base's pipeline with the ControlNet."""
        self.base.pipeline.set_progress_bar_config(disable=True)
        return AutoPipelineForText2Image.from_pipe(super().pipeline(), controlnet=controlnet)

    def save(self, pipeline, folder: Path):
        write_whole(partial(save_model, pipeline.controlnet), folder, last="config.json")

    # What stands around the algorithm

    def __init__(self, config: ControlNetConfig, context: TrainingContext):
        super().__init__(config, context)
        self.control = self.base.control()
        self.make_control = load_condition(config.condition, config.condition_options) if config.condition else None
        if self.make_control is not None:  # its options are checked when it is called
            self.make_control(torch.full((1, 3, *config.size), -1.0))
        self.shown_prompts, self.shown_controls = self._shown_pairs()
        self._uncontrolled = None

    def image_options(self) -> dict:
        return {**super().image_options(), "conditioning_label_maps": self.config.label_maps}

    def identity(self) -> dict:
        options = {"condition": self.config.condition, "condition_options": dict(self.config.condition_options)}
        return {**super().identity(), **options}

    # Samples

    def _shown_pairs(self) -> tuple[list[str], torch.Tensor]:
        """The rows of the grid: prompts, and their control images (K, 3, H, W) in [-1, 1]."""
        config = self.config
        transform = ImageTransform(config.size, center_crop=True, label_maps=config.label_maps)
        if config.validation_images is not None:
            files = [_read_control(path, transform, config.max_image_pixels) for path in config.validation_images]
            return config.validation_prompts, to_pixel_values(torch.stack(files))
        count = GRID_ROWS if config.validation_prompts is None else len(config.validation_prompts)
        captions, controls = [], []
        for batch in self.dataset.reference_batches(1, limit=count):
            names = [name for name in batch if name.endswith("pixel_values")]
            fitted = transform.fit(*(batch[name][0] for name in names))[None].split(3, dim=1)
            batch |= {name: to_pixel_values(image) for name, image in zip(names, fitted, strict=True)}
            captions.append(self.dataset.captions[batch["caption_ids"].item()])
            controls.append(self.control_images(batch))
        prompts = config.validation_prompts or captions
        return prompts, torch.cat([controls[row % len(controls)] for row in range(len(prompts))])

    def validation_inputs(self):
        repeats = self.config.num_validation_images
        images = [image / 2 + 0.5 for image in self.shown_controls for _ in range(repeats)]
        prompts = [prompt for prompt in self.shown_prompts for _ in range(repeats)]
        return {"prompt": prompts, self.control.image_argument: images}

    def sample_grid(self, generate):
        """A row for each prompt: the control image, and images that should follow it."""
        count = self.config.num_validation_images
        controls = as_uint8(self.shown_controls)[:, None]
        rows = torch.cat([controls, self._shown_images(generate).unflatten(0, (-1, count))], dim=1)
        titles = ["control", *["sample"] * count]
        names = [row_title(prompt) for prompt in self.shown_prompts]
        return sample_grid(rows.flatten(0, 1), count + 1, titles, names)

    def evaluate(self, generate):
        """The measures of all recipes, and edge_f1: how well the edges in the samples match the control images."""
        rows = super().evaluate(generate) or [{"provenance": self._call_arguments()}]
        if self._uncontrolled is None:  # the base never changes, and so do its images of these prompts
            prompts = {"prompt": self.validation_inputs()["prompt"]}
            self._uncontrolled = self.generate(replace(generate, pipeline=self.base.pipeline), prompts)
        rows[0]["edge_f1"] = self._edge_f1(self._shown_images(generate))
        rows[0]["edge_f1_without_control"] = self._edge_f1(self._uncontrolled)
        return rows

    def _edge_f1(self, images: torch.Tensor) -> float:
        config = self.config
        options = config.condition_options if config.condition == "canny" else {}
        is_edges = config.control_is_edges
        if is_edges is None:
            is_edges = config.condition in ("canny", "soft_edges")
        shown = self.shown_controls.mean(dim=1) if is_edges else canny(self.shown_controls, **options)[:, 0]
        expected = (shown > 0).repeat_interleave(config.num_validation_images, dim=0)
        found = canny(to_pixel_values(images), **options)[:, 0] > 0
        return edge_f1(found, expected).mean().item()

    def describe(self) -> dict:
        config, name = self.config, self.control.controlnet_class.__name__
        source = config.condition or config.conditioning_image_column or "conditioning images"
        return {
            "task": f"Text to image with control: a ControlNet for a {self.base.class_name}, controlled by {source}.",
            "loading": f"from diffusers import AutoPipelineForText2Image, {name}\n{self.base.loading()}"
            f'controlnet = {name}.from_pretrained("{{address}}")\n'
            "pipe = AutoPipelineForText2Image.from_pipe(pipe, controlnet=controlnet)\n"
            f"image = pipe({self.shown_prompts[0]!r}, {self.control.image_argument}=control_image).images[0]",
            "base_model": self.base_model(),
            "tags": ["text-to-image", "controlnet"],
            "pipeline_tag": "text-to-image",
        }


def _read_control(path: str, transform: ImageTransform, max_pixels: int | None) -> torch.Tensor:
    """The control image in a file, (3, H, W) uint8."""
    try:
        if transform.label_maps is None:
            return transform.fit(decode_image(path, 3, max_pixels))
        colors = decode_label_colors(path, max_pixels)
        return transform.fit(colors, colors)[3:]  # the second is resized without mixing colours
    except UnreadableImageError as error:
        raise ValueError(f"--validation_images: {path}: {error}.") from error


def _condition_help() -> str:
    lines = [f"{name}: {line}" for name, line in describe_conditions().items()]
    text = (
        "How control images are computed, from the training images or from the label maps in "
        f"--conditioning_image_column: {' '.join(lines)} Or a function of your own, as module:function. By default "
        "the images of --conditioning_image_column or --conditioning_image_dir (depth, edges, poses ...) are used "
        "unchanged."
    )
    return text


@dataclass
class ControlNetConfig(TextToImageConfig):
    """The options of train_controlnet.py."""

    takes_conditioning_images = True

    condition: str | None = option(help=_condition_help(), group="data", essential=True)
    condition_options: JSONObject = option(
        JSONObject(), help="Its options, as JSON or a YAML mapping, such as '{\"sigma\": 2.0}'.", group="data"
    )
    controlnet_model_name_or_path: str | None = option(
        help="A ControlNet for this base to start from, instead of a copy of the denoiser.", group="network"
    )
    validation_images: list[str] | None = option(
        help="The control images of the sample grids: files, one for each of --validation_prompts; by default those "
        "of the first images of the data set.",
        group="evaluation",
    )
    control_is_edges: bool | None = option(
        help="Whether control images show edges, bright on dark. edge_f1 compares these with the edges of samples; "
        "for other control images it compares the edges in them. By default, true for canny and soft_edges.",
        group="evaluation",
    )

    def __post_init__(self):
        super().__post_init__()
        given = self.has_conditioning_images()
        self.require(
            self.condition is not None or given,
            "--condition, --conditioning_image_column or --conditioning_image_dir is required: how control images are "
            "computed, or where they are",
        )
        self.require(
            not self.of_label_maps or given,
            f"--condition {self.condition} needs label maps: set --conditioning_image_column or "
            "--conditioning_image_dir",
        )
        self.require(
            self.condition is None or self.of_label_maps or not given,
            f"--condition {self.condition} computes control images, and {' '.join(self.conditioning_options())} "
            "contains some: leave out one of them",
        )
        self.require(
            not self.of_label_maps or self.conditioning_label_maps is None,
            f"--condition {self.condition} colours label maps itself: leave out --conditioning_label_maps",
        )
        self.require(
            not self.prior_prompts, "--prior_prompts measure changes of the base, which a ControlNet leaves unchanged"
        )
        self.require(
            self.condition is not None or not self.condition_options, "--condition_options need a --condition"
        )
        self.require(
            self.validation_images is None or len(self.validation_images) == len(self.validation_prompts or ()),
            "--validation_images must be as many as --validation_prompts, one for each",
        )

    @property
    def of_label_maps(self) -> bool:
        """Whether control images are computed from label maps, and not from the training images."""
        return self.condition in LABEL_MAP_CONDITIONS

    @property
    def label_maps(self) -> str | None:
        """How label maps are read; None if the conditioning images are none."""
        return "levels" if self.of_label_maps else self.conditioning_label_maps


if __name__ == "__main__":
    run(ControlNetRecipe, ControlNetConfig)
