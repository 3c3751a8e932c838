import pytest
import torch

from diffusers_ext.models import GlideTextModel
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


TOKENS = torch.tensor([[6, 1, 7, 0, 0], [6, 2, 3, 4, 7]])
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])


class GlideTextConfig(ModelTesterConfig):
    model_class = GlideTextModel
    output_shape = (2, 5, 8)

    def get_init_dict(self):
        return {
            "vocab_size": 8,
            "max_position_embeddings": 5,
            "hidden_size": 8,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "projection_dim": 6,
        }

    def get_inputs(self):
        return {"input_ids": TOKENS, "attention_mask": MASK}


class TestGlideText(GlideTextConfig, ModelTesterMixin):
    def test_every_parameter_gets_a_gradient(self):
        """Of both outputs together: the text as a whole has a projection of its own."""
        model = self.get_model().train()
        output = model(TOKENS, MASK)
        (output.last_hidden_state.square().sum() + output.pooler_output.square().sum()).backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())

    @torch.no_grad()
    def test_what_stands_in_the_padding_has_no_effect(self):
        model = self.get_model()
        others = TOKENS.clone()
        others[0, 3:] = 5
        pooled = model(TOKENS, MASK).pooler_output
        torch.testing.assert_close(model(others, MASK).pooler_output, pooled)
        assert not torch.equal(model(others).pooler_output, model(TOKENS).pooler_output)

    @torch.no_grad()
    def test_texts_of_another_length_are_refused(self):
        with pytest.raises(ValueError, match=r"`input_ids` must be \(N, 5\)"):
            self.get_model()(TOKENS[:, :4])

    def test_heads_must_divide_the_width(self):
        with pytest.raises(ValueError, match="`num_attention_heads` must divide `hidden_size`, 8, but is 3"):
            GlideTextModel(**{**self.get_init_dict(), "num_attention_heads": 3})
