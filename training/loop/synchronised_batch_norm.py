"""Batch norm over the global batch, of which each process has a part.

torch's SyncBatchNorm does the same, but not on CPUs.
"""

import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class _SynchronisedBatchNorm(_BatchNorm):
    """A batch norm with the statistics of all processes' images in training, with gradients through them."""

    # Gradients flow through an exchange between processes, which can't be compiled.
    @torch.compiler.disable
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (torch's name)
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        values = input.float()
        dims = [dim for dim in range(values.ndim) if dim != 1]
        shape = [-1 if dim == 1 else 1 for dim in range(values.ndim)]
        # Every process has as many images, so the mean of the global batch is the mean of their means.
        processes = torch.distributed.get_world_size()
        mean = all_reduce(values.mean(dims)) / processes
        # From the centred values: the difference of mean square and squared mean would be inaccurate.
        centred = values - mean.view(shape)
        variance = all_reduce(centred.square().mean(dims)) / processes
        if self.track_running_stats:
            self._follow(mean.detach(), variance.detach(), processes * values[:, 0].numel())
        output = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            output = output * self.weight.float().view(shape) + self.bias.float().view(shape)
        return output.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), momentum)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Make the batch norms of a network see the images of all processes in training.

    The modules stay where they are, with their weights and buffers, and remain instances of their classes.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, _SynchronisedBatchNorm):
            own = type(module)
            module.__class__ = type(own.__name__, (_SynchronisedBatchNorm, own), {})
