import pytest
import torch

from diffusers_ext.models import SinGANDiscriminator, SinGANGenerator, SinGANScale
from diffusers_ext.models.modeling_singan import singan_widths
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


SIZES = ((11, 13), (14, 17))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class PyramidConfig(ModelTesterConfig):
    model_class = SinGANGenerator
    output_shape = (2, 3, 14, 17)

    def get_init_dict(self):
        return {"sizes": SIZES, "num_channels": 3, "layer_channels": ((4, 5), (6,))}

    def get_inputs(self):
        return {"noise": [normal(2, 1, 11, 13), normal(2, 3, 14, 17, seed=1)]}

    def cast_inputs(self, dtype):
        return {"noise": [noise.to(dtype) for noise in self.get_inputs()["noise"]]}


class ScaleConfig(ModelTesterConfig):
    model_class = SinGANScale
    output_shape = (2, 1, 9, 8)

    def get_init_dict(self):
        return {"num_channels": 1, "layer_channels": (4, 5), "normalization": "batch"}

    def get_inputs(self):
        return {"noise": normal(2, 1, 9, 8), "previous": normal(2, 1, 9, 8, seed=1).tanh()}


class CriticConfig(ModelTesterConfig):
    model_class = SinGANDiscriminator
    output_shape = (2, 1, 4, 3)

    def get_init_dict(self):
        return {"num_channels": 2, "layer_channels": (4, 5)}

    def get_inputs(self):
        return {"sample": normal(2, 2, 10, 9)}


class TestPyramid(PyramidConfig, ModelTesterMixin):
    pass


class TestScale(ScaleConfig, ModelTesterMixin):
    pass


class TestCritic(CriticConfig, ModelTesterMixin):
    pass


@torch.no_grad()
def test_each_scale_adds_to_the_one_before_it():
    model = PyramidConfig().get_model()
    model.noise_amplitudes[1] = 0.5
    coarse, fine = PyramidConfig().get_inputs()["noise"]
    first = model([coarse]).sample
    assert first.shape == (2, 3, 11, 13)
    whole = model([coarse, fine]).sample
    torch.testing.assert_close(model([fine], first, first_scale=1).sample, whole)
    assert not torch.allclose(model([coarse, -fine]).sample, whole, atol=1e-4)
    model.noise_amplitudes[1] = 0.0
    torch.testing.assert_close(model([coarse, -fine]).sample, model([coarse, fine]).sample)


def test_sizes_and_widths_are_those_of_the_pyramid():
    model = PyramidConfig().get_model()
    assert model.sizes_for(28, 17) == [(22, 13), (28, 17)]
    assert model.noise_shapes(14, 34) == [(1, 11, 26), (3, 14, 34)]
    assert [noise.shape[1:] for noise in model.reconstruction_noise()] == [(1, *size) for size in SIZES]
    assert [widths[0] for widths in singan_widths(10)] == [32] * 4 + [64] * 4 + [128] * 2
    with pytest.raises(ValueError, match="has none at the coarsest scale"):
        SinGANGenerator(((2, 2), (20, 20)), layer_channels=((4,), (4,))).sizes_for(4, 40)


@torch.no_grad()
def test_scales_are_shared_and_each_image_is_normalized_alone():
    model = PyramidConfig().get_model()
    shared = SinGANGenerator.from_scales(list(model.scales), SIZES)
    inputs = PyramidConfig().get_inputs()
    shared.noise_amplitudes.copy_(model.noise_amplitudes)
    whole = shared(**inputs).sample
    assert torch.equal(whole, model(**inputs).sample)
    alone = shared([noise[:1] for noise in inputs["noise"]]).sample
    torch.testing.assert_close(alone, whole[:1])
    torch.testing.assert_close(shared.train()(**inputs).sample, whole)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SinGANScale(layer_channels=()), "`layer_channels` must be positive"),
        (lambda: SinGANScale(kernel_size=2), "`kernel_size` must be odd"),
        (lambda: SinGANScale(normalization="layer"), "`normalization` must be one of"),
        (lambda: SinGANGenerator(((9, 9), (8, 10))), "`sizes` must grow"),
        (lambda: SinGANGenerator(((9, 9),), layer_channels=((4,), (4,))), "an entry for each of 1 scales, not 2"),
        (lambda: SinGANGenerator(()), "`sizes` must be the height and width"),
        (lambda: SinGANScale()(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5)), "must both be"),
        (lambda: SinGANDiscriminator()(torch.zeros(1, 3, 10, 11)), "sides of at least 11 pixels"),
        (lambda: PyramidConfig().get_model()([]), "`noise` must be for scales from 0 to 1"),
        (lambda: PyramidConfig().get_model()([torch.zeros(1, 1, 4, 4)], None, 1), "`previous` must be given exactly"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
