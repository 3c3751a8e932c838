"""The published checkpoints: what their repositories' READMEs and configurations say of them.

A preset is named as its file is, without the ending, or for Palette and SR3, whose files are named after the progress
of the training, as its configuration is. It holds the arguments of the original's network and of its diffusion
process. OpenAI's READMEs speak of attention *resolutions*, and the networks take *rates*: at 256 pixels the
resolutions 32, 16 and 8 are the rates 8, 16 and 32.
"""

# By the size of the images: the scripts' `channel_mult` where no flag gives it.
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


def _adm(image_size: int, attention_resolutions: tuple[int, ...] = (32, 16, 8), **arguments) -> dict:
    defaults = {"model_channels": 256, "num_classes": 1000, "resblock_updown": True, "use_new_attention_order": False}
    return _unet(image_size, attention_resolutions, **{**defaults, **arguments})


def _iddpm(image_size: int, **arguments) -> dict:
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


_LSUN = {"num_classes": None, "num_head_channels": 64, "dropout": 0.1}
_IDDPM_LSUN = {
    "num_res_blocks": 2,
    "num_heads": 1,
    "use_scale_shift_norm": False,
    "attention_resolutions": (16,),
    "diffusion_steps": 1000,
    "noise_schedule": "linear",
    "rescale_timesteps": False,
}
_LDM_VQ = {
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


def _palette(task: str, image_size: int = 256) -> dict:
    return {
        "module_name": "guided_diffusion",
        "image_size": image_size,
        "in_channel": 6,
        "out_channel": 3,
        "inner_channel": 64,
        "channel_mults": (1, 2, 4, 8),
        "attn_res": (16,),  # the README's 16 x 16 pixels, but the network takes rates, and has none of 16
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
_SR3_DDPM = {
    **_SR3,
    "which_model_G": "ddpm",
    "channel_multiplier": (1, 1, 2, 2, 4, 4),
    "linear_start": 1e-4,
    "linear_end": 2e-2,
}
_SR3_SAMPLE = {"in_channel": 3, "conditional": False}

PRESETS = {
    "guided_diffusion": {
        "64x64_diffusion": _adm(
            64,
            model_channels=192,
            num_res_blocks=3,
            num_head_channels=64,
            dropout=0.1,
            use_new_attention_order=True,
            noise_schedule="cosine",
        ),
        "128x128_diffusion": _adm(128, num_heads=4),
        "256x256_diffusion": _adm(256, num_head_channels=64),
        "256x256_diffusion_uncond": _adm(256, num_head_channels=64, num_classes=None),
        "512x512_diffusion": _adm(512, num_head_channels=64),
        "64_256_upsampler": _adm(256, model_channels=192, num_heads=4),
        "128_512_upsampler": _adm(
            512, (32, 16), model_channels=192, num_head_channels=64, channel_mult=CHANNEL_MULT[256]
        ),
        "lsun_bedroom": _adm(256, **_LSUN),
        "lsun_cat": _adm(256, **_LSUN),
        "lsun_horse": _adm(256, **_LSUN),
        "lsun_horse_nodropout": _adm(256, **{**_LSUN, "dropout": 0.0}),
    },
    "guided_diffusion_classifier": {
        "64x64_classifier": _classifier(64, num_res_blocks=4),
        "128x128_classifier": _classifier(128),
        "256x256_classifier": _classifier(256),
        "512x512_classifier": _classifier(512),
    },
    "improved_diffusion": {
        "imagenet64_uncond_100M_1500K": _iddpm(64),
        "imagenet64_uncond_vlb_100M_1500K": _iddpm(64),
        "imagenet64_cond_270M_250K": _iddpm(64, model_channels=192, num_classes=1000, rescale_timesteps=False),
        "cifar10_uncond_50M_500K": _iddpm(32, dropout=0.3),
        "cifar10_uncond_vlb_50M_500K": _iddpm(32, dropout=0.3),
        "upsample_cond_500K": _iddpm(
            256,
            model_channels=192,
            num_res_blocks=2,
            num_classes=1000,
            noise_schedule="linear",
            rescale_timesteps=False,
        ),
        "lsun_uncond_100M_1200K_bs128": _iddpm(256, **_IDDPM_LSUN),
        "lsun_uncond_100M_2400K_bs64": _iddpm(256, **_IDDPM_LSUN),
    },
    "latent_diffusion": {
        "ffhq256": _LDM_VQ,
        "celeba256": _LDM_VQ,
        "lsun_beds256": _LDM_VQ,
        "lsun_churches256": {
            **_LDM_VQ,
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
    },
    "palette": {
        "inpainting_celebahq": _palette("inpainting"),
        "inpainting_places2": _palette("inpainting"),
        "uncropping_places2": _palette("uncropping"),
        "colorization_mirflickr25k": _palette("colorization", image_size=224),
    },
    "sr3": {
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
        "sr_ddpm_16_128": {**_SR3_DDPM, "l_resolution": 16},
        "sample_sr3_128": {**_SR3, **_SR3_SAMPLE},
        "sample_ddpm_128": {**_SR3_DDPM, **_SR3_SAMPLE},
    },
    "vqgan": {
        "vqgan_imagenet_f16_1024": {**_VQGAN, "n_embed": 1024},
        "vqgan_imagenet_f16_16384": {**_VQGAN, "n_embed": 16384},
    },
}
