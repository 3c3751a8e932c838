"""DiT: the forward pass of the paper on the original's tensors, and what is refused."""

import math
from argparse import Namespace

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from diffusers_ext.converters import convert_checkpoint, convert_dit
from diffusers_ext.models import ExactDiTTransformer2DModel
from diffusers_ext.pipelines import ClassConditionalPipeline
from diffusers_ext.schedulers import ExactDDPMScheduler
from tests.converters.cases import assert_refused
from tests.converters.originals import dit_shapes, layer, random


ARGS = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "hidden_size": 24,
    "depth": 2,
    "num_classes": 5,
    "learn_sigma": True,
}
NUM_HEADS = 3


def sinusoids(values: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sines and cosines of values `(N,)` times the frequencies 10000^(-2i / width): each `(N, width / 2)`."""
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    angles = values[:, None] * frequencies  # in float32, as in the original: 999 radians have an error of 3e-5
    return angles.sin(), angles.cos()


def positions(grid_size: int, width: int) -> torch.Tensor:
    """Half of the channels say the column of a patch, the other half its row."""
    rows, columns = torch.meshgrid(torch.arange(grid_size), torch.arange(grid_size), indexing="ij")
    halves = [torch.cat(sinusoids(axis.flatten(), width // 2), dim=1) for axis in (columns, rows)]
    return torch.cat(halves, dim=1)[None]


def checkpoint(**changes) -> dict[str, torch.Tensor]:
    args = ARGS | changes
    weights = random(dit_shapes(args))
    weights["pos_embed"] = positions(args["input_size"] // args["patch_size"], args["hidden_size"])
    return weights


def paper(weights: dict, num_heads: int, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The forward pass of Peebles & Xie 2023 (section 3.2, figure 3) with adaLN-Zero blocks."""

    def linear(name, values):
        return F.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def modulated(values, shift, scale):
        return F.layer_norm(values, values.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    def attention(name, values):
        query, key, value = (part.unflatten(2, (num_heads, -1)) for part in linear(f"{name}.qkv", values).chunk(3, 2))
        logits = torch.einsum("nqhc,nkhc->nhqk", query, key) / query.shape[-1] ** 0.5
        return linear(f"{name}.proj", torch.einsum("nhqk,nkhc->nqhc", logits.softmax(-1), value).flatten(2))

    patch_size = weights["x_embedder.proj.weight"].shape[-1]
    patches = F.unfold(x, patch_size, stride=patch_size).mT
    tokens = F.linear(patches, weights["x_embedder.proj.weight"].flatten(1), weights["x_embedder.proj.bias"])
    tokens = tokens + weights["pos_embed"]
    sine, cosine = sinusoids(t, 256)
    embedded = linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", torch.cat([cosine, sine], 1))))
    condition = F.silu(embedded + weights["y_embedder.embedding_table.weight"][y])
    depth = sum(name.endswith("attn.qkv.bias") for name in weights)
    for block in (f"blocks.{i}" for i in range(depth)):
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = linear(f"{block}.adaLN_modulation.1", condition).chunk(
            6, 1
        )
        tokens = tokens + gate[:, None] * attention(f"{block}.attn", modulated(tokens, shift, scale))
        hidden = F.gelu(linear(f"{block}.mlp.fc1", modulated(tokens, mlp_shift, mlp_scale)), approximate="tanh")
        tokens = tokens + mlp_gate[:, None] * linear(f"{block}.mlp.fc2", hidden)
    shift, scale = linear("final_layer.adaLN_modulation.1", condition).chunk(2, 1)
    outputs = linear("final_layer.linear", modulated(tokens, shift, scale))
    # a token holds a patch as rows, columns, channels, and F.fold wants channels first
    outputs = outputs.unflatten(2, (patch_size**2, -1)).transpose(2, 3).flatten(2).mT
    return F.fold(outputs, x.shape[-2:], patch_size, stride=patch_size)


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"patch_size": 4, "depth": 1}, {"learn_sigma": False, "in_channels": 3}])
def test_forward_pass_of_the_paper(changes):
    weights = checkpoint(**changes)
    model = convert_dit(weights, num_heads=NUM_HEADS, **ARGS | changes)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((3, model.config.in_channels, 8, 8), generator=generator)
    t, y = torch.tensor([0, 417, 999]), torch.tensor([5, 0, 3])
    expected = paper(weights, NUM_HEADS, x, t, y)
    output = model(x, t, y).sample
    assert output.shape == expected.shape
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)


