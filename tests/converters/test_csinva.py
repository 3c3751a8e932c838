"""csinva's small networks of MNIST: a GAN and a VAE of dense layers, and a LeNet."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusers_ext.converters import convert_checkpoint, convert_mlp_gan, convert_mnist_lenet, convert_mnist_mlp_vae
from diffusers_ext.models import MLPDiscriminator, MLPGenerator
from diffusers_ext.pipelines import GANPipeline
from tests.converters.cases import assert_near, assert_refused, load_case
from tests.converters.originals import layer, random


class TestGAN:
    """With the original's layers, but not its trained weights, which are not part of this package."""

    generator = nn.Sequential(
        nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 784), nn.Tanh()
    )
    discriminator = nn.Sequential(
        nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1), nn.Sigmoid()
    )

    @torch.no_grad()
    def test_both_become_a_pipeline(self, tmp_path):
        for name, network in (("G", self.generator), ("D", self.discriminator)):
            torch.save(network.state_dict(), tmp_path / f"{name}--300.ckpt")
        other = str(tmp_path / "D--300.ckpt")
        written = convert_checkpoint(
            tmp_path / "G--300.ckpt", tmp_path / "out", "mnist_mlp_gan", discriminator_file=other, hidden_size=256
        )
        assert written.startswith("GANPipeline in") and written.endswith("assuming image_size=28")

        pipe = GANPipeline.from_pretrained(tmp_path / "out")
        assert type(pipe.generator) is MLPGenerator and type(pipe.discriminator) is MLPDiscriminator
        latents = torch.randn(3, 64)
        images = pipe.generator(latents).sample
        assert images.shape == (3, 1, 28, 28)
        assert_near(images.flatten(1), self.generator(latents))
        assert_near(pipe.discriminator(images).logits.sigmoid(), self.discriminator(images.flatten(1)).squeeze(1))

    def test_other_sizes(self):
        color = convert_mlp_gan(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 48)).state_dict(), image_size=4)
        assert (color.config.out_channels, color.config.latent_dim, color.config.hidden_dims) == (3, 5, (7,))
        with pytest.raises(ValueError, match="`image_size` is 32, but .* can't have the checkpoint's 784 values"):
            convert_mlp_gan(self.generator.state_dict(), image_size=32)

    def test_other_networks(self):
        dcgan = load_case("dcgan", "rgb_G").weights
        for state_dict in (dcgan, {"fc1.weight": torch.zeros(4, 4)}, {"0.weight": torch.zeros(4, 4)}):
            with pytest.raises(ValueError, match="This is not a GAN of dense layers"):
                convert_mlp_gan(state_dict)

    @pytest.mark.parametrize(
        "config, message",
        [
            ({"latent_size": 100}, "`latent_size` is given as 100, but the checkpoint has 64"),
            ({"hidden_size": 512}, "`hidden_size` is given as 512, but the checkpoint has 256"),
            ({"image_size": 0}, "`image_size` must be a positive integer"),
        ],
    )
    def test_arguments_at_odds_with_the_tensors(self, config, message):
        with pytest.raises(ValueError, match=message):
            convert_mlp_gan(self.generator.state_dict(), **config)

    def test_unknown_and_missing_tensors_are_named(self):
        state_dict = self.discriminator.state_dict()
        with pytest.raises(ValueError, match=r"1 unknown: 1\.running_mean"):
            convert_mlp_gan(state_dict | {"1.running_mean": torch.zeros(256)})
        del state_dict["2.bias"]
        with pytest.raises(ValueError, match=r"1 missing: 2\.bias"):
            convert_mlp_gan(state_dict)


def mlp_shapes(num_pixels: int = 64, hidden: int = 12, latent_dim: int = 3) -> dict:
    shapes = layer("fc1", hidden, num_pixels) | layer("fc21", latent_dim, hidden) | layer("fc22", latent_dim, hidden)
    return shapes | layer("fc3", hidden, latent_dim) | layer("fc4", num_pixels, hidden)


@torch.no_grad()
def test_mlp_vae_of_mnist():
    weights = random(mlp_shapes())
    model = convert_mnist_mlp_vae(weights, image_size=8)
    sample = torch.rand(2, 1, 8, 8)

    def linear(name, values):
        return F.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])

    hidden = linear("fc1", sample.flatten(1)).relu()
    posterior = model.encode(sample).latent_dist
    assert_near(posterior.mean, linear("fc21", hidden))
    assert_near(posterior.logvar, linear("fc22", hidden))
    latents = torch.randn(2, 3)
    assert_near(model.decode(latents).sample, linear("fc4", linear("fc3", latents).relu()).sigmoid())


@pytest.mark.parametrize(
    "shapes, options, message",
    [
        (
            layer("encoder.conv1", 32, 1, 4, 4),
            {},
            "not an MLP VAE of .*: it has no fc1; its tensors are enc",
        ),
        (mlp_shapes(63), {}, "takes square gray images, but the checkpoint has 63 pixels"),
        (mlp_shapes(), {"image_size": 9}, "`image_size` is given as 9, but"),
        (mlp_shapes(), {"beta": 2}, "no argument 'beta'"),
        (mlp_shapes() | {"fc5.bias": (2,)}, {}, "1 unknown: fc5.bias"),
    ],
)
def test_refusals_of_a_vae(shapes, options, message):
    state_dict = {key: torch.zeros(shape) for key, shape in shapes.items()}
    assert_refused(convert_mnist_mlp_vae, state_dict, options, message)


def lenet_tensors() -> dict[str, torch.Tensor]:
    """The tensors of csinva's LeNet5, with random values."""
    torch.manual_seed(0)
    layers = {
        "convnet.c1": torch.nn.Conv2d(1, 6, 5),
        "convnet.c3": torch.nn.Conv2d(6, 16, 5),
        "convnet.c5": torch.nn.Conv2d(16, 120, 5),
        "fc.f6": torch.nn.Linear(120, 84),
        "fc.f7": torch.nn.Linear(84, 10),
    }
    return {f"{name}.{key}": t for name, layer in layers.items() for key, t in layer.state_dict().items()}


def test_a_lenet_of_mnist_computes_what_the_original_does():
    tensors, images = lenet_tensors(), torch.rand(2, 1, 32, 32)
    hidden = images
    for name in ("c1", "c3", "c5"):
        weight, bias = tensors[f"convnet.{name}.weight"], tensors[f"convnet.{name}.bias"]
        hidden = torch.nn.functional.conv2d(hidden, weight, bias).relu()
        hidden = hidden if name == "c5" else torch.nn.functional.max_pool2d(hidden, 2)
    features = (hidden.flatten(1) @ tensors["fc.f6.weight"].T + tensors["fc.f6.bias"]).relu()
    output = convert_mnist_lenet(tensors)(images)
    torch.testing.assert_close(output.features, features)
    torch.testing.assert_close(output.logits, features @ tensors["fc.f7.weight"].T + tensors["fc.f7.bias"])


def test_what_is_no_lenet_is_refused():
    tensors = lenet_tensors()
    with pytest.raises(ValueError, match="no argument 'nz'"):
        convert_mnist_lenet(tensors, nz=3)
    tensors.pop("fc.f7.bias")
    with pytest.raises(ValueError, match=r"fc\.f7\.bias"):
        convert_mnist_lenet(tensors)
