"""Starting Accelerate, and refusing its silent fallbacks."""

import os

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType


def build_accelerator(report_to: str = "none", allow_tf32: bool = False, **keywords) -> Accelerator:
    """An Accelerator as Accelerate's configuration and these arguments ask for, or an error.

    Args:
        report_to (`str`): a tracker, `all`, or `none`.
        allow_tf32 (`bool`): whether GPUs may multiply matrices in TF32.
        keywords: further arguments of `Accelerator`.

    Raises:
        ValueError: if the tracker is not installed.
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
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if accelerator.num_processes != launched:
        raise RuntimeError(
            f"{launched} processes were launched, but Accelerate runs {accelerator.num_processes}: run `accelerate "
            "config` for this machine."
        )
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and accelerator.distributed_type != DistributedType.FSDP:
        raise RuntimeError("Accelerate is configured for FSDP, but does not run it on this machine.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
    if accelerator.device.type == "cpu":
        torch.set_num_threads(_cpu_threads())
    if report_to not in ("none", "all") and not accelerator.log_with:
        raise ValueError(f"--report_to {report_to} needs its package: pip install {report_to}.")
    return accelerator


def _cpu_threads() -> int:
    """Threads for a process that computes on the CPU: `OMP_NUM_THREADS` if it is above 1, or a share of the cores.

    A value of 1 is ignored: `accelerate launch` and torchrun set it if the user has set none.
    """
    wanted = int(os.environ.get("OMP_NUM_THREADS", 1))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = min(usable, psutil.cpu_count(logical=False) or usable)
    return wanted if wanted > 1 else max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
