"""Example scripts as modules: `examples/` is no package, because it is not installed."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


EXAMPLES = Path(__file__).parents[2] / "examples"


def load_example(name: str) -> ModuleType:
    """The module of `examples/<name>.py`."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    # The types of its options are looked up there.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
