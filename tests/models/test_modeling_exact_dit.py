import torch
from diffusers import DiTTransformer2DModel

from diffusers_ext.models.modeling_exact_dit import ExactDiTTransformer2DModel
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class ExactDiTConfig(ModelTesterConfig):
    model_class = ExactDiTTransformer2DModel
    output_shape = (2, 6, 4, 4)

    def get_init_dict(self):
        sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 4}
        return {**sizes, "in_channels": 3, "out_channels": 6, "patch_size": 2, "num_embeds_ada_norm": 5}

    def get_inputs(self):
        sample = torch.randn((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
        labels = torch.tensor([5, 2])
        return {"hidden_states": sample, "timestep": torch.tensor([3, 900]), "class_labels": labels}


class TestExactDiT(ExactDiTConfig, ModelTesterMixin):
    @torch.no_grad()
    def test_training_drops_no_labels(self):
        model = self.get_model()
        expected = model(**self.get_inputs()).sample
        torch.testing.assert_close(model.train()(**self.get_inputs()).sample, expected, rtol=0, atol=0)

    @torch.no_grad()
    def test_weights_fit_the_class_of_diffusers_which_computes_something_else(self):
        model = self.get_model()
        stock = DiTTransformer2DModel(**self.get_init_dict()).eval()
        stock.load_state_dict(model.state_dict())
        inputs = self.get_inputs()
        difference = (stock(**inputs).sample - model(**inputs).sample).abs().amax(dim=(1, 2, 3))
        assert difference[1] > 1e-3  # at timestep 900 of 1000
        stock.transformer_blocks[0].norm1.emb.time_proj.downscale_freq_shift = 0
        stock.transformer_blocks[1].norm1.emb.time_proj.downscale_freq_shift = 0
        torch.testing.assert_close(stock(**inputs).sample, model(**inputs).sample, rtol=0, atol=1e-4)
