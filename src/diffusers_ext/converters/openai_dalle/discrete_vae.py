"""The discrete VAE of DALL-E."""

from diffusers_ext.converters.state_dicts import StateDict, check_parts, size_of
from diffusers_ext.converters.weight_mapping import Modules, load_converted
from diffusers_ext.models import DiscreteVAE


LEVELS = 4  # `group_count`, which the original's classes have no other number of


def convert_dalle_vae(state_dict: StateDict) -> DiscreteVAE:
    r"""
    The encoder and the decoder of https://github.com/openai/DALL-E (Ramesh et al. 2021,
    https://huggingface.co/papers/2102.12092).

    Args:
        state_dict (`Mapping`):
            The tensors of both, with `encoder.` and `decoder.` before their names.

    Returns:
        [`DiscreteVAE`]: in eval mode, in float32.

    Raises:
        ValueError: if tensors are missing, unknown or have wrong shapes.
    """
    check_parts(state_dict, "the pair of DALL-E's networks", "encoder.blocks", "decoder.blocks")
    renamed = {f"{key[:-2]}.{'weight' if key.endswith('.w') else 'bias'}": value for key, value in state_dict.items()}
    blocks = sum(f"encoder.blocks.group_1.block_{i}.res_path.conv_1.weight" in renamed for i in range(1, 100))
    config = {
        "in_channels": size_of(renamed, {"encoder.blocks.input.weight": 1}),
        "num_embeddings": size_of(renamed, {"encoder.blocks.output.conv.weight": 0, "decoder.blocks.input.weight": 1}),
        "hidden_channels": size_of(renamed, {"encoder.blocks.input.weight": 0}),
        "init_channels": size_of(renamed, {"decoder.blocks.input.weight": 0}),
        "layers_per_block": blocks,
        "num_downsamples": LEVELS - 1,
    }
    modules: Modules = {}
    for part in ("encoder", "decoder"):
        modules |= {f"{part}.blocks.input": f"{part}.conv_in", f"{part}.blocks.output.conv": f"{part}.conv_out"}
        for level in range(LEVELS):
            for block in range(blocks):
                source = f"{part}.blocks.group_{level + 1}.block_{block + 1}"
                target = f"{part}.levels.{level}.{block}"
                modules[f"{source}.id_path"] = f"{target}.shortcut"
                modules |= {f"{source}.res_path.conv_{i + 1}": f"{target}.convs.{i}" for i in range(4)}
    return load_converted(DiscreteVAE, config, modules, renamed)
