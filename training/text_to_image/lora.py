"""Low-rank adapters (Hu et al. 2021, "LoRA"): where they go, and the file that `load_lora_weights` reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig as PeftConfig, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffusers_ext.converters.kohya import from_kohya, is_kohya, lora_metadata, text_encoder_key
from diffusers_ext.training.loop.configuration import Config, option
from diffusers_ext.training.text_to_image.base_models import BaseModel


FILE = "pytorch_lora_weights.safetensors"
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
INITIALISATIONS = {"kaiming": True, "gaussian": "gaussian", "orthogonal": "orthogonal"}


@dataclass
class LoraConfig(Config):
    """Options of low-rank adapters."""

    lora_rank: int | None = option(help="Train adapters of this rank (LoRA), and leave the base as it is.")
    lora_alpha: float | None = option(help="Adapters are scaled by this over their rank; by default by 1.")
    lora_dropout: float = option(0.0, help="How often an input of an adapter is hidden in training.")
    lora_targets: list[str] | None = option(
        help="The layers of the denoiser that get adapters: the ends of their names, or `all-linear`; by default the "
        "projections of attention."
    )
    use_dora: bool = option(False, help="Adapt direction and magnitude of weights apart (Liu et al. 2024, DoRA).")
    lora_init: Literal["kaiming", "gaussian", "orthogonal"] = option(
        "kaiming", help="How adapters start; with each of them the model starts as the base."
    )
    lora_weights: str | None = option(help="A LoRA file for this base, of the same shape, to start from.")

    def __post_init__(self):
        super().__post_init__()
        self.require_at_least(1, "lora_rank")
        self.require(0 <= self.lora_dropout < 1, f"--lora_dropout must be in [0, 1), not {self.lora_dropout}")
        if self.lora_rank is None:
            defaults = (("lora_alpha", None), ("lora_targets", None), ("use_dora", False), ("lora_weights", None))
            for name, default in (*defaults, ("lora_dropout", 0.0), ("lora_init", "kaiming")):
                self.require(getattr(self, name) == default, f"--{name} is for adapters: give them a --lora_rank")
        self.require(
            self.lora_init != "orthogonal" or self.lora_rank is None or self.lora_rank % 2 == 0,
            f"--lora_init orthogonal needs an even --lora_rank, not {self.lora_rank}",
        )


def add_adapters(base: BaseModel, config: LoraConfig, train_text_encoders: bool) -> None:
    """Put adapters, which alone learn, into the denoiser of a base, and into its CLIP text encoders if asked to.

    Raises:
        ValueError: if no layer has one of the names in `--lora_targets`, or `--lora_weights` is for another base.
    """
    _add(base.denoiser, config, list(config.lora_targets or base.lora_targets), base)
    for name in base.learning_text_encoders if train_text_encoders else ():
        # What the denoiser does not read gets no gradients.
        _add(base.text_encoders[name], config, list(TEXT_TARGETS), base, exclude=base.unread_layers(name))
    for network in adapted(base).values():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    if config.lora_weights is not None:
        load_adapters(base, config)


def _add(network: torch.nn.Module, config: LoraConfig, targets: list[str], base: BaseModel, exclude=None) -> None:
    linear = [name for name, module in network.named_modules() if isinstance(module, torch.nn.Linear)]
    if targets == ["all-linear"]:
        targets = linear
    names = [name for name, _ in network.named_modules()]
    unknown = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if unknown:
        raise ValueError(f"--lora_targets: no layer of the {type(network).__name__} of {base.name} is a {unknown[0]}.")
    network.add_adapter(
        PeftConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_rank if config.lora_alpha is None else config.lora_alpha,
            lora_dropout=config.lora_dropout,
            use_dora=config.use_dora,
            init_lora_weights=INITIALISATIONS[config.lora_init],
            target_modules=targets,
            exclude_modules=exclude,
        )
    )


def adapted(base: BaseModel) -> dict[str, torch.nn.Module]:
    """The networks of a base that have adapters, by name."""
    networks = {base.denoiser_name: base.denoiser, **base.text_encoders}
    return {name: network for name, network in networks.items() if getattr(network, "peft_config", None)}


def adapter_state(name: str, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The adapters of a network as files have them: `<layer>.lora_A.weight` and so on."""
    state = get_peft_model_state_dict(network)
    if name.startswith("text_encoder"):
        state = {text_encoder_key(key): value for key, value in state.items()}
    return {key: value.detach().contiguous() for key, value in state.items()}


def save_adapters(base: BaseModel, folder: Path) -> None:
    """Write the adapters of a base to `pytorch_lora_weights.safetensors`, with what diffusers must know of them."""
    networks = adapted(base)
    layers = {f"{name}_lora_layers": adapter_state(name, network) for name, network in networks.items()}
    metadata = _collate_lora_metadata(networks)
    for values in metadata.values():
        # Loaded adapters are in training mode: their dropout would disturb every image.
        values |= {"lora_dropout": 0.0, "init_lora_weights": True}
    type(base.pipeline).save_lora_weights(folder, **layers, **metadata)


def load_adapters(base: BaseModel, config: LoraConfig) -> None:
    """Let the adapters of a base start from the file `--lora_weights`, of diffusers' or kohya's layout.

    Raises:
        ValueError: if it is for another base, or of another shape.
        OSError: if there is no such file.
    """
    networks = adapted(base)
    saved, alphas = read_lora(config.lora_weights, base)
    own = {f"{name}.{key}": value for name, net in networks.items() for key, value in adapter_state(name, net).items()}
    for key in sorted(own.keys() | saved.keys()):
        there, here = (tuple(state[key].shape) if key in state else "not there" for state in (saved, own))
        if there != here:
            raise ValueError(
                f"{config.lora_weights} is no LoRA for {base.name} with these options: {key} is {there} in the file "
                f"and {here} in the model."
            )
    alpha = config.lora_rank if config.lora_alpha is None else config.lora_alpha
    others = [value for value in alphas if value != alpha]
    if others:
        raise ValueError(f"{config.lora_weights} was made with --lora_alpha {others[0]:g}, and this is {alpha:g}.")
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(saved[key])


def read_lora(path: str, base: BaseModel) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The tensors of a LoRA file by diffusers' names, and the alphas of its adapters."""
    file = Path(path) / FILE if Path(path).is_dir() else Path(path)
    try:
        state = load_file(file)
    except (SafetensorError, FileNotFoundError) as error:
        raise OSError(f"{file} can't be read as a LoRA file: {error}") from error
    if is_kohya(state):
        state, metadata = from_kohya(state, base.pipeline)
    else:
        metadata = lora_metadata(file)
    alphas = []
    for name in adapted(base):
        alphas += [metadata[f"{name}.lora_alpha"]] if f"{name}.lora_alpha" in metadata else []
        alphas += metadata.get(f"{name}.alpha_pattern", {}).values()
    return state, alphas
