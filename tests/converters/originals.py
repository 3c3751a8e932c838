"""State dicts of the originals, of any size: names and shapes, by the arguments of the original constructors.

They follow the original constructors block by block, and use nothing of the converters.
"""

from collections.abc import Sequence

import torch


def unet_shapes(args: dict) -> dict[str, tuple[int, ...]]:
    """`UNetModel` of the three repositories, or with twice the `in_channels` their `SuperResModel`."""
    model_channels, channel_mult, n = args["model_channels"], args["channel_mult"], args["num_res_blocks"]
    shapes, skips, channels, rate = encoder_shapes(args)
    if args.get("num_classes") is not None:
        shapes["label_emb.weight"] = (args["num_classes"], 4 * model_channels)
    block = 0
    for level in reversed(range(len(channel_mult))):
        for i in range(n + 1):
            name = f"output_blocks.{block}"
            width = int(channel_mult[level] * model_channels)
            shapes |= resblock(f"{name}.0", channels + skips.pop(), width, args)
            channels, position = width, 1
            if rate in args["attention_resolutions"]:
                shapes |= attention(f"{name}.1", channels, args)
                position = 2
            if level > 0 and i == n:
                if args.get("resblock_updown"):
                    shapes |= resblock(f"{name}.{position}", channels, channels, args)
                else:
                    shapes |= layer(f"{name}.{position}.conv", channels, channels, 3, 3)
                rate //= 2
            block += 1
    return shapes | layer("out.0", channels) | layer("out.2", args["out_channels"], channels, 3, 3)


