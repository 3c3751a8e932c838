import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, VQModel
from PIL import Image
from torch.nn import functional as F

from diffusers_ext import AutoencoderPipeline
from diffusers_ext.models import (
    AutoencoderBurgess,
    AutoencoderConv,
    AutoencoderMLP,
    DCGANGenerator,
    VQVAE2Model,
    VQVAEModel,
)
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
)


def trained_a_little(network, seed=0):
    """Random weights, all of them, whose outputs differ from image to image."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return network.eval()


def mlp(**options):
    return trained_a_little(
        AutoencoderMLP(**{"sample_size": (6, 8), "hidden_dims": (16,), "latent_dim": 5, **options})
    )


def conv(**options):
    options = {"sample_size": 8, "in_channels": 3, "block_out_channels": (4, 8), "latent_dim": 4, **options}
    return trained_a_little(AutoencoderConv(**options))


def kl():
    return trained_a_little(
        AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=2,
        )
    )


def vq():
    return trained_a_little(
        VQModel(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            num_vq_embeddings=12,
            latent_channels=2,
        )
    )


SMALL = {"num_embeddings": 12, "embedding_dim": 4, "hidden_channels": 8, "num_residual_layers": 1}
NETWORKS = {
    "mlp": mlp,
    "deterministic": lambda: mlp(variational=False, output_activation="tanh", sample_range=(-1.0, 1.0)),
    "conv": conv,
    "burgess": lambda: trained_a_little(AutoencoderBurgess(sample_size=16, in_channels=3, hidden_dim=16)),
    "vqvae": lambda: trained_a_little(VQVAEModel(sample_size=8, residual_channels=4, **SMALL)),
    "vqvae mlp": lambda: trained_a_little(
        VQVAEModel(sample_size=8, in_channels=1, body="mlp", latent_dim=8, num_embeddings=12, embedding_dim=1)
    ),
    "vqvae2": lambda: trained_a_little(VQVAE2Model(sample_size=8, residual_channels=4, **SMALL)),
    "kl": kl,
    "vq": vq,
}


def pictures(network, count=2, seed=0):
    """Tensors (N, C, H, W) in [0, 1] of the network's shape."""
    size = network.config.get("sample_size", 8)
    size = (8, 8) if isinstance(network, (AutoencoderKL, VQModel)) else size
    size = (size, size) if isinstance(size, int) else tuple(size)
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, network.config.in_channels, *size), generator=generator)


@pytest.fixture(params=NETWORKS)
def pipe(request):
    return AutoencoderPipeline(NETWORKS[request.param]())


class AutoencoderPipelineTesterConfig(PipelineTesterConfig):
    pipeline_class = AutoencoderPipeline
    output_shape = (2, 1, 6, 8)

    def get_components(self):
        torch.manual_seed(0)
        return {"autoencoder": mlp()}

    def get_inputs(self):
        return {"batch_size": 2}


class TestAutoencoderPipelineOutput(AutoencoderPipelineTesterConfig, PipelineOutputTesterMixin):
    pass


class TestAutoencoderPipelineSaveLoad(AutoencoderPipelineTesterConfig, PipelineSaveLoadTesterMixin):
    pass


class TestAutoencoderPipelineRandomness(AutoencoderPipelineTesterConfig, PipelineRandomnessTesterMixin):
    def test_latents_are_the_first_noise(self):
        pipe = self.get_pipeline()
        latents = torch.randn((3, 5), generator=torch.Generator().manual_seed(0))
        images = pipe(latents=latents, output_type="pt").images
        assert_equal(images, self.run(pipe, batch_size=3))
        assert_equal(images, pipe.decode(latents, output_type="pt").images)


class TestAutoencoderPipelineBatch(AutoencoderPipelineTesterConfig, PipelineBatchTesterMixin):
    def test_batch_equals_singles(self):
        pipe = self.get_pipeline()
        generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        together = self.run(pipe, generator=generators)
        for seed in (0, 1):
            alone = self.run(pipe, batch_size=1, seed=seed)
            torch.testing.assert_close(together[seed : seed + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "vqvae2", "kl"])
