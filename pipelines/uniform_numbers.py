"""Uniform random numbers, drawn like the normal ones of diffusers' `randn_tensor`."""

import torch


def rand_tensor(
    shape: tuple[int, ...],
    generator: torch.Generator | list[torch.Generator] | None,
    device: torch.device,
) -> torch.Tensor:
    """
    Float32 numbers in `[0, 1)` on `device`, drawn on the device of the generator.

    Args:
        shape (`tuple[int, ...]`): `(N, ...)`; N is the number of generators if there is a list of them.
        generator (`torch.Generator` or a list of them, *optional*): a list has one for each sample.
        device (`torch.device`): where the numbers are to be.
    """
    if isinstance(generator, list):
        return torch.cat([rand_tensor((1, *shape[1:]), own, device) for own in generator])
    source = device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=source, dtype=torch.float32).to(device)
