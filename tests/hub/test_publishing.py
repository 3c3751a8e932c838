import json
import re
import shutil

import pytest

from tests.hub.hub_user import UserError


NEW_PIPELINE = """
import torch
import diffusers_ext
from diffusers_ext import hub

torch.manual_seed(0)
pipe = diffusers_ext.ToyPipeline(
    diffusers_ext.ToyDenoiser(), diffusers_ext.ToyScheduler(), diffusers_ext.ToyGuidance(guidance_scale=2.0)
)
"""
SAMPLE = """
import torch

def sample(pipe):
    return pipe([0, 1, 2], generator=torch.Generator().manual_seed(1)).images.tolist()
"""
CODE = {"pipeline_toy.py", "unet/modeling_toy.py", "scheduler/scheduling_toy.py", "guider/guiding_toy.py"}
REST = {
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
    "guider/guider_config.json",
}


def test_one_repository_serves_both_kinds_of_reader(hub, alice, bob):
    expected = alice.run(NEW_PIPELINE + SAMPLE + "result = [pipe.push_to_hub('alice/both').oid, sample(pipe)]")
    assert expected[0] == hub.repositories["alice/both"].refs["main"]
    assert set(hub.files("alice/both")) == CODE | REST | {"README.md", ".gitattributes"}

    classes, images = alice.run(
        SAMPLE
        + """
from diffusers_ext import ToyPipeline
pipe = ToyPipeline.from_pretrained("alice/both")
classes = [type(part).__module__ for part in (pipe.unet, pipe.scheduler, pipe.guider)]
result = [[type(pipe) is ToyPipeline, *classes], sample(pipe)]
"""
    )
    rooms = ["models.modeling_toy", "schedulers.scheduling_toy", "guiders.guiding_toy"]
    assert classes == [True, *(f"diffusers_ext.{room}" for room in rooms)]
    assert images == expected[1]
    assert hub.downloaded("alice/both") == REST
    assert not [file for file in alice.cache.rglob("*") if file.suffix == ".py"]

    load_with_code = (
        SAMPLE
        + """
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(address, trust_remote_code=True)
result = [type(part).__module__.split(".")[0] for part in (pipe, pipe.unet, pipe.guider)], sample(pipe)
"""
    )
    assert bob.run(load_with_code, address="alice/both") == [["diffusers_modules"] * 3, expected[1]]
    (commit,) = (alice.cache / "models--alice--both" / "snapshots").iterdir()
    assert CODE < hub.downloaded("alice/both") == CODE | REST
    (commit,) = (bob.cache / "models--alice--both" / "snapshots").iterdir()
    assert bob.run(load_with_code, address=str(commit)) == [["diffusers_modules"] * 3, expected[1]]


def test_without_the_package_code_is_not_run_unasked(alice, bob):
    alice.run(NEW_PIPELINE + "pipe.push_to_hub('alice/unasked')")
    with pytest.raises(UserError, match="trust_remote_code=True"):
        bob.run("import diffusers; diffusers.DiffusionPipeline.from_pretrained('alice/unasked')")
    with pytest.raises(UserError, match="ModuleNotFoundError"):
        bob.run("import diffusers_ext")


def test_what_was_loaded_from_the_hub_is_saved_and_pushed_in_the_same_form(hub, alice, bob, tmp_path):
    alice.run(NEW_PIPELINE + "pipe.push_to_hub('alice/origin')")
    alice.run(
        """
from diffusers_ext import ToyPipeline
pipe = ToyPipeline.from_pretrained("alice/origin")
pipe.save_pretrained(folder)
pipe.push_to_hub("alice/copy")
ToyPipeline.from_pretrained(folder).push_to_hub("alice/copy-of-folder")
""",
        folder=str(tmp_path),
    )
    origin = hub.files("alice/origin")
    for name in ("alice/copy", "alice/copy-of-folder"):
        copy = hub.files(name)
        assert {file: content for file, content in copy.items() if file != "README.md"} == {
            file: content for file, content in origin.items() if file != "README.md"
        }
        assert f'from_pretrained("{name}"'.encode() in copy["README.md"]