def test_a_published_pipeline_loads_in_both_ways(name, tmp_path):
    pipe = AutoencoderPipeline(NETWORKS[name]())
    pipe.save_pretrained(tmp_path)
    image = pictures(pipe.autoencoder)
    expected = pipe.reconstruct(image, output_type="pt").images
    for loaded in (
        AutoencoderPipeline.from_pretrained(tmp_path),
        DiffusionPipeline.from_pretrained(tmp_path, trust_remote_code=True),
    ):
        assert type(loaded.autoencoder).__name__ == type(pipe.autoencoder).__name__
        torch.testing.assert_close(loaded.reconstruct(image, output_type="pt").images, expected, rtol=0, atol=1e-6)


# Images and latents


def test_a_reconstruction_is_the_networks_own(pipe):
    image, network = pictures(pipe.autoencoder), pipe.autoencoder
    low, high = network.config.get("sample_range", (-1.0, 1.0))
    with torch.no_grad():
        expected = (network(low + (high - low) * image).sample - low) / (high - low)
    found = pipe.reconstruct(image, output_type="pt").images
    torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=1e-5)
    assert found.std() > 0.01
    assert_equal(pipe.denoise(image, output_type="pt").images, found)


def test_decoding_what_was_encoded_is_a_reconstruction(pipe):
    image = pictures(pipe.autoencoder)
    latents = pipe.encode(image)
    found = pipe.decode(latents, output_type="pt").images
    torch.testing.assert_close(found, pipe.reconstruct(image, output_type="pt").images, rtol=0, atol=1e-5)


