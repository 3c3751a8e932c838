"""Whole latent diffusion models with all kinds of conditions: golden cases of the original, and what is refused."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LDMPipeline,
    LDMTextToImagePipeline,
    PNDMScheduler,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel
from transformers import BertTokenizer

from diffusers_ext.converters import convert_checkpoint, convert_latent_diffusion
from diffusers_ext.converters.compvis.latent_diffusion import latent_diffusion, latent_scheduler
from diffusers_ext.models import ClassEmbedder, SpatialRescaler
from diffusers_ext.pipelines import ClassConditionalPipeline, PalettePipeline
from tests.converters.cases import Case, load_case
from tests.converters.originals import first_stage_shapes, random


NETWORK_TOLERANCE = 1e-5
PATH_TOLERANCE = 1e-4  # of the largest value, because latents of untrained networks grow


def components(case: Case, **options) -> dict:
    """The converted checkpoint of a golden case, with the arguments in its configuration."""
    params = case.config["params"]
    arguments = params["unet_config"]["params"] | {"use_ema": params["use_ema"]} | options
    parts = latent_diffusion(dict(case.weights), arguments)
    return parts[""].components if "" in parts else parts


def assert_same_output(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=NETWORK_TOLERANCE)


def assert_same_path(case: Case, scheduler: DDIMScheduler, predict: Callable, noise=None, start=None) -> None:
    """DDIM visits the original's timesteps, and its latents are the original's after each step."""
    sampler = case.config["sampler"]
    scheduler.set_timesteps(sampler["S"])
    assert scheduler.timesteps.flip(0).tolist() == case.outputs["ddim_timesteps"].tolist()
    latents = case.inputs["x_T"]
    largest = max(1.0, case.outputs["trajectory"].abs().max().item())
    for i, t in enumerate(scheduler.timesteps):
        step_noise = None if noise is None else noise[i]
        noise_pred = predict(latents, t)
        latents = scheduler.step(noise_pred, t, latents, eta=sampler["eta"], variance_noise=step_noise).prev_sample
        torch.testing.assert_close(
            latents, case.outputs["trajectory"][i], rtol=0, atol=PATH_TOLERANCE * largest, msg=f"step {i}"
        )
    torch.testing.assert_close(latents, case.outputs["samples"], rtol=0, atol=PATH_TOLERANCE * largest)


def guided(unet: UNet2DConditionModel, context: torch.Tensor, null_context: torch.Tensor, scale: float) -> Callable:
    def predict(latents, t):
        conditional, unconditional = unet(
            torch.cat([latents, latents]), t, torch.cat([context, null_context])
        ).sample.chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return predict


@torch.no_grad()
@pytest.mark.parametrize("name", ["class_crossattn_vq", "class_crossattn_64_channels_no_scale_shift"])
def test_attention_to_a_class(name):
    case = load_case("latent_diffusion", name)
    parts = components(case, n_classes=11)
    unet, embedder = parts["unet"], parts["class_embedder"]
    assert type(unet) is UNet2DConditionModel and type(embedder) is ClassEmbedder
    context = embedder(case.inputs["class_label"])
    assert_same_output(context, case.outputs["context"])
    output = unet(case.inputs["x"], case.inputs["timesteps"], context).sample
    assert_same_output(output, case.outputs["model_output"])
    sampler = case.config["sampler"]
    null_context = embedder(torch.full_like(case.inputs["class_label"], sampler["null_class"]))
    predict = guided(unet, context, null_context, sampler["scale"])
    assert_same_path(case, parts["scheduler"], predict, case.inputs["noise"])


@torch.no_grad()
def test_latents_before_quantization():
    case = load_case("latent_diffusion", "class_crossattn_vq")
    vae = components(case)["vae"]
    assert type(vae) is VQModel and vae.config.scaling_factor == 1.0 and vae.config.sample_size == 16
    assert_same_output(vae.encode(case.inputs["image"]).latents, case.outputs["latent"])
    assert_same_output(vae.decode(case.outputs["samples"]).sample, case.outputs["decoded"])


@torch.no_grad()
def test_class_in_the_embedding_of_the_timestep():
    case = load_case("latent_diffusion", "class_adm")
    parts = components(case)
    assert parts.keys() == {"unet", "scheduler"}
    assert type(parts["unet"]) is UNet2DModel and parts["unet"].config.num_class_embeds == 6
    output = parts["unet"](case.inputs["x"], case.inputs["timesteps"], case.inputs["class_label"]).sample
    assert_same_output(output, case.outputs["model_output"])


@torch.no_grad()
def test_averages():
    case = load_case("latent_diffusion", "ema_layout")
    for use_ema, name in ((True, "ema_output"), (False, "model_output")):
        unet = components(case, use_ema=use_ema)["unet"]
        assert_same_output(unet(case.inputs["x"], case.inputs["timesteps"]).sample, case.outputs[name])


@torch.no_grad()
def test_inpainting():
    """The U-Net takes latents, then those of the image with black holes, then a mask that is 1 in holes, else -1."""
    case = load_case("latent_diffusion", "inpainting_concat_vq_noattn")
    parts = components(case)
    unet, vae = parts["unet"], parts["vae"]
    assert parts.keys() == {"unet", "vae", "scheduler"} and not vae.config.mid_block_add_attention
    image, mask = case.inputs["image01"], case.inputs["mask01"]
    masked_latents = vae.encode(2 * (1 - mask) * image - 1).latents
    cond = torch.cat([masked_latents, F.interpolate(2 * mask - 1, masked_latents.shape[-2:])], dim=1)
    assert_same_output(cond, case.outputs["cond"])
    output = unet(torch.cat([case.inputs["x"], cond], dim=1), case.inputs["timesteps"]).sample
    assert_same_output(output, case.outputs["model_output"])
    assert_same_path(case, parts["scheduler"], lambda latents, t: unet(torch.cat([latents, cond], dim=1), t).sample)
    decoded = vae.decode(case.outputs["samples"]).sample
    assert_same_output(decoded, case.outputs["decoded"])
    painted = (1 - mask) * image + mask * (decoded / 2 + 0.5).clamp(0, 1)
    assert_same_output(painted, case.outputs["inpainted"])


def test_a_second_copy_of_the_first_stage_is_dropped():
    case = load_case("latent_diffusion", "inpainting_concat_vq_noattn")
    stage = {key: tensor for key, tensor in case.weights.items() if key.startswith("first_stage_model.")}
    copy = {key.replace("first", "cond", 1): tensor for key, tensor in stage.items()}
    case.weights.update(copy)
    assert components(case).keys() == {"unet", "vae", "scheduler"}
    key = "cond_stage_model.encoder.conv_in.weight"
    case.weights[key] = case.weights[key] + 1
    with pytest.raises(ValueError, match="of images and of the condition differ in encoder.conv_in.weight"):
        components(case)


@torch.no_grad()
def test_semantic_synthesis():
    case = load_case("latent_diffusion", "semantic_spatial_rescaler")
    parts = components(case, n_stages=2)
    unet, conditioner = parts["unet"], parts["conditioner"]
    assert type(conditioner) is SpatialRescaler
    maps = F.one_hot(case.inputs["segmentation"].long(), 5).movedim(-1, 1).float()
    cond = conditioner(maps)
    assert_same_output(cond, case.outputs["cond"])
    output = unet(torch.cat([case.inputs["x"], cond], dim=1), case.inputs["timesteps"]).sample
    assert_same_output(output, case.outputs["model_output"])
    assert_same_path(case, parts["scheduler"], lambda latents, t: unet(torch.cat([latents, cond], dim=1), t).sample)


@torch.no_grad()
def test_super_resolution():
    case = load_case("latent_diffusion", "super_resolution_concat")
    parts = components(case)
    unet, low_res = parts["unet"], case.inputs["LR_image"]
    assert parts.keys() == {"unet", "scheduler"} and type(unet) is UNet2DModel
    output = unet(torch.cat([case.inputs["x"], low_res], dim=1), case.inputs["timesteps"]).sample
    assert_same_output(output, case.outputs["model_output"])
    noise = case.config["sampler"]["temperature"] * case.inputs["noise"]
    predict = lambda latents, t: unet(torch.cat([latents, low_res], dim=1), t).sample  # noqa: E731
    assert_same_path(case, parts["scheduler"], predict, noise)


@torch.no_grad()
def test_attention_to_text():
    case = load_case("latent_diffusion", "text_bert_crossattn")
    parts = components(case, scale_factor=0.18215)
    unet, bert = parts["unet"], parts["bert"]
    assert type(bert) is LDMBertModel
    context, null_context = (bert(case.inputs[name])[0] for name in ("tokens", "null_tokens"))
    assert_same_output(context, case.outputs["context"])
    output = unet(case.inputs["x"], case.inputs["timesteps"], context).sample
    assert_same_output(output, case.outputs["model_output"])
    predict = guided(unet, context, null_context, case.config["sampler"]["scale"])
    assert_same_path(case, parts["scheduler"], predict)


@torch.no_grad()
def test_a_text_to_image_checkpoint_makes_diffusers_pipeline(tmp_path):
    """The folders with BERT's tokenizer, which no checkpoint holds. The pipeline has texts of 77 tokens."""
    case = load_case("latent_diffusion", "text_bert_crossattn")
    first_stage = random(first_stage_shapes(32, (1, 1, 1, 1), 1, 4, 4, None, [False] * 4))
    positions = "cond_stage_model.transformer.pos_emb.emb.weight"
    weights = case.weights | {f"first_stage_model.{name}": tensor for name, tensor in first_stage.items()}
    weights[positions] = case.weights[positions][:1].repeat(77, 1)
    torch.save({"state_dict": weights}, tmp_path / "model.ckpt")
    options = {"num_heads": 8, "image_size": 8, "use_ema": False, "scale_factor": 0.18215}
    options |= {"linear_start": 0.00085, "linear_end": 0.012}
    convert_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", "latent_diffusion", **options)

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue"]))
    pipe = LDMTextToImagePipeline(
        vqvae=AutoencoderKL.from_pretrained(tmp_path / "out" / "vae"),
        bert=LDMBertModel.from_pretrained(tmp_path / "out" / "bert"),
        tokenizer=BertTokenizer(str(tmp_path / "vocab.txt")),
        unet=UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet"),
        scheduler=DDIMScheduler.from_pretrained(tmp_path / "out" / "scheduler"),
    )
    pipe.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    images = [
        pipe(text, latents=latents, num_inference_steps=2, guidance_scale=5.0).images[0] for text in ("red", "blue")
    ]
    assert images[0].size == (64, 64) and images[0] != images[1]


