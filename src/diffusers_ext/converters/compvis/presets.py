"""The published checkpoints, by their file names: the arguments in the repositories' configuration files."""

_PROCESS = {"timesteps": 1000, "linear_start": 0.0015, "linear_end": 0.0195}
_UNET = {
    "image_size": 64,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 224,
    "num_res_blocks": 2,
    "attention_resolutions": (8, 4, 2),
    "channel_mult": (1, 2, 3, 4),
    "num_head_channels": 32,
    **_PROCESS,
}
_ATTENDED = {
    **_UNET,
    "model_channels": 192,
    "channel_mult": (1, 2, 3, 5),
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "context_dim": 512,
}
_SEMANTIC = {
    "image_size": 64,
    "in_channels": 6,
    "out_channels": 3,
    "model_channels": 128,
    "num_res_blocks": 2,
    "attention_resolutions": (32, 16, 8),
    "channel_mult": (1, 4, 8),
    "num_heads": 8,
    **_PROCESS,
    "linear_end": 0.0205,
    "n_stages": 2,
}
_AUTOENCODER = {
    "embed_dim": 3,
    "double_z": False,
    "z_channels": 3,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": (1, 2, 4),
    "num_res_blocks": 2,
    "attn_resolutions": (),
    "dropout": 0.0,
}
_VQGAN = {
    **_AUTOENCODER,
    "embed_dim": 256,
    "z_channels": 256,
    "ch_mult": (1, 1, 2, 2, 4),
    "attn_resolutions": (16,),
}
_F8 = {"embed_dim": 4, "z_channels": 4, "ch_mult": (1, 2, 2, 4), "attn_resolutions": (32,)}
_F16 = {"ch_mult": (1, 1, 2, 2, 4), "attn_resolutions": (16,)}

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
    "cin256": {
        **_ATTENDED,
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 256,
        "attention_resolutions": (4, 2, 1),
        "channel_mult": (1, 2, 4),
        "n_classes": 1000,
    },
    "cin256-v2": {
        **_ATTENDED,
        "num_head_channels": -1,
        "num_heads": 1,
        "n_classes": 1001,
        "null_class_label": 1000,
        "use_ema": False,
    },
    "text2img256": {**_ATTENDED, "context_dim": 640},
    "txt2img-1p4B": {
        **_ATTENDED,
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 320,
        "attention_resolutions": (4, 2, 1),
        "channel_mult": (1, 2, 4, 4),
        "num_head_channels": -1,
        "num_heads": 8,
        "context_dim": 1280,
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "scale_factor": 0.18215,
        "use_ema": False,
    },
    "layout2img-openimages256": {
        **_ATTENDED,
        "model_channels": 128,
        "channel_mult": (1, 2, 3, 4),
        "transformer_depth": 3,
        "linear_end": 0.0205,
    },
    "inpainting_big": {
        **_UNET,
        "in_channels": 7,
        "model_channels": 256,
        "num_head_channels": -1,
        "num_heads": 8,
        "resblock_updown": True,
        "linear_end": 0.0205,
        "cond_stage_key": "masked_image",
    },
    "semantic_synthesis256": _SEMANTIC,
    "semantic_synthesis512": {**_SEMANTIC, "image_size": 128},
    "bsr_sr": {
        **_UNET,
        "in_channels": 6,
        "model_channels": 160,
        "attention_resolutions": (16, 8),
        "channel_mult": (1, 2, 2, 4),
        "linear_end": 0.0155,
        "cond_stage_key": "LR_image",
    },
}
FIRST_STAGES = {
    "kl-f4": {**_AUTOENCODER, "double_z": True},
    "kl-f8": {
        **_AUTOENCODER,
        "double_z": True,
        "embed_dim": 4,
        "z_channels": 4,
        "ch_mult": (1, 2, 4, 4),
    },
    "kl-f16": {**_AUTOENCODER, **_F16, "double_z": True, "embed_dim": 16, "z_channels": 16},
    "kl-f32": {
        **_AUTOENCODER,
        "double_z": True,
        "embed_dim": 64,
        "z_channels": 64,
        "ch_mult": (1, 1, 2, 2, 4, 4),
        "attn_resolutions": (16, 8),
    },
    "vq-f4": {**_AUTOENCODER, "n_embed": 8192},
    "vq-f4-noattn": {**_AUTOENCODER, "n_embed": 8192, "attn_type": "none"},
    "vq-f8": {**_AUTOENCODER, **_F8, "n_embed": 16384},
    "vq-f8-n256": {**_AUTOENCODER, **_F8, "n_embed": 256},
    "vq-f16": {**_AUTOENCODER, **_F16, "n_embed": 16384, "embed_dim": 8, "z_channels": 8},
}
VQGANS = {
    "vqgan_imagenet_f16_1024": {**_VQGAN, "n_embed": 1024},
    "vqgan_imagenet_f16_16384": {**_VQGAN, "n_embed": 16384},
}

NET2NETS = {
    "cin_transformer": {"n_head": 16, "n_classes": 1000, "resolution": 256},
    "celebahq_transformer": {"n_head": 16, "n_classes": 1, "resolution": 256},
    "ffhq_transformer": {"n_head": 16, "n_classes": 1, "resolution": 256},
}
