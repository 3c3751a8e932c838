"""The published checkpoints, by their file names, and the networks of the paper (table 1), by the original's names."""

# Depth, width and number of heads.
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}


def _dit(size: str, patch_size: int, **arguments) -> dict:
    depth, hidden_size, num_heads = SIZES[size]
    sizes = {"depth": depth, "hidden_size": hidden_size, "num_heads": num_heads, "patch_size": patch_size}
    return {**sizes, **arguments}


_PUBLISHED = {"in_channels": 4, "num_classes": 1000, "learn_sigma": True}

DITS = {
    "DiT-XL-2-256x256": _dit("XL", 2, input_size=32, **_PUBLISHED),
    "DiT-XL-2-512x512": _dit("XL", 2, input_size=64, **_PUBLISHED),
    **{f"DiT-{size}/{patch_size}": _dit(size, patch_size) for size in SIZES for patch_size in (2, 4, 8)},
}
