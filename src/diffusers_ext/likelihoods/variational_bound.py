"""The variational bound of the likelihood of 8-bit images, in bits per dimension."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from diffusers_ext.likelihoods.image_noise import draw_like, image_generators
from diffusers_ext.losses.variational import prior_bits_per_dim, variational_bound_term
from diffusers_ext.pixels import as_pixel_values
from diffusers_ext.schedulers.scheduling_gaussian_diffusion import ExactDDPMScheduler


@dataclass
class VariationalBound:
    """The terms of the variational bound of N images on a chain of T steps.

    Attributes:
        total_bpd (`torch.Tensor` of shape (N,)): the bound in bits/dim: `prior_bpd` plus the sum of `vb`.
        prior_bpd (`torch.Tensor` of shape (N,)): the prior term in bits/dim.
        vb (`torch.Tensor` of shape (N, T)): the terms of the steps in bits/dim, the noisiest step first. The last one
            is the decoder term.
        xstart_mse, mse (`torch.Tensor` of shape (N, T)): mean squared errors of the clean image that the network
            predicts (after clipping), and of the corresponding noise.
    """

    total_bpd: torch.Tensor
    prior_bpd: torch.Tensor
    vb: torch.Tensor
    xstart_mse: torch.Tensor
    mse: torch.Tensor


@torch.no_grad()
def vlb_bits_per_dim(
    network: Callable,
    scheduler,
    images: torch.Tensor,
    class_labels: torch.Tensor | None = None,
    *,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    noise: torch.Tensor | None = None,
) -> VariationalBound:
    """The variational bound of images under a discrete process (Ho et al. 2020, eq. 5), one noise sample per step.

    Args:
        network: a denoiser that is called like UNet2DModel: `network(sample, timesteps, class_labels=...,
            return_dict=False)[0]`.
        scheduler ([`ExactDDPMScheduler`] or [`ExactDDIMScheduler`]): the process, its variance type and its clipping.
            The chain is the one of the last `set_timesteps`, or the full one. Of any other scheduler, the full chain
            of its [`discrete_process`] is used.
        images (`torch.Tensor` of shape (N, C, H, W)): uint8, or 8-bit levels in [-1, 1].
        class_labels (`torch.Tensor` of shape (N,), *optional*): the classes, for p(image | class).
        seed (`int`): the seed of the noise.
        indices (`Sequence[int]`, *optional*, defaults to 0, 1, 2, ...): where the images are in the data set.
        noise (`torch.Tensor` of shape (T, N, C, H, W), *optional*): the noise of each step, the noisiest step first.
        It
            is drawn if it is not given.

    Raises:
        ValueError: for a scheduler without such a process, no images, images out of range, `indices` or `noise` of a
            wrong shape, and a number of output channels that does not match the variance type.
    """
    if not hasattr(scheduler, "p_mean_variance"):
        scheduler = discrete_process(scheduler)
    images = as_pixel_values(images)
    generators = image_generators("vlb", seed, indices, images)
    timesteps, dtype = scheduler.timesteps, getattr(network, "dtype", torch.float32)
    if noise is not None and noise.shape != (len(timesteps), *images.shape):
        raise ValueError(f"noise must have the shape {(len(timesteps), *images.shape)}, not {tuple(noise.shape)}.")

    vb, xstart_mse, mse = [], [], []
    for i, timestep in enumerate(timesteps):
        step_noise = draw_like(images, torch.Tensor.normal_, generators) if noise is None else noise[i].to(images)
        steps = timestep.expand(len(images)).to(images.device)
        noisy = scheduler.q_sample(images, steps, step_noise)
        output = network(noisy.to(dtype), steps, class_labels=class_labels, return_dict=False)[0]
        term = variational_bound_term(output, images, noisy, steps, scheduler)
        vb.append(term.bits_per_dim)
        xstart_mse.append((term.pred_original_sample - images).square().mean(dim=(1, 2, 3)))
        mse.append((term.pred_epsilon - step_noise).square().mean(dim=(1, 2, 3)))
    prior, vb = prior_bits_per_dim(images, scheduler), torch.stack(vb, dim=1)
    return VariationalBound(
        total_bpd=prior + vb.sum(dim=1),
        prior_bpd=prior,
        vb=vb,
        xstart_mse=torch.stack(xstart_mse, dim=1),
        mse=torch.stack(mse, dim=1),
    )


def discrete_process(scheduler) -> ExactDDPMScheduler:
    """The process of any variance-preserving scheduler, with its full chain, for the variational bound.

    Raises:
        ValueError: for a flow-matching scheduler, and any other without a discrete variance-preserving process.
    """
    if scheduler.config.get("prediction_type") == "flow_prediction" or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"The variational bound needs a discrete variance-preserving process, which {type(scheduler).__name__} "
            "does not have with this prediction type: measure the likelihood by the ODE."
        )
    return ExactDDPMScheduler.from_config(scheduler.config)
