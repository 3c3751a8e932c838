"""Arguments of networks: what is derived, and one sentence for what is wrong."""

import pytest
import torch
from diffusers import UNet2DModel

from diffusers_ext.training.autoencoding.networks import build_autoencoder
from diffusers_ext.training.diffusion.denoisers import build_unet
from diffusers_ext.training.loop.network_options import build_network


def unet(size: int = 64, **arguments) -> UNet2DModel:
    return build_unet(size=(size, size), in_channels=3, out_channels=3, num_class_embeds=4, arguments=arguments)


@pytest.mark.parametrize(
    ("arguments", "derived"),
    [
        ({"block_out_channels": [32, 64]}, {"down_block_types": ["DownBlock2D"] * 2, "norm_num_groups": 32}),
        (
            {"block_out_channels": [24, 48, 48]},
            {
                "down_block_types": ["DownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
                "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
                "norm_num_groups": 8,
            },
        ),
        (
            {"up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "layers_per_block": 1},
            {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "block_out_channels": (128, 256)},
        ),
        ({"layers_per_block": 1}, {"block_out_channels": (128, 256, 256, 256)}),
        ({"block_out_channels": [12, 20]}, {"norm_num_groups": 4, "attention_head_dim": 4}),
        (
            {"down_block_types": ["ResnetDownsampleBlock2D", "DownBlock2D"], "block_out_channels": [8, 8]},
            {"up_block_types": ["UpBlock2D", "ResnetUpsampleBlock2D"]},
        ),
    ],
)
def test_what_is_not_given_is_derived(arguments, derived):
    network = unet(**arguments)
    assert {name: network.config[name] for name in derived} == derived


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"widths": [32]}, "--unet: UNet2DModel has no argument 'widths', only center_input_sample"),
        ({"in_channels": 5}, "--unet: in_channels is 3, as the images and other options decide, and can't be 5"),
        ({"layers_per_block": "two"}, "--unet: UNet2DModel can't be built and used with layers_per_block='two'"),
        ({"block_out_channels": []}, "--unet: UNet2DModel can't be built and used with block_out_channels="),
        ({"block_out_channels": 32}, "--unet: UNet2DModel can't be built and used with block_out_channels=32"),
        ({"block_out_channels": [32, 64], "norm_num_groups": 7}, "norm_num_groups=7 .ValueError: num_channels"),
        ({"block_out_channels": [8, 8], "attention_head_dim": 0}, "attention_head_dim=0"),
        ({"down_block_types": ["CrossAttnDownBlock2D"]}, "cross_attention_dim must be specified"),
        ({"block_out_channels": [8] * 8}, "--resolution must be a multiple of 128 for this network"),
    ],
)
def test_wrong_arguments_are_named_in_one_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        unet(**arguments)


def test_a_network_that_is_built_and_can_not_be_used_is_refused():
    class Broken(torch.nn.Linear):
        def forward(self, images):
            raise KeyError("images")

    with pytest.raises(
        ValueError, match="--broken: Broken can't be built and used with bias=False .KeyError: 'images'"
    ):
        build_network(
            Broken,
            "--broken",
            {"bias": False},
            decided={"in_features": 2, "out_features": 2},
            trial=lambda network: network(torch.zeros(1, 2)),
        )


def test_the_trial_draws_no_random_numbers():
    config = unet(block_out_channels=[8, 8]).config
    torch.manual_seed(0)
    plain = UNet2DModel(**{key: value for key, value in config.items() if not key.startswith("_")})
    torch.manual_seed(0)
    tried = unet(block_out_channels=[8, 8])
    for name, tensor in tried.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name])


@pytest.mark.parametrize("architecture", ["kl", "vq"])
def test_groups_of_norms_follow_from_the_widths_of_an_autoencoder(architecture):
    options = {"size": (16, 16), "channels": 3, "variational": True, "batch_size": 2}
    network = build_autoencoder(architecture, {"block_out_channels": [12, 24]}, **options)
    assert network(torch.zeros(1, 3, 16, 16)).sample.shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match="--autoencoder: .* has no argument 'width'"):
        build_autoencoder(architecture, {"width": 3}, **options)
