"""The map of training/: who may import whom, and names that hide nothing."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path


TRAINING = Path(__file__).parents[2] / "training"
SHARED = (
    "loop",
    "evaluation",
    "diffusion",
)  # from the bottom up: loop <- evaluation <- families, among them diffusion
FILES = sorted(TRAINING.rglob("*.py"))
# Packages that people import in training scripts, beside those that are installed here.
WELL_KNOWN = {
    *(
        "evaluate",
        "records",
        "lora",
        "clip",
        "open_clip",
        "timm",
        "lpips",
        "wandb",
        "trackio",
        "bitsandbytes",
        "kornia",
    ),
    *("gans", "ema", "sampling", "metrics", "data", "losses", "models", "utils", "configs", "common", "base_models"),
}


def package(file: Path) -> str:
    """The package of a file below training/, or "commands" for a file at the top."""
    return file.relative_to(TRAINING).parts[0] if file.parent != TRAINING else "commands"


def imported(file: Path) -> set[str]:
    """The packages of training/ that a file imports from; "commands" for a module at the top."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "diffusers_ext.training":
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    names = {module.split(".")[2] for module in modules if module.startswith("diffusers_ext.training.")}
    return {name if (TRAINING / name).is_dir() else "commands" for name in names}


def allowed(importer: str) -> set[str]:
    """What the files of a package may import: commands -> family -> evaluation -> loop."""
    if importer == "commands":
        return {path.name for path in TRAINING.iterdir() if path.is_dir()}
    if importer in ("loop", "evaluation"):
        return set(SHARED[: SHARED.index(importer) + 1])
    return {*SHARED, importer}


def test_imports_point_one_way():
    against = {file: imported(file) - allowed(package(file)) for file in FILES}
    assert {file: packages for file, packages in against.items() if packages} == {}


def test_the_rule_sees_imports(tmp_path):
    (tmp_path / "x.py").write_text(
        "from diffusers_ext.training import train_gan\nimport diffusers_ext.training.loop.ema\n"
    )
    assert imported(tmp_path / "x.py") == {"commands", "loop"}


def test_only_commands_stand_at_the_top():
    names = [file.name for file in TRAINING.glob("*.py") if file.name != "__init__.py"]
    assert names
    for name in names:
        assert 'if __name__ == "__main__":' in (TRAINING / name).read_text(), name


def test_no_name_at_the_top_hides_a_package():
    """A script runs with its folder first on sys.path: `import evaluate` must not find ours."""
    own = {path.stem for path in TRAINING.iterdir() if path.suffix == ".py" or path.is_dir()} - {
        "__init__",
        "__pycache__",
    }
    assert not own & {*sys.stdlib_module_names, *packages_distributions(), *WELL_KNOWN}


def test_recipes_reach_neither_the_trainer_nor_the_accelerator():
    for file in FILES:
        if package(file) != "loop":
            text = file.read_text()
            assert "_trainer" not in text, file
            if file.name != "evaluate_pipeline.py":  # which builds one
                assert not re.search(r"\baccelerator\.|PartialState", text), file
