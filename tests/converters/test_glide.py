"""GLIDE's base, upsampler and inpainting models: the original's outputs, published sizes, refusals."""

import pytest
import torch
import torch.nn.functional as F

from diffusers_ext.converters import convert_checkpoint, convert_glide
from diffusers_ext.converters.openai_glide.presets import TEXT_TO_IMAGE
from diffusers_ext.models import GlideTextModel
from diffusers_ext.schedulers import ExactDDIMScheduler, ExactDDPMScheduler
from tests.converters.cases import assert_near, assert_refused, load_case
from tests.converters.originals import empty, layer, unet_shapes


CASES = ["text2im_base", "upsampler", "inpaint_base", "inpaint_upsampler"]


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_outputs(name):
    case = load_case("glide", name)
    unet, text_encoder = convert_glide(case.weights, **case.args, image_size=case.config["image_size"])
    inputs, expected = case.inputs, case.outputs
    text = text_encoder(inputs["tokens"], inputs["mask"])
    assert_near(text.pooler_output, expected["xf_proj"])
    assert_near(text.last_hidden_state, expected["xf_out"].transpose(1, 2))
    seen = [inputs["x"]]
    if "inpaint_image" in inputs:
        seen += [inputs["inpaint_image"] * inputs["inpaint_mask"], inputs["inpaint_mask"]]
    if "low_res" in inputs:
        seen.append(F.interpolate(inputs["low_res"], inputs["x"].shape[2:], mode="bilinear"))
    output = unet(
        torch.cat(seen, dim=1),
        inputs["timesteps"],
        encoder_hidden_states=text.last_hidden_state,
        class_labels=text.pooler_output,
    )
    assert_near(output.sample, expected["model_output"])


def glide_shapes(args: dict, in_channels: int) -> dict:
    """`Text2ImUNet` and its relatives."""
    width, length = args["xf_width"], args["text_ctx"]
    shapes = unet_shapes({**args, "in_channels": in_channels})
    for name in [name for name in shapes if name.endswith(".qkv.weight")]:
        shapes |= layer(name.replace(".qkv.weight", ".encoder_kv"), 2 * shapes[name][1], width, 1)
    for block in (f"transformer.resblocks.{i}" for i in range(args["xf_layers"])):
        shapes |= layer(f"{block}.attn.c_qkv", 3 * width, width) | layer(f"{block}.attn.c_proj", width, width)
        shapes |= layer(f"{block}.mlp.c_fc", 4 * width, width) | layer(f"{block}.mlp.c_proj", width, 4 * width)
        shapes |= layer(f"{block}.ln_1", width) | layer(f"{block}.ln_2", width)
    shapes |= {f"{kind}_embedding": (length, width) for kind in ("positional", "padding")}
    shapes |= {"token_embedding.weight": (args["n_vocab"], width)}
    return shapes | layer("final_ln", width) | layer("transformer_proj", 4 * args["model_channels"], width)


@pytest.mark.parametrize(
    "name, in_channels, millions",
    [("base", 3, 385.0), ("upsample", 6, 398.4), ("base_inpaint", 7, 385.0), ("upsample_inpaint", 10, 398.4)],
)
def test_presets_have_the_published_size(name, in_channels, millions):
    args = {k: v for k, v in TEXT_TO_IMAGE[name].items() if k not in ("diffusion_steps", "noise_schedule")}
    unet, text_encoder = convert_glide(empty(glide_shapes(args, in_channels)), **args)
    counts = [sum(p.numel() for p in network.parameters()) / 1e6 for network in (unet, text_encoder)]
    assert sum(counts) == pytest.approx(millions, abs=0.05)
    blocks = sum(p.numel() for p in text_encoder.blocks.parameters()) / 1e6
    assert blocks == pytest.approx(50.4, abs=0.05)
    assert unet.config.in_channels == in_channels


def test_a_file_becomes_folders(tmp_path):
    case = load_case("glide", "upsampler")
    torch.save(case.weights, tmp_path / "upsample.pt")
    options = {"noise_schedule": "linear", "image_size": 16, "xf_heads": 2, "num_head_channels": 16}
    written = convert_checkpoint(tmp_path / "upsample.pt", tmp_path / "out", "glide", **options)
    assert written.endswith("assuming diffusion_steps=1000")
    text_encoder = GlideTextModel.from_pretrained(tmp_path / "out" / "text_encoder")
    with torch.no_grad():
        pooled = text_encoder(case.inputs["tokens"], case.inputs["mask"]).pooler_output
    assert_near(pooled, case.outputs["xf_proj"])
    assert ExactDDIMScheduler.from_pretrained(tmp_path / "out" / "scheduler").config.beta_schedule == "linear"


def test_the_samplers_are_those_of_the_notebooks(tmp_path):
    case = load_case("glide", "text2im_base")
    torch.save(case.weights, tmp_path / "base.pt")
    options = {"noise_schedule": "squaredcos_cap_v2", "image_size": 8, "xf_heads": 2, "num_head_channels": 16}
    convert_checkpoint(tmp_path / "base.pt", tmp_path / "out", "glide", **options)
    scheduler = ExactDDPMScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    assert scheduler.config.variance_type == "learned_range"


def test_refusals():
    case = load_case("glide", "text2im_base")
    weights, heads = case.weights, {"xf_heads": 2, "num_head_channels": 16}
    assert_refused(convert_glide, weights, {"num_head_channels": 16}, "xf_heads")
    assert_refused(convert_glide, weights, {"xf_heads": 2}, "how many attention heads")
    assert_refused(convert_glide, weights, {**heads, "xf_heads": 3}, "`xf_heads` must divide the 32 channels")
    assert_refused(convert_glide, weights, {**heads, "xf_layers": 2}, "xf_layers")
    assert_refused(convert_glide, weights, {**heads, "in_channels": 2}, "no model of GLIDE for images of 2 channels")
    without = {key: value for key, value in weights.items() if key != "padding_embedding"}
    assert_refused(convert_glide, without, heads, "no `padding_embedding`")
