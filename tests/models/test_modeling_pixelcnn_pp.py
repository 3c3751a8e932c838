import pytest
import torch

from diffusers_ext.models.modeling_pixelcnn_pp import PixelCNNPlusPlus
from tests.converters.cases import assert_near, load_case
from tests.models.pixels import PixelTesterMixin
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class PixelCNNPlusPlusConfig(ModelTesterConfig):
    model_class = PixelCNNPlusPlus
    output_shape = (3, 20, 8, 4)

    def get_init_dict(self):
        return {
            "sample_size": (8, 4),
            "hidden_channels": 6,
            "num_resnets": 1,
            "num_mixtures": 2,
            "dropout": 0.0,
            "num_classes": 4,
        }

    def get_inputs(self):
        sample = torch.rand((3, 3, 8, 4), generator=torch.Generator().manual_seed(0)) * 2 - 1
        return {"sample": sample, "class_labels": torch.tensor([3, 0, 3])}


class MixturePixelTesterMixin(PixelTesterMixin):
    test_probabilities_of_all_images_sum_to_one = None  # see below
    test_drawn_values_have_their_probabilities = None


class TestPixelCNNPlusPlus(PixelCNNPlusPlusConfig, ModelTesterMixin, MixturePixelTesterMixin):
    pass


class TestGrayPixelCNNPlusPlus(MixturePixelTesterMixin, PixelCNNPlusPlusConfig):
    def get_init_dict(self):
        return {"sample_size": 8, "in_channels": 1, "hidden_channels": 4, "num_resnets": 2, "num_scales": 2}

    def get_inputs(self):
        return {"sample": torch.rand((2, 1, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1}


def mixture(case) -> PixelCNNPlusPlus:
    """A network with the distribution of a case."""
    config = case.config
    return PixelCNNPlusPlus(
        8, config["channels"], hidden_channels=1, num_resnets=1, num_mixtures=config["nr_logistic_mix"]
    )


@pytest.mark.parametrize("name", ["loss_grey", "loss_rgb"])
def test_likelihoods_are_those_of_the_original(name):
    case = load_case("pixel_cnn_pp", name)
    parameters = case.inputs["l"].requires_grad_()
    losses = -mixture(case).log_prob(parameters, case.inputs["x"])
    losses.sum().backward()
    assert_near(losses, case.outputs["loss_per_pixel"])
    assert_near(parameters.grad, case.outputs["grad_l"])


@pytest.mark.parametrize("name", ["sample_grey", "sample_rgb"])
@torch.no_grad()
def test_drawn_pixels_are_those_of_the_original(name):
    case = load_case("pixel_cnn_pp", name)
    uniforms = torch.cat([case.inputs["uniform_mix"], case.inputs["uniform_value"]], dim=-1).flatten(0, 2)
    drawn = mixture(case).draw_values(case.inputs["l"].movedim(1, -1).flatten(0, 2), uniforms, 1.0)
    assert_near(drawn, case.outputs["sample"].movedim(1, -1).flatten(0, 2))


@pytest.mark.parametrize("num_levels", [2, 17, 256])
@torch.no_grad()
def test_probabilities_of_all_levels_sum_to_one(num_levels):
    torch.manual_seed(0)
    model = PixelCNNPlusPlus(8, 1, num_levels, hidden_channels=1, num_resnets=1, num_mixtures=3)
    values = torch.linspace(-1, 1, num_levels)[None, None, None]
    parameters = torch.randn(4, 9, 1, 1).expand(-1, -1, -1, num_levels)
    total = model.log_prob(parameters, values.expand(4, -1, -1, -1)).exp().sum(dim=(1, 2))
    torch.testing.assert_close(total, torch.ones(4), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"in_channels": 2}, "`in_channels` must be 1 or 3"),
        ({"num_levels": 257}, "`num_levels` at most 256"),
        ({"num_scales": 0}, "`num_scales` must be at least 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PixelCNNPlusPlus(**arguments)


def test_sides_that_can_not_be_halved_are_refused():
    model = PixelCNNPlusPlus(8, 1, hidden_channels=2, num_resnets=1)
    with pytest.raises(ValueError, match="must be multiples of 4"):
        model(torch.zeros(1, 1, 8, 6))
