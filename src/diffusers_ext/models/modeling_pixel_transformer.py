"""A transformer that predicts the levels of pixels, one colour after the other."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from transformers import DynamicCache, ImageGPTConfig, ImageGPTModel

from .causal_convolution import PixelCache
from .gan_checks import check_positive, height_and_width
from .pixel_distributions import (
    CategoricalPixelsMixin,
    PixelModelOutput,
    check_pixel_arguments,
    check_pixel_inputs,
    to_levels,
)


class PixelTransformer(CategoricalPixelsMixin, ModelMixin, ConfigMixin):
    r"""
    Predicts the levels of each pixel from those before it by the transformer of Image GPT.

    "Generative Pretraining from Pixels" (Chen et al. 2020,
    https://cdn.openai.com/papers/Generative_Pretraining_from_Pixels_V2.pdf) with transformers' [`ImageGPTModel`]. The
    sequence has a token for each colour of each pixel in raster order, as in the Sparse Transformer (Child et al.
    2019, https://huggingface.co/papers/1904.10509), and not for one of 512 clusters of colours, so that it gives the
    likelihood of the image itself. The first token stands for the start or, of a conditional network, for the class.

    Args:
        sample_size (`int` or `tuple[int, int]`, defaults to 32):
            Height and width of the images.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        num_levels (`int`, defaults to 256):
            How many values a channel can have, evenly from -1 to 1.
        hidden_size (`int`, defaults to 256):
            The features of a token: a multiple of `num_attention_heads`.
        num_layers (`int`, defaults to 8):
            The number of blocks.
        num_attention_heads (`int`, defaults to 4):
            The heads of the attention of each block.
        dropout (`float`, defaults to 0.0):
            The probability that a feature or an attention is zeroed in training.
        num_classes (`int`, *optional*):
            The number of classes of a conditional network.

    Raises:
        ValueError: if the arguments do not fit together.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | tuple[int, int] = 32,
        in_channels: int = 3,
        num_levels: int = 256,
        hidden_size: int = 256,
        num_layers: int = 8,
        num_attention_heads: int = 4,
        dropout: float = 0.0,
        num_classes: int | None = None,
    ):
        super().__init__()
        check_pixel_arguments(in_channels, num_levels, num_classes)
        check_positive(num_layers=num_layers, num_attention_heads=num_attention_heads)
        if hidden_size < 1 or hidden_size % num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of the {num_attention_heads} attention heads, but is {hidden_size}."
            )
        height, width = height_and_width(sample_size)
        self.transformer = ImageGPTModel(
            ImageGPTConfig(
                vocab_size=num_levels + (num_classes or 1),  # the tokens of classes, or of the start, come last
                n_positions=in_channels * height * width,
                n_embd=hidden_size,
                n_layer=num_layers,
                n_head=num_attention_heads,
                resid_pdrop=dropout,
                embd_pdrop=dropout,
                attn_pdrop=dropout,
                use_cache=False,
            )
        )
        self.proj_out = nn.Linear(hidden_size, num_levels, bias=False)
        nn.init.normal_(self.proj_out.weight, std=self.transformer.config.initializer_range)

    def forward(
        self, sample: torch.Tensor, class_labels: torch.Tensor | None = None, return_dict: bool = True
    ) -> PixelModelOutput | tuple[torch.Tensor]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, H, W)`):
                Images in `[-1, 1]`, of the network's size; each value counts as the nearest level.
            class_labels (`torch.Tensor` of shape `(N,)`, *optional*):
                The class of each image, for a conditional network.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`PixelModelOutput`] instead of a tuple.

        Returns:
            [`PixelModelOutput`] or `tuple`: logits `(N, in_channels * num_levels, H, W)`.

        Raises:
            ValueError: if the images or the labels do not fit the network.
        """
        check_pixel_inputs(self, sample, class_labels)
        if tuple(sample.shape[2:]) != height_and_width(self.config.sample_size):
            raise ValueError(
                f"`sample` must have the size {self.config.sample_size}, but has {tuple(sample.shape[2:])}."
            )
        height, width = sample.shape[2:]
        tokens = self.tokens(sample, class_labels)[:, :-1]
        logits = self.proj_out(self.transformer(tokens).last_hidden_state)
        # (N, H, W, C, levels) to (N, C * levels, H, W)
        parameters = logits.unflatten(1, (height, width, -1)).permute(0, 3, 4, 1, 2).flatten(1, 2)
        return PixelModelOutput(parameters=parameters) if return_dict else (parameters,)

    def tokens(self, image: torch.Tensor, class_labels: torch.Tensor | None) -> torch.Tensor:
        """The sequence `(N, 1 + H * W * in_channels)`: the class or the start, then the levels."""
        levels = to_levels(image, self.config.num_levels).permute(0, 2, 3, 1).flatten(1)
        start = torch.zeros_like(levels[:, 0]) if class_labels is None else class_labels
        return torch.cat([start[:, None] + self.config.num_levels, levels], dim=1)

    def parameters_at(
        self,
        image: torch.Tensor,
        row: int,
        column: int,
        draw: int,
        class_labels: torch.Tensor | None,
        cache: PixelCache | None,
    ) -> torch.Tensor:
        """The logits `(N, num_levels)` of colour `draw` at a pixel, whose pixels before are in `image`."""
        position = (row * image.shape[3] + column) * self.config.in_channels + draw
        tokens = self.tokens(image, class_labels)
        if cache is None:
            hidden_states = self.transformer(tokens[:, : position + 1]).last_hidden_state
        else:
            if cache.above is None:
                cache.above = DynamicCache()
            tokens = tokens[:, cache.above.get_seq_length() : position + 1]
            # the name of this argument has changed between the versions of transformers, but not its place
            hidden_states = self.transformer(tokens, cache.above, use_cache=True).last_hidden_state
        return self.proj_out(hidden_states[:, -1])
