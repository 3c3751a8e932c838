import pytest
import torch

from diffusers_ext.models import NoisyCLIPModel
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


TOKENS = torch.tensor([[6, 1, 7, 0, 0], [6, 2, 3, 4, 7]])


class NoisyCLIPConfig(ModelTesterConfig):
    model_class = NoisyCLIPModel
    output_shape = (3, 2)

    def get_init_dict(self):
        return {
            "sample_size": 8,
            "num_train_timesteps": 10,
            "image_dim": 8,
            "num_image_layers": 2,
            "num_image_heads": 2,
            "vocab_size": 8,
            "max_length": 5,
            "text_dim": 12,
            "num_text_layers": 1,
            "num_text_heads": 3,
            "projection_dim": 6,
            "eos_token_id": 7,
            "image_mean": (0.4, 0.5, 0.6),
        }

    def get_inputs(self):
        noisy = torch.randn((3, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        return {"sample": noisy, "timesteps": torch.tensor([0, 4, 9]), "input_ids": TOKENS}


class TestNoisyCLIP(NoisyCLIPConfig, ModelTesterMixin):
    @torch.no_grad()
    def test_texts_end_with_the_mask_or_the_first_end_token(self):
        clip = self.get_model()
        features = clip.get_text_features(TOKENS)
        mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
        torch.testing.assert_close(clip.get_text_features(TOKENS, mask), features)
        torch.testing.assert_close(clip.get_text_features(torch.tensor([[6, 1, 7, 5, 7]])), features[:1])

    @torch.no_grad()
    def test_it_sees_the_timestep(self):
        clip, inputs = self.get_model(), self.get_inputs()
        first, second = (clip.get_image_features(inputs["sample"], torch.full((3,), t)) for t in (2.0, 5.0))
        assert (first - second).abs().max() > 1e-3
        torch.testing.assert_close(clip.get_image_features(inputs["sample"], torch.full((3,), 2.3)), first)

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"patch_size": 3}, "`patch_size` must divide `sample_size`, 8, but is 3"),
            ({"num_text_heads": 5}, "`num_text_heads` must divide `text_dim`, 12, but is 5"),
            ({"activation": "relu"}, "`activation` must be"),
            ({"image_std": (1.0,)}, "`image_std` must have a number for each of 3 channels"),
        ],
    )
    def test_what_is_no_network_is_refused(self, change, message):
        with pytest.raises(ValueError, match=message):
            NoisyCLIPModel(**{**self.get_init_dict(), **change})

    def test_images_of_another_shape_are_refused(self):
        inputs = {**self.get_inputs(), "sample": torch.zeros(3, 1, 8, 8)}
        with pytest.raises(ValueError, match=r"`sample` must be \(N, 3, 8, 8\), but is \(3, 1, 8, 8\)"):
            self.get_model()(**inputs)
