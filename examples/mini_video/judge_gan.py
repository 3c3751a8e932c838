"""How often a GAN of moving digits draws the digit that is asked for, and whether it moves as a whole.

    python examples/mini_video/judge_gan.py outputs/mini_video/gan

The judge of digits is that of judge.py, which names each frame; the frames of a film vote. Two measures tell whether
the motion is coherent: in how many films all frames show one digit, and how straight the way of the centre of mass is
(the distance between its ends, divided by its length: 1 for a straight line). The first row judges the real films of
the test split in the same way. `--strip` writes a picture, a film of each digit.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from judge import centres, crops, enlarged, fit_judge, read_films
from make_films import SIDE
from sklearn.svm import SVC

from diffusers_ext import VideoGANPipeline
from diffusers_ext.data.digits import DIGIT_NAMES
from diffusers_ext.pipelines.films import arrange_pictures


def judge_films(films: np.ndarray, digits: list[str], judge_of_digits: SVC) -> tuple[float, float, float]:
    """For films (N, F, H, W): the share that shows the digit, the share of one digit alone, and the straightness."""
    votes = judge_of_digits.predict(crops(films.reshape(-1, SIDE, SIDE))).reshape(len(films), -1)
    named = [max(set(own), key=list(own).count) for own in votes.tolist()]
    places = centres(films)
    length = np.linalg.norm(np.diff(places, axis=1), axis=-1).sum(axis=1)
    straight = np.linalg.norm(places[:, -1] - places[:, 0], axis=-1) / (length + 1e-6)
    alike = (votes == votes[:, :1]).all(axis=1)
    return float(np.mean(np.array(named) == digits)), float(alike.mean()), float(straight.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="A pipeline that train_video_gan.py left.")
    parser.add_argument("--data_dir", type=Path, default=Path("outputs/mini_video/films"), help="From make_films.py.")
    parser.add_argument("--count", type=int, default=20, help="Films of each digit.")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the noise.")
    parser.add_argument("--strip", type=Path, help="A PNG: a row of frames for each digit.")
    options = parser.parse_args()

    pipe, judge_of_digits = VideoGANPipeline.from_pretrained(options.folder), fit_judge(options.data_dir / "train")
    digits = [digit for digit in DIGIT_NAMES for _ in range(options.count)]
    start, generator = time.process_time(), torch.Generator().manual_seed(options.seed)
    films = pipe(digits, generator=generator, output_type="pt").frames[:, :, 0]
    films = (films * 255).round().numpy().astype(float)
    seconds = time.process_time() - start

    print(
        "| films | digit as asked | one digit in all frames | straightness | CPU seconds |\n|---|---:|---:|---:|---:|"
    )
    for name, judged, shown in (
        ("real", judge_films(*read_films(options.data_dir / "test", 500)[:2], judge_of_digits), ""),
        ("DVD-GAN", judge_films(films, digits, judge_of_digits), f"{seconds:.0f}"),
    ):
        print(f"| {name} | {judged[0]:.1%} | {judged[1]:.1%} | {judged[2]:.2f} | {shown} |")
    if options.strip is not None:
        frames = [enlarged(frame) for film in films[:: options.count] for frame in film]
        arrange_pictures(frames, films.shape[1]).save(options.strip)


if __name__ == "__main__":
    main()
