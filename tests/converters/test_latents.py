import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, LDMPipeline, UNet2DModel, VQModel

from diffusers_ext.converters import convert_latent_diffusion
from diffusers_ext.converters.autoencoders import convert_first_stage
from diffusers_ext.converters.folders import convert_checkpoint
from tests.converters.originals import first_stage_shapes, random, unet_shapes


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
    """As `LatentDiffusion.state_dict()` has it."""
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
    with pytest.raises(ValueError, match="1 unknown: cond_stage_model.embedding.weight"):
        convert_latent_diffusion(checkpoint() | {"cond_stage_model.embedding.weight": torch.ones(2)}, **ARGS)
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
    with pytest.raises(ValueError, match="betas are of another schedule"):
        convert_checkpoint(*arguments, **options)
    assert not (tmp_path / "ldm").exists()


def test_first_stages_that_do_not_fit_are_refused():
    stage = random(first_stage_shapes(**STAGE, n_embed=7))
    convert_first_stage(stage | {"loss.discriminator.weight": torch.ones(1)})  # of its training, and left out
    del stage["decoder.up.0.block.1.conv2.bias"]
    with pytest.raises(ValueError, match="1 missing: decoder.up.0.block.1.conv2.bias"):
        convert_first_stage(stage)
    with pytest.raises(ValueError, match="no autoencoder of latent-diffusion"):
        convert_first_stage(UNET)
