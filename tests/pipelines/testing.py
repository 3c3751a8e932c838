"""What every pipeline of diffusers_ext promises, as mixins: a test class is one config class and one mixin."""

from abc import ABC, abstractmethod

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from tests.waits import counted


class PipelineTesterConfig(ABC):
    """Describes one pipeline at a tiny size, with real components."""

    pipeline_class: type[DiffusionPipeline]
    # of the `get_inputs` images: (number, channels, height, width)
    output_shape: tuple[int, int, int, int]
    # of the latents for these images, where they are none of pixels
    latents_shape: tuple[int, int, int, int] | None = None
    # the arguments that hold one entry per image
    batch_params: tuple[str, ...] = ()
    # the argument that multiplies the images, where there is one
    num_images_param: str | None = None

    @abstractmethod
    def get_components(self) -> dict:
        """The constructor's arguments; components have the same random weights in each call."""

    @abstractmethod
    def get_inputs(self) -> dict:
        """The arguments of `__call__` but `generator` and `output_type`."""

    def get_pipeline(self, **changes) -> DiffusionPipeline:
        pipe = self.pipeline_class(**{**self.get_components(), **changes})
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def run(self, pipe: DiffusionPipeline, seed: int = 0, **changes) -> torch.Tensor:
        """The images `(N, C, H, W)` of one call."""
        inputs = {**self.get_inputs(), "generator": torch.Generator().manual_seed(seed), "output_type": "pt"}
        return pipe(**{**inputs, **changes}).images

    def run_loaded(self, pipe: DiffusionPipeline, **changes) -> torch.Tensor:
        pipe.set_progress_bar_config(disable=True)
        return self.run(pipe, **changes)


def generators(seeds) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def assert_equal(actual: torch.Tensor, expected: torch.Tensor):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


class PipelineOutputTesterMixin:
    def test_tensors_are_in_unit_range(self):
        images = self.run(self.get_pipeline())
        assert images.shape == self.output_shape
        assert images.dtype == torch.float32
        assert 0 <= images.min() < images.max() <= 1

    def test_arrays_are_the_tensors(self):
        pipe = self.get_pipeline()
        images = self.run(pipe, output_type="np")
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images, self.run(pipe).permute(0, 2, 3, 1).numpy())

    def test_pictures_are_the_tensors(self):
        pipe = self.get_pipeline()
        images = self.run(pipe, output_type="pil")
        expected = (self.run(pipe) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        assert all(isinstance(image, Image.Image) for image in images)
        np.testing.assert_array_equal(
            np.stack([np.array(image).reshape(expected.shape[1:]) for image in images]), expected
        )

    def test_dict_and_tuple_are_equal(self):
        pipe = self.get_pipeline()
        inputs = {**self.get_inputs(), "generator": torch.Generator().manual_seed(0), "output_type": "pt"}
        output = pipe(**inputs, return_dict=False)
        assert isinstance(output, tuple)
        assert_equal(output[0], self.run(pipe))

    def test_leaves_no_gradient_behind(self):
        assert not self.run(self.get_pipeline()).requires_grad


class PipelineSaveLoadTesterMixin:
    def test_loaded_pipeline_draws_the_same(self, tmp_path):
        pipe = self.get_pipeline()
        pipe.save_pretrained(tmp_path)
        loaded = self.pipeline_class.from_pretrained(tmp_path)
        assert_equal(self.run_loaded(loaded), self.run(pipe))

    def test_config_comes_back_unchanged(self, tmp_path):
        pipe = self.get_pipeline()
        pipe.save_pretrained(tmp_path)
        loaded = self.pipeline_class.from_pretrained(tmp_path)
        assert loaded.parameters == pipe.parameters

    def test_optional_components_may_be_missing(self, tmp_path):
        optional = {name: None for name in self.pipeline_class._optional_components}
        pipe = self.get_pipeline(**optional)
        pipe.save_pretrained(tmp_path)
        loaded = self.pipeline_class.from_pretrained(tmp_path)
        assert all(getattr(loaded, name) is None for name in optional)
        assert_equal(self.run_loaded(loaded), self.run(pipe))

    def test_from_pipe_takes_everything_over(self):
        pipe = self.get_pipeline()
        other = self.pipeline_class.from_pipe(pipe)
        assert all(getattr(other, name) is component for name, component in pipe.components.items())
        assert other.parameters == pipe.parameters
        assert_equal(self.run_loaded(other), self.run(pipe))


class PipelineRandomnessTesterMixin:
    def test_same_seed_same_images(self):
        pipe = self.get_pipeline()
        expected = self.run(pipe)
        assert_equal(self.run(pipe), expected)
        assert not torch.equal(self.run(pipe, seed=1), expected)

    def test_global_randomness_is_left_alone(self):
        pipe = self.get_pipeline()
        torch.manual_seed(0)
        state = torch.get_rng_state()
        self.run(pipe)
        assert torch.equal(torch.get_rng_state(), state)

    def test_latents_are_the_first_noise(self):
        pipe = self.get_pipeline()
        latents = torch.randn(self.latents_shape or self.output_shape, generator=torch.Generator().manual_seed(0))
        kept = latents.clone()
        assert_equal(self.run(pipe, latents=latents), self.run(pipe, latents=latents))
        assert torch.equal(latents, kept)
        assert not torch.equal(self.run(pipe, latents=latents), self.run(pipe, latents=-latents))

    def test_a_wrong_number_of_generators_is_refused(self):
        with pytest.raises(ValueError, match="generator"):
            self.run(self.get_pipeline(), generator=generators(range(self.output_shape[0] + 1)))


class PipelineBatchTesterMixin:
    def test_batch_equals_singles(self):
        pipe = self.get_pipeline()
        inputs = self.get_inputs()
        num_images = self.output_shape[0]
        together = self.run(pipe, generator=generators(range(num_images)))
        for i in range(num_images):
            own = {name: inputs[name][i : i + 1] for name in self.batch_params}
            alone = self.run(pipe, generator=generators([i]), **own)
            torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)

    def test_several_images_each_stand_next_to_each_other(self):
        if self.num_images_param is None:
            pytest.skip(f"{self.pipeline_class.__name__} makes one image each")
        pipe = self.get_pipeline()
        num_images = self.output_shape[0]
        together = self.run(pipe, generator=generators(range(2 * num_images)), **{self.num_images_param: 2})
        assert len(together) == 2 * num_images
        firsts = self.run(pipe, generator=generators(range(0, 2 * num_images, 2)))
        torch.testing.assert_close(together[::2], firsts, rtol=0, atol=1e-5)


