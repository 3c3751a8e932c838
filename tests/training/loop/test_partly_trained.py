"""A network of which only some weights are trained: averages and checkpoints hold those."""

import torch
from safetensors.torch import load_file

from diffusers_ext.training.loop.configuration import parse_config
from tests.training.loop.test_several_networks import arguments
from tests.training.pair_recipe import Convolutions, PairConfig, PairRecipe
from tests.training.runs import steps, trainer


class PartlyTrained(PairRecipe):
    """The critic's first convolution stays as it is."""

    def networks(self):
        networks = {"player": Convolutions(), "critic": Convolutions()}
        networks["critic"].first.requires_grad_(False)
        return networks

    def averaged(self, names):
        return names


def build(output_dir, **changes):
    return trainer(PartlyTrained, parse_config(PairConfig, arguments(output_dir, **changes)))


def test_frozen_weights_are_neither_trained_nor_kept(tmp_path):
    trainer = build(tmp_path)
    frozen = trainer.networks["critic"].first.weight.detach().clone()
    trained = trainer.networks["critic"].second.weight.detach().clone()
    steps(trainer, 1)
    trainer._started = 0.0
    trainer._save()
    assert torch.equal(trainer.networks["critic"].first.weight, frozen)
    assert not torch.equal(trainer.networks["critic"].second.weight, trained)
    for name in ("critic", "critic_ema"):
        assert load_file(tmp_path / "checkpoint-1" / f"{name}.safetensors").keys() == {"second.weight", "second.bias"}

    resumed = build(tmp_path, resume_from_checkpoint="latest")
    assert torch.equal(resumed.networks["critic"].first.weight, frozen)
    assert torch.equal(resumed.networks["critic"].second.weight, trainer.networks["critic"].second.weight)
