"""CLIP in the layouts of OpenAI, open_clip and GLIDE: the originals' outputs, sizes of published files, refusals."""

import json
import zipfile

import pytest
import torch
from torch import nn
from transformers import CLIPModel

from diffusers_ext.converters import convert_checkpoint, convert_clip, convert_glide_clip, convert_open_clip
from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.openai_clip.presets import CLIPS
from diffusers_ext.converters.openai_glide import FAMILIES as GLIDE
from diffusers_ext.losses import contrastive_loss
from diffusers_ext.models import CLIPResNetModel, NoisyCLIPModel
from diffusers_ext.training.text_and_image.clip_networks import feature_tensor
from tests.converters.cases import assert_near, assert_refused, load_case
from tests.converters.originals import empty, layer


def golden(family: str, name: str):
    case = load_case(family, name)
    convert = {"clip": convert_clip, "open_clip": convert_open_clip}[family]
    return case, convert(case.weights, **case.args)


@pytest.mark.parametrize("name, model_class", [("vit", CLIPModel), ("modified_resnet", CLIPResNetModel)])
def test_openai_clip(name, model_class):
    case, clip = golden("clip", name)
    assert type(clip) is model_class
    pixels, expected = case.inputs["image"].requires_grad_(), case.outputs
    assert_near(feature_tensor(clip.get_image_features(pixel_values=pixels)), expected["image_features"])
    assert_near(feature_tensor(clip.get_text_features(input_ids=case.inputs["text"])), expected["text_features"])
    output = clip(pixel_values=pixels, input_ids=case.inputs["text"])
    assert_near(output.logits_per_image, expected["logits_per_image"])
    loss = contrastive_loss(output.image_embeds, output.text_embeds, clip.logit_scale.exp())
    assert_near(loss.mean(), expected["contrastive_loss"])
    similarity = clip.logit_scale.exp() * (output.image_embeds * output.text_embeds).sum()
    assert_near(torch.autograd.grad(similarity, pixels)[0], expected["guidance_gradient"])


@pytest.mark.parametrize("prefix", ["", "text."])
@torch.no_grad()
def test_open_clip(prefix):
    """Also as a CustomTextCLIP, which has the text tower under a name of its own."""
    case = load_case("open_clip", "vit_exact_gelu")
    shared = ("visual.", "logit_scale")
    weights = {key if key.startswith(shared) else prefix + key: value for key, value in case.weights.items()}
    clip = convert_open_clip(weights, **case.args)
    images = feature_tensor(clip.get_image_features(pixel_values=case.inputs["image"]))
    texts = feature_tensor(clip.get_text_features(input_ids=case.inputs["text"]))
    assert_near(images, case.outputs["image_features"])
    assert_near(texts, case.outputs["text_features"])
    embeds = (nn.functional.normalize(values, dim=1) for values in (images, texts))
    assert_near(contrastive_loss(*embeds, clip.logit_scale.exp()).mean(), case.outputs["loss"])


def test_glide_clip():
    case = load_case("glide", "noised_clip")
    clip = convert_glide_clip(case.weights, **case.config["clip"])
    noisy, tokens = case.inputs["x"].requires_grad_(), case.inputs["tokens"]
    mask = torch.arange(tokens.shape[1]) < case.inputs["token_lens"][:, None]
    output = clip(noisy, case.inputs["timesteps"], tokens, mask)
    assert_near(output.image_embeds, case.outputs["image_embeddings"])
    assert_near(output.text_embeds, case.outputs["text_embeddings"])
    similarity = clip.logit_scale.exp() * (output.image_embeds * output.text_embeds).sum()
    gradient = case.config["grad_scale"] * torch.autograd.grad(similarity, noisy)[0]
    assert_near(gradient, case.outputs["gradient"])
    assert_near(case.inputs["mean"] + case.inputs["variance"] * gradient, case.outputs["guided_mean"])


