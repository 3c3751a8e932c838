"""The diffusion transformer DiT, with the numbers of its authors' networks."""

from diffusers import DiTTransformer2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import Timesteps


TIME_PROJECTION_DIM = 256  # the width of the sinusoids of the timestep


class ExactDiTTransformer2DModel(DiTTransformer2DModel):
    r"""
    A [`DiTTransformer2DModel`] that computes what the reference implementation of "Scalable Diffusion Models with
    Transformers" (Peebles & Xie 2023, https://huggingface.co/papers/2212.09748,
    https://github.com/facebookresearch/DiT) computes with the same weights, which have the same names.

    The class of diffusers differs in three points, which have no effect on the shapes of weights: its sinusoids of the
    timestep have the frequencies 10000^(-i / 127) instead of 10000^(-i / 128), its second normalization adds 1e-5
    instead of 1e-6 by default, and in training each block replaces labels by that for "no class" on its own. Here
    labels stay what they are: whoever trains drops them, before they are given to the network.

    All arguments: see [`DiTTransformer2DModel`]; `norm_eps` is 1e-6 by default. The class
    `num_embeds_ada_norm` stands for "no class".
    """

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 16,
        attention_head_dim: int = 72,
        in_channels: int = 4,
        out_channels: int | None = None,
        num_layers: int = 28,
        dropout: float = 0.0,
        norm_num_groups: int = 32,
        attention_bias: bool = True,
        sample_size: int = 32,
        patch_size: int = 2,
        activation_fn: str = "gelu-approximate",
        num_embeds_ada_norm: int | None = 1000,
        upcast_attention: bool = False,
        norm_type: str = "ada_norm_zero",
        norm_elementwise_affine: bool = False,
        norm_eps: float = 1e-6,
    ):
        super().__init__(
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            num_layers=num_layers,
            dropout=dropout,
            norm_num_groups=norm_num_groups,
            attention_bias=attention_bias,
            sample_size=sample_size,
            patch_size=patch_size,
            activation_fn=activation_fn,
            num_embeds_ada_norm=num_embeds_ada_norm,
            upcast_attention=upcast_attention,
            norm_type=norm_type,
            norm_elementwise_affine=norm_elementwise_affine,
            norm_eps=norm_eps,
        )
        for block in self.transformer_blocks:
            embedding = block.norm1.emb
            embedding.time_proj = Timesteps(TIME_PROJECTION_DIM, flip_sin_to_cos=True, downscale_freq_shift=0)
            embedding.class_embedder.dropout_prob = 0.0
