"""The optimizer and the learning rate of each network."""

import warnings

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from diffusers.optimization import get_scheduler
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_wsd_schedule

from diffusers_ext.training.loop.configuration import TrainingConfig
from diffusers_ext.training.loop.flat_adamw import FlatAdamW


# Elsewhere Accelerate replaces the parameters by its own, as sharding (FSDP, DeepSpeed) and fp8 do.
KEEPS_PARAMETERS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def build_optimizer(
    network: torch.nn.Module, config: TrainingConfig, accelerator: Accelerator
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) over the parameters that require gradients.

    It is a [`~diffusers_ext.training.loop.flat_adamw.FlatAdamW`] wherever `accelerator` keeps the parameters as they
    are; then the network moves to its device. The state is the same in either case. Or it is that of bitsandbytes,
    with its state in 8 bits.

    Raises:
        ImportError: if that is asked for and bitsandbytes is not installed.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    options = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "weight_decay": config.adam_weight_decay,
        "eps": config.adam_epsilon,
    }
    if config.use_8bit_adam:
        return _adamw_8bit(parameters, options)
    keeps = accelerator.distributed_type in KEEPS_PARAMETERS and accelerator.mixed_precision != "fp8"
    one_dtype = len({parameter.dtype for parameter in parameters}) == 1
    optimizer_class = FlatAdamW if keeps and one_dtype else torch.optim.AdamW
    if optimizer_class is FlatAdamW:
        # Moving the parameters later would tear them out of the flat tensor.
        network.to(accelerator.device)
    return optimizer_class(parameters, fused=True, **options)


def _adamw_8bit(parameters: list[torch.nn.Parameter], options: dict) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ImportError("--use_8bit_adam needs bitsandbytes: pip install bitsandbytes.") from error
    return AdamW8bit(parameters, **options)


def build_lr_scheduler(optimizer: torch.optim.Optimizer, config: TrainingConfig, max_train_steps: int) -> LambdaLR:
    """The learning rate as a function of the step.

    It is stepped once per step, and not prepared by Accelerate: so warm-up and decay last as many steps as the options
    say, under any number of processes and accumulation steps, and whether or not each step updates the network.

    Raises:
        ValueError: if there are fewer steps than those that warm-up and decay take.
    """
    # PyTorch would take a network that the first step leaves alone for a mistake.
    warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step")
    if config.lr_scheduler == "warmup_stable_decay":  # diffusers has none
        return _build_warmup_stable_decay(optimizer, config, max_train_steps)
    return get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=max_train_steps,
        num_cycles=config.lr_num_cycles,
        power=config.lr_power,
    )


def _build_warmup_stable_decay(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, max_train_steps: int
) -> LambdaLR:
    decay_steps = max_train_steps // 2 if config.lr_decay_steps is None else config.lr_decay_steps
    if config.lr_warmup_steps + decay_steps > max_train_steps:
        raise ValueError(
            f"--lr_warmup_steps {config.lr_warmup_steps} and --lr_decay_steps {decay_steps} must be at most the "
            f"{max_train_steps} steps of the training together."
        )
    return get_wsd_schedule(
        optimizer, config.lr_warmup_steps, decay_steps, num_training_steps=max_train_steps, decay_type="linear"
    )
