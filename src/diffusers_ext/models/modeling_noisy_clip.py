"""A CLIP of noisy images, which guides a diffusion model to a text."""

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from .clip_towers import ContrastiveBlock, ContrastiveOutput, ContrastiveTextTower, compare_embeds


class NoisyCLIPModel(ModelMixin, ConfigMixin):
    r"""
    Compares images x_t, with the noise of a diffusion process at the timestep t, with texts.

    The noised CLIP of GLIDE (Nichol et al. 2021, section 3.2, https://huggingface.co/papers/2112.10741;
    `glide_text2im/clip` in https://github.com/openai/glide-text2im): CLIP (Radford et al. 2021,
    https://huggingface.co/papers/2103.00020) whose class token is the embedding of the timestep. The gradient of the
    cosine with respect to x_t guides the sampling of a diffusion model to the text; see [`CLIPGuidance`].

    The defaults are a small network for RGB images of 16x16 pixels.

    Args:
        sample_size (`int`, defaults to 16):
            Height and width of the images.
        in_channels (`int`, defaults to 3):
            Channels of the images.
        patch_size (`int`, defaults to 4):
            Height and width of a patch, which becomes one token.
        num_train_timesteps (`int`, defaults to 1000):
            The timesteps of the diffusion process.
        image_dim, num_image_layers, num_image_heads (`int`, default to 64, 3 and 4):
            Width, depth and attention heads of the image tower.
        vocab_size (`int`, defaults to 1000):
            The number of tokens that texts consist of.
        max_length (`int`, defaults to 77):
            The longest text, in tokens.
        text_dim, num_text_layers, num_text_heads (`int`, default to 64, 2 and 4):
            Width, depth and attention heads of the text tower.
        projection_dim (`int`, defaults to 64):
            The width of the embeddings.
        activation (`str`, defaults to `"gelu"`):
            `"gelu"`, as in GLIDE, or `"quick_gelu"`, as in OpenAI's CLIP.
        eos_token_id (`int`, defaults to 999):
            The token that ends a text.
        init_logit_scale (`float`, defaults to 100.0):
            What cosines are multiplied by at first.
        image_mean, image_std (`tuple[float]`, default to 0.5 for each channel):
            By which images are normalised, as for values in `[0, 1]`.

    Raises:
        ValueError: if patches do not fit the images, heads a width, or an activation is unknown.
    """

    _no_split_modules = ["ContrastiveBlock"]
    _repeated_blocks = ["ContrastiveBlock"]

    @register_to_config
    def __init__(
        self,
        sample_size: int = 16,
        in_channels: int = 3,
        patch_size: int = 4,
        num_train_timesteps: int = 1000,
        image_dim: int = 64,
        num_image_layers: int = 3,
        num_image_heads: int = 4,
        vocab_size: int = 1000,
        max_length: int = 77,
        text_dim: int = 64,
        num_text_layers: int = 2,
        num_text_heads: int = 4,
        projection_dim: int = 64,
        activation: str = "gelu",
        eos_token_id: int = 999,
        init_logit_scale: float = 100.0,
        image_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
        image_std: tuple[float, ...] = (0.5, 0.5, 0.5),
    ):
        super().__init__()
        if sample_size % patch_size != 0:
            raise ValueError(f"`patch_size` must divide `sample_size`, {sample_size}, but is {patch_size}.")
        for name, dim, heads in (("image", image_dim, num_image_heads), ("text", text_dim, num_text_heads)):
            if dim % heads != 0:
                raise ValueError(f"`num_{name}_heads` must divide `{name}_dim`, {dim}, but is {heads}.")
        if activation not in ("gelu", "quick_gelu"):
            raise ValueError(f'`activation` must be "gelu" or "quick_gelu", but is {activation!r}.')
        for name, values in (("image_mean", image_mean), ("image_std", image_std)):
            if len(values) != in_channels:
                raise ValueError(f"`{name}` must have a number for each of {in_channels} channels, but is {values}.")
        num_tokens = (sample_size // patch_size) ** 2 + 1
        self.register_buffer("mean", torch.tensor(image_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(image_std).view(-1, 1, 1), persistent=False)
        self.patch_embedding = nn.Conv2d(in_channels, image_dim, patch_size, stride=patch_size, bias=False)
        self.time_embedding = nn.Embedding(num_train_timesteps, image_dim)
        self.position_embedding = nn.Parameter(image_dim**-0.5 * torch.randn(num_tokens, image_dim))
        self.norm_in = nn.LayerNorm(image_dim)
        blocks = (
            ContrastiveBlock(image_dim, num_image_heads, activation, causal=False, key_bias=False)
            for _ in range(num_image_layers)
        )
        self.blocks = nn.ModuleList(blocks)
        self.norm_out = nn.LayerNorm(image_dim)
        self.proj_out = nn.Linear(image_dim, projection_dim, bias=False)
        self.text_tower = ContrastiveTextTower(
            vocab_size,
            max_length,
            text_dim,
            num_text_layers,
            num_text_heads,
            projection_dim,
            activation,
            eos_token_id,
            key_bias=False,
        )
        self.logit_scale = nn.Parameter(torch.tensor(math.log(init_logit_scale)))

    def get_image_features(self, sample: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Features `(N, projection_dim)`, not normalised, of noisy images `(N, C, H, W)` at timesteps `(N,)`."""
        pixels = ((sample + 1) / 2 - self.mean) / self.std
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        # Solvers and flows have timesteps between two integers.
        nearest = timesteps.round().long().clamp(0, self.config.num_train_timesteps - 1)
        hidden_states = torch.cat([self.time_embedding(nearest)[:, None], patches], dim=1)
        hidden_states = self.norm_in(hidden_states + self.position_embedding)
        for block in self.blocks:
            hidden_states = block(hidden_states)
        return self.proj_out(self.norm_out(hidden_states[:, 0]))

    def get_text_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Features `(N, projection_dim)`, not normalised, of token ids `(N, L)`; see [`ContrastiveTextTower`]."""
        return self.text_tower(input_ids, attention_mask)

    def forward(
        self,
        sample: torch.Tensor,
        timesteps: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool = True,
    ) -> ContrastiveOutput | tuple[torch.Tensor, ...]:
        r"""
        Args:
            sample (`torch.Tensor` of shape `(N, in_channels, sample_size, sample_size)`):
                Noisy images, as the diffusion model sees them: clean ones are in `[-1, 1]`.
            timesteps (`torch.Tensor` of shape `(N,)`):
                The timestep of each image.
            input_ids (`torch.Tensor` of shape `(M, L)`):
                The tokens of the texts.
            attention_mask (`torch.Tensor` of shape `(M, L)`, *optional*):
                1 for the tokens of a text, 0 for padding; by default texts end with their first `eos_token_id`.
            return_dict (`bool`, defaults to `True`):
                Whether to return a [`ContrastiveOutput`] instead of a tuple.

        Returns:
            [`ContrastiveOutput`] or `tuple`: logits per image, embeddings of the images and of the texts.

        Raises:
            ValueError: if the images have another shape.
        """
        config = self.config
        shape = (config.in_channels, config.sample_size, config.sample_size)
        if tuple(sample.shape[1:]) != shape:
            raise ValueError(f"`sample` must be (N, {', '.join(map(str, shape))}), but is {tuple(sample.shape)}.")
        image_features = self.get_image_features(sample, timesteps)
        output = compare_embeds(image_features, self.get_text_features(input_ids, attention_mask), self.logit_scale)
        return output if return_dict else output.to_tuple()
