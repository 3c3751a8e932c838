"""Images from energy-based models, by Langevin chains down their energies."""

from collections.abc import Callable

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor

from .checks import (
    check_callback_inputs,
    check_choice,
    check_generator,
    check_latents,
    check_number,
    check_output_type,
    check_positive_int,
)
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


class EnergyPipeline(DiffusionPipeline):
    r"""
    Generates images by Langevin chains down an energy, fills in images, and measures how strange images are.

    Args:
        model ([`ModelMixin`]):
            An [`EnergyMLP`], an [`EnergyConvNet`], an [`EnergyResNet`], an [`EnergyWideResNet`], or any model from
            images, and optionally `class_labels`, to an output with an `energy` per image. Its configuration has
            `sample_size`, `in_channels` and `num_classes`, and its `needs_class_labels` says whether images without a
            class have no energy.
        scheduler ([`LangevinScheduler`]):
            Makes the steps of the chains.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.

    Raises:
        ValueError: if the network has no energies, or `id2label` does not fit it.
    """

    pipeline_tag = "unconditional-image-generation"
    samples_from_noise = True
    model_cpu_offload_seq = "model"
    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        model: ModelMixin,
        scheduler: SchedulerMixin,
        # JSON has no integer keys, so that model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
    ):
        super().__init__()
        if not hasattr(model, "needs_class_labels"):
            raise ValueError(f"`model` must compute energies, but is a {type(model).__name__}.")
        id2label = read_id2label(id2label)
        check_label_range("id2label", id2label or (), model.config.num_classes or 0)
        self.register_modules(model=model, scheduler=scheduler)
        self.register_to_config(id2label=id2label)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: ClassLabels | None = None,
        num_images_per_label: int = 1,
        batch_size: int | None = None,
        num_inference_steps: int | None = None,
        image: ImageInput | list[ImageInput] | None = None,
        mask_image: ImageInput | Box | list | None = None,
        other_class_labels: ClassLabels | None = None,
        other_models: ModelMixin | list[ModelMixin] | None = None,
        composition: str = "and",
        other_weight: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end=None,
        callback_on_step_end_tensor_inputs: list[str] = ["latents"],  # noqa: B006, as in diffusers
    ) -> ImagePipelineOutput | tuple:
        r"""
        Generates `len(class_labels) * num_images_per_label` images, those of one label next to each other.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many, for a network with classes. Most networks make
                images of any class without them.
            num_images_per_label (`int`, defaults to 1):
                The number of images for each entry of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1, or to the number of images given as `image` or `latents`):
                The number of images without class labels.
            num_inference_steps (`int`, *optional*):
                How many steps the chains have, by default as many as the scheduler's configuration says.
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them, *optional*):
                Images to fill in: one for all, or one for each image of the call.
            mask_image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, a box or a list, *optional*):
                White where pixels have to be made, of the size of `image`, or a box `(left, top, right, bottom)`. The
                other pixels are put back after each step, so that the chain follows the energy of what is missing
                given what is there.
            other_class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Further classes, each for all images, whose energies are composed with that of `class_labels`.
            other_models (`ModelMixin` or a list of them, *optional*):
                Further networks for images of the same shape, whose energies are composed with this one's, without
                classes.
            composition (`str`, defaults to `"and"`):
                Du, Li & Mordatch 2020 (https://huggingface.co/papers/2004.06030): `"and"` adds the other energies, so
                that images are likely under all; `"or"` is the energy of a mixture; `"not"` subtracts the others.
            other_weight (`float`, defaults to 1.0):
                What the other energies are multiplied by.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the images reproducible. With a list, image i depends on generator i alone.
            latents (`torch.Tensor` of shape `(N, C, H, W)`, *optional*):
                The images in `[-1, 1]` where the chains begin, instead of uniform noise.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of `PIL.Image.Image`, `"np"` for an array `(N, H, W, C)`, `"pt"` for a tensor
                `(N, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return an [`ImagePipelineOutput`] instead of a tuple.
            callback_on_step_end (`Callable`, *optional*):
                Called after each step as `callback(pipe, step, timestep, {"latents": images})`, the images in
                `[-1, 1]`; it may return changed ones.
            callback_on_step_end_tensor_inputs (`list[str]`, defaults to `["latents"]`):
                What the callback gets.

        Returns:
            [`ImagePipelineOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> pipe = EnergyPipeline.from_pretrained("user/digits")
        >>> images = pipe(class_labels=[3, "seven"], num_images_per_label=4).images
        >>> strange = pipe.energy(images)
        ```
        """
        # 1. Inputs
        given = None if image is None else read_images_of_shape("image", image, self.image_shape)
        number = self.check_inputs(
            class_labels,
            num_images_per_label,
            batch_size,
            num_inference_steps,
            given,
            mask_image,
            other_class_labels,
            composition,
            other_weight,
            generator,
            latents,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        device = self._execution_device
        labels = None
        if class_labels is not None:
            labels = torch.tensor(self.get_label_ids(class_labels), device=device)
            labels = labels.repeat_interleave(num_images_per_label)
        compute_energy = self._compose(labels, other_class_labels, other_models, composition, other_weight)
        images = self.prepare_latents(number, device, generator, latents)
        is_made = None
        if given is not None:
            is_made = read_masks(mask_image, number, *self.image_shape[1:]).to(device)
            given = (2 * given.to(device) - 1).expand(number, -1, -1, -1)
            images = torch.where(is_made, images, given)

        # 2. The chains: Du & Mordatch 2019, eq. 2
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        self._interrupt = False
        for step, timestep in enumerate(self.progress_bar(self.scheduler.timesteps)):
            if self._interrupt:
                continue
            noise = randn_tensor(images.shape, generator=generator, device=device, dtype=torch.float32)
            images = self.scheduler.perturb(images, timestep, noise)
            if is_made is not None:
                images = torch.where(is_made, images, given)
            gradient = self._energy_gradient(compute_energy, images)
            images = self.scheduler.step(gradient, timestep, images, noise, return_dict=False)[0]
            if is_made is not None:
                images = torch.where(is_made, images, given)
            if callback_on_step_end is not None:
                changed = callback_on_step_end(self, step, timestep, {"latents": images}) or {}
                images = changed.get("latents", images)

        images = to_output(denormalize(images), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _compose(
        self,
        labels: torch.Tensor | None,
        other_class_labels: ClassLabels | None,
        other_models: ModelMixin | list[ModelMixin] | None,
        composition: str,
        other_weight: float,
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """The function from images to energies that chains go down."""
        others = [] if other_class_labels is None else self.get_label_ids(other_class_labels)
        models = list(other_models) if isinstance(other_models, (list, tuple)) else [other_models]
        models = [model for model in models if model is not None]

        def compute_energy(images: torch.Tensor) -> torch.Tensor:
            energy = self._energy_of(images, labels)
            energies = [self._energy_of(images, torch.full((len(images),), o, device=images.device)) for o in others]
            energies += [model(images.to(model.dtype), return_dict=False)[0].float() for model in models]
            if not energies:
                return energy
            weighted = other_weight * torch.stack(energies)
            if composition == "or":
                return -torch.cat([-energy[None], -weighted]).logsumexp(dim=0)
            return energy + weighted.sum(dim=0) if composition == "and" else energy - weighted.sum(dim=0)

        return compute_energy

    def _energy_of(self, images: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """`(N,)` in float32, of images in `[-1, 1]`, with their class or with any."""
        if labels is None and self.model.needs_class_labels:
            return -(-self._class_energies(images)).logsumexp(dim=1)
        return self.model(images.to(self.model.dtype), labels, return_dict=False)[0].float()

    def _class_energies(self, images: torch.Tensor) -> torch.Tensor:
        """`(N, num_classes)` in float32, of images in `[-1, 1]`."""
        if not self.model.needs_class_labels:
            return self.model(images.to(self.model.dtype), return_dict=False)[1].float()
        classes = torch.arange(self.num_classes, device=images.device)
        return torch.stack([self._energy_of(images, label.expand(len(images))) for label in classes], dim=1)

    def _energy_gradient(self, compute_energy: Callable, images: torch.Tensor) -> torch.Tensor:
        """The gradient of the sum of the energies with respect to the images."""
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            return torch.autograd.grad(compute_energy(images).sum(), images)[0]

    @torch.no_grad()
    def energy(self, image: ImageInput | list[ImageInput], class_labels: ClassLabels | None = None) -> torch.Tensor:
        r"""
        The energy of images, minus their log-density up to a constant: the higher, the stranger is an image.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of them):
                Images of the network's size.
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                The class of each image, or one for all; without it, it is the energy with any class.

        Returns:
            `torch.Tensor` of shape `(N,)`: on the CPU, in float32.

        Raises:
            ValueError: for images or classes that do not fit the network.
        """
        images, device = read_images_of_shape("image", image, self.image_shape), self._execution_device
        labels = None
        if class_labels is not None:
            check_class_labels_given(class_labels, self.num_classes is not None, None)
            ids = look_up_labels(class_labels, self.config.id2label, self.num_classes, num_images=len(images))
            labels = torch.tensor(ids, device=device)
        energy = self._energy_of(2 * images.to(device) - 1, labels)
        self.maybe_free_model_hooks()
        return energy.cpu()

    @torch.no_grad()
    def classify(self, image: ImageInput | list[ImageInput]) -> torch.Tensor:
        r"""
        The probabilities of the classes of images by their energies (Grathwohl et al. 2020, eq. 1).

        They are probabilities if the network was trained as a classifier, too, as JEM is. Otherwise the energies of
        different classes need not be comparable.

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
        images = read_images_of_shape("image", image, self.image_shape).to(self._execution_device)
        probabilities = (-self._class_energies(2 * images - 1)).softmax(dim=1)
        self.maybe_free_model_hooks()
        return probabilities.cpu()

    def prepare_latents(
        self,
        number: int,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The images in `[-1, 1]` where the chains begin, `(number, C, H, W)` in float32."""
        if latents is not None:
            return latents.to(device, torch.float32)
        return 2 * rand_tensor((number, *self.image_shape), generator, device) - 1

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "EnergyPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return (self.model.config.in_channels, *get_sample_size(self.model))

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the network; `None` for an unconditional one."""
        return self.model.config.num_classes

    @property
    def num_timesteps(self) -> int:
        """The number of steps of the last call."""
        return len(self.scheduler.timesteps)

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
        num_inference_steps: int | None,
        given: torch.Tensor | None,
        mask_image: ImageInput | Box | list | None,
        other_class_labels: ClassLabels | None,
        composition: str,
        other_weight: float,
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
        check_class_labels_given(class_labels, self.num_classes is not None, None if self._needs_labels else -1)
        if other_class_labels is not None:
            self.get_label_ids(other_class_labels)
        num_labels = None if class_labels is None else len(self.get_label_ids(class_labels))
        number = count_images(num_labels, num_images_per_label, batch_size)
        if class_labels is None and batch_size is None:
            number = next((len(one) for one in (given, latents) if one is not None), number)
        if given is not None and len(given) not in (1, number):
            raise ValueError(f"`image` must be one image or {number}, one for each of the call, but is {len(given)}.")
        if (given is None) != (mask_image is None):
            raise ValueError("`image` and `mask_image` are for filling in an image, and go together.")
        if num_inference_steps is not None:
            check_positive_int("num_inference_steps", num_inference_steps)
        check_choice("composition", composition, ("and", "or", "not"))
        check_number("other_weight", other_weight)
        check_latents(latents, (number, *self.image_shape))
        check_generator(generator, number)
        check_output_type(output_type, self.image_shape[0])
        check_callback_inputs(callback_tensor_inputs, self._callback_tensor_inputs)
        return number

    @property
    def _needs_labels(self) -> bool:
        return self.num_classes is not None and self.model.needs_class_labels
