"""Starting Accelerate, and refusing its silent fallbacks."""

import os
from collections.abc import Mapping

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType

from diffusers_ext.training.loop.sharding import check_plugin


def build_accelerator(
    report_to: str = "none", allow_tf32: bool = False, cpu_threads: int | None = None, **keywords
) -> Accelerator:
    """An Accelerator as Accelerate's configuration and these arguments ask for, or an error.

    Args:
        report_to (`str`): a tracker, `all`, or `none`.
        allow_tf32 (`bool`): whether GPUs may multiply matrices in TF32.
        cpu_threads (`int`, *optional*): threads of a process that computes on the CPU; see [`default_cpu_threads`].
        keywords: further arguments of `Accelerator`.

    Raises:
        ValueError: if the tracker is not installed, or FSDP is configured in a way that the trainer does not support.
        RuntimeError: if Accelerate would not run what was launched.
    """
    # Without `cpu=True`, Accelerate would run each of several processes on a machine without GPUs as a run of its own.
    accelerator = Accelerator(
        log_with=None if report_to == "none" else report_to,
        cpu=not torch.accelerator.is_available(),
        # Buffers must not change between two calls of a network in one loss: the trainer shares them after the step.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        **keywords,
    )
    _refuse_single_process()
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != launched:
        raise RuntimeError(
            f"{launched} processes were launched, but Accelerate runs {accelerator.num_processes}: run `accelerate "
            "config` for this machine."
        )
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and accelerator.distributed_type != DistributedType.FSDP:
        raise RuntimeError("Accelerate is configured for FSDP, but does not run it on this machine.")
    check_plugin(accelerator)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
    if accelerator.device.type == "cpu":
        torch.set_num_threads(cpu_threads or default_cpu_threads())
    if report_to not in ("none", "all") and not accelerator.log_with:
        raise ValueError(f"--report_to {report_to} needs its package: pip install {report_to}.")
    return accelerator


def default_cpu_threads() -> int:
    """Threads for a process that computes on the CPU: `OMP_NUM_THREADS`, or a share of the cores.

    A value of 1 counts only if the user has set it: `accelerate launch` and torchrun set it by themselves.
    """
    wanted = _omp_num_threads(os.environ)
    if wanted == 1 and _is_launched():
        wanted = _omp_num_threads(_launcher_environment())
    if wanted is not None:
        return wanted
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = min(usable, psutil.cpu_count(logical=False) or usable)
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def _omp_num_threads(environment: Mapping[str, str]) -> int | None:
    """The number in `OMP_NUM_THREADS`, the first one of a list by level; `None` if there is no such number.

    OpenMP itself ignores a value that it can't read, too.
    """
    first = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def _refuse_single_process() -> None:
    """Raise an error if `accelerate launch --num_processes` was asked for several processes, and started one.

    It does so with `--cpu`, and on a machine without a GPU, without a word.
    """
    if not _is_launched() or "WORLD_SIZE" in os.environ:
        return
    wanted = _option(_launcher_command(), "--num_processes", "--num-processes")
    if wanted is not None and wanted.isdecimal() and int(wanted) > 1:
        raise RuntimeError(
            f"`accelerate launch --num_processes {wanted}` has started a single process, as it does on CPUs: start "
            f"`torchrun --nproc_per_node {wanted}` with the same script and options instead."
        )


def _option(command: list[str], *names: str) -> str | None:
    """The value of an option of the launcher; those of the script are others."""
    for position, argument in enumerate(command):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else next(iter(command[position + 1 :]), None)
    return None


def _is_launched() -> bool:
    return "ACCELERATE_MIXED_PRECISION" in os.environ or "LOCAL_WORLD_SIZE" in os.environ


def _launcher_command() -> list[str]:
    """The command line of the launcher."""
    try:
        return psutil.Process(os.getppid()).cmdline()
    except (psutil.Error, OSError):
        return []


def _launcher_environment() -> Mapping[str, str]:
    """The environment variables of the user, with which the launcher itself was started."""
    try:
        return psutil.Process(os.getppid()).environ()
    except (psutil.Error, OSError):
        return {}
