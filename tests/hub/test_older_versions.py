"""What older versions of this package saved and published loads in both ways, and makes the same images."""

import ast
import importlib
import json
from pathlib import Path

import pytest
import torch
from diffusers import BaseGuidance, DiffusionPipeline, ModelMixin, SchedulerMixin

import diffusers_ext
from diffusers_ext.hub.inlining import inline
from diffusers_ext.hub.repository import installed_form
from tests.hub.older import CALLS, FOLDER, ROOMS, WITH_CODE, draw, names_at_run_time, restore


IMAGES = json.loads((FOLDER / "images.json").read_text())

# The files of the components that version 0.1.0 published
COMPONENTS = {
    "modeling_adm_unet": ["ADMUNet2DModel"],
    "modeling_autoencoder_burgess": ["AutoencoderBurgess"],
    "modeling_autoencoder_conv": ["AutoencoderConv"],
    "modeling_autoencoder_mlp": ["AutoencoderMLP"],
    "guiding_classifier": ["ClassifierGuidance"],
    "modeling_dcgan": ["DCGANDiscriminator", "DCGANGenerator"],
    "scheduling_edm_heun": ["EDMHeunScheduler"],
    "scheduling_gaussian_diffusion": ["ExactDDIMInverseScheduler", "ExactDDIMScheduler", "ExactDDPMScheduler"],
    "modeling_latent_discriminator": ["LatentDiscriminator"],
    "modeling_lenet": ["LeNet"],
    "modeling_mlp_gan": ["MLPDiscriminator", "MLPGenerator"],
    "modeling_patch_discriminator": ["MultiScalePatchDiscriminator", "PatchDiscriminator"],
    "modeling_noisy_classifier": ["NoisyClassifier"],
    "modeling_resnet_generator": ["ResnetGenerator"],
    "modeling_unet_generator": ["UNetGenerator"],
    "modeling_vqvae2": ["VQVAE2Model"],
    "modeling_vqvae": ["VQVAEModel"],
}

NAMES = json.loads((FOLDER / "names.json").read_text())


def assert_same_images(images, name):
    expected = torch.tensor(IMAGES[name])
    torch.testing.assert_close(torch.as_tensor(images).flatten(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CALLS)
def test_a_folder_loads_with_this_package(name, tmp_path):
    folder = restore(name, tmp_path / name)
    class_name = json.loads((folder / "model_index.json").read_text())["_class_name"][1]
    pipeline_class = getattr(diffusers_ext, class_name)
    pipe = pipeline_class.from_pretrained(folder)
    assert type(pipe) is pipeline_class
    assert_same_images(draw(pipe, name), name)
    pipe.save_pretrained(tmp_path / "again")
    assert_same_images(draw(pipeline_class.from_pretrained(tmp_path / "again"), name), name)
    again = DiffusionPipeline.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert type(again).__module__.startswith("diffusers_modules")
    assert_same_images(draw(again, name), name)


@pytest.mark.slow
def test_a_repository_loads_in_both_ways(hub, alice, bob, tmp_path):
    folder = restore(WITH_CODE, tmp_path / WITH_CODE)
    alice.run("from diffusers_ext import hub; hub.publish_folder(folder, 'alice/older')", folder=str(folder))
    assert {"pipeline_image_translation.py", "generator/modeling_unet_generator.py"} < set(hub.files("alice/older"))
    call = """
import torch
image = torch.linspace(0, 1, 64).view(1, 8, 8)
options = {"generator": torch.Generator().manual_seed(0), "output_type": "pt"}
result = pipe(image, dropout=True, image_statistics=True, **options).images.flatten().tolist()
"""
    load = "import diffusers_ext; pipe = diffusers_ext.ImageTranslationPipeline.from_pretrained(address)"
    for address in (str(folder), "alice/older"):
        assert_same_images(alice.run(load + call, address=address), WITH_CODE)
    load = "import diffusers; pipe = diffusers.DiffusionPipeline.from_pretrained(address, trust_remote_code=True)"
    for address in (str(folder), "alice/older"):
        assert_same_images(bob.run(load + call, address=address), WITH_CODE)


@pytest.mark.parametrize(("file", "class_name"), [(file, name) for file in COMPONENTS for name in COMPONENTS[file]])
def test_components_are_found_under_their_old_file(file, class_name):
    index = installed_form({"_class_name": ["pipeline_x", "XPipeline"], "part": [file, class_name]})
    assert index["part"] == ["diffusers_ext", class_name]
    assert issubclass(getattr(diffusers_ext, class_name), ModelMixin | SchedulerMixin | BaseGuidance)


@pytest.mark.parametrize("file", NAMES)
def test_old_files_still_work_after_diffusers_has_run_a_new_one_in_their_module(file):
    """Diffusers runs all files of one name in one module, where definitions of a new file replace those of an old one.

    So a name of an old file has its old meaning in the new file, or none. A function may have new optional parameters,
    and an output new optional fields.
    """
    (path,) = (
        path
        for room in ROOMS
        for path in Path(importlib.import_module(f"diffusers_ext.{room}").__file__).parent.glob(file)
    )
    code = inline(path)
    functions = {node.name: node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
    new, optional = names_at_run_time(code), optional_fields(code)
    for name, old in NAMES[file].items():
        if name in functions and name in new:
            num_required = len(new[name]) - len(functions[name].args.defaults)
            assert num_required <= len(old) <= len(new[name]), f"{name} takes other arguments"
        elif name in new:
            kept = [field for field in new[name] if field not in optional.get(name, ())]
            assert old in (new[name], kept), f"{name} has another definition"


def optional_fields(code: str) -> dict[str, list[str]]:
    """The fields with a default value of each class in a code file."""
    classes = [node for node in ast.parse(code).body if isinstance(node, ast.ClassDef)]
    fields = {node.name: [field for field in node.body if isinstance(field, ast.AnnAssign)] for node in classes}
    return {name: [field.target.id for field in found if field.value is not None] for name, found in fields.items()}
