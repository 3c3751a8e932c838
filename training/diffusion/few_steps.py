"""The path from noise to an image that a student of few steps is taught on."""

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EDMEulerScheduler, SchedulerMixin

from diffusers_ext.losses import noise_levels, pred_original_sample
from diffusers_ext.training.diffusion.objectives import prediction_type


def few_step_scheduler(scheduler: SchedulerMixin, num_steps: int) -> SchedulerMixin:
    """The sampler of a student: DDIM (Song et al. 2021, eq. 12), which is Euler's method for a flow.

    It divides the path from noise to an image into `num_steps` steps that begin at the noisiest level and end at the
    clean image.

    Args:
        scheduler ([`SchedulerMixin`]): of the teacher. A student of a teacher of epsilon predicts v instead: in pure
            noise, an image can't be computed from epsilon (Salimans and Ho 2022, section 4).
        num_steps (`int`): steps of a call; only EDM's noise levels depend on it.
    """
    kind, config = prediction_type(scheduler), scheduler.config
    if kind == "flow_prediction":
        return DPMSolverMultistepScheduler.from_config(
            config,
            prediction_type=kind,
            use_flow_sigmas=True,
            flow_shift=config.get("flow_shift", config.get("shift", 1.0)),
            solver_order=1,
            final_sigmas_type="zero",
        )
    if kind == "edm":
        # diffusers' steps end at sigma_min, which would be the only step beside that from pure noise.
        whole = EDMEulerScheduler.from_config(config)
        whole.set_timesteps(num_steps + 1)
        return EDMEulerScheduler.from_config(
            config, sigma_min=whole.sigmas[num_steps - 1].item(), final_sigmas_type="zero"
        )
    return DDIMScheduler.from_config(
        config,
        prediction_type="v_prediction" if kind == "epsilon" else kind,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
        thresholding=False,
    )


class TeacherPath:
    """The noise levels of the teacher's steps, from pure noise (position 0) to the clean image (the last position).

    Args:
        scheduler ([`SchedulerMixin`]): of the teacher.
        num_steps (`int`): the steps of the student.
        num_teacher_steps (`int`): the steps of the teacher, a multiple.
        device (`torch.device`): of the samples.

    Attributes:
        timesteps (`torch.Tensor`): what the network gets at each position but the last, which it never sees.
    """

    def __init__(self, scheduler: SchedulerMixin, num_steps: int, num_teacher_steps: int, device: torch.device):
        fine = few_step_scheduler(scheduler, num_teacher_steps)
        fine.set_timesteps(num_teacher_steps)
        alphas, sigmas = noise_levels(fine, fine.timesteps)
        if prediction_type(fine) == "flow_prediction":  # whose timesteps are rounded for the network
            sigmas = fine.sigmas[:-1, None, None, None]
            alphas = 1 - sigmas
        end = torch.ones(1, 1, 1, 1)
        self.length, self._jump_length = num_teacher_steps, num_teacher_steps // num_steps
        self.timesteps = torch.cat([fine.timesteps, fine.timesteps[-1:]]).to(device)
        self._alphas, self._sigmas = (torch.cat(rows).to(device) for rows in ([alphas, end], [sigmas, 0 * end]))

    def draw(self, draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For each sample a position, the next one, and where the student's step ends: each of shape (N,)."""
        position = draw.integers(self.length)
        return position, position + 1, (position // self._jump_length + 1) * self._jump_length

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """What a network sees of `clean` (N, C, H, W) at these positions."""
        return self._alphas[position] * clean + self._sigmas[position] * noise

    def pred_original_sample(
        self, kind: str, prediction: torch.Tensor, noisy: torch.Tensor, position: torch.Tensor
    ) -> torch.Tensor:
        """See [`~diffusers_ext.losses.pred_original_sample`]."""
        prediction = prediction[:, : noisy.shape[1]].float()  # without a learned variance
        return pred_original_sample(kind, prediction, noisy, self._alphas[position], self._sigmas[position])

    def jump(self, noisy: torch.Tensor, clean: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        """A step of DDIM, from `noisy` at `start` to the position `end`, where `clean` is the predicted image."""
        ratio = self._sigmas[end] / self._sigmas[start].clamp(min=1e-12)
        moved = ratio * noisy + (self._alphas[end] - ratio * self._alphas[start]) * clean
        return torch.where((start == end)[:, None, None, None], noisy, moved)
