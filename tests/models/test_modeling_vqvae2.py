import pytest
import torch
from sklearn.datasets import load_digits

from diffusers_ext.models.modeling_vqvae2 import VQVAE2Model
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class VQVAE2Config(ModelTesterConfig):
    model_class = VQVAE2Model
    output_shape = (2, 3, 8, 16)

    def get_init_dict(self):
        return {
            "sample_size": (8, 16),
            "num_embeddings": 6,
            "embedding_dim": 4,
            "hidden_channels": 16,
            "residual_channels": 4,
        }

    def get_inputs(self):
        return {"sample": torch.randn((2, 3, 8, 16), generator=torch.Generator().manual_seed(0))}

    def get_model(self):
        """Entries are far from each other, so that rounding does not change the nearest one."""
        model = super().get_model()
        with torch.no_grad():
            model.top_quantizer.embeddings.normal_()
            model.bottom_quantizer.embeddings.normal_()
        return model


class TestVQVAE2(VQVAE2Config, ModelTesterMixin):
    pass


@pytest.mark.parametrize("num_downsamples, size", [(1, (4, 8)), (2, (32, 24)), (3, (16, 48))])
def test_sizes(num_downsamples, size):
    model = VQVAE2Model(size, 1, hidden_channels=4, num_downsamples=num_downsamples, num_residual_layers=1)
    output = model(torch.zeros(1, 1, *size))
    top, bottom = (tuple(side // 2**halvings for side in size) for halvings in (num_downsamples + 1, num_downsamples))
    assert output.sample.shape == (1, 1, *size)
    assert [codes.shape for codes in output.codes] == [(1, *top), (1, *bottom)]
    assert [latents.shape for latents in output.latents] == [(1, 64, *top), (1, 64, *bottom)]


@torch.no_grad()
def test_decoding_quantizes_both_levels():
    model, sample = VQVAE2Config().get_model(), VQVAE2Config().get_inputs()["sample"]
    output = model(sample)
    latents = model.encode(sample).latents
    quantized = model.quantize(latents)
    for level in range(2):
        assert latents[level].equal(output.latents[level]) and quantized.codes[level].equal(output.codes[level])
    torch.testing.assert_close(model.decode(latents).sample, output.sample)
    torch.testing.assert_close(model.decode(model.embed_codes(output.codes)).sample, output.sample)
    torch.testing.assert_close(quantized.loss, output.loss)
    assert len(model.quantize(latents, return_dict=False)) == 3
    assert model.encode(sample, return_dict=False)[0][0].equal(latents[0])


@torch.no_grad()
def test_the_bottom_level_sees_the_top_one():
    model, sample = VQVAE2Config().get_model(), VQVAE2Config().get_inputs()["sample"]
    before = model.encode(sample).latents
    model.top_quantizer.embeddings.neg_()
    after = model.encode(sample).latents
    assert before[0].equal(after[0]) and not torch.allclose(before[1], after[1])


@pytest.mark.slow
def test_it_learns_digits_and_uses_its_codebooks():
    torch.manual_seed(0)
    images = torch.from_numpy(load_digits().images[:128]).float()[:, None] / 8 - 1
    model = VQVAE2Model(
        8,
        1,
        num_embeddings=16,
        embedding_dim=8,
        hidden_channels=16,
        residual_channels=8,
        num_downsamples=1,
        ema_decay=0.9,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        output = model(images)
        loss = (output.sample - images).square().mean() + output.loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.update_codebook(output.codes, [latents.detach() for latents in output.latents], generator)
    error = (model(images).sample - images).square().mean()
    assert error < 0.4 * images.var()
    usage, perplexity = model.code_usage(output.codes), model.code_perplexity(output.codes)
    assert usage.shape == perplexity.shape == (2,)
    assert usage.min() > 0.3 and (perplexity <= 16 * usage).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sample_size": 28}, "Height and width must be multiples of 8, but are 28 and 28"),
        ({"embedding_dim": 0}, "must be positive, but are 256, 3, 512 and 0"),
        ({"hidden_channels": 1}, "`hidden_channels` must be at least 2"),
        ({"ema_decay": -1}, r"must be in \[0, 1\), but are -1 and 0.1"),
        ({"output_activation": "tanh", "sample_range": (0.0, 1.0)}, "the range of a tanh"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VQVAE2Model(**arguments)


def test_images_and_latents_that_do_not_fit_are_refused():
    model = VQVAE2Config().get_model()
    with pytest.raises(ValueError, match=r"`sample` must be of the shape \(N, 3, H, W\), but is of \(2, 1, 8, 8\)"):
        model(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="Height and width must be multiples of 8, but are 8 and 12"):
        model(torch.zeros(2, 3, 8, 12))
    with pytest.raises(ValueError, match=r"The top latents must have the shape \(N, 4, h, w\)"):
        model.decode((torch.zeros(2, 3, 1, 1), torch.zeros(2, 4, 2, 2)))
    with pytest.raises(ValueError, match="must be twice as high and wide"):
        model.decode((torch.zeros(2, 4, 1, 1), torch.zeros(2, 4, 1, 2)))
    trained = VQVAE2Model(8, hidden_channels=4, use_ema=False)
    with pytest.raises(ValueError, match="trained by gradients"):
        trained.update_codebook((torch.zeros(1), torch.zeros(1)), (torch.zeros(1), torch.zeros(1)))
