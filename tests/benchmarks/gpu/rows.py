"""The rows of the table, in the order of their worth."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from unittest import mock

import torch
from diffusers import DDIMScheduler

from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.training.diffusion.denoisers import build_unet
from diffusers_ext.training.loop.flat_adamw import FlatAdamW
from diffusers_ext.training.loop.trainer import Trainer
from tests.benchmarks.gpu.clock import Bench, speed
from tests.benchmarks.gpu.jobs import JOBS, SMALL_UNET, Job, build_trainer
from tests.benchmarks.gpu.table import Measure, Row
from tests.waits import waits_of_an_update


COMPILING = 75  # seconds that a compiled network may take before its first step
# Precision and options of a training, by title.
MODES = {
    "float32": ("no", {}),
    "bf16": ("bf16", {}),
    "bf16, channels_last": ("bf16", {"channels_last": True}),
}
COMPILED = ("bf16", {"compile": True})


def all_rows(bench: Bench) -> list[Row]:
    """Cheap rows come before those that compile, and the first job before the others."""
    first, *others = JOBS.values()
    rows = [training_row(bench, first, title, *mode) for title, mode in MODES.items()]
    rows += optimizer_rows(bench, first)
    rows += sampling_rows(bench)
    rows.append(training_row(bench, first, "bf16, compiled", *COMPILED, seconds=COMPILING))
    rows += [training_row(bench, job, title, *mode) for job in others for title, mode in MODES.items()]
    rows += [Row(f"{job.title}: host waits", partial(host_waits, bench, job)) for job in JOBS.values()]
    rows += data_rows(bench, JOBS["gan"])
    rows.append(Row(f"{first.title}: gradient checkpointing", partial(checkpointing, bench, first)))
    rows.append(Row(f"{JOBS['lora'].title}: gradient checkpointing", partial(checkpointing, bench, JOBS["lora"])))
    rows.append(Row("sampling, bf16, compiled", partial(sampling, bench, torch.bfloat16, compiled=True), COMPILING))
    rows += [training_row(bench, job, "bf16, compiled", *COMPILED, seconds=COMPILING) for job in others]
    return rows


# Training


def training_row(bench: Bench, job: Job, title: str, precision: str, options: dict, seconds: float = 10.0) -> Row:
    return Row(f"{job.title}: {title}", partial(training, bench, job, precision, **options), seconds)


def training(bench: Bench, job: Job, precision: str, **options) -> Measure:
    """Whole updates: data, losses, gradients, clipping, optimizer and average."""
    return speed_of_updates(build_trainer(job, bench, precision, **options), bench)


def speed_of_updates(trainer: Trainer, bench: Bench) -> Measure:
    found = speed(trainer.update, "updates", bench)
    trainer.reports.read()
    return found


def host_waits(bench: Bench, job: Job) -> Measure:
    """How often one update waits for the device: none is right."""
    trainer = build_trainer(job, bench)
    waits = waits_of_an_update(trainer) if bench.is_small else waits_of_a_gpu(trainer)
    return Measure(sum(waits.values()), "waits", remark="; ".join(waits))


def waits_of_a_gpu(trainer: Trainer) -> dict[str, int]:
    """What PyTorch says of an update that is not one of the first, by place."""
    for _ in range(3):
        trainer.update()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.update()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    places = [f"{warning.filename}, line {warning.lineno}" for warning in caught if "synchron" in str(warning.message)]
    return {place: places.count(place) for place in places}


def checkpointing(bench: Bench, job: Job) -> Measure:
    """The memory and the time of activations that are computed twice, relative to those that are kept."""
    kept, twice = (training(bench, job, "bf16", gradient_checkpointing=choice) for choice in (False, True))
    slower = kept.value / twice.value
    return Measure(
        twice.memory / kept.memory,
        "of memory",
        twice.memory,
        f"instead of {kept.memory:.2f}; {slower:.2f} of the time",
    )


# Optimizers

OPTIMIZERS: dict[str, Callable] = {
    "flat AdamW": partial(FlatAdamW, fused=True),
    "fused AdamW": partial(torch.optim.AdamW, fused=True),
    "foreach AdamW": partial(torch.optim.AdamW, foreach=True),
}


def optimizer_rows(bench: Bench, job: Job) -> list[Row]:
    rows = [Row(f"only clipping and {name}", partial(only_optimizer, bench, job, name)) for name in OPTIMIZERS]
    # The first is what trainers use anyway.
    others = list(OPTIMIZERS)[1:]
    return rows + [Row(f"{job.title}: bf16, {name}", partial(with_optimizer, bench, job, name)) for name in others]


def only_optimizer(bench: Bench, job: Job, name: str) -> Measure:
    """Clipping and steps with gradients that are there already."""
    trainer = build_trainer(job, bench)
    (network,) = trainer.networks.values()
    parameters = [torch.nn.Parameter(parameter.detach().clone()) for parameter in network.parameters()]
    optimizer = OPTIMIZERS[name](parameters, lr=1e-6)
    gradients = [torch.randn_like(parameter) for parameter in parameters]
    is_flat = isinstance(optimizer, FlatAdamW)
    clipped = [optimizer.flat] if is_flat else parameters

    def step() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if not is_flat:  # as a backward pass sets them
                parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(clipped, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    found = speed(step, "steps", bench)
    weights = sum(parameter.numel() for parameter in parameters)
    return Measure(found.value, found.unit, found.memory, f"{found.remark}; {weights / 1e6:.1f}M weights")


def with_optimizer(bench: Bench, job: Job, name: str) -> Measure:
    """Whole updates with an optimizer over separate weights."""

    def build(network, config, accelerator) -> torch.optim.Optimizer:
        return OPTIMIZERS[name](network.parameters(), lr=config.learning_rate)

    with mock.patch("diffusers_ext.training.loop.trainer.build_optimizer", build):
        trainer = build_trainer(job, bench, "bf16")
    return speed_of_updates(trainer, bench)


# Sampling

STEPS, CLASSES = 20, 10


def sampling_rows(bench: Bench) -> list[Row]:
    options = {
        "float32": {"dtype": torch.float32},
        "bf16": {"dtype": torch.bfloat16},
        "bf16, channels_last": {"dtype": torch.bfloat16, "memory_format": torch.channels_last},
    }
    return [Row(f"sampling, {name}", partial(sampling, bench, **own)) for name, own in options.items()]


def sampling(
    bench: Bench,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.contiguous_format,
    compiled: bool = False,
) -> Measure:
    """Guided images of a ClassConditionalPipeline with random weights."""
    size, batch_size, steps = (16, 2, 2) if bench.is_small else (64, 64, STEPS)
    unet = build_unet(
        size=(size, size),
        in_channels=3,
        out_channels=3,
        num_class_embeds=CLASSES + 1,
        arguments=SMALL_UNET if bench.is_small else None,
    )
    pipe = ClassConditionalPipeline(unet.eval(), DDIMScheduler(clip_sample=False), null_class_label=CLASSES)
    pipe.to(bench.device, dtype)
    pipe.unet.to(memory_format=memory_format)
    pipe.set_progress_bar_config(disable=True)
    if compiled:
        pipe.unet.compile()
    labels = [index % CLASSES for index in range(batch_size)]
    options = {"num_inference_steps": steps, "guidance_scale": 2.0, "output_type": "pt"}
    found = speed(lambda: pipe(class_labels=labels, **options), "images", bench, per_call=batch_size)
    return Measure(
        found.value, found.unit, found.memory, f"{size} px, batch {batch_size}, {steps} steps; {found.remark}"
    )


# Data


def data_rows(bench: Bench, job: Job) -> list[Row]:
    ways = {"pinned in the step": None, "not pinned": copied_from_pageable, "pinned, a step ahead": copied_ahead}
    rows = [Row(f"{job.title}: {name}", partial(with_copies, bench, job, copies)) for name, copies in ways.items()]
    return [*rows, Row(f"{job.title}: only the batches", partial(only_batches, bench, job))]


def with_copies(bench: Bench, job: Job, copies: Callable | None) -> Measure:
    """Whole updates with batches that reach the device by `copies`, or in the trainer's own way."""
    trainer = build_trainer(job, bench, "bf16")
    if copies is not None:
        trainer.batches = copies(trainer.batches, bench)
        trainer._to_device = lambda name, values: values
    return speed_of_updates(trainer, bench)


def copied_from_pageable(batches: Iterator[dict], bench: Bench) -> Iterator[dict]:
    for batch in batches:
        yield {name: values.to(bench.device) for name, values in batch.items()}


def copied_ahead(batches: Iterator[dict], bench: Bench) -> Iterator[dict]:
    """Each batch is copied on a stream of its own, while the device works with the one before."""
    if bench.is_small:
        yield from batches
        return
    stream = torch.cuda.Stream()

    def begin(batch: dict) -> dict:
        with torch.cuda.stream(stream):
            return {name: values.pin_memory().to(bench.device, non_blocking=True) for name, values in batch.items()}

    coming = begin(next(batches))
    for batch in batches:
        torch.cuda.current_stream().wait_stream(stream)
        ready, coming = coming, begin(batch)
        for values in ready.values():
            values.record_stream(torch.cuda.current_stream())
        yield ready


def only_batches(bench: Bench, job: Job) -> Measure:
    """Batches on the CPU, which no device waits for yet."""
    trainer = build_trainer(job, bench)
    return speed(lambda: next(trainer.batches), "batches", bench)
