"""Images from a density that was fitted by maximum likelihood, of pixels or of the latents of an autoencoder."""

import math

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils.torch_utils import randn_tensor

from .checks import check_generator, check_latents, check_output_type, check_positive_int
from .images import ImageInput, denormalize, read_images_of_shape, to_output
from .labels import (
    ClassLabels,
    check_class_labels_given,
    check_label_range,
    count_images,
    look_up_labels,
    read_id2label,
)
from .latent_space import LatentSpace, LatentVectors
from .networks import get_sample_size, get_shared_models
from .uniform_numbers import rand_tensor


class DensityPipeline(DiffusionPipeline):
    r"""
    Draws images from a density, and measures how likely images are.

    A density of pixels belongs to images of `num_levels` levels: level k of L is the cell from k/L to (k+1)/L of
    `[0, 1]`. A sample gets the level of its cell, and the likelihood of an image is bounded by the mean log-density in
    its cells (uniform dequantization, Theis et al. 2016, https://huggingface.co/papers/1511.01844, section 3.1).

    Args:
        model ([`ModelMixin`]):
            A [`GaussianMixtureModel`], a [`KernelDensityModel`], or any model with their `forward` and `sample`. Its
            configuration has `sample_shape` and `num_classes`.
        vae ([`ModelMixin`], *optional*):
            An autoencoder, of whose latents `model` is the density: the scaled maps of one of diffusers, or the
            vectors of one such as [`AutoencoderMLP`]. Without it, it is the density of pixels.
        num_levels (`int`, defaults to 256):
            How many values a channel of an image has.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.

    Raises:
        ValueError: if the model is no density of such images, or `id2label` does not fit it.
    """

    pipeline_tag = "unconditional-image-generation"
    samples_from_noise = True
    likelihood = "dequantized"
    model_cpu_offload_seq = "vae->model->vae"
    _optional_components = ["vae"]

    def __init__(
        self,
        model: ModelMixin,
        vae: ModelMixin | None = None,
        num_levels: int = 256,
        # JSON has no integer keys, so that model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
    ):
        super().__init__()
        shape = model.config.get("sample_shape")
        if shape is None or not hasattr(model, "sample"):
            raise ValueError(f"`model` must be a density with a `sample_shape`, but is a {type(model).__name__}.")
        if vae is None and len(shape) != 3:
            raise ValueError(f"`model` is a density of vectors, {tuple(shape)}: pass the `vae` that they belong to.")
        check_positive_int("num_levels", num_levels, least=2)
        id2label = read_id2label(id2label)
        check_label_range("id2label", id2label or (), model.config.num_classes or 0)
        self.register_modules(model=model, vae=vae)
        self.register_to_config(num_levels=num_levels, id2label=id2label)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: ClassLabels | None = None,
        num_images_per_label: int = 1,
        batch_size: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        r"""
        Draws `len(class_labels) * num_images_per_label` images, those of one label next to each other.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many, for a density with classes. Without them it draws
                images of any class.
            num_images_per_label (`int`, defaults to 1):
                The number of images for each entry of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1, or to the number of `latents`):
                The number of images without class labels.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible. With a list, image i depends on generator i alone.
            latents (`torch.Tensor` of shape `(N, 1 + D)`, *optional*):
                The normal numbers that samples are made of, instead of those drawn from `generator`: the first one
                chooses a component, and D is the number of values of a sample.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> pipe = DensityPipeline.from_pretrained("user/digits")
        >>> images = pipe(class_labels=[3, "seven"], num_images_per_label=4).images
        >>> bits = pipe.bits_per_dim(images)
        ```
        """
        number = self.check_inputs(class_labels, num_images_per_label, batch_size, generator, latents, output_type)
        device, labels = self._execution_device, None
        if class_labels is not None:
            labels = torch.tensor(self.get_label_ids(class_labels), device=device)
            labels = labels.repeat_interleave(num_images_per_label)
        latents = self.prepare_latents(number, device, generator, latents)
        samples = self.model.sample(latents, labels)
        if self.vae is not None:
            images = denormalize(self._space.decode(samples))
        else:
            levels = self.config.num_levels
            images = ((samples + 1) * (levels / 2)).floor().clamp(0, levels - 1) / (levels - 1)
        images = to_output(images, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    @torch.no_grad()
    def bits_per_dim(
        self,
        image: ImageInput | list[ImageInput],
        class_labels: ClassLabels | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> torch.Tensor:
        r"""
        An upper bound on the negative log-likelihood of images in bits per dimension, by uniform dequantization.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them):
                Images of the model's size. They are rounded to its levels.
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                The class of each image, or one for all; without it, it is the likelihood with any class.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Draws the places in the cells, and so makes the bound reproducible.

        Returns:
            `torch.Tensor` of shape `(N,)`: on the CPU, in float32.

        Raises:
            ValueError: for images or classes that do not fit the model, and for a density of latents.
        """
        if self.vae is not None:
            raise ValueError(
                "A density of latents has no likelihood of pixels: use `log_likelihood`, that of latents."
            )
        images = read_images_of_shape("image", image, self.image_shape)
        check_generator(generator, len(images))
        samples = self.encode(images, rand_tensor(images.shape, generator, self._execution_device))
        nats = -self._log_prob(samples, class_labels)
        # A cell is 2 / num_levels wide, because samples are in [-1, 1].
        return nats / (samples[0].numel() * math.log(2)) + math.log2(self.config.num_levels / 2)

    @torch.no_grad()
    def log_likelihood(
        self, image: ImageInput | list[ImageInput], class_labels: ClassLabels | None = None
    ) -> torch.Tensor:
        r"""
        The log-density of images in nats, at the middle of their cells, or of their latents: the lower, the stranger.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them):
                Images of the model's size.
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                The class of each image, or one for all; without it, it is the density with any class.

        Returns:
            `torch.Tensor` of shape `(N,)`: on the CPU, in float32.

        Raises:
            ValueError: for images or classes that do not fit the model.
        """
        return self._log_prob(self.encode(image), class_labels)

    @torch.no_grad()
    def classify(self, image: ImageInput | list[ImageInput]) -> torch.Tensor:
        r"""
        The probabilities of the classes of images by Bayes' rule, if all classes are as frequent.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them):
                Images of the model's size.

        Returns:
            `torch.Tensor` of shape `(N, num_classes)`: on the CPU, in float32.

        Raises:
            ValueError: for images that do not fit the model, and if the model has no classes.
        """
        if self.num_classes is None:
            raise ValueError("The model has no classes, so that it can't tell the class of an image.")
        class_log_probs = self.model(self.encode(image), return_dict=False)[1]
        self.maybe_free_model_hooks()
        return class_log_probs.softmax(dim=1).cpu()

    @torch.no_grad()
    def encode(self, image: ImageInput | list[ImageInput], noise: torch.Tensor | None = None) -> torch.Tensor:
        r"""
        What the model is the density of: points in the cells of the pixels, or the most probable latents.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them):
                Images of the model's size.
            noise (`torch.Tensor` of shape `(N, C, H, W)`, *optional*):
                The places in the cells, in `[0, 1)`; by default the middle. Latents do not depend on it.

        Returns:
            `torch.Tensor` of shape `(N, *sample_shape)`: on the pipeline's device, float32.

        Raises:
            ValueError: for images that do not fit the model.
        """
        images = read_images_of_shape("image", image, self.image_shape).to(self._execution_device)
        if self.vae is not None:
            return self._space.encode(2 * images - 1)
        levels = self.config.num_levels
        places = (images * (levels - 1)).round() + (0.5 if noise is None else noise)
        return 2 * places / levels - 1

    def _log_prob(self, samples: torch.Tensor, class_labels: ClassLabels | None) -> torch.Tensor:
        labels = None
        if class_labels is not None:
            check_class_labels_given(class_labels, self.num_classes is not None, -1, "the model")
            ids = look_up_labels(class_labels, self.config.id2label, self.num_classes, num_images=len(samples))
            labels = torch.tensor(ids, device=samples.device)
        log_prob = self.model(samples, labels, return_dict=False)[0]
        self.maybe_free_model_hooks()
        return log_prob.cpu()

    def prepare_latents(
        self,
        number: int,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The normal numbers `(number, 1 + D)` that samples are made of, in float32."""
        if latents is not None:
            return latents.to(device, torch.float32)
        return randn_tensor((number, *self.latents_shape), generator=generator, device=device, dtype=torch.float32)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "DensityPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def _space(self) -> LatentSpace | LatentVectors:
        return LatentVectors(self.vae) if len(self.model.config.sample_shape) == 1 else LatentSpace(self.vae)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        shape = self.model.config.sample_shape
        if self.vae is None:
            return tuple(shape)
        if len(shape) == 1:
            return (self.vae.config.in_channels, *get_sample_size(self.vae))
        space = self._space
        return (space.image_channels, *(side * space.pixels_per_latent for side in shape[1:]))

    @property
    def latents_shape(self) -> tuple[int]:
        """The shape of the normal numbers of one image."""
        return (1 + math.prod(self.model.config.sample_shape),)

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the model; `None` for an unconditional one."""
        return self.model.config.num_classes

    def get_label_ids(self, class_labels: ClassLabels) -> list[int]:
        r"""
        The class ids of labels that are given by id or by name. Names are spelled as in `id2label`.

        Raises:
            ValueError: for no label at all, an unknown or ambiguous name, an id out of range, or anything else, and
                if the model has no classes.
        """
        check_class_labels_given(class_labels, self.num_classes is not None, None, "the model")
        return look_up_labels(class_labels, self.config.id2label, self.num_classes)

    def check_inputs(
        self,
        class_labels: ClassLabels | None,
        num_images_per_label: int,
        batch_size: int | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
    ) -> int:
        """
        Refuses what the call could not carry out, with a `ValueError` of one sentence.

        Returns:
            `int`: the number of images.
        """
        check_class_labels_given(class_labels, self.num_classes is not None, -1, "the model")
        num_labels = None if class_labels is None else len(self.get_label_ids(class_labels))
        number = count_images(num_labels, num_images_per_label, batch_size)
        if class_labels is None and batch_size is None and latents is not None:
            number = len(latents)
        check_latents(latents, (number, *self.latents_shape))
        check_generator(generator, number)
        check_output_type(output_type, self.image_shape[0])
        return number
