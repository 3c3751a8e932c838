r"""Ten photographs of scikit-image, each in a style: distances to content and style of several ways, and a picture.

    python examples/style_figure.py outputs/vgg outputs/textures/test style_transfer.jpg \
        --any_style outputs/any_style --one_style outputs/mosaic --its_style outputs/textures/test/0007.png

The photographs are free (their sources are named in skimage.data), and the styles are drawn by
examples/style_textures.py (--count 240), or are textures of scikit-image. Distances are those of
`training/train_style.py`, in the features of the VGG that is named first, beside those of the photograph and of the
style. "unreal" is the energy of the matting Laplacian, per pixel. Needs scikit-image.
"""

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from skimage import data

from diffusers_ext import StyleTransferPipeline
from diffusers_ext.data import decode_image
from diffusers_ext.losses import gram_loss, gram_matrix, map_loss
from diffusers_ext.losses.style_features import load_style_features
from diffusers_ext.pipelines.photographs import guided_filter, matting_laplacian
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.style.networks import usual_layers


SIZE = 128
SHOWN = (0, 2, 5, 6, 9)
RADIUS = 6  # of the guided filter
# Boxes of photographs: name, top, left, side
PHOTOGRAPHS = (
    ("astronaut", 0, 100, 280),
    ("astronaut", 200, 0, 312),
    ("chelsea", 0, 80, 300),
    ("chelsea", 60, 150, 150),
    ("coffee", 0, 100, 400),
    ("coffee", 150, 150, 220),
    ("rocket", 0, 150, 420),
    ("hubble_deep_field", 200, 300, 400),
    ("retina", 200, 200, 1000),
    ("immunohistochemistry", 0, 0, 512),
)
TEXTURES = ("0000", "0004", "0005", "0011", "0012", "0013", "0023")


def square(image: torch.Tensor) -> torch.Tensor:
    """An image `(3, H, W)` of bytes at the size of the picture, `(1, 3, SIZE, SIZE)` in [0, 1]."""
    return F.interpolate(image[None] / 255, (SIZE, SIZE), mode="bilinear", antialias=True).clamp(0, 1)


def photograph(name: str, top: int, left: int, side: int) -> torch.Tensor:
    pixels = torch.from_numpy(getattr(data, name)()[..., :3].copy()).permute(2, 0, 1)
    return square(pixels[:, top : top + side, left : left + side])


def texture(name: str) -> torch.Tensor:
    return square(torch.from_numpy(getattr(data, name)().copy())[None, 128:384, 128:384].expand(3, -1, -1))


def main(arguments: list[str] | None = None) -> None:
    """Paint, print the table, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", help="the folder of a VGG")
    parser.add_argument("textures", type=Path, help="a folder with the styles")
    parser.add_argument("picture", type=Path, help="the picture to write")
    parser.add_argument("--any_style", help="an AdaIN pipeline")
    parser.add_argument("--one_style", help="a pipeline of one style")
    parser.add_argument("--its_style", help="the image of this style")
    parser.add_argument("--steps", type=int, default=30, help="steps of the optimisation")
    parser.add_argument("--style_weight", type=float, default=1e5, help="the weight of the style in it")
    parser.add_argument("--photorealism_weight", type=float, help="that of the matting Laplacian, as one more way")
    options = parser.parse_args(arguments)

    vgg = load_style_features(options.features)
    content_layer, style_layers = usual_layers(vgg.layers)

    def see(images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.no_grad():
            maps = dict(zip(vgg.layers, vgg.encode(images), strict=True))
        return maps[content_layer], [maps[name] for name in style_layers]

    def paint(pipe: StyleTransferPipeline, *styles: list[torch.Tensor], **keywords) -> list[torch.Tensor]:
        pipe.set_progress_bar_config(disable=True)
        start = time.process_time()
        rows = zip(contents, *styles, strict=True)
        painted = [pipe(*row, **keywords, output_type="pt").images for row in rows]
        print(f"{(time.process_time() - start) / len(painted):.2f} CPU seconds for an image")
        return painted

    contents = [photograph(*box) for box in PHOTOGRAPHS]
    styles = [square(decode_image(str(options.textures / f"{name}.png"), 3)) for name in TEXTURES]
    styles += [texture(name) for name in ("brick", "grass", "gravel")]
    gatys = StyleTransferPipeline(feature_network=vgg)
    steps = {"num_optimization_steps": options.steps, "style_weight": options.style_weight}
    painted = paint(gatys, styles, **steps)
    filtered = [guided_filter(*pair, RADIUS).clamp(0, 1) for pair in zip(contents, painted, strict=True)]
    ways = {"optimised": (painted, styles), "filtered": (filtered, styles)}
    if options.photorealism_weight is not None:
        held = paint(gatys, styles, **steps, photorealism_weight=options.photorealism_weight)
        ways["photorealism"] = (held, styles)
    if options.any_style is not None:
        ways["AdaIN"] = (paint(StyleTransferPipeline.from_pretrained(options.any_style), styles), styles)
    if options.one_style is not None:
        its_style = square(decode_image(options.its_style, 3))
        pipe = StyleTransferPipeline.from_pretrained(options.one_style)
        ways["one style"] = (paint(pipe), [its_style] * len(contents))

    print("| | content distance | of the style | Gram distance | of the photograph | unreal | pairs below both |")
    print("|---|---|---|---|---|---|---|")
    for name, (images, wanted) in ways.items():
        rows = []
        for content, style, image in zip(contents, wanted, images, strict=True):
            of_content, of_style, of_image = see(content), see(style), see(image)
            grams = [gram_matrix(layer) for layer in of_style[1]]
            values = [map_loss(of_image[0], of_content[0]), map_loss(of_style[0], of_content[0])]
            values += [gram_loss(of_image[1], grams), gram_loss(of_content[1], grams)]
            values.append((image * matting_laplacian(content)(image)).sum()[None] / SIZE**2)
            rows.append(torch.cat(values).double())
        table = torch.stack(rows)
        below = ((table[:, 0] < table[:, 1]) & (table[:, 2] < table[:, 3])).sum().item()
        means = " | ".join(f"{value:.3g}" for value in table.mean(dim=0).tolist())
        print(f"| {name} | {means} | {below} of {len(rows)} |")
    columns = {"content": contents, "style": styles, **{name: images for name, (images, _) in ways.items()}}
    cells = torch.cat([torch.cat([column[index] for column in columns.values()]) for index in SHOWN])
    sample_grid((cells * 255).round().byte(), len(columns), list(columns)).save(options.picture, quality=85)


if __name__ == "__main__":
    main()
