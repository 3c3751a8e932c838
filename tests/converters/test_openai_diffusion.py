"""The U-Nets of guided-diffusion and improved-diffusion, and the pipelines around them."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DModel

from diffusers_ext.converters import convert_guided_diffusion, convert_improved_diffusion, convert_latent_diffusion
from diffusers_ext.converters.__main__ import main
from diffusers_ext.models import ADMUNet2DModel
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.schedulers import ExactDDPMScheduler
from tests.converters.cases import CLASS_COND, IMPROVED, every_case, load_case, save
from tests.converters.originals import random, unet_shapes


CONVERTERS = {
    "guided_diffusion_unet": convert_guided_diffusion,
    "improved_diffusion_unet": convert_improved_diffusion,
    "latent_diffusion_unet": convert_latent_diffusion,
}
BEYOND_STOCK = ("fixed_num_heads_two_widths", "superres", "first_width_half_of_model_channels")
SMALL = {
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 3,
    "num_res_blocks": 1,
    "attention_resolutions": [2],
    "channel_mult": [1, 2],
    "use_scale_shift_norm": True,
}


@torch.no_grad()
@pytest.mark.parametrize("family, name", every_case(*CONVERTERS))
def test_golden_outputs(family, name):
    case = load_case(family, name)
    network = CONVERTERS[family](case.weights, **case.args)
    assert type(network) is (ADMUNet2DModel if name in BEYOND_STOCK else UNet2DModel)

    conditions = {"class_labels": case.inputs.get("y"), "low_res": case.inputs.get("low_res")}
    conditions = {key: value for key, value in conditions.items() if value is not None}
    for timesteps, output in (("timesteps", "model_output"), ("timesteps_integer", "model_output_integer")):
        if timesteps in case.inputs:
            sample = network(case.inputs["x"], case.inputs[timesteps], **conditions).sample
            torch.testing.assert_close(sample, case.outputs[output], rtol=0, atol=1e-5)


@pytest.mark.parametrize("family, name", every_case(*CONVERTERS))
def test_only_what_no_tensor_shows_is_needed(family, name):
    case = load_case(family, name)
    unseen = ("image_size", "in_channels", "num_heads", "num_head_channels", "use_new_attention_order", "dropout")
    network = CONVERTERS[family](case.weights, **{key: case.args[key] for key in unseen if key in case.args})
    assert dict(network.config) == dict(CONVERTERS[family](case.weights, **case.args).config)


@torch.no_grad()
def test_rescaled_timesteps_reach_the_network():
    case = load_case("improved_diffusion_unet", "rescaled_timesteps_sigma")
    network = convert_improved_diffusion(case.weights, diffusion_steps=4000, rescale_timesteps=True, **case.args)
    sample = network(case.inputs["x"], case.inputs["timesteps"] * 4).sample
    torch.testing.assert_close(sample, case.outputs["model_output"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_both_orders_of_attention():
    """The same network in the original's two orders: per head and, new, all queries first."""
    shapes = unet_shapes(SMALL)
    legacy = random(shapes)
    new = dict(legacy)
    for key, tensor in legacy.items():
        if ".qkv." in key:
            heads = tensor.chunk(4)
            new[key] = torch.cat([head.chunk(3)[part] for part in range(3) for head in heads])
    sample, timesteps = torch.randn(2, 3, 8, 8), torch.tensor([1, 900])
    expected = convert_guided_diffusion(legacy, num_heads=4)
    network = convert_guided_diffusion(new, num_heads=4, use_new_attention_order=True)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, expected.get_parameter(name)), name
    wrong = convert_guided_diffusion(new, num_heads=4)
    assert not torch.allclose(wrong(sample, timesteps).sample, expected(sample, timesteps).sample, atol=1e-3)


@pytest.mark.parametrize(
    "changes, arguments, special",
    [
        ({}, {"num_heads": 4}, {}),
        ({"attention_resolutions": [1, 2]}, {"num_head_channels": 16}, {}),
        ({"attention_resolutions": [1, 2]}, {"num_heads": 4}, {"num_attention_heads": 4}),
        ({"channel_mult": [2, 2]}, {"num_heads": 4}, {"time_projection_dim": 32}),
        ({}, {"num_heads": 4, "diffusion_steps": 1000, "rescale_timesteps": True}, {}),
        ({}, {"num_heads": 4, "diffusion_steps": 500, "rescale_timesteps": True}, {"timestep_scale": 2.0}),
        ({"in_channels": 6}, {"num_heads": 4, "in_channels": 3}, {"low_res_channels": 3}),
        ({"in_channels": 6}, {"num_heads": 4, "in_channels": 6}, {}),
    ],
)
def test_stock_wherever_it_can_be(changes, arguments, special):
    network = convert_guided_diffusion(random(unet_shapes(SMALL | changes)), **arguments)
    assert type(network) is (ADMUNet2DModel if special else UNet2DModel)
    assert {key: network.config[key] for key in special} == special


