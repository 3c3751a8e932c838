from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import nn


@dataclass
class ToyDenoiserOutput(BaseOutput):
    sample: torch.Tensor


class ToyDenoiser(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, sample_size: int = 4, in_channels: int = 1, num_class_embeds: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.embedding = nn.Embedding(num_class_embeds, in_channels)

    def forward(self, sample, timestep, class_labels, return_dict: bool = True):
        sample = self.conv(sample) + self.embedding(class_labels)[:, :, None, None]
        return ToyDenoiserOutput(sample=sample) if return_dict else (sample,)
