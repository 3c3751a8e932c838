"""New denoisers of the classes that diffusers has for images and their latents."""

import math
import re

import torch
from diffusers import DiTTransformer2DModel, UNet2DConditionModel

from diffusers_ext.models import ClassEmbedder
from diffusers_ext.training.diffusion.denoisers import (
    build_unet,
    check_size,
    default_unet,
    derived_arguments,
    sample_size,
)
from diffusers_ext.training.loop.network_options import build_network


Networks = dict[str, torch.nn.Module]


def build_denoiser(class_name: str, **shape) -> Networks:
    """A new denoiser, and what is trained together with it.

    Args:
        class_name (`str`): one of `DENOISERS`.
        shape: keywords of [`build_unet`].

    Returns:
        `dict`: "unet", and "class_embedder" if the denoiser attends to classes.

    Raises:
        ValueError: naming the option, if such images have no denoiser of this class.
    """
    return DENOISERS[class_name](**shape)


def _unet(**shape) -> Networks:
    return {"unet": build_unet(**shape)}


def _conditional_unet(
    *, size, in_channels, out_channels, num_class_embeds, arguments=None, pixels_per_latent=1
) -> Networks:
    """A U-Net that attends to an embedding of the class (Rombach et al. 2022, section 3.3)."""
    _require_classes("UNet2DConditionModel", num_class_embeds)
    unet = build_attending_unet(
        size=size,
        in_channels=in_channels,
        out_channels=out_channels,
        arguments=arguments or {},
        usual={"cross_attention_dim": CONTEXT_DIM},
        pixels_per_latent=pixels_per_latent,
    )
    embedder = ClassEmbedder(num_class_embeds=num_class_embeds, embed_dim=unet.config.cross_attention_dim)
    return {"unet": unet, "class_embedder": embedder}


def build_attending_unet(
    *,
    size: tuple[int, int],
    in_channels: int,
    out_channels: int,
    arguments: dict,
    usual: dict,
    decided: dict | None = None,
    pixels_per_latent: int = 1,
    **inputs: torch.Tensor,
) -> UNet2DConditionModel:
    """A new U-Net that attends to a context: an embedding of a class, or the states of a text encoder.

    Args:
        size, in_channels, out_channels, pixels_per_latent: as in [`build_unet`].
        arguments (`dict`): arguments of UNet2DConditionModel that the user gives.
        usual (`dict`): arguments that they replace, beside those that suit the size.
        decided (`dict`, *optional*): arguments that other options decide.
        inputs: further inputs of the network, for a trial with one image.

    Raises:
        ValueError: if the arguments don't fit each other, or the network can't halve images of this size.
    """
    own = derived_arguments(arguments, size) if arguments else default_unet(size)
    for name in ("down_block_types", "up_block_types"):
        own[name] = tuple(re.sub("(?<!Cross)Attn", "CrossAttn", block) for block in own[name])
    # In this class it is the number of heads.
    own["attention_head_dim"] = math.gcd(8, *own["block_out_channels"])
    decided = {"in_channels": in_channels, "out_channels": out_channels, "sample_size": sample_size(size)} | (
        decided or {}
    )

    def trial(unet: UNet2DConditionModel) -> None:
        check_size(unet, size, pixels_per_latent)
        context = torch.zeros(1, 1, unet.config.encoder_hid_dim or unet.config.cross_attention_dim)
        given = {name: values.to(context.device) for name, values in inputs.items()}
        unet(torch.zeros(1, in_channels, *size), torch.zeros(1), encoder_hidden_states=context, **given)

    unet = build_network(UNet2DConditionModel, "--unet", arguments, usual=own | usual, decided=decided, trial=trial)
    check_size(unet, size, pixels_per_latent)
    return unet


def _dit(*, size, in_channels, out_channels, num_class_embeds, arguments=None, pixels_per_latent=1) -> Networks:
    """A diffusion transformer (Peebles and Xie 2023), by default of the size DiT-S."""
    _require_classes("DiTTransformer2DModel", num_class_embeds)
    if size[0] != size[1]:
        pixels = " ".join(str(side * pixels_per_latent) for side in size)
        raise ValueError(f"--denoiser DiTTransformer2DModel makes square images: --resolution can't be {pixels}.")
    usual = {
        "num_layers": 12,
        "num_attention_heads": 6,
        "attention_head_dim": 64,
        "patch_size": 2 if size[0] % 2 == 0 and size[0] > 8 else 1,
    }
    decided = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "sample_size": size[0],
        # The last label is that for no class, which this class of diffusers adds by itself.
        "num_embeds_ada_norm": num_class_embeds - 1,
    }

    def trial(transformer: DiTTransformer2DModel) -> None:
        check_size(transformer, size, pixels_per_latent)
        sample, labels = torch.zeros(1, in_channels, *size), torch.zeros(1, dtype=torch.int64)
        transformer(sample, torch.zeros(1), class_labels=labels)

    transformer = build_network(
        DiTTransformer2DModel, "--unet", arguments or {}, usual=usual, decided=decided, trial=trial
    )
    check_size(transformer, size, pixels_per_latent)
    return {"unet": transformer}


def keep_labels(networks: Networks) -> Networks:
    """Stop DiTs from hiding labels by themselves, by numbers that no seed of a run decides: the recipe hides them."""
    for network in networks.values():
        if isinstance(network, DiTTransformer2DModel):
            for block in network.transformer_blocks:
                block.norm1.emb.class_embedder.dropout_prob = 0.0
    return networks


def _require_classes(class_name: str, num_class_embeds: int | None) -> None:
    if num_class_embeds is None:
        raise ValueError(f"--denoiser {class_name} needs images with classes, which --label_column names.")


CONTEXT_DIM = 256
DENOISERS = {
    "UNet2DModel": _unet,
    "UNet2DConditionModel": _conditional_unet,
    "DiTTransformer2DModel": _dit,
}
