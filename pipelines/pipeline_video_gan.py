"""Films of classes from the generator of a GAN, such as DVD-GAN."""

import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils.torch_utils import randn_tensor

from .checks import check_generator, check_latents, check_output_type, check_positive_int
from .films import FilmPipelineOutput, to_films
from .images import denormalize
from .labels import (
    ClassLabels,
    check_class_labels_given,
    check_label_range,
    count_images,
    look_up_labels,
    read_id2label,
)
from .networks import get_shared_models


class VideoGANPipeline(DiffusionPipeline):
    r"""
    Generates films by one pass through the generator of a GAN (Clark et al. 2019,
    https://huggingface.co/papers/1907.06571).

    Args:
        generator ([`ModelMixin`]):
            A [`DVDGANGenerator`], or any model with the same call: `generator(latents, class_labels, num_frames)`
            returns films `(N, C, F, H, W)` in `[-1, 1]` from latents `(N, latent_dim)`.
        spatial_discriminator, temporal_discriminator ([`ModelMixin`], *optional*):
            Its counterparts, which further training needs, but no film.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.

    Raises:
        ValueError: if `id2label` does not fit the generator.
    """

    pipeline_tag = "text-to-video"
    samples_from_noise = False  # it makes films, and no images that the evaluation of images could measure
    model_cpu_offload_seq = "generator"
    _exclude_from_cpu_offload = ["spatial_discriminator", "temporal_discriminator"]
    _optional_components = ["spatial_discriminator", "temporal_discriminator"]

    def __init__(
        self,
        generator: ModelMixin,
        spatial_discriminator: ModelMixin | None = None,
        temporal_discriminator: ModelMixin | None = None,
        # JSON has no integer keys, so that model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
    ):
        super().__init__()
        id2label = read_id2label(id2label)
        if id2label is not None:
            check_label_range("id2label", id2label, generator.config.num_classes or 0, "the generator")
        self.register_modules(
            generator=generator,
            spatial_discriminator=spatial_discriminator,
            temporal_discriminator=temporal_discriminator,
        )
        self.register_to_config(id2label=id2label)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: ClassLabels | None = None,
        num_videos_per_label: int = 1,
        batch_size: int | None = None,
        num_frames: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> FilmPipelineOutput | tuple:
        r"""
        Generates `len(class_labels) * num_videos_per_label` films; those of one label are next to each other.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                The classes, by id or by name, of a generator with classes.
            num_videos_per_label (`int`, defaults to 1):
                The number of films for each label.
            batch_size (`int`, *optional*, defaults to 1, or to the number of `latents`):
                The number of films of a generator without classes.
            num_frames (`int`, *optional*, defaults to the generator's):
                The frames of each film; more than in training are possible.
            generator (`torch.Generator` or a list of one for each film, *optional*):
                Makes the films reproducible.
            latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
                Normal noise, instead of noise from `generator`.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of pictures of each film, `"np"` for an array `(N, F, H, W, C)`, `"pt"` for a tensor
                `(N, F, C, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`FilmPipelineOutput`] instead of a tuple.

        Returns:
            [`FilmPipelineOutput`] or `tuple`: the films, in `.frames` or as the first entry.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> pipe = VideoGANPipeline.from_pretrained("user/moving-digits-gan")
        >>> frames = pipe("seven").frames[0]
        >>> frames[0].save("seven.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)
        ```
        """
        config = self.generator.config
        check_class_labels_given(class_labels, config.num_classes is not None, None, "the generator")
        labels = None
        if class_labels is not None:
            labels = look_up_labels(class_labels, self.config.id2label, config.num_classes)
        if labels is None and batch_size is None and torch.is_tensor(latents) and latents.ndim > 0:
            batch_size = len(latents)
        num_labels = None if labels is None else len(labels)
        number = count_images(num_labels, num_videos_per_label, batch_size, "num_videos_per_label")
        check_positive_int("num_frames", config.num_frames if num_frames is None else num_frames)
        check_latents(latents, (number, config.latent_dim))
        check_generator(generator, number)
        check_output_type(output_type, config.out_channels)

        device = self._execution_device
        if latents is None:
            latents = randn_tensor((number, config.latent_dim), generator=generator, device=device)
        if labels is not None:
            labels = torch.tensor(labels, device=device).repeat_interleave(num_videos_per_label)
        films = self.generator(latents.to(device, self.generator.dtype), labels, num_frames, return_dict=False)[0]
        frames = to_films(denormalize(films.float()), output_type)
        self.maybe_free_model_hooks()
        return FilmPipelineOutput(frames=frames) if return_dict else (frames,)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "VideoGANPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the frames."""
        size = self.generator.sample_size
        return (self.generator.config.out_channels, size, size)
