"""Images from images in one pass of a generator: pix2pix, CycleGAN, DualGAN, and MSGAN and BicycleGAN with latents."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from torch import nn
from torch.nn import functional as F

from .checks import check_generator, check_latents, check_output_type, check_positive_int
from .images import ImageInput, denormalize, fit_channels, list_images, pad_images, read_image, to_output
from .networks import get_sample_size, get_shared_models
from .style_latents import draw_style_latents, read_style_images
from .tiles import check_tiling, plan_tiling, predict_tiled
from .uniform_numbers import rand_tensor


class ImageTranslationPipeline(DiffusionPipeline):
    r"""
    Translates images to another domain, and back if there is a generator for that.

    For pix2pix (Isola et al. 2017, https://huggingface.co/papers/1611.07004), which learns from pairs and has one
    direction, and for CycleGAN (Zhu et al. 2017, https://huggingface.co/papers/1703.10593) and DualGAN (Yi et al.
    2017, https://huggingface.co/papers/1704.02510), which have both. With latents, an image has many translations:
    pix2pix with mode seeking (Mao et al. 2019, https://huggingface.co/papers/1903.05628) and BicycleGAN (Zhu et al.
    2017, https://huggingface.co/papers/1711.11586).

    Args:
        generator ([`UNetGenerator`] or [`ResnetGenerator`]):
            From the first domain to the second: `generator(sample, return_dict=False)[0]` is the translation
            `(N, out_channels, H, W)` of `sample`, `(N, in_channels, H, W)`; both are in `[-1, 1]`. Height and width
            must be multiples of `generator.stride`, and at least `generator.smallest_side` if it has this attribute.
            If `generator.config.latent_dim` is set, it is called with `latents`, `(N, latent_dim)`, too.
        reverse_generator ([`UNetGenerator`] or [`ResnetGenerator`], *optional*):
            From the second domain to the first.
        style_encoder ([`SPADEEncoder`], *optional*):
            `style_encoder(sample, return_dict=False)[0]` is the distribution of the latents with which `generator`
            makes translations like the images `sample` of the second domain, in `[-1, 1]`.

    Raises:
        ValueError: if a generator does not translate images, or the two do not fit each other.
    """

    pipeline_tag = "image-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "style_encoder->generator->reverse_generator"
    _optional_components = ["reverse_generator", "style_encoder"]

    def __init__(
        self,
        generator: ModelMixin,
        reverse_generator: ModelMixin | None = None,
        style_encoder: ModelMixin | None = None,
    ):
        super().__init__()
        for name, network in (("generator", generator), ("reverse_generator", reverse_generator)):
            if network is not None and not hasattr(network, "stride"):
                raise ValueError(
                    f"`{name}` must make images from images, as a UNetGenerator or a ResnetGenerator does, but is a "
                    f"{type(network).__name__}."
                )
        if reverse_generator is not None:
            there, back = generator.config, reverse_generator.config
            if (there.in_channels, there.out_channels) != (back.out_channels, back.in_channels):
                raise ValueError(
                    f"`generator` makes {there.out_channels} channels from {there.in_channels}, so "
                    f"`reverse_generator` must make {there.in_channels} from {there.out_channels}, but makes "
                    f"{back.out_channels} from {back.in_channels}."
                )
        latent_dim = generator.config.get("latent_dim")
        if style_encoder is not None and style_encoder.config.latent_dim != latent_dim:
            raise ValueError(
                f"`style_encoder` makes latents of length {style_encoder.config.latent_dim}, but `generator` takes "
                f"{'none' if latent_dim is None else latent_dim}."
            )
        self.register_modules(generator=generator, reverse_generator=reverse_generator, style_encoder=style_encoder)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | list[ImageInput],
        reverse: bool = False,
        dropout: bool = False,
        image_statistics: bool = False,
        num_images_per_input: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        style_image: ImageInput | list[ImageInput] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        batch_size: int | None = None,
        tile_size: int | None = None,
        tile_overlap: int | None = None,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Translates images.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of these):
                One image or several, of any size, or their paths. Arrays are `(H, W)`, `(H, W, C)` or `(N, H, W, C)`,
                tensors `(H, W)`, `(C, H, W)` or `(N, C, H, W)`, with floats in `[0, 1]` or bytes. Gray images are
                converted to colours, and colours to gray, if the generator needs it. Sides that are not multiples of
                the generator's stride are padded by reflection and cropped again.
            reverse (`bool`, defaults to `False`):
                Whether to translate from the second domain to the first.
            dropout (`bool`, defaults to `False`):
                Whether to keep the dropout of the training, as the authors of pix2pix do. It is the only noise that
                pix2pix has (Isola et al. 2017, sections 2.2 and 3.2), so that translations of one image differ.
            image_statistics (`bool`, defaults to `False`):
                Whether batch norm normalizes each image by its own statistics instead of the training set's, as the
                authors of pix2pix do. A generator that was trained with one image per step needs it.
            num_images_per_input (`int`, defaults to 1):
                The number of translations of each image, which are next to each other. Several need a generator
                network with latents, or `dropout`.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Makes latents and dropout reproducible: one for all or one for each translation.
            style_image (*optional*):
                For pipelines with a `style_encoder`: the image of the second domain whose style to use, or one for
                each image; of any size. Without it, each translation has a style of its own, drawn by `generator`.
            latents (`torch.Tensor`, *optional*):
                The styles themselves, `(N * num_images_per_input, latent_dim)`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` (`(N, H, W, C)`) or `"pt"` (`(N, C, H, W)`, float32); the latter two in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            batch_size (`int`, *optional*):
                The number of images, or of tiles, in a forward pass; by default all images of a size, and 16 tiles.
            tile_size (`int`, *optional*):
                Translate images longer or wider than this in square tiles, which are blended, so that an image of any
                size fits into memory. Instance norm sees one tile at a time then.
            tile_overlap (`int`, *optional*, defaults to a quarter of `tile_size`):
                By how many pixels tiles overlap at least.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry, each of the size of
            its input.

        Raises:
            ValueError: for input that cannot be translated, before any image is translated.
        """
        # 1. Input
        network = self.reverse_generator if reverse else self.generator
        if network is None:
            raise ValueError("`reverse=True` needs the `reverse_generator` component, which is missing.")
        images = [read_image("image", entry) for entry in list_images("image", image)]
        images = [fit_channels("image", entry, network.config.in_channels) * 2 - 1 for entry in images]
        sizes = [tuple(image.shape[1:]) for image in images]
        generator = list(generator) if isinstance(generator, tuple) else generator
        self.check_inputs(
            network,
            sizes,
            dropout,
            num_images_per_input,
            generator,
            style_image,
            latents,
            output_type,
            batch_size,
            tile_size,
            tile_overlap,
        )
        styles, latent_dim = None, network.config.get("latent_dim")
        if style_image is not None:
            styles = read_style_images(style_image, self.style_encoder.config.in_channels, len(images))

        # 2. Styles
        if latents is None and latent_dim is not None:
            shape, device = (len(images) * num_images_per_input, latent_dim), self._execution_device
            latents = draw_style_latents(styles, self.style_encoder, shape, num_images_per_input, generator, device)

        # 3. Translation, of images of one size at once
        images, sizes = (
            [entry for entry in entries for _ in range(num_images_per_input)] for entries in (images, sizes)
        )
        outputs = [None] * len(images)
        for size in dict.fromkeys(sizes):
            all_rows = [row for row, own_size in enumerate(sizes) if own_size == size]
            step = len(all_rows) if batch_size is None else batch_size
            for rows in (all_rows[start : start + step] for start in range(0, len(all_rows), step)):
                own = [generator[row] for row in rows] if isinstance(generator, list) else generator
                with as_in_training(network, dropout, image_statistics, own):
                    translated = self._translate(
                        network,
                        torch.stack([images[row] for row in rows]),
                        None if latents is None else latents[rows],
                        tile_size,
                        tile_overlap,
                        batch_size or 16,
                    )
                for row, output in zip(rows, translated, strict=True):
                    outputs[row] = denormalize(output)
        self.maybe_free_model_hooks()

        # 4. Output: pictures may differ in size
        if output_type == "pil":
            outputs = [picture for output in outputs for picture in to_output(output[None], "pil")]
        else:
            outputs = to_output(torch.stack(outputs), output_type)
        return ImagePipelineOutput(images=outputs) if return_dict else (outputs,)

    def _translate(
        self,
        network: ModelMixin,
        images: torch.Tensor,
        latents: torch.Tensor | None,
        tile_size: int | None,
        tile_overlap: int | None,
        tile_batch_size: int,
    ) -> torch.Tensor:
        """Translations of `(N, C, H, W)` in `[-1, 1]`, padded at the right and below, and cropped again."""
        height, width = images.shape[2:]
        least = getattr(network, "smallest_side", network.stride)
        below, right = (max(-side % network.stride, least - side) for side in (height, width))
        padded = pad_images(images, height + below, width + right).to(self._execution_device)

        def forward(sample: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            inputs = [sample] if latents is None else [sample, latents.to(sample.device)[rows]]
            return network(*(entry.to(network.dtype) for entry in inputs), return_dict=False)[0].float()

        rows = torch.arange(len(padded), device=padded.device)
        tiling = plan_tiling(tile_size, tile_overlap, tile_batch_size, *padded.shape[2:])
        output = forward(padded, rows) if tiling is None else predict_tiled(forward, padded, rows, tiling)
        return output[..., :height, :width]

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "ImageTranslationPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels of the translations, and height and width of the training images if `generator` knows them."""
        return (self.generator.config.out_channels, *get_sample_size(self.generator))

    def check_inputs(
        self,
        network: ModelMixin,
        sizes: list[tuple[int, int]],
        dropout: bool,
        num_images_per_input: int,
        generator: torch.Generator | list[torch.Generator] | None,
        style_image: ImageInput | list[ImageInput] | None,
        latents: torch.Tensor | None,
        output_type: str,
        batch_size: int | None,
        tile_size: int | None,
        tile_overlap: int | None,
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        check_positive_int("num_images_per_input", num_images_per_input)
        latent_dim = network.config.get("latent_dim")
        if num_images_per_input > 1 and not dropout and latent_dim is None:
            raise ValueError(
                "`num_images_per_input` needs a generator with `latent_dim`, or `dropout=True`: without them, all "
                "would be the same."
            )
        if style_image is not None and (self.style_encoder is None or network is not self.generator):
            raise ValueError("`style_image` needs the `style_encoder` component, and no `reverse=True`.")
        if style_image is not None and latents is not None:
            raise ValueError("`style_image` and `latents` both give the style: pass one of them.")
        if latents is not None and latent_dim is None:
            raise ValueError("`latents` needs a generator with `latent_dim`, which this one has not.")
        check_latents(latents, (len(sizes) * num_images_per_input, latent_dim))
        if dropout and not any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules()):
            raise ValueError("`dropout=True` needs a generator that has dropout, but this one has none.")
        check_generator(generator, len(sizes) * num_images_per_input)
        if batch_size is not None:
            check_positive_int("batch_size", batch_size)
        least = getattr(network, "smallest_side", network.stride)
        check_tiling(tile_size, tile_overlap, batch_size or 16, network.stride, least)
        if tile_size is not None and dropout:
            raise ValueError("`tile_size` needs `dropout=False`, because the noise of overlapping tiles would differ.")
        check_output_type(output_type, network.config.out_channels, picture_channels=(1, 2, 3, 4))
        if output_type != "pil" and len(set(sizes)) > 1:
            raise ValueError(
                f"Images of {len(set(sizes))} sizes can't be put into one array: pass `output_type='pil'`, or images "
                "of one size."
            )


@contextmanager
def as_in_training(
    network: nn.Module,
    dropout: bool,
    image_statistics: bool,
    generator: torch.Generator | list[torch.Generator] | None,
) -> Iterator[None]:
    """Dropout or batch norm works as in training, while the network itself stays as it is."""
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


def drop(
    module: nn.Dropout, hidden_states: torch.Tensor, generator: torch.Generator | list[torch.Generator] | None
) -> torch.Tensor:
    """The output of the layer in training for `(N, C, H, W)`, with one generator for all samples or one for each."""
    drawn = rand_tensor(hidden_states.shape, generator, hidden_states.device)
    return torch.where(drawn < module.p, 0, hidden_states / (1 - module.p))


def normalize_each(module: nn.BatchNorm2d, hidden_states: torch.Tensor) -> torch.Tensor:
    """The output of the layer in training, for each image of `(N, C, H, W)` as a batch of its own."""
    return F.instance_norm(hidden_states, weight=module.weight, bias=module.bias, eps=module.eps)
