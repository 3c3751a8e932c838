import importlib
import inspect
import json
import sys
from pathlib import Path

import pytest
import torch
from diffusers import ClassifierFreeGuidance, DDIMScheduler, DDPMPipeline, DiffusionPipeline, UNet2DModel
from huggingface_hub import ModelCard

from diffusers_ext import ClassConditionalPipeline, GANPipeline
from diffusers_ext.hub import publishing
from diffusers_ext.hub.inlining import inline
from diffusers_ext.hub.repository import files_to_load, files_to_publish, superseded_weights
from tests.tiny_unet import tiny_unet


def toy_pipeline(package, **overrides):
    torch.manual_seed(0)
    components = {
        "unet": package.ToyDenoiser(),
        "scheduler": package.ToyScheduler(),
        "guider": package.ToyGuidance(guidance_scale=2.0),
    }
    return package.ToyPipeline(**{**components, **overrides})


def filenames(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def index_of(folder):
    return json.loads((folder / "model_index.json").read_text())


def sample(pipe):
    return pipe([0, 1, 2], generator=torch.Generator().manual_seed(1)).images


FILES = {
    "model_index.json",
    "pipeline_toy.py",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "unet/modeling_toy.py",
    "scheduler/scheduler_config.json",
    "scheduler/scheduling_toy.py",
    "guider/guider_config.json",
    "guider/guiding_toy.py",
}


def test_own_classes_are_bundled_as_single_files(toys, tmp_path):
    toy_pipeline(toys).save_pretrained(tmp_path)

    assert filenames(tmp_path) == FILES
    index = index_of(tmp_path)
    assert index["_class_name"] == ["pipeline_toy", "ToyPipeline"]
    assert index["unet"] == ["modeling_toy", "ToyDenoiser"]
    assert index["scheduler"] == ["scheduling_toy", "ToyScheduler"]
    assert index["guider"] == ["guiding_toy", "ToyGuidance"]
    published = (tmp_path / "unet" / "modeling_toy.py").read_text()
    module = importlib.import_module("diffusers_ext.models.modeling_toy")
    assert published == inline(Path(module.__file__)) and inspect.getsource(toys.ToyDenoiser) in published


def test_classes_of_diffusers_stay_as_they_are(toys, tmp_path):
    unet = UNet2DModel(
        8, 1, 1, block_out_channels=(32,), down_block_types=["DownBlock2D"], up_block_types=["UpBlock2D"]
    )
    pipe = toy_pipeline(toys, unet=unet, scheduler=DDIMScheduler(), guider=ClassifierFreeGuidance())
    pipe.save_pretrained(tmp_path)
    assert [name for name in filenames(tmp_path) if name.endswith(".py")] == ["pipeline_toy.py"]
    index = index_of(tmp_path)
    assert index["unet"] == ["diffusers", "UNet2DModel"] and index["guider"] == ["diffusers", "ClassifierFreeGuidance"]
    assert isinstance(toys.ToyPipeline.from_pretrained(tmp_path).unet, UNet2DModel)


def test_loading_gives_installed_classes_and_runs_no_code_of_the_folder(toys, tmp_path):
    pipe = toy_pipeline(toys, id2label={0: "zero"})
    pipe.save_pretrained(tmp_path)
    for file in tmp_path.rglob("*.py"):
        file.write_text("raise AssertionError('code of the folder was run')")

    loaded = toys.ToyPipeline.from_pretrained(tmp_path)

    assert type(loaded) is toys.ToyPipeline
    assert type(loaded.unet) is toys.ToyDenoiser and type(loaded.scheduler) is toys.ToyScheduler
    assert type(loaded.guider) is toys.ToyGuidance and loaded.guider.config.guidance_scale == 2.0
    assert torch.equal(sample(loaded), sample(pipe))
    assert not any(name.startswith("diffusers_modules") and name.endswith("_toy") for name in sys.modules)
    with pytest.raises(AssertionError, match="code of the folder was run"):
        DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True)


