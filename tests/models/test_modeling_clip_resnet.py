import pytest
import torch

from diffusers_ext.models import CLIPResNetModel
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class CLIPResNetConfig(ModelTesterConfig):
    model_class = CLIPResNetModel
    output_shape = (3, 2)

    def get_init_dict(self):
        return {
            "layers": (1, 1, 1, 1),
            "width": 4,
            "head_dim": 32,
            "vocab_size": 8,
            "max_length": 5,
            "text_dim": 8,
            "num_text_layers": 1,
            "num_text_heads": 2,
            "projection_dim": 6,
            "eos_token_id": 7,
        }

    def get_inputs(self):
        pixels = torch.randn((3, 3, 32, 32), generator=torch.Generator().manual_seed(0))
        return {"pixel_values": pixels, "input_ids": torch.tensor([[6, 1, 7, 0, 0], [6, 2, 3, 4, 7]])}


class TestCLIPResNet(CLIPResNetConfig, ModelTesterMixin):
    def test_what_is_no_network_is_refused(self):
        with pytest.raises(ValueError, match="`sample_size` must be a multiple of 32, but is 48"):
            CLIPResNetModel(sample_size=48)

    def test_images_of_another_shape_are_refused(self):
        inputs = {**self.get_inputs(), "pixel_values": torch.zeros(3, 3, 64, 64)}
        with pytest.raises(ValueError, match=r"`pixel_values` must be \(N, 3, 32, 32\)"):
            self.get_model()(**inputs)