def test_both_files_of_glide_clip_become_one_model(tmp_path):
    case = load_case("glide", "noised_clip")
    for tower in ("image", "text"):
        prefix = f"{tower}_encoder."
        part = {key.removeprefix(prefix): value for key, value in case.weights.items() if key.startswith(prefix)}
        torch.save(part, tmp_path / f"{tower}.pt")
    heads = {"n_head_image": 2, "n_head_text": 2}
    with pytest.raises(ValueError, match="two files: name that of the text encoder by `text_file`"):
        convert_checkpoint(tmp_path / "image.pt", tmp_path / "out", "glide_clip", **heads)
    text = str(tmp_path / "text.pt")
    written = convert_checkpoint(tmp_path / "image.pt", tmp_path / "out", "glide_clip", text_file=text, **heads)
    assert written.endswith("assuming logit_scale=100.0")
    clip = NoisyCLIPModel.from_pretrained(tmp_path / "out")
    image = clip.get_image_features(case.inputs["x"], case.inputs["timesteps"])
    assert_near(nn.functional.normalize(image, dim=1), case.outputs["image_embeddings"])


# Published sizes


def tower_shapes(prefix: str, width: int, layers: int) -> dict:
    shapes = {}
    for i in range(layers):
        block = f"{prefix}transformer.resblocks.{i}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= layer(f"{block}.attn.out_proj", width, width)
        shapes |= layer(f"{block}.mlp.c_fc", 4 * width, width) | layer(f"{block}.mlp.c_proj", width, 4 * width)
        shapes |= layer(f"{block}.ln_1", width) | layer(f"{block}.ln_2", width)
    return shapes


def norm_shapes(name: str, width: int) -> dict:
    return layer(name, width) | {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}