@torch.no_grad()
def test_unconditional():
    case = load_case("latent_diffusion", "unconditional_kl_scale_factor")
    pipe = LDMPipeline(**components(case))
    assert type(pipe.vqvae) is AutoencoderKL
    factor = pipe.vqvae.config.scaling_factor
    assert factor == pytest.approx(0.7321)
    posterior = pipe.vqvae.encode(case.inputs["image"]).latent_dist
    assert_same_output(posterior.parameters, case.outputs["moments"])
    latents = factor * (posterior.mean + posterior.std * case.inputs["posterior_noise"])
    assert_same_output(latents, case.outputs["latent"])
    assert_same_output(pipe.vqvae.decode(latents / factor).sample, case.outputs["reconstruction"])
    assert_same_path(case, pipe.scheduler, lambda latents, t: pipe.unet(latents, t).sample)
    decoded = pipe.vqvae.decode(case.outputs["samples"] / factor).sample
    assert_same_output(decoded, case.outputs["decoded"])


@torch.no_grad()
def test_unconditional_with_plms():
    """A PNDM scheduler of the same configuration is the original's PLMS sampler, which evaluates one step twice."""
    case = load_case("latent_diffusion", "unconditional_kl_scale_factor")
    pipe = LDMPipeline(**components(case))
    scheduler = PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=True)
    scheduler.set_timesteps(case.config["sampler"]["S"])
    latents, path = case.inputs["x_T"], []
    for t in scheduler.timesteps:
        latents = scheduler.step(pipe.unet(latents, t).sample, t, latents).prev_sample
        path.append(latents)
    expected = case.outputs["plms_trajectory"]
    tolerance = PATH_TOLERANCE * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(torch.stack(path[1:]), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["vq", "inpainting", "super_resolution", "text", "cosine", "sqrt_linear"])
