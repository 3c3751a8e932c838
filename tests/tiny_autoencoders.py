"""The smallest autoencoders of diffusers, which halve the sides of images, with random weights."""

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, VQModel


def tiny_vae(seed: int = 0, channels: int = 3, **changes) -> AutoencoderKL:
    return _built(AutoencoderKL, seed, channels, latent_channels=4, sample_size=16, **changes)


def tiny_vq_model(seed: int = 0, channels: int = 3, **changes) -> VQModel:
    config = {"latent_channels": 4, "num_vq_embeddings": 16, "scaling_factor": 1.0, "sample_size": 16}
    return _built(VQModel, seed, channels, **{**config, **changes})


def tiny_taesd(seed: int = 0, channels: int = 3) -> AutoencoderTiny:
    torch.manual_seed(seed)
    return AutoencoderTiny(
        in_channels=channels,
        out_channels=channels,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    ).eval()


def tiny_dc(seed: int = 0, channels: int = 3) -> AutoencoderDC:
    torch.manual_seed(seed)
    return AutoencoderDC(
        in_channels=channels,
        latent_channels=4,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        scaling_factor=0.4,
    ).eval()


def _built(model_class, seed: int, channels: int, **config):
    torch.manual_seed(seed)
    usual = {
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }
    return model_class(**{**usual, **config}).eval()
