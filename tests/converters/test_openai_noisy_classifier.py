"""The noisy classifiers of guided-diffusion."""

import pytest
import torch

from diffusers_ext.converters import convert_guided_diffusion_classifier
from tests.converters.cases import every_case, load_case
from tests.converters.originals import classifier_shapes, random


SMALL = {
    "image_size": 8,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 5,
    "num_res_blocks": 2,
    "attention_resolutions": [2],
    "channel_mult": [1, 2],
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "pool": "attention",
}


@pytest.mark.parametrize("family, name", every_case("guided_diffusion_classifier"))
def test_golden_logits_and_gradients(family, name):
    case = load_case(family, name)
    classifier = convert_guided_diffusion_classifier(case.weights, **case.args)
    sample = case.inputs["x"].requires_grad_()
    logits = classifier(sample, case.inputs["timesteps"]).logits
    log_probs = logits.log_softmax(dim=-1).gather(1, case.inputs["y"][:, None]).squeeze(1)
    (gradient,) = torch.autograd.grad(log_probs.sum(), sample)

    torch.testing.assert_close(logits, case.outputs["logits"], rtol=0, atol=1e-5)
    torch.testing.assert_close(log_probs, case.outputs["log_prob_y"], rtol=0, atol=1e-5)
    largest = case.outputs["grad_x"].abs().max()
    torch.testing.assert_close(gradient / largest, case.outputs["grad_x"] / largest, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family, name", every_case("guided_diffusion_classifier"))
def test_only_what_no_tensor_shows_is_needed(family, name):
    case = load_case(family, name)
    unseen = {key: case.args[key] for key in ("image_size", "num_head_channels")}
    config = dict(convert_guided_diffusion_classifier(case.weights, **case.args).config)
    assert dict(convert_guided_diffusion_classifier(case.weights, **unseen).config) == config
    if case.args["pool"] == "attention":  # its positions show the size
        unseen.pop("image_size")
        assert dict(convert_guided_diffusion_classifier(case.weights, **unseen).config) == config


@pytest.mark.parametrize("pool", ["adaptive", "attention", "spatial", "spatial_v2"])
@pytest.mark.parametrize("resblock_updown", [True, False])
def test_every_pool_of_two_levels(pool, resblock_updown):
    args = SMALL | {"pool": pool, "resblock_updown": resblock_updown}
    classifier = convert_guided_diffusion_classifier(random(classifier_shapes(args)), num_head_channels=16, **args)
    assert classifier.config.pool == pool
    assert classifier(torch.randn(2, 3, 8, 8), 7).logits.shape == (2, 5)


def test_blocks_per_level_that_no_tensor_shows_have_to_be_said():
    # eight blocks of the same width without attention: two levels of three blocks, four of one, or one of seven
    args = SMALL | {"channel_mult": [1, 1], "attention_resolutions": [], "num_res_blocks": 3, "pool": "adaptive"}
    weights = random(classifier_shapes(args))
    with pytest.raises(ValueError, match="give `num_res_blocks`, which may be 1 or 3 or 7"):
        convert_guided_diffusion_classifier(weights, num_head_channels=16)
    classifier = convert_guided_diffusion_classifier(weights, num_head_channels=16, num_res_blocks=3)
    assert classifier.config.block_out_channels == (32, 32)
    with pytest.raises(ValueError, match="8 input blocks, which do not make levels"):
        convert_guided_diffusion_classifier(weights, num_head_channels=16, num_res_blocks=4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "give `num_heads`"),
        ({"num_heads": 4}, "attention pool needs `num_head_channels`"),
        ({"num_head_channels": 16, "pool": "spatial"}, "`pool` is given as spatial, but the checkpoint has attention"),
        ({"num_head_channels": 16, "out_channels": 7}, "`out_channels` is given as 7, but the checkpoint has 5"),
        ({"num_head_channels": 16, "image_size": 16}, "`image_size` is given as 16, but the checkpoint has 8"),
        ({"num_head_channels": 16, "num_classes": 5}, "no argument 'num_classes'"),
    ],
)
def test_arguments_at_odds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        convert_guided_diffusion_classifier(random(classifier_shapes(SMALL)), **arguments)
