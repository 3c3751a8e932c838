import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import convert_state_dict_to_kohya
from safetensors.torch import load_file, save_file

from diffusers_ext.converters.kohya import convert_lora_file, from_kohya, is_kohya, to_kohya
from diffusers_ext.converters.kohya.__main__ import main
from diffusers_ext.training.loop.model_files import write_whole
from diffusers_ext.training.text_to_image.base_models import load_base_model
from diffusers_ext.training.text_to_image.lora import FILE, adapted, add_adapters, save_adapters
from tests.training.runs import environment
from tests.training.text_to_image_models import FAMILIES, SIZE, tiny_base


ADAPTERS = [
    ("sd1", {}),
    ("sd1", {"use_dora": True, "targets": ["to_q", "conv1"]}),
    ("sd2", {"alpha": 1}),
    ("sdxl", {"targets": ["to_k", "conv1", "conv2", "conv", "conv_shortcut", "conv_in", "conv_out", "linear_2"]}),
    ("sdxl", {"targets": ["all-linear"], "alpha": 3}),
    ("sd3", {}),
    ("sd3", {"targets": ["attn.to_q", "attn.to_k", "attn.to_v", "ff.net.2", "proj_out"], "use_dora": True}),
]


def pipeline(family) -> DiffusionPipeline:
    absent = {"text_encoder_3": None, "tokenizer_3": None} if family == "sd3" else {}
    loaded = DiffusionPipeline.from_pretrained(tiny_base(family), **absent)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def image(pipe) -> np.ndarray:
    options = {"num_inference_steps": 2, "height": SIZE, "width": SIZE, "output_type": "np"}
    return pipe("picture 1", generator=torch.Generator().manual_seed(0), **options).images


def random_adapters(folder, family, **options):
    """A LoRA file of diffusers with random numbers, and the image that it makes."""
    base = load_base_model(tiny_base(family))
    base.freeze(torch.device("cpu"))
    add_adapters(base, rank=2, **options, train_text_encoders=True)
    numbers = torch.Generator().manual_seed(1)
    for network in adapted(base).values():
        for name, weight in network.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                weight.data.normal_(0, 0.3, generator=numbers)
            elif "lora_magnitude" in name:
                weight.data *= 1 + 0.3 * torch.rand(weight.shape, generator=numbers)
    write_whole(lambda unfinished: save_adapters(base, unfinished), folder, last=FILE)
    base.pipeline.set_progress_bar_config(disable=True)
    with base.as_loaded():
        return folder / FILE, image(base.pipeline)


def assert_same_tensors(one, other):
    one, other = load_file(one), load_file(other)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) and value.dtype == other[name].dtype for name, value in one.items())


