"""Films as data: files with several frames, from which a clip is drawn each time a film is used."""

from dataclasses import dataclass
from typing import Any

import torch

from diffusers_ext.data.decoding import UnreadableImageError, decode_frames, image_path
from diffusers_ext.data.indexed import IndexedImageDataset
from diffusers_ext.data.randomness import derive_seed
from diffusers_ext.data.transforms import ImageTransform


@dataclass(frozen=True)
class FilmTransform(ImageTransform):
    """The steps from a film to a clip, whose frames are all cropped and mirrored at the same place.

    A film of T frames is a tensor (T * C, h, w): its frames are one after the other in the channels.

    Attributes:
        channels: C.
        num_frames: the frames of a clip.
        frame_stride: how many frames of the film lie between two frames of the clip, plus one.
    """

    channels: int = 3
    num_frames: int = 1
    frame_stride: int = 1

    @property
    def span(self) -> int:
        """How many frames of the film a clip reaches over."""
        return (self.num_frames - 1) * self.frame_stride + 1

    def fit(self, film: torch.Tensor) -> torch.Tensor:
        """Resizes all frames of a film."""
        fit = super().fit
        return torch.cat([fit(frame) for frame in film.split(self.channels)])

    def crop(self, film: torch.Tensor, draw: int) -> torch.Tensor:
        """A clip (num_frames * C, H, W) of a fitted film; `draw` chooses its first frame and the crop."""
        return super().crop(self._clip(film, derive_seed(draw, "clip") % self._num_starts(film)), draw)

    def center(self, film: torch.Tensor) -> torch.Tensor:
        """The clip in the middle of a fitted film, cropped in the middle."""
        return super().center(self._clip(film, (self._num_starts(film) - 1) // 2))

    def _num_starts(self, film: torch.Tensor) -> int:
        return len(film) // self.channels - self.span + 1

    def _clip(self, film: torch.Tensor, start: int) -> torch.Tensor:
        frames = film.unflatten(0, (-1, self.channels))
        return frames[start : start + self.span : self.frame_stride].flatten(0, 1)


class FilmDataset(IndexedImageDataset):
    """A data set of films; see `ImageDataset` for its methods, and `load_image_dataset` to create one.

    Each time a film is used, a clip of `num_frames` frames is drawn from it: "pixel_values" is (B, C, F, H, W), as the
    networks for video of diffusers take it. Films whose frames are fewer than a clip needs are unreadable.

    Attributes:
        num_frames (`int`): F.
    """

    _transform: FilmTransform

    @property
    def num_frames(self) -> int:
        return self._transform.num_frames

    def _decode(self, values: tuple[Any, ...]) -> list[torch.Tensor]:
        transform, path = self._transform, image_path(values[0])
        try:
            film = decode_frames(self._source.locate(values[0]), self.channels, self._source.max_image_pixels)
        except UnreadableImageError as error:
            raise UnreadableImageError(str(error), path) from error
        if len(film) < transform.span:
            raise UnreadableImageError(
                f"it has {len(film)} frames, but a clip of --num_frames {transform.num_frames} with --frame_stride "
                f"{transform.frame_stride} takes {transform.span}",
                path,
            )
        return [film.flatten(0, 1)]

    def _is_cropped(self, images: torch.Tensor | list[torch.Tensor]) -> bool:
        """Whether films have the requested size already, and have nothing to draw a clip from."""
        is_clip = isinstance(images, torch.Tensor) and images.shape[1] == self.num_frames * self.channels
        return is_clip and super()._is_cropped(images)

    def _named(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        frames = images.unflatten(1, (self.num_frames, self.channels))
        return {"pixel_values": frames.transpose(1, 2).contiguous()}