def test_schedules(name):
    case = load_case("latent_diffusion", "schedule_tables")
    schedule, linear_start, linear_end = case.config["betas"][name]
    process = {"timesteps": 1000, "beta_schedule": schedule}
    if schedule != "cosine":
        process |= {"linear_start": linear_start, "linear_end": linear_end}
    betas = case.outputs[f"{name}.betas"]
    scheduler = latent_scheduler({"betas": betas}, dict(process))
    torch.testing.assert_close(scheduler.betas, betas, rtol=2e-5, atol=1e-7)
    torch.testing.assert_close(latent_scheduler({}, process).betas, scheduler.betas)
    other = {"beta_schedule": "cosine"} if schedule != "cosine" else {"linear_start": 1e-5}
    with pytest.raises(ValueError, match="betas do not follow|`linear_start` is given"):
        latent_scheduler({"betas": betas}, other)


@pytest.mark.parametrize("steps", [50, 200])
def test_steps_of_ddim(steps):
    case = load_case("latent_diffusion", "schedule_tables")
    scheduler = latent_scheduler({"betas": case.outputs["vq.betas"]}, {})
    torch.testing.assert_close(scheduler.alphas_cumprod, case.outputs["vq.alphas_cumprod"])
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps.flip(0)
    assert timesteps.equal(case.outputs[f"uniform_{steps}.timesteps"])
    previous = torch.cat([scheduler.final_alpha_cumprod[None], scheduler.alphas_cumprod[timesteps[:-1]]])
    torch.testing.assert_close(previous, case.outputs[f"uniform_{steps}.alphas_prev"])


