"""Adapters: they equal those of `add_adapter`, whatever version of peft diffusers and transformers require."""

import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open

from diffusers_ext.training.text_to_image.base_models import load_base_model
from diffusers_ext.training.text_to_image.lora import (
    FILE,
    TEXT_TARGETS,
    adapted,
    adapter_state,
    add_adapters,
    load_adapters,
    save_adapters,
)
from tests.training.text_to_image_models import tiny_base


# The checks of both libraries that peft is new enough.
VERSION_CHECKS = ("diffusers.loaders.peft.check_peft_version", "transformers.integrations.peft.check_peft_version")


def frozen(family):
    base = load_base_model(tiny_base(family))
    base.freeze(torch.device("cpu"))
    torch.manual_seed(0)
    return base


def state(base) -> dict:
    """Everything that either library reads about adapters."""
    found = {}
    for name, network in adapted(base).items():
        found[name] = {
            "weights": {key: value.tolist() for key, value in adapter_state(name, network).items()},
            "trained": [key for key, weight in network.named_parameters() if weight.requires_grad],
            "training": [module.training for module in network.modules()],
            "flag": network._hf_peft_config_loaded,
            "config": {**network.peft_config["default"].to_dict(), "base_model_name_or_path": None},
        }
    return found


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("sd1", {}),
        ("sd2", {"init": "gaussian"}),
        ("sdxl", {"use_dora": True, "dropout": 0.1, "alpha": 3}),
        ("sd3", {}),
    ],
)
def test_adapters_are_those_of_add_adapter(family, options, monkeypatch):
    base = frozen(family)
    add_adapters(base, rank=2, **options, train_text_encoders=True)
    found, following = state(base), torch.rand(1)

    for check in VERSION_CHECKS:
        monkeypatch.setattr(check, lambda min_version: None)
    base = frozen(family)
    config = {
        "r": 2,
        "lora_alpha": options.get("alpha", 2),
        "lora_dropout": options.get("dropout", 0.0),
        "use_dora": options.get("use_dora", False),
        "init_lora_weights": options.get("init", True),
    }
    base.denoiser.add_adapter(LoraConfig(**config, target_modules=list(base.lora_targets)))
    for name in base.learning_text_encoders:
        unread = base.unread_layers(name)
        base.text_encoders[name].add_adapter(
            LoraConfig(**config, target_modules=list(TEXT_TARGETS), exclude_modules=unread)
        )
    assert found == state(base) and set(found) == {base.denoiser_name, *base.learning_text_encoders}
    assert torch.equal(following, torch.rand(1))  # the same number of random numbers was drawn


def test_adapters_do_not_depend_on_version_checks(tmp_path, monkeypatch):
    def check(min_version):
        raise ValueError(f"peft {min_version} does not exist.")

    for name in VERSION_CHECKS:
        monkeypatch.setattr(name, check)
    base = frozen("sdxl")
    add_adapters(base, rank=2, train_text_encoders=True)
    save_adapters(base, tmp_path)
    again = frozen("sdxl")
    torch.manual_seed(1)
    add_adapters(again, rank=2, train_text_encoders=True)
    assert state(again) != state(base)
    load_adapters(again, str(tmp_path))
    assert state(again) == state(base)


def test_files_have_no_paths_of_this_machine_and_one_order(tmp_path):
    base = frozen("sd1")
    add_adapters(base, rank=2, train_text_encoders=True)
    save_adapters(base, tmp_path)
    with safe_open(tmp_path / FILE, "pt") as file:
        metadata = file.metadata()["lora_adapter_metadata"]
    assert tiny_base("sd1") not in metadata
    assert metadata.index("k_proj") < metadata.index("out_proj") < metadata.index("q_proj") < metadata.index("v_proj")