@pytest.mark.parametrize(("family", "options"), ADAPTERS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_way_there_and_back_is_exact(tmp_path, family, options):
    file, expected = random_adapters(tmp_path / "diffusers", family, **options)
    pipe = pipeline(family)
    there = convert_lora_file(file, tmp_path / "kohya.safetensors", pipe)
    back = convert_lora_file(there, tmp_path / "back", pipe)
    again = convert_lora_file(back, tmp_path / "again.safetensors", pipe)
    assert is_kohya(load_file(there)) and not is_kohya(load_file(back))
    assert_same_tensors(file, back)
    assert_same_tensors(there, again)
    before = image(pipe)
    pipe.load_lora_weights(str(back.parent))
    assert np.array_equal(image(pipe), expected) and not np.array_equal(before, expected)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_diffusers_reads_kohya_s_layout_as_we_write_it(tmp_path, family):
    file, expected = random_adapters(tmp_path, family, alpha=3, targets=["to_q", "to_v", "conv1"])
    pipe = pipeline(family)
    pipe.load_lora_weights(str(convert_lora_file(file, tmp_path / "kohya.safetensors", pipe)))
    assert np.array_equal(image(pipe), expected)


def kohya_adapter(name, outputs, inputs, rank=2, alpha=1.0):
    numbers = torch.Generator().manual_seed(2)
    return {
        f"{name}.lora_down.weight": torch.randn(rank, inputs, generator=numbers),
        f"{name}.lora_up.weight": torch.randn(outputs, rank, generator=numbers),
        f"{name}.alpha": torch.tensor(alpha),
    }


def test_names_of_sd_scripts():
    """Names of published files: SD by diffusers' names, SDXL by those of its authors, two text encoders numbered."""
    cases = {
        "sd1": {
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0": (16, 16),
            "lora_te_text_model_encoder_layers_1_mlp_fc1": (32, 16),
        },
        "sdxl": {
            "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k": (16, 32),
            "lora_unet_middle_block_1_proj_in": (16, 16),
            "lora_unet_output_blocks_1_1_transformer_blocks_1_ff_net_2": (16, 64),
            "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (16, 16),
            "lora_te2_text_model_encoder_layers_0_self_attn_q_proj": (16, 16),
        },
    }
    expected = {
        "sd1": [
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
            "text_encoder.text_model.encoder.la",
        ],
        "sdxl": [
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
            "unet.mid_block.attentions.0.proj_in",
            "unet.up_blocks.0.attentions.1.transformer_blocks.1.ff.net.2",
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
            "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj",
        ],
    }
    for family, layers in cases.items():
        state = {}
        for name, (outputs, inputs) in layers.items():
            state |= kohya_adapter(name, outputs, inputs)
        converted, metadata = from_kohya(state, pipeline(family))
        starts = [key for key in converted if key.endswith("lora_A.weight")]
        assert all(key.startswith(wanted) for key, wanted in zip(starts, expected[family], strict=True))
        assert metadata["unet.lora_alpha"] == 1.0 and metadata["unet.r"] == 2


def test_ranks_and_alphas_may_differ_from_layer_to_layer(tmp_path):
    prefix = "lora_unet_mid_block_attentions_0_transformer_blocks_0"
    state = {
        **kohya_adapter(f"{prefix}_attn1_to_q", 16, 16, rank=4, alpha=4.0),
        **kohya_adapter(f"{prefix}_attn1_to_k", 16, 16, rank=4, alpha=4.0),
        **kohya_adapter(f"{prefix}_attn1_to_v", 16, 16, rank=1, alpha=8.0),
    }
    save_file(state, tmp_path / "kohya.safetensors")
    back = convert_lora_file(tmp_path / "kohya.safetensors", tmp_path / "converted", pipeline("sd1"))
    assert_same_tensors(
        convert_lora_file(back, tmp_path / "again.safetensors", pipeline("sd1")), tmp_path / "kohya.safetensors"
    )
    # The images of kohya's file itself are no reference: diffusers reads only the first of its alphas.
    pipe = pipeline("sd1")
    pipe.load_lora_weights(str(back), adapter_name="lora")
    attention = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    for layer, scale in (("to_q", 1), ("to_k", 1), ("to_v", 8)):
        down, up = (state[f"{prefix}_attn1_{layer}.lora_{side}.weight"] for side in ("down", "up"))
        torch.testing.assert_close(getattr(attention, layer).get_delta_weight("lora"), scale * up @ down)


def test_one_layer_of_sd3_in_kohya_s_network_is_three_in_diffusers():
    state = kohya_adapter("lora_unet_joint_blocks_0_x_block_attn_qkv", 48, 16, rank=2, alpha=1.0)
    pipe = pipeline("sd3")
    converted, metadata = from_kohya(state, pipe)
    whole = (
        state["lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight"]
        @ (state["lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight"])
    )
    prefix = "transformer.transformer_blocks.0.attn.to_"
    parts = [converted[f"{prefix}{p}.lora_B.weight"] @ converted[f"{prefix}{p}.lora_A.weight"] for p in "qkv"]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert (metadata["transformer.r"], metadata["transformer.lora_alpha"]) == (2, 1.0)
    again = to_kohya(converted, metadata, pipe)
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_files_of_diffusers_own_writer_are_read(tmp_path, family):
    """It writes diffusers' names of layers for every base, and numbers the only text encoder of SD 1.x."""
    file, _ = random_adapters(tmp_path, family, targets=["to_q", "conv1", "conv_shortcut"])
    expected = load_file(file)
    state = convert_state_dict_to_kohya(dict(expected))
    assert is_kohya(state) and any(key.startswith("lora_te1_") for key in state)
    converted, metadata = from_kohya(state, pipeline(family))
    assert converted.keys() == expected.keys()
    assert all(torch.equal(value, converted[key]) for key, value in expected.items())
    assert metadata["unet.lora_alpha"] == metadata["unet.r"] == 2


def test_diffusers_names_of_sd3_are_read():
    name = "lora_transformer_transformer_blocks_0_attn_to_q"
    converted, _ = from_kohya(kohya_adapter(name, 16, 16), pipeline("sd3"))
    assert [key.removeprefix("transformer.transformer_blocks.0.attn.to_q.") for key in converted] == [
        "lora_A.weight",
        "lora_B.weight",
    ]


def test_without_alphas_they_are_the_ranks():
    state = {key: value for key, value in kohya_file().items() if not key.endswith("alpha")}
    assert from_kohya(state, pipeline("sd1"))[1]["unet.lora_alpha"] == 2
    name = "lora_unet_joint_blocks_0_x_block_attn_qkv"
    separate = {f"{name}.lora_down.weight": torch.ones(6, 16)}
    separate[f"{name}.lora_up.weight"] = torch.block_diag(*torch.ones(3, 16, 2))
    metadata = from_kohya(separate, pipeline("sd3"))[1]
    assert metadata["transformer.lora_alpha"] == metadata["transformer.r"] == 2


def test_a_linear_layer_may_be_stored_as_a_convolution_of_size_one():
    state = kohya_file()
    converted, _ = from_kohya(state, pipeline("sd1"))
    wide = {key: value[..., None, None] if value.ndim == 2 else value for key, value in state.items()}
    again, _ = from_kohya(wide, pipeline("sd1"))
    assert all(torch.equal(value, again[key]) for key, value in converted.items())


# What is refused


def kohya_file(family="sd1"):
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    return {"sd1": kohya_adapter(name, 16, 16), "sd3": kohya_adapter("lora_unet_final_layer_linear", 4, 16)}[family]


@pytest.mark.parametrize("part", ["lora_down.weight", "lora_up.weight", "alpha"])
def test_a_missing_tensor_is_refused(part):
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_k"
    state = {**kohya_file(), **kohya_adapter(name, 16, 16)}
    del state[f"{name}.{part}"]
    with pytest.raises(ValueError, match=f"^The LoRA is not complete: .*{part} is missing.$"):
        from_kohya(state, pipeline("sd1"))


@pytest.mark.parametrize(
    "key",
    [
        "lora_unet_down_blocks_7_attentions_0_proj_in.alpha",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
    ],
)
def test_a_tensor_that_nothing_uses_is_refused(key):
    with pytest.raises(ValueError, match=f"^The LoRA is for another base: {key} belongs to no layer"):
        from_kohya({**kohya_file(), key: torch.ones(1)}, pipeline("sd1"))


@pytest.mark.parametrize("part", [".hada_w1_a", ".lokr_w1", ".lora_mid.weight", ".diff", ""])
def test_adapters_of_another_kind_are_called_so(part):
    """LoHa, LoKr, Tucker, whole differences, and no adapter at all."""
    key = f"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q{part}"
    with pytest.raises(ValueError, match=f"{key} is none of lora_down.weight, .* Only LoRA and DoRA have"):
        from_kohya({**kohya_file(), key: torch.ones(1)}, pipeline("sd1"))
    key = f"unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q{part}"
    with pytest.raises(ValueError, match=f"{key} is none of lora_A.weight, .* Only LoRA and DoRA have"):
        to_kohya({key: torch.ones(1)}, {}, pipeline("sd1"))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ("mid_block_attentions_0_transformer_blocks_0_attn1_to_q", (1, 16)),
        ("mid_block_attentions_0_transformer_blocks_0_attn1_to_q", (16, 16)),
        ("mid_block_attentions_0_transformer_blocks_0_attn1_to_q", (15,)),
        ("mid_block_resnets_0_conv1", (1, 16, 1, 1)),
    ],
)
def test_magnitudes_that_peft_can_not_hold_are_refused(layer, shape):
    """Such as those along the inputs of a layer, even if it has as many outputs."""
    state = kohya_adapter(f"lora_unet_{layer}", 16, 16)
    if "conv" in layer:
        state[f"lora_unet_{layer}.lora_down.weight"] = torch.ones(2, 16, 3, 3)
    state[f"lora_unet_{layer}.dora_scale"] = torch.ones(shape)
    with pytest.raises(
        ValueError, match=r"dora_scale is \(.*\), but peft holds one number per output of a layer, \(16"
    ):
        from_kohya(state, pipeline("sd1"))


