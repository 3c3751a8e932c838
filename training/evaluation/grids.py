"""Pictures of many samples."""

import torch
from PIL import Image, ImageDraw, ImageFont


CELL = 64  # small images are enlarged to about this many pixels
GAP = 6
MARGIN = 16
HEADER = 28
CLASS_COLUMNS = 10
CLASS_ROWS = 8


def sample_grid(
    images: torch.Tensor, columns: int, titles: list[str] | None = None, row_titles: list[str] | None = None
) -> Image.Image:
    """Images side by side on white, small ones enlarged.

    Args:
        images (`torch.Tensor` of shape (N, C, H, W)): uint8, laid out row by row.
        columns (`int`): how many stand in a row.
        titles (`list[str]`, *optional*): a heading for each column.
        row_titles (`list[str]`, *optional*): what to write at the left of each row.
    """
    pictures = _to_pil(images)
    scale = max(1, round(CELL / max(pictures[0].size)))
    width, height = (side * scale for side in pictures[0].size)
    font = ImageFont.load_default(15)
    left = MARGIN + (round(max(map(font.getlength, row_titles))) + GAP if row_titles else 0)
    top = MARGIN + (HEADER if titles else 0)
    rows = -(-len(pictures) // columns)
    size = (left + columns * (width + GAP) - GAP + MARGIN, top + rows * (height + GAP) - GAP + MARGIN)
    grid = Image.new("RGB", size, "white")
    for index, picture in enumerate(pictures):
        x, y = left + index % columns * (width + GAP), top + index // columns * (height + GAP)
        enlarged = picture.resize((width, height), Image.Resampling.BICUBIC).convert("RGBA")
        grid.paste(enlarged, (x, y), enlarged)
    draw = ImageDraw.Draw(grid)
    for column, title in enumerate(titles or ()):
        centre = left + column * (width + GAP) + width // 2
        draw.text((centre, MARGIN + HEADER // 2 - 4), _shortened(title, width, font), "#333333", font, anchor="mm")
    for row, title in enumerate(row_titles or ()):
        middle = top + row * (height + GAP) + height // 2
        draw.text((MARGIN, middle), title, "#333333", font, anchor="lm")
    return grid


def class_grid(generate, id2label: dict[int, str] | None, **arguments) -> Image.Image:
    """A column per class (the first ten), or a square of samples without.

    Args:
        generate ([`~diffusers_ext.training.loop.sampling.Generation`]): samples the pipeline.
        id2label (`dict[int, str]` or `None`): the classes.
        arguments: further arguments of the pipeline's call.
    """
    if id2label is None:
        return sample_grid(generate.images(CLASS_ROWS**2, **arguments), columns=CLASS_ROWS)
    shown = list(id2label)[:CLASS_COLUMNS]
    labels = shown * CLASS_ROWS
    images = generate.images(len(labels), labels, **arguments)
    return sample_grid(images, columns=len(shown), titles=[id2label[label] for label in shown])


def _to_pil(images: torch.Tensor) -> list[Image.Image]:
    arrays = images.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in arrays]


def _shortened(title: str, width: int, font) -> str:
    if font.getlength(title) <= width:
        return title
    while title and font.getlength(title + "…") > width:
        title = title[:-1]
    return title + "…"
