"""`python -m diffusers_ext.demo`: its options, and what it refuses in one sentence."""

import ast
import subprocess
import sys

import pytest
import yaml

from diffusers_ext.demo.__main__ import main
from diffusers_ext.demo.controls import MAX_IMAGE_PIXELS
from diffusers_ext.demo.loading import load_pipeline
from diffusers_ext.demo.panel import Limits
from diffusers_ext.demo.space import write_space
from tests.demo import kinds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved pipeline."""
    folder = tmp_path_factory.mktemp("saved") / "toy gan"
    kinds.make("gan of classes").save_pretrained(folder)
    return folder


def refusal(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = """
import sys
from diffusers_ext.demo.__main__ import main
try:
    main(["--help"])
except SystemExit:
    print(*{name.split(".")[0] for name in sys.modules})
"""
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "--push_to_hub NAME" in output
    assert not {"torch", "diffusers", "gradio", "PIL", "numpy", "huggingface_hub"} & set(output.split())


def test_without_gradio_one_sentence_says_so(capsys, monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert refusal(capsys, folder) == 'error: The demo needs Gradio: pip install "diffusers_ext[demo]".\n'


def test_options_that_can_not_be(capsys, folder, tmp_path):
    pytest.importorskip("gradio")
    file = tmp_path / "model.safetensors"
    file.touch()
    assert "--max_images must be at least 1, but is 0" in refusal(capsys, folder, "--max_images", 0)
    assert "--private is for --push_to_hub" in refusal(capsys, folder, "--private")
    assert "is no pipeline, or its training has not finished" in refusal(capsys, tmp_path)
    assert "is a single file" in refusal(capsys, file)
    assert "exists and is not an empty folder" in refusal(capsys, folder, "--space", tmp_path)


def test_defaults_are_those_of_the_classes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for value in (Limits().images, Limits().side, Limits().image_pixels, Limits().file_size, MAX_IMAGE_PIXELS):
        assert f"(default: {value})" in " ".join(text.split())


def test_code_of_a_repository_is_not_run(folder, tmp_path):
    foreign = tmp_path / "foreign"
    kinds.make("gan").save_pretrained(foreign)
    index = (foreign / "model_index.json").read_text()
    (foreign / "model_index.json").write_text(index.replace("GANPipeline", "ForeignPipeline"))
    with pytest.raises(ValueError, match="the demo runs no code of repositories: update diffusers_ext"):
        load_pipeline(str(foreign))


def test_a_space_of_a_folder_contains_the_pipeline(folder, tmp_path):
    pytest.importorskip("gradio")
    space = write_space(folder, tmp_path / "space", title='Toys "r" us')
    names = {path.relative_to(space).as_posix() for path in space.rglob("*") if path.is_file()}
    pipeline = {name for name in names if name.startswith("pipeline/")}
    assert names - pipeline == {"app.py", "requirements.txt", "README.md"}
    assert {"pipeline/model_index.json", "pipeline/generator/diffusion_pytorch_model.safetensors"} <= pipeline
    assert type(load_pipeline(str(space / "pipeline"))).__name__ == "GANPipeline"

    app = (space / "app.py").read_text()
    ast.parse(app)
    assert "load_pipeline('pipeline')" in app and str(folder) not in app
    settings = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert settings["title"] == 'Toys "r" us' and settings["sdk"] == "gradio" and settings["app_file"] == "app.py"
    assert (space / "requirements.txt").read_text().startswith("diffusers_ext[demo]==")
