import json
import shutil

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.training_utils import compute_snr

from diffusers_ext.training.diffusion.objectives import Weighting
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.weights import weights_fingerprint
from diffusers_ext.training.text_to_image.base_models import load_base_model, take_apart
from diffusers_ext.training.text_to_image.text_encoders import TextEncoders
from tests.training.text_to_image_models import FAMILIES, SIZE, tiny_base


PROMPTS = ["a cat", "picture 12, and a text that is far too long for these text encoders"]


@pytest.fixture(scope="module", params=FAMILIES)
def base(request):
    base = load_base_model(tiny_base(request.param))
    base.freeze(torch.device("cpu"))
    base.pipeline.set_progress_bar_config(disable=True)
    return base


def draw(count):
    return Draw(0, torch.device("cpu")).begin(0, range(count))


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def prompt_embeds(pipeline, prompts):
    """The result of the pipeline's own encode_prompt, under the names of [`BaseModel.encode_text`]."""
    kind = type(pipeline).__name__
    if kind == "StableDiffusionPipeline":
        return {"prompt_embeds": pipeline.encode_prompt(prompts, "cpu", 1, False)[0]}
    further = [prompts, prompts] if kind == "StableDiffusion3Pipeline" else []
    embeds, _, pooled, _ = pipeline.encode_prompt(prompts, *further, device="cpu", do_classifier_free_guidance=False)
    return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}


# Text


@torch.no_grad()
def test_text_is_encoded_as_the_pipeline_does_it(base):
    found, wanted = base.encode_text(base.tokenize(PROMPTS)), prompt_embeds(base.pipeline, PROMPTS)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@torch.no_grad()
def test_text_encoders_in_one_network_give_the_same_embeddings(base):
    token_ids = base.tokenize(PROMPTS)
    network = TextEncoders(base).train()
    for name, values in base.encode_text(token_ids).items():
        assert torch.equal(network(token_ids)[name], values)
    json.dumps(network.config)
    assert not any(module.training for module in base.text_encoders.values())  # none of them is trained


def test_all_trained_weights_of_a_text_encoder_get_gradients(base):
    names = [name for name in base.text_encoders if name != "text_encoder_3"]
    for name in names:
        base.train_text_encoder(name)
    text = base.encode_text(base.tokenize(PROMPTS))
    sum((values**2).sum() for values in text.values()).backward()
    for name in names:
        trained = [weight for weight in base.text_encoders[name].parameters() if weight.requires_grad]
        assert len(trained) > 10 and all(weight.grad is not None for weight in trained)
        base.text_encoders[name].requires_grad_(False)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_hidden_prompts_are_encoded_as_the_pipeline_does_it(family):
    base = load_base_model(tiny_base(family))
    with torch.no_grad():
        text = base.encode_text(base.tokenize(["a cat", ""]))
        text = base.hide_text(text, torch.tensor([False, True]))
        if family == "sd1":
            negative = {"prompt_embeds": base.pipeline.encode_prompt("a cat", "cpu", 1, True)[1]}
        else:
            _, embeds, _, pooled = base.pipeline.encode_prompt("a cat", device="cpu")
            negative = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
        for name, values in prompt_embeds(base.pipeline, ["a cat"]).items():
            torch.testing.assert_close(text[name][:1], values)
            torch.testing.assert_close(text[name][1:], negative[name])


# Latents


@torch.no_grad()
def test_latents_are_decoded_as_the_pipeline_does_it(base):
    call = {"num_inference_steps": 2, "height": SIZE, "width": SIZE, "guidance_scale": 2.0}
    images, latents = (
        base.pipeline(PROMPTS[:1], **call, output_type=kind, generator=torch.Generator().manual_seed(0)).images
        for kind in ("pt", "latent")
    )
    assert torch.equal((base.decode(latents) / 2 + 0.5).clamp(0, 1), images)