def contents(folder) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_was_loaded_without_the_package_is_saved_and_pushed_with_its_code(hub, alice, bob, tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    expected = alice.run(
        NEW_PIPELINE + SAMPLE + "pipe.save_pretrained(folder); result = sample(pipe)", folder=str(first)
    )
    again = (
        SAMPLE
        + """
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(old, trust_remote_code=True)
pipe.save_pretrained(new)
result = sample(DiffusionPipeline.from_pretrained(new, trust_remote_code=True))
"""
    )
    assert bob.run(again, old=str(first), new=str(second)) == expected
    assert contents(second) == contents(first) and CODE < set(contents(second))
    assert bob.run(again, old=str(second), new=str(third)) == expected
    assert contents(third) == contents(first)
    bob.run(again + "pipe.push_to_hub('bob/again')", old=str(third), new=str(tmp_path / "fourth"))
    assert CODE < set(hub.files("bob/again"))


def test_components_with_code_of_a_repository_are_saved_with_it(alice, bob, tmp_path):
    home, mixed = tmp_path / "home", tmp_path / "mixed"
    expected = alice.run(
        NEW_PIPELINE
        + SAMPLE
        + """
pipe.save_pretrained(home)
from diffusers import DiffusionPipeline
from diffusers_ext import ToyPipeline
part = DiffusionPipeline.from_pretrained(home, trust_remote_code=True).unet
assert type(part).__module__.startswith("diffusers_modules")
ToyPipeline(part, pipe.scheduler, pipe.guider).save_pretrained(mixed)
result = sample(pipe)
""",
        home=str(home),
        mixed=str(mixed),
    )
    assert contents(mixed) == contents(home)
    code = (
        SAMPLE + "import diffusers; pipe = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)"
    )
    assert bob.run(code + "\nresult = sample(pipe)", folder=str(mixed)) == expected


def test_a_trained_folder_is_published_without_the_traces_of_training(hub, alice, tmp_path):
    folder = tmp_path / "digits"
    alice.run(NEW_PIPELINE + "pipe.save_pretrained(folder)", folder=str(folder))
    traces = [
        "checkpoint-10/optimizer.bin",
        "checkpoint-10/model.safetensors",
        "logs/events",
        "metrics.jsonl",
        ".tmp-checkpoint-20/half",
        "unet/optimizer.pt",
        "unet/.cache.json.swp",
        "samples/step-10.png",
    ]
    for name in [*traces, "samples.png", "metrics.json", "training_config.yaml"]:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(name)
    commit = alice.run(
        """
from diffusers_ext import hub
hub.write_model_card(folder, title="Toy digits", pipeline_class="ToyPipeline", license="apache-2.0")
result = hub.publish_folder(folder, "digits", commit_message="Digits").oid
""",
        folder=str(folder),
    )
    assert commit == hub.repositories["alice/digits"].refs["main"]
    assert hub.repositories["alice/digits"].messages[-1] == "Digits"
    companions = {"README.md", "samples.png", "metrics.json", "training_config.yaml", ".gitattributes"}
    assert set(hub.files("alice/digits")) == CODE | REST | companions
    card = hub.files("alice/digits")["README.md"].decode()
    assert str(tmp_path) not in card and card.count('from_pretrained("alice/digits"') == 2
    assert str(tmp_path) in (folder / "README.md").read_text()

    again = alice.run(
        "from diffusers_ext import hub; result = hub.publish_folder(folder, 'digits').oid", folder=str(folder)
    )
    assert again == commit, "an unchanged folder makes no commit"


def test_a_folder_that_nobody_could_load_is_not_published(hub, alice, tmp_path):
    publish = "from diffusers_ext import hub; hub.publish_folder(folder, 'alice/refused')"
    with pytest.raises(UserError, match="has no model_index.json"):
        alice.run(publish, folder=str(tmp_path))
    alice.run(NEW_PIPELINE + "pipe.save_pretrained(folder)", folder=str(tmp_path))
    index = json.loads((tmp_path / "model_index.json").read_text())
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "unet": ["my.script", "Net"]}))
    with pytest.raises(UserError, match="its `unet` is Net of my.script, a module that readers don't have"):
        alice.run(publish, folder=str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    weights = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(UserError, match="weights of `unet` are not safetensors"):
        alice.run(publish, folder=str(tmp_path))
    assert "alice/refused" not in hub.repositories


def test_parts_of_pipelines_are_published(hub, alice, tmp_path):
    for name in ("pytorch_lora_weights.safetensors", "LICENSE", "checkpoint-1.safetensors", "notes.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "pytorch_lora_weights.safetensors").write_text("older")
    alice.run("from diffusers_ext import hub; hub.publish_folder(folder, 'alice/lora')", folder=str(tmp_path))
    assert set(hub.files("alice/lora")) - {".gitattributes"} == {"pytorch_lora_weights.safetensors", "LICENSE"}


def test_saving_can_publish(hub, alice, tmp_path):
    folder = tmp_path / "saved"
    alice.run(
        NEW_PIPELINE + "pipe.save_pretrained(folder, push_to_hub=True, private=True, commit_message='Both')",
        folder=str(folder),
    )
    repository = hub.repositories["alice/saved"]
    assert repository.private and repository.messages[-1] == "Both"
    assert REST | CODE < set(hub.files("alice/saved"))
    with pytest.raises(UserError, match="safetensors only"):
        alice.run(NEW_PIPELINE + "pipe.push_to_hub('alice/pickled', safe_serialization=False)")


def test_the_card_of_the_repository_is_kept(hub, alice):
    push = NEW_PIPELINE + "pipe.push_to_hub('alice/kept')"
    alice.run(push)
    alice.run(
        "import huggingface_hub; huggingface_hub.upload_file("
        "path_or_fileobj=b'---\\nlicense: mit\\n---\\nmine', path_in_repo='README.md', repo_id='alice/kept')"
    )
    alice.run(push)
    assert hub.files("alice/kept")["README.md"].endswith(b"mine")


def test_private_repositories_need_the_token_of_their_owner(hub, alice, bob):
    alice.run(NEW_PIPELINE + "pipe.push_to_hub('alice/secret', private=True)")
    # Diffusers does not pass a `token` on to the download of the code: who reads it without the package logs in.
    load = """
import os
from diffusers import DiffusionPipeline
own_token = os.environ["HF_TOKEN"]
try:
    os.environ["HF_TOKEN"] = token
    DiffusionPipeline.from_pretrained("alice/secret", trust_remote_code=True)
finally:
    os.environ["HF_TOKEN"] = own_token
"""
    with pytest.raises(UserError, match="Cannot load model alice/secret"):
        bob.run(load, token="hf_bob")
    bob.run(load, token="hf_alice")
    load = "from diffusers_ext import ToyPipeline; ToyPipeline.from_pretrained('alice/secret', **options)"
    with pytest.raises(UserError, match="Repository Not Found"):
        alice.run(load, options={"token": "hf_bob"})
    alice.run(load, options={})
    with pytest.raises(UserError, match="403"):
        alice.run(NEW_PIPELINE + "pipe.push_to_hub('alice/secret', token='hf_bob')")


def test_variants_and_shards_on_the_hub(hub, alice, bob):
    alice.run(
        NEW_PIPELINE
        + """
pipe.save_pretrained(folder, max_shard_size=40, push_to_hub=True, repo_id="alice/variants")
pipe.to(torch.float16).push_to_hub("alice/variants", variant="fp16")
""",
        folder=str(alice.cache.parent / "variants"),
    )
    weights = {name for name in hub.files("alice/variants") if "diffusion_pytorch_model" in name}
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    assert half in weights and "unet/diffusion_pytorch_model.safetensors.index.json" in weights and len(weights) > 3

    load = """
import torch
from diffusers_ext import ToyPipeline
pipe = ToyPipeline.from_pretrained("alice/variants", variant=variant, dtype=getattr(torch, dtype))
result = str(pipe.unet.dtype)
"""
    assert alice.run(load, variant="fp16", dtype="float16") == "torch.float16"
    assert hub.downloaded("alice/variants") & weights == {half}
    assert alice.run(load, variant=None, dtype="float32") == "torch.float32"
    assert hub.downloaded("alice/variants") & weights == weights
    assert "fp16" in bob.run(
        """
from diffusers import DiffusionPipeline
DiffusionPipeline.from_pretrained("alice/variants", variant="fp16", trust_remote_code=True)
result = "fp16"
"""
    )

    alice.run(NEW_PIPELINE + "pipe.push_to_hub('alice/variants')")
    assert {name for name in hub.files("alice/variants") if "diffusion_pytorch_model" in name} == {
        half,
        "unet/diffusion_pytorch_model.safetensors",
    }


def test_revisions_pull_requests_and_the_cache(hub, alice):
    alice.run(NEW_PIPELINE + SAMPLE + "pipe.push_to_hub('alice/revised')")
    alice.run("import huggingface_hub; huggingface_hub.create_tag('alice/revised', tag='v1')")
    old, new, pr = alice.run(
        NEW_PIPELINE
        + SAMPLE
        + """
old = sample(pipe)
torch.nn.init.ones_(pipe.unet.conv.weight)
pull_request = pipe.push_to_hub("alice/revised", create_pr=True)
from diffusers_ext import ToyPipeline
assert sample(ToyPipeline.from_pretrained("alice/revised")) == old
pipe.push_to_hub("alice/revised")
result = old, sample(pipe), pull_request.pr_revision
"""
    )
    assert old != new and pr == "refs/pr/1"
    load = (
        SAMPLE
        + """
from diffusers_ext import ToyPipeline
result = sample(ToyPipeline.from_pretrained("alice/revised", **options))
"""
    )
    assert alice.run(load, options={"revision": "v1"}) == old
    assert alice.run(load, options={}) == new
    requests = len(hub.requests)
    assert alice.run(load, options={"local_files_only": True}) == new
    assert alice.run(load, options={"revision": "v1", "local_files_only": True}) == old
    assert len(hub.requests) == requests
    with pytest.raises(UserError, match="v2"):
        alice.run(load, options={"revision": "v2"})


def test_passed_components_are_not_downloaded(hub, alice):
    alice.run(NEW_PIPELINE + "pipe.push_to_hub('alice/partly')")
    alice.run(NEW_PIPELINE + "diffusers_ext.ToyPipeline.from_pretrained('alice/partly', unet=pipe.unet, guider=None)")
    assert hub.downloaded("alice/partly") == {"model_index.json", "scheduler/scheduler_config.json"}


def test_repositories_that_cannot_be_loaded_say_why(hub, alice):
    load = "from diffusers_ext import ToyPipeline; ToyPipeline.from_pretrained(name)"
    with pytest.raises(UserError, match="Repository Not Found"):
        alice.run(load, name="alice/nowhere")
    alice.run("import huggingface_hub; huggingface_hub.create_repo('alice/empty')")
    with pytest.raises(
        UserError, match="alice/empty can't be loaded as a pipeline, because it has no model_index.json"
    ):
        alice.run(load, name="alice/empty")
    alice.run(
        NEW_PIPELINE
        + """
import json, os
pipe.save_pretrained(folder)
index = json.load(open(folder + "/model_index.json"))
json.dump({**index, "unet": ["modeling_of_tomorrow", "Tomorrow"]}, open(folder + "/model_index.json", "w"))
os.rename(folder + "/unet/modeling_toy.py", folder + "/unet/modeling_of_tomorrow.py")
hub.publish_folder(folder, "alice/tomorrow")
""",
        folder=str(alice.cache.parent / "tomorrow"),
    )
    with pytest.raises(UserError, match="wants Tomorrow of modeling_of_tomorrow as `unet`, which diffusers_ext"):
        alice.run(load, name="alice/tomorrow")


def test_our_components_load_in_pipelines_of_diffusers(hub, alice):
    assert alice.run(
        """
from diffusers import DDPMPipeline, DiffusionPipeline, UNet2DModel
from diffusers_ext import ToyScheduler
blocks = {"block_out_channels": (32,), "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
DDPMPipeline(UNet2DModel(8, 1, 1, **blocks), ToyScheduler(beta_end=0.01)).push_to_hub("alice/stock")
pipe = DiffusionPipeline.from_pretrained("alice/stock")
result = [type(pipe).__name__, type(pipe.scheduler) is ToyScheduler, pipe.scheduler.config.beta_end]
"""
    ) == ["DDPMPipeline", True, 0.01]


def test_the_class_conditional_pipeline(hub, alice, bob, tmp_path):
    expected = alice.run(
        """
import torch
from diffusers import ClassifierFreeGuidance, DDIMScheduler, UNet2DModel
from diffusers_ext import ClassConditionalPipeline
torch.manual_seed(0)
unet = UNet2DModel(
    8, 1, 1, block_out_channels=(32, 32), down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2,
    layers_per_block=1, norm_num_groups=8, num_class_embeds=4,
)
pipe = ClassConditionalPipeline(
    unet, DDIMScheduler(), ClassifierFreeGuidance(guidance_scale=2.0), id2label={0: "zero", 1: "one", 2: "two"},
    null_class_label=3, default_num_inference_steps=2,
)
pipe.push_to_hub("alice/digits-pipeline")
result = pipe(["one", 2], output_type="np", generator=torch.Generator().manual_seed(0)).images.tolist()
"""
    )
    files = {name for name in hub.files("alice/digits-pipeline") if name.endswith(".py")}
    assert files == {"pipeline_class_conditional.py"}
    call = """
import torch
pipe.set_progress_bar_config(disable=True)
images = pipe(["one", 2], output_type="np", generator=torch.Generator().manual_seed(0)).images.tolist()
result = [type(pipe).__module__, images]
"""
    load = """
from diffusers_ext import ClassConditionalPipeline
pipe = ClassConditionalPipeline.from_pretrained("alice/digits-pipeline")
pipe.save_pretrained(folder)
"""
    assert alice.run(load + call, folder=str(tmp_path)) == ["diffusers_ext.pipelines", expected]
    load = """
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained(address, trust_remote_code=True)
"""
    module = "diffusers_modules.local.pipeline_class_conditional"
    assert bob.run(load + call, address="alice/digits-pipeline") == [module, expected]
    assert bob.run(load + call, address=str(tmp_path)) == [module, expected]


def test_the_code_in_the_card_runs(hub, alice, bob, tmp_path):
    alice.run(
        NEW_PIPELINE
        + """
pipe.save_pretrained(folder)
usage = "images = pipe([0, 1], num_inference_steps=3).images"
hub.write_model_card(folder, title="Card", pipeline_class="ToyPipeline", usage=usage)
hub.publish_folder(folder, "alice/card")
""",
        folder=str(tmp_path),
    )
    shutil.rmtree(tmp_path)
    with_package, without = re.findall(
        r"```python\n(.*?)```", hub.files("alice/card")["README.md"].decode(), re.DOTALL
    )
    assert alice.run(with_package + "result = list(images.shape)") == [2, 1, 4, 4]
    assert bob.run(without + "result = list(images.shape)") == [2, 1, 4, 4]
