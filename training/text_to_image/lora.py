"""Low-rank adapters (Hu et al. 2021, "LoRA"): where they are inserted, and the file that `load_lora_weights` reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

from diffusers_ext.converters.kohya import from_kohya, is_kohya, read_lora_file, text_encoder_key
from diffusers_ext.training.loop.configuration import Config, option
from diffusers_ext.training.text_to_image.base_models import BaseModel


FILE = "pytorch_lora_weights.safetensors"
NAME = "default"  # what diffusers and transformers call the adapter of a network that has only one
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
INITIALISATIONS = {"kaiming": True, "gaussian": "gaussian", "orthogonal": "orthogonal"}


def add_adapters(
    base: BaseModel,
    *,
    rank: int,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: list[str] | None = None,
    use_dora: bool = False,
    init: Literal["kaiming", "gaussian", "orthogonal"] = "kaiming",
    train_text_encoders: bool = False,
) -> None:
    """Insert adapters into the denoiser of a base. Only the adapters are trained, in float32.

    Args:
        base ([`BaseModel`]): frozen.
        rank (`int`): the rank of the adapters.
        alpha (`float`, *optional*): the adapters are scaled by alpha / rank; by default by 1.
        dropout (`float`): the probability that an input of an adapter is hidden in training, in [0, 1).
        targets (`list[str]`, *optional*): the layers of the denoiser that get adapters: the ends of their names, or
            `["all-linear"]`; by default the projections of attention.
        use_dora (`bool`): adapt the direction and the magnitude of weights separately (Liu et al. 2024, "DoRA").
        init (`str`): how the adapters are initialised. With each of these, the model starts as the base.
        train_text_encoders (`bool`): insert adapters into the CLIP text encoders too.

    Raises:
        ValueError: if no layer has one of the names in `targets`.
    """
    options = {
        "r": rank,
        "lora_alpha": rank if alpha is None else alpha,
        "lora_dropout": dropout,
        "use_dora": use_dora,
        "init_lora_weights": INITIALISATIONS[init],
    }
    layers = _existing_layers(base, targets or base.lora_targets)
    _insert(base.denoiser, LoraConfig(**options, target_modules=layers))
    for name in base.learning_text_encoders if train_text_encoders else ():
        # Layers whose output the denoiser does not read would get no gradients.
        unread = base.unread_layers(name)
        _insert(
            base.text_encoders[name], LoraConfig(**options, target_modules=list(TEXT_TARGETS), exclude_modules=unread)
        )
    for network in adapted(base).values():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()


def _existing_layers(base: BaseModel, targets: list[str] | tuple[str, ...]) -> list[str]:
    """The names of layers of the denoiser that peft looks for, after a check that each target exists."""
    modules = dict(base.denoiser.named_modules())
    if list(targets) == ["all-linear"]:
        return [name for name, module in modules.items() if isinstance(module, torch.nn.Linear)]
    unknown = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in modules)]
    if unknown:
        raise ValueError(
            f"--lora_targets: the {type(base.denoiser).__name__} of {base.name} has no layer named {unknown[0]}."
        )
    return list(targets)


def _insert(network: torch.nn.Module, adapter: LoraConfig) -> None:
    """Do what `network.add_adapter` does, by peft alone.

    The `add_adapter` of transformers refuses every version of peft that is older than its own newest requirement, and
    that requirement can be newer than any released version.
    """
    inject_adapter_in_model(adapter, network, NAME)
    network._hf_peft_config_loaded = True  # diffusers and transformers look here whether there are adapters


def adapted(base: BaseModel) -> dict[str, torch.nn.Module]:
    """The networks of a base that have adapters, by name."""
    networks = {base.denoiser_name: base.denoiser, **base.text_encoders}
    return {name: network for name, network in networks.items() if getattr(network, "peft_config", None)}


def adapter_state(name: str, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The adapters of the network `name` under the keys of a LoRA file: `<layer>.lora_A.weight` and so on."""
    # No embedding is ever resized here, and looking for resized ones would ask the Hub for the base's configuration.
    state = get_peft_model_state_dict(network, save_embedding_layers=False)
    if name.startswith("text_encoder"):
        state = {text_encoder_key(key): value for key, value in state.items()}
    return {key: value.detach().contiguous() for key, value in state.items()}


