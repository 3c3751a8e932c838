"""Folders that an older version of this package saved, without their weights, which are computed here.

`tests/hub/saved_by_0_1/<pipeline>/` is what version 0.1.0 (commit 50c481f) saved: the configurations, and for one of
the pipelines the code as well, which readers without this package run (as .py.txt). `images.json` has the images that
this version made. `names.json` has the definitions that its code files use while they run, see `names_at_run_time`.
`python -m tests.hub.older` wrote it all, with that version installed.
"""

import ast
import importlib
import json
import shutil
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file

import diffusers_ext
from tests.tiny_unet import tiny_unet


FOLDER = Path(__file__).parent / "saved_by_0_1"
WITH_CODE = "image_translation"
ROOMS = ("pipelines", "models", "schedulers", "guiders")
GRAY = torch.linspace(0, 1, 64).view(1, 8, 8)

# The arguments of the calls that made the images
CALLS = {
    "autoencoder": {"batch_size": 2},
    "cascade": {"class_labels": ["one", 0], "num_inference_steps": 2, "guidance_scale": 2.0},
    "class_conditional": {"class_labels": ["one", 0]},
    "gan": {"class_labels": ["one", 0], "truncation": 1.0},
    "image_translation": {"image": GRAY, "dropout": True, "image_statistics": True},
    "palette": {"image": GRAY, "mask_image": (2, 2, 6, 6), "class_labels": "one"},
}


def make_pipelines() -> dict:
    """The pipelines that were saved."""
    labels, conditional = {"id2label": {0: "zero", 1: "one"}}, {"num_classes": 2, "conditioning": "concat"}
    autoencoder = diffusers_ext.AutoencoderMLP(sample_size=8, hidden_dims=(6,), latent_dim=3, in_channels=1)
    base = tiny_unet(num_class_embeds=3, sample_size=4, in_channels=1, out_channels=1)
    resolver = tiny_unet(out_channels=1)
    classifier = diffusers_ext.NoisyClassifier(
        sample_size=8,
        in_channels=1,
        num_classes=3,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    return {
        "autoencoder": diffusers_ext.AutoencoderPipeline(autoencoder),
        "cascade": diffusers_ext.CascadePipeline(
            base,
            diffusers.DDIMScheduler(),
            resolver,
            diffusers_ext.ExactDDPMScheduler(),
            stages={
                "unet": {"null_class_label": 2},
                "unet_2": {"conditioning_augmentation": 0.4, "noise_conditioning": "sqrt_gamma"},
            },
            **labels,
        ),
        "class_conditional": diffusers_ext.ClassConditionalPipeline(
            tiny_unet(num_class_embeds=3, in_channels=1, out_channels=1),
            diffusers_ext.EDMHeunScheduler(),
            diffusers_ext.ClassifierGuidance(guidance_scale=2.0),
            classifier,
            null_class_label=2,
            default_num_inference_steps=3,
            **labels,
        ),
        "gan": diffusers_ext.GANPipeline(
            diffusers_ext.DCGANGenerator(8, out_channels=1, latent_dim=4, channels=4, **conditional),
            diffusers_ext.DCGANDiscriminator(8, in_channels=1, channels=4, **conditional),
            **labels,
        ),
        "image_translation": diffusers_ext.ImageTranslationPipeline(
            diffusers_ext.UNetGenerator(in_channels=1, out_channels=1, block_out_channels=(4, 8, 8), dropout=0.5)
        ),
        "palette": diffusers_ext.PalettePipeline(
            tiny_unet(num_class_embeds=3, in_channels=2, out_channels=1),
            diffusers_ext.ExactDDIMScheduler(),
            tasks=["inpainting", "deblurring+denoising"],
            noise_conditioning="gamma",
            conditioning_fill="smooth",
            null_class_label=2,
            default_num_inference_steps=3,
            **labels,
        ),
    }


def draw(pipe, name: str) -> torch.Tensor:
    """The images of the call, `(N, C, H, W)`."""
    pipe.set_progress_bar_config(disable=True)
    return pipe(**CALLS[name], generator=torch.Generator().manual_seed(0), output_type="pt").images


def fill(network: torch.nn.Module) -> torch.nn.Module:
    """A network whose weights follow from their names and shapes."""
    return network.load_state_dict({name: waves(name, weight) for name, weight in network.state_dict().items()})


def waves(name: str, weight: torch.Tensor) -> torch.Tensor:
    if not weight.is_floating_point():
        return weight
    values = torch.sin(torch.arange(weight.numel(), dtype=torch.float64) * 1.7 + len(name)).view(weight.shape)
    if weight.ndim == 1 and name.endswith(("weight", "running_var")):
        values = 1 + values / 4
    elif weight.ndim > 1:
        values = values / weight[0].numel() ** 0.5
    return values.to(weight.dtype)


def restore(name: str, folder: Path) -> Path:
    """The folder of a pipeline as it was saved, with weights and code."""
    shutil.copytree(FOLDER / name, folder)
    for file in folder.rglob("*.py.txt"):
        file.rename(file.with_suffix(""))
    index = json.loads((folder / "model_index.json").read_text())
    for config in folder.glob("*/config.json"):
        _, class_name = index[config.parent.name]
        network_class = getattr(diffusers_ext, class_name, None) or getattr(diffusers, class_name)
        network = network_class.from_config(network_class.load_config(config.parent))
        fill(network)
        save_file(network.state_dict(), config.parent / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    return folder


def names_at_run_time(code: str) -> dict[str, str | list[str]]:
    """
    The functions, classes and constants of a code file that its functions use.

    Returns:
        `dict`: the parameters of each function, the fields of each class, the code of each constant.
    """
    body = ast.parse(code).body
    functions = [node for node in ast.walk(ast.Module(body, [])) if isinstance(node, ast.FunctionDef)]
    bodies = [ast.Module(function.body, []) for function in functions if function.name != "__init__"]
    used = {node.id for function in bodies for node in ast.walk(function) if isinstance(node, ast.Name)}
    defined = {name: definition for node in body for name, definition in define(node)}
    return {name: definition for name, definition in defined.items() if name in used}


def define(node: ast.stmt) -> list[tuple[str, str | list[str]]]:
    if isinstance(node, ast.FunctionDef):
        return [(node.name, [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)])]
    if isinstance(node, ast.ClassDef):
        return [(node.name, [field.target.id for field in node.body if isinstance(field, ast.AnnAssign)])]
    if isinstance(node, ast.Assign):
        return [(target.id, ast.unparse(node.value)) for target in node.targets if isinstance(target, ast.Name)]
    return []


def write() -> None:
    images = {}
    for name, pipe in make_pipelines().items():
        for component in pipe.components.values():
            if isinstance(component, torch.nn.Module):
                fill(component.eval())
        images[name] = [round(value, 6) for value in draw(pipe, name).flatten().tolist()]
        pipe.save_pretrained(FOLDER / name)
        for file in (FOLDER / name).rglob("*"):
            if file.suffix == ".safetensors" or (file.suffix == ".py" and name != WITH_CODE):
                file.unlink()
            elif file.suffix == ".py":
                file.rename(f"{file}.txt")
    (FOLDER / "images.json").write_text(json.dumps(images) + "\n")
    rooms = [Path(importlib.import_module(f"diffusers_ext.{room}").__file__).parent for room in ROOMS]
    files = sorted(file for room in rooms for file in room.glob("*_*.py") if not file.name.startswith("_"))
    names = {file.name: names_at_run_time(file.read_text()) for file in files}
    (FOLDER / "names.json").write_text(json.dumps(names, indent=1) + "\n")


if __name__ == "__main__":
    write()
