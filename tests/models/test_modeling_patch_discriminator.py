import pytest
import torch

from diffusers_ext.models.modeling_patch_discriminator import MultiScalePatchDiscriminator, PatchDiscriminator
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTesterMixin,
    ModelTrainingTesterMixin,
)


class PatchConfig(ModelTesterConfig):
    model_class = PatchDiscriminator
    output_shape = (2, 1, 2, 4)

    def get_init_dict(self):
        return {"in_channels": 4, "base_channels": 4, "num_layers": 2, "normalization": "instance"}

    def get_inputs(self):
        return {"sample": torch.randn((2, 4, 16, 24), generator=torch.Generator().manual_seed(0))}


class SpectralConfig(PatchConfig):
    def get_init_dict(self):
        return {**super().get_init_dict(), "normalization": "none", "spectral_norm": True}


class PixelConfig(PatchConfig):
    output_shape = (2, 1, 16, 24)

    def get_init_dict(self):
        return {**super().get_init_dict(), "num_layers": 0, "normalization": "batch"}


class TestPatch(PatchConfig, ModelTesterMixin):
    pass


class TestSpectral(SpectralConfig, ModelOutputTesterMixin, ModelSaveLoadTesterMixin, ModelCompileTesterMixin):
    pass


class TestPixel(PixelConfig, ModelOutputTesterMixin, ModelSaveLoadTesterMixin, ModelTrainingTesterMixin):
    pass


@pytest.mark.parametrize("num_layers, side", list(enumerate([1, 16, 34, 70, 142, 286])))
def test_a_logit_sees_its_patch_and_nothing_else(num_layers, side):
    model = PatchDiscriminator(1, 1, num_layers, "none")
    assert model.patch_size == side
    for conv in (model.conv_in, *(block.conv for block in model.blocks), model.conv_out):
        torch.nn.init.constant_(conv.weight, 0.1)  # positive, so that no ReLU blocks a path
    sample = torch.zeros(1, 1, 2 * side + 64, 2 * side + 64, requires_grad=True)
    logits = model(sample).logits
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    rows = sample.grad[0, 0].abs().sum(dim=1).nonzero().flatten()
    assert len(rows) == rows.max() - rows.min() + 1 == side


def test_published_sizes():
    assert sum(p.numel() for p in PatchDiscriminator(6).parameters()) == 2_768_705


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("normalization", ["batch", "instance"])
def test_one_image_of_the_least_size_can_be_trained_on(num_layers, normalization):
    side = 3 * 2**num_layers
    model = PatchDiscriminator(1, 2, num_layers, normalization).train()
    assert model(torch.randn(1, 1, side, side)).logits.isfinite().all()
    with pytest.raises(ValueError, match=f"each side must have at least {side} pixels"):
        model(torch.randn(1, 1, side, side - 1))


def test_spectral_norm_bounds_every_convolution():
    model = PatchDiscriminator(1, 4, 2, "none", spectral_norm=True).train()
    for _ in range(30):
        model(torch.randn(2, 1, 16, 16))
    for conv in (model.conv_in, *(block.conv for block in model.blocks), model.conv_out):
        assert torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-2)


def test_each_scale_sees_half_the_size(tmp_path):
    torch.manual_seed(0)
    model = MultiScalePatchDiscriminator(3, in_channels=2, base_channels=2, num_layers=1).eval()
    sample = torch.randn(2, 2, 32, 48)
    maps = model(sample).logits
    assert [tuple(scores.shape) for scores in maps] == [(2, 1, 14, 22), (2, 1, 6, 10), (2, 1, 2, 4)]
    assert torch.equal(maps[0], model.discriminators[0](sample).logits)
    assert model.patch_size == 64
    assert all(torch.equal(a, b) for a, b in zip(maps, model(sample, return_dict=False)[0], strict=True))

    model.save_pretrained(tmp_path)
    loaded = MultiScalePatchDiscriminator.from_pretrained(tmp_path)
    for scores, expected in zip(loaded(sample).logits, maps, strict=True):
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)(sample).logits
    for scores, expected in zip(compiled, maps, strict=True):
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="too small"):
        model(torch.randn(1, 2, 16, 16))


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (3, 32, 32)])
def test_images_of_other_channels_are_refused(shape):
    options = {"in_channels": 3, "base_channels": 4, "num_layers": 1}
    for model in (PatchDiscriminator(**options), MultiScalePatchDiscriminator(2, **options)):
        with pytest.raises(ValueError, match=r"`sample` must be of the shape \(N, 3, H, W\), but is of"):
            model(torch.zeros(shape))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_layers": -1}, "at least 0"),
        ({"in_channels": 0}, "must be positive"),
        ({"normalization": "group"}, "'batch', 'instance', 'none'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PatchDiscriminator(**arguments)
    with pytest.raises(ValueError, match=message):
        MultiScalePatchDiscriminator(**arguments)
    with pytest.raises(ValueError, match="num_scales"):
        MultiScalePatchDiscriminator(0)


def test_features_are_those_before_the_logits():
    model = PatchDiscriminator(1, 2, 2, "instance", spectral_norm="blocks", padding=2).eval()
    output = model(torch.randn(2, 1, 16, 16))
    assert [tuple(features.shape) for features in output.hidden_states] == [(2, 2, 9, 9), (2, 4, 5, 5), (2, 8, 6, 6)]
    assert torch.equal(model.conv_out(output.hidden_states[-1]), output.logits) and output.logits.shape == (2, 1, 7, 7)
    normalized = [hasattr(conv, "parametrizations") for conv in (model.conv_in, model.blocks[0].conv, model.conv_out)]
    assert normalized == [False, True, False]
    assert model.train()(torch.randn(1, 1, 2, 2)).logits.isfinite().all()
    with pytest.raises(ValueError, match="each side must have at least 2 pixels"):
        model(torch.randn(1, 1, 2, 1))
    with pytest.raises(ValueError, match="`padding` must be 1 or 2"):
        PatchDiscriminator(padding=0)
    with pytest.raises(ValueError, match="`spectral_norm` must be True, False or 'blocks'"):
        PatchDiscriminator(spectral_norm="all")
