"""The text encoders of a base as one network, for training."""

import torch

from diffusers_ext.training.text_to_image.base_models import BaseModel


class TextEncoders(torch.nn.Module):
    """The text encoders of a base as one network that can be trained.

    Args:
        base ([`BaseModel`]): the text encoders stay its own.
    """

    def __init__(self, base: BaseModel):
        super().__init__()
        self._base = base
        self.encoders = torch.nn.ModuleDict(base.text_encoders)

    def forward(self, token_ids: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Token ids, int64 (N, L), by text encoder -> text embeddings, see [`BaseModel.encode_text`]."""
        return self._base.encode_text(token_ids, dict(self.encoders))

    @property
    def config(self) -> dict:
        """The architectures, as JSON values."""
        volatile = ("transformers_version", "dtype", "torch_dtype", "_name_or_path")
        return {
            name: {key: value for key, value in encoder.config.to_dict().items() if key not in volatile}
            for name, encoder in self.encoders.items()
        }

    def train(self, mode: bool = True) -> "TextEncoders":
        """Set the mode of the encoders that are trained; dropout would only disturb the others."""
        for encoder in self.encoders.values():
            encoder.train(mode and any(parameter.requires_grad for parameter in encoder.parameters()))
        self.training = mode
        return self

    def enable_gradient_checkpointing(self) -> None:
        for encoder in self.encoders.values():
            encoder.gradient_checkpointing_enable()