def test_magnitudes_in_another_shape_that_means_the_same():
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    for shape in ((16,), (16, 1), (16, 1, 1, 1)):
        state = {**kohya_file(), f"{name}.dora_scale": torch.arange(16.0).view(shape)}
        converted, _ = from_kohya(state, pipeline("sd1"))
        (magnitude,) = [value for key, value in converted.items() if "magnitude" in key]
        assert torch.equal(magnitude, torch.arange(16.0))


@pytest.mark.parametrize(
    ("part", "value", "sentence"),
    [
        ("alpha", torch.ones(2), r"alpha must be one number, but is \(2,\)"),
        ("alpha", torch.tensor(torch.nan), "alpha has NaN or infinite values"),
        ("lora_up.weight", torch.full((16, 2), torch.inf), "lora_up.weight has NaN or infinite values"),
        (
            "lora_up.weight",
            torch.ones(16, 2, dtype=torch.int),
            "lora_up.weight must hold floats, but is of torch.int32",
        ),
        ("lora_up.weight", torch.ones(15, 2), r"is \(2, 16\) and \(15, 2\), but this one needs \(2, 16\) and"),
        ("lora_down.weight", torch.ones(0, 16), r"is \(0, 16\) and \(16, 2\), but this one needs \(1, 16\) and"),
        ("lora_down.weight", torch.tensor(1.0), r"is \(\) and \(16, 2\), but this one needs \(1, 16\) and"),
    ],
)
def test_tensors_of_no_meaning_are_refused(part, value, sentence):
    (key,) = [key for key in kohya_file() if key.endswith(part)]
    with pytest.raises(ValueError, match=sentence):
        from_kohya({**kohya_file(), key: value}, pipeline("sd1"))


