"""Images from label maps in one pass of a generator: SPADE (GauGAN)."""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from torch.nn import functional as F

from .checks import check_generator, check_latents, check_output_type, check_positive_int
from .images import ImageInput, check_one_size, denormalize, list_images, to_output
from .label_maps import check_labels, instance_edges, one_hot_labels, read_instance_map, read_label_map
from .networks import get_sample_size, get_shared_models
from .style_latents import draw_style_latents, read_style_images


class SemanticSynthesisPipeline(DiffusionPipeline):
    r"""
    Makes images of label maps, which say by a number what each pixel shows, in the style of an image or of a seed.

    "Semantic Image Synthesis with Spatially-Adaptive Normalization" (Park et al. 2019,
    https://huggingface.co/papers/1903.07291).

    Args:
        generator ([`SPADEGenerator`]):
            `generator(segmentation, latents, return_dict=False)[0]` are the images `(N, C, H, W)`, in `[-1, 1]`, of
            one-hot label maps `(N, num_labels, H, W)`. If `generator.config.latent_dim` is set, `latents` of the shape
            `(N, latent_dim)` are the style.
        style_encoder ([`SPADEEncoder`], *optional*):
            `style_encoder(sample, return_dict=False)[0]` is the distribution of the latents of images in `[-1, 1]`.

    Raises:
        ValueError: if the generator does not take label maps, or the networks do not fit each other.
    """

    pipeline_tag = "image-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "style_encoder->generator"
    _optional_components = ["style_encoder"]

    def __init__(self, generator: ModelMixin, style_encoder: ModelMixin | None = None):
        super().__init__()
        if "num_labels" not in generator.config:
            raise ValueError(
                f"`generator` must make images of label maps, as a SPADEGenerator does, but is a "
                f"{type(generator).__name__}."
            )
        latent_dim = generator.config.latent_dim
        if style_encoder is not None and style_encoder.config.latent_dim != latent_dim:
            raise ValueError(
                f"`style_encoder` makes latents of length {style_encoder.config.latent_dim}, but `generator` takes "
                f"{'none' if latent_dim is None else latent_dim}."
            )
        self.register_modules(generator=generator, style_encoder=style_encoder)

    @torch.no_grad()
    def __call__(
        self,
        label_map: ImageInput | list[ImageInput],
        instance_map: ImageInput | list[ImageInput] | None = None,
        style_image: ImageInput | list[ImageInput] | None = None,
        num_images_per_input: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        batch_size: int | None = None,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Makes images.

        Args:
            label_map (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of these):
                One label map or several of one size, or their paths: pictures whose palette does not matter, arrays or
                tensors `(H, W)` of labels, or one-hot tensors `(K, H, W)` of five labels or more.
            instance_map (*optional*):
                For generators with `instance_edges`, which need it: for each label map, a picture, array or tensor of
                its size in which each object has a value or colour of its own. It may be the label map itself, if
                objects meet only where labels do.
            style_image (*optional*):
                The image whose style to use, or one for each label map; of any size. Without it, each result has a
                style of its own, drawn by `generator`.
            num_images_per_input (`int`, defaults to 1):
                The number of images of each label map, which are next to each other. Several need a generator network
                with latents.
            generator (`torch.Generator` or `list[torch.Generator]`, *optional*):
                Makes styles reproducible, drawn at random or from the distribution of those of `style_image`: one for
                all or one for each result.
            latents (`torch.Tensor`, *optional*):
                The styles themselves, `(N * num_images_per_input, latent_dim)`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` (`(N, H, W, C)`) or `"pt"` (`(N, C, H, W)`, float32); the latter two in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            batch_size (`int`, *optional*):
                The number of images in a forward pass; by default all.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry, of the size of the
            label maps.

        Raises:
            ValueError: for input that no image can be made of.
        """
        # 1. Input
        maps = [read_label_map("label_map", entry) for entry in list_images("label_map", label_map)]
        check_one_size(maps)
        maps = torch.stack(maps)
        check_labels("label_map", maps, self.generator.config.num_labels)
        count = len(maps) * num_images_per_input if isinstance(num_images_per_input, int) else 0
        generator = list(generator) if isinstance(generator, tuple) else generator
        self.check_inputs(
            tuple(maps.shape[2:]),
            count,
            instance_map,
            style_image,
            num_images_per_input,
            generator,
            latents,
            output_type,
            batch_size,
        )
        segmentation = one_hot_labels(maps * 2 - 1, self.generator.config.num_labels)
        if self.generator.config.instance_edges:
            segmentation = torch.cat([segmentation, self._edges(maps, instance_map)], dim=1)
        styles = None
        if style_image is not None:
            styles = read_style_images(style_image, self.style_encoder.config.in_channels, len(maps))

        # 2. Styles
        latent_dim, device = self.generator.config.latent_dim, self._execution_device
        if latents is None and latent_dim is not None:
            shape = (count, latent_dim)
            latents = draw_style_latents(styles, self.style_encoder, shape, num_images_per_input, generator, device)

        # 3. Images
        segmentation, step = segmentation.repeat_interleave(num_images_per_input, dim=0), batch_size or count
        outputs = []
        for rows in torch.arange(count).split(step):
            own = None if latents is None else latents[rows]
            outputs.append(self._generate(segmentation[rows], own))
        self.maybe_free_model_hooks()

        # 4. Output
        images = to_output(torch.cat(outputs), output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _edges(self, maps: torch.Tensor, instance_map: ImageInput | list[ImageInput]) -> torch.Tensor:
        """The edges of objects, `(N, 1, H, W)`."""
        instances = [read_instance_map("instance_map", entry) for entry in list_images("instance_map", instance_map)]
        sizes = [tuple(entry.shape[1:]) for entry in instances]
        if sizes != [tuple(maps.shape[2:])] * len(maps):
            raise ValueError(
                f"`instance_map` must have an entry of the size {tuple(maps.shape[2:])} for each of the {len(maps)} "
                f"label maps, but has {sizes}."
            )
        return torch.stack([instance_edges(entry) for entry in instances])

    def _generate(self, segmentation: torch.Tensor, latents: torch.Tensor | None) -> torch.Tensor:
        """Images in `[0, 1]`; maps are padded at the right and below by their last labels, and images cropped."""
        network, (height, width) = self.generator, segmentation.shape[2:]
        below, right = -height % network.stride, -width % network.stride
        padded = F.pad(segmentation, (0, right, 0, below), mode="replicate")
        inputs = [padded, latents] if latents is not None else [padded]
        inputs = [entry.to(self._execution_device, network.dtype) for entry in inputs]
        return denormalize(network(*inputs, return_dict=False)[0].float())[..., :height, :width]

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "SemanticSynthesisPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the training images."""
        return (self.generator.config.out_channels, *get_sample_size(self.generator))

    def check_inputs(
        self,
        size: tuple[int, int],
        count: int,
        instance_map: ImageInput | list[ImageInput] | None,
        style_image: ImageInput | list[ImageInput] | None,
        num_images_per_input: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        batch_size: int | None,
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        config, trained_size = self.generator.config, get_sample_size(self.generator)
        check_positive_int("num_images_per_input", num_images_per_input)
        if batch_size is not None:
            check_positive_int("batch_size", batch_size)
        check_generator(generator, count)
        check_output_type(output_type, config.out_channels)
        if instance_map is not None and not config.instance_edges:
            raise ValueError("`instance_map` needs a generator with `instance_edges`, which this one has not.")
        if instance_map is None and config.instance_edges:
            raise ValueError(
                "`instance_map` is missing, and this generator was trained with the edges of objects: pass the label "
                "map itself if objects meet only where labels do."
            )
        if style_image is not None and self.style_encoder is None:
            raise ValueError("`style_image` needs the `style_encoder` component, which is missing.")
        if style_image is not None and latents is not None:
            raise ValueError("`style_image` and `latents` both give the style: pass one of them.")
        if config.latent_dim is not None:
            check_latents(latents, (count, config.latent_dim))
            if size != trained_size:
                raise ValueError(
                    f"`label_map` must have the height and width of the training, {trained_size}, but has {size}."
                )
        elif latents is not None:
            raise ValueError("`latents` needs a generator with `latent_dim`, which this one has not.")
        elif num_images_per_input > 1:
            raise ValueError(
                "`num_images_per_input` needs a generator with `latent_dim`: without it, all would be the same."
            )