def resnet_shapes(layers: list[int], width: int, resolution: int, embed_dim: int) -> dict:
    shapes, channels = {}, width
    for i, (inputs, outputs) in enumerate([(3, width // 2), (width // 2, width // 2), (width // 2, width)], start=1):
        shapes |= {f"visual.conv{i}.weight": (outputs, inputs, 3, 3)} | norm_shapes(f"visual.bn{i}", outputs)
    for level, count in enumerate(layers, start=1):
        inner = width * 2 ** (level - 1)
        for block in range(count):
            name = f"visual.layer{level}.{block}"
            kernels = [(inner, channels, 1), (inner, inner, 3), (4 * inner, inner, 1)]
            for i, (outputs, inputs, side) in enumerate(kernels, start=1):
                shapes |= {f"{name}.conv{i}.weight": (outputs, inputs, side, side)}
                shapes |= norm_shapes(f"{name}.bn{i}", outputs)
            if block == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * inner, channels, 1, 1)}
                shapes |= norm_shapes(f"{name}.downsample.1", 4 * inner)
            channels = 4 * inner
    pool = "visual.attnpool"
    shapes[f"{pool}.positional_embedding"] = ((resolution // 32) ** 2 + 1, channels)
    for name in ("q_proj", "k_proj", "v_proj"):
        shapes |= layer(f"{pool}.{name}", channels, channels)
    return shapes | layer(f"{pool}.c_proj", embed_dim, channels)


def clip_shapes(args: dict) -> dict:
    width, embed_dim, resolution = args["transformer_width"], args["embed_dim"], args["image_resolution"]
    shapes = {
        "positional_embedding": (args["context_length"], width),
        "text_projection": (width, embed_dim),
        "logit_scale": (),
        "token_embedding.weight": (args["vocab_size"], width),
        **layer("ln_final", width),
        **tower_shapes("", width, args["transformer_layers"]),
    }
    channels, patch_size = args["vision_width"], args["vision_patch_size"]
    if patch_size is None:
        return shapes | resnet_shapes(args["vision_layers"], channels, resolution, embed_dim)
    shapes |= {
        "visual.class_embedding": (channels,),
        "visual.positional_embedding": ((resolution // patch_size) ** 2 + 1, channels),
        "visual.proj": (channels, embed_dim),
        "visual.conv1.weight": (channels, 3, patch_size, patch_size),
        **layer("visual.ln_pre", channels),
        **layer("visual.ln_post", channels),
    }
    return shapes | tower_shapes("visual.", channels, args["vision_layers"])


@pytest.mark.parametrize(
    "name, number",
    [
        ("RN50", 102_007_137),
        ("RN101", 119_688_033),
        ("RN50x4", 178_300_601),
        ("RN50x16", 290_979_217),
        ("RN50x64", 623_258_305),
        ("ViT-B/32", 151_277_313),
        ("ViT-B/16", 149_620_737),
        ("ViT-L/14", 427_616_513),
        ("ViT-L/14@336px", 427_944_193),
    ],
)
def test_number_of_parameters(name, number):
    clip = convert_clip(empty(clip_shapes(CLIPS[name])), **CLIPS[name])
    assert sum(parameter.numel() for parameter in clip.parameters()) == number


def test_the_preset_of_glide_is_a_network():
    (preset,) = (family.presets["glide"] for family in GLIDE if family.name == "glide_clip")
    with torch.device("meta"):
        clip = NoisyCLIPModel(
            sample_size=preset["image_size"],
            patch_size=preset["patch_size"],
            image_dim=preset["n_head_image"] * preset["n_head_state_image"],
            num_image_layers=preset["n_xf_blocks_image"],
            num_image_heads=preset["n_head_image"],
        )
    assert clip.position_embedding.shape == (257, 768)


# Files


class Pair(nn.Module):
    """A module with a submodule, a parameter in half precision, and a buffer."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.tensor([2.0], dtype=torch.float16))
        self.register_buffer("count", torch.arange(6)[1::2])

    def forward(self, x):
        return self.inner(x) * self.scale.float()


def test_archives_of_torchscript_are_read(tmp_path):
    module = Pair()
    torch.jit.script(module).save(str(tmp_path / "pair.pt"))
    read, expected = read_state_dict(tmp_path / "pair.pt"), module.state_dict()
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)


def test_archives_with_other_objects_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("bad/constants.pkl", b"\x80\x02).")
        archive.writestr("bad/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="holds os.system, but only tensors are read"):
        read_state_dict(tmp_path / "bad.pt")


def test_a_checkpoint_becomes_a_folder_of_transformers(tmp_path):
    case = load_case("clip", "vit")
    torch.save(case.weights, tmp_path / "clip.pt")
    assert convert_checkpoint(tmp_path / "clip.pt", tmp_path / "out", "clip").startswith("CLIPModel in")
    clip = CLIPModel.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        output = clip(pixel_values=case.inputs["image"], input_ids=case.inputs["text"])
    assert_near(output.logits_per_image, case.outputs["logits_per_image"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]["eos_token_id"] == 59


@pytest.mark.parametrize(
    "options, message",
    [
        ({"vision_layers": 3}, "`vision_layers` is given as 3, but the checkpoint has 2"),
        ({"image_resolution": 32}, "`image_resolution` is given as 32, but the checkpoint has 16"),
        ({"depth": 3}, "depth"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    assert_refused(convert_clip, load_case("clip", "vit").weights, options, message)


def test_other_networks_are_refused():
    assert_refused(convert_clip, empty(layer("fc", 2, 2)), {}, "not a CLIP: it has no visual")
    weights = load_case("clip", "vit").weights
    assert_refused(convert_clip, {**weights, "logit_bias": torch.zeros(())}, {}, "1 unknown: logit_bias")
    case = load_case("open_clip", "vit_exact_gelu")
    pooled = {**case.args, "vision_cfg": {**case.args["vision_cfg"], "global_average_pool": True}}
    assert_refused(convert_open_clip, case.weights, pooled, "`vision_cfg` has global_average_pool, which a CLIPModel")
    assert_refused(convert_open_clip, case.weights, {**case.args, "text_cfg": {"heads": 5}}, "`heads` must divide")
    glide = load_case("glide", "noised_clip").weights
    assert_refused(convert_glide_clip, glide, {}, "does not show its `n_head_image`")
    assert_refused(convert_glide_clip, glide, {"n_head_image": 3, "n_head_state_image": 16}, "`n_head_image` is 3")
