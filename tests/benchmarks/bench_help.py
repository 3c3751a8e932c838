"""How long `--help` of the commands takes, beside `import torch`.

    python -m tests.benchmarks.bench_help

The seconds are those that the CPU works, so that other programs of the machine count little.
"""

import os
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[2]
MODULES = (
    *(f"diffusers_ext.training.{file.stem}" for file in sorted((ROOT / "training").glob("[!_]*.py"))),
    "diffusers_ext.converters",
    "diffusers_ext.converters.kohya",
)
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "training/train_diffusion.py": ["training/train_diffusion.py", "--help"],
    **{f"-m {module}": ["-m", module, "--help"] for module in MODULES},
}


def cpu_seconds(arguments: list[str]) -> float:
    """The CPU time of a Python process, all threads together."""
    before = os.times()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(rounds: int = 5) -> None:
    best = {}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            best[name] = min(best.get(name, float("inf")), cpu_seconds(arguments))
    print("`--help`, CPU seconds, the best of", rounds)
    for name, seconds in best.items():
        print(f"  {name:<52} {seconds:6.2f} s   {seconds / best['import torch']:5.2f} x import torch")


if __name__ == "__main__":
    main()
