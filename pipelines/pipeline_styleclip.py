"""Images of a GAN that fit a prompt, by optimisation: StyleCLIP for given images, CLIP and GAN from nothing."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPImageProcessor, CLIPModel, PreTrainedTokenizerBase

from .checks import (
    check_choice,
    check_generator,
    check_latents,
    check_number,
    check_output_type,
    check_positive,
    check_positive_int,
    is_integer,
)
from .clip_scores import check_clip, embed_texts, embed_views
from .images import ImageInput, denormalize, read_images_of_shape, to_output
from .labels import (
    ClassLabels,
    check_class_labels_given,
    check_label_range,
    read_id2label,
)
from .latent_generators import LATENT_SPACES, LatentPipelineMixin, check_latent_generator, make_images
from .latent_optimization import optimize_latents
from .networks import get_shared_models
from .prompts import list_prompts
from .style_options import check_styles, has_styles, per_layer


LATENT_WEIGHT = 0.008  # of StyleCLIP
USUAL_CANDIDATES = 8


@dataclass
class StyleCLIPOutput(ImagePipelineOutput):
    """
    Images that fit prompts. `latents` and `styles` can be given to [`GANPipeline`].

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            N pictures, an array `(N, H, W, C)` or a tensor `(N, C, H, W)`, in `[0, 1]`.
        scores (`torch.Tensor` of shape `(N,)`):
            The cosines of the images and their prompts.
        latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
            The latents, in the space z.
        styles (`torch.Tensor` of shape `(N, num_styles, style_dim)`, *optional*):
            The styles, in the spaces w and w+.
        class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
            The classes that latents are made with, or that random styles began with.
    """

    scores: torch.Tensor = None
    latents: torch.Tensor | None = None
    styles: torch.Tensor | None = None
    class_labels: torch.Tensor | None = None


class StyleCLIPPipeline(LatentPipelineMixin, DiffusionPipeline):
    r"""
    Moves latents of a generator so that a CLIP sees a prompt in its images.

    - Given `styles`, such as those that a [`GANInversionPipeline`] finds for a photograph, it edits: the latent
      optimisation of StyleCLIP (Patashnik et al. 2021, section 4, https://huggingface.co/papers/2103.17249).
    - Given nothing but a prompt, it starts at several random latents, and keeps the best result.

    Args:
        generator ([`ModelMixin`]):
            A generator as in [`GANPipeline`].
        clip ([`CLIPModel`]):
            Compares images with texts. One for RGB images sees gray images as such.
        tokenizer ([`PreTrainedTokenizerBase`]), image_processor ([`CLIPImageProcessor`]):
            How the CLIP is shown texts and images.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.

    Raises:
        ValueError: if the generator does not make images from latents, or the CLIP can't see them.
    """

    pipeline_tag = "text-to-image"
    samples_from_noise = False
    model_cpu_offload_seq = "generator"
    _exclude_from_cpu_offload = ["clip"]

    def __init__(
        self,
        generator: ModelMixin,
        clip: CLIPModel,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: CLIPImageProcessor,
        id2label: dict[int, str] | dict[str, str] | None = None,
    ):
        super().__init__()
        check_latent_generator(generator)
        check_clip(clip, generator)
        id2label = read_id2label(id2label)
        check_label_range("id2label", id2label or (), generator.config.get("num_classes") or 0, "the generator")
        self.register_modules(generator=generator, clip=clip, tokenizer=tokenizer, image_processor=image_processor)
        self.register_to_config(id2label=id2label)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        styles: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        class_labels: ClassLabels | None = None,
        image: ImageInput | list[ImageInput] | None = None,
        space: str | None = None,
        num_candidates: int | None = None,
        truncation_psi: float = 0.7,
        num_optimization_steps: int = 300,
        learning_rate: float = 0.1,
        latent_weight: float | None = None,
        distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        distance_weight: float = 0.1,
        pixel_weight: float = 0.0,
        num_cutouts: int = 0,
        smallest_cutout: float = 0.8,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> StyleCLIPOutput | tuple:
        r"""
        Edits images, or makes an image for each prompt. Each is optimised on its own.

        What is minimised is `1 - cosine(image, prompt)`, and the terms that the weights below add.

        Args:
            prompt (`str` or `list[str]`):
                What the images are to show: one text for all images, or one for each.
            styles (`torch.Tensor`, *optional*):
                The images to edit, as styles w `(N, style_dim)` or w+ `(N, num_styles, style_dim)`.
            latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
                The images to edit, as latents.
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                For a generator with classes: the class of all images, or of each, in the space z; in w and w+ the
                class of random starts, which is random by default.
            image (`PIL.Image.Image`, `str`, `np.ndarray`, `torch.Tensor` or a list of these, *optional*):
                What `distance` and `pixel_weight` compare results with, such as the photographs that were inverted;
                by default the images of `styles` or `latents`.
            space (`str`, *optional*):
                Where the search goes: `"z"`; `"w"`, where the styles of all layers move alike; or `"w+"`, where each
                moves on its own, as in StyleCLIP, which finds more images that deceive the CLIP. By default w+ for
                given styles, w for random ones, and z for given latents and generators without styles.
            num_candidates (`int`, *optional*, defaults to 8):
                From how many random starts each image is searched. The one with the largest cosine is kept.
            truncation_psi (`float`, defaults to 0.7):
                How much of the distance from the average style random styles keep.
            num_optimization_steps (`int`, defaults to 300):
                How many steps of Adam; with 0, the best start is the result.
            learning_rate (`float`, defaults to 0.1):
                At its height: it rises during the first 5% of the steps, and falls during the last 25%.
            latent_weight (`float`, *optional*):
                The weight of the squared length of the move; by default 0.008 from given styles or latents, and 0
                from random ones.
            distance (`Callable`, *optional*):
                `distance(first, second)`, of shape `(N,)` and with gradients, for images `(N, C, H, W)` in `[-1, 1]`:
                what must stay, such as the identity of a person by the features of a network.
            distance_weight (`float`, defaults to 0.1):
                The weight of `distance`.
            pixel_weight (`float`, defaults to 0.0):
                The weight of the mean squared difference of pixels in `[-1, 1]`. With `image`, this is TediGAN's
                optimisation (Xia et al. 2021, https://huggingface.co/papers/2012.03308).
            num_cutouts (`int`, defaults to 0):
                How many random squares of the image the CLIP sees in each step, so that the image fits the prompt in
                all of them; 0 shows the whole image.
            smallest_cutout (`float`, defaults to 0.8):
                The side of the smallest square, as a fraction of the shorter side of the image.
            generator (`torch.Generator` or a list of one for each image, *optional*):
                Makes random starts reproducible.
            output_type (`str`, defaults to `"pil"`):
                `"pil"`, `"np"` (`(N, H, W, C)`) or `"pt"` (`(N, C, H, W)`, float32); the latter two in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`StyleCLIPOutput`] instead of a tuple.

        Returns:
            [`StyleCLIPOutput`] or `tuple`: the images, in `.images` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> found = inversion("face.png", start="encoder", num_optimization_steps=100)
        >>> pipe("a face with purple hair", styles=found.styles).images[0]
        >>> pipe("a face with purple hair", num_candidates=16, num_cutouts=8).images[0]
        ```
        """
        # 1. Input
        prompts = list_prompts("prompt", prompt)
        is_edit = styles is not None or latents is not None
        if space is None:
            space = "z" if latents is not None or not has_styles(self.generator) else "w+" if is_edit else "w"
        latent_weight = (LATENT_WEIGHT if is_edit else 0.0) if latent_weight is None else latent_weight
        numbers = {
            "learning_rate": learning_rate,
            "latent_weight": latent_weight,
            "distance_weight": distance_weight,
            "pixel_weight": pixel_weight,
            "truncation_psi": truncation_psi,
        }
        self.check_inputs(styles, latents, image, space, class_labels, num_candidates, numbers, distance, output_type)
        self.check_steps(num_optimization_steps, num_cutouts, smallest_cutout)
        count = len(prompts) if not is_edit else len(latents if styles is None else styles)
        if len(prompts) not in (1, count):
            raise ValueError(f"`prompt` must be one text for all images or {count}, but are {len(prompts)}.")
        check_generator(generator, count)
        device, candidates = self._execution_device, 1 if is_edit else num_candidates or USUAL_CANDIDATES
        labels = None
        if class_labels is not None:
            labels = torch.tensor(self.get_label_ids(class_labels, count), device=device).repeat_interleave(candidates)

        # 2. The start, and what must stay
        if is_edit:
            start = (latents if styles is None else styles).to(device, torch.float32)
            start = start if space == "z" else per_layer(start, self.generator.num_styles)
        else:
            start, labels = self._random_start(space, count, candidates, labels, truncation_psi, generator)
        in_z = labels if space == "z" else None
        reference = None
        if image is not None:
            reference = (read_images_of_shape("image", image, self.image_shape) * 2 - 1).to(device)
            if len(reference) not in (1, count):
                raise ValueError(f"`image` must be one for all images or {count}, but are {len(reference)}.")
        elif is_edit:
            reference = make_images(self.generator, space, start, in_z)
        texts = embed_texts(self.clip, self.tokenizer, prompts).expand(count, -1).repeat_interleave(candidates, dim=0)
        # Squares are drawn with a seed of their own, so that they are the same in each call.
        source = torch.Generator().manual_seed(0)

        def losses(moves: torch.Tensor, _: list[torch.Tensor]) -> torch.Tensor:
            made = make_images(self.generator, space, start + moves, in_z)
            views = embed_views(self.clip, self.image_processor, made / 2 + 0.5, num_cutouts, smallest_cutout, source)
            total = 1 - (views * texts).sum(dim=1)
            if latent_weight > 0:
                total = total + latent_weight * moves.square().flatten(1).sum(dim=1)
            if pixel_weight > 0:
                total = total + pixel_weight * (made - reference).square().mean(dim=(1, 2, 3))
            if distance is not None:
                total = total + distance_weight * distance(made, reference.expand_as(made))
            return total

        # 3. Optimisation
        moves = torch.zeros_like(start[:, :1] if space == "w" else start)
        if num_optimization_steps > 0:
            moves, _ = optimize_latents(
                losses, moves, [], num_optimization_steps, learning_rate, steps=self.progress_bar
            )

        # 4. The best candidate of each image
        moved = start + moves
        shown = denormalize(make_images(self.generator, space, moved, in_z))
        scores = (embed_views(self.clip, self.image_processor, shown) * texts).sum(dim=1)
        scores, best = scores.unflatten(0, (count, candidates)).max(dim=1)
        chosen = best + candidates * torch.arange(count, device=best.device)
        self.maybe_free_model_hooks()
        outputs = to_output(shown[chosen], output_type)
        if not return_dict:
            return (outputs,)
        return StyleCLIPOutput(
            images=outputs,
            scores=scores,
            latents=moved[chosen] if space == "z" else None,
            styles=None if space == "z" else moved[chosen],
            class_labels=None if labels is None else labels[chosen],
        )

    def _random_start(
        self,
        space: str,
        count: int,
        candidates: int,
        labels: torch.Tensor | None,
        truncation_psi: float,
        generator: torch.Generator | list[torch.Generator] | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Random latents or styles, those of one image next to each other, and their classes."""
        network, device, config = self.generator, self._execution_device, self.generator.config
        if config.get("num_categories") or config.get("num_continuous_codes"):
            raise ValueError("`latents` must be given, because this generator has codes beside random latents.")
        latents = randn_tensor((count, candidates, config.latent_dim), generator, device).flatten(0, 1)
        if config.get("latent_distribution") == "uniform":
            latents = torch.erf(latents / 2**0.5)
        if space == "z":
            return latents, labels
        if labels is None and self.num_classes is not None:
            # The place of the largest of several normal numbers is a random class.
            labels = randn_tensor((count, candidates, self.num_classes), generator, device).argmax(dim=2).flatten()
        options = {"truncation_psi": truncation_psi, "return_dict": False}
        styles = network(latents.to(network.dtype), labels, **options)[1].float()
        return styles, labels

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "StyleCLIPPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    def check_inputs(
        self,
        styles: torch.Tensor | None,
        latents: torch.Tensor | None,
        image: ImageInput | list[ImageInput] | None,
        space: str,
        class_labels: ClassLabels | None,
        num_candidates: int | None,
        numbers: dict[str, float],
        distance: Callable | None,
        output_type: str,
    ):
        """Refuses what the call could not carry out, with a `ValueError` of one sentence."""
        check_choice("space", space, LATENT_SPACES)
        if styles is not None and latents is not None:
            raise ValueError("`styles` and `latents` are two ways to give the images: give one of them.")
        is_edit = styles is not None or latents is not None
        if styles is not None:
            check_styles(self.generator, styles, "styles")
        check_latents(latents, (None, self.generator.config.latent_dim))
        if not has_styles(self.generator) and space != "z":
            raise ValueError(f"`space` is for styles, but a {type(self.generator).__name__} has none.")
        if (latents is not None and space != "z") or (styles is not None and space == "z"):
            raise ValueError(f"`space` is {space}, but what is given is {'styles' if latents is None else 'latents'}.")
        if space == "z":
            check_class_labels_given(class_labels, self.num_classes is not None, None, "the generator")
        elif styles is not None and class_labels is not None:
            raise ValueError("`class_labels` are for latents and random starts: `styles` have their class already.")
        if num_candidates is not None:
            check_positive_int("num_candidates", num_candidates)
            if is_edit:
                raise ValueError("`num_candidates` is for random starts, but the images to edit are given.")
        for name, value in numbers.items():
            check_number(name, value)
            if value < 0:
                raise ValueError(f"`{name}` must be at least 0, but is {value!r}.")
        check_positive("learning_rate", numbers["learning_rate"])
        if distance is not None and not callable(distance):
            raise ValueError("`distance` must be a function of two batches of images.")
        is_compared = distance is not None or numbers["pixel_weight"] > 0
        if is_compared and not is_edit:
            raise ValueError("`distance` and `pixel_weight` are for images to edit: give `styles` or `latents`.")
        if image is not None and not is_compared:
            raise ValueError("`image` is what `distance` or `pixel_weight` compare with: give one of them.")
        check_output_type(output_type, self.generator.config.out_channels)

    def check_steps(self, num_optimization_steps: int, num_cutouts: int, smallest_cutout: float):
        """Refuses numbers that are none of steps and cut-outs, with a `ValueError` of one sentence."""
        for name, value in (("num_optimization_steps", num_optimization_steps), ("num_cutouts", num_cutouts)):
            if not is_integer(value) or value < 0:
                raise ValueError(f"`{name}` must be an integer of at least 0, but is {value!r}.")
        check_number("smallest_cutout", smallest_cutout)
        if not 0 < smallest_cutout <= 1:
            raise ValueError(f"`smallest_cutout` must be above 0 and at most 1, but is {smallest_cutout!r}.")
