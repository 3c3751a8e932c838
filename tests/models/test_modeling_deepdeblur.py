import pytest
import torch

from diffusers_ext.models.modeling_deepdeblur import DeepDeblurNet, halve
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class TestDeepDeblurNet(ModelTesterConfig, ModelTesterMixin):
    model_class = DeepDeblurNet
    output_shape = (2, 3, 8, 12)

    def get_init_dict(self):
        return {"base_channels": 4, "num_blocks": 1, "num_scales": 3, "kernel_size": 3}

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 8, 12), generator=torch.Generator().manual_seed(0))}


@torch.no_grad()
def test_the_coarser_images_are_made_of_the_finest():
    model = DeepDeblurNet(base_channels=4, num_blocks=1).eval()
    image = torch.rand(1, 3, 8, 12)
    made, given = model(image), model(image, (halve(image), halve(halve(image))))
    assert torch.equal(made.sample, given.sample)
    assert [tuple(level.shape) for level in made.coarser] == [(1, 3, 4, 6), (1, 3, 2, 3)]
    with pytest.raises(ValueError, match="`coarser` must be 2 batches of images, but is 1"):
        model(image, (image,))


def test_it_is_as_large_as_the_original():
    with torch.device("meta"):
        assert sum(p.numel() for p in DeepDeblurNet().parameters()) == 11_721_321


@pytest.mark.parametrize(
    "arguments, message",
    [({"num_scales": 0}, "positive"), ({"kernel_size": 4}, "odd"), ({"in_channels": 1}, "must be equal")],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DeepDeblurNet(**arguments)