class PipelineCallbackTesterMixin:
    def test_callback_sees_each_step(self):
        pipe = self.get_pipeline()
        steps = []

        def callback(pipe, step, timestep, callback_kwargs):
            steps.append(step)
            assert list(callback_kwargs) == pipe._callback_tensor_inputs
            assert all(torch.is_tensor(tensor) for tensor in callback_kwargs.values())
            assert timestep == pipe.scheduler.timesteps[step]
            return callback_kwargs

        names = list(self.pipeline_class._callback_tensor_inputs)
        images = self.run(pipe, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
        assert steps == list(range(pipe.num_timesteps))
        assert_equal(images, self.run(pipe))

    def test_a_step_waits_for_no_device(self):
        pipe, by_step = self.get_pipeline(), []
        with counted() as waits:
            self.run(pipe, callback_on_step_end=lambda *arguments: by_step.append(waits.copy()))
        first, *_, last = by_step
        # Most schedulers of diffusers wait, and a cascade that asks them where the noise is low enough to stop.
        others = ("diffusers: ", "conditioning_augmentation.py")
        ours = [place for place in last - first if not place.startswith(others)]
        assert len(by_step) > 1 and not ours, ours

    def test_callback_may_change_the_latents(self):
        pipe = self.get_pipeline()

        def callback(pipe, step, timestep, callback_kwargs):
            if step == pipe.num_timesteps - 1:
                callback_kwargs["latents"] = torch.zeros_like(callback_kwargs["latents"])
            return callback_kwargs

        assert (self.run(pipe, callback_on_step_end=callback) == 0.5).all()

    def test_callback_may_return_nothing(self):
        pipe = self.get_pipeline()
        assert_equal(self.run(pipe, callback_on_step_end=lambda *args: None), self.run(pipe))

    def test_callback_may_stop_the_loop(self):
        pipe = self.get_pipeline()
        expected, steps = self.run(pipe), []

        def callback(pipe, step, timestep, callback_kwargs):
            steps.append(step)
            pipe._interrupt = True
            return callback_kwargs

        assert not torch.equal(self.run(pipe, callback_on_step_end=callback), expected)
        assert steps == [0]
        assert_equal(self.run(pipe), expected)

    def test_unknown_tensor_is_refused(self):
        with pytest.raises(ValueError, match="callback_on_step_end_tensor_inputs"):
            self.run(self.get_pipeline(), callback_on_step_end_tensor_inputs=["latents", "wishes"])


class PipelineGuidanceCallbackTesterMixin:
    def test_callback_may_change_the_guidance_scale(self):
        pipe = self.get_pipeline()
        scales = []

        def callback(pipe, step, timestep, callback_kwargs):
            scales.append(pipe.guidance_scale)
            pipe._guidance_scale = 0.0

        guided = self.run(pipe, guidance_scale=3.0, callback_on_step_end=callback)
        assert scales[:2] == [3.0, 0.0]
        assert not torch.equal(guided, self.run(pipe, guidance_scale=3.0))
        assert not torch.equal(guided, self.run(pipe, guidance_scale=1.0))


class PipelineDtypeTesterMixin:
    # largest difference of an image value in [0, 1] that 8 bits of mantissa in the network may cause
    bfloat16_tolerance = 0.05

    def test_bfloat16_network_draws_nearly_the_same(self):
        pipe = self.get_pipeline()
        expected = self.run(pipe)
        images = self.run(pipe.to(torch.bfloat16))
        assert images.dtype == torch.float32
        torch.testing.assert_close(images, expected, rtol=0, atol=self.bfloat16_tolerance)
        assert_equal(self.run(pipe.to(torch.float32)), self.run(pipe))

    def test_latents_stay_in_float32(self):
        pipe = self.get_pipeline().to(torch.bfloat16)

        def callback(pipe, step, timestep, callback_kwargs):
            assert callback_kwargs["latents"].dtype == torch.float32
            return callback_kwargs

        self.run(pipe, callback_on_step_end=callback)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_gpu_draws_the_same_from_a_cpu_generator(self):
        pipe = self.get_pipeline()
        expected = self.run(pipe)
        torch.testing.assert_close(self.run(pipe.to("cuda")).cpu(), expected, rtol=0, atol=1e-2)
