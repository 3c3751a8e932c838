"""The learning rate of a denoiser where no option gives one: by its size, recorded, and kept by a resumed run."""

import pytest
import torch
import yaml

from diffusers_ext.training.diffusion.learning_rates import default_learning_rate
from diffusers_ext.training.loop.configuration import parse_config
from diffusers_ext.training.loop.optimizers import build_lr_scheduler
from diffusers_ext.training.train_diffusion import DiffusionConfig, DiffusionRecipe
from tests.training.runs import arguments, records, tensors, trainer


def network(weights: int) -> torch.nn.Module:
    return torch.nn.Linear(weights, 1, bias=False, device="meta")


@pytest.mark.parametrize(("weights", "rate"), [(1_000, 2e-3), (1_000_000, 1e-3), (36_000_000, 1.7e-4), (10**9, 1e-4)])
def test_larger_networks_have_lower_rates(weights, rate):
    assert default_learning_rate(network(weights)) == pytest.approx(rate)


def test_a_pretrained_network_is_changed_slowly():
    assert default_learning_rate(network(1_000), pretrained=True) == 1e-4


def test_the_warm_up_is_a_share_of_the_training():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    config = DiffusionConfig(dataset_name="digits")
    for steps, warmup in ((4, 0), (100, 5), (10**6, 500)):
        scheduler = build_lr_scheduler(optimizer, config, steps)
        rates = [scheduler.lr_lambdas[0](step) for step in range(warmup + 1)]
        assert rates == [pytest.approx(step / max(warmup, 1)) for step in range(warmup)] + [pytest.approx(1)]


def run(folder, **options):
    left_out = ("--learning_rate", "--lr_warmup_steps", "--lr_scheduler", "--max_train_steps")
    command = [argument for argument in arguments(folder, **options) if not argument.startswith(left_out)]
    config = parse_config(DiffusionConfig, [*command, "--max_train_steps=4"])
    started = trainer(DiffusionRecipe, config)
    assert started.train()
    return started


def test_the_results_say_the_rate_and_a_resumed_run_keeps_it(tmp_path):
    rate = run(tmp_path / "whole", checkpointing_steps=2).recipe.config.learning_rate
    assert rate == 2e-3
    assert yaml.safe_load((tmp_path / "whole" / "training_config.yaml").read_text())["learning_rate"] == rate
    lines = [line for line in records(tmp_path / "whole") if "lr" in line]
    assert max(line["lr"] for line in lines) == pytest.approx(rate)
    whole = tensors(tmp_path / "whole", 4)
    run(tmp_path / "whole", checkpointing_steps=2, resume_from_checkpoint="checkpoint-2")
    resumed = tensors(tmp_path / "whole", 4)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    again = [line["lr"] for line in records(tmp_path / "whole") if "lr" in line]
    assert again == [line["lr"] for line in lines]
