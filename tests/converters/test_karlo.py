"""Karlo's prior, decoder and super-resolution: the original's outputs and samples, published sizes, refusals."""

import pytest
import torch
from diffusers import ClassifierFreeGuidance, DDPMScheduler, PriorTransformer, UNet2DConditionModel
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from diffusers_ext.converters import (
    convert_checkpoint,
    convert_karlo_decoder,
    convert_karlo_prior,
    convert_karlo_super_resolution,
)
from diffusers_ext.converters.kakaobrain_karlo.decoder import karlo_decoder_scheduler
from diffusers_ext.converters.kakaobrain_karlo.presets import DECODER, PRIOR, SUPER_RESOLUTION
from diffusers_ext.converters.kakaobrain_karlo.prior import STATISTICS, karlo_prior_scheduler
from diffusers_ext.converters.kakaobrain_karlo.super_resolution import NETWORKS, karlo_super_resolution_scheduler
from diffusers_ext.models import UnCLIPConditioner
from diffusers_ext.pipelines import UnCLIPPixelPipeline, UnCLIPPriorPipeline
from diffusers_ext.pipelines.clip_embeddings import PromptEmbeddings
from diffusers_ext.pipelines.image_priors import sample_image_embeds
from diffusers_ext.schedulers import ExactDDPMScheduler
from diffusers_ext.training.text_and_image.caption_tokenizer import make_caption_tokenizer
from tests.converters.cases import Case, assert_near, assert_refused, load_case
from tests.converters.originals import attention, empty, layer, unet_shapes


HEADS = {"xf_heads": 2}
CLIP_WIDTH, TEXT_LENGTH = 20, 7  # of the cases


@pytest.fixture(scope="module")
def prior_case() -> Case:
    case = load_case("unclip_karlo", "prior")
    case.weights |= {name: case.inputs[name] for name in STATISTICS}
    return case


@pytest.fixture(scope="module")
def decoder_case() -> Case:
    return load_case("unclip_karlo", "decoder")


def assert_same_samples(trajectory: list[torch.Tensor], case: Case) -> None:
    expected = case.outputs["trajectory"]
    assert (torch.stack(trajectory).view_as(expected) - expected).abs().max() < 1e-4 * expected.abs().max()


# The original's numbers


@torch.no_grad()
def test_prior(prior_case):
    prior, inputs = convert_karlo_prior(prior_case.weights, **prior_case.config["hparams"]), prior_case.inputs
    text = [inputs[name][:2] for name in ("text_emb", "text_enc")]
    output = prior(inputs["x"], inputs["timesteps"], *text, inputs["mask"][:2].bool())
    assert_near(output.predicted_image_embedding, prior_case.outputs["prediction"])


@torch.no_grad()
def test_samples_of_the_prior(prior_case, monkeypatch):
    prior, inputs = convert_karlo_prior(prior_case.weights, **prior_case.config["hparams"]), prior_case.inputs
    text = PromptEmbeddings(inputs["text_emb"], inputs["text_enc"], inputs["mask"].bool())
    scheduler, noise, trajectory = karlo_prior_scheduler(), iter(inputs["noise"]), []
    # of the doubled batch; the second half has no effect
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: next(noise)[:2].unsqueeze(1)
    )
    make_step = scheduler.step

    def step(*args, **kwargs):
        previous = make_step(*args, **kwargs)
        trajectory.append(previous[0])
        return previous

    monkeypatch.setattr(scheduler, "step", step)
    found = sample_image_embeds(
        prior,
        scheduler,
        ClassifierFreeGuidance(guidance_scale=prior_case.config["guidance_scale"]),
        *text.split(2),
        inputs["x_T"].unsqueeze(1),
        prior_case.config["steps"],
        None,
        lambda timesteps: timesteps,
    )
    assert scheduler.timesteps.flip(0).tolist() == prior_case.outputs["sampler_timesteps"].tolist()
    assert_same_samples(trajectory, prior_case)
    expected = prior_case.outputs["image_embedding"]
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@torch.no_grad()
def test_decoder(decoder_case):
    decoder, conditioner = convert_karlo_decoder(decoder_case.weights, **decoder_case.args)
    inputs = decoder_case.inputs
    text = [inputs[name][:2] for name in ("txt_feat", "txt_feat_seq")]
    conditions = conditioner(inputs["y"], *text, inputs["mask"][:2].bool())
    assert_near(decoder(inputs["x"], inputs["timesteps"], **conditions).sample, decoder_case.outputs["model_output"])