def test_tensors_of_no_meaning_are_refused_the_other_way():
    pipe, layer = pipeline("sd1"), "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    whole = {f"{layer}.lora_A.weight": torch.ones(2, 16), f"{layer}.lora_B.weight": torch.ones(16, 2)}
    key = f"{layer}.lora_magnitude_vector"
    for shape in ((1, 16), (15,), (32,)):
        with pytest.raises(ValueError, match=r"lora_magnitude_vector is \(.*\), but must be \(16,\)"):
            to_kohya({**whole, key: torch.ones(shape)}, {}, pipe)
    with pytest.raises(ValueError, match="two tensors for .*lora_magnitude_vector"):
        to_kohya({**whole, key: torch.ones(16), f"{key}.weight": torch.ones(16)}, {}, pipe)
    with pytest.raises(ValueError, match="lora_A.weight has NaN"):
        to_kohya({**whole, f"{layer}.lora_A.weight": torch.full((2, 16), torch.nan)}, {}, pipe)


def test_another_shape_is_refused():
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    with pytest.raises(ValueError, match=r"is \(2, 768\) and \(16, 2\), but this one needs \(2, 16\) and \(16, 2\)"):
        from_kohya(kohya_adapter(name, 16, 768), pipeline("sd1"))


@pytest.mark.parametrize(
    "family", ["sd1", *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != "sd1")]
)
def test_files_of_one_family_are_no_files_of_another(tmp_path, family):
    file, _ = random_adapters(tmp_path, family)
    kohya = load_file(convert_lora_file(file, tmp_path / "kohya.safetensors", pipeline(family)))
    # These tiny SD 1.x and 2.x differ only in layers that have no adapters here.
    for other in {"sd1", "sdxl", "sd3"} - {family, "sd1" if family == "sd2" else family}:
        with pytest.raises(ValueError, match="The LoRA is for another base"):
            from_kohya(kohya, pipeline(other))
        with pytest.raises(ValueError, match="The LoRA is for another base"):
            to_kohya(load_file(file), {}, pipeline(other))


def test_two_adapters_for_a_layer_are_refused():
    names = "lora_unet_middle_block_1_proj_in", "lora_unet_mid_block_attentions_0_proj_in"
    state = kohya_adapter(names[0], 16, 16) | kohya_adapter(names[1], 16, 16)
    with pytest.raises(
        ValueError, match=f"two adapters for unet.mid_block.attentions.0.proj_in: {' and '.join(names)}"
    ):
        from_kohya(state, pipeline("sdxl"))


@pytest.mark.parametrize(
    "metadata",
    ["{", "[]", '{"unet.lora_alpha": "4"}', '{"unet.alpha_pattern": {"to_q": NaN}}', '{"unet.alpha_pattern": 1}'],
)
def test_a_damaged_description_is_refused(tmp_path, metadata):
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    whole = {f"{layer}.lora_A.weight": torch.ones(2, 16), f"{layer}.lora_B.weight": torch.ones(16, 2)}
    save_file(whole, tmp_path / "lora.safetensors", {"lora_adapter_metadata": metadata})
    with pytest.raises(OSError, match="lora.safetensors can't be read as a LoRA file: [^\n]+$"):
        convert_lora_file(tmp_path / "lora.safetensors", tmp_path / "out", pipeline("sd1"))
    assert not (tmp_path / "out").exists()


