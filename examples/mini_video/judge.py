"""How often a model of moving digits draws the digit of the prompt, and moves it as the prompt says.

    python examples/mini_video/judge.py outputs/mini_video/model --guidance_scales 1 2 3

A support vector machine, fitted on frames of the training films, names the digit of each frame, and the frames of a
film vote. A digit moves in the direction in which its centre of mass goes furthest between the first and the last
frame, and stands still below one pixel. The first row judges the real films of the test split in the same way.
`--strip` writes a picture of some films, `--gif` a film of them.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from make_films import DIGIT_SIDE, DIRECTIONS, SIDE
from PIL import Image
from sklearn.svm import SVC

from diffusers_ext import TextToVideoPixelPipeline
from diffusers_ext.data.decoding import decode_frames
from diffusers_ext.data.digits import DIGIT_NAMES
from diffusers_ext.pipelines.films import arrange_pictures, write_film


STILL = 1.0  # pixels
ENLARGED = 4


def centres(frames: np.ndarray) -> np.ndarray:
    """The centres of mass (..., 2), x and y, of frames (..., H, W)."""
    total = frames.sum(axis=(-2, -1)) + 1e-6
    places = np.arange(SIDE)
    return np.stack([frames.sum(axis=-2) @ places / total, frames.sum(axis=-1) @ places / total], axis=-1)


def crops(frames: np.ndarray) -> np.ndarray:
    """The digits of frames (N, H, W), around their centres of mass: (N, DIGIT_SIDE**2) in [0, 1]."""
    corners = np.clip(np.round(centres(frames) - (DIGIT_SIDE - 1) / 2), 0, SIDE - DIGIT_SIDE).astype(int)
    cut = [f[y : y + DIGIT_SIDE, x : x + DIGIT_SIDE] for f, (x, y) in zip(frames, corners, strict=True)]
    return np.stack(cut).reshape(len(frames), -1) / 255


def read_films(folder: Path, count: int) -> tuple[np.ndarray, list[str], list[str]]:
    """The first films (N, F, H, W) of a folder, their digits and their directions."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()][:count]
    films = np.stack([decode_frames(str(folder / row["file_name"]), 1)[:, 0].numpy() for row in rows])
    return films.astype(float), [row["digit"] for row in rows], [row["direction"] for row in rows]


def fit_judge(folder: Path) -> SVC:
    """A classifier of the digits in frames, from two frames of each of 1500 films."""
    films, digits, _ = read_films(folder, 1500)
    return SVC(C=10).fit(crops(films[:, [1, 6]].reshape(-1, SIDE, SIDE)), np.repeat(digits, 2))


def judge(films: np.ndarray, digits: list[str], directions: list[str], judge_of_digits: SVC) -> tuple[float, float]:
    """The shares of films (N, F, H, W) that show the digit, and that move in the direction."""
    votes = judge_of_digits.predict(crops(films.reshape(-1, SIDE, SIDE))).reshape(len(films), -1)
    named = [max(set(own), key=list(own).count) for own in votes.tolist()]
    found = centres(films)
    ways = found[:, -1] - found[:, 0]
    moved = [
        next((name for name, way in DIRECTIONS.items() if np.dot(way, own) == abs(own).max() >= STILL), "nowhere")
        for own in ways
    ]
    return float(np.mean(np.array(named) == digits)), float(np.mean(np.array(moved) == directions))


def draw(pipe: TextToVideoPixelPipeline, prompts: list[str], scale: float, steps: int, seed: int) -> np.ndarray:
    """A film for each prompt, (N, F, H, W) in 0..255."""
    generator, films = torch.Generator().manual_seed(seed), []
    for start in range(0, len(prompts), 100):
        part = prompts[start : start + 100]
        options = {"guidance_scale": scale, "num_inference_steps": steps, "generator": generator}
        films.append(pipe(part, **options, output_type="pt").frames[:, :, 0])
    return (torch.cat(films) * 255).round().numpy().astype(float)


def enlarged(frame: np.ndarray) -> Image.Image:
    picture = Image.fromarray(frame.astype(np.uint8))
    return picture.resize((SIDE * ENLARGED, SIDE * ENLARGED), Image.Resampling.NEAREST)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="A pipeline that train_video.py left.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini_video/films"), help="From make_films.py.")
    parser.add_argument("--guidance_scales", type=float, nargs="+", default=[1.0, 2.0], help="The scales to judge.")
    parser.add_argument("--num_inference_steps", type=int, default=10, help="The steps of the sampler.")
    parser.add_argument("--count", type=int, default=5, help="Films of each digit and direction.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the noise.")
    parser.add_argument("--strip", type=Path, help="A PNG: a row of frames for each digit, of the last scale.")
    parser.add_argument("--gif", type=Path, help="A GIF: the first forty films of the last scale.")
    options = parser.parse_args()

    pipe = TextToVideoPixelPipeline.from_pretrained(options.folder)
    pipe.set_progress_bar_config(disable=True)
    judge_of_digits = fit_judge(options.data_dir / "train")
    rows = [(digit, way) for _ in range(options.count) for way in DIRECTIONS for digit in DIGIT_NAMES]
    digits, directions = map(list, zip(*rows, strict=True))
    prompts = [f"{'an' if digit == 'eight' else 'a'} {digit} moving {way}" for digit, way in rows]

    print("| films | digit as asked | moves as asked | CPU seconds |\n|---|---:|---:|---:|")
    shares = judge(*read_films(options.data_dir / "test", 500), judge_of_digits)
    print(f"| real | {shares[0]:.1%} | {shares[1]:.1%} | |")
    for scale in options.guidance_scales:
        start = time.process_time()
        films = draw(pipe, prompts, scale, options.num_inference_steps, options.seed)
        seconds = time.process_time() - start
        shares = judge(films, digits, directions, judge_of_digits)
        print(f"| guidance scale {scale:g} | {shares[0]:.1%} | {shares[1]:.1%} | {seconds:.0f} |", flush=True)
    if options.strip is not None:
        shown = [films[10 * (digit % 4) + digit] for digit in range(10)]
        arrange_pictures([enlarged(frame) for film in shown for frame in film], films.shape[1]).save(options.strip)
    if options.gif is not None:
        frames = [arrange_pictures([enlarged(film[i]) for film in films[:40]], 10) for i in range(films.shape[1])]
        write_film(frames, options.gif, fps=8)


if __name__ == "__main__":
    main()
