"""Films from texts: what a call returns, and what is refused."""

import numpy as np
import pytest
import torch
from diffusers import ClassifierFreeGuidance, DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from PIL import Image

from diffusers_ext.pipelines.pipeline_text_to_video import TextToVideoPixelPipeline
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineCallbackTesterMixin,
    PipelineDtypeTesterMixin,
    PipelineGuidanceCallbackTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
)
from tests.tiny_films import tiny_film_super_resolver, tiny_motion_unet, tiny_text_encoder, tiny_tokenizer


class TextToVideoConfig(PipelineTesterConfig):
    pipeline_class = TextToVideoPixelPipeline
    output_shape = (2, 3, 1, 8, 8)  # films, frames, channels, height, width
    latents_shape = (2, 1, 3, 8, 8)
    batch_params = ("prompt",)
    num_images_param = "num_videos_per_prompt"

    def get_components(self):
        tokenizer = tiny_tokenizer()
        return {
            "unet": tiny_motion_unet(),
            "scheduler": DDIMScheduler(prediction_type="v_prediction"),
            "text_encoder": tiny_text_encoder(tokenizer),
            "tokenizer": tokenizer,
            "guider": ClassifierFreeGuidance(guidance_scale=2.0),
            "default_num_frames": 3,
            "default_num_inference_steps": 3,
        }

    def get_inputs(self):
        return {"prompt": ["a one", "two"]}

    def run(self, pipe, seed=0, **changes):
        inputs = {**self.get_inputs(), "generator": torch.Generator().manual_seed(seed), "output_type": "pt"}
        return pipe(**{**inputs, **changes}).frames


class TestTextToVideo(
    TextToVideoConfig,
    PipelineSaveLoadTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineBatchTesterMixin,
    PipelineCallbackTesterMixin,
    PipelineGuidanceCallbackTesterMixin,
    PipelineDtypeTesterMixin,
):
    def test_frames_come_as_tensors_arrays_and_pictures(self):
        pipe = self.get_pipeline()
        films = self.run(pipe)
        assert films.shape == self.output_shape and 0 <= films.min() < films.max() <= 1
        arrays = self.run(pipe, output_type="np")
        np.testing.assert_array_equal(arrays, films.permute(0, 1, 3, 4, 2).numpy())
        pictures = self.run(pipe, output_type="pil")
        assert [len(film) for film in pictures] == [3, 3] and isinstance(pictures[0][0], Image.Image)
        np.testing.assert_array_equal(np.stack(pictures[1]), (arrays[1, ..., 0] * 255).round().astype(np.uint8))

    def test_dict_and_tuple_are_equal(self):
        pipe = self.get_pipeline()
        inputs = {**self.get_inputs(), "generator": torch.Generator().manual_seed(0), "output_type": "pt"}
        assert_equal(pipe(**inputs, return_dict=False)[0], self.run(pipe))

    def test_other_numbers_of_frames_and_sizes(self):
        pipe = self.get_pipeline()
        assert self.run(pipe, num_frames=4, height=4, width=6).shape == (2, 4, 1, 4, 6)
        assert self.run(pipe, num_frames=1).shape == (2, 1, 1, 8, 8)

    def test_without_prompt_it_is_unconditional(self):
        pipe = self.get_pipeline(guider=None)
        assert_equal(self.run(pipe, prompt=None, batch_size=2), self.run(pipe, prompt=["", ""]))
        assert len(self.run(pipe, prompt=None)) == 1

    def test_guidance_leads_away_from_the_empty_text(self):
        pipe = self.get_pipeline(guider=None)
        assert not torch.equal(self.run(pipe, guidance_scale=3.0), self.run(pipe))
        assert_equal(self.run(pipe, guidance_scale=1.0), self.run(pipe))

    def test_flows_are_sampled_too(self):
        pipe = self.get_pipeline(scheduler=FlowMatchEulerDiscreteScheduler())
        assert self.run(pipe).shape == self.output_shape

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"prompt": []}, "`prompt` must be a text"),
            ({"prompt": 3}, "`prompt` must be a text"),
            ({"batch_size": 2}, "`batch_size` is for films without a prompt"),
            ({"prompt": None, "batch_size": 0}, "`batch_size` must be a positive integer"),
            ({"num_videos_per_prompt": 0}, "`num_videos_per_prompt` must be a positive integer"),
            ({"num_frames": 0}, "`num_frames` must be a positive integer"),
            ({"num_frames": 5}, "`num_frames` must be at most 4"),
            ({"height": 9}, "`height` must be a multiple of 2"),
            ({"latents": torch.zeros(2, 3, 1, 8, 8)}, r"`latents` must be a tensor of the shape \(2, 1, 3, 8, 8\)"),
            ({"output_type": "gif"}, "`output_type` must be"),
            ({"num_inference_steps": 0}, "`num_inference_steps` must be"),
            ({"low_res_video": torch.rand(1, 1, 4, 4)}, "`low_res_video` must be left out"),
            ({"conditioning_noise_level": 0.1}, "`conditioning_noise_level` must be at most 0.0"),
        ],
    )
    def test_what_it_cannot_do_is_refused(self, changes, reason):
        with pytest.raises(ValueError, match=reason):
            self.run(self.get_pipeline(), **changes)

    def test_parts_that_do_not_fit_are_refused(self):
        wide = tiny_text_encoder(tiny_tokenizer(), hidden_size=32)
        with pytest.raises(ValueError, match="`text_encoder` has states of 32 channels, but `unet` attends to 16"):
            self.get_pipeline(text_encoder=wide)
        with pytest.raises(ValueError, match="`default_num_frames` must be a positive integer"):
            self.get_pipeline(default_num_frames=0)

    def test_a_scheduler_for_another_process_is_refused(self):
        pipe = self.get_pipeline()
        pipe.scheduler = DDPMScheduler(prediction_type="epsilon")
        with pytest.raises(ValueError, match="was trained for"):
            self.run(pipe)


