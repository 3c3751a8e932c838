"""How much faster images are drawn pixel by pixel with kept features: `python -m tests.benchmarks.bench_pixels`."""

import time

import torch

from diffusers_ext.models import GatedPixelCNN, PixelCNNPlusPlus, PixelTransformer
from diffusers_ext.pipelines import AutoregressivePipeline


MODELS = {
    "PixelCNN++, 32 features, colour": lambda: PixelCNNPlusPlus(16, 3, hidden_channels=32, num_resnets=2),
    "transformer, 4 layers of 64, gray": lambda: PixelTransformer(16, 1, hidden_size=64, num_layers=4),
    "Gated PixelCNN, 48 features, gray": lambda: GatedPixelCNN(16, 1, hidden_channels=48),
}


def cpu_seconds(pipe: AutoregressivePipeline, use_cache: bool) -> float:
    start = time.process_time()
    pipe(batch_size=4, use_cache=use_cache, generator=torch.Generator().manual_seed(0))
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    for name, build in MODELS.items():
        torch.manual_seed(0)
        pipe = AutoregressivePipeline(build().eval())
        pipe.set_progress_bar_config(disable=True)
        cpu_seconds(pipe, True)
        cached, whole = cpu_seconds(pipe, True), cpu_seconds(pipe, False)
        print(f"| {name} | {cached:.2f} | {whole:.1f} | {whole / cached:.1f} |")


if __name__ == "__main__":
    main()
