"""What a pipeline declares for the evaluation and the card."""

import pytest
import torch

from tests.hub.older import CALLS, make_pipelines


CHANNELS_AND_SIZES = {
    "autoencoder": (1, 8, 8),
    "cascade": (1, 8, 8),
    "class_conditional": (1, 8, 8),
    "gan": (1, 8, 8),
    "image_translation": (1, None, None),
    "palette": (1, 8, 8),
}
PIPELINES = make_pipelines()


@pytest.mark.parametrize("name", CHANNELS_AND_SIZES)
def test_images_have_the_declared_shape(name):
    pipe = PIPELINES[name]
    pipe.set_progress_bar_config(disable=True)
    assert pipe.image_shape == CHANNELS_AND_SIZES[name]
    images = pipe(**CALLS[name], generator=torch.Generator().manual_seed(0), output_type="pt").images
    declared = [size for size in pipe.image_shape if size is not None]
    assert list(images.shape[1 : 1 + len(declared)]) == declared


@pytest.mark.parametrize("name", CHANNELS_AND_SIZES)
def test_pipelines_that_need_no_image_sample_from_noise(name):
    assert PIPELINES[name].samples_from_noise == ("image" not in CALLS[name])
    task = "image-to-image" if "image" in CALLS[name] else "unconditional-image-generation"
    assert PIPELINES[name].pipeline_tag == type(PIPELINES[name]).pipeline_tag == task


def test_an_autoencoder_without_prior_does_not_sample():
    pipe = PIPELINES["autoencoder"]
    without = type(pipe)(type(pipe.autoencoder)(sample_size=8, hidden_dims=(), latent_dim=2, variational=False))
    assert pipe.samples_from_noise and not without.samples_from_noise
