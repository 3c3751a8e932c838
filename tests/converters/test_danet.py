"""DANet: its denoiser, its generator of noise, its critic and its losses."""

import pytest
import torch

from diffusers_ext.converters import convert_checkpoint, convert_danet
from diffusers_ext.losses import gradient_penalty, noise_mean_loss
from diffusers_ext.metrics.noise import average_kl_divergence, noise_variance
from diffusers_ext.models import DANetCritic
from diffusers_ext.pipelines import RestorationPipeline
from tests.converters.cases import assert_near, assert_refused, load_case


@torch.no_grad()
def test_golden_cases_of_the_networks():
    denoiser, generator = (load_case("danet", name) for name in ("denoiser", "generator"))
    network = convert_danet(denoiser.weights)
    assert_near(network(denoiser.inputs["x"]).sample, denoiser.outputs["denoised"])
    network = convert_danet(generator.weights)
    assert_near(network(generator.inputs["x"], generator.inputs["z"]).sample, generator.outputs["noisy"])


def test_golden_case_of_the_critic_and_the_losses():
    case = load_case("danet", "critic_and_losses")
    critic, names = DANetCritic(base_channels=2), [f"main.{position}.weight" for position in (0, 2, 4, 6, 8)]
    layers = {f"down_layers.{i}.weight": case.weights[name] for i, name in enumerate(names)}
    layers |= {"conv_out.weight": case.weights["main.10.weight"]}
    critic.load_state_dict(layers | {f"fc.{kind}": case.weights[f"output.{kind}"] for kind in ("weight", "bias")})
    large = {name: images.repeat_interleave(16, 2).repeat_interleave(16, 3) for name, images in case.inputs.items()}
    real, fake = (torch.cat([large[name], large["noisy"]], dim=1) for name in ("clean", "fake_clean"))
    assert_near(critic(real).logits, case.outputs["critic_real"])
    assert_near(critic(fake).logits, case.outputs["critic_fake_clean"])
    penalty = 10 * gradient_penalty(lambda mixed: critic(mixed).logits, real, fake, case.inputs["alpha"].flatten())
    assert_near(penalty.mean(), case.outputs["gradient_penalty"])

    noisy, clean, made = (case.inputs[name] for name in ("noisy", "clean", "fake_noisy"))
    assert_near(noise_mean_loss(noisy, clean, made).mean(), case.outputs["mean_match"])
    assert_near(noise_variance(noisy, clean), case.outputs["sigma_real"])
    assert_near(average_kl_divergence(noisy, clean, made).mean(), case.outputs["akld_term"])
    assert average_kl_divergence(noisy, clean, noisy).tolist() == [0, 0]


def test_files_become_pipelines(tmp_path):
    denoiser, generator = (load_case("danet", name).weights for name in ("denoiser", "generator"))
    torch.save({"D": {f"module.{key}": t for key, t in denoiser.items()}, "G": generator}, tmp_path / "both.pt")
    torch.save(denoiser, tmp_path / "one.pt")
    images = {}
    for name in ("both", "one"):
        convert_checkpoint(tmp_path / f"{name}.pt", tmp_path / name, "danet")
        images[name] = RestorationPipeline.from_pretrained(tmp_path / name)
    image = torch.rand(3, 10, 7)
    assert torch.equal(*(pipe(image, output_type="pt").images for pipe in images.values()))
    noisy = images["both"].add_noise([image, image], [torch.Generator().manual_seed(seed) for seed in (0, 1)])
    assert noisy.shape == (2, 3, 10, 7) and not torch.equal(*noisy)
    with pytest.raises(ValueError, match="has no `noise_generator`"):
        images["one"].add_noise(image)
    torch.save({"D": generator}, tmp_path / "swapped.pt")
    with pytest.raises(ValueError, match="D must be a denoiser"):
        convert_checkpoint(tmp_path / "swapped.pt", tmp_path / "swapped", "danet")


def test_other_networks_are_refused():
    assert_refused(convert_danet, {"conv.weight": torch.zeros(1)}, {}, "not a U-Net of DANet")
    weights = load_case("danet", "denoiser").weights
    del weights["up_path.0.up.bias"]
    assert_refused(convert_danet, weights, {}, "missing: up_path.0.up.bias")
