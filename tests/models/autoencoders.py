"""Tests of all autoencoders with latent vectors, as a mixin that complements those of `testing`."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelDtypeTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
)


class AutoencoderTesterMixin(
    ModelOutputTesterMixin, ModelSaveLoadTesterMixin, ModelDtypeTesterMixin, ModelCompileTesterMixin
):
    """All tests of `testing` except training, which needs sampled latents. `get_inputs` has two images as `sample`."""

    def get_pair(self):
        """The variational model and the plain one."""
        plain = self.model_class(**self.get_init_dict(), variational=False).eval()
        return self.get_model(), plain

    @torch.no_grad()
    def test_forward_decodes_the_mean(self):
        model, sample = self.get_model(), self.get_inputs()["sample"]
        output, posterior = model(sample), model.encode(sample).latent_dist
        for latents in (output.latents, output.mean, posterior.mean, posterior.mode(), output.latent_dist.mean):
            torch.testing.assert_close(latents, output.latents, rtol=0, atol=0)
        torch.testing.assert_close(output.logvar, posterior.logvar, rtol=0, atol=0)
        torch.testing.assert_close(model.decode(output.latents).sample, output.sample, rtol=0, atol=0)
        torch.testing.assert_close(model.decode(output.latents, return_dict=False)[0], output.sample, rtol=0, atol=0)
        assert model.encode(sample, return_dict=False)[0].mean.equal(posterior.mean)

    @torch.no_grad()
    def test_kl_is_that_of_normal_distributions(self):
        model = self.get_model()
        posterior = model.encode(self.get_inputs()["sample"]).latent_dist
        expected = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0)).sum(dim=1)
        torch.testing.assert_close(posterior.kl(), expected, rtol=1e-5, atol=1e-5)
        assert posterior.kl().shape == (2,)

    @torch.no_grad()
    def test_each_sample_has_its_generator(self):
        model, sample = self.get_model(), self.get_inputs()["sample"]

        def latents(*seeds):
            generator = [torch.Generator().manual_seed(seed) for seed in seeds]
            return model(sample, sample_posterior=True, generator=generator).latents

        posterior = model.encode(sample).latent_dist
        noise = torch.cat([torch.randn((1, posterior.mean.shape[1]), generator=g) for g in map(generator, (3, 4))])
        torch.testing.assert_close(latents(3, 4), posterior.mean + posterior.std * noise)
        assert latents(3, 4)[1].equal(latents(5, 4)[1]) and not latents(3, 4)[0].equal(latents(5, 4)[0])

    @torch.no_grad()
    def test_plain_model_has_latents_and_no_distribution(self):
        _, plain = self.get_pair()
        sample = self.get_inputs()["sample"]
        encoded, output = plain.encode(sample), plain(sample)
        assert encoded.latent_dist is None and output.mean is None and output.logvar is None
        assert encoded.latents.equal(output.latents) and len(plain(sample, return_dict=False)) == 2
        assert not [name for name, _ in plain.named_parameters() if "logvar" in name]

    @pytest.mark.parametrize("sample_range", [(0.0, 1.0), (-1.0, 1.0)])
    @torch.no_grad()
    def test_outputs_lie_in_the_range_of_the_images(self, sample_range):
        name = {(0.0, 1.0): "sigmoid", (-1.0, 1.0): "tanh"}[sample_range]
        options = self.get_init_dict() | {"output_activation": name, "sample_range": sample_range}
        model = self.model_class(**options).eval()
        sample = model.decode(torch.randn(64, model.config.latent_dim)).sample
        assert sample_range[0] <= sample.min() and sample.max() <= sample_range[1]
        with pytest.raises(ValueError, match=f"`sample_range` must be .*, the range of a {name}"):
            self.model_class(**{**options, "sample_range": (-2.0, 2.0)})

    def test_images_and_latents_that_do_not_fit_are_refused(self):
        model = self.get_model()
        _, channels, height, width = self.get_inputs()["sample"].shape
        for shape in ((2, channels + 1, height, width), (2, channels, height, width + 1), (channels, height, width)):
            with pytest.raises(
                ValueError, match=rf"`sample` must be of the shape \(N, {channels}, {height}, {width}\)"
            ):
                model(torch.zeros(shape))
        for shape in ((2, model.config.latent_dim + 1), (model.config.latent_dim,)):
            with pytest.raises(ValueError, match=rf"`latents` must be of the shape \(N, {model.config.latent_dim}\)"):
                model.decode(torch.zeros(shape))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
