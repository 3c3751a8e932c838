"""The published checkpoints, by their file names: the arguments that the repositories' READMEs give for them.

A preset holds the arguments of the original's network and of its diffusion process. The READMEs write attention
*resolutions* where the networks take *rates*: at 256 pixels the resolutions 32, 16 and 8 are the rates 8, 16 and 32.
"""

# The scripts' `channel_mult` by the size of the images, if no flag gives it.
CHANNEL_MULT = {
    32: (1, 2, 2, 2),
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}


def _unet(image_size: int, attention_resolutions: tuple[int, ...], **arguments) -> dict:
    return {
        "image_size": image_size,
        "in_channels": 3,
        "out_channels": 6,
        "num_res_blocks": 2,
        "channel_mult": CHANNEL_MULT[image_size],
        "attention_resolutions": tuple(image_size // resolution for resolution in attention_resolutions),
        "num_classes": None,
        "dropout": 0.0,
        "use_scale_shift_norm": True,
        "diffusion_steps": 1000,
        "noise_schedule": "linear",
        "rescale_timesteps": False,
        **arguments,
    }


def _guided(image_size: int, attention_resolutions: tuple[int, ...] = (32, 16, 8), **arguments) -> dict:
    defaults = {"model_channels": 256, "num_classes": 1000, "resblock_updown": True, "use_new_attention_order": False}
    return _unet(image_size, attention_resolutions, **{**defaults, **arguments})


def _improved(image_size: int, **arguments) -> dict:
    defaults = {"model_channels": 128, "num_res_blocks": 3, "num_heads": 4, "attention_resolutions": (16, 8)}
    defaults |= {"diffusion_steps": 4000, "noise_schedule": "cosine", "rescale_timesteps": True}
    return _unet(image_size, **{**defaults, **arguments})


def _classifier(image_size: int, num_res_blocks: int = 2) -> dict:
    return {
        "image_size": image_size,
        "in_channels": 3,
        "model_channels": 128,
        "out_channels": 1000,
        "num_res_blocks": num_res_blocks,
        "channel_mult": CHANNEL_MULT[image_size],
        "attention_resolutions": tuple(image_size // resolution for resolution in (32, 16, 8)),
        "num_head_channels": 64,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        "pool": "attention",
    }


_GUIDED_LSUN = {"num_classes": None, "num_head_channels": 64, "dropout": 0.1}
_IMPROVED_LSUN = {
    "num_res_blocks": 2,
    "num_heads": 1,
    "use_scale_shift_norm": False,
    "attention_resolutions": (16,),
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "rescale_timesteps": False,
}

GUIDED_UNETS = {
    "64x64_diffusion": _guided(
        64,
        model_channels=192,
        num_res_blocks=3,
        num_head_channels=64,
        dropout=0.1,
        use_new_attention_order=True,
        noise_schedule="cosine",
    ),
    "128x128_diffusion": _guided(128, num_heads=4),
    "256x256_diffusion": _guided(256, num_head_channels=64),
    "256x256_diffusion_uncond": _guided(256, num_head_channels=64, num_classes=None),
    "512x512_diffusion": _guided(512, num_head_channels=64),
    "64_256_upsampler": _guided(256, model_channels=192, num_heads=4),
    "128_512_upsampler": _guided(
        512, (32, 16), model_channels=192, num_head_channels=64, channel_mult=CHANNEL_MULT[256]
    ),
    "lsun_bedroom": _guided(256, **_GUIDED_LSUN),
    "lsun_cat": _guided(256, **_GUIDED_LSUN),
    "lsun_horse": _guided(256, **_GUIDED_LSUN),
    "lsun_horse_nodropout": _guided(256, **{**_GUIDED_LSUN, "dropout": 0.0}),
}
CLASSIFIERS = {
    "64x64_classifier": _classifier(64, num_res_blocks=4),
    "128x128_classifier": _classifier(128),
    "256x256_classifier": _classifier(256),
    "512x512_classifier": _classifier(512),
}
IMPROVED_UNETS = {
    "imagenet64_uncond_100M_1500K": _improved(64),
    "imagenet64_uncond_vlb_100M_1500K": _improved(64),
    "imagenet64_cond_270M_250K": _improved(64, model_channels=192, num_classes=1000, rescale_timesteps=False),
    "cifar10_uncond_50M_500K": _improved(32, dropout=0.3),
    "cifar10_uncond_vlb_50M_500K": _improved(32, dropout=0.3),
    "upsample_cond_500K": _improved(
        256,
        model_channels=192,
        num_res_blocks=2,
        num_classes=1000,
        noise_schedule="linear",
        rescale_timesteps=False,
    ),
    "lsun_uncond_100M_1200K_bs128": _improved(256, **_IMPROVED_LSUN),
    "lsun_uncond_100M_2400K_bs64": _improved(256, **_IMPROVED_LSUN),
}
