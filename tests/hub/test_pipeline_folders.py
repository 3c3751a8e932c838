import pytest

from diffusers_ext.hub.pipeline_folders import refuse_single_file
from diffusers_ext.pipelines import GANPipeline
from diffusers_ext.training.evaluation.pipeline_classes import find_pipeline_class


@pytest.mark.parametrize(
    "load", [refuse_single_file, GANPipeline.from_pretrained, lambda file: find_pipeline_class(str(file), None)]
)
def test_a_file_is_no_pipeline(tmp_path, load):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is a single file, but a folder or a repository of the Hub is needed"):
        load(file)


def test_folders_and_names_are_accepted(tmp_path):
    refuse_single_file(tmp_path)
    refuse_single_file("user/name")
