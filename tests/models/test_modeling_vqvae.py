import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from diffusers_ext.models.modeling_vqvae import VQVAEModel
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTesterMixin,
)


class ConvConfig(ModelTesterConfig):
    model_class = VQVAEModel
    output_shape = (2, 3, 8, 12)

    def get_init_dict(self):
        return {
            "sample_size": (8, 12),
            "num_embeddings": 6,
            "embedding_dim": 4,
            "hidden_channels": 8,
            "residual_channels": 4,
        }

    def get_inputs(self):
        return {"sample": torch.randn((2, 3, 8, 12), generator=torch.Generator().manual_seed(0))}

    def get_model(self):
        """Entries are far from each other, so that rounding does not change the nearest one."""
        model = super().get_model()
        with torch.no_grad():
            model.quantizer.embeddings.normal_()
        return model


class MLPConfig(ConvConfig):
    output_shape = (2, 1, 4, 4)

    def get_init_dict(self):
        return {
            "sample_size": 4,
            "in_channels": 1,
            "body": "mlp",
            "num_embeddings": 6,
            "embedding_dim": 2,
            "hidden_dims": (16, 12),
            "latent_dim": 8,
            "use_ema": False,
            "output_activation": "sigmoid",
            "sample_range": (0.0, 1.0),
        }

    def get_inputs(self):
        return {"sample": torch.rand((2, 1, 4, 4), generator=torch.Generator().manual_seed(0))}


class TestConv(ConvConfig, ModelTesterMixin):
    pass


class TestMLP(MLPConfig, ModelOutputTesterMixin, ModelSaveLoadTesterMixin, ModelCompileTesterMixin):
    pass


@pytest.mark.parametrize("num_downsamples, size", [(1, (2, 6)), (2, (28, 28)), (3, (16, 40))])
@pytest.mark.parametrize("num_residual_layers", [0, 2])
def test_sizes(num_downsamples, size, num_residual_layers):
    model = VQVAEModel(
        size, 1, hidden_channels=4, num_downsamples=num_downsamples, num_residual_layers=num_residual_layers
    )
    output = model(torch.zeros(1, 1, *size))
    small = tuple(side // 2**num_downsamples for side in size)
    assert output.sample.shape == (1, 1, *size)
    assert output.codes.shape == (1, *small) and output.latents.shape == (1, 64, *small)
    # other sizes than `sample_size`
    assert model(torch.zeros(1, 1, 16, 24)).sample.shape == (1, 1, 16, 24)


@pytest.mark.parametrize("config", [ConvConfig(), MLPConfig()])
@torch.no_grad()
def test_quantization_takes_the_nearest_entries(config):
    model = config.get_model()
    latents = model.encode(config.get_inputs()["sample"]).latents
    quantized = model.quantize(latents)
    vectors = latents.movedim(1, -1).flatten(0, -2)
    codes = torch.cdist(vectors, model.quantizer.embeddings).argmin(dim=1)
    assert codes.equal(quantized.codes.flatten())
    torch.testing.assert_close(quantized.quantized, model.embed_codes(quantized.codes))
    # quantization does not change entries, and decoding quantizes
    assert model.quantize(model.embed_codes(quantized.codes)).quantized.equal(model.embed_codes(quantized.codes))
    reconstruction = model(config.get_inputs()["sample"]).sample
    torch.testing.assert_close(model.decode(latents).sample, reconstruction)
    torch.testing.assert_close(model.decode(model.embed_codes(quantized.codes)).sample, reconstruction)
    assert model.decode(latents, return_dict=False)[0].equal(model.decode(latents).sample)


def test_gradients_go_straight_through():
    """The latents get the gradient of the quantized latents; the loss moves latents to entries, or vice versa."""
    model = ConvConfig().get_model()
    latents = torch.randn(2, 4, 3, 3, requires_grad=True)
    output = model.quantize(latents)
    weights = torch.randn_like(output.quantized)
    (gradient,) = torch.autograd.grad((weights * output.quantized).sum(), latents, retain_graph=True)
    torch.testing.assert_close(gradient, weights)

    entries = model.embed_codes(output.codes)
    distance = (latents - entries).detach()
    torch.testing.assert_close(output.loss.detach(), 0.25 * distance.square().mean(dim=(1, 2, 3)))
    (gradient,) = torch.autograd.grad(output.loss.sum(), latents)
    torch.testing.assert_close(gradient, 0.25 * 2 * distance / distance[0].numel())

    trained = MLPConfig().get_model()
    latents = torch.randn(2, 2, 4)
    output = trained.quantize(latents)
    output.loss.sum().backward()
    one_hot = F.one_hot(output.codes.flatten(), 6).float()
    distance = (trained.embed_codes(output.codes) - latents).movedim(1, -1).flatten(0, 1).detach()
    torch.testing.assert_close(trained.quantizer.embeddings.grad, one_hot.T @ (2 * distance / 8))


@torch.no_grad()
def test_entries_become_the_means_of_their_latents():
    model = VQVAEModel(8, num_embeddings=3, embedding_dim=2, hidden_channels=4, ema_decay=0.9, revival_threshold=0)
    model.quantizer.embeddings.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-9.0, -9.0]]))
    model.quantizer.cluster_sums.copy_(model.quantizer.embeddings)
    latents = torch.tensor([[2.0, 0.0], [4.0, 1.0], [0.0, 3.0]]).T[None, :, :, None]
    for _ in range(200):
        codes = model.quantize(latents).codes
        model.update_codebook(codes, latents)
    assert codes.flatten().tolist() == [0, 0, 1]
    expected = torch.tensor([[3.0, 0.5], [0.0, 3.0]])
    torch.testing.assert_close(model.quantizer.embeddings[:2], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.quantizer.cluster_sizes[:2], torch.tensor([2.0, 1.0]), rtol=1e-3, atol=0)


