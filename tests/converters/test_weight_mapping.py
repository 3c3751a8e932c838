"""Checkpoints that do not fit their network are refused in one sentence that lists the keys."""

import pytest
import torch

from diffusers_ext.converters import (
    convert_guided_diffusion,
    convert_guided_diffusion_classifier,
    convert_improved_diffusion,
    convert_latent_diffusion,
)
from tests.converters.originals import classifier_shapes, random, unet_shapes


ARGS = {
    "image_size": 8,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 6,
    "num_res_blocks": 2,
    "attention_resolutions": [2],
    "channel_mult": [1, 2],
    "num_classes": 4,
    "use_scale_shift_norm": True,
    "resblock_updown": False,
    "pool": "attention",
}
UNET = random(unet_shapes(ARGS))
CLASSIFIER = random(classifier_shapes(ARGS))


def refusal(convert, state_dict: dict, **arguments) -> str:
    with pytest.raises(ValueError) as error:
        convert(state_dict, **({"num_head_channels": 16} | arguments))
    assert "\n" not in str(error.value)
    return str(error.value)


# every fifth key, because there are many of each kind
@pytest.mark.parametrize("key", [*sorted(UNET)[::5], "input_blocks.0.0.weight", "label_emb.weight", "out.2.weight"])
def test_each_missing_key_is_named(key):
    state_dict = {name: tensor for name, tensor in UNET.items() if name != key}
    if key == "label_emb.weight":  # without it this is another network, which is complete
        assert "`num_classes` is given as 4" in refusal(convert_guided_diffusion, state_dict, num_classes=4)
    else:
        message = refusal(convert_guided_diffusion, state_dict)
        assert key in message
        assert "unknown" not in message and "shape" not in message


@pytest.mark.parametrize("key", [*sorted(CLASSIFIER)[::5], "out.2.positional_embedding", "out.2.c_proj.weight"])
def test_each_missing_key_of_a_classifier_is_named(key):
    state_dict = {name: tensor for name, tensor in CLASSIFIER.items() if name != key}
    message = refusal(convert_guided_diffusion_classifier, state_dict, num_res_blocks=2)
    assert key in message
    assert "unknown" not in message and "shape" not in message


@pytest.mark.parametrize("key", [*sorted(UNET)[1::5], "input_blocks.0.0.weight", "out.2.weight"])
def test_each_misfitting_shape_is_named(key):
    state_dict = UNET | {key: torch.zeros(5, *UNET[key].shape[1:])}
    message = refusal(convert_guided_diffusion, state_dict, out_channels=6)
    # the last layer's two tensors disagree, and either may be right
    assert key in message or (key.startswith("out.2.") and "`out_channels` is given as 6" in message)


def test_all_problems_are_listed_at_once():
    state_dict = dict(UNET)
    del state_dict["middle_block.1.qkv.bias"], state_dict["output_blocks.0.0.in_layers.2.weight"]
    state_dict["middle_block.0.out_layers.3.weight"] = torch.zeros(64, 64, 1, 1)
    state_dict |= {"input_blocks.99.0.weight": torch.zeros(2), "ema.decay": torch.zeros(())}
    message = refusal(convert_guided_diffusion, state_dict)
    assert "2 missing: middle_block.1.qkv.bias, output_blocks.0.0.in_layers.2.weight" in message
    assert "2 unknown: input_blocks.99.0.weight, ema.decay" in message
    assert "middle_block.0.out_layers.3.weight (64, 64, 1, 1) instead of (64, 64, 3, 3)" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_weights_that_are_no_numbers_of_float32_are_named(value):
    state_dict = {key: tensor.double() for key, tensor in UNET.items()}
    for key in ("middle_block.1.qkv.bias", "out.2.weight"):
        state_dict[key].view(-1)[-1] = value
    message = refusal(convert_guided_diffusion, state_dict)
    assert "2 with NaN or infinite values: middle_block.1.qkv.bias, out.2.weight)" in message


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_weights_that_are_no_floats_are_named(dtype):
    message = refusal(convert_guided_diffusion, UNET | {"out.2.bias": UNET["out.2.bias"].to(dtype)})
    assert f"(1 not floats: out.2.bias ({dtype}))" in message


def test_long_lists_are_cut():
    state_dict = UNET | {f"discriminator.{i}": torch.zeros(1) for i in range(100)}
    message = refusal(convert_guided_diffusion, state_dict)
    assert "100 unknown" in message and "and 80 more" in message
    assert len(message) < 1000


@pytest.mark.parametrize("convert", [convert_guided_diffusion, convert_improved_diffusion, convert_latent_diffusion])
def test_a_classifier_is_no_unet(convert):
    with pytest.raises(ValueError, match="no output_blocks"):
        convert(CLASSIFIER, num_heads=2)


def test_a_unet_is_no_classifier():
    assert "not a classifier but a whole U-Net" in refusal(convert_guided_diffusion_classifier, UNET)


@pytest.mark.parametrize(
    "state_dict",
    [
        torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).state_dict(),
        {"encoder.down.0.block.0.norm1.weight": torch.ones(4)},
        {},
    ],
)
def test_networks_of_another_kind(state_dict):
    for convert in (convert_guided_diffusion, convert_guided_diffusion_classifier, convert_latent_diffusion):
        assert "not a U-Net of the diffusion repositories" in refusal(convert, state_dict)
