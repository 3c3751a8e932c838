"""Publishing by a run: tried out before the training, and repeatable after it."""

import subprocess
import sys

import pytest

from tests.hub.hub_user import UserError
from tests.training.runs import arguments


PREPARE = """
from pathlib import Path
from diffusers_ext.training.loop.publication import Publication
publication = Publication(Path(folder), name, token=token, private=None)
publication.prepare()
"""


@pytest.mark.parametrize(("name", "token"), [("alice/refused", "hf_wrong"), ("bob/of-bob", None), ("x", "hf_wrong")])
def test_what_can_not_be_published_is_refused_before_the_training(hub, alice, bob, tmp_path, name, token):
    bob.run("import huggingface_hub; huggingface_hub.create_repo('bob/of-bob', exist_ok=True)")
    with pytest.raises(UserError) as error:
        alice.run(PREPARE, folder=str(tmp_path), name=name, token=token)
    sentence = str(error.value)
    assert f"ValueError: --push_to_hub: {name} can't be created or written to" in sentence
    assert "hf auth login" in sentence and "\n" not in sentence


def test_the_repository_is_there_before_the_training(hub, alice, tmp_path):
    alice.run(PREPARE, folder=str(tmp_path), name="prepared", token=None)
    assert "alice/prepared" in hub.repositories
    alice.run(PREPARE, folder=str(tmp_path), name="prepared", token=None)


def test_a_hub_that_fails_after_the_training_costs_nothing(hub, alice, tmp_path):
    (tmp_path / "pytorch_lora_weights.safetensors").write_text("weights")
    values = {"folder": str(tmp_path), "name": "alice/later", "token": None}
    alice.run(PREPARE, **values)
    hub.is_broken = True
    try:
        with pytest.raises(UserError) as error:
            alice.run(PREPARE, **values)
        assert "--push_to_hub: alice/later can't be created or written to (" in str(error.value)
        with pytest.raises(UserError) as error:
            alice.run(PREPARE.replace("publication.prepare()", "publication.publish()"), **values)
    finally:
        hub.is_broken = False
    sentence = str(error.value)
    assert f"PublicationError: The model in {tmp_path} is complete, but is not published (" in sentence
    assert "\n" not in sentence and (tmp_path / "pytorch_lora_weights.safetensors").read_text() == "weights"
    # The command in the sentence does it.
    command = sentence.partition("to publish it later: python -c ")[2].strip("'").replace("'\"'\"'", "'")
    alice.run(command)
    assert "pytorch_lora_weights.safetensors" in hub.files("alice/later")


RUN = """
import contextlib, io, os
from diffusers_ext.training.loop.command import run
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
login = os.environ.pop("HF_TOKEN")
if has_token:
    os.environ["HF_TOKEN"] = login
with contextlib.redirect_stderr(io.StringIO()) as said:
    try:
        run(DiffusionRecipe, DiffusionConfig, command_line)
    except SystemExit as stop:
        result = [stop.code, said.getvalue()]
    finally:
        os.environ["HF_TOKEN"] = login
"""


@pytest.mark.parametrize(("has_token", "status"), [(False, "401"), (True, "500")])
def test_a_run_that_can_not_be_published_ends_in_one_sentence_before_its_first_step(
    hub, alice, tmp_path, has_token, status
):
    """Without a token, and while the Hub fails."""
    options = arguments(tmp_path, max_train_steps=1, push_to_hub=True, hub_model_id="alice/never")
    hub.is_broken = status == "500"
    try:
        code, said = alice.run(RUN, command_line=options, has_token=has_token)
    finally:
        hub.is_broken = False
    sentence = said.splitlines()[-1]
    assert code == 2 and "Traceback" not in said and status in sentence and "hf auth login" in sentence
    assert sentence.startswith("error: --push_to_hub: alice/never can't be created or written to (")
    assert "alice/never" not in hub.repositories and not (tmp_path / "logs").exists()


@pytest.mark.slow
def test_no_network_is_one_sentence(tmp_path):
    values = f"folder, name, token = {str(tmp_path)!r}, 'alice/x', 'hf_x'\n"
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "", "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, "-c", values + PREPARE], env=environment, capture_output=True, text=True)
    assert found.stderr.splitlines()[-1].startswith(
        "ValueError: --push_to_hub: alice/x can't be created or written to"
    )