def test_all_forms_of_images_are_the_same():
    pipe = AutoencoderPipeline(conv())
    tensor = (pictures(pipe.autoencoder) * 255).round() / 255
    array = tensor.permute(0, 2, 3, 1).numpy()
    levels = (array * 255).round().astype(np.uint8)
    expected = pipe.encode(tensor)
    forms = [list(tensor), array, list(array), levels, [Image.fromarray(entry) for entry in levels]]
    for form in (*forms, torch.from_numpy(levels).permute(0, 3, 1, 2)):
        torch.testing.assert_close(pipe.encode(form), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(pipe.encode(Image.fromarray(levels[1])), expected[1:], rtol=0, atol=1e-5)


def test_latents_can_be_drawn_from_the_posterior():
    pipe = AutoencoderPipeline(mlp())
    image = pictures(pipe.autoencoder)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    drawn = pipe.encode(image, sample=True, generator=generators)
    posterior = pipe.autoencoder.encode(image).latent_dist
    noise = torch.cat([torch.randn(1, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)])
    torch.testing.assert_close(drawn, (posterior.mean + posterior.std * noise).detach())
    with pytest.raises(ValueError, match="VQVAEModel has no posterior"):
        AutoencoderPipeline(NETWORKS["vqvae"]()).encode(torch.rand(3, 8, 8), sample=True)


def test_bfloat16_is_nearly_the_same(pipe):
    image = pictures(pipe.autoencoder)
    expected = pipe.reconstruct(image, output_type="pt").images
    found = pipe.to(torch.bfloat16).reconstruct(image, output_type="pt").images
    assert found.dtype == torch.float32
    # Codes of coarsely rounded latents may be other ones.
    assert (found - expected).abs().median() < 0.05


def test_outliers_score_higher_than_what_the_network_knows():
    network = trained_a_little(AutoencoderMLP(sample_size=4, hidden_dims=(), latent_dim=1, variational=False))
    with torch.no_grad():  # it knows one pattern, in two strengths
        pattern = (torch.arange(16) % 2).float()
        network.to_mean.weight.copy_(pattern / 8)
        network.to_mean.bias.zero_()
        network.to_sample.weight.copy_(16 * (pattern[:, None] - 0.5))
        network.to_sample.bias.zero_()
    pipe = AutoencoderPipeline(network)
    known = pattern.view(1, 4, 4)
    scores = pipe.outlier_score(torch.stack([known, 1 - known]))
    expected = (pipe.reconstruct(1 - known, output_type="pt").images - (1 - known)).square().mean()
    assert scores.shape == (2,) and scores[0] < 1e-4 and scores[1] > 0.2
    torch.testing.assert_close(scores[1], expected)


# Walks


def test_an_interpolation_goes_from_one_reconstruction_to_the_other(pipe):
    first, second = pictures(pipe.autoencoder), pictures(pipe.autoencoder, seed=1)
    for method in ("linear", "spherical"):
        output = pipe.interpolate(first, second, num_steps=4, method=method, output_type="pt")
        rows = output.images.unflatten(0, (2, 4))
        assert (output.rows, output.columns, output.grid) == (2, 4, None)
        for ends, column in ((first, 0), (second, -1)):
            expected = pipe.reconstruct(ends, output_type="pt").images
            torch.testing.assert_close(rows[:, column], expected, rtol=0, atol=1e-4)


def test_interpolated_latents_are_between():
    pipe = AutoencoderPipeline(mlp())
    first, second = pictures(pipe.autoencoder, 1), pictures(pipe.autoencoder, 1, seed=1)
    one, other = pipe.encode(first), pipe.encode(second)
    images = pipe.interpolate(first, second, num_steps=3, output_type="pt").images
    torch.testing.assert_close(images[1:2], pipe.decode((one + other) / 2, output_type="pt").images)
    angle = torch.nn.functional.cosine_similarity(one, other).acos()
    middle = (one + other) * (torch.sin(angle / 2) / torch.sin(angle))
    images = pipe.interpolate(first, second, num_steps=3, method="spherical", output_type="pt").images
    torch.testing.assert_close(images[1:2], pipe.decode(middle, output_type="pt").images, rtol=0, atol=1e-5)
    same = pipe.interpolate(first, first, num_steps=3, method="spherical", output_type="pt").images
    torch.testing.assert_close(same[1], same[0], rtol=0, atol=1e-5)


def test_the_great_circle_between_opposite_latents_is_a_line():
    """With one latent, all are of one direction or of opposite ones."""
    pipe = AutoencoderPipeline(mlp(latent_dim=1))
    first, second = pictures(pipe.autoencoder, 1), pictures(pipe.autoencoder, 1, seed=1)
    with torch.no_grad():
        pipe.autoencoder.to_mean.bias -= (pipe.encode(first) + pipe.encode(second))[0] / 2
    assert pipe.encode(first) * pipe.encode(second) < 0
    straight, round_about = (
        pipe.interpolate(first, second, num_steps=4, method=method, output_type="pt").images
        for method in ("linear", "spherical")
    )
    torch.testing.assert_close(round_about, straight, rtol=0, atol=1e-5)


def test_a_traversal_moves_one_latent_at_a_time():
    pipe = AutoencoderPipeline(mlp())
    output = pipe.traverse(dimensions=[3, 1], num_steps=5, limit=2.0)
    assert (output.rows, output.columns, len(output.images)) == (2, 5, 10)
    assert output.grid.size == (5 * 8, 2 * 6)
    latents = torch.zeros(1, 5)
    latents[0, 3] = -1.0
    expected = pipe.decode(latents, output_type="np").images
    np.testing.assert_allclose(np.array(output.images[1]) / 255, expected[0, ..., 0], atol=0.01)
    assert pipe.traverse().rows == 5
    for one in (np.int64(3), np.array([3]), torch.tensor(3), range(3, 4), 3):
        assert pipe.traverse(dimensions=one).images == pipe.traverse(dimensions=[3]).images

    image = pictures(pipe.autoencoder, 1)
    start = pipe.encode(image)
    start[0, 2] = 3.0
    images = pipe.traverse(image, dimensions=2, num_steps=3, output_type="pt").images
    torch.testing.assert_close(images[2:], pipe.decode(start, output_type="pt").images, rtol=0, atol=1e-5)


def test_an_attribute_is_added_and_taken_away(pipe):
    image = pictures(pipe.autoencoder, 2)
    plus, minus = pictures(pipe.autoencoder, 3, seed=1), pictures(pipe.autoencoder, 2, seed=2)
    output = pipe.arithmetic(image, plus, minus, strengths=[0.0, 1.0, -2.0], output_type="pt")
    rows = output.images.unflatten(0, (2, 3))
    torch.testing.assert_close(rows[:, 0], pipe.reconstruct(image, output_type="pt").images, rtol=0, atol=1e-4)
    direction, latents = pipe.attribute_direction(plus, minus), pipe.encode(image)
    if torch.is_tensor(latents):
        expected = pipe.encode(plus).mean(dim=0, keepdim=True) - pipe.encode(minus).mean(dim=0, keepdim=True)
        torch.testing.assert_close(direction, expected, rtol=0, atol=1e-5)
        edited = latents - 2 * direction
    else:
        edited = tuple(level - 2 * change for level, change in zip(latents, direction, strict=True))
    torch.testing.assert_close(rows[:, 2], pipe.decode(edited, output_type="pt").images, rtol=0, atol=1e-4)


# What can't be carried out


@pytest.mark.parametrize("name", ["deterministic", "vqvae", "vqvae2", "kl", "vq"])
def test_without_a_prior_there_is_nothing_to_sample(name):
    pipe = AutoencoderPipeline(NETWORKS[name]())
    assert not pipe.has_prior
    with pytest.raises(ValueError, match="has no prior to sample from"):
        pipe()
    with pytest.raises(ValueError, match="has no prior whose mean a traversal could start from"):
        pipe.traverse()


RGB, GRAY = torch.rand(3, 8, 8), torch.rand(1, 8, 8)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (GRAY, "`image` must have 3 channels, as in training, but has 1"),
        (Image.new("L", (8, 8)), "must have 3 channels, as in training, but has 1"),
        (Image.new("RGBA", (8, 8)), "must have 3 channels, as in training, but has 4"),
        ([RGB, RGB[:, :6]], "must have one size, but these have 2"),
        (RGB[:, :6], r"must be of the shape \(N, 3, 8, 8\)"),
        (RGB * 2 - 1, "must hold values from 0 to 1"),
        (RGB * float("nan"), "must hold values from 0 to 1"),
        ([], "`image` is empty"),
        ("image.png", "`image` must be an image or the path of one, but there is no file 'image.png'"),
        (RGB.long(), "must hold floats from 0 to 1 or bytes"),
    ],
)
def test_images_that_the_network_does_not_take_are_refused(image, sentence):
    with pytest.raises(ValueError, match=sentence):
        AutoencoderPipeline(conv()).reconstruct(image)


