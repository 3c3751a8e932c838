"""The published checkpoints, by the original's names."""

_TEXT = {"context_length": 77, "vocab_size": 49408, "transformer_layers": 12}


def _clip(
    embed_dim: int, resolution: int, layers: int | list[int], width: int, patch_size: int | None, text_width: int
) -> dict:
    return {
        "embed_dim": embed_dim,
        "image_resolution": resolution,
        "vision_layers": layers,
        "vision_width": width,
        "vision_patch_size": patch_size,
        "transformer_width": text_width,
        "transformer_heads": text_width // 64,
        **_TEXT,
    }


CLIPS = {
    "RN50": _clip(1024, 224, [3, 4, 6, 3], 64, None, 512),
    "RN101": _clip(512, 224, [3, 4, 23, 3], 64, None, 512),
    "RN50x4": _clip(640, 288, [4, 6, 10, 6], 80, None, 640),
    "RN50x16": _clip(768, 384, [6, 8, 18, 8], 96, None, 768),
    "RN50x64": _clip(1024, 448, [3, 15, 36, 10], 128, None, 1024),
    "ViT-B/32": _clip(512, 224, 12, 768, 32, 512),
    "ViT-B/16": _clip(512, 224, 12, 768, 16, 512),
    "ViT-L/14": _clip(768, 224, 24, 1024, 14, 768),
    "ViT-L/14@336px": _clip(768, 336, 24, 1024, 14, 768),
}
