import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor

from diffusers_ext.models.modeling_adm_unet import ADMUNet2DModel
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


STOCK = {
    "sample_size": 8,
    "out_channels": 6,
    "layers_per_block": 1,
    "block_out_channels": (16, 32),
    "down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D"),
    "norm_num_groups": 4,
    "attn_norm_num_groups": 4,
    "resnet_time_scale_shift": "scale_shift",
    "num_class_embeds": 5,
}


class ADMUNetConfig(ModelTesterConfig):
    """All options together: heads, projection, scale and low resolution."""

    model_class = ADMUNet2DModel
    output_shape = (2, 6, 8, 8)

    def get_init_dict(self):
        return STOCK | {
            "in_channels": 6,
            "low_res_channels": 3,
            "num_attention_heads": 4,
            "time_projection_dim": 32,
            "timestep_scale": 0.25,
        }

    def get_inputs(self):
        generator = torch.Generator().manual_seed(0)
        return {
            "sample": torch.randn((2, 3, 8, 8), generator=generator),
            "low_res": torch.randn((2, 3, 4, 4), generator=generator),
            "timestep": torch.tensor([3000, 20]),
            "class_labels": torch.tensor([3, 0]),
        }


class TestADMUNet(ADMUNetConfig, ModelTesterMixin):
    def test_no_warning_of_unexpected_arguments(self, tmp_path, caplog):
        self.get_model().save_pretrained(tmp_path)
        self.model_class.from_pretrained(tmp_path)
        assert "not expected" not in caplog.text


def both(stock: dict, special: dict) -> tuple[UNet2DModel, ADMUNet2DModel]:
    """The two classes with the same weights."""
    torch.manual_seed(0)
    unet = UNet2DModel(**STOCK, **stock).eval()
    adm = ADMUNet2DModel(**STOCK, **special).eval()
    adm.load_state_dict(unet.state_dict())
    return unet, adm


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    return torch.randn(2, 3, 8, 8), torch.tensor([900, 100]), torch.tensor([1, 4])


@torch.no_grad()
def test_without_its_arguments_it_is_the_stock_unet(inputs):
    unet, adm = both({}, {})
    torch.testing.assert_close(adm(*inputs).sample, unet(*inputs).sample, rtol=0, atol=0)


@torch.no_grad()
def test_scaled_timesteps_are_those_of_the_stock_unet(inputs):
    unet, adm = both({}, {"timestep_scale": 0.25})
    sample, timestep, labels = inputs
    torch.testing.assert_close(adm(*inputs).sample, unet(sample, timestep * 0.25, labels).sample, rtol=0, atol=0)
    # the timestep as a number and as a tensor
    torch.testing.assert_close(
        adm(sample, 3, labels).sample, unet(sample, torch.tensor(0.75), labels).sample, rtol=0, atol=0
    )


@torch.no_grad()
def test_low_resolution_comes_behind_the_sample(inputs):
    unet, adm = both({"in_channels": 6}, {"in_channels": 6, "low_res_channels": 3})
    sample, timestep, labels = inputs
    low_res = torch.randn(2, 3, 8, 8)  # at full size, so that upsampling changes nothing
    expected = unet(torch.cat([sample, low_res], dim=1), timestep, labels).sample
    torch.testing.assert_close(adm(*inputs, low_res=low_res).sample, expected, rtol=0, atol=0)


@torch.no_grad()
def test_fixed_heads_differ_in_width_and_are_computed_by_every_processor(inputs):
    _, adm = both({}, {"num_attention_heads": 4})
    expected = adm(*inputs).sample
    attentions = [module for module in adm.modules() if isinstance(module, Attention)]
    assert {attention.inner_dim // attention.heads for attention in attentions} == {4, 8}
    for attention in attentions:
        attention.set_processor(AttnProcessor())
    torch.testing.assert_close(adm(*inputs).sample, expected, rtol=1e-5, atol=1e-5)
    unet, _ = both({"attention_head_dim": 4}, {})
    assert not torch.allclose(unet(*inputs).sample, expected, atol=1e-3)


def test_low_res_that_does_not_fit_is_refused(inputs):
    _, adm = both({}, {})
    with pytest.raises(ValueError, match="`low_res` must have 0 channels, but has 3"):
        adm(*inputs, low_res=torch.randn(2, 3, 4, 4))
    superres = ADMUNet2DModel(**STOCK, in_channels=6, low_res_channels=3)
    with pytest.raises(ValueError, match="`low_res` must have 3 channels, but has 0"):
        superres(*inputs)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"low_res_channels": 3}, "`low_res_channels` must be from 0 to 2"),
        ({"num_attention_heads": 3}, "divided among 3"),
        ({"time_projection_dim": 32, "time_embedding_type": "fourier"}, "`time_projection_dim` must not be given"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ADMUNet2DModel(**STOCK, **arguments)
