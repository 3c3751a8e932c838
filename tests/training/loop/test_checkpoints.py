"""Checkpoints that are damaged or of an earlier version, and options that are changed when a run is continued."""

import json
import logging
import shutil

import pytest
import torch

from tests.training.runs import records, tensors
from tests.training.small_run import small_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    small_run(folder).train()
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


FILES = ["training_state.json", "player.safetensors", "critic.safetensors", "player_ema.safetensors", "optimizer.bin"]
FILES += ["optimizer_1.bin", "random_states_0.pkl"]


def test_a_checkpoint_has_these_files(finished):
    assert sorted(path.name for path in (finished / "checkpoint-6").iterdir()) == sorted(
        [*FILES, "recipe_state.safetensors"]
    )


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_latest_falls_back_to_the_one_before(copied, file, caplog):
    flip_a_bit(copied / "checkpoint-6" / file)
    with pytest.raises(ValueError, match=f"checkpoint-6 can't be read .*{file}|checkpoint-6 can't be read .*JSON"):
        small_run(copied, resume_from_checkpoint="checkpoint-6")
    with caplog.at_level(logging.WARNING):
        continued = small_run(copied, resume_from_checkpoint="latest")
    assert continued.step == 4
    assert f"{copied / 'checkpoint-6'} is damaged" in caplog.text and "trying the checkpoint before it" in caplog.text
    (earlier,) = (copied / "earlier-runs").iterdir()
    assert (earlier / "checkpoint-6" / file).is_file()


def test_if_all_are_damaged_nothing_is_started_anew(copied):
    for step in (2, 4, 6):
        (copied / f"checkpoint-{step}" / "critic.safetensors").unlink()
    with pytest.raises(ValueError, match="critic.safetensors is missing.*or leave this out to start anew"):
        small_run(copied, resume_from_checkpoint="latest")
    assert (copied / "checkpoint-6").is_dir()


@pytest.mark.parametrize("entry", ["samples_seen", "identity", "step", "training_seconds"])
def test_a_state_that_lacks_an_entry_is_damaged(copied, entry):
    file = copied / "checkpoint-6" / "training_state.json"
    state = json.loads(file.read_text())
    del state[entry], state["sha256"]
    file.write_text(json.dumps(state))
    with pytest.raises(ValueError, match=f"checkpoint-6 can't be read .*has no {entry}"):
        small_run(copied, resume_from_checkpoint="checkpoint-6")


def test_a_checkpoint_of_an_earlier_version_is_continued(copied, finished):
    file = copied / "checkpoint-4" / "training_state.json"
    state = json.loads(file.read_text())
    del state["sha256"], state["files"]
    file.write_text(json.dumps({**state, "lr_schedulers": {}}))
    small_run(copied, resume_from_checkpoint="checkpoint-4").train()
    found, expected = tensors(copied, 6), tensors(finished, 6)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert records(copied) == records(finished)


def test_other_options_of_the_optimizer_are_used(copied, caplog):
    options = {"adam_beta1": 0.5, "adam_beta2": 0.9, "adam_epsilon": 1e-6, "adam_weight_decay": 0.1}
    with caplog.at_level(logging.WARNING):
        continued = small_run(
            copied, resume_from_checkpoint="checkpoint-4", learning_rate=2e-3, lr_scheduler="constant", **options
        )
    for name, rate in (("player", 2e-3), ("critic", 4e-3)):
        (group,) = continued.optimizers[name].param_groups
        found = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}
        assert found == {"lr": rate, "betas": (0.5, 0.9), "eps": 1e-6, "weight_decay": 0.1}
        assert f"{name} continues with betas (0.5, 0.9), and had (0.9, 0.999) before" in caplog.text
        assert f"{name} continues with lr {rate}, and had {rate / 2} before" in caplog.text
        assert continued.optimizers[name].state_dict()["state"]  # the moments are those of the checkpoint
    continued.train()
    assert [(line["player_lr"], line["critic_lr"]) for line in records(copied)[4:]] == [(2e-3, 4e-3)] * 2


def test_equal_options_are_not_worth_a_message(copied, caplog):
    with caplog.at_level(logging.WARNING):
        small_run(copied, resume_from_checkpoint="latest")
    assert "continues with" not in caplog.text


@pytest.mark.parametrize("schedule", ["cosine", "warmup_stable_decay"])
def test_a_finished_run_is_continued_with_the_rates_of_the_longer_run(tmp_path, schedule):
    options = {"lr_scheduler": schedule, "checkpointing_steps": 100}
    small_run(tmp_path / "short", **options).train()
    options["max_train_steps"] = 12
    small_run(tmp_path / "short", resume_from_checkpoint="latest", **options).train()
    small_run(tmp_path / "long", **options).train()
    rates, expected = ([line["player_lr"] for line in records(tmp_path / name)] for name in ("short", "long"))
    assert rates[6:] == expected[6:] and min(rates[6:11]) > 0


def test_a_file_of_the_user_stays_in_a_whole_run(tmp_path):
    mine = {name: f"my {name}" for name in ("README.md", "samples.png", "metrics.json", "training_config.yaml")}
    mine |= {".tmp-letters": "letter", ".old-letters": "letter"}
    for name, content in mine.items():
        (tmp_path / name).write_text(content)
    for _ in range(2):
        small_run(tmp_path, max_train_steps=2).train()
    assert {name: (tmp_path / name).read_text() for name in mine} == mine
    assert json.loads((tmp_path / "metrics-2.json").read_text())["step"] == 2
    assert "<!-- loading" in (tmp_path / "README-2.md").read_text()
    assert not list(tmp_path.glob("*-3.*"))
