"""latent-diffusion and taming-transformers: U-Nets, first stages, and the pipelines around them."""

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMPipeline, LDMPipeline, UNet2DModel, VQModel

from diffusers_ext.converters import (
    convert_checkpoint,
    convert_latent_diffusion,
    convert_latent_diffusion_first_stage,
    convert_vqgan,
)
from diffusers_ext.converters.__main__ import main
from diffusers_ext.converters.compvis.first_stage import convert_first_stage
from tests.converters.cases import assert_near, assert_refused, load_case, save
from tests.converters.originals import first_stage_shapes, layer, random, unet_shapes


ARGS = {
    "image_size": 8,
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 3,
    "num_res_blocks": 1,
    "attention_resolutions": [2],
    "channel_mult": [1, 2],
    "num_head_channels": 16,
}
STAGE = {"width": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "z_channels": 3, "embed_dim": 3}
UNET = random(unet_shapes(ARGS))
BETAS = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64).square().float()


def checkpoint(n_embed: int | None = 7, averaged: bool = True) -> dict:
    """What `LatentDiffusion.state_dict()` returns."""
    content = {f"model.diffusion_model.{key}": tensor for key, tensor in UNET.items()}
    if averaged:
        content |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(10)}
        for key, tensor in UNET.items():
            content["model_ema.diffusion_model" + key.replace(".", "")] = tensor / 2
    first_stage = random(first_stage_shapes(**STAGE, n_embed=n_embed), seed=1)
    content |= {f"first_stage_model.{key}": tensor for key, tensor in first_stage.items()}
    return content | {
        "betas": BETAS,
        "alphas_cumprod": torch.cumprod(1 - BETAS, 0),
        "scale_factor": torch.tensor(0.25),
    }


def test_averaged_weights_are_taken_unless_refused():
    weight = UNET["input_blocks.0.0.weight"]
    averaged = convert_latent_diffusion(checkpoint(), **ARGS)
    assert torch.equal(averaged.conv_in.weight, weight / 2)
    assert torch.equal(convert_latent_diffusion(checkpoint(), use_ema=False, **ARGS).conv_in.weight, weight)
    assert torch.equal(convert_latent_diffusion(checkpoint(averaged=False), **ARGS).conv_in.weight, weight)
    assert torch.equal(convert_latent_diffusion(UNET, **ARGS).conv_in.weight, weight)


def test_missing_averages_and_unknown_parts_are_listed():
    content = checkpoint()
    del content["model_ema.diffusion_modelout2bias"]
    with pytest.raises(ValueError, match="no averages for 1 tensors: model_ema.diffusion_modelout2bias"):
        convert_latent_diffusion(content, **ARGS)
    with pytest.raises(ValueError, match="1 unknown: other_stage_model.embedding.weight"):
        convert_latent_diffusion(checkpoint() | {"other_stage_model.embedding.weight": torch.ones(2)}, **ARGS)
    for state_dict in (UNET, checkpoint(averaged=False)):
        with pytest.raises(ValueError, match="use_ema|no averages"):
            convert_latent_diffusion(state_dict, use_ema=True, **ARGS)


@pytest.mark.parametrize("n_embed, model_class", [(7, VQModel), (None, AutoencoderKL)])
def test_a_whole_checkpoint_becomes_a_pipeline(tmp_path, n_embed, model_class):
    torch.save({"state_dict": checkpoint(n_embed), "epoch": 3}, tmp_path / "model.ckpt")
    options = {"image_size": 8, "num_head_channels": 16}
    convert_checkpoint(tmp_path / "model.ckpt", tmp_path / "ldm", "latent_diffusion", **options)

    pipe = LDMPipeline.from_pretrained(tmp_path / "ldm")
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe.unet) is UNet2DModel and type(pipe.scheduler) is DDIMScheduler
    assert type(pipe.vqvae) is model_class
    assert pipe.vqvae.config.scaling_factor == 0.25 and pipe.vqvae.config.sample_size == 16
    torch.testing.assert_close(pipe.scheduler.betas, BETAS)
    images = pipe(batch_size=2, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 16, 16, 3)


def test_betas_at_odds_are_refused(tmp_path):
    torch.save(checkpoint(), tmp_path / "model.ckpt")
    arguments = (tmp_path / "model.ckpt", tmp_path / "ldm", "latent_diffusion")
    options = {"image_size": 8, "num_head_channels": 16}
    with pytest.raises(ValueError, match="`linear_end` is given as 0.0155, but the checkpoint has 0.0195"):
        convert_checkpoint(*arguments, linear_end=0.0155, **options)
    with pytest.raises(ValueError, match="`linear_start` must be a positive number, but is 'small'"):
        convert_checkpoint(*arguments, linear_start="small", **options)
    torch.save(checkpoint() | {"betas": BETAS.sqrt()}, tmp_path / "model.ckpt")
    with pytest.raises(ValueError, match="betas do not follow latent-diffusion's schedule"):
        convert_checkpoint(*arguments, **options)
    assert not (tmp_path / "ldm").exists()


def test_first_stages_that_do_not_fit_are_refused():
    stage = random(first_stage_shapes(**STAGE, n_embed=7))
    convert_first_stage(stage | {"loss.discriminator.weight": torch.ones(1)})  # of its training, and ignored
    del stage["decoder.up.0.block.1.conv2.bias"]
    with pytest.raises(ValueError, match="1 missing: decoder.up.0.block.1.conv2.bias"):
        convert_first_stage(stage)
    with pytest.raises(ValueError, match="not an autoencoder of latent-diffusion"):
        convert_first_stage(UNET)


