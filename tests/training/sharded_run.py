"""A training command whose weights are divided among CPU processes, which Accelerate only does on accelerators.

    torchrun --nproc_per_node 2 -m tests.training.sharded_run <module of the command> <its options>
"""

import os
import runpy
import subprocess
import sys

from tests.training.runs import environment


def divide_on_cpus() -> None:
    """Make Accelerate configure FSDP2 for several CPU processes."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    original = AcceleratorState.__init__

    def initialise(self, *arguments, **keywords):
        original(self, *arguments, **keywords)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.FSDP
            wrapping = os.environ.get("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
            self.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy=wrapping)

    AcceleratorState.__init__ = initialise


def launch(module: str, arguments: list[str], processes: int = 2, **variables: str) -> subprocess.CompletedProcess:
    """Run a command on `processes` processes, with divided weights if there are several."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += ["-m", "tests.training.sharded_run", module, *arguments]
    variables = {**environment(), "ACCELERATE_USE_CPU": "true", **variables}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=600)


if __name__ == "__main__":
    divide_on_cpus()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
