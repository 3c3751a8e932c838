import math

import pytest
import torch
from torch.distributions import Categorical, LowRankMultivariateNormal, MixtureSameFamily, MultivariateNormal

from diffusers_ext.models import GaussianMixtureModel, KernelDensityModel
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class DensityConfig(ModelTesterConfig):
    output_shape = (3,)

    def get_model(self):
        model = super().get_model()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.rand(parameter.shape, generator=torch.Generator().manual_seed(1)))
        return model

    def get_inputs(self):
        sample = torch.rand((3, 2, 2, 3), generator=torch.Generator().manual_seed(0)) * 2 - 1
        return {"sample": sample, "class_labels": torch.tensor([1, 0, 1])}


class FullConfig(DensityConfig):
    model_class = GaussianMixtureModel

    def get_init_dict(self):
        return {"sample_shape": (2, 2, 3), "num_components": 3, "num_classes": 2}


class DiagonalConfig(FullConfig):
    def get_init_dict(self):
        return {**super().get_init_dict(), "covariance": "diagonal"}


class LowRankConfig(FullConfig):
    def get_init_dict(self):
        return {**super().get_init_dict(), "covariance": "low_rank", "rank": 4}

    def get_model(self):
        model = super().get_model()
        with torch.no_grad():
            directions = model.covariances.directions
            directions.copy_(torch.linalg.qr(directions).Q)
        return model


class KernelConfig(DensityConfig):
    model_class = KernelDensityModel

    def get_init_dict(self):
        return {"sample_shape": (2, 2, 3), "num_points": 5, "num_classes": 2}


def reference(model, label: int) -> MixtureSameFamily:
    """The density of a class by torch.distributions."""
    of_class = model.component_labels == label
    weights = Categorical(logits=model.log_weights()[of_class])
    if isinstance(model, KernelDensityModel):
        covariance = model.bandwidth.square() * torch.eye(model.num_dimensions)
        return MixtureSameFamily(weights, MultivariateNormal(model.points[of_class], covariance))
    parts, means = model.covariances, model.means[of_class]
    if model.config.covariance == "full":
        return MixtureSameFamily(weights, MultivariateNormal(means, scale_tril=parts.scale_tril[of_class].tril()))
    if model.config.covariance == "diagonal":
        return MixtureSameFamily(weights, MultivariateNormal(means, scale_tril=parts.stds[of_class].diag_embed()))
    noise = parts.noise_stds[of_class].square()
    factor = parts.directions[of_class] * (parts.stds[of_class].square() - noise[:, None]).sqrt()[:, None]
    diagonal = noise[:, None].expand(-1, model.num_dimensions)
    return MixtureSameFamily(weights, LowRankMultivariateNormal(means, factor, diagonal))


class DensityTesterMixin:
    @torch.no_grad()
    def test_densities_are_those_of_torch(self):
        model, inputs = self.get_model(), self.get_inputs()
        rows = inputs["sample"].flatten(1)
        by_class = torch.stack([reference(model, label).log_prob(rows) for label in range(2)], dim=1)
        output = model(**inputs)
        torch.testing.assert_close(output.class_log_probs, by_class, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(output.log_prob, by_class[torch.arange(3), inputs["class_labels"]])
        of_any = model(inputs["sample"]).log_prob
        torch.testing.assert_close(of_any, by_class.logsumexp(dim=1) - math.log(2), rtol=1e-4, atol=1e-4)

    @torch.no_grad()
    def test_samples_have_the_moments_of_the_density(self):
        model, count = self.get_model(), 20000
        latents = torch.randn((count, 1 + 12), generator=torch.Generator().manual_seed(0))
        samples = model.sample(latents, torch.ones(count, dtype=torch.int64))
        assert samples.shape == (count, 2, 2, 3)
        density, rows = reference(model, 1), samples.flatten(1)
        scale = density.variance.sqrt()
        assert ((rows.mean(dim=0) - density.mean) / scale).abs().max() < 0.05
        assert (rows.var(dim=0) / density.variance - 1).abs().max() < 0.1
        entropies = -density.log_prob(rows)  # whose mean is the entropy only for samples with the right covariances
        others = -density.log_prob(density.sample((count,)))
        assert (entropies.mean() - others.mean()).abs() < 0.15


class TestFull(FullConfig, ModelTesterMixin, DensityTesterMixin):
    pass


class TestDiagonal(DiagonalConfig, ModelTesterMixin, DensityTesterMixin):
    pass


class TestLowRank(LowRankConfig, ModelTesterMixin, DensityTesterMixin):
    pass


class TestKernel(KernelConfig, ModelTesterMixin, DensityTesterMixin):
    pass


@torch.no_grad()
def test_without_labels_samples_are_of_any_class_and_with_them_of_one():
    model = KernelDensityModel((1,), num_points=4, num_classes=2)
    model.points.copy_(torch.tensor([[0.0], [100.0], [1.0], [101.0]]))
    latents = torch.randn((400, 2), generator=torch.Generator().manual_seed(0))
    assert (model.sample(latents, torch.zeros(400, dtype=torch.int64)) < 50).all()
    assert (model.sample(latents, torch.ones(400, dtype=torch.int64)) > 50).all()
    assert 150 < (model.sample(latents) > 50).sum() < 250
    extreme = torch.tensor([[math.inf, 0.0], [-math.inf, 0.0]])
    assert (model.sample(extreme, torch.zeros(2, dtype=torch.int64)) < 50).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"covariance": "round"}, "`covariance` must be one of"),
        ({"num_components": 0}, "`num_components` must be at least 1"),
        ({"covariance": "low_rank"}, "`rank` must be from 1 to 63 for a covariance of low rank"),
        ({"covariance": "low_rank", "rank": 64}, "`rank` must be from 1 to 63"),
        ({"rank": 2}, "`rank` must be .* and None for others, but is 2 for 'full'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixtureModel(**arguments)


@pytest.mark.parametrize(
    "shape, labels, message",
    [
        ((2, 1, 8, 9), None, r"`sample` must be \(N, 1, 8, 8\), but is \(2, 1, 8, 9\)"),
        ((2, 1, 8, 8), [0, 1], "`class_labels` must be left out"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(shape, labels, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixtureModel()(torch.zeros(shape), labels and torch.tensor(labels))
    with pytest.raises(ValueError, match=r"`class_labels` must be \(2,\)"):
        KernelDensityModel(num_classes=2)(torch.zeros(2, 1, 8, 8), torch.tensor([0]))
