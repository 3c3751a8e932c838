"""The published models of karlo: the constructor arguments that its configuration files lead to."""

_UNET = {
    "in_channels": 3,
    "model_channels": 320,
    "num_res_blocks": 3,
    "channel_mult": (1, 2, 3, 4),
    "resblock_updown": True,
}
PRIOR = {"text_ctx": 77, "xf_width": 2048, "xf_layers": 20, "xf_heads": 32, "xf_final_ln": True, "clip_dim": 768}
DECODER = {
    **_UNET,
    "image_size": 64,
    "out_channels": 6,
    "attention_resolutions": (2, 4, 8),
    "num_head_channels": 64,
    "use_scale_shift_norm": True,
    "dropout": 0.1,
    "text_ctx": 77,
    "xf_width": 1536,
    "clip_dim": 768,
    "clip_emb_mult": 4,
    "clip_emb_drop": 0.1,
}
SUPER_RESOLUTION = {
    **_UNET,
    "image_size": 256,
    "out_channels": 3,
    "attention_resolutions": (),
    "dropout": 0.0,
}
