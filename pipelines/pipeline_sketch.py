"""Sketches point by point, from a network that predicts each point from those before it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from .checks import check_choice, check_generator, check_latents, check_positive, check_positive_int
from .images import to_output
from .interpolation import slerp
from .labels import (
    ClassLabels,
    check_class_labels_given,
    check_label_range,
    count_images,
    look_up_labels,
    read_id2label,
)
from .networks import get_shared_models
from .sketches import read_sketches, to_picture, to_svg
from .uniform_numbers import rand_tensor


@dataclass
class SketchPipelineOutput(BaseOutput):
    """
    Sketches.

    Args:
        images (list of `PIL.Image.Image` or `str`, `np.ndarray` or `torch.Tensor`):
            The sketches as `output_type` says: gray pictures, or the texts of SVG files.
        strokes (list of `torch.Tensor` of shape `(n, 3)`):
            Their points on the CPU: `(dx, dy, lifted)` in the units of the training data; the first is reached with
            the pen lifted, and `lifted` is 1 where it is lifted after the point.
    """

    images: list[Image.Image] | list[str] | np.ndarray | torch.Tensor
    strokes: list[torch.Tensor]


class SketchPipeline(DiffusionPipeline):
    r"""
    Draws sketches, completes, encodes and reconstructs them, and interpolates between them.

    "A Neural Representation of Sketch Drawings" (Ha and Eck 2017, https://huggingface.co/papers/1704.03477). A network
    with latents is a variational autoencoder; one without is the decoder alone.

    Args:
        model ([`SketchRNN`]):
            The network.
        id2label (`dict[int, str]`, *optional*):
            The name of each class id.

    Raises:
        ValueError: if the network does not predict points, or `id2label` does not fit it.
    """

    pipeline_tag = "unconditional-image-generation"
    samples_from_noise = False  # its data are no images, with which its pictures could be compared
    image_shape = (1, None, None)
    model_cpu_offload_seq = "model"

    def __init__(
        self,
        model: ModelMixin,
        # JSON has no integer keys, so that model_index.json has strings.
        id2label: dict[int, str] | dict[str, str] | None = None,
    ):
        super().__init__()
        if not hasattr(model, "draw_points"):
            raise ValueError(f"`model` must be a SketchRNN, which predicts points, but is a {type(model).__name__}.")
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
        sketch: Any = None,
        temperature: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        image_size: int = 256,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> SketchPipelineOutput | tuple:
        r"""
        Draws `len(class_labels) * num_images_per_label` sketches, those of one label next to each other.

        Args:
            class_labels (`int`, `str`, a list of them, `torch.Tensor` or `np.ndarray`, *optional*):
                Class ids, or names as in `id2label`, one or many, for a network with classes.
            num_images_per_label (`int`, defaults to 1):
                The number of sketches for each entry of `class_labels`.
            batch_size (`int`, *optional*, defaults to 1, or to the number of `sketch` or `latents`):
                The number of sketches of a network without classes.
            sketch (array, tensor or lists `(n, 3)`, or a list of them, *optional*):
                Begun sketches to complete: one for all, or one for each sketch of the call, with points `(dx, dy,
                lifted)` in the units of the training data.
            temperature (`float`, defaults to 1.0):
                Below 1 points are drawn closer to the most probable ones: sketches are cleaner and less diverse.
            generator (`torch.Generator` or a list of one for each sketch, *optional*):
                Makes the sketches reproducible. With a list, sketch i depends on generator i alone.
            latents (`torch.Tensor` of shape `(N, latent_dim)`, *optional*):
                What the sketches are to be, such as sums and differences of what `encode` returns, instead of noise
                drawn from `generator`; for a network with latents.
            image_size (`int`, defaults to 256):
                Height and width of the pictures in pixels; each sketch fills its picture.
            output_type (`str`, defaults to `"pil"`):
                `"pil"` for a list of gray `PIL.Image.Image`, `"svg"` for a list of texts of SVG files, `"np"` for an
                array `(N, H, W, 1)`, `"pt"` for a tensor `(N, 1, H, W)`, both float32 in `[0, 1]`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`SketchPipelineOutput`] instead of a tuple.

        Returns:
            [`SketchPipelineOutput`] or `tuple`: the pictures, in `.images` or as the first entry, and the strokes.

        Raises:
            ValueError: for input that cannot be carried out.

        Example:

        ```py
        >>> pipe = SketchPipeline.from_pretrained("user/kanji")
        >>> sketches = pipe(batch_size=2, temperature=0.5)
        >>> completed = pipe(sketch=sketches.strokes[0][:10], temperature=0.5).images[0]
        >>> one, other = pipe.encode(sketches.strokes).unbind()
        >>> between = pipe(latents=0.5 * (one + other)[None]).images[0]
        ```
        """
        # 1. Inputs
        begun = None if sketch is None else read_sketches("sketch", sketch)
        number = self.check_inputs(
            class_labels,
            num_images_per_label,
            batch_size,
            begun,
            temperature,
            generator,
            latents,
            image_size,
            output_type,
        )
        model, device = self.model, self._execution_device
        labels = None
        if class_labels is not None:
            labels = torch.tensor(self.get_label_ids(class_labels), device=device)
            labels = labels.repeat_interleave(num_images_per_label)
        latents = self.prepare_latents(number, device, generator, latents)
        uniforms = rand_tensor((number, model.config.max_length, 4), generator, device)
        condition = model.condition(None if latents is None else latents.to(model.dtype), labels)
        known, num_known = self._prepare_begun(begun, number, device)

        # 2. Points, one after the other; those that are begun are given
        points, state, drawn = model.start_points(uniforms)[:, 0], None, []
        ended = torch.zeros(number, dtype=torch.bool, device=device)
        for step in self.progress_bar(range(model.config.max_length)):
            output, state = model.decode(points[:, None].to(model.dtype), condition, state)
            points = model.draw_points(output, uniforms[:, step], temperature)
            if known is not None and step < known.shape[1]:
                points = torch.where((step < num_known)[:, None], known[:, step], points)
            drawn.append(points)
            ended = ended | (points[:, 4] == 1)
            if step % 16 == 15 and ended.all():  # seldom, because looking waits for the device
                break
        strokes = self._to_strokes(torch.stack(drawn, dim=1).cpu())

        self.maybe_free_model_hooks()
        if output_type == "svg":
            images = [to_svg(points, image_size) for points in strokes]
        else:
            arrays = np.stack([np.asarray(to_picture(points, image_size), np.float32) / 255 for points in strokes])
            images = to_output(torch.from_numpy(arrays)[:, None], output_type)
        return SketchPipelineOutput(images=images, strokes=strokes) if return_dict else (images, strokes)

    def _prepare_begun(self, begun: list[torch.Tensor] | None, number: int, device: torch.device) -> tuple:
        """The begun sketches as the network sees them, `(N, L, 5)`, and their lengths `(N,)`; or `None` twice."""
        if begun is None:
            return None, None
        begun = begun * (number // len(begun))
        points, lengths = self._to_stroke5(begun, device)
        return points, lengths

    def _to_stroke5(self, sketches: list[torch.Tensor], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        padded = torch.nn.utils.rnn.pad_sequence(sketches, batch_first=True).to(device)
        padded = torch.cat([padded[..., :2] / self.model.config.offset_std, padded[..., 2:]], dim=2)
        lengths = torch.tensor([len(points) for points in sketches], device=device)
        return self.model.to_stroke5(padded, lengths), lengths

    def _to_strokes(self, points: torch.Tensor) -> list[torch.Tensor]:
        """Drawn points `(N, L, 5)` as strokes, up to the end of each sketch; the last line always ends."""
        scale = self.model.config.offset_std
        strokes = []
        for sketch in points:
            ends = sketch[:, 4].nonzero()
            sketch = sketch[: int(ends[0])] if len(ends) else sketch
            lifted = sketch[:, 3:4].clone()
            lifted[-1:] = 1.0
            strokes.append(torch.cat([scale * sketch[:, :2], lifted], dim=1))
        return strokes

    @torch.no_grad()
    def encode(self, sketches: Any) -> torch.Tensor:
        r"""
        The latents of sketches: the means of their posteriors.

        Args:
            sketches (array, tensor or lists `(n, 3)`, or a list of them):
                Points `(dx, dy, lifted)` in the units of the training data.

        Returns:
            `torch.Tensor` of shape `(N, latent_dim)`: on the CPU, in float32. Their sums and differences are latents,
            too (section 4.3 of the paper).

        Raises:
            ValueError: for what is no sketch or too long, and if the network has no latents.
        """
        self._check_has_latents("encode sketches")
        sketches = read_sketches("sketches", sketches)
        self._check_lengths("sketches", sketches, self.model.config.max_length)
        points, lengths = self._to_stroke5(sketches, self._execution_device)
        mean, _ = self.model.encode(points.to(self.model.dtype), lengths)
        self.maybe_free_model_hooks()
        return mean.float().cpu()

    def reconstruct(self, sketches: Any, **arguments) -> SketchPipelineOutput | tuple:
        r"""
        Draws what the network sees in sketches.

        Args:
            sketches (array, tensor or lists `(n, 3)`, or a list of them):
                As for `encode`.
            arguments:
                Further arguments of the call, such as `temperature`.
        """
        return self(latents=self.encode(sketches), **arguments)

    def interpolate(self, start: Any, end: Any, num_steps: int = 8, **arguments) -> SketchPipelineOutput | tuple:
        r"""
        Draws sketches whose latents lie on an arc between those of two sketches ([`slerp`], section 4.2).

        Args:
            start, end (array, tensor or lists `(n, 3)`):
                The two sketches.
            num_steps (`int`, defaults to 8):
                How many sketches, including the reconstructions of the two.
            arguments:
                Further arguments of the call, such as `temperature`.

        Raises:
            ValueError: for other input than two sketches, and if the network has no latents.
        """
        check_positive_int("num_steps", num_steps, least=2)
        ends = [read_sketches(name, sketch) for name, sketch in (("start", start), ("end", end))]
        if any(len(sketches) != 1 for sketches in ends):
            raise ValueError("`start` and `end` must be one sketch each.")
        first, last = self.encode(ends[0] + ends[1])
        return self(latents=slerp(first, last, torch.linspace(0, 1, num_steps)[:, None]), **arguments)

    def prepare_latents(
        self,
        number: int,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """The latents of each sketch, `(N, latent_dim)` in float32; `None` for a network without."""
        if self.model.config.latent_dim is None:
            return None
        if latents is not None:
            return latents.to(device, torch.float32)
        shape = (number, self.model.config.latent_dim)
        return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs) -> "SketchPipeline":
        """As in diffusers, but models of other classes than the signature names are taken over, too."""
        return super().from_pipe(pipeline, **{**get_shared_models(pipeline, cls), **kwargs})

    @property
    def num_classes(self) -> int | None:
        """The number of classes of the network; `None` for one without."""
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

    def _check_has_latents(self, what: str):
        if self.model.config.latent_dim is None:
            raise ValueError(f"This pipeline can't {what}: its network is a decoder alone, without latents.")

    @staticmethod
    def _check_lengths(name: str, sketches: list[torch.Tensor], most: int):
        longest = max(len(points) for points in sketches)
        if longest > most:
            raise ValueError(f"`{name}` may have at most {most} points each, but one has {longest}.")

    def check_inputs(
        self,
        class_labels: ClassLabels | None,
        num_images_per_label: int,
        batch_size: int | None,
        begun: list[torch.Tensor] | None,
        temperature: float,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        image_size: int,
        output_type: str,
    ) -> int:
        """
        Refuses what the call could not carry out, with a `ValueError` of one sentence.

        Returns:
            `int`: the number of sketches.
        """
        check_class_labels_given(class_labels, self.num_classes is not None, None)
        num_labels = None if class_labels is None else len(self.get_label_ids(class_labels))
        number = count_images(num_labels, num_images_per_label, batch_size)
        if class_labels is None and batch_size is None:
            number = max(len(begun or [None]), len(latents) if torch.is_tensor(latents) and latents.ndim else 1)
        if begun is not None:
            if len(begun) not in (1, number):
                raise ValueError(f"`sketch` must be one sketch or {number}, one for each, but is {len(begun)}.")
            self._check_lengths("sketch", begun, self.model.config.max_length)
        if latents is not None:
            self._check_has_latents("use `latents`")
            check_latents(latents, (number, self.model.config.latent_dim))
        check_generator(generator, number)
        check_positive("temperature", temperature)
        check_positive_int("image_size", image_size, least=8)
        check_choice("output_type", output_type, ("pil", "svg", "np", "pt"))
        return number