def test_a_class_conditional_model_becomes_a_pipeline(tmp_path):
    case = load_case("latent_diffusion", "class_crossattn_vq")
    torch.save({"state_dict": case.weights}, tmp_path / "model.ckpt")
    arguments = (tmp_path / "model.ckpt", tmp_path / "out", "latent_diffusion")
    options = {"image_size": 8, "num_heads": 1}
    with pytest.raises(ValueError, match="`null_class_label` must be the last class, 10, but is 3"):
        convert_checkpoint(*arguments, null_class_label=3, **options)
    with pytest.raises(ValueError, match="`id2label` must name the classes from 0 to 9, but lacks"):
        convert_checkpoint(*arguments, null_class_label=10, id2label={0: "cat"}, **options)
    assert "assuming" not in convert_checkpoint(*arguments, null_class_label=10, **options)
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    assert type(pipe.unet) is UNet2DConditionModel and type(pipe.vae) is VQModel
    assert type(pipe.scheduler) is DDIMScheduler and pipe.config.null_class_label == 10
    call = {"class_labels": ["3", "9"], "num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pt"}
    images = pipe(latents=case.inputs["x_T"], **call).images

    parts = components(case)
    contexts = [parts["class_embedder"](torch.tensor(labels)) for labels in ([3, 9], [10, 10])]
    predict, latents = guided(parts["unet"], *contexts, 3.0), case.inputs["x_T"]
    parts["scheduler"].set_timesteps(2)
    with torch.no_grad():
        for t in parts["scheduler"].timesteps:
            latents = parts["scheduler"].step(predict(latents, t), t, latents).prev_sample
        expected = parts["vae"].decode(latents).sample / 2 + 0.5
    torch.testing.assert_close(images, expected.clamp(0, 1), rtol=0, atol=1e-4)


def test_a_class_in_the_timestep_becomes_a_pipeline_too(tmp_path):
    case = load_case("latent_diffusion", "class_adm")
    stage = random(first_stage_shapes(32, [1, 1], 1, z_channels=4, embed_dim=4, n_embed=None))
    weights = case.weights | {f"first_stage_model.{key}": tensor for key, tensor in stage.items()}
    torch.save(weights, tmp_path / "model.ckpt")
    arguments = (tmp_path / "model.ckpt", tmp_path / "out", "latent_diffusion")
    convert_checkpoint(*arguments, image_size=8, num_heads=2, scale_factor=0.5)
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "out")
    assert pipe.class_embedder is None and pipe.vae.config.scaling_factor == 0.5 and len(pipe.config.id2label) == 6


def test_inpainting_becomes_a_pipeline(tmp_path):
    case = load_case("latent_diffusion", "inpainting_concat_vq_noattn")
    torch.save({"state_dict": case.weights}, tmp_path / "model.ckpt")
    arguments = (tmp_path / "model.ckpt", tmp_path / "out", "latent_diffusion")
    options = {"image_size": 8, "num_heads": 8}
    with pytest.raises(ValueError, match="`cond_stage_key` is LR_image, for which the U-Net needs 6 input channels"):
        convert_checkpoint(*arguments, cond_stage_key="LR_image", **options)
    with pytest.raises(ValueError, match="not scaled in the original: `scale_factor` must be 1"):
        convert_checkpoint(*arguments, cond_stage_key="masked_image", scale_factor=0.5, **options)
    convert_checkpoint(*arguments, cond_stage_key="masked_image", **options)
    pipe = PalettePipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    call = {"image": case.inputs["image01"], "mask_image": case.inputs["mask01"], "latents": case.inputs["x_T"]}
    images = pipe(**call, num_inference_steps=5, output_type="pt").images
    assert_same_output(images, case.outputs["inpainted"])


def test_super_resolution_becomes_a_pipeline(tmp_path):
    case = load_case("latent_diffusion", "super_resolution_concat")
    stage = random(first_stage_shapes(32, [1, 1], 1, z_channels=3, embed_dim=3, n_embed=16))
    weights = case.weights | {f"first_stage_model.{key}": tensor for key, tensor in stage.items()}
    torch.save(weights, tmp_path / "model.ckpt")
    arguments = (tmp_path / "model.ckpt", tmp_path / "out", "latent_diffusion")
    convert_checkpoint(*arguments, image_size=8, num_head_channels=32, cond_stage_key="LR_image")
    pipe = PalettePipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    assert list(pipe.config.tasks) == ["super_resolution"] and pipe.config.default_scale_factor == 2
    images = pipe(case.inputs["LR_image"] / 2 + 0.5, num_inference_steps=2, output_type="pt").images
    assert images.shape == (2, 3, 16, 16)