@torch.no_grad()
def test_samples_of_the_decoder(decoder_case):
    """Without guidance's condition, it has the learned embedding and the empty prompt."""
    decoder, conditioner = convert_karlo_decoder(decoder_case.weights, **decoder_case.args)
    inputs, config, scheduler = decoder_case.inputs, decoder_case.config, karlo_decoder_scheduler()
    text = (inputs["txt_feat"], inputs["txt_feat_seq"], inputs["mask"].bool())
    conditions = conditioner(inputs["y"].repeat(2, 1), *text, torch.arange(4) >= 2)
    scheduler.set_timesteps(config["steps"])
    assert scheduler.timesteps.flip(0).tolist() == decoder_case.outputs["sampler_timesteps"].tolist()
    sample, trajectory = inputs["x_T"], []
    for t, noise in zip(scheduler.timesteps, inputs["noise"], strict=True):
        given, empty_text = decoder(sample.repeat(2, 1, 1, 1), t, **conditions).sample.chunk(2)
        epsilon = empty_text[:, :3] + config["guidance_scale"] * (given - empty_text)[:, :3]
        output = torch.cat([epsilon, given[:, 3:]], dim=1)
        sample = scheduler.step(output, t, sample, variance_noise=noise[:2]).prev_sample
        trajectory.append(sample)
    assert_same_samples(trajectory, decoder_case)


@torch.no_grad()
def test_samples_of_the_super_resolution():
    case = load_case("unclip_karlo", "improved_sr_two_networks")
    first, last = convert_karlo_super_resolution(case.weights, **case.args, image_size=16)
    scheduler, sample, trajectory = karlo_super_resolution_scheduler(), case.inputs["x_T"], []
    scheduler.set_timesteps(7)
    assert scheduler.timesteps.flip(0).tolist() == case.outputs["sampler_timesteps"].tolist()
    for i, (t, noise) in enumerate(zip(scheduler.timesteps, case.inputs["noise"], strict=True)):
        network = last if i == 6 else first
        output = network(torch.cat([sample, case.inputs["low_res"]], dim=1), t).sample
        sample = scheduler.step(output, t, sample, variance_noise=noise).prev_sample
        trajectory.append(sample)
    assert_same_samples(trajectory, case)


# The published sizes: 1B, 900M, 700M + 700M in the original's table, and exactly those of its constructors


def count(*networks) -> int:
    return sum(parameter.numel() for network in networks for parameter in network.parameters())


def prior_shapes(args: dict) -> dict:
    width, clip = args["xf_width"], args["clip_dim"]
    shapes = layer("time_embed.0", width, width) | layer("time_embed.2", width, width)
    shapes |= {"positional_embedding": (1, args["text_ctx"] + 4, width), "prd_emb": (1, 1, width)}
    shapes |= layer("final_ln", width) | layer("out_proj", clip, width) | {name: (clip,) for name in STATISTICS}
    for name in ("text_enc_proj", "text_emb_proj", "clip_img_proj"):
        shapes |= layer(name, width, clip)
    for block in (f"transformer.resblocks.{i}" for i in range(args["xf_layers"])):
        shapes |= layer(f"{block}.attn.c_qkv", 3 * width, width) | layer(f"{block}.attn.c_proj", width, width)
        shapes |= layer(f"{block}.mlp.c_fc", 4 * width, width) | layer(f"{block}.mlp.c_proj", width, 4 * width)
        shapes |= layer(f"{block}.ln_1", width) | layer(f"{block}.ln_2", width)
    return shapes


def decoder_shapes(args: dict) -> dict:
    width, clip, time_width = args["xf_width"], args["clip_dim"], 4 * args["model_channels"]
    shapes = unet_shapes(args) | {"cf_param": (clip,)}
    for name in [name for name in shapes if name.endswith(".qkv.weight")]:
        shapes |= layer(name.replace(".qkv.weight", ".encoder_kv"), 2 * shapes[name][1], width, 1)
    shapes |= layer("clip_emb", time_width, clip) | layer("text_feat_proj", time_width, clip)
    shapes |= layer("clip_tok_proj", args["clip_emb_mult"] * width, clip)
    return shapes | layer("text_seq_proj.0", width, clip) | layer("text_seq_proj.1", width)


def super_resolution_shapes(args: dict) -> dict:
    shapes = unet_shapes({**args, "in_channels": 2 * args["in_channels"]})
    for name in attention("middle_block.1", 1, args):
        del shapes[name]
    shapes = {name.replace("middle_block.2", "middle_block.1"): shape for name, shape in shapes.items()}
    return {f"{network}.{name}": shapes[name] for network in NETWORKS for name in shapes}


def test_the_preset_of_the_prior():
    prior = convert_karlo_prior(empty(prior_shapes(PRIOR)), **PRIOR)
    assert count(prior) - 2 * 768 == 1_022_028_544  # the original has the statistics in a file of their own


def test_the_preset_of_the_decoder():
    decoder, conditioner = convert_karlo_decoder(empty(decoder_shapes(DECODER)), **DECODER)
    assert count(decoder, conditioner) == 893_318_086
    assert decoder.config.sample_size == 64


def test_the_preset_of_the_super_resolution():
    networks = convert_karlo_super_resolution(empty(super_resolution_shapes(SUPER_RESOLUTION)), **SUPER_RESOLUTION)
    assert [count(network) for network in networks] == [691_579_523] * 2
    assert networks[0].config.sample_size == 256


