"""A demo that is published as a Space."""

import pytest

from diffusers_ext import GANPipeline
from tests.hub.hub_user import UserError
from tests.pipelines.test_pipeline_gan import make_generator


pytest.importorskip("gradio", reason='a Space gets the version of Gradio: pip install "diffusers_ext[demo]"')
PUBLISH = "from diffusers_ext.demo.space import publish_space; result = publish_space(**arguments)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "toys"
    GANPipeline(make_generator()).save_pretrained(folder)
    return str(folder)


def test_a_folder_is_published_with_its_page(hub, alice, folder):
    address = alice.run(PUBLISH, arguments={"name_or_path": folder, "repo_id": "toys-demo"})
    assert address.endswith("/spaces/alice/toys-demo")
    files = hub.files("spaces/alice/toys-demo")
    assert {"app.py", "README.md", "requirements.txt", "pipeline/model_index.json"} <= set(files)
    assert not [name for name, content in files.items() if folder.encode() in content]


def test_a_space_of_a_repository_loads_it_from_there(hub, alice, folder):
    alice.run(f"import diffusers_ext; diffusers_ext.GANPipeline.from_pretrained({folder!r}).push_to_hub('alice/toys')")
    alice.run(PUBLISH, arguments={"name_or_path": folder, "repo_id": "alice/second"})
    alice.run(PUBLISH, arguments={"name_or_path": "alice/toys", "repo_id": "alice/second", "title": "Toys"})
    files = hub.files("spaces/alice/second")
    assert set(files) == {".gitattributes", "app.py", "README.md", "requirements.txt"}
    assert b"load_pipeline('alice/toys')" in files["app.py"] and b"- alice/toys" in files["README.md"]


def test_a_space_of_somebody_else_is_refused(hub, alice, folder):
    with pytest.raises(UserError, match="403|rights"):
        alice.run(PUBLISH, arguments={"name_or_path": folder, "repo_id": "bob/demo"})
    assert "spaces/bob/demo" not in hub.repositories
