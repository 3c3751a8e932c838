import pytest
import torch

from diffusers_ext.models.modeling_pixelcnn import GatedPixelCNN, PixelCNN
from tests.models.pixels import PixelTesterMixin
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class PixelCNNConfig(ModelTesterConfig):
    model_class = PixelCNN
    output_shape = (3, 3 * 5, 6, 8)

    def get_init_dict(self):
        return {
            "sample_size": (6, 8),
            "num_levels": 5,
            "hidden_channels": 6,
            "num_layers": 2,
            "first_kernel_size": 5,
            "num_classes": 4,
        }

    def get_inputs(self):
        sample = torch.rand((3, 3, 6, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
        return {"sample": sample, "class_labels": torch.tensor([3, 0, 3])}


class GatedPixelCNNConfig(PixelCNNConfig):
    model_class = GatedPixelCNN

    def get_init_dict(self):
        return {
            "sample_size": (6, 8),
            "num_levels": 5,
            "hidden_channels": 6,
            "kernel_size": 5,
            "dilations": (1, 2),
            "num_classes": 4,
        }


class TestPixelCNN(PixelCNNConfig, ModelTesterMixin, PixelTesterMixin):
    # the blind spot of masked convolutions, which Gated PixelCNN does not have
    sees_all_before = False


class TestGatedPixelCNN(GatedPixelCNNConfig, ModelTesterMixin, PixelTesterMixin):
    pass


class TestGrayGatedPixelCNN(PixelTesterMixin, GatedPixelCNNConfig):
    def get_init_dict(self):
        return {"sample_size": 6, "in_channels": 1, "num_levels": 4, "hidden_channels": 4, "dilations": (1, 2, 1)}

    def get_inputs(self):
        return {"sample": torch.rand((2, 1, 6, 6), generator=torch.Generator().manual_seed(0)) * 2 - 1}


@pytest.mark.parametrize("model_class", [PixelCNN, GatedPixelCNN])
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"hidden_channels": 4}, "`hidden_channels` must be a multiple of the 3 channels"),
        ({"num_levels": 1}, "`num_levels` at least 2"),
        ({"num_classes": 0}, "`num_classes` must be at least 1"),
        ({"kernel_size": 4}, "an odd kernel of at least 3"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(model_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        model_class(**arguments)


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"`sample` must be \(N, 3, H, W\)"):
        GatedPixelCNN(hidden_channels=3, dilations=(1,))(torch.zeros(1, 1, 4, 4))
