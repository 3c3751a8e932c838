import pytest
import torch

from diffusers_ext.models.modeling_multi_query_prior import MultiQueryPriorTransformer
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class MultiQueryPriorTransformerConfig(ModelTesterConfig):
    model_class = MultiQueryPriorTransformer
    output_shape = (3, 8)

    def get_init_dict(self):
        sizes = {"embedding_dim": 8, "num_embeddings": 5, "num_timesteps": 10}
        return {**sizes, "num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1}

    def get_inputs(self):
        draw = torch.Generator().manual_seed(0)
        hidden_states, proj_embedding = torch.randn(2, 3, 8, generator=draw)
        return {
            "hidden_states": hidden_states,
            "timestep": torch.tensor([0, 4, 9]),
            "proj_embedding": proj_embedding,
            "encoder_hidden_states": torch.randn(3, 5, 8, generator=draw),
            "attention_mask": torch.arange(5) < torch.tensor([[2], [5], [0]]),
        }


class TestMultiQueryPriorTransformer(MultiQueryPriorTransformerConfig, ModelTesterMixin):
    def test_texts_of_another_length_are_refused(self):
        with pytest.raises(ValueError, match="must be states of 5 tokens, padding included, but are of 4"):
            self.get_model()(**{**self.get_inputs(), "encoder_hidden_states": torch.zeros(3, 4, 8)})
