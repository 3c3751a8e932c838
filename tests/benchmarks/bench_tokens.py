"""How much faster image tokens are drawn with kept keys and values: `python -m tests.benchmarks.bench_tokens`."""

import statistics
import time

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from diffusers_ext import TokensToImagePipeline, VQVAEModel


SIDES, ROUNDS = (8, 16), 3


def build(side: int) -> TokensToImagePipeline:
    """A transformer of `side` x `side` codes, with random weights."""
    torch.manual_seed(0)
    vqvae = VQVAEModel(2 * side, num_downsamples=1, hidden_channels=16, num_embeddings=256)
    config = GPT2Config(
        vocab_size=257,
        n_positions=side**2,
        n_embd=128,
        n_layer=4,
        n_head=4,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    transformer = GPT2LMHeadModel(config).eval()
    pipe = TokensToImagePipeline(transformer, vqvae.eval(), token_height=side, token_width=side)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: TokensToImagePipeline, use_cache: bool) -> tuple[float, torch.Tensor]:
    """CPU seconds of four images, and the images."""
    start = time.process_time()
    generator = torch.Generator().manual_seed(0)
    images = pipe(batch_size=4, use_cache=use_cache, generator=generator, output_type="pt").images
    return time.process_time() - start, images


def main() -> None:
    torch.set_num_threads(1)
    for side in SIDES:
        pipe = build(side)
        draw(pipe, True)
        seconds = {True: [], False: []}
        for _ in range(ROUNDS):  # in turn, so that other load of the machine meets both
            images = {}
            for use_cache in seconds:
                spent, images[use_cache] = draw(pipe, use_cache)
                seconds[use_cache].append(spent)
        difference = (images[True] - images[False]).abs().max()
        cached, whole = (statistics.median(seconds[use_cache]) for use_cache in (True, False))
        print(
            f"| {side}x{side} codes | {cached:.2f} | {whole:.1f} | {whole / cached:.0f} | {difference:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