def save_adapters(base: BaseModel, folder: Path) -> None:
    """Write the adapters of a base to `pytorch_lora_weights.safetensors`, with the metadata that diffusers reads."""
    networks = adapted(base)
    layers = {f"{name}_lora_layers": adapter_state(name, network) for name, network in networks.items()}
    metadata = {f"{name}_lora_adapter_metadata": _metadata(network) for name, network in networks.items()}
    type(base.pipeline).save_lora_weights(folder, **layers, **metadata)


def _metadata(network: torch.nn.Module) -> dict:
    """The options of a network's adapters, from which diffusers builds them again."""
    options = network.peft_config[NAME].to_dict()
    # Loaded adapters are in training mode: their dropout would disturb every image.
    options |= {"lora_dropout": 0.0, "init_lora_weights": True}
    # peft keeps a set, whose order changes from run to run.
    return {**options, "target_modules": sorted(options["target_modules"])}


def load_adapters(base: BaseModel, path: str) -> None:
    """Overwrite the new adapters of a base with the adapters of a LoRA file.

    Args:
        base ([`BaseModel`]): with adapters from [`add_adapters`].
        path (`str`): the file, in the layout of diffusers or of kohya, or its folder.

    Raises:
        ValueError: if the file is for another base, or its adapters have another shape or scale.
        OSError: if there is no such file, or it is damaged.
    """
    networks = adapted(base)
    saved, alphas = read_lora(path, base)
    own = {f"{name}.{key}": value for name, net in networks.items() for key, value in adapter_state(name, net).items()}
    for key in sorted(own.keys() | saved.keys()):
        there, here = (tuple(state[key].shape) if key in state else "missing" for state in (saved, own))
        if there != here:
            raise ValueError(
                f"{path} is not a LoRA for {base.name} with these options: {key} is {there} in the file and {here} in "
                "the model."
            )
    alpha = base.denoiser.peft_config[NAME].lora_alpha
    others = [value for value in alphas if value != alpha]
    if others:
        raise ValueError(f"{path} was trained with --lora_alpha {others[0]:g}, but this run has {alpha:g}.")
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(saved[key])


def read_lora(path: str, base: BaseModel) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The tensors of a LoRA file by diffusers' names, and the alphas of its adapters."""
    state, metadata = read_lora_file(Path(path) / FILE if Path(path).is_dir() else Path(path))
    if is_kohya(state):
        state, metadata = from_kohya(state, base.pipeline)
    alphas = []
    for name in adapted(base):
        alphas += [metadata[f"{name}.lora_alpha"]] if f"{name}.lora_alpha" in metadata else []
        alphas += metadata.get(f"{name}.alpha_pattern", {}).values()
    return state, alphas


@dataclass
class AdapterConfig(Config):
    """The options of low-rank adapters."""

    option_group = "network"

    lora_rank: int | None = option(help="Train adapters of this rank (LoRA), and leave the base unchanged.")
    lora_alpha: float | None = option(help="Adapters are scaled by this over their rank; by default by 1.")
    lora_dropout: float = option(0.0, help="How often an input of an adapter is hidden in training.")
    lora_targets: list[str] | None = option(
        help="The layers of the denoiser that get adapters: the ends of their names, or `all-linear`; by default the "
        "projections of attention."
    )
    use_dora: bool = option(
        False, help="Adapt the direction and the magnitude of weights separately (DoRA, Liu et al. 2024)."
    )
    lora_init: Literal["kaiming", "gaussian", "orthogonal"] = option(
        "kaiming", help="How adapters are initialised; with each of these, the model starts as the base."
    )
    lora_weights: str | None = option(help="A LoRA file for this base, of the same shape, to start from.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "lora_rank")
        self.require(0 <= self.lora_dropout < 1, f"--lora_dropout must be in [0, 1), not {self.lora_dropout}")
        if self.lora_rank is None:
            defaults = (("lora_alpha", None), ("lora_targets", None), ("use_dora", False), ("lora_weights", None))
            for name, default in (*defaults, ("lora_dropout", 0.0), ("lora_init", "kaiming")):
                self.require(getattr(self, name) == default, f"--{name} is only for adapters: set --lora_rank as well")
        self.require(
            self.lora_init != "orthogonal" or self.lora_rank is None or self.lora_rank % 2 == 0,
            f"--lora_init orthogonal needs an even --lora_rank, not {self.lora_rank}",
        )
