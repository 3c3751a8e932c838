import pytest
import torch

from diffusers_ext.models.modeling_imagen_unet import ImagenUNet
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class ImagenUNetConfig(ModelTesterConfig):
    """A super-resolver with all layers."""

    model_class = ImagenUNet
    output_shape = (3, 3, 8, 8)

    def get_init_dict(self):
        widths = {"block_out_channels": (8, 16), "encoder_hid_dim": 6, "cross_attention_dim": 8}
        attention = {"block_attention": (False, True), "block_cross_attention": (False, True), "layers_per_block": 1}
        sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "max_text_length": 5, "num_text_latents": 2}
        options = {"class_embed_type": "timestep", "in_channels": 6, "downsample_first": True}
        return {**widths, **attention, **sizes, **options, "combine_upsampled": True, "combine_first": True}

    def get_inputs(self):
        draw = torch.Generator().manual_seed(0)
        return {
            "sample": torch.randn(3, 6, 8, 8, generator=draw),
            "timestep": torch.tensor([255, 262, 270]),
            "encoder_hidden_states": torch.randn(3, 4, 6, generator=draw),
            "class_labels": torch.tensor([690.0, 700.0, 710.0]),
            "encoder_attention_mask": torch.arange(4) < torch.tensor([[2], [4], [0]]),
        }


class ImagenTrainingMixin:
    def test_every_parameter_gets_a_gradient(self):
        """But for a bias before a softmax, which has no effect, and is kept because the originals have it."""
        gradients = self.loss_gradients(self.get_model().train())
        without = {name for name, gradient in gradients.items() if gradient is None or not gradient.any()}
        assert without <= {name for name in gradients if name.endswith(".gate.to_weights.bias")}


class TestImagenUNet(ImagenUNetConfig, ImagenTrainingMixin, ModelTesterMixin):
    @torch.no_grad()
    def test_padding_and_hidden_texts_have_no_effect(self):
        model, inputs = self.get_model(), self.get_inputs()
        expected, states = model(**inputs).sample, inputs["encoder_hidden_states"].clone()
        states[0, 2:] += 1
        states[2] += 1
        found = model(**{**inputs, "encoder_hidden_states": states}).sample
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        states[0, 0] += 1
        found = model(**{**inputs, "encoder_hidden_states": states}).sample
        assert not torch.equal(found[0], expected[0])

    @pytest.mark.parametrize(
        "options, message",
        [
            ({"in_channels": 5}, "`in_channels` of a super-resolver must be even"),
            ({"class_embed_type": "projection"}, '`class_embed_type` must be None or "timestep"'),
            ({"noise_schedule": "sigmoid"}, "`noise_schedule` must be"),
            ({"layers_per_block": (1, 1, 1)}, "`layers_per_block` must be one value or 2"),
            ({"max_text_length": 513}, "`max_text_length` must be at most 512"),
        ],
    )
    def test_arguments_that_do_not_fit_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message), torch.device("meta"):
            ImagenUNet(**{**self.get_init_dict(), **options})

    def test_inputs_that_do_not_fit_are_refused(self):
        model, inputs = self.get_model(), self.get_inputs()
        with pytest.raises(ValueError, match="must be states of at most 5 tokens, but are of 6"):
            model(**{**inputs, "encoder_hidden_states": torch.zeros(3, 6, 6), "encoder_attention_mask": None})
        with pytest.raises(ValueError, match="`class_labels` are for networks with `class_embed_type`"):
            model(**{**inputs, "class_labels": None})
