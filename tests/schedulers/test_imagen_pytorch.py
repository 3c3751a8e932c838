"""The continuous noise levels of imagen-pytorch, by a chain of two timesteps that has the same levels."""

import math

import pytest
import torch

from diffusers_ext.schedulers import ExactDDPMScheduler
from tests.schedulers.golden_cases import load_case


CASE = load_case("imagen_pytorch", "schedules_and_thresholding")
LOG_SNR = {
    "cosine": lambda time: -torch.log(torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** -2 - 1),
    "linear": lambda time: -torch.log(torch.expm1(1e-4 + 10 * time**2)),
}


def schedulers(kind: str, **options) -> list[ExactDDPMScheduler]:
    """For each sample one, whose timestep 1 is the sample's time and 0 the next time of its step."""
    times = torch.stack([CASE[1]["t_next"], CASE[1]["t"]], dim=1).double()
    levels = LOG_SNR[kind](times).sigmoid().tolist()
    return [
        ExactDDPMScheduler(2, trained_betas=[1 - after, 1 - now / after], clip_sample=False, **options)
        for after, now in levels
    ]


def predicted(kind: str, **options) -> torch.Tensor:
    """The images that a network's outputs stand for."""
    steps = zip(schedulers(kind, **options), CASE[1]["pred"], CASE[1]["x_t"], strict=True)
    images = [each.p_mean_variance(output[None], 1, x[None]).pred_original_sample for each, output, x in steps]
    return torch.cat(images)


@pytest.mark.parametrize("kind", LOG_SNR)
def test_noise_levels_and_posterior(kind):
    _, inputs, outputs = CASE
    log_snr, expected = LOG_SNR[kind](inputs["times"].double()), outputs[f"{kind}.log_snr"].double()
    # in float32 the original's last cosine is of another sign, without effect on the noise
    torch.testing.assert_close(log_snr.sigmoid(), expected.sigmoid(), rtol=1e-4, atol=1e-6)
    found = {"mean": [], "variance": []}
    for scheduler, clean, x in zip(schedulers(kind), inputs["x_start"], inputs["x_t"], strict=True):
        mean, variance, _ = scheduler.q_posterior(clean[None], x[None], 1)
        found["mean"].append(mean)
        found["variance"].append(variance[0, 0, 0, :1])
    torch.testing.assert_close(torch.cat(found["mean"]), outputs[f"{kind}.posterior_mean"], rtol=1e-4, atol=1e-5)
    variance = torch.cat(found["variance"])
    torch.testing.assert_close(variance, outputs[f"{kind}.posterior_variance"], rtol=1e-4, atol=1e-6)
    for name, prediction_type in (("eps", "epsilon"), ("v", "v_prediction")):
        expected = outputs[f"{kind}.x0_from_{name}"]
        images = predicted(kind, prediction_type=prediction_type)
        assert (images - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("ratio", [0.9, 0.95, 0.995])
def test_dynamic_thresholding(ratio):
    """Without an upper bound, which diffusers' `sample_max_value` is."""
    options = {"thresholding": True, "dynamic_thresholding_ratio": ratio, "sample_max_value": 1e6}
    expected = CASE[2][f"thresholded_{ratio}"]
    torch.testing.assert_close(predicted("cosine", **options), expected, rtol=0, atol=1e-4)
