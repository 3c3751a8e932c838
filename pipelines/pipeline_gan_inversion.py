"""From images to the latents of a GAN that make them again: by optimisation, an encoder, both, and tuning."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from torch.nn import functional as F

from .checks import check_choice, check_generator, check_number, check_output_type, check_positive, is_integer
from .color_transfer import color_distance, has_image_layers, recorded_image_layers
from .degradations import copy_degradation, degraded_shape
from .images import ImageInput, denormalize, list_images, read_images_of_shape, to_output
from .labels import (
    ClassLabels,
    check_class_labels_given,
    check_label_range,
    read_id2label,
)
from .latent_generators import LATENT_SPACES, LatentPipelineMixin, check_latent_generator, make_images
from .latent_optimization import optimize_latents, standardized
from .networks import get_shared_models
from .style_options import has_styles


INVERSION_STARTS = ("average", "encoder")
SPREAD_LATENTS = 1000  # random latents that show how far styles are from their average


@dataclass
class GANInversionOutput(ImagePipelineOutput):
    """
    What a generator makes of found latents. `latents`, `styles` and `noise` can be given to [`GANPipeline`].

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            The images that the generator makes, of the space that `output_type` names, in `[0, 1]`.
        errors (`torch.Tensor` of shape `(N,)`):
            The mean squared errors of their pixels, which are in `[0, 1]`.
        distances (`torch.Tensor` of shape `(N,)`):
            The distances that were to be small.
        distance (`str`):
            What these distances are: the name of the given distance, or `"pixels"`.
        latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
            The latents, of the space z.
        styles (`torch.Tensor` of shape `(N, num_styles, style_dim)`, *optional*):
            The styles, of the spaces w and w+.
        noise (`list[torch.Tensor]`, *optional*):
            The maps of noise `(N, 1, H, W)`, if they were optimised.
        generator ([`ModelMixin`], *optional*):
            The tuned generator, after pivotal tuning.
        degradation (`nn.Module`):
            The degradation, with the numbers that it learned; the identity if none was given.
    """

    errors: torch.Tensor = None
    distances: torch.Tensor = None
    distance: str = "pixels"
    latents: torch.Tensor | None = None
    styles: torch.Tensor | None = None
    noise: list[torch.Tensor] | None = None
    generator: ModelMixin | None = None
    degradation: torch.nn.Module | None = None


class GANInversionPipeline(LatentPipelineMixin, DiffusionPipeline):
    r"""
    Finds the latents from which a generator makes given images, so that these images can be edited.

    - By optimisation, as the projector of StyleGAN2 (Karras et al. 2020, appendix D,
      https://huggingface.co/papers/1912.04958), in the space z, w, or w+ (Abdal et al. 2019,
      https://huggingface.co/papers/1904.03189).
    - By an encoder alone: `start="encoder"` and `num_optimization_steps=0`.
    - By both: `start="encoder"`, then optimisation (Zhu et al. 2016, "Generative Visual Manipulation on the Natural
      Image Manifold", section 3).
    - With pivotal tuning (Roich et al. 2022, https://huggingface.co/papers/2106.05744): `num_tuning_steps`. The
      generator then learns to make the images from the latents that were found.
    - Through a `degradation`, which restores an old photograph (Luo et al. 2021, "Time-Travel Rephotography",
      https://huggingface.co/papers/2012.12261): what is compared with the photograph is the degraded image.

    Args:
        generator ([`ModelMixin`]):
            A generator as in [`GANPipeline`].
        encoder ([`StyleEncoder`], *optional*):
            From images to the generator's styles.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.

    Raises:
        ValueError: if the generator does not make images from latents, or the encoder makes other styles.
    """

    pipeline_tag = "image-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "encoder->generator"
    _optional_components = ["encoder"]

    def __init__(
        self,
        generator: ModelMixin,
        encoder: ModelMixin | None = None,
        id2label: dict[int, str] | dict[str, str] | None = None,
    ):
        super().__init__()
        check_latent_generator(generator)
        if encoder is not None:
            if not has_styles(generator):
                raise ValueError(f"`encoder` makes styles, but a {type(generator).__name__} has none.")
            made = (encoder.config.num_styles, encoder.config.style_dim, encoder.config.in_channels)
            wanted = (generator.num_styles, generator.config.style_dim, generator.config.out_channels)
            if made != wanted:
                raise ValueError(
                    "`encoder` must fit the generator in the number of styles, their length and the channels of "
                    f"images, which are {wanted}, but they are {made}."
                )
        id2label = read_id2label(id2label)
        check_label_range("id2label", id2label or (), generator.config.get("num_classes") or 0, "the generator")
        self.register_modules(generator=generator, encoder=encoder)
        self.register_to_config(id2label=id2label)

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | list[ImageInput],
        class_labels: ClassLabels | None = None,
        space: str | None = None,
        start: str = "average",
        num_optimization_steps: int = 1000,
        learning_rate: float = 0.1,
        distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        distance_weight: float = 1.0,
        pixel_weight: float | None = None,
        perturbation: float = 0.05,
        optimize_noise: bool = False,
        noise_weight: float = 1e5,
        num_tuning_steps: int = 0,
        tuning_learning_rate: float = 3e-4,
        degradation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        color_weight: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> GANInversionOutput | tuple:
        r"""
        Inverts images. The images of one call are optimised side by side, each on its own.

        Args:
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of these):
                One image or several, or their paths, of the generator's height and width, or of those that
                `degradation` makes; floats in `[0, 1]` or bytes.
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                The class of each image, for a generator with classes: the space z needs it, and in w the search then
                starts at the average style of the class. It is not for `start="encoder"`.
            space (`str`, *optional*):
                `"z"`; `"w"`, one style for all layers; or `"w+"`, a style for each, which reaches most images, and
                farther from what the generator knows. By default w+ for a generator with styles, and z for others.
            start (`str`, defaults to `"average"`):
                Where the search starts: at the `"average"`, or at the styles of the `"encoder"`, in w+.
            num_optimization_steps (`int`, defaults to 1000):
                How many steps of Adam; with 0, the start is the result.
            learning_rate (`float`, defaults to 0.1):
                At its height: it rises during the first 5% of the steps, and falls during the last 25%.
            distance (`Callable`, *optional*):
                `distance(first, second)`, of shape `(N,)` and with gradients, for images `(N, C, H, W)` in `[-1, 1]`,
                such as `load_perceptual_loss("lpips")`. Without it, pixels are compared.
            distance_weight (`float`, defaults to 1.0):
                The weight of `distance`.
            pixel_weight (`float`, *optional*):
                The weight of the mean squared difference of pixels in `[-1, 1]`; by default 1 without a `distance`,
                and 0 with one.
            perturbation (`float`, defaults to 0.05):
                How much noise is added to latents at first, in units of their spread; 0 for none. There is none after
                `start="encoder"`, which is near to the goal already.
            optimize_noise (`bool`, defaults to `False`):
                Whether the maps of noise of a generator with styles are found, too. They start at random values;
                otherwise they stay as they are stored.
            noise_weight (`float`, defaults to 1e5):
                The weight of the term that keeps these maps free of the image.
            num_tuning_steps (`int`, defaults to 0):
                Steps of pivotal tuning. The images of one call share a tuned generator, which is a copy; only what
                makes images from latents or styles is tuned, and not the mapping from latents to styles.
            tuning_learning_rate (`float`, defaults to 3e-4):
                Of these steps.
            degradation (`Callable`, *optional*):
                What happened to the images: from images `(N, C, H, W)` in `[-1, 1]` to images like the given ones,
                with gradients, such as an [`AntiquePhoto`]. The parameters of a module are learned with the latents,
                in a copy. The images of the result are not degraded; its errors and distances are of degraded ones.
            color_weight (`float`, defaults to 0.0):
                The weight of the distance of colours from those of the start, for a generator each of whose blocks
                adds to the image, as StyleGAN2: a gray photograph says little about colours. The original has 1e10 at
                1024 pixels.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes the perturbation and the first noise reproducible.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` (`(N, H, W, C)`) or `"pt"` (`(N, C, H, W)`, float32); the latter two in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`GANInversionOutput`] instead of a tuple.

        Returns:
            [`GANInversionOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> found = pipe("face.png", distance=load_perceptual_loss("lpips"))
        >>> GANPipeline(pipe.generator).edit("directions.safetensors", "smile", styles=found.styles).images
        ```
        """
        # 1. Input
        network = self.generator
        space = space or ("w+" if has_styles(network) else "z")
        numbers = {
            "learning_rate": learning_rate,
            "distance_weight": distance_weight,
            "pixel_weight": 1.0 if pixel_weight is None else pixel_weight,
            "perturbation": perturbation,
            "noise_weight": noise_weight,
            "tuning_learning_rate": tuning_learning_rate,
            "color_weight": color_weight,
        }
        steps = {"num_optimization_steps": num_optimization_steps, "num_tuning_steps": num_tuning_steps}
        self.check_inputs(space, start, numbers, steps, distance, class_labels, optimize_noise, output_type)
        device = self._execution_device
        degradation = copy_degradation(degradation, device)
        shape = degraded_shape(degradation, len(list_images("image", image)), self.image_shape, device)
        images = read_images_of_shape("image", image, shape)
        check_generator(generator, len(images))
        target = (images * 2 - 1).to(device)
        labels = None
        if class_labels is not None:
            labels = torch.tensor(self.get_label_ids(class_labels, len(images)), device=device)
        pixel_weight = float(distance is None) if pixel_weight is None else pixel_weight

        def compare(made: torch.Tensor) -> torch.Tensor:
            made = degradation(made)
            total = pixel_weight * (made - target).square().mean(dim=(1, 2, 3))
            return total if distance is None else total + distance_weight * distance(made, target)

        # 2. The start, and how far random latents are from the average
        latents, spread = self._start(space, start, target, labels)
        maps = []
        if optimize_noise:
            shapes = [(len(images), *shape) for shape in network.noise_shapes]
            maps = [standardized(randn_tensor(shape, generator, device)) for shape in shapes]

        def losses(latents: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
            if color_weight == 0:
                return compare(make_images(network, space, latents, labels, maps))
            with recorded_image_layers(network) as layers:
                made = make_images(network, space, latents, labels, maps)
            return compare(made) + color_weight * color_distance(layers, colors)

        if color_weight > 0:
            with recorded_image_layers(network) as colors:
                make_images(network, space, latents, labels, maps)

        # 3. Optimisation
        if num_optimization_steps > 0:
            is_perturbed = perturbation > 0 and start == "average"
            draws = (randn_tensor(latents.shape, generator, device) for _ in range(num_optimization_steps))
            latents, maps = optimize_latents(
                losses,
                latents,
                maps,
                num_optimization_steps,
                learning_rate,
                draws if is_perturbed else None,
                spread,
                perturbation,
                noise_weight,
                others=[parameter for parameter in degradation.parameters() if parameter.requires_grad],
                steps=self.progress_bar,
            )

        # 4. Pivotal tuning
        tuned = None
        if num_tuning_steps > 0:
            tuned = self._tune(
                lambda made_by: compare(make_images(made_by, space, latents, labels, maps)),
                num_tuning_steps,
                tuning_learning_rate,
            )

        # 5. Output
        made = make_images(tuned or network, space, latents, labels, maps)
        seen = degradation(made)
        distances = compare(made) if distance is None else distance(seen, target)
        errors = (denormalize(seen) - images.to(device)).square().mean(dim=(1, 2, 3))
        shown = denormalize(made)
        self.maybe_free_model_hooks()
        outputs = to_output(shown, output_type)
        if not return_dict:
            return (outputs,)
        return GANInversionOutput(
            images=outputs,
            errors=errors,
            distances=distances.float(),
            distance="pixels" if distance is None else getattr(distance, "name", type(distance).__name__),
            latents=latents if space == "z" else None,
            styles=None if space == "z" else network.broadcast_styles(latents).clone(),
            noise=maps or None,
            generator=tuned,
            degradation=degradation,
        )

    def _start(
        self, space: str, start: str, target: torch.Tensor, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, float]:
        """Latents or styles to start from, float32, and the root of the mean squared distance from the average."""
        network, number, device = self.generator, len(target), target.device
        if space == "z":
            return torch.zeros(number, network.config.latent_dim, device=device), network.config.latent_dim**0.5
        if start == "encoder":
            size = self.encoder.config.sample_size
            seen = target if target.shape[2] == size else F.interpolate(target, (size, size), mode="area")
            return self.encoder(seen.to(self.encoder.dtype), return_dict=False)[0].float(), 1.0
        # Random latents are drawn on the CPU with a seed of their own, so that they are the same in each call.
        source = torch.Generator().manual_seed(0)
        latents = torch.randn(SPREAD_LATENTS, network.config.latent_dim, generator=source).to(device, network.dtype)
        if self.num_classes is None:
            styles = network.map_latents(latents).float()
            average = network.style_average.float().expand(number, -1)
            spread = (styles - average[0]).square().sum(dim=1).mean().sqrt()
        else:
            of_all = torch.arange(SPREAD_LATENTS, device=device) % self.num_classes
            styles = network.map_latents(latents, of_all).float()
            means = torch.stack([styles[of_all == label].mean(dim=0) for label in range(self.num_classes)])
            spread = (styles - means[of_all]).square().sum(dim=1).mean().sqrt()
            average = network.style_average.float().expand(number, -1) if labels is None else means[labels]
        return (average if space == "w" else network.broadcast_styles(average)).clone(), float(spread)

    def _tune(self, loss: Callable[[ModelMixin], torch.Tensor], num_steps: int, learning_rate: float) -> ModelMixin:
        """Roich et al. 2022, eq. 3: a copy of the generator whose images of fixed latents are better."""
        tuned = copy.deepcopy(self.generator)
        fixed = set(tuned.mapping.parameters()) if has_styles(tuned) else set()
        parameters = [parameter for parameter in tuned.parameters() if parameter not in fixed]
        with torch.enable_grad():
            for parameter in parameters:
                parameter.requires_grad_(True)
            optimizer = torch.optim.Adam(parameters, lr=learning_rate)
            for _ in self.progress_bar(range(num_steps)):
                optimizer.zero_grad()
                loss(tuned).sum().backward()
                optimizer.step()
            optimizer.zero_grad()
        return tuned

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "GANInversionPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    def check_inputs(
        self,
        space: str,
        start: str,
        numbers: dict[str, float],
        steps: dict[str, int],
        distance: Callable | None,
        class_labels: ClassLabels | None,
        optimize_noise: bool,
        output_type: str,
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        check_choice("space", space, LATENT_SPACES)
        check_choice("start", start, INVERSION_STARTS)
        is_styled = has_styles(self.generator)
        if not is_styled and (space != "z" or optimize_noise):
            name = "optimize_noise" if optimize_noise else "space"
            raise ValueError(f"`{name}` is for styles, but a {type(self.generator).__name__} has none.")
        if start == "encoder":
            if self.encoder is None:
                raise ValueError('`start="encoder"` needs an encoder, but the pipeline has none.')
            if space != "w+" or class_labels is not None:
                raise ValueError('`start="encoder"` is for the space w+, without `class_labels`.')
        if space == "z":
            check_class_labels_given(class_labels, self.num_classes is not None, None, "the generator")
        for name, value in numbers.items():
            check_number(name, value)
            if value < 0:
                raise ValueError(f"`{name}` must be at least 0, but is {value!r}.")
        for name in ("learning_rate", "tuning_learning_rate"):
            check_positive(name, numbers[name])
        for name, value in steps.items():
            if not is_integer(value) or value < 0:
                raise ValueError(f"`{name}` must be an integer of at least 0, but is {value!r}.")
        if distance is not None and not callable(distance):
            raise ValueError("`distance` must be a function of two batches of images.")
        if numbers["color_weight"] > 0 and not has_image_layers(self.generator):
            raise ValueError(
                "`color_weight` is for a generator each of whose blocks adds to the image, as those of a skip "
                f"architecture do, but this {type(self.generator).__name__} has none."
            )
        check_output_type(output_type, self.generator.config.out_channels)