def test_semantic_synthesis_becomes_a_pipeline(tmp_path):
    case = load_case("latent_diffusion", "semantic_spatial_rescaler")
    stage = random(first_stage_shapes(32, [1, 1, 1], 1, z_channels=3, embed_dim=3, n_embed=16))
    weights = case.weights | {f"first_stage_model.{key}": tensor for key, tensor in stage.items()}
    torch.save(weights, tmp_path / "model.ckpt")
    arguments = (tmp_path / "model.ckpt", tmp_path / "out", "latent_diffusion")
    options = {"image_size": 8, "num_heads": 8}
    with pytest.raises(ValueError, match="`n_stages` is 1, but the first stage halves images 2 times"):
        convert_checkpoint(*arguments, n_stages=1, **options)
    convert_checkpoint(*arguments, n_stages=2, **options)
    pipe = PalettePipeline.from_pretrained(tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    call = {"latents": case.inputs["x_T"], "num_inference_steps": case.config["sampler"]["S"], "output_type": "pt"}
    images = pipe(list(case.inputs["segmentation"]), **call).images
    with torch.no_grad():
        expected = pipe.vae.decode(case.outputs["samples"]).sample / 2 + 0.5
    torch.testing.assert_close(images, expected.clamp(0, 1), rtol=0, atol=PATH_TOLERANCE)


def test_components_are_written_and_loaded(tmp_path):
    case = load_case("latent_diffusion", "inpainting_concat_vq_noattn")
    torch.save({"state_dict": case.weights}, tmp_path / "model.ckpt")
    options = {"image_size": 8, "num_heads": 8, "use_new_attention_order": False}
    written = convert_checkpoint(tmp_path / "model.ckpt", tmp_path / "out", "latent_diffusion", **options)
    assert "assuming" not in written
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"unet", "vae", "scheduler"}
    for name, network in (("unet", UNet2DModel), ("vae", VQModel)):
        assert type(network.from_pretrained(tmp_path / "out" / name)) is network
    assert DDIMScheduler.from_pretrained(tmp_path / "out" / "scheduler").config.beta_end == pytest.approx(0.0205)


def test_what_contradicts_the_checkpoint_is_refused():
    case = load_case("latent_diffusion", "class_crossattn_vq")
    for options, message in (
        ({"context_dim": 512}, "`context_dim` is given as 512, but the checkpoint has 24"),
        ({"transformer_depth": 2}, "`transformer_depth` is given as 2, but the checkpoint has 1"),
        ({"use_spatial_transformer": False}, "`use_spatial_transformer` is given as False, but the checkpoint"),
        ({"num_heads": 3}, "`num_heads` must divide the 32 channels"),
        ({"num_heads": -1}, "does not show how many attention heads"),
        ({"n_classes": 1000}, "`n_classes` is given as 1000, but the checkpoint has 11"),
    ):
        with pytest.raises(ValueError, match=message):
            components(case, **options)
    with pytest.raises(ValueError, match="`context_dim` must be a positive integer"):
        convert_latent_diffusion({}, context_dim=0)
    concatenated = load_case("latent_diffusion", "semantic_spatial_rescaler")
    with pytest.raises(ValueError, match="does not show its `n_stages`"):
        components(concatenated)
    with pytest.raises(ValueError, match="`context_dim` is given as 24, but the checkpoint has None"):
        components(concatenated, n_stages=2, context_dim=24)
    scaled = load_case("latent_diffusion", "unconditional_kl_scale_factor")
    with pytest.raises(ValueError, match="`scale_factor` is given as 0.5, but the checkpoint has 0.7321"):
        components(scaled, scale_factor=0.5)


def test_conditions_that_do_not_fit_are_refused():
    case = load_case("latent_diffusion", "semantic_spatial_rescaler")
    mapper = "cond_stage_model.channel_mapper.weight"
    case.weights[mapper] = torch.cat([case.weights[mapper]] * 2)
    with pytest.raises(ValueError, match="The condition has 6 channels, but the U-Net takes a condition of 3"):
        components(case, n_stages=2)
    del case.weights[mapper]
    case.weights["cond_stage_model.other.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match="cond_stage_model is neither a ClassEmbedder.* are other.weight"):
        components(case, n_stages=2)
