"""The optimizer and the learning rate of each network."""

import torch
from diffusers.optimization import SchedulerType, get_scheduler
from torch.optim.lr_scheduler import LambdaLR

from diffusers_ext.training.configuration import TrainingConfig


def build_optimizer(parameters, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) over the parameters that require gradients."""
    return torch.optim.AdamW(
        [parameter for parameter in parameters if parameter.requires_grad],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.adam_weight_decay,
        eps=config.adam_epsilon,
        **{config.adam_implementation: True},
    )


def build_lr_scheduler(optimizer: torch.optim.Optimizer, config: TrainingConfig, max_train_steps: int) -> LambdaLR:
    """The learning rate as a function of the update.

    It is stepped once per update, and not prepared by Accelerate: so warm-up and decay last as many updates as
    the options say, under any number of processes and accumulation steps.

    Raises:
        ValueError: if diffusers has no schedule of that name.
    """
    names = [schedule.value for schedule in SchedulerType]
    if config.lr_scheduler not in names:
        raise ValueError(f"--lr_scheduler must be one of {', '.join(names)}, not {config.lr_scheduler}.")
    return get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=max_train_steps,
        num_cycles=config.lr_num_cycles,
        power=config.lr_power,
    )
