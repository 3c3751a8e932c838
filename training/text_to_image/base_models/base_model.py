"""The base class of all families of text-to-image bases."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline

from diffusers_ext.pipelines.latent_space import LatentSpace
from diffusers_ext.training.diffusion.objectives import Objective, Weighting
from diffusers_ext.training.loop.weights import weights_fingerprint
from diffusers_ext.training.text_to_image.controlnets import UNetControl


class BaseModel(ABC):
    """A text-to-image pipeline and its parts, for training. Made by [`load_base_model`].

    Attributes:
        pipeline (`DiffusionPipeline`): of diffusers. The networks below are the pipeline's own.
        name (`str`): the folder or Hub name that it was loaded from.
        denoiser (`torch.nn.Module`): the network that removes noise from latents.
        text_encoders (`dict[str, torch.nn.Module]`): by the names that they have in the pipeline.
        tokenizers (`dict`): the tokenizer of each text encoder, by the name of the text encoder.
        vae (`AutoencoderKL`): always in float32.
    """

    # The parts of the pipeline, by their names in it.
    denoiser_name: str  # "unet" or "transformer"
    text_encoder_names: tuple[str, ...]
    optional_parts: tuple[str, ...] = ()
    # Text encoders that are never trained.
    frozen_text_encoders: tuple[str, ...] = ()
    # Text encoders whose last layer and pooled output are not used: only the hidden states before the last layer are.
    penultimate_only: tuple[str, ...] = ()
    # The layers that get adapters by default: all projections of attention.
    lora_targets: tuple[str, ...]
    objective_class: type[Objective]
    control_class: type[UNetControl]
    default_timestep_sampling: str
    # The name of the latents in the denoiser's call.
    _sample_argument = "sample"

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
    def size_multiple(self) -> int:
        """Height and width in pixels must be multiples of this."""
        return self.space.pixels_per_latent

    def freeze(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Move all networks to their device, and freeze them until a recipe trains some of them.

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
        """In this context, the same weights require gradients as in a pipeline that was just loaded.

        PyTorch multiplies by weights that require gradients in another order (aten's `should_fold`), even where no
        gradient is recorded. Only in this context do the images of a frozen base equal the published model's to the
        last bit.
        """
        networks = (self.denoiser, self.vae, *self.text_encoders.values())
        before = [(weight, weight.requires_grad) for network in networks for weight in network.parameters()]
        for network in networks:
            if not getattr(network, "peft_config", None):  # loading adapters freezes the weights beside them
                network.requires_grad_(True)
        try:
            yield
        finally:
            for weight, required in before:
                weight.requires_grad_(required)

    def fingerprint(self) -> str:
        """32 hexadecimal digits that identify the weights of all networks."""
        return weights_fingerprint(self.denoiser, self.vae, *self.text_encoders.values())

    # Text

    def tokenize(self, prompts: list[str]) -> dict[str, torch.Tensor]:
        """Token ids, int64 (N, L), by text encoder. Prompts that are too long are truncated, as in the pipeline."""
        return {name: self._token_ids(name, prompts) for name in self.text_encoders}

    def _token_ids(self, name: str, prompts: list[str]) -> torch.Tensor:
        return self.tokenizers[name](
            self._converted(name, prompts),
            padding="max_length",
            max_length=self.max_length(name),
            truncation=True,
            return_tensors="pt",
        ).input_ids

    def _converted(self, name: str, prompts: list[str]) -> list[str]:
        """Prompts with all tokens of textual inversions of several vectors."""
        if not hasattr(self.pipeline, "maybe_convert_prompt"):
            return list(prompts)
        return self.pipeline.maybe_convert_prompt(list(prompts), self.tokenizers[name])

    def num_tokens(self, name: str, prompts: list[str]) -> list[int]:
        """How many tokens each prompt has for a text encoder, with those that mark its ends, before it is cut off."""
        ids = self.tokenizers[name](self._converted(name, prompts), truncation=False, verbose=False).input_ids
        return [len(row) for row in ids]

    def max_length(self, name: str) -> int:
        """How many tokens a text encoder reads, with those that mark the ends."""
        return self.tokenizers[name].model_max_length

    @abstractmethod
    def encode_text(
        self, token_ids: dict[str, torch.Tensor], text_encoders: dict[str, torch.nn.Module] | None = None
    ) -> dict[str, torch.Tensor]:
        """The text embeddings of prompts, as the pipeline's `encode_prompt` computes them.

        Args:
            token_ids (`dict`): from [`~BaseModel.tokenize`], on the device of the text encoders.
            text_encoders (`dict`, *optional*): by name, instead of the base's own.

        Returns:
            `dict`: "prompt_embeds" (N, L, D), and for SDXL and SD3 "pooled_prompt_embeds" (N, P).
        """

    @property
    def learning_text_encoders(self) -> list[str]:
        """The names of the text encoders that can be trained."""
        return [name for name in self.text_encoders if name not in self.frozen_text_encoders]

    def unread_layers(self, name: str) -> str | None:
        """A regular expression for the layers of a text encoder whose output is not used; `None` if all are used."""
        if name not in self.penultimate_only:
            return None
        last = self.text_encoders[name].config.num_hidden_layers - 1
        return rf"(.*\.)?(encoder\.layers\.{last}|final_layer_norm)(\..*)?"

    def train_text_encoder(self, name: str) -> None:
        """Unfreeze a text encoder, except for the layers whose output is not used."""
        unread = self.unread_layers(name)
        for parameter_name, parameter in self.text_encoders[name].named_parameters():
            parameter.requires_grad_(unread is None or not re.fullmatch(unread, parameter_name))

    def hide_text(self, text: dict[str, torch.Tensor], hidden: torch.Tensor) -> dict[str, torch.Tensor]:
        """Replace the embeddings of the empty prompt as the pipeline does where it samples without a prompt.

        Args:
            text (`dict`): from [`~BaseModel.encode_text`].
            hidden (`torch.Tensor` of shape (N,)): bool, true for the rows that are embeddings of the empty prompt.
        """
        return text

    # Latents

    @property
    def space(self) -> LatentSpace:
        """The latents in which the denoiser works."""
        return LatentSpace(self.vae)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The images of latents (N, C, h, w): float32 (N, 3, H, W) around [-1, 1], not clamped."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.space.decode(latents)

    # Denoising

    def control(self) -> UNetControl:
        """How a ControlNet controls the denoiser."""
        return self.control_class(self)

    def objective(
        self,
        *,
        timestep_sampling: str | None = None,
        weighting: Weighting = Weighting(),  # noqa: B008, frozen
    ) -> Objective:
        """The noise process that the base was trained in.

        Args:
            timestep_sampling (`str`, *optional*): how noise levels are drawn, "uniform" or "logit_normal"; by default
                as the family does it.
            weighting ([`Weighting`]): the weight of squared errors by noise level.

        Raises:
            ValueError: if training can't continue in this process.
        """
        scheduler = self.pipeline.scheduler
        return self.objective_class(
            scheduler,
            prediction_type=scheduler.config.get("prediction_type", "flow_prediction"),
            num_train_timesteps=scheduler.config.num_train_timesteps,
            timestep_sampling=timestep_sampling or self.default_timestep_sampling,
            weighting=weighting,
        )

    def denoiser_inputs(self, text: dict[str, torch.Tensor], time_ids: torch.Tensor | None = None) -> dict:
        """The text embeddings as keywords of the call of the denoiser or of a ControlNet.

        Args:
            text (`dict`): from [`~BaseModel.encode_text`].
            time_ids (`torch.Tensor` of shape (N, 6)): SDXL's sizes in pixels: the original height and width, the top
                and left of the crop, and the height and width now.
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
        """The output of the denoiser.

        Args:
            denoiser (`torch.nn.Module`): the base's own, or a wrapper around it.
            noisy_latents (`torch.Tensor` of shape (N, C, h, w)), timesteps (of shape (N,)): from the objective.
            text (`dict`): from [`~BaseModel.encode_text`].
            time_ids (`torch.Tensor` of shape (N, 6), *optional*): see [`~BaseModel.denoiser_inputs`]; by default
                those of images that were neither resized nor cropped.
            residuals (`dict`, *optional*): the output of a ControlNet, as keywords of the denoiser's call.

        Returns:
            `torch.Tensor` of shape (N, C, h, w).
        """
        if time_ids is None:
            height, width = (side * self.space.pixels_per_latent for side in noisy_latents.shape[2:])
            size = torch.tensor([height, width, 0, 0, height, width], device=noisy_latents.device)
            time_ids = size.expand(len(noisy_latents), 6)
        inputs = self.denoiser_inputs(text, time_ids)
        # By name: the denoisers' arguments come in different orders.
        inputs |= {self._sample_argument: noisy_latents, "timestep": timesteps}
        return denoiser(**inputs, **(residuals or {})).sample


def tokenizer_name(text_encoder_name: str) -> str:
    """The name of the tokenizer that belongs to a text encoder of a pipeline."""
    return re.sub("^text_encoder", "tokenizer", text_encoder_name)
