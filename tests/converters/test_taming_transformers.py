"""The transformers of VQGAN: the original's logits and draws, a whole checkpoint, refusals."""

import pytest
import torch
import torch.nn.functional as F

from diffusers_ext import TokensToImagePipeline
from diffusers_ext.converters import convert_checkpoint, convert_net2net, convert_taming_transformer
from tests.converters.cases import assert_near, assert_refused, load_case
from tests.converters.originals import first_stage_shapes, random


CASE = load_case("taming_transformer", "class_conditional")
OPTIONS = {"n_head": 2, "n_classes": 10}
STAGE = random(first_stage_shapes(width=32, ch_mult=[1, 2], num_res_blocks=1, z_channels=4, embed_dim=4, n_embed=12))


def checkpoint(**others: torch.Tensor) -> dict[str, torch.Tensor]:
    """What `Net2NetTransformer.state_dict()` returns."""
    stage = {f"first_stage_model.{key}": tensor for key, tensor in STAGE.items()}
    return {**{f"transformer.{key}": tensor for key, tensor in CASE.weights.items()}, **stage, **others}


@torch.no_grad()
def test_logits_and_loss_are_the_originals():
    model, codes = convert_taming_transformer(CASE.weights, **OPTIONS), CASE.outputs["z_indices"]
    sequence = torch.cat([CASE.inputs["class_index"][:, None] + 12, codes], dim=1)
    logits = model(sequence[:, :-1]).logits[:, :, :12]
    assert_near(logits, CASE.outputs["logits"])
    assert_near(F.cross_entropy(logits.flatten(0, 1), codes.flatten()), CASE.outputs["loss"])


@pytest.mark.parametrize("use_cache", [True, False])
def test_draws_are_the_originals(use_cache):
    pipe, seen = convert_net2net(checkpoint(), **OPTIONS, resolution=8), []
    pipe.set_progress_bar_config(disable=True)

    def draw(**options) -> torch.Tensor:
        pipe(
            class_labels=CASE.inputs["class_index"],
            use_cache=use_cache,
            output_type="pt",
            callback_on_step_end=lambda pipe, row, timestep, tensors: seen.append(tensors["tokens"].clone()),
            **options,
        )
        return seen[-1]

    latents = CASE.inputs["uniforms"].T[:, None].contiguous()
    config = CASE.config
    drawn = draw(latents=latents, top_k=config["top_k"], temperature=config["temperature"])
    assert torch.equal(drawn, CASE.outputs["sampled"])
    assert torch.equal(draw(top_k=1), CASE.outputs["greedy"])


def test_a_checkpoint_becomes_a_pipeline(tmp_path):
    torch.save({"state_dict": checkpoint()}, tmp_path / "net2net.ckpt")
    options = {"resolution": 8, **OPTIONS}
    names = {label: f"class {label}" for label in range(10)}
    written = convert_checkpoint(
        tmp_path / "net2net.ckpt", tmp_path / "out", "taming_transformer", None, names, **options
    )
    assert written == f"TokensToImagePipeline in {tmp_path / 'out'}"
    pipe = TokensToImagePipeline.from_pretrained(tmp_path / "out")
    assert pipe(class_labels=["class 3"], output_type="pt").images.shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match="`id2label`"):
        convert_checkpoint(tmp_path / "net2net.ckpt", tmp_path / "no", "taming_transformer", None, {0: "a"}, **options)


def test_a_start_token_stands_before_codes_without_classes():
    pipe = convert_net2net(checkpoint(), n_head=2, n_classes=1, resolution=8)
    assert pipe(batch_size=2, output_type="pt").images.shape == (2, 3, 8, 8)
    assert torch.equal(pipe.transformer.transformer.wte.weight[12], CASE.weights["tok_emb.weight"][0])


def test_refusals():
    mask = torch.ones(1, 1, 16, 16)
    assert_refused(convert_taming_transformer, {**CASE.weights, "blocks.0.attn.mask": mask}, OPTIONS, "see each other")
    assert_refused(convert_taming_transformer, CASE.weights, {"n_head": 3, "n_classes": 10}, "`n_head` must divide")
    assert_refused(convert_taming_transformer, CASE.weights, {"n_head": 2}, "`n_classes` must be at most 12")
    without = {key: tensor for key, tensor in CASE.weights.items() if key != "blocks.1.attn.key.weight"}
    assert_refused(convert_taming_transformer, without, OPTIONS, "missing: blocks.1.attn.qkv.weight")
    permuted = checkpoint(**{"permuter.forward_shuffle_idx": torch.arange(16)})
    assert_refused(convert_net2net, permuted, OPTIONS, "are permuted")
    assert_refused(convert_net2net, checkpoint(), OPTIONS, "`transformer` has 16 positions, but needs")