class TestVideoSuperResolution(TextToVideoConfig):
    """Films of two small frames become films of four."""

    def get_components(self):
        changes = {"unet": tiny_film_super_resolver(), "image_channels": 1, "conditioning_augmentation": 0.5}
        return {**super().get_components(), **changes, "default_num_frames": 4}

    def get_inputs(self):
        small = torch.linspace(0, 1, 2 * 2 * 16).view(2, 2, 1, 4, 4)
        return {"prompt": ["a one", "two"], "low_res_video": small}

    def test_small_films_come_as_tensors_arrays_and_pictures(self):
        pipe, small = self.get_pipeline(), (self.get_inputs()["low_res_video"] * 255).round() / 255
        films = self.run(pipe, low_res_video=small)
        assert films.shape == (2, 4, 1, 8, 8) and pipe.is_super_resolver and pipe.image_shape == (1, 8, 8)
        arrays = small.permute(0, 1, 3, 4, 2).numpy()
        pictures = [
            [Image.fromarray((frame[..., 0] * 255).round().astype(np.uint8)) for frame in film] for film in arrays
        ]
        for given in (arrays, pictures, list(small)):
            assert_equal(self.run(pipe, low_res_video=given), films)
        assert not torch.equal(self.run(pipe, low_res_video=1 - small), films)
        assert self.run(pipe, prompt=None, low_res_video=small).shape == films.shape
        assert self.run(pipe, prompt="two", low_res_video=pictures[0]).shape == (1, 4, 1, 8, 8)

    def test_the_level_of_the_noise_is_told(self):
        pipe, seen = self.get_pipeline(), []
        pipe.unet.register_forward_pre_hook(lambda net, args, inputs: seen.append(inputs), with_kwargs=True)
        self.run(pipe, conditioning_noise_level=0.5)
        assert seen[0]["added_cond_kwargs"]["time_ids"].unique(dim=0).tolist() == [[4.0, 500.0]]

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"low_res_video": None}, "`low_res_video` is missing"),
            ({"low_res_video": torch.rand(1, 4, 4)}, "`low_res_video` must be a film or a list of films"),
            (
                {"low_res_video": torch.rand(3, 2, 1, 4, 4)},
                "`low_res_video` must be 2 films, one per prompt",
            ),
            ({"num_frames": 3}, "`num_frames` must be a multiple of 2, the frames of `low_res_video`"),
            ({"conditioning_noise_level": 0.6}, "`conditioning_noise_level` must be at most 0.5"),
            ({"low_res_video": [torch.rand(2, 1, 4, 4), torch.rand(1, 1, 4, 4)]}, "must have one size and one number"),
        ],
    )
    def test_what_it_cannot_enlarge_is_refused(self, changes, reason):
        with pytest.raises(ValueError, match=reason):
            self.run(self.get_pipeline(), **changes)
