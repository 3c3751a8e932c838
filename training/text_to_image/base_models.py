"""Text-to-image models to build on, one adapter per family: the only place that knows what tells them apart.

Stable Diffusion 1.x and 2.x (Rombach et al. 2022), Stable Diffusion XL (Podell et al. 2023), and Stable Diffusion 3
(Esser et al. 2024), each from the pipeline of diffusers that it is published as.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from diffusers_ext.training.diffusion.objectives import Objective
from diffusers_ext.training.text_to_image.controlnets import TransformerControl, UNetControl
from diffusers_ext.training.text_to_image.objectives import LatentDiffusion, LatentFlow


class BaseModel:
    """A text-to-image pipeline taken apart for training. Made by [`load_base_model`].

    Attributes:
        pipeline (`DiffusionPipeline`): of diffusers; it holds the very modules below.
        name (`str`): what it was loaded from.
        denoiser_name (`str`): "unet" or "transformer".
        denoiser (`torch.nn.Module`): the network that removes noise from latents.
        text_encoders (`dict[str, torch.nn.Module]`): by the names that they have in the pipeline.
        tokenizers (`dict`): the tokenizer of each text encoder, by the name of the text encoder.
        vae (`AutoencoderKL`): always kept in float32.
    """

    denoiser_name = "unet"
    text_encoder_names: tuple[str, ...] = ("text_encoder",)
    optional_parts: tuple[str, ...] = ()
    # Text encoders that never learn.
    frozen_text_encoders: tuple[str, ...] = ()
    # Text encoders of which the hidden states before the last layer are read, and no pooled output.
    penultimate_only: tuple[str, ...] = ()
    default_timestep_sampling = "uniform"
    _sample_argument = "sample"
    # Where LoRA goes if nothing else is said: all projections of attention.
    lora_targets: tuple[str, ...] = ("to_k", "to_q", "to_v", "to_out.0")

    def __init__(self, pipeline: DiffusionPipeline, name: str):
        self.pipeline, self.name = pipeline, name
        self.vae = pipeline.vae
        self.denoiser = getattr(pipeline, self.denoiser_name)
        encoders = {part: getattr(pipeline, part) for part in self.text_encoder_names}
        self.text_encoders = {part: encoder for part, encoder in encoders.items() if encoder is not None}
        self.tokenizers = {part: getattr(pipeline, tokenizer_name(part)) for part in self.text_encoders}

    @classmethod
    def parts(cls) -> list[str]:
        """The components that the pipeline must have."""
        names = [cls.denoiser_name, "vae", "scheduler"]
        for part in cls.text_encoder_names:
            names += [part, tokenizer_name(part)]
        return [name for name in names if name not in cls.optional_parts]

    @property
    def class_name(self) -> str:
        """The pipeline class of diffusers."""
        return type(self.pipeline).__name__

    def loading(self, address: str | None = None) -> str:
        """Python lines that load the base, or a pipeline of its family at `address`, as `pipe`."""
        absent = [part for part in self.optional_parts if getattr(self.pipeline, part) is None]
        arguments = "".join(f", {part}=None" for part in absent)
        return (
            f"from diffusers import {self.class_name}\n\n"
            f'pipe = {self.class_name}.from_pretrained("{address or self.name}"{arguments})\n'
        )

    @property
    def vae_scale_factor(self) -> int:
        """How many pixels a latent is wide."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size_multiple(self) -> int:
        """What height and width in pixels must be multiples of."""
        return self.vae_scale_factor

    def freeze(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Move all networks to where they run, and let none of them learn, until a recipe says so.

        Args:
            device (`torch.device`): for all networks.
            dtype (`torch.dtype`): of the denoiser and the text encoders; the autoencoder stays in float32.
        """
        for network in (self.denoiser, *self.text_encoders.values()):
            network.requires_grad_(False).eval().to(device)
            if network.dtype != dtype:
                network.to(dtype)
        self.vae.requires_grad_(False).eval().to(device)

    @contextmanager
    def as_loaded(self) -> Iterator[None]:
        """In this context, weights ask for gradients wherever those of a pipeline do that was just loaded.

        PyTorch multiplies by weights that could learn in another order (aten's `should_fold`), even where no gradient
        is recorded: only so is an image that a frozen base makes, in its last bit, that of the published model.
        """
        networks = (self.denoiser, self.vae, *self.text_encoders.values())
        before = [(weight, weight.requires_grad) for network in networks for weight in network.parameters()]
        for network in networks:
            if not getattr(network, "peft_config", None):  # beside adapters, loaded weights are frozen as well
                network.requires_grad_(True)
        try:
            yield
        finally:
            for weight, asked in before:
                weight.requires_grad_(asked)

    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify the weights of all networks."""
        return weights_fingerprint(self.denoiser, self.vae, *self.text_encoders.values())

    # Text

    def tokenize(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """Token ids, int64 (N, L), by text encoder; too long prompts are cut off, as the pipeline does it."""
        return {name: self._token_ids(name, prompts) for name in self.text_encoders}

    def _token_ids(self, name: str, prompts: list[str]) -> torch.Tensor:
        tokenizer = self.tokenizers[name]
        if hasattr(self.pipeline, "maybe_convert_prompt"):  # textual inversions of several vectors
            prompts = self.pipeline.maybe_convert_prompt(list(prompts), tokenizer)
        return tokenizer(
            prompts, padding="max_length", max_length=self._max_length(name), truncation=True, return_tensors="pt"
        ).input_ids

    def _max_length(self, name: str) -> int:
        return self.tokenizers[name].model_max_length

    def encode_text(
        self, token_ids: dict[str, torch.Tensor], text_encoders: dict[str, torch.nn.Module] | None = None
    ) -> dict[str, torch.Tensor]:
        """What the denoiser reads of prompts, as the pipeline's `encode_prompt` makes it.

        Args:
            token_ids (`dict`): from [`~BaseModel.tokenize`], on the device of the text encoders.
            text_encoders (`dict`, *optional*): others than the base's own, by name.

        Returns:
            `dict`: "prompt_embeds" (N, L, D), and for SDXL and SD3 "pooled_prompt_embeds" (N, P).
        """
        text_encoders = text_encoders or self.text_encoders
        return {"prompt_embeds": text_encoders["text_encoder"](token_ids["text_encoder"])[0]}

    @property
    def learning_text_encoders(self) -> list[str]:
        """The names of the text encoders that can be trained."""
        return [name for name in self.text_encoders if name not in self.frozen_text_encoders]

    def unread_layers(self, name: str) -> str | None:
        """A regular expression of the layers of a text encoder whose output nothing reads; `None` for none."""
        if name not in self.penultimate_only:
            return None
        last = self.text_encoders[name].config.num_hidden_layers - 1
        return rf"(.*\.)?(encoder\.layers\.{last}|final_layer_norm)(\..*)?"

    def train_text_encoder(self, name: str) -> None:
        """Let a text encoder learn, but for the layers whose output nothing reads."""
        unread = self.unread_layers(name)
        for parameter_name, parameter in self.text_encoders[name].named_parameters():
            parameter.requires_grad_(unread is None or not re.fullmatch(unread, parameter_name))

    def hide_text(self, text: dict[str, torch.Tensor], hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        """The text with that of the empty prompt, where `hidden` (N,) is true, as the pipeline shows no prompt."""
        return text

    # Latents

    @torch.no_grad()
    def encode_moments(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The mean and log variance of the latents of images (N, 3, H, W) in [-1, 1]: float32 (N, 2C, h, w)."""
        with torch.autocast(pixel_values.device.type, enabled=False):
            return self.vae.encode(pixel_values.float()).latent_dist.parameters

    def sample_latents(self, moments: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """The latents (N, C, h, w) that the denoiser knows, of moments and standard normal noise (N, C, h, w)."""
        posterior = DiagonalGaussianDistribution(moments)
        return self._scale(posterior.mean + posterior.std * noise)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The images of latents (N, C, h, w): float32 (N, 3, H, W), in [-1, 1] but for what the decoder exceeds it."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.vae.decode(self._unscale(latents.float()), return_dict=False)[0]

    def _scale(self, latents: torch.Tensor) -> torch.Tensor:
        return latents * self.vae.config.scaling_factor

    def _unscale(self, latents: torch.Tensor) -> torch.Tensor:
        return latents / self.vae.config.scaling_factor

    # Denoising

    def control(self) -> UNetControl:
        """How a ControlNet controls the denoiser."""
        return UNetControl(self)

    def objective(self, config) -> Objective:
        """The process that the base was trained in, with the weighting and the noise levels that `config` says.

        Args:
            config ([`~diffusers_ext.training.text_to_image.recipe.TextToImageConfig`]): the options.

        Raises:
            ValueError: if it is a process that can't be trained here.
        """
        scheduler = self.pipeline.scheduler
        options = {
            **vars(config),
            "prediction_type": scheduler.config.get("prediction_type", "flow_prediction"),
            "num_train_timesteps": scheduler.config.num_train_timesteps,
            "timestep_sampling": config.timestep_sampling or self.default_timestep_sampling,
            "p2_gamma": None,  # a weighting that is no option here
            "p2_k": None,
        }
        return self._objective(SimpleNamespace(**options), scheduler)

    def _objective(self, config, scheduler) -> Objective:
        return LatentDiffusion(config, scheduler)

    def denoiser_inputs(self, text: dict[str, torch.Tensor], time_ids: torch.Tensor | None = None) -> dict:
        """The text as keywords of the denoiser's call, and of that of a ControlNet.

        Args:
            text (`dict`): from [`~BaseModel.encode_text`].
            time_ids (`torch.Tensor` of shape (N, 6)): SDXL's original height and width, top and left of the crop, and
                height and width now, in pixels; see [`~BaseModel.time_ids`].
        """
        return {"encoder_hidden_states": text["prompt_embeds"]}

    def denoise(
        self,
        denoiser: torch.nn.Module,
        noisy_latents: torch.Tensor,
        timesteps: torch.Tensor,
        text: dict[str, torch.Tensor],
        time_ids: torch.Tensor | None = None,
        residuals: dict | None = None,
    ) -> torch.Tensor:
        """What the denoiser says.

        Args:
            denoiser (`torch.nn.Module`): the base's own, or a wrapper around it.
            noisy_latents (`torch.Tensor` of shape (N, C, h, w)), timesteps (of shape (N,)): from the objective.
            text (`dict`): from [`~BaseModel.encode_text`].
            time_ids (`torch.Tensor` of shape (N, 6), *optional*): see [`~BaseModel.denoiser_inputs`]; by default
                those of images that were never larger.
            residuals (`dict`, *optional*): what a ControlNet adds, as keywords of the denoiser's call.

        Returns:
            `torch.Tensor` of shape (N, C, h, w).
        """
        if time_ids is None:
            height, width = (side * self.vae_scale_factor for side in noisy_latents.shape[2:])
            size = torch.tensor([height, width, 0, 0, height, width], device=noisy_latents.device)
            time_ids = size.expand(len(noisy_latents), 6)
        inputs = self.denoiser_inputs(text, time_ids)
        # By name: the denoisers' arguments come in different orders.
        inputs |= {self._sample_argument: noisy_latents, "timestep": timesteps}
        return denoiser(**inputs, **(residuals or {})).sample


class StableDiffusion(BaseModel):
    """Stable Diffusion 1.x and 2.x."""


class StableDiffusionXL(BaseModel):
    """Stable Diffusion XL: two text encoders, and a denoiser that is told the sizes of images."""

    text_encoder_names = ("text_encoder", "text_encoder_2")
    penultimate_only = ("text_encoder",)

    def encode_text(self, token_ids, text_encoders=None):
        text_encoders = text_encoders or self.text_encoders
        outputs = [text_encoders[name](token_ids[name], output_hidden_states=True) for name in self.text_encoder_names]
        embeds = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": outputs[-1][0]}

    def hide_text(self, text, hidden):
        if not self.pipeline.config.force_zeros_for_empty_prompt:
            return text
        return {
            name: values.masked_fill(hidden.view(-1, *[1] * (values.ndim - 1)), 0.0) for name, values in text.items()
        }

    def denoiser_inputs(self, text, time_ids=None):
        added = {"text_embeds": text["pooled_prompt_embeds"], "time_ids": time_ids}
        return {**super().denoiser_inputs(text), "added_cond_kwargs": added}

    def _normalisation(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and standard deviation of latents that some autoencoders state (Playground)."""
        mean, std = self.vae.config.latents_mean, self.vae.config.latents_std
        return tuple(torch.tensor(values).view(1, -1, 1, 1).to(like.device, like.dtype) for values in (mean, std))

    @property
    def _is_normalised(self) -> bool:
        return self.vae.config.latents_mean is not None and self.vae.config.latents_std is not None

    def _scale(self, latents):
        if not self._is_normalised:
            return super()._scale(latents)
        mean, std = self._normalisation(latents)
        return (latents - mean) * self.vae.config.scaling_factor / std

    def _unscale(self, latents):
        if not self._is_normalised:
            return super()._unscale(latents)
        mean, std = self._normalisation(latents)
        return latents * std / self.vae.config.scaling_factor + mean


class StableDiffusion3(BaseModel):
    """Stable Diffusion 3: a rectified flow, two CLIP text encoders, and a T5 encoder that may be absent."""

    denoiser_name = "transformer"
    text_encoder_names = ("text_encoder", "text_encoder_2", "text_encoder_3")
    optional_parts = ("text_encoder_3", "tokenizer_3")
    frozen_text_encoders = ("text_encoder_3",)
    default_timestep_sampling = "logit_normal"
    lora_targets = (
        *("attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"),
        *("attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out"),
    )
    T5_LENGTH = 256  # what the pipeline shows its denoiser
    _sample_argument = "hidden_states"

    @property
    def size_multiple(self) -> int:
        return self.vae_scale_factor * self.denoiser.config.patch_size

    def _max_length(self, name):
        # The pipeline cuts the second CLIP's prompts like the first one's.
        return self.T5_LENGTH if name == "text_encoder_3" else self.pipeline.tokenizer_max_length

    def encode_text(self, token_ids, text_encoders=None):
        text_encoders = text_encoders or self.text_encoders
        names = ("text_encoder", "text_encoder_2")
        outputs = [text_encoders[name](token_ids[name], output_hidden_states=True) for name in names]
        clip_embeds = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        if "text_encoder_3" in text_encoders:
            t5_embeds = text_encoders["text_encoder_3"](token_ids["text_encoder_3"])[0]
        else:
            width = self.denoiser.config.joint_attention_dim
            t5_embeds = clip_embeds.new_zeros(len(clip_embeds), self.T5_LENGTH, width)
        clip_embeds = F.pad(clip_embeds, (0, t5_embeds.shape[-1] - clip_embeds.shape[-1]))
        return {
            "prompt_embeds": torch.cat([clip_embeds, t5_embeds], dim=-2),
            "pooled_prompt_embeds": torch.cat([output[0] for output in outputs], dim=-1),
        }

    def _scale(self, latents):
        return (latents - self.vae.config.shift_factor) * self.vae.config.scaling_factor

    def _unscale(self, latents):
        return latents / self.vae.config.scaling_factor + self.vae.config.shift_factor

    def control(self):
        return TransformerControl(self)

    def _objective(self, config, scheduler):
        return LatentFlow(config, scheduler)

    def denoiser_inputs(self, text, time_ids=None):
        return {**super().denoiser_inputs(text), "pooled_projections": text["pooled_prompt_embeds"]}


FAMILIES = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
}


def load_base_model(
    name_or_path: str, revision: str | None = None, variant: str | None = None, cache_dir: str | None = None
) -> BaseModel:
    """Load a text-to-image pipeline of diffusers, in float32, to build on.

    Args:
        name_or_path (`str`): a local folder or a Hub name; its `model_index.json` tells the family.
        revision, variant, cache_dir (`str`, *optional*): as in `from_pretrained`.

    Raises:
        ValueError: if it is of another family, or lacks a part.
        OSError: if there is no such pipeline.
    """
    index = DiffusionPipeline.load_config(name_or_path, revision=revision, cache_dir=cache_dir)
    class_name = index.get("_class_name")
    family = FAMILIES.get(class_name) if isinstance(class_name, str) else None
    if family is None:
        raise ValueError(f"{name_or_path} is a {class_name}, but text-to-image bases are: {', '.join(FAMILIES)}.")
    for part in family.parts():
        lost = Path(name_or_path).is_dir() and not (Path(name_or_path) / part).is_dir()
        if index.get(part, [None, None])[0] is None or lost:
            raise ValueError(f"{name_or_path} has no {part}, which a {class_name} needs to be trained.")
    # What a repository does without, from_pretrained wants to be told.
    absent = {part: None for part in family.optional_parts if index.get(part, [None, None])[0] is None}
    pipeline = DiffusionPipeline.from_pretrained(
        name_or_path, revision=revision, variant=variant, cache_dir=cache_dir, dtype=torch.float32, **absent
    )
    return take_apart(pipeline, name_or_path)


def take_apart(pipeline: DiffusionPipeline, name: str) -> BaseModel:
    """The adapter of a pipeline in memory; see [`load_base_model`]."""
    base = FAMILIES[type(pipeline).__name__](pipeline, name)
    if not isinstance(base.vae, AutoencoderKL):
        raise ValueError(f"The vae of {name} must be an AutoencoderKL, not a {type(base.vae).__name__}.")
    seen, given = base.denoiser.config.in_channels, base.vae.config.latent_channels
    if seen != given:
        raise ValueError(
            f"The {base.denoiser_name} of {name} reads {seen} channels, but its vae gives {given}: inpainting models "
            "and the like are no text-to-image bases."
        )
    return base


def tokenizer_name(text_encoder_name: str) -> str:
    """The name of the tokenizer that goes with a text encoder of a pipeline."""
    return re.sub("^text_encoder", "tokenizer", text_encoder_name)


def weights_fingerprint(*networks: torch.nn.Module) -> str:
    """32 hexadecimal digits that identify the weights and buffers of networks, whatever device they are on."""
    content = hashlib.blake2b(digest_size=16)
    for network in networks:
        for name, tensor in network.state_dict().items():
            content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            content.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return content.hexdigest()