# Files


def test_files_become_pipelines(prior_case, decoder_case, tmp_path):
    weights = {key: tensor for key, tensor in prior_case.weights.items() if key not in STATISTICS}
    torch.save({"state_dict": weights}, tmp_path / "prior.ckpt")
    torch.save(tuple(prior_case.inputs[name] for name in STATISTICS), tmp_path / "stats.th")
    torch.save({"state_dict": decoder_case.weights}, tmp_path / "decoder.ckpt")
    options = {**HEADS, "statistics_file": str(tmp_path / "stats.th")}
    convert_checkpoint(tmp_path / "prior.ckpt", tmp_path / "prior", "karlo_prior", **options)
    options = {"num_head_channels": 16, "image_size": 8}
    convert_checkpoint(tmp_path / "decoder.ckpt", tmp_path / "decoder", "karlo_decoder", **options)

    tokenizer = make_caption_tokenizer(["a red picture"], 520)
    tokenizer.model_max_length = TEXT_LENGTH
    tower = {"hidden_size": CLIP_WIDTH, "projection_dim": CLIP_WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=TEXT_LENGTH, **tower)
    torch.manual_seed(0)
    clip = {"text_encoder": CLIPTextModelWithProjection(text).eval(), "tokenizer": tokenizer}
    prior = {
        "prior": PriorTransformer.from_pretrained(tmp_path / "prior" / "prior"),
        "scheduler": DDPMScheduler.from_pretrained(tmp_path / "prior" / "scheduler"),
    }
    embeds = UnCLIPPriorPipeline(**prior, **clip)("a red picture", num_inference_steps=2).image_embeds
    assert embeds.shape == (1, CLIP_WIDTH) and embeds.isfinite().all()
    pipe = UnCLIPPixelPipeline(
        decoder=UNet2DConditionModel.from_pretrained(tmp_path / "decoder" / "decoder"),
        conditioner=UnCLIPConditioner.from_pretrained(tmp_path / "decoder" / "conditioner"),
        scheduler=ExactDDPMScheduler.from_pretrained(tmp_path / "decoder" / "scheduler"),
        image_encoder=CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=8, patch_size=4, **tower)).eval(),
        image_processor=CLIPImageProcessor(),
        prior=prior["prior"],
        prior_scheduler=prior["scheduler"],
        **clip,
    )
    image = pipe("a red picture", num_inference_steps=2, guidance_scale=2.0, output_type="pt").images
    assert image.shape == (1, 3, 8, 8) and image.isfinite().all()


# Refusals


def test_statistics_are_two_vectors(prior_case, tmp_path):
    torch.save({"state_dict": prior_case.weights}, tmp_path / "prior.ckpt")
    with pytest.raises(ValueError, match="name their file by `statistics_file`"):
        convert_checkpoint(tmp_path / "prior.ckpt", tmp_path / "out", "karlo_prior", **HEADS)
    torch.save(torch.zeros(2, CLIP_WIDTH), tmp_path / "stats.th")
    options = {**HEADS, "statistics_file": str(tmp_path / "stats.th")}
    with pytest.raises(ValueError, match="must hold the mean and the standard deviation"):
        convert_checkpoint(tmp_path / "prior.ckpt", tmp_path / "out", "karlo_prior", **options)


def test_refusals(prior_case, decoder_case):
    assert_refused(convert_karlo_prior, prior_case.weights, {}, "`xf_heads`")
    assert_refused(convert_karlo_prior, prior_case.weights, {"xf_heads": 3}, "`xf_heads` must divide the 32 channels")
    assert_refused(convert_karlo_prior, prior_case.weights, {**HEADS, "text_ctx": 8}, "`text_ctx` is given as 8")
    without = {key: tensor for key, tensor in prior_case.weights.items() if key != "clip_mean"}
    assert_refused(convert_karlo_prior, without, HEADS, "1 missing: clip_mean")
    assert_refused(convert_karlo_prior, decoder_case.weights, HEADS, "not a prior of karlo")
    assert_refused(convert_karlo_decoder, prior_case.weights, {"num_head_channels": 16}, "not a decoder of karlo")
    assert_refused(convert_karlo_decoder, decoder_case.weights, {}, "how many attention heads")
    options = {"num_head_channels": 16, "clip_emb_mult": 3}
    assert_refused(convert_karlo_decoder, decoder_case.weights, options, "`clip_emb_mult` is given as 3")
    assert_refused(convert_karlo_super_resolution, decoder_case.weights, {}, "not a super-resolution of karlo")
    case = load_case("unclip_karlo", "improved_sr_two_networks")
    assert_refused(convert_karlo_super_resolution, case.weights, {"in_channels": 6}, "`in_channels` is given as 6")
    more = {**case.weights, "model.bias": torch.zeros(1)}
    assert_refused(convert_karlo_super_resolution, more, {}, "tensor model.bias is none of model_first_steps or")
