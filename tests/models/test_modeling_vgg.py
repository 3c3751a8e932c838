import pytest
import torch

from diffusers_ext.models.modeling_vgg import VGG
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
)


class TestVGG(ModelTesterConfig, ModelOutputTesterMixin, ModelSaveLoadTesterMixin, ModelCompileTesterMixin):
    model_class = VGG
    output_shape = (2, 3)

    def get_init_dict(self):
        return {
            "block_out_channels": (4, 6),
            "layers_per_block": (1, 2),
            "padding_mode": "reflect",
            "num_classes": 3,
        }

    def get_inputs(self):
        return {"sample": torch.rand((2, 3, 9, 12), generator=torch.Generator().manual_seed(0))}

    @pytest.mark.slow
    def test_compiles_as_one_graph(self):
        super().test_compiles_as_one_graph()

    def test_its_layers_have_the_usual_names(self):
        model = self.get_model()
        maps = dict(zip(model.layers, model.encode(self.get_inputs()["sample"]), strict=True))
        sizes = {name: tuple(features.shape[1:]) for name, features in maps.items()}
        assert sizes == {"relu1_1": (4, 9, 12), "relu2_1": (6, 4, 6), "relu2_2": (6, 4, 6)}


def test_impossible_arguments_and_small_images_are_refused():
    with pytest.raises(ValueError, match="one for each level"):
        VGG((4, 4), (1,))
    with pytest.raises(ValueError, match="`padding_mode`"):
        VGG((4,), (1,), padding_mode="circular")
    with pytest.raises(ValueError, match="`image_std`"):
        VGG((4,), (1,), image_std=(0.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="sides of at least 4"):
        VGG((4, 4), (1, 1), padding_mode="reflect").encode(torch.zeros(1, 3, 3, 8))


def test_vgg_19_is_as_large_as_that_of_torchvision():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in VGG().parameters()) == 20_024_384
