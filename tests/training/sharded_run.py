"""A training command whose weights are divided among CPU processes, which Accelerate only does on accelerators.

torchrun --nproc_per_node 2 -m tests.training.sharded_run <module of the command> <its options>
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path

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
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += ["-m", "tests.training.sharded_run", module, *arguments]
    variables = {**environment(), "ACCELERATE_USE_CPU": "true", **variables}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=600)


if __name__ == "__main__":
    divide_on_cpus()
    report_held_bytes()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
