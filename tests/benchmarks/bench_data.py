"""How long a run waits for its images: the start, the batches, and the memory of several processes.

    python -m tests.benchmarks.bench_data --count 20000 --uncached_count 200000

It draws JPEGs into a temporary folder (64x64 pixels; 32x32 for the set that is not kept), and prints:

- the seconds until the first step of train_diffusion.py, for a first and a second start on `count` images, beside a
  start on 16 images;
- how often two processes that start at once decode an image, and the memory that they need beside that of one;
- the seconds until the first step on `uncached_count` images, of which none is decoded in advance;
- the time of a batch from the mapped file, beside a tensor in memory, and from JPEGs of 256x256 pixels.
"""

import argparse
import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusers_ext.data import image_dataset, load_image_dataset
from diffusers_ext.pixels import to_pixel_values
from tests.benchmarks.timing import alternate, report


TINY_UNET = {"block_out_channels": [8, 16], "layers_per_block": 1}


def write_jpegs(folder: Path, count: int, size: int) -> Path:
    """Images of random squares, in ten folders."""
    generator = np.random.default_rng(0)
    files = []
    for _ in range(64):
        squares = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(size // 8, 0).repeat(size // 8, 1)
        file = io.BytesIO()
        Image.fromarray(squares).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    for number in range(count):
        path = folder / str(number % 10) / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[number % len(files)])
    return folder


def seconds_to_first_step(folder: Path, size: int, cache: Path, **options) -> float:
    """The time from the start of the program to the first line of its log."""
    with tempfile.TemporaryDirectory() as output_dir:
        command = [sys.executable, "-m", "diffusers_ext.training.train_diffusion"]
        options = {
            "train_data_dir": folder,
            "resolution": size,
            "unet": json.dumps(TINY_UNET),
            "max_train_steps": 100000,
            "cache_dir": cache,
            "output_dir": output_dir,
            **options,
        }
        started = time.perf_counter()
        process = subprocess.Popen(
            command + [f"--{name}={value}" for name, value in options.items()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        log = Path(output_dir) / "logs" / "metrics.jsonl"
        while not (log.exists() and log.stat().st_size):
            if process.poll() is not None:
                raise RuntimeError(f"train_diffusion.py ended with {process.returncode} before its first step")
            time.sleep(0.02)
        seconds = time.perf_counter() - started
        process.kill()
        process.wait()
    return seconds


def read_all(folder: Path, cache: Path, decoded, ready, go) -> None:
    """A process that prepares the images, reads all of them, and waits while its memory is measured."""
    original, count = image_dataset.decode_image, 0

    def decode_image(*arguments):
        nonlocal count
        count += 1
        return original(*arguments)

    image_dataset.decode_image = decode_image
    dataset = load_image_dataset(
        train_data_dir=str(folder), resolution=64, cache_images=True, cache_dir=str(cache), label_column="none"
    )
    for _ in dataset.reference_batches(256):
        pass
    with decoded.get_lock():
        decoded.value += count
    ready.release()
    go.wait()


def memory_and_decoded(folder: Path, cache: Path, processes: int) -> tuple[float, int]:
    """The memory (proportional set size) of processes that read all images, in MB, and the images they decoded."""
    context = multiprocessing.get_context("spawn")
    decoded, ready, go = context.Value("q"), context.Semaphore(0), context.Event()
    running = [context.Process(target=read_all, args=(folder, cache, decoded, ready, go)) for _ in range(processes)]
    for process in running:
        process.start()
    for _ in running:
        ready.acquire()
    memory = sum(proportional_set_size(process.pid) for process in running)
    go.set()
    for process in running:
        process.join()
    return memory / 1e6, decoded.value


def proportional_set_size(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--uncached_count", type=int, default=200000)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        few, many = write_jpegs(folder / "few", 16, 64), write_jpegs(folder / "many", arguments.count, 64)
        cache = folder / "cache"
        print("Seconds until the first step")
        print(f"  {'16 images':<40} {seconds_to_first_step(few, 64, cache):6.1f}")
        print(f"  {f'{arguments.count} images, first start':<40} {seconds_to_first_step(many, 64, cache):6.1f}")
        print(f"  {f'{arguments.count} images, second start':<40} {seconds_to_first_step(many, 64, cache):6.1f}")
        _, decoded = memory_and_decoded(many, folder / "another cache", 2)
        print(f"\nTwo processes that start at once decode {decoded} images ({arguments.count} in the set)")
        memory = [memory_and_decoded(many, cache, processes)[0] for processes in (1, 2)]
        few_memory = [memory_and_decoded(few, cache, processes)[0] for processes in (1, 2)]
        images = [own - program for own, program in zip(memory, few_memory, strict=True)]
        print(f"Memory of the images: one process {images[0]:.0f} MB, two {images[1]:.0f} MB")
        batches(many, folder, cache)
        uncached = write_jpegs(folder / "uncached", arguments.uncached_count, 32)
        seconds = seconds_to_first_step(uncached, 32, cache, cache_images=False)
        print(f"\n{arguments.uncached_count} images that are not kept: {seconds:.1f} s until the first step")


def batches(many: Path, folder: Path, cache: Path) -> None:
    """The time of a batch of 64 images."""
    torch.set_num_threads(1)
    options = {"label_column": "none", "cache_dir": str(cache)}
    mapped = load_image_dataset(train_data_dir=str(many), resolution=64, cache_images=True, **options)
    in_memory = torch.cat([batch["pixel_values"] for batch in mapped.reference_batches(256)])
    stream, rows = mapped.batches(64, seed=0), torch.randperm(len(in_memory))[:64]
    large = write_jpegs(folder / "large", 256, 256)
    stored, decoded = (
        load_image_dataset(train_data_dir=str(large), resolution=256, cache_images=choice, **options).batches(64, 0)
        for choice in (True, False)
    )
    medians = alternate(
        {
            "64 px, a tensor in memory": lambda: to_pixel_values(in_memory.index_select(0, rows)),
            "64 px, the mapped file": lambda: next(stream),
        },
        rounds=30,
    )
    report("A batch of 64 images", medians, "64 px, a tensor in memory")
    medians = alternate({"256 px, JPEGs": lambda: next(decoded), "256 px, the mapped file": lambda: next(stored)}, 10)
    report("A batch of 64 images", medians, "256 px, JPEGs")


if __name__ == "__main__":
    main()
