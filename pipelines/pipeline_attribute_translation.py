"""Images in another domain, such as another light, season or weather, by one generator for all domains: StarGAN."""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin

from .checks import check_output_type, check_positive_int
from .images import ImageInput, denormalize, fit_channels, list_images, pad_images, read_image, to_output
from .labels import check_label_range, look_up_label, read_id2label
from .networks import get_sample_size, get_shared_models


Domain = int | str | tuple[int | str, ...]


class AttributeTranslationPipeline(DiffusionPipeline):
    r"""
    Translates images to any of several domains, such as day, night and fog, or gives them other attributes.

    "StarGAN: Unified Generative Adversarial Networks for Multi-Domain Image-to-Image Translation" (Choi et al. 2018,
    https://huggingface.co/papers/1711.09020).

    Args:
        generator ([`StarGANGenerator`]):
            `generator(sample, domain_labels, return_dict=False)[0]` are the translations of images `(N, C, H, W)`,
            both in `[-1, 1]`, to domains `(N, num_domains)` of 0 and 1. Height and width must be multiples of
            `generator.stride`, and at least `generator.smallest_side`.
        id2label (`dict[int, str]`, *optional*):
            The name of each domain or attribute.

    Raises:
        ValueError: if the generator takes no domains, or `id2label` does not fit it.
    """

    pipeline_tag = "image-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "generator"

    def __init__(self, generator: ModelMixin, id2label: dict[int, str] | dict[str, str] | None = None):
        super().__init__()
        if "num_domains" not in generator.config:
            raise ValueError(
                f"`generator` must translate images to domains, as a StarGANGenerator does, but is a "
                f"{type(generator).__name__}."
            )
        id2label = read_id2label(id2label)
        check_label_range("id2label", id2label or (), generator.config.num_domains)
        self.register_modules(generator=generator)
        self.register_to_config(id2label=id2label)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | list[ImageInput],
        target: Domain | list[Domain],
        output_type: str = "pil",
        return_dict: bool = True,
        batch_size: int | None = None,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Translates images.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of these):
                One image or several, of any size, or their paths. Arrays are `(H, W)`, `(H, W, C)` or `(N, H, W, C)`,
                tensors `(H, W)`, `(C, H, W)` or `(N, C, H, W)`, with floats in `[0, 1]` or bytes. Sides that are not
                multiples of the generator's stride are padded by reflection and cropped again.
            target (`int`, `str`, `tuple`, or a list of these):
                The domain of the results, by its number or its name, such as `"night"`; in a list, one for each image.
                For a generator of attributes, a tuple of all that a result has, such as `("Blond_Hair", "Young")`;
                an empty one for none.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` (`(N, H, W, C)`) or `"pt"` (`(N, C, H, W)`, float32); the latter two in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            batch_size (`int`, *optional*):
                The number of images in a forward pass; by default all images of a size.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry, each of the size of
            its input.

        Raises:
            ValueError: for input that cannot be translated, before any image is translated.
        """
        # 1. Input
        config = self.generator.config
        images = [read_image("image", entry) for entry in list_images("image", image)]
        images = [fit_channels("image", entry, config.channels) * 2 - 1 for entry in images]
        sizes = [tuple(entry.shape[1:]) for entry in images]
        targets = target if isinstance(target, list) else [target] * len(images)
        self.check_inputs(sizes, targets, output_type, batch_size)
        domain_labels = torch.stack([self._domain_label(entry) for entry in targets])

        # 2. Translation, of images of one size at once
        outputs = [None] * len(images)
        for size in dict.fromkeys(sizes):
            rows = torch.tensor([row for row, own_size in enumerate(sizes) if own_size == size])
            for part in rows.split(batch_size or len(rows)):
                translated = self._to_domains(torch.stack([images[row] for row in part]), domain_labels[part])
                for row, output in zip(part, translated, strict=True):
                    outputs[row] = denormalize(output)
        self.maybe_free_model_hooks()

        # 3. Output: pictures may differ in size
        if output_type == "pil":
            outputs = [picture for output in outputs for picture in to_output(output[None], "pil")]
        else:
            outputs = to_output(torch.stack(outputs), output_type)
        return ImagePipelineOutput(images=outputs) if return_dict else (outputs,)

    def _domain_label(self, target: Domain) -> torch.Tensor:
        """1 for the domain, or for each of several attributes, otherwise 0: `(num_domains,)`."""
        num_domains, names = self.generator.config.num_domains, self.config.id2label or {}
        label = torch.zeros(num_domains)
        for entry in target if isinstance(target, tuple) else (target,):
            label[look_up_label(entry, names, num_domains, (), name="target")] = 1
        return label

    def _to_domains(self, images: torch.Tensor, domain_labels: torch.Tensor) -> torch.Tensor:
        """Translations of `(N, C, H, W)` in `[-1, 1]`, padded at the right and below, and cropped again."""
        network, (height, width) = self.generator, images.shape[2:]
        below, right = (max(-side % network.stride, network.smallest_side - side) for side in (height, width))
        inputs = (pad_images(images, height + below, width + right), domain_labels)
        inputs = (entry.to(self._execution_device, network.dtype) for entry in inputs)
        return network(*inputs, return_dict=False)[0].float()[..., :height, :width]

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "AttributeTranslationPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int | None, int | None]:
        """Channels of the images, and height and width of the training images if `generator` knows them."""
        return (self.generator.config.channels, *get_sample_size(self.generator))

    def check_inputs(
        self, sizes: list[tuple[int, int]], targets: list[Domain], output_type: str, batch_size: int | None
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        if len(targets) != len(sizes):
            raise ValueError(
                f"`target` must be one domain or a list of {len(sizes)}, one for each image, but has {len(targets)}."
            )
        if batch_size is not None:
            check_positive_int("batch_size", batch_size)
        check_output_type(output_type, self.generator.config.channels, picture_channels=(1, 2, 3, 4))
        if output_type != "pil" and len(set(sizes)) > 1:
            raise ValueError(
                f"Images of {len(set(sizes))} sizes can't be put into one array: pass `output_type='pil'`, or images "
                "of one size."
            )