@pytest.mark.parametrize(
    ("name", "size"), [("kl", (12, 22)), ("vq", (12, 22)), ("vqvae", (12, 24)), ("vqvae2", (16, 24))]
)
def test_sides_that_can_not_be_halved_are_padded_and_cropped(name, size):
    network = NETWORKS[name]()
    pipe, images = AutoencoderPipeline(network), torch.rand(2, network.config.in_channels, 12, 21)
    padded = F.pad(images, (0, size[1] - 21, 0, size[0] - 12), mode="reflect")
    expected = pipe.reconstruct(padded, output_type="pt").images[..., :12, :21]
    assert_equal(pipe.reconstruct(images, output_type="pt").images, expected)
    for encoded, padded_too in zip(levels(pipe.encode(images)), levels(pipe.encode(padded)), strict=True):
        assert_equal(encoded, padded_too)
    assert pipe.interpolate(images[:1], images[1:], 2).images[0].size == (21, 12)
    assert pipe.arithmetic(images, images[:1], images[1:], output_type="pt").images.shape == images.shape
    assert pipe.outlier_score(images).shape == (2,)


def levels(latents):
    return (latents,) if torch.is_tensor(latents) else latents


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda pipe: pipe(batch_size=0), "`batch_size` must be a positive integer"),
        (lambda pipe: pipe(latents=torch.zeros(2, 4)), r"`latents` .* of the shape \(N, 5\), but is \(2, 4\)"),
        (lambda pipe: pipe(batch_size=3, latents=torch.zeros(2, 5)), r"the shape \(3, 5\), but is \(2, 5\)"),
        (lambda pipe: pipe(latents=torch.zeros(0, 5)), r"the shape \(N, 5\), but is \(0, 5\)"),
        (lambda pipe: pipe(latents=torch.tensor(0.0)), r"the shape \(N, 5\), but is \(\)"),
        (lambda pipe: pipe(latents=np.zeros((1, 5))), r"the shape \(N, 5\), but is ndarray"),
        (lambda pipe: pipe(generator="0"), "`generator` must be a torch.Generator or a list of them, but has '0'"),
        (
            lambda pipe: pipe.encode(torch.rand(2, 1, 6, 8), sample=True, generator=[torch.Generator()]),
            "`generator` must be one generator or a list of 2, but is a list of 1",
        ),
        (lambda pipe: pipe.decode(np.zeros((1, 5))), "`latents` must be a tensor of one image or more"),
        (lambda pipe: pipe.decode(torch.zeros(0, 5)), "`latents` must be a tensor of one image or more"),
        (lambda pipe: pipe.decode(None), "`latents` must be a tensor of one image or more"),
        (lambda pipe: pipe(output_type="jpg"), "`output_type` must be 'pil', 'np' or 'pt'"),
        (lambda pipe: pipe.decode(torch.zeros(2, 4)), r"must be of the shape \(N, 5\)"),
        (lambda pipe: pipe.traverse(dimensions=5), "`dimensions` must be among 0 to 4"),
        (lambda pipe: pipe.traverse(dimensions=[]), "`dimensions` must be among 0 to 4"),
        (lambda pipe: pipe.traverse(dimensions=True), "`dimensions` must be among 0 to 4"),
        (lambda pipe: pipe.traverse(dimensions=[1.5]), "`dimensions` must be among 0 to 4"),
        (lambda pipe: pipe.traverse(dimensions="01"), "`dimensions` must be among 0 to 4"),
        (lambda pipe: pipe.traverse(num_steps=0), "`num_steps` must be a positive integer"),
        (lambda pipe: pipe.traverse(limit=float("inf")), "`limit` must be a finite number"),
        (lambda pipe: pipe.traverse(torch.rand(2, 1, 6, 8)), "`image` must be one image, but is 2"),
        (
            lambda pipe: pipe.interpolate(torch.rand(1, 6, 8), torch.rand(2, 1, 6, 8)),
            "`first` and `second` must have the same shape",
        ),
        (
            lambda pipe: pipe.interpolate(torch.rand(1, 6, 8), torch.rand(1, 6, 8), method="cubic"),
            "`method` must be 'linear' or 'spherical'",
        ),
        (lambda pipe: pipe.arithmetic(*[torch.rand(1, 6, 8)] * 3, strengths=[]), "`strengths` is empty"),
        (lambda pipe: pipe.arithmetic(*[torch.rand(1, 6, 8)] * 3, strengths="much"), "must be a finite number"),
    ],
)
def test_what_can_not_be_carried_out_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(AutoencoderPipeline(mlp()))