def test_saving_what_was_loaded_gives_the_same_folder(toys, tmp_path):
    toy_pipeline(toys).save_pretrained(tmp_path / "first")
    toys.ToyPipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    assert filenames(tmp_path / "second") == FILES
    for name in FILES:
        assert (tmp_path / "second" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_a_pipeline_can_be_saved_where_it_was_loaded_from(toys, tmp_path):
    toy_pipeline(toys).save_pretrained(tmp_path)
    loaded = toys.ToyPipeline.from_pretrained(tmp_path)
    before = sample(loaded)
    loaded.save_pretrained(tmp_path)
    assert filenames(tmp_path) == FILES and torch.equal(sample(loaded), before)
    assert torch.equal(sample(toys.ToyPipeline.from_pretrained(tmp_path)), before)


def test_missing_and_replaced_components(toys, tmp_path):
    toy_pipeline(toys, guider=None).save_pretrained(tmp_path)
    assert index_of(tmp_path)["guider"] == [None, None]
    scheduler = DDIMScheduler(beta_schedule="scaled_linear")
    loaded = toys.ToyPipeline.from_pretrained(tmp_path, scheduler=scheduler, id2label={1: "one"})
    assert loaded.guider is None and loaded.scheduler is scheduler and loaded.config.id2label == {1: "one"}
    loaded.save_pretrained(tmp_path)
    assert index_of(tmp_path)["scheduler"] == ["diffusers", "DDIMScheduler"]
    assert "scheduler/scheduling_toy.py" not in files_to_publish(tmp_path)


def test_variants_lie_beside_one_another(toys, tmp_path):
    pipe = toy_pipeline(toys)
    pipe.save_pretrained(tmp_path)
    pipe.to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert filenames(tmp_path) == FILES | {"unet/diffusion_pytorch_model.fp16.safetensors"}
    loaded = toys.ToyPipeline.from_pretrained(tmp_path, variant="fp16", dtype=torch.float16)
    assert loaded.unet.dtype == torch.float16
    assert toys.ToyPipeline.from_pretrained(tmp_path).unet.dtype == torch.float32


def test_superseded_shards_are_removed(toys, tmp_path):
    pipe = toy_pipeline(toys)
    pipe.save_pretrained(tmp_path, max_shard_size=40)
    assert "unet/diffusion_pytorch_model.safetensors.index.json" in filenames(tmp_path)
    torch.nn.init.ones_(pipe.unet.conv.weight)
    pipe.save_pretrained(tmp_path)
    assert filenames(tmp_path) == FILES
    assert torch.equal(sample(toys.ToyPipeline.from_pretrained(tmp_path)), sample(pipe))


def test_other_files_of_the_folder_stay_and_companions_come_along(toys, tmp_path):
    home, copy = tmp_path / "home", tmp_path / "copy"
    pipe = toy_pipeline(toys)
    pipe.save_pretrained(home)
    (home / "README.md").write_text("the card")
    (home / "metrics.json").write_text("{}")
    (home / "metrics.jsonl").write_text("{}")
    (copy / "checkpoint-1").mkdir(parents=True)
    (copy / "checkpoint-1" / "optimizer.bin").write_text("state")
    (copy / "metrics.json").write_text("[]")

    toys.ToyPipeline.from_pretrained(home).save_pretrained(copy)

    assert filenames(copy) == FILES | {"README.md", "metrics.json", "checkpoint-1/optimizer.bin"}
    assert (copy / "README.md").read_text() == "the card" and (copy / "metrics.json").read_text() == "[]"


def test_no_path_of_this_machine_is_saved(toys, tmp_path):
    toy_pipeline(toys).save_pretrained(tmp_path / "first")
    toys.ToyPipeline.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    for file in (tmp_path / "second").rglob("*.json"):
        assert str(tmp_path) not in file.read_text()


class Unsaveable(torch.nn.Conv2d):
    pass


def refused_cases(toys):
    yield "safetensors only", toy_pipeline(toys), {"safe_serialization": False}
    yield "use a dictionary", toy_pipeline(toys, id2label=["zero", "one"]), {}
    yield "`unet` \\(Unsaveable\\) is not a", toy_pipeline(toys, unet=Unsaveable(1, 1, 1)), {}


def test_what_cannot_be_loaded_again_is_refused_and_leaves_the_folder_as_it_was(toys, tmp_path):
    toy_pipeline(toys).save_pretrained(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in filenames(tmp_path)}
    for message, pipe, options in refused_cases(toys):
        with pytest.raises(ValueError, match=message):
            pipe.save_pretrained(tmp_path, **options)
        assert {name: (tmp_path / name).read_bytes() for name in filenames(tmp_path)} == before
        assert not list(tmp_path.glob(".tmp-*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file and not a folder"):
        toy_pipeline(toys).save_pretrained(tmp_path / "file")


def test_a_file_that_does_not_stand_alone_is_refused(toys, tmp_path, monkeypatch):
    for number, statement in enumerate(["from .modeling_toy import ToyDenoiser", "import diffusers_ext.models"]):
        room = tmp_path / str(number)
        room.mkdir()
        (room / f"scheduling_entangled{number}.py").write_text(
            f"{statement}\nfrom diffusers import DDIMScheduler\n\nclass Entangled(DDIMScheduler): pass\n"
        )
        monkeypatch.setattr(toys.models, "__path__", [*toys.models.__path__, str(room)])
        module = importlib.import_module(f"diffusers_ext.models.scheduling_entangled{number}")
        monkeypatch.setattr(toys, "Entangled", module.Entangled, raising=False)
        with pytest.raises(ValueError, match=r"scheduling_entangled\d.py can't be published, because it imports"):
            toy_pipeline(toys, scheduler=module.Entangled()).save_pretrained(tmp_path / "saved")


def test_a_class_that_is_not_installed_is_named_in_one_sentence(toys, tmp_path):
    toy_pipeline(toys).save_pretrained(tmp_path)
    index = index_of(tmp_path)
    for missing in (["modeling_of_tomorrow", "Tomorrow"], ["modeling_of_tomorrow", "ToyDenoiser"]):
        index["unet"] = missing
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match=f"wants {missing[1]} of modeling_of_tomorrow as `unet`.*update") as error:
            toys.ToyPipeline.from_pretrained(tmp_path)
        assert "\n" not in str(error.value)


def test_a_pipeline_of_another_job_is_refused_in_one_sentence(toys, tmp_path, caplog):
    toy_pipeline(toys).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="GANPipeline can't be loaded .* class ToyPipeline, and has no generator"):
        GANPipeline.from_pretrained(tmp_path)
    assert "not expected" not in caplog.text
    # The component is not missing, but of another kind.
    with pytest.raises(ValueError, match="`generator` must make images from latents"):
        GANPipeline.from_pretrained(tmp_path, generator=toys.ToyDenoiser())


