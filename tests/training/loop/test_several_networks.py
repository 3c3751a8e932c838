"""Recipes of several networks: each loss trains one of them, on one process or more, and a resumed run is the same."""

import subprocess
import sys

import pytest
import torch

from diffusers_ext.training.loop.configuration import parse_config
from tests.training.pair_recipe import PairConfig, PairRecipe
from tests.training.runs import environment, records, tensors, trainer, weights


STEPS = 6


def arguments(output_dir, **changes):
    shape = {"dataset_name": "digits", "resolution": 8, "channels": 1, "output_dir": str(output_dir)}
    training = {"train_batch_size": 8, "max_train_steps": STEPS, "learning_rate": 1e-2, "lr_scheduler": "linear"}
    options = {**shape, **training, "lr_warmup_steps": 0, "checkpointing_steps": 1, **changes}
    return [f"--{name}={value}" for name, value in options.items()]


def pair(output_dir, **changes):
    return trainer(PairRecipe, parse_config(PairConfig, arguments(output_dir, **changes)))


def followed_steps(trainer, count):
    """The values and the weights of both networks after each of the first steps."""
    trainer.start()
    for _ in range(count):
        trainer.update()
        [(_, values)], *_ = trainer.reports.read()
        yield values, {name: weights(network) for name, network in trainer.networks.items()}


def test_each_loss_trains_its_network_alone(tmp_path):
    both = pair(tmp_path)
    start = {name: weights(network) for name, network in both.networks.items()}
    average = both.averages["player"].averages["first.weight"].clone()
    (first, after_first), (second, after_second) = followed_steps(both, 2)
    assert torch.equal(after_first["player"], start["player"])
    assert not torch.equal(after_first["critic"], start["critic"])
    assert not torch.equal(after_second["player"], start["player"])
    assert "player_loss" not in first and second["player_grad_norm"] > 0
    assert not torch.equal(both.averages["player"].averages["first.weight"], average)


def test_a_loss_of_one_network_leaves_the_gradients_of_others_at_zero(tmp_path):
    both = pair(tmp_path)
    _ = list(followed_steps(both, 2))  # the second step ends with a loss of the player, through the critic
    assert all(not parameter.grad.any() for parameter in both.networks["critic"].parameters())


def test_networks_have_learning_rates_of_their_own_which_follow_the_steps(tmp_path):
    rates = [(values["player_lr"], values["critic_lr"]) for values, _ in followed_steps(pair(tmp_path), 3)]
    for step, (player, critic) in enumerate(rates):
        assert player == pytest.approx(1e-2 * (1 - step / STEPS))
        assert critic == pytest.approx(2 * player)


def test_only_what_the_recipe_names_is_averaged(tmp_path):
    assert list(pair(tmp_path).averages) == ["player"]


def test_an_average_rests_while_its_network_does(tmp_path):
    both = pair(tmp_path, steps_per_player=100)
    average = both.averages["player"].averages["first.weight"].clone()
    _ = list(followed_steps(both, 3))
    assert torch.equal(both.averages["player"].averages["first.weight"], average)


def test_fp16_with_accumulation_is_refused(tmp_path):
    with pytest.raises(ValueError, match="player, critic can't accumulate gradients in fp16"):
        pair(tmp_path, mixed_precision="fp16", gradient_accumulation_steps=2)


def launch(output_dir, processes=1, **changes):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += ["-m", "tests.training.pair_recipe", *arguments(output_dir, **changes)]
    # The recipe has no pipeline: the run ends with an error there, after the training and its last checkpoint.
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=1800)
    assert "NotImplementedError" in ended.stderr, ended.stderr
    return tensors(output_dir, STEPS)


@pytest.mark.slow
def test_two_processes_follow_one(tmp_path):
    expected = launch(tmp_path / "one")
    found = launch(tmp_path / "two", 2, train_batch_size=4)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    lines = [records(tmp_path / name) for name in ("one", "two")]
    for line, other in zip(*lines, strict=True):
        assert line["critic_loss"] == pytest.approx(other["critic_loss"], rel=1e-5)


def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path):
    whole = pair(tmp_path / "whole")
    *_, (_, expected) = followed_steps(whole, STEPS)
    stopped = pair(tmp_path / "stopped")
    _ = list(followed_steps(stopped, 3))
    stopped._started = 0.0
    stopped._save()
    resumed = pair(tmp_path / "stopped", resume_from_checkpoint="latest")
    *_, (_, found) = followed_steps(resumed, STEPS - 3)
    assert resumed.step == STEPS
    for name in expected:
        assert torch.equal(found[name], expected[name])
    assert torch.equal(
        resumed.averages["player"].averages["second.bias"], whole.averages["player"].averages["second.bias"]
    )


class Together(PairRecipe):
    """Both networks lower one loss."""

    def step(self, batch, draw):
        loss = self.critic(self.player(draw.normal_like(batch["pixel_values"]))).square().flatten(1).mean(dim=1)
        self.minimise(("player", "critic"), loss)


def test_one_loss_can_train_several(tmp_path):
    both = trainer(Together, parse_config(PairConfig, arguments(tmp_path)))
    start = {name: weights(network) for name, network in both.networks.items()}
    ((values, after),) = followed_steps(both, 1)
    assert all(not torch.equal(after[name], start[name]) for name in start)
    assert values["player_grad_norm"] > 0 and values["critic_grad_norm"] > 0
    assert "player_loss" in values and "critic_loss" not in values