def test_latents_of_another_network_are_refused():
    for name in ("kl", "vq"):
        for latents in (torch.zeros(1, 3, 4, 4), torch.zeros(1, 2), (torch.zeros(1, 2, 4, 4),) * 2):
            with pytest.raises(ValueError, match=r"`latents` must be of the shape \(N, 2, h, w\), but are"):
                AutoencoderPipeline(NETWORKS[name]()).decode(latents)
    with pytest.raises(ValueError, match="`latents` must be a tuple of two tensors"):
        AutoencoderPipeline(NETWORKS["vqvae2"]()).decode(torch.zeros(1, 4, 2, 2))


def test_networks_of_something_else_are_refused():
    for network in (DCGANGenerator(8, channels=4), None):
        with pytest.raises(ValueError, match="`autoencoder` must encode images and decode latents, .* but its class"):
            AutoencoderPipeline(network)


def test_maps_of_latents_have_no_dimensions_to_traverse():
    pipe = AutoencoderPipeline(kl())
    with pytest.raises(ValueError, match="AutoencoderKL has maps of latents"):
        pipe.traverse(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="`plus` and `minus` must have one size"):
        pipe.attribute_direction(torch.rand(3, 8, 8), torch.rand(3, 8, 12))


def test_pictures_of_two_channels_are_not_promised():
    pipe = AutoencoderPipeline(mlp(in_channels=2))
    with pytest.raises(ValueError, match="PIL has no images of 2 channels"):
        pipe()
    assert pipe(output_type="np").images.shape == (1, 6, 8, 2)