def collapsed(revival_threshold: float) -> VQVAEModel:
    """Entry 0 is near all latents, and the others are far away."""
    model = VQVAEModel(8, num_embeddings=16, embedding_dim=2, hidden_channels=4, revival_threshold=revival_threshold)
    with torch.no_grad():
        model.quantizer.embeddings.copy_(100 + 10 * torch.arange(16.0)[:, None].expand(-1, 2))
        model.quantizer.embeddings[0] = 0
        model.quantizer.cluster_sums.copy_(model.quantizer.embeddings)
    return model


@torch.no_grad()
def test_entries_out_of_use_are_revived():
    latents = torch.randn((4, 2, 8, 8), generator=torch.Generator().manual_seed(0))
    used = {}
    for threshold in (0.0, 0.1):
        model = collapsed(threshold)
        generator = torch.Generator().manual_seed(1)
        for _ in range(60):
            model.update_codebook(model.quantize(latents).codes, latents, generator)
        used[threshold] = model.code_usage(model.quantize(latents).codes).item()
    assert used == {0.0: 1 / 16, 0.1: 1.0}


@torch.no_grad()
def test_the_update_is_a_function_of_rows_and_generator():
    latents = torch.randn((4, 2, 8, 8), generator=torch.Generator().manual_seed(0))

    def updated(seed, rows):
        model = collapsed(0.9)
        torch.manual_seed(0 if rows else 1)  # this must not matter
        model.update_codebook(model.quantize(latents).codes, latents, torch.Generator().manual_seed(seed))
        return model.quantizer.embeddings

    assert updated(3, True).equal(updated(3, False))
    assert not updated(3, True).equal(updated(4, True))


def test_usage_and_perplexity():
    model = VQVAEModel(8, num_embeddings=8, hidden_channels=4)
    codes = torch.tensor([[[0, 1], [2, 3]], [[0, 1], [2, 3]]])
    assert model.code_usage(codes).tolist() == [0.5]
    assert model.code_perplexity(codes).tolist() == pytest.approx([4.0])
    assert model.code_perplexity(torch.zeros(3, 2, 2, dtype=torch.int64)).tolist() == [1.0]


@pytest.mark.parametrize("options", [{}, {"body": "mlp", "embedding_dim": 4, "hidden_dims": (64,)}])
def test_it_learns_digits_and_uses_its_codebook(options):
    torch.manual_seed(0)
    images = torch.from_numpy(load_digits().images[:256]).float()[:, None] / 8 - 1
    sizes = {"embedding_dim": 8, "hidden_channels": 16, "residual_channels": 8, "num_downsamples": 1}
    model = VQVAEModel(8, 1, num_embeddings=32, ema_decay=0.9, **{**sizes, **options})
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        output = model(images)
        loss = (output.sample - images).square().mean() + output.loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.update_codebook(output.codes, output.latents.detach(), generator)
    error = (model(images).sample - images).square().mean()
    assert error < 0.4 * images.var()
    assert model.code_usage(output.codes).item() > 0.5


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"body": "vit"}, "`body` must be one of conv, mlp, but is 'vit'"),
        ({"sample_size": 30}, "Height and width must be multiples of 4, but are 30 and 30"),
        ({"num_embeddings": 0}, "must be positive, but are 32, 3, 0 and 64"),
        ({"hidden_channels": 1}, "`hidden_channels` must be at least 2"),
        ({"num_downsamples": 0}, "`num_downsamples` and `residual_channels` at least 1"),
        ({"body": "mlp"}, "`latent_dim` must be a multiple of `embedding_dim`"),
        ({"ema_decay": 1.0}, r"must be in \[0, 1\), but are 1.0 and 0.1"),
        ({"revival_threshold": -0.1}, r"must be in \[0, 1\), but are 0.99 and -0.1"),
        ({"output_activation": "relu"}, "`output_activation` must be one of"),
        ({"output_activation": "sigmoid"}, r"`sample_range` must be \(0.0, 1.0\), the range of a sigmoid"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        VQVAEModel(**arguments)


def test_images_and_latents_that_do_not_fit_are_refused():
    model = ConvConfig().get_model()
    with pytest.raises(ValueError, match=r"`sample` must be of the shape \(N, 3, H, W\), but is of \(2, 1, 8, 8\)"):
        model(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="Height and width must be multiples of 4, but are 8 and 10"):
        model(torch.zeros(2, 3, 8, 10))
    with pytest.raises(ValueError, match=r"`latents` must be of the shape \(N, 4, ...\), but is of \(2, 3, 2, 2\)"):
        model.decode(torch.zeros(2, 3, 2, 2))
    with pytest.raises(ValueError, match=r"`sample` must be of the shape \(N, 1, 4, 4\), but is of \(2, 1, 8, 8\)"):
        MLPConfig().get_model()(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="trained by gradients"):
        MLPConfig().get_model().update_codebook(torch.zeros(1, 4, dtype=torch.int64), torch.zeros(1, 2, 4))
