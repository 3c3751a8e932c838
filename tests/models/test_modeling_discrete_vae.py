import pytest
import torch

from diffusers_ext.models.modeling_discrete_vae import DiscreteVAE
from diffusers_ext.pipelines.image_tokens import ImageTokens
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class DiscreteVAEConfig(ModelTesterConfig):
    model_class = DiscreteVAE
    output_shape = (2, 3, 8, 12)

    def get_init_dict(self):
        return {
            "num_embeddings": 6,
            "hidden_channels": 8,
            "init_channels": 8,
            "layers_per_block": 1,
            "num_downsamples": 2,
        }

    def get_inputs(self):
        generator = torch.Generator().manual_seed(0)
        sample, uniforms = (
            torch.rand((2, 3, 8, 12), generator=generator),
            torch.rand((2, 6, 2, 3), generator=generator),
        )
        return {"sample": sample, "noise": -torch.log(-torch.log(uniforms))}


class TestDiscreteVAE(DiscreteVAEConfig, ModelTesterMixin):
    pass


@torch.no_grad()
def test_a_cold_softmax_decodes_the_drawn_codes():
    config = DiscreteVAEConfig()
    model, inputs = config.get_model(), config.get_inputs()
    logits = model(**inputs).logits
    drawn = (logits + inputs["noise"]).argmax(dim=1)
    expected = model.decode(model.embed_codes(drawn)).sample
    torch.testing.assert_close(model(**inputs, temperature=1e-4).sample, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_it_gives_image_tokens():
    config = DiscreteVAEConfig()
    model, sample = config.get_model(), config.get_inputs()["sample"]
    tokens = ImageTokens(model)
    assert (tokens.num_codes, tokens.pixels_per_code, tokens.image_channels) == (6, 4, 3)
    codes = tokens.encode(2 * sample - 1)
    assert torch.equal(codes, model(sample).codes)
    torch.testing.assert_close(tokens.decode(codes), 2 * model(sample).sample - 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"hidden_channels": 3}, "`hidden_channels` must be at least 4"),
        ({"num_embeddings": 0}, "`num_embeddings` must be at least 1"),
        ({"sample_range": (-1.0, 1.0)}, r"`sample_range` \(0, 1\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DiscreteVAE(**arguments)


@pytest.mark.parametrize(
    "shape, message", [((1, 3, 6, 8), "must be multiples of 4"), ((1, 1, 8, 8), r"\(N, 3, H, W\)")]
)
def test_images_that_do_not_fit_are_refused(shape, message):
    model = DiscreteVAEConfig().get_model()
    with pytest.raises(ValueError, match=message):
        model.encode(torch.zeros(shape))
