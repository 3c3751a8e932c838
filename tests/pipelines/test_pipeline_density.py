import math

import pytest
import torch

from diffusers_ext.models import AutoencoderMLP, GaussianMixtureModel, KernelDensityModel
from diffusers_ext.models.modeling_mlp_gan import MLPGenerator
from diffusers_ext.pipelines.pipeline_density import DensityPipeline
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineDtypeTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
)
from tests.tiny_autoencoders import tiny_vae


NAMES = {0: "zero", 1: "one", 2: "two", 3: "three"}


@torch.no_grad()
def make_model(shape=(3, 6, 4), **options) -> GaussianMixtureModel:
    model = GaussianMixtureModel(shape, **{"num_components": 2, "num_classes": 4, "covariance": "diagonal", **options})
    generator = torch.Generator().manual_seed(0)
    model.means.copy_(torch.rand(model.means.shape, generator=generator) - 0.5)
    model.covariances.stds.fill_(0.3)
    return model


class DensityConfig(PipelineTesterConfig):
    pipeline_class = DensityPipeline
    output_shape = (3, 3, 6, 4)
    latents_shape = (3, 1 + 72)
    batch_params = ("class_labels",)
    num_images_param = "num_images_per_label"

    def get_components(self):
        return {"model": make_model(), "id2label": NAMES}

    def get_inputs(self):
        return {"class_labels": [3, "one", 3]}


class LatentConfig(DensityConfig):
    """A density of latent maps, and an AutoencoderKL."""

    output_shape = (3, 3, 16, 16)
    latents_shape = (3, 1 + 256)

    def get_components(self):
        return {"model": make_model((4, 8, 8)), "vae": tiny_vae(), "id2label": NAMES}


class TestOutput(DensityConfig, PipelineOutputTesterMixin):
    pass


class TestLatentOutput(LatentConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(DensityConfig, PipelineSaveLoadTesterMixin):
    pass


class TestLatentSaveLoad(LatentConfig, PipelineSaveLoadTesterMixin):
    test_optional_components_may_be_missing = None  # the model belongs to the autoencoder


class TestRandomness(DensityConfig, PipelineRandomnessTesterMixin):
    pass


class TestBatch(DensityConfig, PipelineBatchTesterMixin):
    pass


class TestLatentBatch(LatentConfig, PipelineBatchTesterMixin):
    pass


class TestDtype(DensityConfig, PipelineDtypeTesterMixin):
    test_latents_stay_in_float32 = None  # there are no steps, and so no callback


def images(count: int = 3) -> torch.Tensor:
    return torch.rand((count, 3, 6, 4), generator=torch.Generator().manual_seed(1))


def test_a_single_value_has_the_probabilities_of_its_cells():
    pipe = DensityPipeline(GaussianMixtureModel((1, 1, 1)), num_levels=4)
    pixels = torch.linspace(0, 1, 4)[:, None, None, None].repeat_interleave(500, dim=0)
    generator = torch.Generator().manual_seed(0)
    bits = pipe.bits_per_dim(pixels, generator=generator).view(4, 500)
    edges = torch.special.ndtr(torch.linspace(-1, 1, 5, dtype=torch.float64))
    exact = -edges.diff().log2()
    # It is a bound, and a narrow one for cells in which the density hardly changes.
    assert (bits.mean(dim=1) > exact - 0.01).all() and (bits.mean(dim=1) < exact + 0.05).all()


def test_samples_are_levels_and_lie_in_their_cells():
    pipe = DensityPipeline(make_model(num_classes=None), num_levels=5)
    call = {"batch_size": 50, "generator": torch.Generator().manual_seed(0), "output_type": "pt"}
    levels = pipe(**call).images * 4
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-5)
    assert levels.round().unique().tolist() == [0, 1, 2, 3, 4]
    low = pipe.encode(images(), torch.zeros(3, 3, 6, 4))
    torch.testing.assert_close(pipe.encode(images()), low + 1 / 5)
    torch.testing.assert_close(low, 2 * (images() * 4).round() / 5 - 1)


@torch.no_grad()
def test_likelihoods_and_classes_are_those_of_the_model():
    pipe = DensityPipeline(make_model(), id2label=NAMES)
    by_class = torch.stack([pipe.log_likelihood(images(), label) for label in range(4)], dim=1)
    torch.testing.assert_close(pipe.classify(images()), by_class.softmax(dim=1))
    torch.testing.assert_close(pipe.log_likelihood(images()), by_class.logsumexp(dim=1) - math.log(4))
    torch.testing.assert_close(pipe.log_likelihood(images(), [1, "three", 0]), by_class[range(3), [1, 3, 0]])
    seeds = [torch.Generator().manual_seed(seed) for seed in range(3)]
    alone = pipe.bits_per_dim(images()[1], generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(pipe.bits_per_dim(images(), generator=seeds)[1:2], alone)


@torch.no_grad()
def test_latent_vectors_are_those_of_the_autoencoder():
    torch.manual_seed(0)
    vae = AutoencoderMLP(sample_size=(6, 4), in_channels=3, hidden_dims=(8,), latent_dim=5, variational=True).eval()
    pipe = DensityPipeline(make_model((5,)), vae)
    assert pipe.image_shape == (3, 6, 4) and pipe(class_labels=2, output_type="pt").images.shape == (1, 3, 6, 4)
    torch.testing.assert_close(pipe.encode(images()), vae.encode(images()).latent_dist.mode())
    latents = torch.zeros(1, 6)
    expected = vae.decode(pipe.model.sample(latents, torch.tensor([2]))).sample.clamp(0, 1)
    torch.testing.assert_close(pipe(class_labels=2, latents=latents, output_type="pt").images, expected)
    with pytest.raises(ValueError, match="has no likelihood of pixels: use `log_likelihood`"):
        pipe.bits_per_dim(images())


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"class_labels": 4}, "There is no class 4"),
        ({"class_labels": 0, "batch_size": 2}, "batch_size"),
        ({"latents": torch.zeros(2, 5)}, "`latents` must be a tensor of the shape"),
        ({"output_type": "latent"}, "`output_type` must be"),
    ],
)
def test_refusals(inputs, message):
    with pytest.raises(ValueError, match=message):
        DensityPipeline(make_model())(**inputs)


def test_models_and_questions_that_do_not_fit():
    with pytest.raises(ValueError, match="`model` must be a density .*, but is a MLPGenerator"):
        DensityPipeline(MLPGenerator(4))
    with pytest.raises(ValueError, match="a density of vectors, .*: pass the `vae`"):
        DensityPipeline(KernelDensityModel((5,)))
    with pytest.raises(ValueError, match="`num_levels` must be"):
        DensityPipeline(make_model(), num_levels=1)
    with pytest.raises(ValueError, match="has no classes"):
        DensityPipeline(make_model(num_classes=None)).classify(images())
    with pytest.raises(ValueError, match="because the model has no classes"):
        DensityPipeline(make_model(num_classes=None)).log_likelihood(images(), 1)