@pytest.mark.parametrize("resblock_updown", [False, True])
@pytest.mark.parametrize("attention_resolutions", [[], [1], [4], [1, 2, 4]])
@pytest.mark.parametrize("num_res_blocks", [1, 3])
def test_every_layout_is_read(resblock_updown, attention_resolutions, num_res_blocks):
    args = SMALL | {
        "resblock_updown": resblock_updown,
        "attention_resolutions": attention_resolutions,
        "num_res_blocks": num_res_blocks,
        "channel_mult": [1, 1, 2],
    }
    weights = random(unet_shapes(args))
    network = convert_guided_diffusion(weights, num_head_channels=16, **args)
    assert dict(convert_guided_diffusion(weights, num_head_channels=16).config) == dict(network.config)
    assert network(torch.randn(1, 3, 8, 8), 3).sample.shape == (1, 3, 8, 8)


def test_the_checkpoint_stays_as_it_was():
    weights = random(unet_shapes(SMALL))
    before = {key: tensor.clone() for key, tensor in weights.items()}
    network = convert_guided_diffusion(weights, num_heads=4)
    assert not network.training
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert all(torch.equal(weights[key], before[key]) for key in before)


def test_half_precision_becomes_float32():
    weights = {key: tensor.half() for key, tensor in random(unet_shapes(SMALL)).items()}
    assert convert_guided_diffusion(weights, num_heads=4).dtype == torch.float32


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "give `num_heads` or"),
        ({"num_heads": 3}, "`num_heads` must divide the 64 channels"),
        ({"num_head_channels": 48}, "`num_head_channels` must divide the 64 channels"),
        ({"num_heads": "four"}, "`num_heads` must be a positive integer"),
        ({"num_heads": 0}, "`num_heads` must be a positive integer"),
        ({"num_heads": -1}, "give `num_heads` or"),
        ({"num_heads": 4, "diffusion_steps": 0}, "`diffusion_steps` must be a positive integer"),
        ({"num_heads": 4, "use_new_attention_order": "no"}, "`use_new_attention_order` must be True or False"),
        ({"num_heads": 4, "num_res_blocks": 2}, "`num_res_blocks` is given as 2, but the checkpoint has 1"),
        ({"num_heads": 4, "channel_mult": [1, 1]}, r"`channel_mult` is given as \[1, 1\].* \[1.0, 2.0\]"),
        ({"num_heads": 4, "attention_resolutions": [1]}, r"`attention_resolutions` .* has \[2\]"),
        ({"num_heads": 4, "num_classes": 10}, "`num_classes` is given as 10, but the checkpoint has None"),
        ({"num_heads": 4, "resblock_updown": True}, "`resblock_updown` is given as True"),
        ({"num_heads": 4, "in_channels": 1}, "`in_channels` is given as 1, but the checkpoint has 3"),
        ({"num_heads": 4, "dims": 3}, "`dims` must be 2"),
        ({"num_heads": 4, "conv_resample": False}, "`conv_resample` must be True"),
        ({"num_heads": 4, "num_heads_upsample": 2}, "`num_heads_upsample` must equal `num_heads`"),
        ({"num_heads": 4, "dropout": "foo"}, "`dropout` must be a number from 0 to 1, but is 'foo'"),
        ({"num_heads": 4, "dropout": -0.1}, "`dropout` must be a number from 0 to 1"),
        ({"num_heads": 4, "dropout": None}, "`dropout` must be a number from 0 to 1"),
        ({"num_heads": 4, "num_classes": "ten"}, "`num_classes` must be an integer or None, but is 'ten'"),
        ({"num_heads": 4, "use_fp16": "half"}, "`use_fp16` must be True or False"),
        ({"num_heads": 4, "channel_mult": [1, float("inf")]}, "`channel_mult` must be a list of numbers"),
        ({"num_heads": 4, "attention_resolutions": "16px"}, "`attention_resolutions` must be a list of numbers"),
        (
            {"num_heads": 4, "image_size": 9},
            "`image_size` must be a multiple of 2, because .* its 2 levels to the next, but is 9",
        ),
        ({"num_heads": 4, "learning_rate": 1e-4}, "no argument 'learning_rate'"),
    ],
)
def test_arguments_at_odds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        convert_guided_diffusion(random(unet_shapes(SMALL)), **arguments)