@torch.no_grad()
def test_latents_of_images_are_a_sample_of_the_posterior(base):
    images, noise = numbers(2, 3, SIZE, SIZE).tanh(), numbers(2, 4, SIZE // 2, SIZE // 2)
    moments = base.space.encode_moments(images)
    posterior = base.vae.encode(images).latent_dist
    expected = posterior.mean + posterior.std * noise
    torch.testing.assert_close(base.space.unscale(base.space.sample(moments, noise)), expected)
    assert moments.shape == (2, 8, SIZE // 2, SIZE // 2)


def test_latents_that_an_autoencoder_normalises(monkeypatch):
    base = load_base_model(tiny_base("sdxl"))
    plain = base.space.sample(torch.zeros(1, 8, 2, 2), numbers(1, 4, 2, 2))
    base.vae.register_to_config(latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[2.0] * 4)
    latents = base.space.sample(torch.zeros(1, 8, 2, 2), numbers(1, 4, 2, 2))
    mean = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1) * base.vae.config.scaling_factor
    torch.testing.assert_close(latents, (plain - mean) / 2)
    torch.testing.assert_close(base.space.scale(base.space.unscale(latents)), latents)


# Denoising


@torch.no_grad()
def test_the_denoiser_is_called_as_the_pipeline_does_it(base):
    seen = []
    hook = base.denoiser.register_forward_hook(
        lambda module, args, keywords, output: seen.append((args, keywords, output)), with_kwargs=True
    )
    call = {"num_inference_steps": 1, "height": SIZE, "width": SIZE, "guidance_scale": 1.0}
    base.pipeline(PROMPTS, **call, output_type="latent", generator=torch.Generator().manual_seed(0))
    hook.remove()
    ((args, keywords, output),) = seen
    named = dict(zip(["sample", "timestep"], args, strict=False)) | keywords
    noisy, timestep = named[base._sample_argument], named["timestep"]
    text = base.encode_text(base.tokenize(PROMPTS))
    found = base.denoise(base.denoiser, noisy, timestep.expand(len(noisy)), text)
    torch.testing.assert_close(found, output[0])
    assert found.shape == noisy.shape


def test_sizes_and_residuals_reach_the_denoiser():
    base = load_base_model(tiny_base("sdxl"))
    text = {"prompt_embeds": numbers(1, 4, 32), "pooled_prompt_embeds": numbers(1, 16)}
    noisy, timesteps = numbers(1, 4, 8, 8), torch.tensor([5])
    with torch.no_grad():
        plain = base.denoise(base.denoiser, noisy, timesteps, text)
        same = base.denoise(base.denoiser, noisy, timesteps, text, torch.tensor([[16, 16, 0, 0, 16, 16]]))
        cropped = base.denoise(base.denoiser, noisy, timesteps, text, torch.tensor([[640, 480, 7, 0, 16, 16]]))
        shifted = base.denoise(
            base.denoiser,
            noisy,
            timesteps,
            text,
            residuals={
                "down_block_additional_residuals": tuple(torch.ones(shape) for shape in residual_shapes(base, noisy)),
                "mid_block_additional_residual": torch.ones(1, 16, 4, 4),
            },
        )
    assert torch.equal(plain, same)
    assert not torch.equal(plain, cropped) and not torch.equal(plain, shifted)


def residual_shapes(base, noisy):
    return [(1, 8, 8, 8), (1, 8, 8, 8), (1, 8, 4, 4), (1, 16, 4, 4)]


# The process


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_noise_and_targets_are_those_of_the_base_s_scheduler(family):
    base = load_base_model(tiny_base(family))
    objective, stock = base.objective(), base.pipeline.scheduler
    clean, noise, timesteps = numbers(3, 4, 8, 8), numbers(3, 4, 8, 8).flip(0), torch.tensor([0, 300, 999])
    torch.testing.assert_close(
        objective.add_noise(clean, noise, timesteps), stock.add_noise(clean, noise, timesteps), rtol=1e-5, atol=1e-5
    )
    target = stock.get_velocity(clean, noise, timesteps) if family == "sd2" else noise
    torch.testing.assert_close(objective.target(clean, noise, timesteps), target, rtol=1e-5, atol=1e-5)
    drawn = objective.draw_timesteps(draw(1000))
    assert drawn.dtype == torch.int64 and drawn.min() < 20 and 980 < drawn.max() < 1000


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_min_snr_is_that_of_diffusers(family):
    base = load_base_model(tiny_base(family))
    objective = base.objective(weighting=Weighting("min_snr", snr_gamma=5.0))
    timesteps = torch.tensor([1, 200, 900])
    snr = compute_snr(base.pipeline.scheduler, timesteps)
    expected = snr.clamp(max=5.0) / (snr + 1 if family == "sd2" else snr)
    clean, noise = numbers(3, 4, 8, 8), torch.zeros(3, 4, 8, 8)
    noisy = objective.add_noise(clean, noise, timesteps)
    output = objective.target(clean, noise, timesteps) + 1
    found = objective.losses(output, clean, noisy, noise, timesteps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_flow_of_sd3_is_trained_at_its_sampler_s_levels():
    base = load_base_model(tiny_base("sd3"))
    objective = base.objective()
    clean, noise = numbers(2, 4, 8, 8), numbers(2, 4, 8, 8).flip(0)
    timesteps = torch.tensor([250.0, 1000.0])
    sigmas = torch.tensor([0.25, 1.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(objective.add_noise(clean, noise, timesteps), (1 - sigmas) * clean + sigmas * noise)
    torch.testing.assert_close(objective.target(clean, noise, timesteps), noise - clean)
    # Logit-normal, and shifted by 3: the median 1/2 becomes 3/4.
    drawn = objective.draw_timesteps(draw(2000)) / 1000
    assert abs(drawn.median() - 0.75) < 0.02 and drawn.min() > 0 and drawn.max() <= 1
    uniform = base.objective(timestep_sampling="uniform").draw_timesteps(draw(2000)) / 1000
    assert (uniform < 0.25).float().mean() > (drawn < 0.25).float().mean() + 0.02


def test_a_process_that_has_no_such_levels_is_refused():
    base = load_base_model(tiny_base("sdxl"))
    base.pipeline.scheduler = DDIMScheduler.from_config(base.pipeline.scheduler.config)
    base.pipeline.scheduler.register_to_config(sigma_data=0.5)
    with pytest.raises(ValueError, match="EDM"):
        base.objective()


# Weights


def test_fingerprints_depend_on_weights_and_not_on_folders(tmp_path):
    copy = shutil.copytree(tiny_base("sd1"), tmp_path / "copy")
    one, other = load_base_model(tiny_base("sd1")), load_base_model(str(copy))
    assert one.fingerprint() == other.fingerprint() != load_base_model(tiny_base("sd2")).fingerprint()
    with torch.no_grad():
        other.vae.encoder.conv_in.bias[0] += 1
    assert one.fingerprint() != other.fingerprint()
    assert weights_fingerprint(one.denoiser) == weights_fingerprint(other.denoiser)


def test_a_frozen_base_is_not_trained_and_keeps_its_autoencoder_exact():
    base = load_base_model(tiny_base("sdxl"))
    base.freeze(torch.device("cpu"), torch.bfloat16)
    networks = (base.denoiser, base.vae, *base.text_encoders.values())
    assert not any(weight.requires_grad for network in networks for weight in network.parameters())
    assert base.vae.dtype == torch.float32
    assert {network.dtype for network in (base.denoiser, *base.text_encoders.values())} == {torch.bfloat16}


def test_a_frozen_base_samples_the_same_bits_as_a_loaded_one(base):
    loaded = load_base_model(base.name).pipeline
    loaded.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 2, "height": SIZE, "width": SIZE, "output_type": "pt"}
    with base.as_loaded():
        ours, theirs = (
            pipeline(PROMPTS[:1], **call, generator=torch.Generator().manual_seed(0)).images
            for pipeline in (base.pipeline, loaded)
        )
    assert torch.equal(ours, theirs)
    networks = (base.denoiser, base.vae, *base.text_encoders.values())
    assert not any(weight.requires_grad for network in networks for weight in network.parameters())


# Invalid bases


def changed(tmp_path, family, **entries):
    folder = shutil.copytree(tiny_base(family), tmp_path / "changed")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **entries}))
    return folder


