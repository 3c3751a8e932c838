import pytest
import torch
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

from diffusers_ext.losses.perceptual_loss import PerceptualLoss, load_perceptual_loss
from diffusers_ext.metrics import DeepFeatureDistance, NetworkExtractor


class Network(torch.nn.Module):
    """A network whose input is bytes, like feature networks."""

    def __init__(self):
        super().__init__()
        self.stages = torch.nn.ModuleList([torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 6, 3)])

    def forward(self, images):
        hidden = images.float() / 255
        for stage in self.stages:
            hidden = stage(hidden).relu()
        return hidden.mean(dim=(2, 3))


def images(seed, channels=1, size=10):
    """Images that are exact in 8 bits."""
    levels = torch.randint(0, 256, (3, channels, size, size), generator=torch.Generator().manual_seed(seed))
    return levels / 127.5 - 1


@pytest.fixture(params=["gray", "colour"])
def image_model(request, tmp_path):
    torch.manual_seed(0)
    channels = 1 if request.param == "gray" else 3
    config = ResNetConfig(num_channels=channels, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    ResNetModel(config).save_pretrained(tmp_path)
    # The loss does not resize images, so the extractor must not resize them either.
    ConvNextImageProcessor(do_resize=False, image_mean=[0.3] * channels, image_std=[0.4] * channels).save_pretrained(
        tmp_path
    )
    return str(tmp_path)


def test_it_is_the_measure_with_gradients():
    torch.manual_seed(0)
    distance = DeepFeatureDistance(NetworkExtractor(Network()))
    loss = PerceptualLoss(distance)
    first, second = images(0).requires_grad_(), images(1)
    values = loss(first, second)
    torch.testing.assert_close(values.detach(), distance(first.detach(), second).float(), rtol=1e-4, atol=1e-5)
    values.sum().backward()
    assert first.grad.isfinite().all() and first.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in distance.extractor.network.parameters())


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_model_sees_what_it_does_as_a_measure(image_model, channels):
    loss = load_perceptual_loss(image_model)
    first, second = images(0, channels, 32).requires_grad_(), images(1, channels, 32)
    values = loss(first, second)
    # The metric rounds grayscale images to bytes.
    torch.testing.assert_close(values.detach(), loss.distance(first.detach(), second).float(), rtol=0.01, atol=1e-4)
    values.sum().backward()
    assert first.grad.isfinite().all() and first.grad.abs().sum() > 0


def test_black_images_have_a_gradient():
    torch.manual_seed(0)
    network = Network()
    for stage in network.stages:
        torch.nn.init.zeros_(stage.bias)
    loss = PerceptualLoss(DeepFeatureDistance(NetworkExtractor(network)))
    black = torch.full((2, 1, 8, 8), -1.0, requires_grad=True)  # no feature is above zero
    loss(black, images(0, size=8)[:2]).sum().backward()
    assert black.grad.isfinite().all()
    assert loss(black, black).abs().max() == 0


def test_a_trial_finds_images_that_the_network_cannot_process(tmp_path):
    ResNetModel(ResNetConfig(num_channels=3, embedding_size=8, hidden_sizes=[8], depths=[1])).save_pretrained(tmp_path)
    ConvNextImageProcessor(do_resize=False).save_pretrained(tmp_path)
    assert isinstance(load_perceptual_loss(str(tmp_path), image_shape=(1, 8, 8)), PerceptualLoss)
    with pytest.raises(ValueError, match="can't compare images of 8x6 pixels and 4 channels: Images must be"):
        load_perceptual_loss(str(tmp_path), image_shape=(4, 8, 6))


def test_what_has_no_gradient_is_refused():
    with pytest.raises(ValueError, match="must be two batches"):
        PerceptualLoss(DeepFeatureDistance(NetworkExtractor(Network())))(
            torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 9)
        )
    with pytest.raises(ValueError, match="cannot be compared: its network is not a torch module"):
        load_perceptual_loss("digits")
