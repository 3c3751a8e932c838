"""A training command whose weights are divided among CPU processes, which Accelerate only does on accelerators.

torchrun --nproc_per_node 2 -m tests.training.sharded_run <module of the command> <its options>
"""

import os
import runpy
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.training.runs import environment


def divide_on_cpus() -> None:
    """Make Accelerate configure FSDP2 for several CPU processes."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    original = AcceleratorState.__init__
    wrapping = os.environ.get("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy=wrapping)

    def initialise(self, *arguments, **keywords):
        original(self, *arguments, **keywords)
        if self.distributed_type == DistributedType.MULTI_CPU and self.num_processes > 1:
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = plugin  # one for all states that are made of it

    AcceleratorState.__init__ = initialise


def report_held_bytes() -> None:
    """Make trainers write how much memory their weights, optimizers and averages take, a file per process."""
    from diffusers_ext.training.loop.sharding import local
    from diffusers_ext.training.loop.trainer import Trainer

    original = Trainer.train

    def train(self):
        finished = original(self)
        tensors = [weight for network in self.networks.values() for weight in network.parameters()]
        for optimizer in self.optimizers.values():
            tensors += [value for state in optimizer.state.values() for value in state.values()]
        tensors += [value for average in self.averages.values() for value in average.state_dict().values()]
        size = sum(local(tensor).numel() * tensor.element_size() for tensor in tensors)
        path = Path(self.config.output_dir) / f"held_bytes-{self.accelerator.process_index}.json"
        path.write_text(str(size))
        return finished

    Trainer.train = train


def held_bytes(output_dir: Path) -> int:
    """The largest memory of a process of a run."""
    return max(int(path.read_text()) for path in output_dir.glob("held_bytes-*.json"))


def launch(module: str, arguments: list[str], processes: int = 2, **variables: str) -> subprocess.CompletedProcess:
    """Run a command on `processes` processes, with divided weights if there are several."""
    variables = {**_environment(), **variables}
    command = _command(module, arguments, processes)
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=1800)


def launch_and_kill(module: str, arguments: list[str], checkpoint: Path, processes: int = 2) -> None:
    """Start a command as [`launch`] does, and kill all of its processes as soon as it has written a checkpoint."""
    command = _command(module, arguments, processes)
    end = time.monotonic() + 300
    launcher = subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not checkpoint.exists():
            if launcher.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The run wrote no {checkpoint.name}.")
            time.sleep(0.005)
    finally:
        _kill(launcher)


def _kill(launcher: subprocess.Popen) -> None:
    if launcher.poll() is None:
        process = psutil.Process(launcher.pid)
        for running in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                running.kill()
    launcher.wait()


def _command(module: str, arguments: list[str], processes: int) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return [*command, "-m", "tests.training.sharded_run", module, *arguments]


def _environment() -> dict[str, str]:
    return {**environment(), "ACCELERATE_USE_CPU": "true"}


if __name__ == "__main__":
    divide_on_cpus()
    report_held_bytes()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
