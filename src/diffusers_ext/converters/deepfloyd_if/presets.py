"""The published models of stage I: their sizes are the table's, 400M, 900M and 4.3B parameters."""


def _stage_1(model_channels: int) -> dict:
    return {
        "image_size": 64,
        "in_channels": 3,
        "out_channels": 6,
        "model_channels": model_channels,
        "num_res_blocks": 3,
        "channel_mult": [1, 2, 3, 4],
        "attention_resolutions": [32, 16, 8],
        "num_head_channels": 64,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        "activation": "gelu",
        "encoder_dim": 4096,
        "encoder_channels": 4 * model_channels,
        "att_pool_heads": 64,
        "efficient_activation": False,
        "scale_skip_connection": False,
    }


STAGE_I = {"IF-I-M-v1.0": _stage_1(192), "IF-I-L-v1.0": _stage_1(320), "IF-I-XL-v1.0": _stage_1(704)}
