import pytest
import torch

from diffusers_ext.models.modeling_spade import SPADEEncoder, SPADEGenerator
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTrainingTesterMixin,
)


def one_hot(num_labels=3, size=(8, 12), count=2) -> torch.Tensor:
    labels = torch.randint(0, num_labels, (count, *size), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.one_hot(labels, num_labels).movedim(-1, 1).float()


class SPADEConfig(ModelTesterConfig):
    model_class = SPADEGenerator
    output_shape = (2, 3, 8, 12)

    def get_init_dict(self):
        return {
            "sample_size": (8, 12),
            "num_labels": 3,
            "base_channels": 2,
            "num_upsamplings": 2,
            "modulation_channels": 4,
        }

    def get_inputs(self):
        return {"segmentation": one_hot()}


class LatentConfig(SPADEConfig):
    def get_init_dict(self):
        return {**super().get_init_dict(), "latent_dim": 5, "normalization": "instance", "spectral_norm": False}

    def get_inputs(self):
        return {"segmentation": one_hot(), "latents": torch.randn(2, 5, generator=torch.Generator().manual_seed(1))}


class TestSPADE(
    SPADEConfig,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTrainingTesterMixin,
    ModelCompileTesterMixin,
):
    pass


class TestLatent(LatentConfig, ModelOutputTesterMixin, ModelSaveLoadTesterMixin):
    pass


def encoder() -> SPADEEncoder:
    torch.manual_seed(0)
    return SPADEEncoder(8, in_channels=1, base_channels=2, latent_dim=3).eval()


def test_the_encoder_gives_distributions_of_images_of_any_size(tmp_path):
    model = encoder()
    sample = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    posterior = model(sample).latent_dist
    assert posterior.mean.shape == posterior.logvar.shape == (2, 3) and posterior.kl().shape == (2,)
    assert torch.equal(model(sample, return_dict=False)[0].mean, posterior.mean)
    enlarged = torch.nn.functional.interpolate(sample, size=(16, 24), mode="nearest")
    assert model(enlarged).latent_dist.mean.isfinite().all()
    model.save_pretrained(tmp_path)
    loaded = SPADEEncoder.from_pretrained(tmp_path)(sample).latent_dist
    torch.testing.assert_close(loaded.mean, posterior.mean, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"`sample` must be of the shape \(N, 1, H, W\)"):
        model(sample[0])


@pytest.mark.parametrize("num_upsamplings, num_blocks", [(1, 0), (2, 1), (5, 4), (6, 4), (7, 5)])
def test_maps_are_doubled_as_often_as_asked(num_upsamplings, num_blocks):
    side = 2**num_upsamplings
    options = {"num_labels": 2, "base_channels": 2, "modulation_channels": 1, "spectral_norm": False}
    model = SPADEGenerator(side, num_upsamplings=num_upsamplings, normalization="batch", **options).eval()
    assert len(model.up_blocks) == num_blocks
    assert model(one_hot(2, (side, 2 * side), 1)).sample.shape == (1, 3, side, 2 * side)


def test_published_sizes():
    with torch.device("meta"):
        generator, style = SPADEGenerator(spectral_norm=False), SPADEEncoder(spectral_norm=False)
    assert sum(p.numel() for p in generator.parameters()) == 93_048_003
    assert sum(p.numel() for p in style.parameters()) == 10_463_424


def test_a_label_changes_only_what_is_near(tmp_path):
    model = SPADEGenerator(64, num_labels=2, base_channels=2, num_upsamplings=1, modulation_channels=4).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "scale" in name or "shift" in name:
                parameter.normal_()
    first = one_hot(2, (64, 64), 1)
    second = first.clone()
    second[:, :, 0, 0] = 1 - second[:, :, 0, 0]
    changed = (model(first).sample != model(second).sample).any(dim=1)[0]
    assert changed[0, 0] and not changed[32:, 32:].any()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_labels": 0}, "`num_labels` must be at least 1"),
        ({"latent_dim": 0}, "`latent_dim` must be at least 1"),
        ({"num_upsamplings": 8}, "from 1 to 7"),
        ({"sample_size": 40}, "must be a multiple of 32"),
        ({"normalization": "none"}, "must be one of"),
        ({"modulation_kernel_size": 2}, "an odd number"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SPADEGenerator(**{"base_channels": 1, **arguments})
    with pytest.raises(ValueError, match="a power of two"):
        SPADEEncoder(24)


@pytest.mark.parametrize(
    "options, inputs, message",
    [
        ({}, {"segmentation": one_hot(4)}, r"\(N, 3, H, W\), but is of \(2, 4, 8, 12\)"),
        ({}, {"segmentation": one_hot(size=(8, 10))}, "multiples of 4"),
        ({}, {"segmentation": one_hot(), "latents": torch.zeros(2, 5)}, "this one has none"),
        ({"instance_edges": True}, {"segmentation": one_hot()}, r"\(N, 4, H, W\)"),
        ({"latent_dim": 5}, {"segmentation": one_hot()}, r"`latents` must be of the shape \(2, 5\), but is None"),
        (
            {"latent_dim": 5},
            {"segmentation": one_hot(size=(8, 8)), "latents": torch.zeros(2, 5)},
            r"the size \(8, 12\)",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(options, inputs, message):
    model = SPADEGenerator(**{**SPADEConfig().get_init_dict(), "spectral_norm": False, **options})
    with pytest.raises(ValueError, match=message):
        model(**inputs)
