"""Images of a class that a base makes itself: what the prior preservation of DreamBooth holds on to."""

import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from diffusers_ext.data.decoding import UnreadableImageError, UnreadableImagesError, decode_image
from diffusers_ext.data.folders import list_files, select_images
from diffusers_ext.data.image_dataset import pixel_digest
from diffusers_ext.data.transforms import ImageTransform, to_pixel_values
from diffusers_ext.training.loop.outputs import save_image


logger = logging.getLogger(__name__)

GENERATED = re.compile(r"(.*/)?generated-[0-9a-f]{16}-\d{5}\.png")


class ClassImages:
    """The images of a class in a folder: those that lie there, and generated ones where these are too few.

    A generated image is known by its number and by what it depends on, so it is made once: by the next run, if one is
    interrupted, and by no other.

    Args:
        folder (`Path`): where they are.
        prompt (`str`): what they show.
        count (`int`): how many there are at least.
        origin (`str`): all that generated images depend on beside their number: the base, the prompt, the sampler.
    """

    def __init__(self, folder: Path, prompt: str, count: int, origin: str):
        self.prompt = prompt
        self._given = [folder / f for f in select_images(list_files(str(folder))) if not GENERATED.fullmatch(f)]
        key = hashlib.blake2b(origin.encode(), digest_size=8).hexdigest()
        self._generated = [folder / f"generated-{key}-{i:05d}.png" for i in range(count - len(self._given))]
        self.paths = self._given + self._generated

    def make(self, generate: Callable[[range], torch.Tensor], block_size: int, process: int, processes: int) -> None:
        """Generate this process's share of what is missing.

        Always whole blocks: what an image is, in its last bit, can depend on those that are made together with it.

        Args:
            generate (`Callable`): numbers of images -> these images, uint8 (N, 3, H, W).
            block_size (`int`): how many are made at once.
        """
        for start in range(process * block_size, len(self._generated), processes * block_size):
            paths = self._generated[start : start + block_size]
            if all(path.is_file() for path in paths):
                continue
            logger.info(f"Generating {self.prompt!r}, up to {start + len(paths)} of {len(self._generated)}.")
            for path, image in zip(paths, generate(range(start, start + len(paths))), strict=True):
                save_image(Image.fromarray(image.permute(1, 2, 0).numpy()), path)

    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify the pixels of all images.

        Raises:
            UnreadableImagesError: if there are some that can't be read.
        """
        content, reasons = hashlib.blake2b(digest_size=16), {}
        for path in self.paths:
            try:
                content.update(pixel_digest([decode_image(str(path), 3)]))
            except UnreadableImageError as error:
                reasons[str(path)] = str(error)
        if reasons:
            raise UnreadableImagesError(reasons)
        return content.hexdigest()

    def read(self, index: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Image `index` brought to a size (H, W), float32 (3, H, W) in [-1, 1], and its six "time_ids"."""
        image, transform = decode_image(str(self.paths[index]), 3), ImageTransform(size, center_crop=True)
        time_ids = torch.tensor(transform.time_ids(tuple(image.shape[-2:])))
        return to_pixel_values(transform.fit(image)), time_ids
