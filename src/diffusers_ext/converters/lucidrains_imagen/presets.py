"""The predefined networks of imagen-pytorch, which follow appendix B of the paper."""

_SUPER_RESOLVER = {
    "dim": 128,
    "dim_mults": (1, 2, 4, 8),
    "num_resnet_blocks": (2, 4, 8, 8),
    "layer_cross_attns": (False, False, False, True),
    "attn_heads": 8,
    "memory_efficient": True,
}
PRESETS = {
    "BaseUnet64": {
        "dim": 512,
        "dim_mults": (1, 2, 3, 4),
        "num_resnet_blocks": 3,
        "layer_attns": (False, True, True, True),
        "layer_cross_attns": (False, True, True, True),
        "attn_heads": 8,
        "memory_efficient": False,
    },
    "SRUnet256": {**_SUPER_RESOLVER, "layer_attns": (False, False, False, True)},
    "SRUnet1024": {**_SUPER_RESOLVER, "layer_attns": False},
}
