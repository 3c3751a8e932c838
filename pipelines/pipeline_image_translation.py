"""Images from images in one pass of a generator: pix2pix, CycleGAN, DualGAN."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from PIL import Image, ImageOps
from torch import nn
from torch.nn import functional as F


# 0.299, 0.587 and 0.114 of red, green and blue (ITU-R 601), in the 65536ths that Pillow counts in
LUMA = (19595, 38470, 7471)

ImageInput = Image.Image | np.ndarray | torch.Tensor


# Copied from diffusers_ext.pipelines.pipeline_palette.picture_to_array
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


# Copied from diffusers_ext.pipelines.pipeline_palette.to_tensor
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


# Copied from diffusers_ext.pipelines.pipeline_palette.fit_channels
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


# Copied from diffusers_ext.pipelines.pipeline_palette.to_gray
def to_gray(image: torch.Tensor) -> torch.Tensor:
    """`(..., 3, H, W)` to `(..., 1, H, W)`, as bytes are by Pillow, to the bit."""
    luma = torch.tensor(LUMA, dtype=image.dtype, device=image.device)[:, None, None]
    levels = ((image * 255).round() * luma).sum(-3, keepdim=True)
    return ((levels + 32768) / 65536).floor() / 255


def drop(
    module: nn.Dropout, hidden_states: torch.Tensor, generator: torch.Generator | list[torch.Generator] | None
) -> torch.Tensor:
    """What the layer makes of `(N, C, H, W)` in training, drawn from a generator for all or one for each."""
    shape, device = hidden_states.shape, hidden_states.device
    if isinstance(generator, (list, tuple)):
        drawn = torch.cat([torch.rand(1, *shape[1:], generator=own, device=own.device) for own in generator])
    else:
        drawn = torch.rand(shape, generator=generator, device=device if generator is None else generator.device)
    return torch.where(drawn.to(device) < module.p, 0, hidden_states / (1 - module.p))


def normalize_each(module: nn.BatchNorm2d, hidden_states: torch.Tensor) -> torch.Tensor:
    """What the layer makes in training of a batch that consists of one image, for each image of `(N, C, H, W)`."""
    return F.instance_norm(hidden_states, weight=module.weight, bias=module.bias, eps=module.eps)


@contextmanager
def as_in_training(
    network: nn.Module,
    dropout: bool,
    image_statistics: bool,
    generator: torch.Generator | list[torch.Generator] | None,
) -> Iterator[None]:
    """Has dropout or batch norm do what they do in training, and leaves the network itself as it is."""
    hooks = []
    for module in network.modules():
        if dropout and isinstance(module, nn.Dropout):
            hooks.append(module.register_forward_hook(lambda module, args, _: drop(module, *args, generator)))
        elif image_statistics and isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_hook(lambda module, args, _: normalize_each(module, *args)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class ImageTranslationPipeline(DiffusionPipeline):
    r"""
    Translates images to another domain, and back if there is a generator for that.

    For pix2pix (Isola et al. 2017, https://huggingface.co/papers/1611.07004), which learns from pairs and has one
    direction, and for CycleGAN (Zhu et al. 2017, https://huggingface.co/papers/1703.10593) and DualGAN (Yi et al.
    2017, https://huggingface.co/papers/1704.02510), which have both.

    Args:
        generator ([`UNetGenerator`] or [`ResnetGenerator`]):
            From the first domain to the second: `generator(sample, return_dict=False)[0]` is the translation
            `(N, out_channels, H, W)` of `sample`, `(N, in_channels, H, W)`; both are in `[-1, 1]`. `generator.stride`
            is what height and width must be multiples of, and `generator.smallest_side` if it has one what they must
            be at least.
        reverse_generator ([`UNetGenerator`] or [`ResnetGenerator`], *optional*):
            From the second domain to the first.

    Raises:
        ValueError: if a generator is for something else, or the two do not fit each other.
    """

    model_cpu_offload_seq = "generator->reverse_generator"
    _optional_components = ["reverse_generator"]

    def __init__(self, generator: ModelMixin, reverse_generator: ModelMixin | None = None):
        super().__init__()
        for name, network in (("generator", generator), ("reverse_generator", reverse_generator)):
            if network is not None and not hasattr(network, "stride"):
                raise ValueError(
                    f"`{name}` must make images of images, as a UNetGenerator or a ResnetGenerator does, but is a "
                    f"{type(network).__name__}."
                )
        if reverse_generator is not None:
            there, back = generator.config, reverse_generator.config
            if (there.in_channels, there.out_channels) != (back.out_channels, back.in_channels):
                raise ValueError(
                    f"`generator` makes {there.out_channels} channels of {there.in_channels}, so `reverse_generator` "
                    f"must make {there.in_channels} of {there.out_channels}, but makes {back.out_channels} of "
                    f"{back.in_channels}."
                )
        self.register_modules(generator=generator, reverse_generator=reverse_generator)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "ImageTranslationPipeline":
        """As in diffusers, which alone would leave behind models of other classes than the signature names."""
        known = inspect.signature(cls.__init__).parameters
        models = {name: model for name, model in pipeline.components.items() if name in known and model is not None}
        return super().from_pipe(pipeline, **{**models, **kwargs})

    def check_inputs(
        self,
        network: ModelMixin | None,
        sizes: list[tuple[int, int]],
        dropout: bool,
        num_images_per_input: int,
        generator: torch.Generator | list[torch.Generator] | None,
        output_type: str,
    ):
        """Refuses, with a `ValueError` of one sentence, what the call could not carry out."""
        is_integer = isinstance(num_images_per_input, (int, np.integer)) and not isinstance(num_images_per_input, bool)
        if not is_integer or num_images_per_input < 1:
            raise ValueError(f"`num_images_per_input` must be a positive integer, but is {num_images_per_input!r}.")
        if num_images_per_input > 1 and not dropout:
            raise ValueError("`num_images_per_input` needs `dropout=True`: without it, all would be the same.")
        if dropout and not any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules()):
            raise ValueError("`dropout=True` needs a generator that has dropout, but this one has none.")
        for one in generator if isinstance(generator, (list, tuple)) else [generator]:
            if one is not None and not isinstance(one, torch.Generator):
                raise ValueError(f"`generator` must be a torch.Generator or a list of them, but has {one!r}.")
        num_images = len(sizes) * num_images_per_input
        if isinstance(generator, (list, tuple)) and len(generator) != num_images:
            raise ValueError(
                f"`generator` must be one generator or {num_images}, one per image, but is {len(generator)}."
            )
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"`output_type` must be 'pil', 'np' or 'pt', but is {output_type!r}.")
        channels = network.config.out_channels
        if output_type == "pil" and channels > 4:
            raise ValueError(f"PIL has no images of {channels} channels: pass `output_type='np'` or 'pt'.")
        if output_type != "pil" and len(set(sizes)) > 1:
            raise ValueError(
                f"Images of {len(set(sizes))} sizes can't be put into one array: pass `output_type='pil'`, or images "
                "of one size."
            )

    def _read_images(self, image: ImageInput | list[ImageInput], channels: int) -> list[torch.Tensor]:
        """Each as float32 `(channels, H, W)` in `[-1, 1]`."""
        if isinstance(image, (np.ndarray, torch.Tensor)) and image.ndim == 4:
            image = list(image)
        images = image if isinstance(image, (list, tuple)) else [image]
        if not images:
            raise ValueError("`image` is empty: pass one image or more.")
        return [fit_channels("image", to_tensor("image", entry), channels) * 2 - 1 for entry in images]

    def _translate(self, network: ModelMixin, images: torch.Tensor) -> torch.Tensor:
        """`(N, C, H, W)` of any size, in `[-1, 1]`: padded at the right and below, and cropped again."""
        height, width = images.shape[2:]
        least = getattr(network, "smallest_side", network.stride)
        below, right = (max(-side % network.stride, least - side) for side in (height, width))
        # a reflection cannot be larger than the image
        mode = "reflect" if below < height and right < width else "replicate"
        padded = F.pad(images, (0, right, 0, below), mode=mode) if below or right else images
        output = network(padded.to(self._execution_device, network.dtype), return_dict=False)[0]
        return output[..., :height, :width].float()

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | list[ImageInput],
        reverse: bool = False,
        dropout: bool = False,
        image_statistics: bool = False,
        num_images_per_input: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Translates images.

        Args:
            image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor` or a list of these):
                One image or several, of any size. Arrays are `(H, W)`, `(H, W, C)` or `(N, H, W, C)`, tensors
                `(H, W)`, `(C, H, W)` or `(N, C, H, W)`, with floats in `[0, 1]` or bytes. Where the generator has
                colours and the image none, or the other way round, it is converted. Sides that are no multiples of
                the generator's stride are padded by reflection and cropped again.
            reverse (`bool`, defaults to `False`):
                Whether to translate from the second domain to the first.
            dropout (`bool`, defaults to `False`):
                Whether to keep the dropout of the training, which is all the noise that pix2pix has (Isola et al.
                2017, section 2.2 and 3.2): translations of one image differ then. Its authors do so.
            image_statistics (`bool`, defaults to `False`):
                Whether batch norm normalizes each image by its own statistics, in place of those of the training set.
                Pix2pix's authors do so too, and after a training with one image per step the generator knows no other.
            num_images_per_input (`int`, defaults to 1):
                Translations of each image, which stand next to each other. Several need `dropout`.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                The source of what is dropped, one for all or one for each translation.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` (`(N, H, W, C)`) or `"pt"` (`(N, C, H, W)`, float32); the latter two in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry, each of the size of
            its input.

        Raises:
            ValueError: for input that cannot be translated, before any is.
        """
        # 1. input
        network = self.reverse_generator if reverse else self.generator
        if network is None:
            raise ValueError("`reverse=True` needs the `reverse_generator` component, which is missing.")
        images = self._read_images(image, network.config.in_channels)
        sizes = [tuple(image.shape[1:]) for image in images]
        self.check_inputs(network, sizes, dropout, num_images_per_input, generator, output_type)

        # 2. translation, of all images of a size at once
        images, sizes = (
            [entry for entry in entries for _ in range(num_images_per_input)] for entries in (images, sizes)
        )
        outputs = [None] * len(images)
        for size in dict.fromkeys(sizes):
            rows = [row for row, own_size in enumerate(sizes) if own_size == size]
            own = [generator[row] for row in rows] if isinstance(generator, (list, tuple)) else generator
            with as_in_training(network, dropout, image_statistics, own):
                translated = self._translate(network, torch.stack([images[row] for row in rows]))
            for row, output in zip(rows, translated, strict=True):
                outputs[row] = output
        self.maybe_free_model_hooks()

        # 3. output
        outputs = [(output / 2 + 0.5).clamp(0, 1) for output in outputs]
        if output_type == "pil":
            outputs = [to_picture(output) for output in outputs]
        else:
            outputs = torch.stack(outputs)
            outputs = outputs if output_type == "pt" else outputs.permute(0, 2, 3, 1).cpu().numpy()
        return ImagePipelineOutput(images=outputs) if return_dict else (outputs,)


def to_picture(image: torch.Tensor) -> Image.Image:
    """`(C, H, W)` in `[0, 1]`, with one to four channels."""
    array = (image * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