def test_arguments_without_effect():
    weights = random(unet_shapes(SMALL))
    network = convert_guided_diffusion(
        weights,
        num_heads=4,
        attention_resolutions=(2, 8),  # there is no level of the rate 8
        dims=2,
        use_checkpoint=True,
        use_fp16=True,
        num_heads_upsample=-1,
        num_head_channels=-1,
    )
    assert dict(network.config) == dict(convert_guided_diffusion(weights, num_heads=4).config)


def test_super_resolution_or_not_must_be_given():
    weights = random(unet_shapes(SMALL | {"in_channels": 6}))
    with pytest.raises(ValueError, match="give `in_channels`, 3 if this is one and 6 if it is not"):
        convert_guided_diffusion(weights, num_heads=4)


def test_improved_diffusion_has_no_arguments_of_its_successor():
    case = load_case("improved_diffusion_unet", "rescaled_timesteps_sigma")
    with pytest.raises(ValueError, match="no argument 'num_head_channels'"):
        convert_improved_diffusion(case.weights, num_head_channels=8)
    with pytest.raises(ValueError, match="This is a network of guided-diffusion"):
        convert_improved_diffusion(random(unet_shapes(SMALL | {"resblock_updown": True})), num_heads=4)


# The pipelines


@torch.no_grad()
def test_improved_diffusion_walks_the_golden_trajectory(tmp_path):
    case = load_case("improved_diffusion_unet", "rescaled_timesteps_sigma")
    file = save(case, tmp_path / "ema.pt")
    main([file, str(tmp_path / "out"), "--family", "improved_diffusion", "--option", *IMPROVED])

    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "out")
    assert type(pipe.unet) is ADMUNet2DModel and type(pipe.scheduler) is ExactDDPMScheduler
    assert pipe.config.null_class_label is None and pipe.config.id2label is None
    pipe.scheduler.set_timesteps(respacing="8")
    assert pipe.scheduler.timesteps.tolist() == case.outputs["timestep_map"].flip(0).tolist()
    sample = case.inputs["x_T"]
    for i, t in enumerate(pipe.scheduler.timesteps):
        output = pipe.unet(sample, t).sample
        step = pipe.scheduler.step(output, t, sample, variance_noise=case.inputs["trajectory_noise"][i])
        sample = step.prev_sample
        torch.testing.assert_close(sample, case.outputs["trajectory"][i], rtol=0, atol=1e-4)


def test_a_class_conditional_network_becomes_a_pipeline(tmp_path):
    case = load_case("guided_diffusion_unet", "new_attention_class_cond")
    file = save(case, tmp_path / "model.pt")
    names = {str(label): f"class {label}" for label in range(7)}
    (tmp_path / "names.json").write_text(json.dumps(names))
    arguments = ["--family", "guided_diffusion", "--option", *CLASS_COND, "--id2label", str(tmp_path / "names.json")]
    main([file, str(tmp_path / "out"), *arguments])

    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe.unet) is UNet2DModel
    assert pipe.scheduler.config.variance_type == "fixed_large"
    assert pipe.config.default_num_inference_steps == 250
    images = pipe(class_labels=["class 3", 6], num_inference_steps=2, output_type="pt").images
    assert images.shape == (2, 3, 16, 16)
    # without this package, by the code in the folder
    plain = DiffusionPipeline.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert type(plain).__name__ == "ClassConditionalPipeline"


def test_unnamed_classes_are_named_by_their_ids(tmp_path):
    file = save(load_case("guided_diffusion_unet", "new_attention_class_cond"), tmp_path / "model.pt")
    main([file, str(tmp_path / "out"), "--family", "guided_diffusion", "--option", *CLASS_COND])
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "out")
    assert pipe.config.id2label == {label: str(label) for label in range(7)}


@torch.no_grad()
def test_super_resolution_becomes_two_folders(tmp_path, capsys):
    case = load_case("guided_diffusion_unet", "superres")
    options = ["image_size=16", "in_channels=3", "num_heads=2", "diffusion_steps=1000", "noise_schedule=linear"]
    main([save(case, tmp_path / "m.pt"), str(tmp_path / "out"), "--family", "guided_diffusion", "--option", *options])
    assert "ADMUNet2DModel in" in capsys.readouterr().out

    unet = ADMUNet2DModel.from_pretrained(tmp_path / "out" / "unet")
    scheduler = ExactDDPMScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    assert scheduler.config.variance_type == "learned_range"
    sample = unet(case.inputs["x"], case.inputs["timesteps"], low_res=case.inputs["low_res"]).sample
    torch.testing.assert_close(sample, case.outputs["model_output"], rtol=0, atol=1e-5)
