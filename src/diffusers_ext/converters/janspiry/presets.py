"""The published checkpoints, named after their configurations, as their files are named after the training's progress.

A preset holds the arguments in the repositories' READMEs and configuration files.
"""


def _palette(task: str, image_size: int = 256) -> dict:
    return {
        "module_name": "guided_diffusion",
        "image_size": image_size,
        "in_channel": 6,
        "out_channel": 3,
        "inner_channel": 64,
        "channel_mults": (1, 2, 4, 8),
        "attn_res": (16,),  # meant as 16 x 16 pixels, but the network takes rates, and no level has the rate 16
        "num_head_channels": 32,
        "res_blocks": 2,
        "dropout": 0.2,
        "use_new_attention_order": False,
        "schedule": "linear",
        "n_timestep": 1000,
        "linear_start": 1e-4,
        "linear_end": 0.09,
        "task": task,
    }


_SR3 = {
    "which_model_G": "sr3",
    "image_size": 128,
    "in_channel": 6,
    "out_channel": 3,
    "inner_channel": 64,
    "norm_groups": 32,
    "channel_multiplier": (1, 2, 4, 8, 8),
    "attn_res": (16,),
    "res_blocks": 2,
    "dropout": 0.2,
    "conditional": True,
    "schedule": "linear",
    "n_timestep": 2000,
    "linear_start": 1e-6,
    "linear_end": 1e-2,
}
_DDPM = {
    **_SR3,
    "which_model_G": "ddpm",
    "channel_multiplier": (1, 1, 2, 2, 4, 4),
    "linear_start": 1e-4,
    "linear_end": 2e-2,
}
_UNCONDITIONAL = {"in_channel": 3, "conditional": False}

PALETTES = {
    "inpainting_celebahq": _palette("inpainting"),
    "inpainting_places2": _palette("inpainting"),
    "uncropping_places2": _palette("uncropping"),
    "colorization_mirflickr25k": _palette("colorization", image_size=224),
}
SR3S = {
    "sr_sr3_16_128": {**_SR3, "l_resolution": 16},
    "sr_sr3_64_512": {
        **_SR3,
        "image_size": 512,
        "norm_groups": 16,
        "channel_multiplier": (1, 2, 4, 8, 16),
        "attn_res": (),
        "res_blocks": 1,
        "dropout": 0.0,
        "l_resolution": 64,
    },
    "sr_ddpm_16_128": {**_DDPM, "l_resolution": 16},
    "sample_sr3_128": {**_SR3, **_UNCONDITIONAL},
    "sample_ddpm_128": {**_DDPM, **_UNCONDITIONAL},
}
