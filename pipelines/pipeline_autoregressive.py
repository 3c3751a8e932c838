"""Images pixel by pixel, from a network that predicts each pixel from those before it."""

import math

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin

from .checks import check_callback_inputs, check_generator, check_latents, check_output_type, check_positive
from .images import ImageInput, denormalize, read_images_of_shape, to_output
from .labels import (
    ClassLabels,
    check_class_labels_given,
    check_label_range,
    count_images,
    look_up_labels,
    read_id2label,
)
from .masks import Box, read_masks
from .networks import get_sample_size, get_shared_models
from .uniform_numbers import rand_tensor


class AutoregressivePipeline(DiffusionPipeline):
    r"""
    Generates images pixel by pixel in raster order, completes images, and measures the likelihood of images.

    Args:
        model ([`ModelMixin`]):
            A [`PixelCNN`], a [`GatedPixelCNN`], a [`PixelCNNPlusPlus`], a [`PixelTransformer`], or any model with
            their methods `log_prob`, `draw_values`, `parameters_at` and `new_cache`. Its configuration has
            `sample_size`, `in_channels`, `num_levels` and `num_classes`.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.

    Raises:
        ValueError: if the network does not predict pixels, or `id2label` does not fit it.
    """

    pipeline_tag = "unconditional-image-generation"
    samples_from_noise = True
    likelihood = "exact"
    model_cpu_offload_seq = "model"
    _callback_tensor_inputs = ["images"]

    def __init__(
        self,
        model: ModelMixin,
        # JSON has no integer keys, so that model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
    ):
        super().__init__()
        if not hasattr(model, "parameters_at"):
            raise ValueError(
                "`model` must predict pixels from those before them, by a method `parameters_at`, but is a "
                f"{type(model).__name__}."
            )
        id2label = read_id2label(id2label)
        check_label_range("id2label", id2label or (), model.config.num_classes or 0)
        self.register_modules(model=model)
        self.register_to_config(id2label=id2label)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: ClassLabels | None = None,
        num_images_per_label: int = 1,
        batch_size: int | None = None,
        image: ImageInput | list[ImageInput] | None = None,
        mask_image: ImageInput | Box | list | None = None,
        temperature: float = 1.0,
        use_cache: bool = True,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end=None,
        callback_on_step_end_tensor_inputs: list[str] = ["images"],  # noqa: B006, as in diffusers
    ) -> ImagePipelineOutput | tuple:
        r"""
        Generates `len(class_labels) * num_images_per_label` images, those of one label next to each other.

        The steps are the rows of the image, from the top.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many, for a network with classes.
            num_images_per_label (`int`, defaults to 1):
                The number of images for each entry of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1, or to the number of images given as `image`):
                The number of images of a network without classes.
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Images to complete: one for all, or one for each image of the call.
            mask_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, a box or a list, *optional*):
                White where pixels have to be made, of the size of `image`, or a box `(left, top, right, bottom)`; by
                default the lower half. A pixel depends only on those before it in raster order: what is kept below or
                to the right of a made pixel does not guide it.
            temperature (`float`, defaults to 1.0):
                Below 1 pixels are drawn closer to the most probable ones, so that images are less diverse.
            use_cache (`bool`, defaults to `True`):
                Whether features of earlier pixels are kept. Without, the network is called for the whole image for
                each pixel; the images are the same up to rounding.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible. With a list, image i depends on generator i alone.
            latents (`torch.Tensor`, *optional*):
                The uniform numbers in `[0, 1)` that the pixels are drawn by, `(N, H, W, draws, numbers)` with the
                network's `draws_per_pixel` and `uniforms_per_draw`, instead of those drawn from `generator`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called after each row as `callback(pipe, row, row, {"images": images})`, the images in `[-1, 1]` with
                zeros where nothing is drawn yet; it may return changed ones.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["images"]`):
                What the callback gets.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> pipe = AutoregressivePipeline.from_pretrained("user/digits")
        >>> images = pipe(class_labels=[3, "seven"], num_images_per_label=4).images
        >>> completed = pipe(class_labels=3, image=images[0], mask_image=(0, 4, 8, 8)).images[0]
        ```
        """
        # 1. Inputs
        given = None if image is None else read_images_of_shape("image", image, self.image_shape)
        number = self.check_inputs(
            class_labels,
            num_images_per_label,
            batch_size,
            given,
            mask_image,
            temperature,
            generator,
            latents,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        model, device = self.model, self._execution_device
        channels, height, width = self.image_shape
        labels = None
        if class_labels is not None:
            labels = torch.tensor(self.get_label_ids(class_labels), device=device)
            labels = labels.repeat_interleave(num_images_per_label)
        uniforms = self.prepare_latents(number, device, generator, latents)
        is_made = torch.ones(number, 1, height, width, dtype=torch.bool)
        if given is not None:
            lower_half = (0, height // 2, width, height)
            is_made = read_masks(lower_half if mask_image is None else mask_image, number, height, width)
        is_made = is_made.to(device)
        images = torch.zeros(number, channels, height, width, device=device)
        if given is not None:
            images = torch.where(is_made, images, 2 * given.to(device).expand(number, -1, -1, -1) - 1)

        # 2. Pixels in raster order
        cache = model.new_cache(height, width) if use_cache else None
        self._interrupt = False
        for row in self.progress_bar(range(height)):
            if self._interrupt:
                continue
            for column in range(width):
                self._draw_pixel(images, row, column, is_made, labels, uniforms, temperature, cache)
            if callback_on_step_end is not None:
                changed = callback_on_step_end(self, row, row, {"images": images}) or {}
                images = changed.get("images", images)

        images = to_output(denormalize(images), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _draw_pixel(
        self,
        images: torch.Tensor,
        row: int,
        column: int,
        is_made: torch.Tensor,
        class_labels: torch.Tensor | None,
        uniforms: torch.Tensor,
        temperature: float,
        cache,
    ) -> None:
        """Draws one pixel of all images in place, one colour after the other or all at once."""
        model = self.model
        for draw in range(model.draws_per_pixel):
            # networks see images in their own precision, in which the levels of pixels are still distinct enough
            seen = images.to(model.dtype)
            parameters = model.parameters_at(seen, row, column, draw, class_labels, cache)
            values = model.draw_values(parameters, uniforms[:, row, column, draw], temperature)
            drawn = slice(draw, draw + values.shape[1])
            before = images[:, drawn, row, column]
            images[:, drawn, row, column] = torch.where(is_made[:, :, row, column], values, before)

    @torch.no_grad()
    def bits_per_dim(
        self, image: ImageInput | list[ImageInput], class_labels: ClassLabels | None = None
    ) -> torch.Tensor:
        r"""
        The negative log-likelihood of images, exactly, in bits per dimension: the more, the stranger is an image.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them):
                Images of the network's size. The likelihood is that of the levels which the network knows: of 256 it
                is that of bytes, of fewer that of the image rounded to them.
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                The class of each image, or one for all, for a network with classes.

        Returns:
            `torch.Tensor` of shape `(N,)`: on the CPU, in float32.

        Raises:
            ValueError: for images or classes that do not fit the network.
        """
        images = read_images_of_shape("image", image, self.image_shape)
        check_class_labels_given(class_labels, self.num_classes is not None, None)
        device, labels = self._execution_device, None
        if class_labels is not None:
            ids = look_up_labels(class_labels, self.config.id2label, self.num_classes, num_images=len(images))
            labels = torch.tensor(ids, device=device)
        nats = self._negative_log_likelihood(2 * images.to(device) - 1, labels)
        self.maybe_free_model_hooks()
        return (nats / (images[0].numel() * math.log(2))).cpu()

    @torch.no_grad()
    def classify(self, image: ImageInput | list[ImageInput]) -> torch.Tensor:
        r"""
        The probabilities of the classes of images by Bayes' rule, if all classes are as frequent.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them):
                Images of the network's size.

        Returns:
            `torch.Tensor` of shape `(N, num_classes)`: on the CPU, in float32.

        Raises:
            ValueError: for images that do not fit the network, and if the network has no classes.
        """
        if self.num_classes is None:
            raise ValueError("The network has no classes, so that it can't tell the class of an image.")
        device, images = self._execution_device, read_images_of_shape("image", image, self.image_shape)
        images = 2 * images.to(device) - 1
        nats = [
            self._negative_log_likelihood(images, torch.full((len(images),), label, device=device))
            for label in range(self.num_classes)
        ]
        self.maybe_free_model_hooks()
        return (-torch.stack(nats, dim=1)).softmax(dim=1).cpu()

    def _negative_log_likelihood(self, images: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """`(N,)`, in nats, of images in `[-1, 1]`."""
        parameters = self.model(images.to(self.model.dtype), labels, return_dict=False)[0]
        return -self.model.log_prob(parameters, images).flatten(1).sum(dim=1)

    def prepare_latents(
        self,
        number: int,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The uniform numbers by which the pixels of each image are drawn, in float32."""
        if latents is not None:
            return latents.to(device, torch.float32)
        return rand_tensor((number, *self.latents_shape), generator, device)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "AutoregressivePipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return (self.model.config.in_channels, *get_sample_size(self.model))

    @property
    def latents_shape(self) -> tuple[int, ...]:
        """The shape of the uniform numbers of one image."""
        model = self.model
        return (*self.image_shape[1:], model.draws_per_pixel, model.uniforms_per_draw)

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the network; `None` for an unconditional one."""
        return self.model.config.num_classes

    def get_label_ids(self, class_labels: ClassLabels) -> list[int]:
        r"""
        The class ids of labels that are given by id or by name. Names are spelled as in `id2label`.

        Raises:
            ValueError: for no label at all, an unknown or ambiguous name, an id out of range, or anything else, and
                if the network has no classes.
        """
        check_class_labels_given(class_labels, self.num_classes is not None, None)
        return look_up_labels(class_labels, self.config.id2label, self.num_classes)

    def check_inputs(
        self,
        class_labels: ClassLabels | None,
        num_images_per_label: int,
        batch_size: int | None,
        given: torch.Tensor | None,
        mask_image: ImageInput | Box | list | None,
        temperature: float,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        callback_tensor_inputs: list[str],
    ) -> int:
        """
        Refuses what the call could not carry out, with a `ValueError` of one sentence.

        Returns:
            `int`: the number of images.
        """
        check_class_labels_given(class_labels, self.num_classes is not None, None)
        num_labels = None if class_labels is None else len(self.get_label_ids(class_labels))
        number = count_images(num_labels, num_images_per_label, batch_size)
        if given is not None and class_labels is None and batch_size is None:
            number = len(given)
        if given is not None and len(given) not in (1, number):
            raise ValueError(f"`image` must be one image or {number}, one for each of the call, but is {len(given)}.")
        if mask_image is not None and given is None:
            raise ValueError("`mask_image` is for completing an `image`, which is not given.")
        check_latents(latents, (number, *self.latents_shape))
        check_generator(generator, number)
        check_positive("temperature", temperature)
        check_output_type(output_type, self.image_shape[0])
        check_callback_inputs(callback_tensor_inputs, self._callback_tensor_inputs)
        return number
