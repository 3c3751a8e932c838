r"""Ten photographs of scikit-image, each in a style, in three ways: distances to content and style, and a picture.

    python examples/style_figure.py outputs/vgg outputs/any_style outputs/mosaic \
        outputs/textures/test/0007.png outputs/textures/test style_transfer.jpg

The photographs are free (their sources are named in skimage.data), and the styles are drawn by
examples/style_textures.py, or are textures of scikit-image. Distances are those of `training/train_style.py`, in the
features of the VGG that is named first, beside those of the photograph and of the style. Needs scikit-image.
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
from diffusers_ext.training.evaluation.grids import sample_grid
from diffusers_ext.training.style.networks import usual_layers


SIZE = 128
SHOWN = (0, 2, 4, 6, 8)
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
    parser.add_argument("any_style", help="an AdaIN pipeline")
    parser.add_argument("one_style", help="a pipeline of one style")
    parser.add_argument("its_style", help="the image of this style")
    parser.add_argument("textures", type=Path, help="a folder with the styles for the two other ways")
    parser.add_argument("picture", type=Path, help="the picture to write")
    parser.add_argument("--steps", type=int, default=80, help="steps of the optimisation")
    parser.add_argument("--style_weight", type=float, default=1e5, help="the weight of the style in it")
    options = parser.parse_args(arguments)

    vgg = load_style_features(options.features)
    content_layer, style_layers = usual_layers(vgg.layers)

    def see(images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.no_grad():
            maps = dict(zip(vgg.layers, vgg.encode(images), strict=True))
        return maps[content_layer], [maps[name] for name in style_layers]

    contents = [photograph(*box) for box in PHOTOGRAPHS]
    styles = [square(decode_image(str(options.textures / f"{name}.png"), 3)) for name in TEXTURES]
    styles += [texture(name) for name in ("brick", "grass", "gravel")]
    own = [square(decode_image(options.its_style, 3))] * len(contents)
    gatys = StyleTransferPipeline(feature_network=vgg)
    adain = StyleTransferPipeline.from_pretrained(options.any_style)
    fast = StyleTransferPipeline.from_pretrained(options.one_style)
    optimised = {"num_optimization_steps": options.steps, "style_weight": options.style_weight}
    ways = {
        "optimised": (gatys, styles, optimised),
        "AdaIN": (adain, styles, {}),
        "AdaIN, photographic": (adain, styles, {"guided_filter_radius": 6, "preserve_colors": "coral"}),
        "one style": (fast, own, {}),
    }
    print("| | content distance | of the style | Gram distance | of the photograph | pairs below both | seconds |")
    print("|---|---|---|---|---|---|---|")
    columns = {"content": contents, "style": styles}
    for name, (pipe, wanted, arguments_) in ways.items():
        pipe.set_progress_bar_config(disable=True)
        start, painted, rows = time.process_time(), [], []
        for content, style in zip(contents, wanted, strict=True):
            given = [] if pipe is fast else [style]
            painted.append(pipe(content, *given, **arguments_, output_type="pt").images)
        seconds = (time.process_time() - start) / len(painted)
        for content, style, image in zip(contents, wanted, painted, strict=True):
            of_content, of_style, of_image = see(content), see(style), see(image)
            grams = [gram_matrix(layer) for layer in of_style[1]]
            values = [map_loss(of_image[0], of_content[0]), map_loss(of_style[0], of_content[0])]
            values += [gram_loss(of_image[1], grams), gram_loss(of_content[1], grams)]
            rows.append(torch.cat(values).double())
        table = torch.stack(rows)
        below = ((table[:, 0] < table[:, 1]) & (table[:, 2] < table[:, 3])).sum().item()
        near, style_away, gram, content_gram = table.mean(dim=0).tolist()
        print(
            f"| {name} | {near:.3g} | {style_away:.3g} | {gram:.3g} | {content_gram:.3g} | {below} of {len(rows)} | "
            f"{seconds:.2f} |"
        )
        columns[name] = painted
    cells = [torch.cat([column[index] for column in columns.values()]) for index in SHOWN]
    cells = (torch.cat(cells) * 255).round().byte()
    sample_grid(cells, len(columns), list(columns)).save(options.picture, quality=85)


if __name__ == "__main__":
    main()
