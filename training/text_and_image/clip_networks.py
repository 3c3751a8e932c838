"""New and given CLIP networks: transformers' CLIPModel and SiglipModel, and the CLIP of noisy images."""

import math

import torch
from diffusers import ModelMixin
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerBase,
    SiglipConfig,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from diffusers_ext.models import NoisyCLIPModel
from diffusers_ext.training.loop.network_options import build_network


PATCHES = 4  # of the usual network, along each side of an image
USUAL_TOWER = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4}
USUAL_LAYERS = {"vision": 3, "text": 2}


def new_clip(
    *,
    sigmoid: bool,
    text_config: dict,
    vision_config: dict,
    projection_dim: int,
    size: int,
    channels: int,
    max_length: int,
    tokenizer: PreTrainedTokenizerBase,
) -> CLIPModel | SiglipModel:
    """A network with random weights: a [`CLIPModel`], or a [`SiglipModel`] for the sigmoid loss.

    Args:
        sigmoid (`bool`): whether it is for the sigmoid loss.
        text_config, vision_config (`dict`): arguments of the configurations of its towers that a user gives.
        projection_dim (`int`): the width of the embeddings.
        size, channels (`int`): of the images.
        max_length (`int`): the longest text in tokens.
        tokenizer ([`PreTrainedTokenizerBase`]): makes the tokens that it reads.

    Raises:
        ValueError: naming the option, if the arguments are no network.
    """
    if sigmoid:  # its towers end in the width of the embeddings
        text_class, text_width = SiglipTextConfig, {"projection_size": projection_dim}
        vision_class, vision_width = SiglipVisionConfig, {"hidden_size": projection_dim}
    else:
        text_class, vision_class = CLIPTextConfig, CLIPVisionConfig
        text_width = vision_width = {"projection_dim": projection_dim}
    text = build_network(
        text_class,
        "--text_config",
        text_config,
        usual={**USUAL_TOWER, "num_hidden_layers": USUAL_LAYERS["text"]},
        decided={
            **text_width,
            "max_position_embeddings": max_length,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
    )
    vision = build_network(
        vision_class,
        "--vision_config",
        vision_config,
        usual={**USUAL_TOWER, "num_hidden_layers": USUAL_LAYERS["vision"], "patch_size": max(1, size // PATCHES)},
        decided={**vision_width, "image_size": size, "num_channels": channels},
    )
    if sigmoid:
        siglip = SiglipModel(SiglipConfig(text_config=text.to_dict(), vision_config=vision.to_dict()))
        with torch.no_grad():  # Zhai et al. 2023, section 3.2
            siglip.logit_scale.fill_(math.log(10))
            siglip.logit_bias.fill_(-10)
        return siglip
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=projection_dim)
    return CLIPModel(config)


def new_image_processor(size: int, channels: int) -> CLIPImageProcessor:
    """What prepares images for a new network, which sees values in [-1, 1]."""
    middle = [0.5] * channels
    return CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        do_convert_rgb=channels == 3,
        image_mean=middle,
        image_std=middle,
    )


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, clip: CLIPModel | SiglipModel, name: str) -> None:
    """Refuse a tokenizer whose tokens a network does not know.

    Raises:
        ValueError: in one sentence.
    """
    known = clip.config.text_config.vocab_size
    if len(tokenizer) > known:
        raise ValueError(f"The tokenizer has {len(tokenizer)} tokens, but {name} knows only {known} of them.")