@pytest.mark.parametrize(
    ("family", "entries", "sentence"),
    [
        (
            "sd1",
            {"_class_name": "FluxPipeline"},
            " is FluxPipeline, but text-to-image bases are: StableDiffusion",
        ),
        ("sd1", {"_class_name": ["pipeline_x", "XPipeline"]}, "but text-to-image bases are"),
        ("sdxl", {"text_encoder": [None, None]}, "has no text_encoder, which a StableDiffusionXLPipeline needs"),
        ("sd3", {"tokenizer_2": [None, None]}, "has no tokenizer_2"),
    ],
)
def test_another_family_or_a_missing_part_is_refused_in_one_sentence(tmp_path, family, entries, sentence):
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        load_base_model(str(changed(tmp_path, family, **entries)))
    assert sentence in str(error.value)


def test_a_part_whose_folder_is_lost_is_refused(tmp_path):
    folder = changed(tmp_path, "sd2")
    shutil.rmtree(folder / "vae")
    with pytest.raises(ValueError, match="has no vae, which a StableDiffusionPipeline needs"):
        load_base_model(str(folder))


def test_a_missing_base_is_refused(tmp_path):
    with pytest.raises(OSError):
        load_base_model(str(tmp_path))


def test_a_denoiser_that_reads_more_than_latents_is_refused():
    pipeline = DiffusionPipeline.from_pretrained(tiny_base("sd1"))
    pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(ValueError, match="reads 9 channels, but its vae gives 4"):
        take_apart(pipeline, "inpainting")