def test_a_checkpoint_becomes_components(tmp_path):
    torch.save(checkpoint(), tmp_path / "dit.pt")
    convert_checkpoint(tmp_path / "dit.pt", tmp_path / "out", "dit", num_heads=NUM_HEADS)
    model = ExactDiTTransformer2DModel.from_pretrained(tmp_path / "out" / "unet")
    torch.testing.assert_close(model.pos_embed.pos_embed, checkpoint()["pos_embed"])
    scheduler = ExactDDPMScheduler.from_pretrained(tmp_path / "out" / "scheduler")
    assert scheduler.config.variance_type == "learned_range" and not scheduler.config.clip_sample


def test_with_an_autoencoder_it_becomes_a_pipeline(tmp_path):
    """The averaged weights of a checkpoint of the training script."""
    AutoencoderKL(
        block_out_channels=(4, 4),
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    ).save_pretrained(tmp_path / "vae")
    content = {"model": random(dit_shapes(ARGS), seed=2), "ema": checkpoint(), "args": Namespace(model="DiT-S/2")}
    torch.save(content, tmp_path / "0400000.pt")
    options = {"num_heads": NUM_HEADS, "vae": str(tmp_path / "vae")}
    convert_checkpoint(tmp_path / "0400000.pt", tmp_path / "out", "dit", **options)
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    assert torch.equal(pipe.unet.pos_embed.proj.weight, checkpoint()["x_embedder.proj.weight"])
    assert pipe.config.null_class_label == 5 and pipe.config.default_num_inference_steps == 250
    images = pipe([0, 3], num_inference_steps=2, guidance_scale=2.0, output_type="np").images
    assert images.shape == (2, 16, 16, 3)


def test_names_of_classes_need_a_pipeline(tmp_path):
    torch.save(checkpoint(), tmp_path / "dit.pt")
    with pytest.raises(ValueError, match="`id2label` names the classes of a pipeline, and without"):
        convert_checkpoint(tmp_path / "dit.pt", tmp_path / "out", "dit", id2label={0: "a"}, num_heads=NUM_HEADS)


@pytest.mark.parametrize(
    "weights, options, message",
    [
        (random(layer("fc1", 2, 2)), {"num_heads": 3}, "not a DiT: it has no x_embedder; its tensors are fc1.weight"),
        (checkpoint(), {}, "does not show its `num_heads`"),
        (checkpoint(), {"num_heads": 5}, "`num_heads` must divide the 24 channels, but is 5"),
        (checkpoint(), {"num_heads": 3, "depth": 12}, "`depth` is given as 12, but the checkpoint has 2"),
        (checkpoint(), {"num_heads": 3, "input_size": 32}, "`input_size` is given as 32, but the checkpoint has 8"),
        (checkpoint(), {"num_heads": 3, "num_classes": 6}, "`num_classes` is given as 6, but the checkpoint has 5"),
        (random(dit_shapes(ARGS)), {"num_heads": 3}, "pos_embed does not hold DiT's sinusoids"),
        (checkpoint() | random(layer("other", 2)), {"num_heads": 3}, "2 unknown: other.weight, other.bias"),
    ],
)
def test_refusals(weights, options, message):
    assert_refused(convert_dit, weights, options, message)


def test_missing_tensors_are_listed_by_their_original_names():
    weights = checkpoint()
    del weights["t_embedder.mlp.2.bias"], weights["blocks.1.mlp.fc1.weight"]
    message = "2 missing: t_embedder.mlp.2.bias, blocks.1.mlp.fc1.weight"
    assert_refused(convert_dit, weights, {"num_heads": 3}, message)
