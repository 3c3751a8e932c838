import pytest
import torch

from diffusers_ext.models import StyleEncoder
from tests.models.testing import ModelOutputTesterMixin, ModelTesterConfig, ModelTesterMixin


class StyleEncoderConfig(ModelTesterConfig):
    model_class = StyleEncoder
    output_shape = (2, 8, 6)
    architecture = "e4e"

    def get_init_dict(self):
        return {
            "sample_size": 32,
            "in_channels": 1,
            "num_styles": 8,
            "style_dim": 6,
            "architecture": self.architecture,
            "block_out_channels": (4, 4, 6, 8),
            "layers_per_block": (1, 2, 1, 1),
            "se_reduction": 2,
        }

    def get_inputs(self):
        return {"sample": torch.randn((2, 1, 32, 32), generator=torch.Generator().manual_seed(0))}


class TestE4E(StyleEncoderConfig, ModelTesterMixin):
    pass


class TestPSP(StyleEncoderConfig, ModelOutputTesterMixin):
    architecture = "psp"


class TestIntoW(StyleEncoderConfig, ModelOutputTesterMixin):
    architecture = "w"


@torch.no_grad()
def test_only_so_many_styles_differ_from_the_first():
    config = StyleEncoderConfig()
    model, inputs = config.get_model(), config.get_inputs()
    styles, whole = model(**inputs, num_deltas=2).styles, model(**inputs).styles
    assert torch.equal(styles[:, :3], whole[:, :3])
    assert torch.equal(styles[:, 3:], styles[:, :1].expand(-1, 5, -1))
    assert not torch.allclose(whole[:, 3:], styles[:, 3:])


@torch.no_grad()
def test_styles_are_counted_from_the_average():
    config = StyleEncoderConfig()
    model, inputs = config.get_model(), config.get_inputs()
    styles = model(**inputs).styles
    model.style_average += 3
    torch.testing.assert_close(model(**inputs).styles, styles + 3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sample_size": 48}, "`sample_size` must be a power of two, at least 32, but is 48"),
        ({"architecture": "vgg"}, "`architecture` must be one of"),
        ({"block_out_channels": (4, 4)}, "must have four positive numbers each"),
        ({"num_styles": 0}, "`num_styles` must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StyleEncoder(**{**StyleEncoderConfig().get_init_dict(), **options})
    with pytest.raises(ValueError, match=r"`sample` must be \(N, 1, 32, 32\), but is \(2, 1, 16, 16\)"):
        StyleEncoderConfig().get_model()(torch.zeros(2, 1, 16, 16))