def test_names_that_would_reach_the_terminal_are_refused(tmp_path):
    save_file({**kohya_file(), "lora_unet_x\n\x1b[2J.alpha": torch.ones(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(OSError, match=r"these names of tensors can't be printed: 'lora_unet_x\\n\\x1b\[2J.alpha'$"):
        convert_lora_file(tmp_path / "lora.safetensors", tmp_path / "out", pipeline("sd1"))


def test_damaged_files_and_taken_names_are_refused(tmp_path):
    save_file(kohya_file(), tmp_path / "lora.safetensors")
    with pytest.raises(FileExistsError, match="lora.safetensors exists already"):
        convert_lora_file(tmp_path / "lora.safetensors", tmp_path / "lora.safetensors", pipeline("sd1"))
    content = (tmp_path / "lora.safetensors").read_bytes()
    (tmp_path / "lora.safetensors").write_bytes(content[:-1])
    for name in ("lora.safetensors", "nothing.safetensors"):
        with pytest.raises(OSError, match=f"{name} can't be read as a LoRA file"):
            convert_lora_file(tmp_path / name, tmp_path / "out", pipeline("sd1"))


def test_the_other_way_refuses_as_much(tmp_path):
    pipe = pipeline("sd1")
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    whole = {f"{layer}.lora_A.weight": torch.ones(2, 16), f"{layer}.lora_B.weight": torch.ones(16, 2)}
    assert to_kohya(whole, {}, pipe)["lora_unet_" + layer[5:].replace(".", "_") + ".alpha"] == 2  # the rank
    with pytest.raises(ValueError, match="not complete: .*lora_B.weight is missing"):
        to_kohya({f"{layer}.lora_A.weight": torch.ones(2, 16)}, {}, pipe)
    with pytest.raises(ValueError, match="unet.nothing.lora_A.weight belongs to no layer"):
        to_kohya({**whole, "unet.nothing.lora_A.weight": torch.ones(1)}, {}, pipe)


def test_what_kohya_s_files_can_not_hold_is_refused():
    pipe, prefix = pipeline("sd3"), "transformer.transformer_blocks.0.attn.to_"
    query = {f"{prefix}q.lora_A.weight": torch.ones(2, 16), f"{prefix}q.lora_B.weight": torch.ones(16, 2)}
    with pytest.raises(ValueError, match="includes .*, which has no adapter"):
        to_kohya(query, {}, pipe)
    others = {}
    for part, rank in (("k", 2), ("v", 1)):
        others[f"{prefix}{part}.lora_A.weight"] = torch.ones(rank, 16)
        others[f"{prefix}{part}.lora_B.weight"] = torch.ones(16, rank)
    with pytest.raises(ValueError, match="query, key and value need the same rank and alpha"):
        to_kohya({**query, **others}, {}, pipe)
    swapped = "transformer.norm_out.linear.lora_A.weight"
    with pytest.raises(ValueError, match="kohya's files can't hold"):
        to_kohya({swapped: torch.ones(2, 16)}, {}, pipe)


@pytest.mark.slow
def test_the_command(tmp_path):
    file, _ = random_adapters(tmp_path / "lora", "sd1")
    command = [sys.executable, "-m", "diffusers_ext.converters.kohya", str(file), str(tmp_path / "k.safetensors")]
    subprocess.run([*command, "--base", tiny_base("sd1")], check=True, env=environment(), capture_output=True)
    assert is_kohya(load_file(tmp_path / "k.safetensors"))
    wrong = subprocess.run([*command, "--base", tiny_base("sd3")], env=environment(), capture_output=True, text=True)
    assert wrong.returncode == 2 and "error: " in wrong.stderr and "Traceback" not in wrong.stderr


def test_a_base_in_a_single_file_is_refused_as_that(tmp_path, monkeypatch, capsys):
    file = tmp_path / "model.safetensors"
    save_file(kohya_file(), file)
    monkeypatch.setattr(sys, "argv", ["kohya", str(file), str(tmp_path / "out"), "--base", str(file)])
    with pytest.raises(SystemExit):
        main()
    assert f"error: --base {file} is a single file, but a folder or" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is a single file, but a folder or"):
        load_base_model(str(file))
