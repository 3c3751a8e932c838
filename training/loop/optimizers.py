"""The optimizer and the learning rate of each network."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from diffusers.optimization import get_scheduler
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_wsd_schedule

from diffusers_ext.training.loop.configuration import RunConfig
from diffusers_ext.training.loop.flat_adamw import FlatAdamW
from diffusers_ext.training.loop.gradient_bounds import bound_gradients, clip_gradient_values
from diffusers_ext.training.loop.sharding import is_sharding
from diffusers_ext.training.loop.weight_decay import decay_matrices


logger = logging.getLogger(__name__)

# Of the training, where a recipe's options leave the warm-up open.
WARMUP_SHARE, LONGEST_WARMUP = 0.05, 500

# With the others (FSDP, DeepSpeed), and with fp8, Accelerate replaces the parameters by its own.
KEEPS_PARAMETERS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def build_optimizer(
    network: torch.nn.Module, config: RunConfig, accelerator: Accelerator, decays_vectors: bool = True
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) over the parameters that require gradients.

    It is a [`~diffusers_ext.training.loop.flat_adamw.FlatAdamW`] wherever `accelerator` keeps the parameters as they
    are; then the network moves to its device. The saved state is the same in either case. With `--use_8bit_adam` it is
    the AdamW of bitsandbytes, which keeps its state in 8 bits.

    Args:
        network (`torch.nn.Module`): the network.
        config (`RunConfig`): the options of its optimizer.
        accelerator (`Accelerator`): the accelerator of the training.
        decays_vectors (`bool`): whether parameters of fewer than two dimensions decay too.

    Raises:
        ImportError: if `--use_8bit_adam` is given and bitsandbytes is not installed.
        ValueError: if `--use_8bit_adam` is given with FSDP.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    options = {
        "lr": config.learning_rate,
        "betas": (config.adam_beta1, config.adam_beta2),
        "weight_decay": config.adam_weight_decay if decays_vectors else 0.0,
        "eps": config.adam_epsilon,
    }
    optimizer = _new_optimizer(network, parameters, options, config, accelerator)
    if config.max_grad_value is not None:
        optimizer.register_step_pre_hook(lambda optimizer, *_: clip_gradient_values(optimizer, config.max_grad_value))
    if config.max_grad_rms is not None:
        optimizer.register_step_pre_hook(lambda optimizer, *_: bound_gradients(optimizer, config.max_grad_rms))
    if not decays_vectors and config.adam_weight_decay > 0:
        optimizer.register_step_pre_hook(lambda optimizer, *_: decay_matrices(optimizer, config.adam_weight_decay))
    return optimizer


def _new_optimizer(
    network: torch.nn.Module,
    parameters: list[torch.nn.Parameter],
    options: dict,
    config: RunConfig,
    accelerator: Accelerator,
) -> torch.optim.Optimizer:
    if config.use_8bit_adam:
        if is_sharding(accelerator):
            raise ValueError("FSDP can't divide the states of --use_8bit_adam among processes: leave it out.")
        return _adamw_8bit(parameters, options)
    keeps = accelerator.distributed_type in KEEPS_PARAMETERS and accelerator.mixed_precision != "fp8"
    one_dtype = len({parameter.dtype for parameter in parameters}) == 1
    if not (keeps and one_dtype):
        return torch.optim.AdamW(parameters, fused=True, **options)
    # Moved later, the parameters would no longer be views of the flat tensor.
    network.to(accelerator.device)
    return FlatAdamW(parameters, fused=True, **options)


@contextmanager
def keeping_options(optimizers: dict[str, torch.optim.Optimizer]) -> Iterator[None]:
    """In this context, states are loaded into optimizers, which keep their options: rates, betas, decay, epsilon.

    Args:
        optimizers (`dict`): the optimizers, by the name of their network.
    """
    own = {name: _options(optimizer) for name, optimizer in optimizers.items()}
    yield
    for name, optimizer in optimizers.items():
        for group, options, loaded in zip(optimizer.param_groups, own[name], _options(optimizer), strict=True):
            # The rate is a function of the step; the highest one is the option.
            for option in sorted(set(options) - {"lr"}):
                if option in loaded and loaded[option] != options[option]:
                    shown = "lr" if option == "initial_lr" else option
                    logger.warning(
                        f"{name} continues with {shown} {options[option]}, and had {loaded[option]} before."
                    )
            group.update(options)


def _options(optimizer: torch.optim.Optimizer) -> list[dict]:
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def _adamw_8bit(parameters: list[torch.nn.Parameter], options: dict) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ImportError("--use_8bit_adam needs bitsandbytes: pip install bitsandbytes.") from error
    return AdamW8bit(parameters, **options)


def build_lr_scheduler(optimizer: torch.optim.Optimizer, config: RunConfig, max_train_steps: int) -> LambdaLR:
    """The learning rate as a function of the step.

    It advances once per step and is not prepared by Accelerate. So warm-up and decay take as many steps as the options
    say, for any number of processes and accumulation steps, and also if some steps do not update the network. Without
    `lr_warmup_steps` the warm-up is a twentieth of the training, and at most 500 steps.

    Raises:
        ValueError: if warm-up and decay take more steps than the training has.
    """
    # PyTorch warns if the first step does not update a network, which is no mistake here.
    warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler\.step\(\)` before `optimizer\.step")
    if config.lr_warmup_steps is None:
        config = replace(config, lr_warmup_steps=min(round(WARMUP_SHARE * max_train_steps), LONGEST_WARMUP))
    if config.lr_scheduler == "warmup_stable_decay":  # diffusers does not have it
        return _build_warmup_stable_decay(optimizer, config, max_train_steps)
    if config.lr_scheduler == "exponential":
        return _build_exponential_decay(optimizer, config)
    return get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.lr_warmup_steps,
        num_training_steps=max_train_steps,
        num_cycles=config.lr_num_cycles,
        power=config.lr_power,
    )


def go_to_step(scheduler: LambdaLR, step: int) -> None:
    """Set the rate of the step that follows `step` steps, as this schedule has it."""
    scheduler.last_epoch = step - 1
    scheduler.step()


def _build_warmup_stable_decay(optimizer: torch.optim.Optimizer, config: RunConfig, max_train_steps: int) -> LambdaLR:
    decay_steps = max_train_steps // 2 if config.lr_decay_steps is None else config.lr_decay_steps
    if config.lr_warmup_steps + decay_steps > max_train_steps:
        raise ValueError(
            f"--lr_warmup_steps {config.lr_warmup_steps} and --lr_decay_steps {decay_steps} together must be at most "
            f"{max_train_steps}, the steps of the training."
        )
    return get_wsd_schedule(
        optimizer, config.lr_warmup_steps, decay_steps, num_training_steps=max_train_steps, decay_type="linear"
    )


def _build_exponential_decay(optimizer: torch.optim.Optimizer, config: RunConfig) -> LambdaLR:
    """(rate - end) decay^step + end, as https://github.com/magenta/magenta has it for sketch-rnn."""
    end = config.lr_end / config.learning_rate
    warmup = max(config.lr_warmup_steps, 1)

    def factor(step: int) -> float:
        return min(1.0, step / warmup if config.lr_warmup_steps else 1.0) * (
            (1 - end) * config.lr_decay_rate**step + end
        )

    return LambdaLR(optimizer, factor)
