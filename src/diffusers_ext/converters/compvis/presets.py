"""The published checkpoints, by their file names: the arguments in the repositories' configuration files."""

_UNET = {
    "image_size": 64,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 224,
    "num_res_blocks": 2,
    "attention_resolutions": (8, 4, 2),
    "channel_mult": (1, 2, 3, 4),
    "num_head_channels": 32,
    "timesteps": 1000,
    "linear_start": 0.0015,
    "linear_end": 0.0195,
}
_VQGAN = {
    "embed_dim": 256,
    "double_z": False,
    "z_channels": 256,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": (1, 1, 2, 2, 4),
    "num_res_blocks": 2,
    "attn_resolutions": (16,),
    "dropout": 0.0,
}

UNETS = {
    "ffhq256": _UNET,
    "celeba256": _UNET,
    "lsun_beds256": _UNET,
    "lsun_churches256": {
        **_UNET,
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 192,
        "attention_resolutions": (1, 2, 4, 8),
        "channel_mult": (1, 2, 2, 4, 4),
        "num_head_channels": -1,
        "num_heads": 8,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        "linear_end": 0.0155,
    },
}
VQGANS = {
    "vqgan_imagenet_f16_1024": {**_VQGAN, "n_embed": 1024},
    "vqgan_imagenet_f16_16384": {**_VQGAN, "n_embed": 16384},
}