def test_our_components_load_in_pipelines_of_diffusers(toys, tmp_path):
    unet = UNet2DModel(
        8, 1, 1, block_out_channels=(32,), down_block_types=["DownBlock2D"], up_block_types=["UpBlock2D"]
    )
    DDPMPipeline(unet, toys.ToyScheduler(beta_end=0.01)).save_pretrained(tmp_path)
    assert index_of(tmp_path)["scheduler"] == ["diffusers_ext", "ToyScheduler"]
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is DDPMPipeline
    assert type(loaded.scheduler) is toys.ToyScheduler and loaded.scheduler.config.beta_end == 0.01
    replaced = DDPMPipeline.from_pretrained(tmp_path, scheduler=DDIMScheduler())
    assert type(replaced.scheduler) is DDIMScheduler


def test_saving_keeps_the_old_index_until_all_else_is_there(toys, tmp_path, monkeypatch):
    pipe = toy_pipeline(toys)
    pipe.save_pretrained(tmp_path)
    renamed = []

    def killed_while_moving(source, folder, last):
        renamed.append(last)
        raise KeyboardInterrupt

    monkeypatch.setattr(publishing, "move_into", killed_while_moving)
    with pytest.raises(KeyboardInterrupt):
        pipe.save_pretrained(tmp_path)
    assert renamed == ["model_index.json"] and filenames(tmp_path) == FILES


def test_the_card_of_a_trained_folder_is_valid(toys, tmp_path):
    toy_pipeline(toys).save_pretrained(tmp_path)
    path = toys.hub.write_model_card(tmp_path, title="Toy", pipeline_class="ToyPipeline")
    assert path == tmp_path / "README.md" and ModelCard.load(path).data.library_name == "diffusers"
    assert f'ToyPipeline.from_pretrained("{tmp_path}")' in path.read_text()


WHOLE, SHARDED = (
    "unet/model.safetensors",
    ["unet/model-00001-of-00001.safetensors", "unet/model.safetensors.index.json"],
)
HALF = ["unet/model.fp16-00001-of-00001.safetensors", "unet/model.safetensors.index.fp16.json"]


@pytest.mark.parametrize(
    "existing, written, superseded",
    [
        (
            [WHOLE, "unet/pytorch_model.bin", *HALF, "vae/model.safetensors"],
            SHARDED,
            {WHOLE, "unet/pytorch_model.bin"},
        ),
        ([*SHARDED, *HALF], [WHOLE], set(SHARDED)),
        ([*SHARDED, *HALF], ["unet/model.fp16.safetensors"], set(HALF)),
        ([WHOLE, "unet/config.json"], ["unet/config.json"], set()),
    ],
)
def test_superseded_weights(existing, written, superseded):
    assert superseded_weights([*existing, *written], written) == superseded


def test_files_to_load():
    there = [
        WHOLE,
        *HALF,
        "unet/config.json",
        "unet/code.py",
        "unet/model.bin",
        "vae/model.safetensors",
        "vae/note.md",
    ]
    assert set(files_to_load(there, ["unet"], None)) == {WHOLE, "unet/config.json"}
    assert set(files_to_load(there, ["unet", "vae"], "fp16")) == {*HALF, "unet/config.json", "vae/model.safetensors"}


def test_a_guider_that_is_set_later_is_saved(tmp_path):
    unet = tiny_unet(num_class_embeds=3)
    pipe = ClassConditionalPipeline(unet, DDIMScheduler(), null_class_label=2)
    pipe.guider = ClassifierFreeGuidance(guidance_scale=3.0)
    pipe.save_pretrained(tmp_path)
    assert ClassConditionalPipeline.from_pretrained(tmp_path).guider.config.guidance_scale == 3.0
