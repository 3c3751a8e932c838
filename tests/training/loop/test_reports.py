"""Values are read once for several steps, and nothing that they tell is lost or late."""

import math
import os
import signal

import pytest

from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.loop.reports import Reports
from diffusers_ext.training.loop.trainer import NonFiniteLossError
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
from tests.training.runs import arguments, records, trainer
from tests.waits import waits_of_an_update


OBJECTIVES = {
    "flow": {},
    "logit-normal": {"timestep_sampling": "logit_normal", "gradient_accumulation_steps": 2},
    "edm": {"prediction_type": "edm"},
    "learned variance": {"prediction_type": "epsilon", "variance_type": "learned_range"},
    "min-SNR": {"prediction_type": "v_prediction", "loss_weighting": "min_snr", "posthoc_ema_stds": 0.1},
}


def diffusion(output_dir, **options):
    config = parse_config(DiffusionConfig, arguments(output_dir, **options))
    return trainer(DiffusionRecipe, config, gradient_accumulation_steps=config.gradient_accumulation_steps)


@pytest.mark.parametrize("options", OBJECTIVES.values(), ids=OBJECTIVES)
def test_an_update_waits_for_no_device(tmp_path, options):
    assert not waits_of_an_update(diffusion(tmp_path, **options))


@pytest.fixture
def reads(monkeypatch) -> list[int]:
    """The number of steps of each reading."""
    counts = []

    def read(self, *arguments):
        found = original(self, *arguments)
        counts.append(len(found[0]))
        return found

    original = Reports.read
    monkeypatch.setattr(Reports, "read", read)
    return counts


def test_steps_are_read_together_and_logged_as_before(tmp_path, reads):
    each, together = tmp_path / "each", tmp_path / "together"
    assert diffusion(each, max_train_steps=10, checkpointing_steps=100).train()
    assert reads == [1] * 10
    reads.clear()
    assert diffusion(together, max_train_steps=10, checkpointing_steps=100, logging_steps=4).train()
    assert reads == [4, 4, 2]
    lines = {line["step"]: line for line in records(each)}
    assert records(together) == [line for line in records(each) if line["step"] in (4, 8) or "evaluation" in line]
    assert lines.keys() == set(range(1, 11))


def test_a_checkpoint_is_read_before_it_is_written(tmp_path, reads):
    assert diffusion(tmp_path, max_train_steps=7, checkpointing_steps=3, logging_steps=100).train()
    assert reads == [3, 3, 1]


def test_a_loss_that_is_not_finite_is_found_in_its_step(tmp_path):
    run = diffusion(tmp_path, max_train_steps=12, checkpointing_steps=5, logging_steps=100)
    step = run.recipe.step

    def spoiled(batch, draw):
        if draw.step == 6:
            batch = {**batch, "pixel_values": batch["pixel_values"] * math.nan}
        step(batch, draw)

    run.recipe.step = spoiled
    with pytest.raises(NonFiniteLossError, match=r"is nan at step 7; the last good checkpoint is .*checkpoint-5"):
        run.train()
    assert [path.name for path in run.checkpoints.saved()] == ["checkpoint-5"]


def test_a_request_to_stop_does_not_wait_for_the_next_log_line(tmp_path):
    run = diffusion(tmp_path, max_train_steps=50, checkpointing_steps=50, logging_steps=50)
    step = run.recipe.step

    def stopped(batch, draw):
        step(batch, draw)
        if draw.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    run.recipe.step = stopped
    assert not run.train()
    assert [path.name for path in run.checkpoints.saved()] == ["checkpoint-3"]
