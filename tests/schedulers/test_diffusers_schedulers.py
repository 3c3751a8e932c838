"""Tests of all schedulers, for the schedulers of diffusers that recipes use."""

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from tests.schedulers.testing import (
    SchedulerAddNoiseTesterMixin,
    SchedulerDeterminismTesterMixin,
    SchedulerFromConfigTesterMixin,
    SchedulerSaveLoadTesterMixin,
    SchedulerStepTesterMixin,
    SchedulerTesterConfig,
)


class NoiseSchedulerConfig(SchedulerTesterConfig):
    """Adds the noise in training."""

    scheduler_class = DDPMScheduler
    config = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
    compatible_classes = (DDIMScheduler, UniPCMultistepScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler)


class VelocitySolverConfig(SchedulerTesterConfig):
    """Samples networks trained on v (or epsilon, or the image)."""

    scheduler_class = UniPCMultistepScheduler
    config = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
    compatible_classes = (DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler)


class FlowSolverConfig(SchedulerTesterConfig):
    """Samples networks trained by flow matching."""

    scheduler_class = DPMSolverMultistepScheduler
    config = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 0.5}
    compatible_classes = (UniPCMultistepScheduler,)


class TestNoiseSchedulerSaveLoad(NoiseSchedulerConfig, SchedulerSaveLoadTesterMixin):
    pass


class TestNoiseSchedulerFromConfig(NoiseSchedulerConfig, SchedulerFromConfigTesterMixin):
    pass


class TestNoiseSchedulerStep(NoiseSchedulerConfig, SchedulerStepTesterMixin):
    pass


class TestNoiseSchedulerAddNoise(NoiseSchedulerConfig, SchedulerAddNoiseTesterMixin):
    def test_add_noise_is_the_closed_form(self):
        """x_t = sqrt(alphas_cumprod_t) x_0 + sqrt(1 - alphas_cumprod_t) noise: Ho et al. 2020, eq. 4."""
        scheduler = self.get_scheduler()
        timesteps = torch.tensor([3, 800])
        sample, noise = self.get_sample(1), self.get_sample(2)
        alphas_cumprod = scheduler.alphas_cumprod[timesteps].view(2, 1, 1, 1)
        torch.testing.assert_close(
            scheduler.add_noise(sample, noise, timesteps),
            alphas_cumprod.sqrt() * sample + (1 - alphas_cumprod).sqrt() * noise,
        )


class TestNoiseSchedulerDeterminism(NoiseSchedulerConfig, SchedulerDeterminismTesterMixin):
    pass


class TestVelocitySolverSaveLoad(VelocitySolverConfig, SchedulerSaveLoadTesterMixin):
    pass


class TestVelocitySolverFromConfig(VelocitySolverConfig, SchedulerFromConfigTesterMixin):
    pass


class TestVelocitySolverStep(VelocitySolverConfig, SchedulerStepTesterMixin):
    pass


class TestVelocitySolverAddNoise(VelocitySolverConfig, SchedulerAddNoiseTesterMixin):
    pass


class TestVelocitySolverDeterminism(VelocitySolverConfig, SchedulerDeterminismTesterMixin):
    pass


class TestFlowSolverSaveLoad(FlowSolverConfig, SchedulerSaveLoadTesterMixin):
    pass


class TestFlowSolverFromConfig(FlowSolverConfig, SchedulerFromConfigTesterMixin):
    pass


class TestFlowSolverStep(FlowSolverConfig, SchedulerStepTesterMixin):
    pass


class TestFlowSolverAddNoise(FlowSolverConfig, SchedulerAddNoiseTesterMixin):
    pass


class TestFlowSolverDeterminism(FlowSolverConfig, SchedulerDeterminismTesterMixin):
    pass
