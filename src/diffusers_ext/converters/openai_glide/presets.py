"""The published models of GLIDE, by their file names: the arguments of `model_creation.py` in the original."""

_BASE = {
    "image_size": 64,
    "in_channels": 3,
    "model_channels": 192,
    "out_channels": 6,
    "num_res_blocks": 3,
    "channel_mult": (1, 2, 3, 4),
    "attention_resolutions": (2, 4, 8),
    "num_head_channels": 64,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "text_ctx": 128,
    "xf_width": 512,
    "xf_layers": 16,
    "xf_heads": 8,
    "xf_final_ln": True,
    "n_vocab": 50257,
    "diffusion_steps": 1000,
    "noise_schedule": "squaredcos_cap_v2",
}
_UPSAMPLER = {
    **_BASE,
    "image_size": 256,
    "num_res_blocks": 2,
    "channel_mult": (1, 1, 2, 2, 4, 4),
    "attention_resolutions": (8, 16, 32),
    "noise_schedule": "linear",
}
TEXT_TO_IMAGE = {"base": _BASE, "upsample": _UPSAMPLER, "base_inpaint": _BASE, "upsample_inpaint": _UPSAMPLER}