@torch.no_grad()
def test_latent_networks_run_in_stock_classes(tmp_path):
    case = load_case("latent_diffusion_unet", "num_heads_8_scaleshift_updown")
    options = ["image_size=16", "num_heads=8", "timesteps=1000", "linear_start=0.0015", "linear_end=0.0155"]
    main([save(case, tmp_path / "m.pt"), str(tmp_path / "out"), "--family", "latent_diffusion", "--option", *options])
    unet = UNet2DModel.from_pretrained(tmp_path / "out" / "unet")
    sample = unet(case.inputs["x"], case.inputs["timesteps"]).sample
    torch.testing.assert_close(sample, case.outputs["model_output"], rtol=0, atol=1e-5)
    pipe = DDPMPipeline(unet, DDIMScheduler.from_pretrained(tmp_path / "out" / "scheduler"))
    pipe.set_progress_bar_config(disable=True)
    assert pipe(num_inference_steps=2, output_type="np").images.shape == (1, 16, 16, 4)


@torch.no_grad()
def test_vqgan():
    case = load_case("vqgan", "f4_attention")
    weights = case.weights | {"loss.discriminator.main.0.weight": torch.ones(2), "loss.logvar": torch.zeros(())}
    model = convert_vqgan(weights, n_embed=32, embed_dim=6, **case.config["ddconfig"])
    assert type(model) is VQModel and model.config.sample_size == 32
    latents = model.encode(case.inputs["x"]).latents
    quantized, _, (_, _, codes) = model.quantize(latents)
    assert_near(latents, case.outputs["pre_quant"])
    assert_near(quantized, case.outputs["quant"])
    assert codes.flatten().equal(case.outputs["indices"].flatten())
    assert_near(model(case.inputs["x"]).sample, case.outputs["reconstruction"])
    entries = model.quantize.get_codebook_entry(case.inputs["indices"], (2, 8, 8, 6))
    assert_near(model.decode(entries).sample, case.outputs["decoded_from_indices"])


def test_vqgan_becomes_a_stock_model(tmp_path):
    case = load_case("vqgan", "f4_attention")
    torch.save({"state_dict": {**case.weights, "loss.logvar": torch.zeros(())}, "epoch": 1}, tmp_path / "last.ckpt")
    written = convert_checkpoint(tmp_path / "last.ckpt", tmp_path / "out", "vqgan")
    assert "VQModel" in written and "resolution=256" in written
    assert VQModel.from_pretrained(tmp_path / "out").config.num_vq_embeddings == 32


@pytest.mark.parametrize("n_embed, model_class", [(7, VQModel), (None, AutoencoderKL)])
def test_a_first_stage_alone(tmp_path, n_embed, model_class):
    stage = random(first_stage_shapes(**STAGE, n_embed=n_embed, middle_attention=False))
    torch.save({"state_dict": stage | {"loss.logvar": torch.zeros(())}}, tmp_path / "model.ckpt")
    arguments = (tmp_path / "model.ckpt", tmp_path / "out", "latent_diffusion_first_stage")
    assert "assuming resolution=256, scale_factor=1.0" in convert_checkpoint(*arguments, attn_type="none")
    assert model_class.from_pretrained(tmp_path / "out").config.scaling_factor == 1.0
    for options, message in (
        ({"attn_type": "vanilla"}, "`attn_type` is given as vanilla, but the checkpoint has none"),
        ({"double_z": n_embed is not None}, "`double_z` is given as"),
        ({"n_embed": 8}, "`n_embed` is given as 8, but the checkpoint has"),
        ({"scale_factor": 0}, "`scale_factor` must be a positive number"),
    ):
        assert_refused(convert_latent_diffusion_first_stage, stage, options, message)
    model = convert_latent_diffusion_first_stage(stage, scale_factor=0.5, resolution=64)
    assert model.config.scaling_factor == 0.5 and model.config.sample_size == 64


def test_what_autoencoder_kl_cannot_express_is_refused():
    stage = random(first_stage_shapes(**{**STAGE, "embed_dim": 2}, n_embed=None))
    message = "`embed_dim` is 2 and `z_channels` is 3, but AutoencoderKL has one number for both"
    assert_refused(convert_latent_diffusion_first_stage, stage, {}, message)


def test_cross_attention_that_stock_cannot_express_is_refused():
    attended = {**ARGS, "use_spatial_transformer": True, "transformer_depth": 1, "context_dim": 8}
    for changed, message in (
        ({"resblock_updown": True}, "cross-attention and `resblock_updown`"),
        ({"channel_mult": [2, 2]}, "`channel_mult` must begin with 1"),
    ):
        weights = random(unet_shapes(attended | changed))
        assert_refused(convert_latent_diffusion, weights, {"num_heads": 2}, message)


@pytest.mark.parametrize(
    "shapes, options, message",
    [
        (layer("fc1", 12, 64), {}, "not a VQGAN: it has no quantize; its tensors are fc1.weight"),
        (first_stage_shapes(**STAGE, n_embed=None), {}, "not a VQGAN: it has no quantize"),
        ({"quantize.embed.weight": (2, 2)}, {}, "Gumbel softmax, but only those with a codebook are converted"),
        (first_stage_shapes(**STAGE, n_embed=7), {"n_embed": 8}, "`n_embed` is given as 8, but the"),
        (first_stage_shapes(**STAGE, n_embed=7), {"ch": 32, "ch_mult": (1, 1)}, "`ch_mult` is given"),
        (first_stage_shapes(**STAGE, n_embed=7), {"resolution": 32, "attn_resolutions": [16]}, "`attn"),
    ],
)
def test_refusals(shapes, options, message):
    assert_refused(convert_vqgan, {key: torch.zeros(shape) for key, shape in shapes.items()}, options, message)
