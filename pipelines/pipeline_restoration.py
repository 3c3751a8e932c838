"""Restored images in one pass of a network: super-resolution (SRResNet, SRGAN, ESRGAN), deblurring, denoising."""

from collections.abc import Iterator

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch.nn import functional as F

from .checks import check_generator, check_output_type, check_positive_int
from .images import (
    LUMA,
    ImageInput,
    carry_profiles,
    check_one_size,
    fit_channels,
    list_images,
    pad_images,
    read_image,
    to_output,
)
from .light import GAMMA, compress_light, expand_light
from .networks import get_sample_size, get_shared_models
from .tiles import check_tiling, plan_tiling, predict_bands


OUTPUT_TYPES = ("pil", "levels", "np", "pt")


class RestorationPipeline(DiffusionPipeline):
    r"""
    Restores degraded images, and enlarges them if the network does.

    For networks that make the restored image in one pass: SRResNet and SRGAN (Ledig et al. 2017,
    https://huggingface.co/papers/1609.04802), ESRGAN (Wang et al. 2018, https://huggingface.co/papers/1809.00219),
    Real-ESRGAN (Wang et al. 2021, https://huggingface.co/papers/2107.10833), and what `train_restoration.py` trains.

    Images keep what they are: gray images stay gray, transparency stays, 16 bits stay 16 bits. The network restores
    colours. Gray images are shown to a network of colours as gray ones, and a network of gray images restores each
    colour channel. Transparency is enlarged by bicubic interpolation.

    Args:
        generator ([`SRResNet`], [`MSRResNet`], [`RRDBNet`], [`FPNMobileNet`], [`DeepDeblurNet`] or another):
            `generator(sample, return_dict=False)[0]` is the restoration `(N, C, scale * H, scale * W)` of `sample`,
            `(N, C, H, W)`. `generator.scale` is 1 if it is missing. Height and width must be multiples of
            `generator.stride`, and at least `generator.smallest_side`, if it has these attributes.
        black (`float`, defaults to 0.0):
            The value of black in the network's input and output, where white is 1: 0 or -1.
        peak (`float`, *optional*):
            For networks that make light brighter than the white of an overexposed image (HDR): the brightest light,
            in units of this white. The network sees the light of images, and makes light, both by the mu-law in
            `[0, 1]`. Floats of the output are light in `[0, peak]`, and its pictures show this whole range.
        noise_generator ([`DANetUNet`], *optional*):
            Adds noise to clean images, for [`~RestorationPipeline.add_noise`]: `noise_generator(sample, noise)`, with
            standard normal noise of `noise_generator.config.noise_channels`.

    Raises:
        ValueError: if the network makes other channels than it takes, or `black` or `peak` is another value.
    """

    pipeline_tag = "image-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "generator"
    _exclude_from_cpu_offload = ["noise_generator"]
    _optional_components = ["noise_generator"]

    def __init__(
        self,
        generator: ModelMixin,
        black: float = 0.0,
        peak: float | None = None,
        noise_generator: ModelMixin | None = None,
    ):
        super().__init__()
        channels = generator.config.get("in_channels"), generator.config.get("out_channels")
        if channels[0] is None or channels[0] != channels[1]:
            raise ValueError(
                f"`generator` must make images with as many channels as it takes, but makes {channels[1]} from "
                f"{channels[0]}."
            )
        if black not in (0, -1):
            raise ValueError(f"`black` must be 0 or -1, but is {black!r}.")
        if peak is not None and (not peak >= 1 or black != 0):
            raise ValueError(f"`peak` must be at least 1, with `black` 0, but they are {peak!r} and {black!r}.")
        if noise_generator is not None and not noise_generator.config.get("noise_channels"):
            raise ValueError("`noise_generator` must have `noise_channels`, as a DANetUNet has that adds noise.")
        self.register_modules(generator=generator, noise_generator=noise_generator)
        self.register_to_config(black=black, peak=peak)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | list[ImageInput],
        tile_size: int | None = None,
        tile_overlap: int | None = None,
        batch_size: int = 1,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Restores images.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of these):
                One image or several, of any sizes, or their paths. Arrays are `(H, W)`, `(H, W, C)` or
                `(N, H, W, C)`, tensors `(H, W)`, `(C, H, W)` or `(N, C, H, W)`, with floats in `[0, 1]`, bytes, or
                integers of 16 bits (uint16). Images of 2 or 4 channels have transparency, unless the network has as
                many channels. Pillow reads colours of 16 bits as bytes: pass arrays.
            tile_size (`int`, *optional*):
                Restore images that are longer or wider than this in square tiles, so that an image of any size fits
                into memory. Tiles fade into each other. If the network sees no further than a quarter of
                `tile_overlap`, the result is that of the whole image, but for rounding.
            tile_overlap (`int`, *optional*, defaults to a quarter of `tile_size`):
                By how many pixels of the input tiles overlap at least.
            batch_size (`int`, defaults to 1):
                The number of tiles in a forward pass.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for pictures; `"levels"` for a list of arrays `(H, W)` or `(H, W, C)` of bytes, or of uint16
                where the image has 16 bits; `"np"` (`(N, H, W, C)`) or `"pt"` (`(N, C, H, W)`) for floats in `[0, 1]`,
                or for light.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry, `generator.scale` times
            as high and wide as the inputs.

        Raises:
            ValueError: for input that cannot be restored, before any image is restored.
        """
        # 1. Input
        sources = list_images("image", image)
        depths = [bit_depth(source) for source in sources]
        images = [read_image("image", from_16_bits(source)) for source in sources]
        self.check_inputs(
            [tuple(entry.shape) for entry in images], depths, tile_size, tile_overlap, batch_size, output_type
        )

        # 2. Restoration, of one image after the other
        outputs = []
        for entry, depth in zip(self.progress_bar(images), depths, strict=True):
            dtype = f"uint{depth}" if output_type in ("pil", "levels") else "float32"
            outputs.append(self._restore(entry, np.dtype(dtype), tile_size, tile_overlap, batch_size))
        self.maybe_free_model_hooks()

        # 3. Output
        if output_type in ("np", "pt"):
            outputs = np.stack(outputs)
        if output_type == "pt":
            outputs = torch.from_numpy(outputs).permute(0, 3, 1, 2).contiguous().to(self._execution_device)
        if output_type in ("pil", "levels"):
            outputs = [output[..., 0] if output.shape[2] == 1 else output for output in outputs]
        if output_type == "pil":
            outputs = [Image.fromarray(output) for output in outputs]
            carry_profiles(outputs, sources)
        return ImagePipelineOutput(images=outputs) if return_dict else (outputs,)

    @torch.no_grad()
    def add_noise(
        self,
        image: ImageInput | list[ImageInput],
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pt",
    ) -> list[Image.Image] | np.ndarray | torch.Tensor:
        r"""
        Adds noise to clean images, as that of the images that the network was trained on.

        Args:
            image: clean images of one size, as for the call, with as many channels as the network has.
            generator (`torch.Generator` or one for each image, *optional*):
                Draws the noise. On the CPU, it draws the same on every device.
            output_type (`str`, defaults to `"pt"`):
                `"pt"` (`(N, C, H, W)`) or `"np"` (`(N, H, W, C)`) for floats in `[0, 1]`, or `"pil"`.

        Returns:
            The noisy images.

        Raises:
            ValueError: without a `noise_generator`, and for images that it can't be given.
        """
        if self.noise_generator is None:
            raise ValueError("This pipeline has no `noise_generator`: train one with train_danet.py.")
        network, sources = self.noise_generator, list_images("image", image)
        images = [fit_channels("image", read_image("image", e), network.config.in_channels) for e in sources]
        check_one_size(images)
        check_output_type(output_type, network.config.out_channels)
        check_generator(generator, len(images))
        height, width = images[0].shape[1:]
        sides = [side + -side % network.stride for side in (height, width)]
        sample = pad_images(torch.stack(images), *sides).to(self._execution_device, network.dtype)
        shape = (len(sample), network.config.noise_channels, *sides)
        noise = randn_tensor(shape, generator, sample.device, sample.dtype)
        noisy = network(sample, noise, return_dict=False)[0][..., :height, :width].float().clamp(0, 1)
        return to_output(noisy, output_type)

    def _restore(
        self, image: torch.Tensor, dtype: np.dtype, tile_size: int | None, tile_overlap: int | None, batch_size: int
    ) -> np.ndarray:
        """An array `(scale * H, scale * W, C)` from `(C, H, W)` in `[0, 1]`; the result fills it row by row."""
        scale = getattr(self.generator, "scale", 1)
        channels, height, width = image.shape
        num_colors = channels - self._has_alpha(channels)
        restored = np.empty((height * scale, width * scale, channels), dtype)
        if num_colors < channels:
            alpha = image[None, num_colors:]
            if scale > 1:
                alpha = F.interpolate(alpha, scale_factor=scale, mode="bicubic").clamp(0, 1)
            restored[..., num_colors:] = to_levels(alpha, dtype)
        top = 0
        for band in self._restored_bands(image[:num_colors], scale, tile_size, tile_overlap, batch_size):
            rows = restored[top : top + band.shape[2], :, :num_colors]
            if self.config.peak is not None and dtype.kind == "u":
                band = (band / self.config.peak) ** (1 / GAMMA)
            rows[:] = to_levels(band[:, :, : len(rows), : width * scale], dtype)
            top += len(rows)
        return restored

    def _restored_bands(
        self,
        colors: torch.Tensor,
        scale: int,
        tile_size: int | None,
        tile_overlap: int | None,
        batch_size: int,
    ) -> Iterator[torch.Tensor]:
        """Rows `(1, C, rows, columns)` of the restoration of `(C, H, W)` in `[0, 1]`, with its padding; of light if
        there is a `peak`."""
        known, black, num_colors = self.generator.config.in_channels, self.config.black, len(colors)
        peak = self.config.peak
        stride, least = getattr(self.generator, "stride", 1), self._smallest_side
        sides = [max(side + -side % stride, least) for side in colors.shape[1:]]
        # A network of gray images restores one colour after the other.
        sample = pad_images(colors[:, None] if known == 1 else colors[None], *sides)

        def forward(tiles: torch.Tensor) -> torch.Tensor:
            tiles = tiles.to(self._execution_device, self.generator.dtype).expand(-1, known, -1, -1)
            if peak is not None:
                tiles = compress_light(tiles**GAMMA, peak)
            output = self.generator(black + (1 - black) * tiles, return_dict=False)[0].float().cpu()
            output = ((output - black) / (1 - black)).clamp(0, 1)
            return output if peak is None else expand_light(output, peak)

        tiling = plan_tiling(tile_size, tile_overlap, batch_size, *sample.shape[2:])
        bands = [forward(sample)] if tiling is None else predict_bands(forward, sample, tiling, scale)
        for band in bands:
            if known == 1:
                band = band.transpose(0, 1)
            if band.shape[1] != num_colors:
                weights = torch.tensor(LUMA, dtype=band.dtype)[:, None, None] / sum(LUMA)
                band = (band * weights).sum(dim=1, keepdim=True)
            yield band

    def _has_alpha(self, channels: int) -> bool:
        return channels in (2, 4) and channels != self.generator.config.in_channels

    @property
    def _smallest_side(self) -> int:
        return getattr(self.generator, "smallest_side", getattr(self.generator, "stride", 1))

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "RestorationPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels of the images, and height and width of the training images if `generator` knows them."""
        return (self.generator.config.out_channels, *get_sample_size(self.generator))

    def check_inputs(
        self,
        shapes: list[tuple[int, int, int]],
        depths: list[int],
        tile_size: int | None,
        tile_overlap: int | None,
        batch_size: int,
        output_type: str,
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        known = self.generator.config.in_channels
        check_positive_int("batch_size", batch_size)
        check_tiling(tile_size, tile_overlap, batch_size, getattr(self.generator, "stride", 1), self._smallest_side)
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"`output_type` must be one of {', '.join(OUTPUT_TYPES)}, but is {output_type!r}.")
        for shape, depth in zip(shapes, depths, strict=True):
            num_colors = shape[0] - self._has_alpha(shape[0])
            if num_colors != known and not (known in (1, 3) and num_colors in (1, 3)):
                raise ValueError(f"`image` must have {known} channels, but has {shape[0]}.")
            if output_type == "pil" and depth == 16 and shape[0] > 1:
                raise ValueError(
                    "PIL has no pictures of 16 bits with colours or transparency: pass `output_type='levels'`."
                )
            if output_type == "pil" and shape[0] > 4:
                raise ValueError(f"PIL has no images of {shape[0]} channels: pass `output_type='np'` or 'pt'.")
        if output_type in ("np", "pt") and len(set(shapes)) > 1:
            raise ValueError(
                f"Images of {len(set(shapes))} sizes or numbers of channels can't be put into one array: pass "
                "`output_type='levels'` or 'pil', or images of one size."
            )


def bit_depth(image: Image.Image | np.ndarray | torch.Tensor) -> int:
    """16 for pictures and arrays of 16 bits, 8 for others."""
    if isinstance(image, Image.Image):
        return 16 if image.mode.startswith("I") else 8
    return 16 if getattr(image, "dtype", None) in (np.dtype("uint16"), torch.uint16) else 8


def from_16_bits(image: Image.Image | np.ndarray | torch.Tensor) -> Image.Image | np.ndarray | torch.Tensor:
    """Floats from 0 to 1 from an array or tensor of uint16; anything else as it is."""
    if isinstance(image, Image.Image) or bit_depth(image) == 8:
        return image
    return (image.astype(np.float32) if isinstance(image, np.ndarray) else image.float()) / 65535


def to_levels(images: torch.Tensor, dtype: np.dtype) -> np.ndarray:
    """An array `(H, W, C)` of integers, or of floats in `[0, 1]`, from `(1, C, H, W)` in `[0, 1]`."""
    if dtype.kind == "u":
        images = (images * np.iinfo(dtype).max).round()
    return images[0].permute(1, 2, 0).cpu().numpy().astype(dtype)
