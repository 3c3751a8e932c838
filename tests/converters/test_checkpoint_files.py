import collections
import os

import pytest
import torch
from safetensors.torch import save_file

from diffusers_ext.converters.checkpoint_files import read_state_dict
from diffusers_ext.converters.state_dicts import listed


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(3)}


class Foreign:
    """An object that would run code when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def assert_is(read: dict):
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[key], TENSORS[key]) for key in TENSORS)


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        collections.OrderedDict(TENSORS),
        {"state_dict": TENSORS, "epoch": 7, "optimizer_states": [{"lr": 0.1}]},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_formats_of_torch(tmp_path, content, zipped):
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    assert_is(read_state_dict(tmp_path / "model.pt"))


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert_is(read_state_dict(tmp_path / "model.safetensors"))


def test_lightning_of_2021_names_a_class_beside_the_weights(tmp_path):
    module = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": module, "__qualname__": "ModelCheckpoint"})
    content = {"state_dict": TENSORS, "callbacks": {callback: {"best_model_score": torch.tensor(0.1)}}}
    modules = {name: type(os)(name) for name in ("pytorch_lightning", "pytorch_lightning.callbacks", module)}
    modules[module].ModelCheckpoint = callback
    with pytest.MonkeyPatch.context() as patch:
        for name, value in modules.items():
            patch.setitem(__import__("sys").modules, name, value)
        torch.save(content, tmp_path / "model.ckpt")
    assert_is(read_state_dict(tmp_path / "model.ckpt"))


def test_the_prefix_of_data_parallel_is_left_out_where_all_names_have_it(tmp_path):
    wrapped = {f"module.{name}": tensor for name, tensor in TENSORS.items()}
    torch.save({"state_dict": wrapped}, tmp_path / "model.pt")
    assert_is(read_state_dict(tmp_path / "model.pt"))
    torch.save({**wrapped, "step": torch.ones(1)}, tmp_path / "model.pt")
    assert read_state_dict(tmp_path / "model.pt").keys() == {*wrapped, "step"}


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_the_prefix_of_torch_compile_is_left_out(tmp_path, prefix):
    torch.save({f"{prefix}{name}": tensor for name, tensor in TENSORS.items()}, tmp_path / "model.pt")
    assert_is(read_state_dict(tmp_path / "model.pt"))


def test_a_part_of_a_network_may_be_compiled_alone(tmp_path):
    torch.save(torch.nn.ModuleDict({"a": torch.compile(torch.nn.Linear(2, 3))}).state_dict(), tmp_path / "model.pt")
    assert read_state_dict(tmp_path / "model.pt").keys() == {"a.weight", "a.bias"}


def test_a_tensor_with_and_without_a_prefix_is_refused(tmp_path):
    torch.save({**TENSORS, "_orig_mod.a.bias": torch.zeros(3)}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="model.pt holds a.bias twice, once with the prefix `_orig_mod.`"):
        read_state_dict(tmp_path / "model.pt")


def test_a_wrong_byte_anywhere_is_refused_or_without_effect(tmp_path):
    torch.save(TENSORS, tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    values = content.index(TENSORS["a.weight"].numpy().tobytes())
    refused = set()
    for position in {*range(0, len(content), 7), *range(values, values + 24)}:
        damaged = bytearray(content)
        damaged[position] ^= 16
        (tmp_path / "model.pt").write_bytes(damaged)
        try:
            assert_is(read_state_dict(tmp_path / "model.pt"))
        except ValueError as error:
            assert str(error) == f"{tmp_path / 'model.pt'} is damaged, or was not written by torch.save."
            refused.add(position)
    assert refused >= set(range(values, values + 24))


def test_a_wrong_byte_in_the_older_format_ends_in_a_sentence_or_in_tensors(tmp_path):
    """It has no checksums, so that another number in it can't be told from the right one."""
    torch.save(TENSORS, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "model.pt").read_bytes()
    refused = 0
    for position in range(0, len(content), 2):
        damaged = bytearray(content)
        damaged[position] ^= 1
        (tmp_path / "model.pt").write_bytes(damaged)
        try:
            assert all(isinstance(value, torch.Tensor) for value in read_state_dict(tmp_path / "model.pt").values())
        except ValueError as error:
            assert "\n" not in str(error) and str(error).startswith(str(tmp_path / "model.pt"))
            refused += 1
    assert refused > len(content) / 8


def test_files_without_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(TENSORS, tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_is(read_state_dict(tmp_path / "model.pt"))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", ["model.pt", "legacy.pt", "model.safetensors"])
def test_truncated_files_are_refused(tmp_path, share, name):
    tensors = {f"{i}.weight": torch.randn(40, 40) for i in range(5)}
    if name == "model.safetensors":
        save_file(tensors, tmp_path / name)
    else:
        torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=name == "model.pt")
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="is damaged, or (is|was) not") as error:
        read_state_dict(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content", [b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x02K"]
)
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match="is damaged, or was not written by torch.save"):
        read_state_dict(tmp_path / "model.pt")


@pytest.mark.parametrize("content", [{"model": Foreign()}, {**TENSORS, "x": Foreign()}, Foreign()])
def test_pickles_of_other_objects_are_refused_and_not_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "model.pt")
    with pytest.raises(ValueError, match="mkdir, but only tensors are read") as error:
        read_state_dict("model.pt")
    assert "\n" not in str(error.value)
    assert not os.path.exists("executed")


def test_a_whole_pickled_network_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="holds torch.nn.modules.linear.Linear, but only tensors"):
        read_state_dict(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "does not hold a state dict, but a value of the type dict"),
        ([torch.ones(2)], "does not hold a state dict, but a value of the type list"),
        (torch.ones(2), "does not hold a state dict, but a value of the type Tensor"),
        ({1: torch.zeros(2), **TENSORS, None: torch.zeros(2)}, "these keys are not printable strings: 1, None"),
        ({**TENSORS, "a\n\x1b[2J": torch.zeros(2)}, r"these keys are not printable strings: 'a\\n\\x1b\[2J'"),
        ({"model": TENSORS, "step": 3}, "these entries are not tensors: model, step"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message):
        read_state_dict(tmp_path / "model.pt")


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_state_dict(tmp_path / "model.pt")
    with pytest.raises(ValueError, match="is a folder"):
        read_state_dict(tmp_path)


def test_long_lists_are_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed([str(i) for i in range(25)], limit=3) == "0, 1, 2 and 22 more"
