"""The learning rate of a denoiser where the options don't give one."""

import logging
import math

import torch


logger = logging.getLogger(__name__)

# Measured with a million weights; the 36 million of the network of Ho et al. (2020) have 1.7e-4, near their 2e-4.
RATE_OF_A_MILLION = 1e-3
LOWEST, HIGHEST = 1e-4, 2e-3
PRETRAINED = 1e-4


def default_learning_rate(network: torch.nn.Module, pretrained: bool = False) -> float:
    """The highest rate of a training: it falls with the square root of the number of weights.

    A pretrained network gets the rate that diffusers' scripts have, because a high one undoes what it has learned.
    """
    weights = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    if pretrained:
        rate = PRETRAINED
    else:
        rate = min(max(RATE_OF_A_MILLION * math.sqrt(1e6 / weights), LOWEST), HIGHEST)
    # Two digits, as people write rates.
    rate = float(f"{rate:.1e}")
    logger.info(f"The learning rate is {rate}, as suits {weights:,} weights; --learning_rate sets another one.")
    return rate