def classifier_shapes(args: dict) -> dict[str, tuple[int, ...]]:
    """`EncoderUNetModel` of guided-diffusion."""
    shapes, skips, channels, rate = encoder_shapes(args)
    classes, features = args["out_channels"], sum(skips) + channels
    if args["pool"] == "adaptive":
        return shapes | layer("out.0", channels) | layer("out.3", classes, channels, 1, 1)
    if args["pool"] == "spatial":
        return shapes | layer("out.0", 2048, features) | layer("out.2", classes, 2048)
    if args["pool"] == "spatial_v2":
        return shapes | layer("out.0", 2048, features) | layer("out.1", 2048) | layer("out.3", classes, 2048)
    shapes |= layer("out.0", channels) | layer("out.2.qkv_proj", 3 * channels, channels, 1)
    shapes["out.2.positional_embedding"] = (channels, (args["image_size"] // rate) ** 2 + 1)
    return shapes | layer("out.2.c_proj", classes, channels, 1)


def encoder_shapes(args: dict):
    model_channels, channel_mult = args["model_channels"], args["channel_mult"]
    shapes = layer("time_embed.0", 4 * model_channels, model_channels)
    shapes |= layer("time_embed.2", 4 * model_channels, 4 * model_channels)
    channels, rate, block = int(channel_mult[0] * model_channels), 1, 1
    shapes |= layer("input_blocks.0.0", channels, args["in_channels"], 3, 3)
    skips = [channels]
    for level, factor in enumerate(channel_mult):
        for _ in range(args["num_res_blocks"]):
            width = int(factor * model_channels)
            shapes |= resblock(f"input_blocks.{block}.0", channels, width, args)
            channels = width
            if rate in args["attention_resolutions"]:
                shapes |= attention(f"input_blocks.{block}.1", channels, args)
            skips.append(channels)
            block += 1
        if level < len(channel_mult) - 1:
            if args.get("resblock_updown"):
                shapes |= resblock(f"input_blocks.{block}.0", channels, channels, args)
            else:
                shapes |= layer(f"input_blocks.{block}.0.op", channels, channels, 3, 3)
            skips.append(channels)
            block += 1
            rate *= 2
    shapes |= resblock("middle_block.0", channels, channels, args) | attention("middle_block.1", channels, args)
    return shapes | resblock("middle_block.2", channels, channels, args), skips, channels, rate


def resblock(name: str, channels: int, out_channels: int, args: dict) -> dict:
    time_channels = out_channels * (2 if args.get("use_scale_shift_norm") else 1)
    shapes = layer(f"{name}.in_layers.0", channels) | layer(f"{name}.in_layers.2", out_channels, channels, 3, 3)
    shapes |= layer(f"{name}.emb_layers.1", time_channels, 4 * args["model_channels"])
    shapes |= layer(f"{name}.out_layers.0", out_channels)
    shapes |= layer(f"{name}.out_layers.3", out_channels, out_channels, 3, 3)
    if channels != out_channels:
        shapes |= layer(f"{name}.skip_connection", out_channels, channels, 1, 1)
    return shapes


def attention(name: str, channels: int, args: dict) -> dict:
    if args.get("use_spatial_transformer"):
        return spatial_transformer(name, channels, args["transformer_depth"], args["context_dim"])
    shapes = layer(f"{name}.norm", channels) | layer(f"{name}.qkv", 3 * channels, channels, 1)
    return shapes | layer(f"{name}.proj_out", channels, channels, 1)


def spatial_transformer(name: str, channels: int, depth: int, context_dim: int) -> dict:
    """`SpatialTransformer` of latent-diffusion."""
    shapes = layer(f"{name}.norm", channels)
    for convolution in ("proj_in", "proj_out"):
        shapes |= layer(f"{name}.{convolution}", channels, channels, 1, 1)
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for part, width in (("attn1", channels), ("attn2", context_dim)):
            shapes[f"{block}.{part}.to_q.weight"] = (channels, channels)
            shapes |= {f"{block}.{part}.{key}.weight": (channels, width) for key in ("to_k", "to_v")}
            shapes |= layer(f"{block}.{part}.to_out.0", channels, channels)
        shapes |= layer(f"{block}.ff.net.0.proj", 8 * channels, channels)
        shapes |= layer(f"{block}.ff.net.2", channels, 4 * channels)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= layer(f"{block}.{norm}", channels)
    return shapes


def layer(name: str, *shape: int) -> dict:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def empty(shapes: dict) -> dict[str, torch.Tensor]:
    """Tensors without content."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def random(shapes: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors, scaled so that a network's outputs are about as large as its inputs."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) / max(1, torch.Size(shape[1:]).numel()) ** 0.5
        for name, shape in shapes.items()
    }


def palette_shapes(args: dict) -> dict[str, tuple[int, ...]]:
    """`UNet` of Palette's `guided_diffusion` module, which is that of guided-diffusion with other names."""
    args = {
        "in_channels": args["in_channel"],
        "out_channels": args["out_channel"],
        "model_channels": args["inner_channel"],
        "channel_mult": args["channel_mults"],
        "num_res_blocks": args["res_blocks"],
        "attention_resolutions": args["attn_res"],
        "use_scale_shift_norm": True,
        "resblock_updown": args.get("resblock_updown", True),
    }
    return {f"denoise_fn.{key.replace('time_embed', 'cond_embed')}": v for key, v in unet_shapes(args).items()}


def sr3_shapes(args: dict, channel_mults: list[int], kind: str = "sr3") -> dict[str, tuple[int, ...]]:
    """`UNet` of SR3, and of Palette's `sr3` module."""
    inner, height = args["inner_channel"], args["image_size"]
    embedding = {"sr3": "noise_level_mlp", "ddpm": "time_mlp"}[kind]
    shapes = layer(f"{embedding}.1", 4 * inner, inner) | layer(f"{embedding}.3", inner, 4 * inner)
    if kind == "ddpm":
        shapes["time_mlp.0.inv_freq"] = (inner // 2,)
    shapes |= layer("downs.0", inner, args["in_channel"], 3, 3)
    skips, channels, i = [inner], inner, 1
    for level, factor in enumerate(channel_mults):
        for _ in range(args["res_blocks"]):
            shapes |= sr3_block(f"downs.{i}", channels, factor * inner, inner, height in args["attn_res"], kind)
            channels = factor * inner
            skips.append(channels)
            i += 1
        if level < len(channel_mults) - 1:
            shapes |= layer(f"downs.{i}.conv", channels, channels, 3, 3)
            skips.append(channels)
            height //= 2
            i += 1
    shapes |= sr3_block("mid.0", channels, channels, inner, True, kind)
    shapes |= sr3_block("mid.1", channels, channels, inner, False, kind)
    i = 0
    for level, factor in reversed(list(enumerate(channel_mults))):
        for _ in range(args["res_blocks"] + 1):
            attention = height in args["attn_res"]
            shapes |= sr3_block(f"ups.{i}", channels + skips.pop(), factor * inner, inner, attention, kind)
            channels = factor * inner
            i += 1
        if level > 0:
            shapes |= layer(f"ups.{i}.conv", channels, channels, 3, 3)
            height *= 2
            i += 1
    shapes |= layer("final_conv.block.0", channels) | layer("final_conv.block.3", args["out_channel"], channels, 3, 3)
    return {f"denoise_fn.{key}": shape for key, shape in shapes.items()}


def sr3_block(name: str, channels: int, out_channels: int, inner: int, attention: bool, kind: str) -> dict:
    block = f"{name}.res_block"
    projection = {"sr3": "noise_func.noise_func.0", "ddpm": "mlp.1"}[kind]
    shapes = layer(f"{block}.{projection}", out_channels, inner)
    shapes |= layer(f"{block}.block1.block.0", channels)
    shapes |= layer(f"{block}.block1.block.3", out_channels, channels, 3, 3)
    shapes |= layer(f"{block}.block2.block.0", out_channels)
    shapes |= layer(f"{block}.block2.block.3", out_channels, out_channels, 3, 3)
    if channels != out_channels:
        shapes |= layer(f"{block}.res_conv", out_channels, channels, 1, 1)
    if attention:
        shapes |= layer(f"{name}.attn.norm", out_channels) | layer(
            f"{name}.attn.out", out_channels, out_channels, 1, 1
        )
        shapes[f"{name}.attn.qkv.weight"] = (3 * out_channels, out_channels, 1, 1)
    return shapes


def first_stage_shapes(
    width: int,
    ch_mult: list[int],
    num_res_blocks: int,
    z_channels: int,
    embed_dim: int,
    n_embed: int | None,
    attention: Sequence[bool] = (),
    middle_attention: bool = True,
) -> dict[str, tuple[int, ...]]:
    """`VQModel` of latent-diffusion, or its `AutoencoderKL` if `n_embed` is `None`.

    Attention runs in the middle unless `middle_attention` is false, and in the levels where `attention` is true.
    """
    doubled = 1 if n_embed else 2
    shapes = layer("encoder.conv_in", width, 3, 3, 3)
    channels = width
    for level, factor in enumerate(ch_mult):
        for i in range(num_res_blocks):
            shapes |= plain_resblock(f"encoder.down.{level}.block.{i}", channels, factor * width)
            channels = factor * width
            if any(attention[level : level + 1]):
                shapes |= plain_attention(f"encoder.down.{level}.attn.{i}", channels)
        if level < len(ch_mult) - 1:
            shapes |= layer(f"encoder.down.{level}.downsample.conv", channels, channels, 3, 3)
    for part in ("encoder", "decoder"):
        for block in ("block_1", "block_2"):
            shapes |= plain_resblock(f"{part}.mid.{block}", channels, channels)
        if middle_attention:
            shapes |= plain_attention(f"{part}.mid.attn_1", channels)
    shapes |= layer("encoder.norm_out", channels) | layer("encoder.conv_out", doubled * z_channels, channels, 3, 3)
    shapes |= layer("quant_conv", doubled * embed_dim, doubled * z_channels, 1, 1)
    if n_embed:
        shapes["quantize.embedding.weight"] = (n_embed, embed_dim)
    shapes |= layer("post_quant_conv", z_channels, embed_dim, 1, 1)
    shapes |= layer("decoder.conv_in", channels, z_channels, 3, 3)
    for level in reversed(range(len(ch_mult))):
        for i in range(num_res_blocks + 1):
            shapes |= plain_resblock(f"decoder.up.{level}.block.{i}", channels, ch_mult[level] * width)
            channels = ch_mult[level] * width
            if any(attention[level : level + 1]):
                shapes |= plain_attention(f"decoder.up.{level}.attn.{i}", channels)
        if level > 0:
            shapes |= layer(f"decoder.up.{level}.upsample.conv", channels, channels, 3, 3)
    return shapes | layer("decoder.norm_out", channels) | layer("decoder.conv_out", 3, channels, 3, 3)


def plain_resblock(name: str, channels: int, out_channels: int) -> dict:
    shapes = layer(f"{name}.norm1", channels) | layer(f"{name}.conv1", out_channels, channels, 3, 3)
    shapes |= layer(f"{name}.norm2", out_channels) | layer(f"{name}.conv2", out_channels, out_channels, 3, 3)
    return shapes | (layer(f"{name}.nin_shortcut", out_channels, channels, 1, 1) if channels != out_channels else {})


def plain_attention(name: str, channels: int) -> dict:
    shapes = layer(f"{name}.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= layer(f"{name}.{part}", channels, channels, 1, 1)
    return shapes


def dit_shapes(args: dict) -> dict[str, tuple[int, ...]]:
    """`DiT`."""
    width, patch_size, channels = args["hidden_size"], args["patch_size"], args["in_channels"]
    outputs = channels * (2 if args["learn_sigma"] else 1)
    shapes = {"pos_embed": (1, (args["input_size"] // patch_size) ** 2, width)}
    shapes |= layer("x_embedder.proj", width, channels, patch_size, patch_size)
    shapes |= layer("t_embedder.mlp.0", width, 256) | layer("t_embedder.mlp.2", width, width)
    shapes["y_embedder.embedding_table.weight"] = (args["num_classes"] + 1, width)
    for i in range(args["depth"]):
        block = f"blocks.{i}"
        shapes |= layer(f"{block}.attn.qkv", 3 * width, width) | layer(f"{block}.attn.proj", width, width)
        shapes |= layer(f"{block}.mlp.fc1", 4 * width, width) | layer(f"{block}.mlp.fc2", width, 4 * width)
        shapes |= layer(f"{block}.adaLN_modulation.1", 6 * width, width)
    shapes |= layer("final_layer.linear", patch_size**2 * outputs, width)
    return shapes | layer("final_layer.adaLN_modulation.1", 2 * width, width)
