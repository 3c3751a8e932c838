import pytest
import torch

from diffusers_ext.models.modeling_pixel_transformer import PixelTransformer
from tests.models.pixels import PixelTesterMixin
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class PixelTransformerConfig(ModelTesterConfig):
    model_class = PixelTransformer
    output_shape = (3, 3 * 5, 4, 6)

    def get_init_dict(self):
        return {
            "sample_size": (4, 6),
            "num_levels": 5,
            "hidden_size": 16,
            "num_layers": 2,
            "num_attention_heads": 2,
            "num_classes": 4,
        }

    def get_inputs(self):
        sample = torch.randint(5, (3, 3, 4, 6), generator=torch.Generator().manual_seed(0)) / 2 - 1
        return {"sample": sample, "class_labels": torch.tensor([3, 0, 3])}


class TestPixelTransformer(PixelTransformerConfig, ModelTesterMixin, PixelTesterMixin):
    sees_exact_values = False


class TestGrayPixelTransformer(PixelTesterMixin, PixelTransformerConfig):
    sees_exact_values = False

    def get_init_dict(self):
        return {**super().get_init_dict(), "in_channels": 1, "num_classes": None}

    def get_inputs(self):
        return {"sample": torch.randint(5, (2, 1, 4, 6), generator=torch.Generator().manual_seed(0)) / 2 - 1}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"hidden_size": 10}, "`hidden_size` must be a multiple of the 4 attention heads"),
        ({"num_layers": 0}, "`num_layers` must be at least 1"),
        ({"num_levels": 1}, "`num_levels` at least 2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PixelTransformer(**arguments)


def test_images_of_another_size_are_refused():
    model = PixelTransformer(4, 1, 2, hidden_size=4, num_layers=1)
    with pytest.raises(ValueError, match="`sample` must have the size 4"):
        model(torch.zeros(1, 1, 4, 5))
