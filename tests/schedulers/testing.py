"""Tests of all schedulers, as mixins: a test class combines a config class and a mixin."""

import inspect

import pytest
import torch
from diffusers import SchedulerMixin


class SchedulerTesterConfig:
    """The configuration of one scheduler."""

    scheduler_class: type[SchedulerMixin]
    config: dict = {}
    num_inference_steps = 5
    # schedulers whose configs must be exchangeable with this one's
    compatible_classes: tuple[type[SchedulerMixin], ...] = ()

    sample_shape = (2, 3, 8, 8)

    def get_scheduler(self, **changes) -> SchedulerMixin:
        return self.scheduler_class(**{**self.config, **changes})

    def get_sample(self, seed: int = 0) -> torch.Tensor:
        return torch.randn(self.sample_shape, generator=torch.Generator().manual_seed(seed))

    def predict(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """A replacement for a network: smooth, bounded, dependent on both arguments."""
        return torch.tanh(sample) * (0.5 + timestep / 2000)

    def step(self, scheduler: SchedulerMixin, timestep: torch.Tensor, sample: torch.Tensor, **kwargs):
        if "generator" in inspect.signature(scheduler.step).parameters:
            kwargs["generator"] = torch.Generator().manual_seed(0)
        if hasattr(scheduler, "scale_model_input"):
            prediction = self.predict(scheduler.scale_model_input(sample, timestep), timestep)
        else:
            prediction = self.predict(sample, timestep)
        return scheduler.step(prediction, timestep, sample, **kwargs)

    def sample_loop(self, scheduler: SchedulerMixin) -> torch.Tensor:
        scheduler.set_timesteps(self.num_inference_steps)
        sample = self.get_sample() * getattr(scheduler, "init_noise_sigma", 1.0)
        for timestep in scheduler.timesteps:
            sample = self.step(scheduler, timestep, sample).prev_sample
        return sample


def public(config: dict) -> dict:
    return {name: value for name, value in config.items() if not name.startswith("_")}


class SchedulerSaveLoadTesterMixin:
    def test_loaded_scheduler_samples_the_same(self, tmp_path):
        scheduler = self.get_scheduler()
        scheduler.save_pretrained(tmp_path)
        loaded = self.scheduler_class.from_pretrained(tmp_path)
        assert public(loaded.config) == public(scheduler.config)
        torch.testing.assert_close(self.sample_loop(loaded), self.sample_loop(scheduler), rtol=0, atol=0)


class SchedulerFromConfigTesterMixin:
    def test_own_config_makes_the_same_scheduler(self):
        scheduler = self.get_scheduler()
        remade = self.scheduler_class.from_config(scheduler.config)
        assert public(remade.config) == public(scheduler.config)
        torch.testing.assert_close(self.sample_loop(remade), self.sample_loop(scheduler), rtol=0, atol=0)

    def test_config_survives_other_schedulers(self):
        """Other classes keep options that they do not have: a conversion and its inverse change nothing."""
        if not self.compatible_classes:
            pytest.skip(f"{self.scheduler_class.__name__} shares its config with no other scheduler")
        scheduler = self.get_scheduler()
        for other_class in self.compatible_classes:
            other = other_class.from_config(scheduler.config)
            assert self.sample_loop(other).isfinite().all()
            back = self.scheduler_class.from_config(other.config)
            for name, value in public(scheduler.config).items():
                assert back.config[name] == value, f"{name} by way of {other_class.__name__}"


class SchedulerStepTesterMixin:
    def test_dict_and_tuple_are_equal(self):
        outputs = []
        for kwargs in ({}, {"return_dict": False}):
            scheduler = self.get_scheduler()
            scheduler.set_timesteps(self.num_inference_steps)
            output = self.step(scheduler, scheduler.timesteps[0], self.get_sample(), **kwargs)
            outputs.append(output.prev_sample if not kwargs else output[0])
        torch.testing.assert_close(*outputs, rtol=0, atol=0)

    def test_steps_keep_shape_and_dtype(self):
        scheduler = self.get_scheduler()
        scheduler.set_timesteps(self.num_inference_steps)
        sample = self.get_sample()
        for timestep in scheduler.timesteps:
            previous = self.step(scheduler, timestep, sample).prev_sample
            assert previous.shape == sample.shape and previous.dtype == sample.dtype
            assert previous.isfinite().all()
            assert not torch.equal(previous, sample)
            sample = previous

    def test_timesteps_descend(self):
        scheduler = self.get_scheduler()
        for num_inference_steps in (1, 2, self.num_inference_steps):
            scheduler.set_timesteps(num_inference_steps)
            assert len(scheduler.timesteps) >= num_inference_steps
            assert (scheduler.timesteps.diff() <= 0).all()


class SchedulerAddNoiseTesterMixin:
    def noise_level_pairs(self) -> tuple[SchedulerMixin, torch.Tensor]:
        scheduler = self.get_scheduler()
        scheduler.set_timesteps(self.num_inference_steps)
        return scheduler, scheduler.timesteps[[0, -1]]

    def add_noise(self, scheduler, sample, noise, timesteps) -> torch.Tensor:
        return scheduler.add_noise(sample, noise, timesteps)

    def test_each_sample_gets_the_noise_of_its_timestep(self):
        scheduler, timesteps = self.noise_level_pairs()
        sample, noise = self.get_sample(1), self.get_sample(2)
        noisy = self.add_noise(scheduler, sample, noise, timesteps)
        assert noisy.shape == sample.shape and noisy.dtype == sample.dtype
        for i in range(2):
            alone = self.add_noise(scheduler, sample[i : i + 1], noise[i : i + 1], timesteps[i : i + 1])
            torch.testing.assert_close(noisy[i : i + 1], alone)

    def test_the_first_timestep_is_the_noisiest(self):
        scheduler, timesteps = self.noise_level_pairs()
        zeros, ones = torch.zeros(self.sample_shape), torch.ones(self.sample_shape)
        signal = self.add_noise(scheduler, ones, zeros, timesteps).flatten(1)[:, 0]
        noise = self.add_noise(scheduler, zeros, ones, timesteps).flatten(1)[:, 0]
        assert noise[0] / signal[0] > noise[1] / signal[1] >= 0


class SchedulerDeterminismTesterMixin:
    def test_a_used_scheduler_samples_like_a_new_one(self):
        scheduler = self.get_scheduler()
        expected = self.sample_loop(scheduler)
        torch.testing.assert_close(self.sample_loop(scheduler), expected, rtol=0, atol=0)

    def test_an_interrupted_scheduler_samples_like_a_new_one(self):
        expected = self.sample_loop(self.get_scheduler())
        scheduler = self.get_scheduler()
        scheduler.set_timesteps(self.num_inference_steps + 2)
        sample = self.get_sample() * getattr(scheduler, "init_noise_sigma", 1.0)
        for timestep in scheduler.timesteps[:3]:
            sample = self.step(scheduler, timestep, sample).prev_sample
        torch.testing.assert_close(self.sample_loop(scheduler), expected, rtol=0, atol=0)
