"""Images from images: colorization, inpainting, uncropping, restoration, super-resolution and paired translation."""

import inspect
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers import (
    BaseGuidance,
    ClassifierFreeGuidance,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    ImagePipelineOutput,
    ModelMixin,
    SASolverScheduler,
    SchedulerMixin,
    UNet2DModel,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils.torch_utils import randn_tensor, unwrap_module
from PIL import Image, ImageOps
from torch.nn import functional as F


TASKS = (
    "colorization",
    "inpainting",
    "uncropping",
    "jpeg_restoration",
    "super_resolution",
    "denoising",
    "deblurring",
    "translation",
)
NOISE_CONDITIONINGS = ("timestep", "gamma", "sqrt_gamma")

# Of these some pixels are known, and stay as they are; of the other tasks none.
MASKED_TASKS = ("inpainting", "uncropping")
# 0.299, 0.587 and 0.114 of red, green and blue (ITU-R 601), in the 65536ths that Pillow counts in
LUMA = (19595, 38470, 7471)

ImageInput = Image.Image | np.ndarray | torch.Tensor
Box = tuple[int, int, int, int]


def accepts(function: Callable, argument: str) -> bool:
    return argument in inspect.signature(function).parameters


def is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def is_box(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 4 and all(map(is_integer, value))


def check_positive_int(name: str, value: Any):
    if not is_integer(value) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, but is {value!r}.")


# Copied from diffusers_ext.pipelines.pipeline_class_conditional.quiet_guiders
@contextmanager
def quiet_guiders() -> Iterator[None]:
    """Every guider built warns that guiders are experimental; who passed a mere number did not choose one."""
    logger = logging.getLogger("diffusers.guiders.guider_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def picture_to_array(image: Image.Image) -> np.ndarray:
    """Upright, `(H, W)` or `(H, W, C)` with one channel, three, or one more for transparency; uint8 or in `[0, 1]`."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("A float picture has no defined range: pass an array from 0 to 1 instead.")
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.float32) / 65535
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return np.array(image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA"))
    return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def to_tensor(name: str, image: ImageInput) -> torch.Tensor:
    """One picture, array `(H, W)` or `(H, W, C)`, or tensor `(H, W)` or `(C, H, W)`, as float32 `(C, H, W)`."""
    if isinstance(image, Image.Image):
        image = picture_to_array(image)
    if not isinstance(image, (np.ndarray, torch.Tensor)):
        raise ValueError(f"`{name}` must be a PIL image, an array or a tensor, but is a {type(image).__name__}.")
    shape = tuple(image.shape)
    if isinstance(image, np.ndarray):
        if image.dtype.kind not in "biuf":
            raise ValueError(f"`{name}` must hold floats from 0 to 1 or bytes, but holds {image.dtype}.")
        # torch knows no other order of bytes than that of the machine
        native = image.dtype.newbyteorder("=")
        image = torch.from_numpy(np.array(image.transpose(2, 0, 1) if image.ndim == 3 else image, dtype=native))
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or 0 in shape:
        raise ValueError(f"`{name}` must have the shape (H, W, C) or, of a tensor, (C, H, W), but has {shape}.")

    if image.dtype == torch.uint8:
        return image.float() / 255
    if not image.is_floating_point() and image.dtype != torch.bool:
        raise ValueError(f"`{name}` must hold floats from 0 to 1 or bytes, but holds {image.dtype}.")
    image = image.float()
    low, high = image.aminmax()
    if not (low >= 0 and high <= 1):  # so that NaN is refused too
        raise ValueError(f"`{name}` must hold values from 0 to 1, but they go from {low:.8g} to {high:.8g}.")
    return image


def fit_channels(name: str, image: torch.Tensor, channels: int, background: float = 1.0) -> torch.Tensor:
    """`(C, H, W)` to `(channels, H, W)`, between grayscale and colour, with transparency and without."""
    if len(image) == channels:
        return image
    if len(image) not in (1, 2, 3, 4) or channels not in (1, 2, 3, 4):
        raise ValueError(f"`{name}` must have {channels} channels, but has {len(image)}.")
    alpha = torch.ones_like(image[:1])
    if len(image) in (2, 4):
        image, alpha = image[:-1], image[-1:]
    if channels in (1, 3):
        image = image * alpha + background * (1 - alpha)
    if channels in (1, 2) and len(image) == 3:
        image = to_gray(image)
    if channels in (3, 4):
        image = image.expand(3, -1, -1)
    return image if channels in (1, 3) else torch.cat([image, alpha])


def to_gray(image: torch.Tensor) -> torch.Tensor:
    """`(..., 3, H, W)` to `(..., 1, H, W)`, as bytes are by Pillow, to the bit."""
    luma = torch.tensor(LUMA, dtype=image.dtype, device=image.device)[:, None, None]
    levels = ((image * 255).round() * luma).sum(-3, keepdim=True)
    return ((levels + 32768) / 65536).floor() / 255


def is_gray(image: torch.Tensor) -> bool:
    """Whether the colours of `(C, H, W)` are all gray."""
    return len(image) < 3 or torch.equal(image[:1].expand(3, -1, -1), image[:3])


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin, spread evenly, that overlap by `overlap` or more and cover `length`."""
    if length <= tile:
        return [0]
    last = math.ceil((length - overlap) / (tile - overlap)) - 1
    return [round(i * (length - tile) / last) for i in range(last + 1)]


class PalettePipeline(DiffusionPipeline):
    r"""
    Makes an image of a degraded one, or of any image that goes with it: Palette (Saharia et al. 2022,
    https://huggingface.co/papers/2111.05826) and SR3 (Saharia et al. 2021, https://huggingface.co/papers/2104.07636).

    The network sees the conditioning image and, behind it, the noisy one. Where pixels are unknown, in inpainting and
    uncropping, the conditioning image is standard normal noise. Known pixels of the noisy image are the clean ones in
    every step, and are returned unchanged. https://github.com/Janspiry/Palette-Image-to-Image-Diffusion-Models does
    the same.

    Args:
        unet ([`UNet2DModel`]):
            The denoiser, or any model with the same call: `unet(sample, timesteps, class_labels=...,
            return_dict=False)` returns a tuple whose first entry is the prediction for the image, `(N, C, H, W)`, or
            `(N, 2C, H, W)` where the network predicts the variance too. `sample` is `(N, conditioning channels + C,
            H, W)`, the conditioning image first. Images are in `[-1, 1]`.
        scheduler ([`SchedulerMixin`]):
            The noise schedule and the solver.
        guider ([`BaseGuidance`], *optional*):
            How conditional and unconditional predictions are combined. The unconditional one is that for a
            conditioning image of zeros, with the same class. Without a guider, a `guidance_scale` given in the call
            means plain classifier-free guidance.
        tasks (`list[str]`, *optional*):
            What the network was trained for: names among `colorization`, `inpainting`, `uncropping`,
            `jpeg_restoration`, `super_resolution`, `denoising`, `deblurring` and `translation` (any paired images),
            several of them at once as in `"deblurring+denoising"`, or the user's own. Without, nobody knows, and
            all is tried.
        noise_conditioning (`str`, defaults to `"timestep"`):
            What the network is told of the noise: the scheduler's `"timestep"`, `"gamma"`, which is alpha_bar_t
            (Palette), or `"sqrt_gamma"`, its root (SR3).
        source_noise (`float`, *optional*):
            For flows, where the network was trained to start from the degraded image, its unknown pixels filled by
            [`smooth_fill`], with Gaussian noise of this standard deviation, instead of from noise alone: a
            data-dependent coupling (Albergo et al. 2023, https://huggingface.co/papers/2310.03725).
        conditioning_fill (`str`, defaults to `"noise"`):
            What the network is shown where pixels are unknown: Gaussian `"noise"` (Palette), or what is made of those
            that are known, `"smooth"` by [`smooth_fill`] or `"mirror"` by [`mirror_fill`].
        image_channels (`int`, *optional*):
            C. By default `out_channels` of the network, or half of them where they are no fewer than `in_channels`.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.
        null_class_label (`int`, *optional*):
            The label that stands for "no class".
        default_num_inference_steps (`int`, defaults to 50):
            The number of steps of a call that does not say how many: what the scheduler of this pipeline needs.
        default_scale_factor (`float`, *optional*):
            How much larger super-resolution makes images in a call that does not say.
        conditioning_augmentation (`float`, defaults to 0.0):
            The highest noise level of the small images that a network for a cascade was trained for: above 0, it
            expects the level in a channel of its own behind the conditioning image, which is 0 here, where images are
            clean. See [`CascadePipeline`].

    Raises:
        ValueError: if arguments do not fit each other or the network.
    """

    model_cpu_offload_seq = "unet"
    _optional_components = ["guider"]
    _callback_tensor_inputs = ["latents", "noise_pred"]

    def __init__(
        self,
        unet: UNet2DModel | ModelMixin,
        scheduler: SchedulerMixin,
        guider: BaseGuidance | None = None,
        # diffusers takes lists in model_index.json for components: a dictionary is what is saved, and comes back.
        tasks: list[str] | tuple[str, ...] | dict | None = None,
        noise_conditioning: str = "timestep",
        source_noise: float | None = None,
        conditioning_fill: str = "noise",
        image_channels: int | None = None,
        # JSON has no integer keys: model_index.json gives strings back.
        id2label: dict[int, str] | dict[str, str] | None = None,
        null_class_label: int | None = None,
        default_num_inference_steps: int = 50,
        default_scale_factor: float | None = None,
        conditioning_augmentation: float = 0.0,
    ):
        super().__init__()
        if tasks is not None:
            if isinstance(tasks, str) or not tasks or not all(isinstance(task, str) for task in tasks):
                raise ValueError(f"`tasks` must be a list of names, such as ['inpainting'], but is {tasks!r}.")
            tasks = dict.fromkeys(tasks)
        if noise_conditioning not in NOISE_CONDITIONINGS:
            raise ValueError(
                f"`noise_conditioning` must be one of {', '.join(NOISE_CONDITIONINGS)}, but is {noise_conditioning!r}."
            )
        if conditioning_fill not in ("noise", *FILLS):
            raise ValueError(
                f"`conditioning_fill` must be one of noise, {', '.join(FILLS)}, but is {conditioning_fill!r}."
            )
        in_channels, out_channels = unet.config.in_channels, unet.config.out_channels
        if image_channels is None:
            image_channels = out_channels if out_channels < in_channels else out_channels // 2
        if not is_number(conditioning_augmentation) or not 0 <= conditioning_augmentation < 1:
            raise ValueError(
                f"`conditioning_augmentation` must be from 0 to less than 1, but is {conditioning_augmentation!r}."
            )
        num_levels = 1 if conditioning_augmentation > 0 else 0
        if image_channels + num_levels >= in_channels or out_channels not in (image_channels, 2 * image_channels):
            raise ValueError(
                f"A network of {in_channels} input and {out_channels} output channels cannot make images of "
                f"{image_channels} channels from others: it needs conditioning channels in front of the noisy ones."
            )
        if source_noise is not None:
            if not is_number(source_noise) or source_noise <= 0:
                raise ValueError(f"`source_noise` must be above 0, but is {source_noise!r}.")
            if image_channels + num_levels != in_channels - image_channels:
                raise ValueError(
                    f"`source_noise` must be left out, for images of {in_channels - image_channels - num_levels} "
                    f"channels cannot be a start for those of {image_channels}."
                )
        if id2label is not None:
            if not all(str(label).isdigit() for label in id2label):
                raise ValueError(f"`id2label` must map class ids to names, but has the keys {list(id2label)[:5]}.")
            id2label = {int(label): name for label, name in id2label.items()}
        num_labels = unet.config.get("num_class_embeds") or math.inf
        for name, labels in (("id2label", id2label or ()), ("null_class_label", (null_class_label,))):
            for label in labels:
                if label is not None and not 0 <= label < num_labels:
                    raise ValueError(f"`{name}` has the label {label}, but the network has {num_labels}, from 0 on.")
        check_positive_int("default_num_inference_steps", default_num_inference_steps)
        if default_scale_factor is not None:
            self._check_scale_factor("default_scale_factor", default_scale_factor)

        self.register_modules(unet=unet, scheduler=scheduler, guider=guider)
        self.register_to_config(
            tasks=tasks,
            noise_conditioning=noise_conditioning,
            source_noise=source_noise,
            conditioning_fill=conditioning_fill,
            image_channels=image_channels,
            id2label=id2label,
            null_class_label=null_class_label,
            default_num_inference_steps=default_num_inference_steps,
            default_scale_factor=default_scale_factor,
            conditioning_augmentation=conditioning_augmentation,
        )
        self._interrupt = False
        self._num_timesteps = 0

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "PalettePipeline":
        """As in diffusers, which alone would leave behind models of other classes than the signature names."""
        models = {name: model for name, model in pipeline.components.items() if isinstance(model, ModelMixin)}
        models = {name: model for name, model in models.items() if accepts(cls.__init__, name)}
        return super().from_pipe(pipeline, **{**models, **kwargs})

    @property
    def _conditioning_channels(self) -> int:
        num_levels = 1 if self.config.conditioning_augmentation > 0 else 0
        return self.unet.config.in_channels - self.config.image_channels - num_levels

    @property
    def _has_classes(self) -> bool:
        return any(self.unet.config.get(key) is not None for key in ("num_class_embeds", "class_embed_type"))

    # Copied from diffusers_ext.pipelines.pipeline_class_conditional.ClassConditionalPipeline._reads_variance
    @property
    def _reads_variance(self) -> bool:
        """Whether the scheduler's step wants the learned variance behind the prediction, as ancestral ones do."""
        # A config keeps the options of other classes, hence the look at the signature; these solvers have the option
        # only to drop what lies behind the third channel.
        scheduler = self.scheduler
        if isinstance(scheduler, (DPMSolverMultistepScheduler, DPMSolverSinglestepScheduler, SASolverScheduler)):
            return False
        has_option = accepts(type(scheduler).__init__, "variance_type")
        return has_option and scheduler.config.variance_type in ("learned", "learned_range")

    @property
    def _size_multiple(self) -> int:
        """A UNet2DModel halves the image after each block but the last."""
        return 2 ** (len(self.unet.config.get("block_out_channels", [0])) - 1)

    @property
    def interrupt(self) -> bool:
        """A callback that sets `pipe._interrupt = True` makes the step the last one."""
        return self._interrupt

    @property
    def num_timesteps(self) -> int:
        """The number of scheduler steps of the latest call."""
        return self._num_timesteps

    # What the user passes

    @staticmethod
    def _check_scale_factor(name: str, value: Any):
        if not is_number(value) or value < 1:
            raise ValueError(f"`{name}` must be a number from 1 up, but is {value!r}.")

    def _read_images(self, image: ImageInput | list[ImageInput]) -> list[torch.Tensor]:
        """Each as float32 `(C, H, W)` in `[0, 1]`, with the channels that it has, all of one size."""
        if isinstance(image, (np.ndarray, torch.Tensor)) and image.ndim == 4:
            image = list(image)
        images = image if isinstance(image, (list, tuple)) else [image]
        if not images:
            raise ValueError("`image` is empty: pass one image or more.")
        images = [to_tensor("image", entry) for entry in images]
        sizes = sorted({(tensor.shape[2], tensor.shape[1]) for tensor in images})
        if len(sizes) > 1:
            raise ValueError(
                f"The images of one call must have one size, but these have {len(sizes)} (width, height): {sizes[:5]}."
            )
        return images

    def _get_task(self, task: str | None, images: list[torch.Tensor], mask_image, padding, sizes: list) -> str:
        """The task named, or the one that the arguments tell."""
        tasks = self.config.tasks
        if task is None:
            task = self._infer_task(images, mask_image, padding, sizes)
        if not isinstance(task, str):
            raise ValueError(f"`task` must be one name, such as 'inpainting', but is {task!r}.")
        if tasks is None and not all(part in TASKS for part in task.split("+")):
            raise ValueError(f"There is no task {task!r}: `task` must be one of {', '.join(TASKS)}.")
        if tasks is not None and task not in tasks:
            raise ValueError(f"The model was not trained for the task {task!r}, but for {', '.join(tasks)}.")
        return task

    def _infer_task(self, images: list[torch.Tensor], mask_image, padding, sizes: list) -> str:
        tasks = self.config.tasks
        if mask_image is not None:
            return self._choose_task("inpainting", self._takes_mask)
        if padding is not None:
            return self._choose_task("uncropping", lambda task: "uncropping" in task.split("+"))
        if any(size is not None for size in sizes):
            return self._choose_task("super_resolution", lambda task: "super_resolution" in task.split("+"))
        if tasks is None:
            return "translation"
        if len(tasks) == 1:
            return next(iter(tasks))
        needy = {"super_resolution", *MASKED_TASKS}
        candidates = [task for task in tasks if needy.isdisjoint(task.split("+"))]
        if "colorization" in candidates and len(candidates) > 1:
            if all(map(is_gray, images)):
                return "colorization"
            candidates.remove("colorization")
        if len(candidates) == 1:
            return candidates[0]
        raise ValueError(f"The image does not tell the task: pass `task`, one of {', '.join(tasks)}.")

    def _choose_task(self, name: str, is_like: Callable[[str], bool]) -> str:
        """The task of this name, or the only one of the model that is like it."""
        alike = [task for task in self.config.tasks or [name] if is_like(task)]
        return alike[0] if len(alike) == 1 else name

    @staticmethod
    def _takes_mask(task: str) -> bool:
        return any(part in MASKED_TASKS or part not in TASKS for part in task.split("+"))

    @staticmethod
    def _keeps_pixels(task: str) -> bool:
        """Whether pixels outside of a mask are clean, which in a combination of tasks they may not be."""
        return all(part in MASKED_TASKS or part not in TASKS for part in task.split("+"))

    def _check_task_arguments(self, task: str, mask_image, padding, scale_factor, height, width):
        """Whether what a task needs is given, and nothing else."""
        parts = task.split("+")
        sizes = {"scale_factor": scale_factor, "height": height, "width": width}
        sizes = [name for name, value in sizes.items() if value is not None]
        if mask_image is not None and not self._takes_mask(task):
            raise ValueError(f"`mask_image` is for inpainting, and means nothing to the task {task!r}.")
        if padding is not None and "uncropping" not in parts:
            raise ValueError(f"`padding` is for uncropping, and means nothing to the task {task!r}.")
        if sizes and "super_resolution" not in parts:
            raise ValueError(f"`{sizes[0]}` is for super_resolution, and means nothing to the task {task!r}.")

        if "inpainting" in parts and mask_image is None:
            raise ValueError("Inpainting needs `mask_image`, which is white where pixels are to be made.")
        if "uncropping" in parts and (mask_image is None) == (padding is None):
            raise ValueError("Uncropping needs `padding` of (left, top, right, bottom) pixels, or else `mask_image`.")
        has_mask = mask_image is not None or padding is not None
        if has_mask and self._conditioning_channels != self.config.image_channels:
            raise ValueError(
                f"The network cannot keep pixels, for it sees images of {self._conditioning_channels} channels and "
                f"makes images of {self.config.image_channels}."
            )
        if "super_resolution" in parts and sizes not in (["scale_factor"], ["height", "width"]):
            if sizes or self.config.default_scale_factor is None:
                raise ValueError("Super-resolution needs either `scale_factor` or both `height` and `width`.")

    def _read_masks(self, mask_image, num_images: int, height: int, width: int) -> torch.Tensor:
        """Bool `(num_images, 1, H, W)`: where pixels are to be made."""
        if isinstance(mask_image, (np.ndarray, torch.Tensor)) and mask_image.ndim == 4:
            mask_image = list(mask_image)
        one_per_image = isinstance(mask_image, (list, tuple)) and not is_box(mask_image)
        if one_per_image and num_images == 1 and all(map(is_box, mask_image)):
            one_per_image = False
        masks = list(mask_image) if one_per_image else [mask_image]
        if isinstance(mask_image, (list, tuple)) and not mask_image:
            raise ValueError("`mask_image` is empty: pass a mask, or a box (left, top, right, bottom).")
        if len(masks) not in (1, num_images):
            raise ValueError(f"`mask_image` must be one mask or {num_images}, one per image, but is {len(masks)}.")
        masks = [self._read_mask(mask, height, width) for mask in masks]
        return torch.stack(masks).expand(num_images, -1, -1, -1)

    @staticmethod
    def _read_mask(mask, height: int, width: int) -> torch.Tensor:
        if isinstance(mask, (list, tuple)):
            unknown = torch.zeros(1, height, width, dtype=torch.bool)
            for box in [mask] if is_box(mask) else mask:
                if not is_box(box):
                    raise ValueError(f"A box of `mask_image` must be (left, top, right, bottom), but is {box!r}.")
                left, top, right, bottom = box
                if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                    raise ValueError(
                        f"The box {tuple(box)} of `mask_image`, which is (left, top, right, bottom), does not lie in "
                        f"the image of {width} x {height} pixels."
                    )
                unknown[:, top:bottom, left:right] = True
            return unknown

        mask = to_tensor("mask_image", mask)
        if mask.max() == torch.tensor(1.0) / 255:
            mask = mask * 255  # bytes that are 0 and 1, as those of segmentations, instead of 0 and 255
        # what is transparent in a drawing of the mask was not painted
        mask = fit_channels("mask_image", mask, 1, background=0.0)
        if mask.shape[1:] != (height, width):
            raise ValueError(
                f"`mask_image` must have the size of the image, {width} x {height} pixels, but has {mask.shape[2]} x "
                f"{mask.shape[1]}."
            )
        return mask >= 0.5

    def _uncrop(self, images: torch.Tensor, padding) -> tuple[torch.Tensor, torch.Tensor]:
        """The padded images, filled for the time being, and where they are padded."""
        if not is_box(padding) or min(padding) < 0 or max(padding) == 0:
            raise ValueError(f"`padding` must be (left, top, right, bottom) pixels to add, but is {padding!r}.")
        left, top, right, bottom = padding
        images, known = (F.pad(x, (left, right, top, bottom)) for x in (images, torch.ones_like(images[:, :1])))
        unknown = known == 0
        mirrored = self.config.conditioning_fill == "mirror"
        return mirror_fill(images, unknown, share=1 / 4) if mirrored else layered_fill(images, unknown), unknown

    def _enlarge(self, images: torch.Tensor, scale_factor, height, width) -> torch.Tensor:
        if height is None:
            scale_factor = self.config.default_scale_factor if scale_factor is None else scale_factor
            self._check_scale_factor("scale_factor", scale_factor)
            height, width = (round(size * scale_factor) for size in images.shape[2:])
        for name, size, old_size in (("height", height, images.shape[2]), ("width", width, images.shape[3])):
            check_positive_int(name, size)
            if size < old_size:
                raise ValueError(f"`{name}` must be {old_size}, that of the image, or more, but is {size}.")
        if (height, width) == images.shape[2:]:
            return images
        # As Pillow does, which SR3 uses: one axis after the other, in bytes, halves rounded up. The filter with
        # antialiasing is Pillow's (a = -0.5) also where images grow.
        levels = (images * 255).round()
        for size in ((images.shape[2], width), (height, width)):
            levels = (F.interpolate(levels, size, mode="bicubic", antialias=True) + 0.5).floor().clamp(0, 255)
        return levels / 255

    def prepare_images(
        self,
        image: ImageInput | list[ImageInput],
        task: str | None = None,
        mask_image: ImageInput | Box | list | None = None,
        padding: Box | None = None,
        scale_factor: float | None = None,
        height: int | None = None,
        width: int | None = None,
    ) -> tuple[str, torch.Tensor, torch.Tensor | None]:
        """
        What the arguments of `__call__` of these names mean, at the size of the result.

        Returns:
            `tuple`: the task, the images that the network is shown, float32 `(N, C, H, W)` in `[0, 1]`, and where
            they are to be hidden by noise, bool `(N, 1, H, W)`, or `None`.

        Raises:
            ValueError: for input that cannot be carried out.
        """
        tensors = self._read_images(image)
        task = self._get_task(task, tensors, mask_image, padding, [scale_factor, height, width])
        self._check_task_arguments(task, mask_image, padding, scale_factor, height, width)
        channels = self._conditioning_channels
        images = torch.stack([fit_channels("image", tensor, channels) for tensor in tensors])

        unknown, parts = None, task.split("+")
        if "super_resolution" in parts:
            images = self._enlarge(images, scale_factor, height, width)
        if "colorization" in parts and channels == 3:
            images = to_gray(images).expand(-1, 3, -1, -1)
        if mask_image is not None:
            unknown = self._read_masks(mask_image, len(images), *images.shape[2:]).to(images.device)
        elif padding is not None:
            images, unknown = self._uncrop(images, padding)
        return task, images, unknown

    def get_label_ids(self, class_labels, num_images: int) -> list[int]:
        r"""
        The class id of each image, by labels given by id or by a name in `id2label`, one for all or one per image.

        Raises:
            ValueError: for an unknown or ambiguous label, or another number of them.
        """
        if isinstance(class_labels, (torch.Tensor, np.ndarray)):
            class_labels = class_labels.tolist()
        labels = list(class_labels) if isinstance(class_labels, (list, tuple, range)) else [class_labels]
        if len(labels) not in (1, num_images):
            raise ValueError(f"`class_labels` must be one label or {num_images}, one per image, but is {len(labels)}.")
        ids = [self._get_label_id(label) for label in labels]
        return ids * num_images if len(ids) == 1 else ids

    def _get_label_id(self, label: int | str | np.generic | torch.Tensor) -> int:
        if isinstance(label, (np.generic, np.ndarray, torch.Tensor)) and label.ndim == 0:
            label = label.item()
        id2label = self.config.id2label or {}
        if isinstance(label, str):
            ids = [known_id for known_id, name in id2label.items() if name == label]
            if len(ids) != 1:
                names = ", ".join(map(repr, list(id2label.values())[:20])) or "no names at all"
                raise ValueError(f"The name {label!r} stands for {len(ids)} classes: the pipeline knows {names}.")
            return ids[0]
        if not is_integer(label):
            raise ValueError(f"`class_labels` must hold class ids (integers) or class names, but holds {label!r}.")
        num_labels = self.unet.config.get("num_class_embeds") or math.inf
        if not 0 <= label < num_labels or label == self.config.null_class_label:
            raise ValueError(f"There is no class {label} among the {num_labels} labels of the network, from 0 on.")
        return label

    def check_inputs(
        self,
        shape: tuple[int, int, int, int],
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None,
        num_inference_steps: int | None,
        timesteps: list[int] | None,
        sigmas: list[float] | None,
        guidance_scale: float | None,
        strength: float,
        eta: float,
        tile_size: int | None,
        tile_overlap: int | None,
        tile_batch_size: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        callback_on_step_end_tensor_inputs: list[str],
    ):
        """Refuses, with a `ValueError` of one sentence, what the call could not carry out; `shape` is the result's."""
        self._check_classes(class_labels)
        self._check_guidance(guidance_scale)
        self._check_steps(num_inference_steps, timesteps, sigmas, eta)
        self._check_noise_conditioning()
        if not is_number(strength) or not 0 < strength <= 1:
            raise ValueError(f"`strength` must be above 0 and at most 1, but is {strength!r}.")
        if strength < 1 and self._conditioning_channels != self.config.image_channels:
            raise ValueError(
                f"`strength` must be 1, for images of {self._conditioning_channels} channels cannot be a start for "
                f"those of {self.config.image_channels}."
            )
        if strength < 1 and not hasattr(self.scheduler, "add_noise") and not hasattr(self.scheduler, "scale_noise"):
            raise ValueError(
                f"`strength` must be 1, for {type(self.scheduler).__name__} cannot add the noise of a later timestep."
            )
        self._check_size(*shape[2:], tile_size, tile_overlap, tile_batch_size)
        if latents is not None and tuple(latents.shape) != shape:
            raise ValueError(f"`latents` must have the shape {shape}, but has {tuple(latents.shape)}.")
        if isinstance(generator, list) and len(generator) != shape[0]:
            raise ValueError(
                f"`generator` must be one generator or {shape[0]}, one per image, but is {len(generator)}."
            )
        self._check_output_type(output_type)
        for name in callback_on_step_end_tensor_inputs:
            if name not in self._callback_tensor_inputs:
                known = self._callback_tensor_inputs
                raise ValueError(f"`callback_on_step_end_tensor_inputs` must be among {known}, but has {name!r}.")

    def _check_classes(self, class_labels):
        if class_labels is not None and not self._has_classes:
            raise ValueError("`class_labels` must be left out, for the network has no classes.")
        if class_labels is None and self._has_classes and self.config.null_class_label is None:
            raise ValueError(
                "`class_labels` must be given, for the pipeline has no `null_class_label` to stand for none."
            )

    def _check_guidance(self, guidance_scale):
        if hasattr(self.guider, "guide"):
            raise ValueError(f"{type(self.guider).__name__} needs a classifier, which this pipeline does not have.")
        if guidance_scale is None:
            return
        if not is_number(guidance_scale):
            raise ValueError(f"`guidance_scale` must be a finite number, but is {guidance_scale!r}.")
        if self.guider is not None and "guidance_scale" not in self.guider.config:
            raise ValueError(
                f"`guidance_scale` is no parameter of the pipeline's guider, {type(self.guider).__name__}."
            )

    def _check_steps(self, num_inference_steps, timesteps, sigmas, eta):
        scheduler = type(self.scheduler).__name__
        schedules = {"num_inference_steps": num_inference_steps, "timesteps": timesteps, "sigmas": sigmas}
        given = [name for name, value in schedules.items() if value is not None]
        if len(given) > 1:
            raise ValueError(
                f"Only one of `num_inference_steps`, `timesteps` and `sigmas` can be given, but {given} are."
            )
        if num_inference_steps is not None:
            check_positive_int("num_inference_steps", num_inference_steps)
        for name in given:
            if not accepts(self.scheduler.set_timesteps, name):
                raise ValueError(f"`{name}` cannot be given, for {scheduler} makes its own.")
        if not is_number(eta) or not 0 <= eta <= 1:
            raise ValueError(f"`eta` must be between 0 (DDIM) and 1 (DDPM), but is {eta!r}.")
        if eta != 0 and not accepts(self.scheduler.step, "eta"):
            raise ValueError(f"`eta` must be 0, for {scheduler} does not know it, but is {eta}.")

    def _check_noise_conditioning(self):
        # A solver can integrate flows, and keeps a table of alphas then that means nothing.
        config = self.scheduler.config
        is_flow = not hasattr(self.scheduler, "alphas_cumprod") or config.get("use_flow_sigmas", False)
        if self.config.source_noise is not None and not is_flow:
            raise ValueError(
                f"The network is one of a flow that starts from the image, and the pipeline's "
                f"{type(self.scheduler).__name__} is for diffusion."
            )
        if self.config.noise_conditioning != "timestep" and is_flow:
            raise ValueError(
                f"The network is told {self.config.noise_conditioning!r}, the noise level of a diffusion process, "
                f"which the pipeline's {type(self.scheduler).__name__} does not have."
            )

    def _check_size(self, height, width, tile_size, tile_overlap, tile_batch_size):
        multiple = self._size_multiple
        if tile_size is not None:
            check_positive_int("tile_size", tile_size)
            check_positive_int("tile_batch_size", tile_batch_size)
            if tile_size % multiple != 0:
                raise ValueError(
                    f"`tile_size` must be a multiple of {multiple}, for the network halves images, but is {tile_size}."
                )
            if tile_overlap is not None and (not is_integer(tile_overlap) or not 0 <= tile_overlap < tile_size):
                raise ValueError(
                    f"`tile_overlap` must be from 0 to less than `tile_size`, {tile_size}, but is {tile_overlap!r}."
                )
        elif tile_overlap is not None:
            raise ValueError("`tile_overlap` needs `tile_size`, without which the image is processed whole.")
        for side, size in (("height", height), ("width", width)):
            # of a side longer than a tile the network never sees the whole
            if size % multiple != 0 and (tile_size is None or size < tile_size):
                raise ValueError(
                    f"The {side} of the image must be a multiple of {multiple}, for the network halves images, but is "
                    f"{size}."
                )

    def _check_output_type(self, output_type):
        channels = self.config.image_channels
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` must be 'pil', 'np' or 'pt', but is {output_type!r}.")
        if output_type == "pil" and channels not in (1, 3, 4):
            raise ValueError(f"PIL has no images of {channels} channels: pass `output_type='np'` or 'pt'.")

    # Sampling

    def _set_timesteps(self, device: torch.device, strength: float, **schedule) -> torch.Tensor:
        """The timesteps of the call: with `strength` below 1 the last ones of the scheduler's."""
        schedule = {name: value for name, value in schedule.items() if value is not None}
        if not schedule:
            schedule["num_inference_steps"] = self.config.default_num_inference_steps
        self.scheduler.set_timesteps(device=device, **schedule)
        timesteps = self.scheduler.timesteps
        # a solver of second order visits two timesteps in a step
        order = getattr(self.scheduler, "order", 1)
        num_steps = math.ceil(len(timesteps) / order)
        begin = (num_steps - max(round(num_steps * strength), 1)) * order
        if hasattr(self.scheduler, "set_begin_index"):
            # Otherwise the scheduler looks up its first timestep, which waits for the device.
            self.scheduler.set_begin_index(begin)
        return timesteps[begin:]

    def _prepare_labels(
        self, class_labels, num_inputs: int, num_images_per_input: int, device: torch.device
    ) -> torch.Tensor | None:
        """The label of each result, `(N,)`; none for a network without classes."""
        if not self._has_classes:
            return None
        ids = [self.config.null_class_label] * num_inputs
        if class_labels is not None:
            ids = self.get_label_ids(class_labels, num_inputs)
        return torch.tensor(ids, device=device).repeat_interleave(num_images_per_input)

    def _prepare_conditioning(
        self,
        images: torch.Tensor,
        unknown: torch.Tensor | None,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> torch.Tensor:
        """What the network is shown: images `(N, C, H, W)` in `[-1, 1]`, whose unknown pixels are covered."""
        if unknown is not None and self.config.conditioning_fill != "noise":
            images = FILLS[self.config.conditioning_fill](images, unknown)
        elif unknown is not None:
            noise = randn_tensor(images.shape, generator=generator, device=images.device, dtype=torch.float32)
            images = torch.where(unknown, noise, images)
        if self.config.conditioning_augmentation > 0:
            images = F.pad(images, (0, 0, 0, 0, 0, 1))  # one more channel, of the noise level 0
        return images

    def prepare_latents(
        self,
        shape: tuple[int, int, int, int],
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        images: torch.Tensor,
        unknown: torch.Tensor | None,
        strength: float,
        timestep: torch.Tensor,
    ) -> torch.Tensor:
        """What to start from, `(N, C, H, W)`: noise, or images in `[-1, 1]` with as much of it as `timestep` has."""
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        noise = latents.to(device, torch.float32)
        if self.config.source_noise is not None:
            source = images if unknown is None else smooth_fill(images, unknown)
            noise = source + self.config.source_noise * noise
        if strength == 1:
            return noise * getattr(self.scheduler, "init_noise_sigma", 1.0)
        timesteps = timestep.expand(len(noise))
        if hasattr(self.scheduler, "scale_noise"):  # flow matching
            return self.scheduler.scale_noise(images, timesteps, noise)
        return self.scheduler.add_noise(images, noise, timesteps)

    # Copied from diffusers_ext.pipelines.pipeline_class_conditional.ClassConditionalPipeline._prepare_guider
    def _prepare_guider(self, guidance_scale: float | None) -> BaseGuidance:
        if self.guider is not None and guidance_scale is None:
            return self.guider
        with quiet_guiders():
            if self.guider is not None:
                return self.guider.new(guidance_scale=guidance_scale)
            return ClassifierFreeGuidance(guidance_scale=1.0 if guidance_scale is None else guidance_scale)

    def _get_noise_levels(self, timesteps: torch.Tensor) -> torch.Tensor:
        """What the network is told at each of the timesteps; alpha_bar is interpolated where they are no integers."""
        if self.config.noise_conditioning == "timestep":
            return timesteps
        gammas = self.scheduler.alphas_cumprod.to(timesteps.device, torch.float32)
        timesteps = timesteps.float().clamp(0, len(gammas) - 1)
        lower, upper = gammas[timesteps.floor().long()], gammas[timesteps.ceil().long()]
        gamma = torch.lerp(lower, upper, timesteps.frac())
        return gamma if self.config.noise_conditioning == "gamma" else gamma.sqrt()

    def _run_unet(
        self,
        guider: BaseGuidance,
        batches: list,
        noise_level: torch.Tensor,
        dtype: torch.dtype,
        tiling: tuple[int, int, int] | None,
    ) -> list[torch.Tensor]:
        """The float32 output of the network, whose own is `dtype`, for each batch that the guider asks for."""

        def forward(sample, class_labels):
            levels = noise_level.expand(len(sample))
            return self.unet(sample.to(dtype), levels, class_labels=class_labels, return_dict=False)[0].float()

        def run(batches):
            sample = torch.cat([torch.cat([batch.conditioning, batch.sample], dim=1) for batch in batches])
            labels = None if batches[0].class_labels is None else torch.cat([batch.class_labels for batch in batches])
            return forward(sample, labels) if tiling is None else run_tiled(forward, sample, labels, *tiling)

        if type(guider).prepare_models is BaseGuidance.prepare_models:
            # the network is the same for all of them: one forward pass
            return run(batches).chunk(len(batches))

        outputs, unet = [], unwrap_module(self.unet)  # guiders find layers by the names they had before compilation
        for batch in batches:
            try:
                guider.prepare_models(unet)
                outputs.append(run([batch]))
            finally:
                guider.cleanup_models(unet)
        return outputs

    def _predict(
        self,
        guider: BaseGuidance,
        inputs: dict[str, torch.Tensor | tuple],
        noise_level: torch.Tensor,
        dtype: torch.dtype,
        tiling: tuple[int, int, int] | None,
        with_variance: bool,
    ) -> torch.Tensor:
        """The guided prediction, `(N, C, H, W)`, or `(N, 2C, H, W)` together with a learned variance."""
        batches = guider.prepare_inputs(inputs)
        outputs = self._run_unet(guider, batches, noise_level, dtype, tiling)
        channels = self.config.image_channels
        for batch, output in zip(batches, outputs, strict=True):
            batch.noise_pred = output[:, :channels]
        noise_pred = guider(batches)[0]

        # Guidance is for the mean; the variance is that of the conditional prediction, the first one of every guider.
        if with_variance:
            noise_pred = torch.cat([noise_pred, outputs[0][:, channels:]], dim=1)
        return noise_pred

    # Copied from diffusers_ext.pipelines.pipeline_class_conditional.ClassConditionalPipeline._call_back
    def _call_back(
        self, callback: Callable | None, names: list[str], step: int, timestep: torch.Tensor, tensors: dict
    ) -> torch.Tensor:
        """The latents after a step: those of `tensors`, unless a callback, which sees `names`, returns others."""
        if callback is None:
            return tensors["latents"]
        outputs = callback(self, step, timestep, {name: tensors[name] for name in names})
        return tensors["latents"] if outputs is None else outputs.pop("latents", tensors["latents"])

    def _to_output(self, images: torch.Tensor, output_type: str, return_dict: bool) -> ImagePipelineOutput | tuple:
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | list[ImageInput],
        task: str | None = None,
        mask_image: ImageInput | Box | list | None = None,
        padding: Box | None = None,
        scale_factor: float | None = None,
        height: int | None = None,
        width: int | None = None,
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None = None,
        num_images_per_input: int = 1,
        num_inference_steps: int | None = None,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float | None = None,
        strength: float = 1.0,
        eta: float = 0.0,
        tile_size: int | None = None,
        tile_overlap: int | None = None,
        tile_batch_size: int = 16,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[DiffusionPipeline, int, torch.Tensor, dict], dict]
        | PipelineCallback
        | MultiPipelineCallbacks
        | None = None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006, as in diffusers
    ) -> ImagePipelineOutput | tuple:
        r"""
        Makes `num_images_per_input` images of each image, those of one image next to each other.

        The latents are kept in float32 whatever the dtype of the network, whose input and output are cast: the steps
        of a solver are too small for 16 bits.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them):
                What the result is made of, one or many of one size: pictures, arrays `(H, W)`, `(H, W, C)` or `(N, H,
                W, C)`, or tensors `(H, W)`, `(C, H, W)` or `(N, C, H, W)`, of bytes or of floats in `[0, 1]`.
                Grayscale and colour become what the network takes, transparency is laid over white where it takes
                none, and pictures are turned upright by their EXIF tag.
            task (`str`, *optional*):
                One of `tasks`. Without, the arguments tell it: `mask_image` means inpainting, `padding` uncropping,
                `scale_factor` or `height` and `width` super-resolution, a gray image colorization if the network does
                that, and otherwise the one task that is left. Colorization makes images gray by itself.
            mask_image (like `image`, or boxes, *optional*):
                White, 1 or `True` where pixels are to be made, of the size of the image (1 is white also in bytes that
                are all 0 or 1); or a box `(left, top, right, bottom)` of pixels, right and bottom excluded; or a list
                with one mask, box or list of boxes for each image. A list of boxes for a single image are all in it.
            padding (`tuple[int, int, int, int]`, *optional*):
                How many pixels to add at the left, top, right and bottom.
            scale_factor (`float`, *optional*, defaults to `default_scale_factor` of the pipeline):
                How much larger super-resolution makes images.
            height, width (`int`, *optional*):
                The size that super-resolution makes images have, instead of `scale_factor`.
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one for all images or one for each.
            num_images_per_input (`int`, defaults to 1):
                The number of results for each image.
            num_inference_steps (`int`, *optional*, defaults to `default_num_inference_steps` of the pipeline):
                The number of denoising steps.
            timesteps (`list[int]`, *optional*):
                Descending timesteps to use instead, with a scheduler that takes them.
            sigmas (`list[float]`, *optional*):
                Descending noise levels to use instead, with a scheduler that takes them.
            guidance_scale (`float`, *optional*):
                The scale of the guider, or of plain classifier-free guidance in a pipeline without one; 1 is the
                conditional prediction alone. Without, the guider has its own, and a pipeline without guider does not
                guide.
            strength (`float`, defaults to 1.0):
                Below 1, this part of the steps, the last, is made, and starts from the image itself with noise
                (Meng et al. 2021, https://huggingface.co/papers/2108.01073): what is masked counts as a first guess,
                and what is padded gets one from [`layered_fill`], or, where the network is shown mirrored images, from
                [`mirror_fill`] of the outermost quarters.
            eta (`float`, defaults to 0.0):
                Noise of a DDIM step, from 0 (none) to 1 (DDPM): eq. 16 of https://huggingface.co/papers/2010.02502.
            tile_size (`int`, *optional*):
                Predict images longer or wider than this in square tiles, blended in every step
                (Bar-Tal et al. 2023, https://huggingface.co/papers/2302.08113). Best the size of the training images.
            tile_overlap (`int`, *optional*, defaults to a quarter of `tile_size`):
                By how many pixels tiles overlap at least.
            tile_batch_size (`int`, defaults to 16):
                The number of tiles in a forward pass.
            generator (`torch.Generator` or a list of one for each result, *optional*):
                Makes the images reproducible, on the CPU also for a network on another device. It draws the noise of
                unknown pixels in the conditioning image, then the latents, then what the scheduler needs.
            latents (`torch.Tensor`, *optional*):
                The noise of unit variance `(N, C, H, W)` to start from, instead of one drawn from `generator`. The
                first step sees it as it is, while of drawn noise it sees known pixels clean, as all other steps do.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called as `callback(pipe, step, timestep, callback_kwargs)` after each step; may return a dict with
                other `latents`.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                What `callback_kwargs` holds: `"latents"` and `"noise_pred"`, the guided prediction.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out, before any step is made.

        Example:

        ```py
        >>> pipe = PalettePipeline.from_pretrained("user/restorer")
        >>> colored = pipe(gray_photo, task="colorization").images[0]
        >>> filled = pipe(photo, mask_image=(40, 40, 90, 80)).images[0]
        >>> wider = pipe(photo, padding=(32, 0, 32, 0), num_images_per_input=4).images
        ```
        """
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs

        # 1. Images and checks
        check_positive_int("num_images_per_input", num_images_per_input)
        task, images, unknown = self.prepare_images(image, task, mask_image, padding, scale_factor, height, width)
        num_inputs, _, height, width = images.shape
        shape = (num_inputs * num_images_per_input, self.config.image_channels, height, width)
        self.check_inputs(
            shape,
            class_labels,
            num_inference_steps,
            timesteps,
            sigmas,
            guidance_scale,
            strength,
            eta,
            tile_size,
            tile_overlap,
            tile_batch_size,
            generator,
            latents,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        device = self._execution_device
        self._interrupt = False
        labels = self._prepare_labels(class_labels, num_inputs, num_images_per_input, device)

        # 2. The conditioning image
        images = images.to(device).repeat_interleave(num_images_per_input, dim=0)
        if unknown is not None:
            unknown = unknown.to(device).repeat_interleave(num_images_per_input, dim=0)
        known = images * 2 - 1
        conditioning = self._prepare_conditioning(known, unknown, generator)
        hidden = unknown
        if not self._keeps_pixels(task):
            unknown = None
        inputs = {"conditioning": (conditioning, torch.zeros_like(conditioning)), "class_labels": (labels, labels)}

        # 3. Timesteps
        timesteps = self._set_timesteps(
            device, strength, num_inference_steps=num_inference_steps, timesteps=timesteps, sigmas=sigmas
        )
        self._num_timesteps = len(timesteps)
        noise_levels = self._get_noise_levels(timesteps)

        # 4. Latents and what this scheduler's step takes beyond them
        sees_latents_as_given = latents is not None and strength == 1
        latents = self.prepare_latents(shape, device, generator, latents, known, hidden, strength, timesteps[0])
        step_kwargs = {"eta": eta, "generator": generator}
        step_kwargs = {name: value for name, value in step_kwargs.items() if accepts(self.scheduler.step, name)}
        guider = self._prepare_guider(guidance_scale)
        # This property walks through all the modules: too slow to ask in each step.
        dtype = self.unet.dtype
        with_variance = self._reads_variance
        scales_input = hasattr(self.scheduler, "scale_model_input")
        tiling = None
        if tile_size is not None and max(height, width) > tile_size:
            tiling = (tile_size, tile_size // 4 if tile_overlap is None else tile_overlap, tile_batch_size)

        # 5. Denoising
        with self.progress_bar(total=len(timesteps)) as progress_bar:
            for i, t in enumerate(timesteps):
                if self.interrupt:
                    break
                guider.set_state(step=i, num_inference_steps=len(timesteps), timestep=t)
                sample = self.scheduler.scale_model_input(latents, t) if scales_input else latents
                if unknown is not None and not (i == 0 and sees_latents_as_given):
                    # Also after the blend below, for some schedulers scale what the network was trained to see clean.
                    sample = torch.where(unknown, sample, known)
                noise_pred = self._predict(
                    guider, {"sample": sample, **inputs}, noise_levels[i], dtype, tiling, with_variance
                )
                latents = self.scheduler.step(noise_pred, t, latents, **step_kwargs, return_dict=False)[0]
                if unknown is not None:
                    latents = torch.where(unknown, latents, known)
                tensors = {"latents": latents, "noise_pred": noise_pred}
                latents = self._call_back(callback_on_step_end, callback_on_step_end_tensor_inputs, i, t, tensors)
                progress_bar.update()

        # 6. Images
        results = (latents / 2 + 0.5).clamp(0, 1)
        if unknown is not None:
            results = torch.where(unknown, results, images)

        self.maybe_free_model_hooks()
        return self._to_output(results, output_type, return_dict)

    def panorama(
        self,
        image: ImageInput | list[ImageInput],
        width: int,
        side: str = "both",
        window_width: int | None = None,
        blend_width: float | None = None,
        class_labels: int | str | list[int | str] | torch.Tensor | np.ndarray | None = None,
        num_images_per_input: int = 1,
        output_type: str = "pil",
        return_dict: bool = True,
        **kwargs,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Makes images wider by uncropping again and again: windows of which one half is known, at either end, and
        three quarters of the other are kept.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of them):
                As in `__call__`: what is in the panorama unchanged.
            width (`int`):
                The width of the panorama in pixels.
            side (`str`, defaults to `"both"`):
                Where to add pixels: `"left"`, `"right"` or `"both"`, which is the same number at either end.
            window_width (`int`, *optional*, defaults to the width of `sample_size` of the network):
                The width of the images that the network uncrops.
            blend_width (`float`, *optional*, defaults to a quarter of `window_width`):
                The difference of colour at a seam is taken away, and what takes it away fades by e within so many
                pixels; where the network is shown mirrored images, these pass into what it makes of them within half
                as many. 0 leaves what is made as it is.
            class_labels, num_images_per_input, output_type, return_dict:
                As in `__call__`.
            kwargs:
                Other arguments of `__call__` for every window, as `num_inference_steps` and `generator`.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the panoramas, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.
        """
        self._check_output_type(output_type)
        for name, value in (("width", width), ("num_images_per_input", num_images_per_input)):
            check_positive_int(name, value)
        if side not in ("both", "left", "right"):
            raise ValueError(f"`side` must be 'both', 'left' or 'right', but is {side!r}.")
        tensors = self._read_images(image)
        images = torch.stack([fit_channels("image", tensor, self._conditioning_channels) for tensor in tensors])
        labels = class_labels
        if class_labels is not None:
            self._check_classes(class_labels)
            labels = np.repeat(self.get_label_ids(class_labels, len(images)), num_images_per_input)
        if window_width is None:
            sample_size = self.unet.config.sample_size
            window_width = sample_size[1] if isinstance(sample_size, (list, tuple)) else sample_size
        check_positive_int("window_width", window_width)
        if blend_width is None:
            blend_width = window_width / 4
        if not is_number(blend_width) or not 0 <= blend_width < math.inf:
            raise ValueError(f"`blend_width` must be a number of pixels, 0 or more, but is {blend_width!r}.")
        old_width, new_half = images.shape[3], window_width // 2
        known_half = window_width - new_half
        if width < old_width:
            raise ValueError(f"`width` must be {old_width}, that of the image, or more, but is {width}.")
        if old_width < known_half or new_half == 0:
            raise ValueError(
                f"The image must be at least {known_half} pixels wide, half a window, but is {old_width}: pass a "
                "smaller `window_width`."
            )

        images = images.repeat_interleave(num_images_per_input, dim=0).to(self._execution_device)
        missing = width - old_width
        left = {"both": missing // 2, "left": missing, "right": 0}[side]
        kwargs = {"task": "uncropping", "class_labels": labels, "output_type": "pt", **kwargs}
        for kept in kept_columns(left, new_half):
            window = self(images[..., :known_half], padding=(new_half, 0, 0, 0), **kwargs).images
            new = self._blend(window[..., :new_half].flip(3), images[..., :known_half].flip(3), blend_width).flip(3)
            images = torch.cat([new[..., new_half - kept :], images], dim=3)
        for kept in kept_columns(missing - left, new_half):
            window = self(images[..., -known_half:], padding=(0, 0, new_half, 0), **kwargs).images
            new = self._blend(window[..., known_half:], images[..., -known_half:], blend_width)
            images = torch.cat([images, new[..., :kept]], dim=3)
        return self._to_output(images, output_type, return_dict)

    def _blend(self, new: torch.Tensor, known: torch.Tensor, width: float) -> torch.Tensor:
        """New columns, the first at the seam, go on in colour and grain from known ones, the last at the seam."""
        new = blend_seam(new, known[..., -1:], width)
        if width == 0 or self.config.conditioning_fill != "mirror":
            return new
        mirrored, _ = self._uncrop(known, (0, 0, new.shape[3], 0))
        share = torch.exp(-torch.arange(1, new.shape[3] + 1, device=new.device) / (width / 2))
        return new.lerp(mirrored[..., known.shape[3] :], share)


def kept_columns(missing: int, new: int) -> list[int]:
    """How many of its `new` columns each window gives to a panorama that lacks `missing` of them.

    The outermost quarter, which the network saw from one side only and often makes a line of, is left for the next
    window to make again.
    """
    step = new - new // 4
    windows = max(math.ceil((missing - new) / step), 0)
    return [step] * windows + [missing - step * windows] * (missing > 0)


def blend_seam(new: torch.Tensor, edge: torch.Tensor, width: float) -> torch.Tensor:
    """
    New columns that go on from an edge in colour: what lacks at the seam is added, and fades with the distance, the
    sooner the finer it is: the solution of the screened Poisson equation (Bhat et al. 2008, "Fourier analysis of the
    2D screened Poisson equation for gradient domain problems") for their own gradients.

    Args:
        new (`torch.Tensor` of shape `(N, C, H, W)`): in `[0, 1]`, the column at the seam first.
        edge (`torch.Tensor` of shape `(N, C, H, 1)`): the last column before them.
        width (`float`): the distance in pixels within which the coarsest fades by e; 0 adds nothing.
    """
    if width == 0:
        return new
    # A mirrored column is periodic: its cosines of k per pixel fade by exp(-sqrt(k^2 + 1 / width^2)) each pixel.
    step = edge - new[..., :1]
    waves = torch.fft.rfft(torch.cat([step, step.flip(2)], dim=2), dim=2)
    frequencies = 2 * math.pi * torch.fft.rfftfreq(2 * new.shape[2], device=new.device)
    distance = torch.arange(1, new.shape[3] + 1, device=new.device)
    fading = torch.exp(-(frequencies.square() + 1 / width**2).sqrt()[:, None] * distance)
    return (new + torch.fft.irfft(waves * fading, 2 * new.shape[2], dim=2)[..., : new.shape[2], :]).clamp(0, 1)


def smooth_fill(images: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
    """
    Images whose unknown pixels pass smoothly from one edge of what is known to the other: about the solution of
    Laplace's equation, relaxed from coarse to fine (the cascadic multigrid method of Bornemann and Deuflhard 1996).

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): of any range; where nothing is known they become 0.
        unknown (`torch.Tensor` of shape `(N, 1, H, W)`): bool, or above 0 where pixels are unknown.
    """
    known = (unknown <= 0).to(images)
    if known.all():
        return images
    levels = [(images * known, known)]
    while max(levels[-1][1].shape[2:]) > 1:
        levels.append(known_means(*levels[-1], (2, 2)))
    filled, _ = levels.pop()
    for images, known in reversed(levels):
        filled = F.interpolate(filled, images.shape[2:], mode="bilinear", align_corners=False)
        filled = torch.where(known > 0, images, filled)
        for _ in range(8):
            means = F.avg_pool2d(F.pad(filled, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
            filled = torch.where(known > 0, images, means)
    return filled


def layered_fill(images: torch.Tensor, unknown: torch.Tensor) -> torch.Tensor:
    """As [`smooth_fill`], but colours go on four times as far sideways: photographs are layers of ground and sky."""
    known = (unknown <= 0).to(images)
    small, known = known_means(images * known, known, (1, 4))
    filled = F.interpolate(smooth_fill(small, 1 - known), images.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(unknown > 0, filled, images)


def mirror_fill(images: torch.Tensor, unknown: torch.Tensor, share: float = 1.0) -> torch.Tensor:
    """
    Images mirrored at the sides of the box that holds all known pixels, again and again: their textures go on. Unknown
    pixels in the box are filled by [`smooth_fill`] before.

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): of any range; where nothing is known they become 0.
        unknown (`torch.Tensor` of shape `(N, 1, H, W)`): bool, or above 0 where pixels are unknown.
        share (`float`): how much of the box is mirrored, from each side on. In a small one are no whole things to be
            seen twice.
    """
    known = (unknown <= 0)[:, 0]
    rows, columns = (mirrored_positions(known.any(dim=dim), share) for dim in (2, 1))
    index = torch.arange(len(images), device=images.device)
    images = smooth_fill(images, unknown)
    return images[index[:, None, None], :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def mirrored_positions(known: torch.Tensor, share: float) -> torch.Tensor:
    """Where to look in a line that is mirrored at the first and last known pixel, for `known` (N, L): int (N, L)."""
    positions = torch.arange(known.shape[1], device=known.device)
    first = known.int().argmax(dim=1, keepdim=True)
    last = known.shape[1] - 1 - known.flip(1).int().argmax(dim=1, keepdim=True)
    length = ((last - first + 1) * share).ceil().long()
    steps = (torch.maximum(first - positions, positions - last) - 1) % (2 * length)
    steps = torch.minimum(steps, 2 * length - 1 - steps)
    return torch.where(positions < first, first + steps, torch.where(positions > last, last - steps, positions))


def known_means(images: torch.Tensor, known: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Images that are smaller by `size` (rows, columns), four pixels in one: the mean of those that are known, and 0
    where none is; and where some are.

    Args:
        images (`torch.Tensor` of shape `(N, C, H, W)`): 0 where pixels are unknown.
        known (`torch.Tensor` of shape `(N, 1, H, W)`): 1 where they are known, 0 elsewhere.
    """
    sums, shares = (F.avg_pool2d(x, size, ceil_mode=True, count_include_pad=False) for x in (images, known))
    return sums / shares.clamp(min=1 / 4), (shares > 0).to(images)


FILLS = {"smooth": smooth_fill, "mirror": mirror_fill}


def run_tiled(
    forward: Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor],
    sample: torch.Tensor,
    class_labels: torch.Tensor | None,
    tile_size: int,
    overlap: int,
    batch_size: int,
) -> torch.Tensor:
    """The output of `forward` for `(N, C, H, W)`, blended from those for tiles, with a Hann window for weights."""
    height, width = sample.shape[2:]
    size = (min(height, tile_size), min(width, tile_size))
    starts = [tile_starts(length, tile, overlap) for length, tile in zip((height, width), size, strict=True)]
    tiles = [(..., slice(y, y + size[0]), slice(x, x + size[1])) for y in starts[0] for x in starts[1]]
    crops = torch.cat([sample[tile] for tile in tiles])
    labels = [None] * math.ceil(len(crops) / batch_size)
    if class_labels is not None:
        labels = class_labels.repeat(len(tiles)).split(batch_size)
    outputs = torch.cat([forward(*batch) for batch in zip(crops.split(batch_size), labels, strict=True)])

    # centred on the pixels, so that none of them weighs nothing
    rows, columns = ((torch.arange(n, device=sample.device).add(0.5) * (math.pi / n)).sin() ** 2 for n in size)
    weight = rows[:, None] * columns
    total = outputs.new_zeros(len(sample), outputs.shape[1], height, width)
    weights = outputs.new_zeros(height, width)
    for tile, output in zip(tiles, outputs.split(len(sample)), strict=True):
        total[tile] += weight * output
        weights[tile] += weight
    return total / weights