def noisy_clip_from(
    clip: CLIPModel, image_mean: list[float], image_std: list[float], num_train_timesteps: int
) -> NoisyCLIPModel:
    """A CLIP of noisy images with the weights of a CLIP of clean ones; all timesteps begin with its class token.

    Args:
        clip ([`CLIPModel`]): the CLIP of clean images.
        image_mean, image_std (`list[float]`): how its images are normalised.
        num_train_timesteps (`int`): the timesteps of the diffusion process.

    Raises:
        ValueError: if its layers are no layers of a [`NoisyCLIPModel`].
    """
    text, vision = clip.config.text_config, clip.config.vision_config
    if text.hidden_act != vision.hidden_act:
        raise ValueError(f"Both towers must have one activation, but have {text.hidden_act} and {vision.hidden_act}.")
    for tower in (text, vision):
        if tower.intermediate_size != 4 * tower.hidden_size:
            raise ValueError(
                f"Perceptrons must be four times as wide as their tower, but are {tower.intermediate_size} wide for "
                f"{tower.hidden_size}."
            )
    noisy = NoisyCLIPModel(
        sample_size=vision.image_size,
        in_channels=vision.num_channels,
        patch_size=vision.patch_size,
        num_train_timesteps=num_train_timesteps,
        image_dim=vision.hidden_size,
        num_image_layers=vision.num_hidden_layers,
        num_image_heads=vision.num_attention_heads,
        vocab_size=text.vocab_size,
        max_length=text.max_position_embeddings,
        text_dim=text.hidden_size,
        num_text_layers=text.num_hidden_layers,
        num_text_heads=text.num_attention_heads,
        projection_dim=clip.config.projection_dim,
        activation=vision.hidden_act,
        eos_token_id=text.eos_token_id,
        image_mean=tuple(image_mean),
        image_std=tuple(image_std),
    )
    copy_weights(clip, noisy)
    return noisy


def copy_weights(clip: CLIPModel, noisy: ModelMixin) -> None:
    """Copy all weights of a [`CLIPModel`] into a [`NoisyCLIPModel`] of its shape."""
    source, weights = clip.state_dict(), {}
    weights["time_embedding.weight"] = source["vision_model.embeddings.class_embedding"].expand_as(
        noisy.time_embedding.weight
    )
    weights["logit_scale"] = source["logit_scale"]
    names = {
        "patch_embedding.weight": "vision_model.embeddings.patch_embedding.weight",
        "position_embedding": "vision_model.embeddings.position_embedding.weight",
        "proj_out.weight": "visual_projection.weight",
        "text_tower.token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "text_tower.position_embedding": "text_model.embeddings.position_embedding.weight",
        "text_tower.proj_out.weight": "text_projection.weight",
    }
    modules = {
        "norm_in": "vision_model.pre_layrnorm",
        "norm_out": "vision_model.post_layernorm",
        "text_tower.norm_out": "text_model.final_layer_norm",
    }
    for own, theirs, count in (
        ("blocks", "vision_model", noisy.config.num_image_layers),
        ("text_tower.blocks", "text_model", noisy.config.num_text_layers),
    ):
        for block in range(count):
            layer = f"{theirs}.encoder.layers.{block}"
            modules |= {
                f"{own}.{block}.norm1": f"{layer}.layer_norm1",
                f"{own}.{block}.to_q": f"{layer}.self_attn.q_proj",
                f"{own}.{block}.to_v": f"{layer}.self_attn.v_proj",
                f"{own}.{block}.to_out": f"{layer}.self_attn.out_proj",
                f"{own}.{block}.norm2": f"{layer}.layer_norm2",
                f"{own}.{block}.linear_1": f"{layer}.mlp.fc1",
                f"{own}.{block}.linear_2": f"{layer}.mlp.fc2",
            }
            names[f"{own}.{block}.to_k.weight"] = f"{layer}.self_attn.k_proj.weight"
    names |= {f"{own}.{kind}": f"{theirs}.{kind}" for own, theirs in modules.items() for kind in ("weight", "bias")}
    weights |= {own: source[theirs] for own, theirs in names.items()}
    noisy.load_state_dict({name: weight.detach().clone() for name, weight in weights.items()})


def feature_tensor(features) -> torch.Tensor:
    """The features that `get_image_features` and `get_text_features` return, of any version of transformers."""
    return getattr(features, "pooler_output", features)
