import json

import pytest
import torch
from safetensors.torch import load_file

from diffusers_ext import ClassConditionalPipeline
from diffusers_ext.training.loop.posthoc_ema import PostHocEMA, Snapshots, gamma_of_std, posthoc_coefficients
from diffusers_ext.training.reconstruct_ema import main, reconstruct_ema
from tests.training.runs import arguments, finish


STEPS, EVERY = 600, 20


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(50, 10)
        self.norm = torch.nn.BatchNorm1d(10)


def profile(std: float, steps: int) -> torch.Tensor:
    """The weight of each step in the average: the integral of its profile over the step."""
    gamma = gamma_of_std(std)
    return (torch.arange(steps + 1, dtype=torch.float64) / steps).pow(gamma + 1).diff()


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A network whose weights walk at random: its output folder, and its weights after each step."""
    folder = tmp_path_factory.mktemp("walk")
    torch.manual_seed(0)
    network = Network()
    average = PostHocEMA(folder, {"net": network}, [0.05, 0.1])
    path = []
    for step in range(1, STEPS + 1):
        with torch.no_grad():
            network.linear.weight.add_(torch.randn(10, 50) * 0.1)
            network.norm.running_mean.fill_(step)
            network.norm.num_batches_tracked.fill_(step)
        average.update(step)
        path.append(network.linear.weight.detach().double().clone())
        if step % EVERY == 0:
            average.write_snapshot(step)
    return folder, torch.stack(path)


def brute_force(path: torch.Tensor, std: float) -> torch.Tensor:
    return torch.einsum("t,tij->ij", profile(std, len(path)), path)


@pytest.mark.parametrize(("std", "gamma"), [(0.05, 16.97), (0.10, 6.94), (0.25, 0.72)])
def test_gamma_belongs_to_the_standard_deviation(std, gamma):
    found = gamma_of_std(std)
    assert abs(found - gamma) < 0.01  # 16.97 and 6.94 are the paper's
    assert abs(((found + 1) / ((found + 2) ** 2 * (found + 3))) ** 0.5 - std) < 1e-12
    weights, tau = profile(std, 10**5), (torch.arange(10**5, dtype=torch.float64) + 0.5) / 10**5
    mean = weights @ tau
    assert abs((weights @ (tau - mean).square()).sqrt() - std) < 1e-6


@pytest.mark.parametrize("std", [0.0, 0.2887, 1.0, -0.1, float("nan")])
def test_there_is_no_such_profile(std):
    with pytest.raises(ValueError, match="between 0 and 0.2887"):
        gamma_of_std(std)


@pytest.mark.parametrize("std", [0.05, 0.1])
def test_a_stored_profile_is_what_it_says_and_comes_back_exactly(walk, std):
    folder, path = walk
    stored = load_file(folder / "posthoc_ema" / f"step-{STEPS}" / f"net_{std}.safetensors")
    torch.testing.assert_close(stored["linear.weight"].double(), brute_force(path, std), rtol=1e-4, atol=1e-5)
    for step in (EVERY, STEPS):
        stored = load_file(folder / "posthoc_ema" / f"step-{step}" / f"net_{std}.safetensors")
        found, error = Snapshots(folder).reconstruct("net", std, step)
        assert error == 0 and found.keys() == stored.keys()
        assert all(torch.equal(found[name], stored[name]) for name in stored)


@pytest.mark.parametrize(("std", "tolerance"), [(0.03, 0.03), (0.07, 1e-3), (0.08, 1e-3), (0.15, 5e-3), (0.2, 1e-2)])
@pytest.mark.parametrize("step", [STEPS // 2, STEPS])
def test_another_profile_is_nearly_the_average_with_it(walk, std, tolerance, step):
    folder, path = walk
    found, error = Snapshots(folder).reconstruct("net", std, step)
    expected = brute_force(path[:step], std)
    # In units of how far the average is from the last weights.
    distance = (found["linear.weight"] - expected).norm() / (expected - path[step - 1]).norm()
    assert distance < tolerance
    stored = list(Snapshots(folder)._files["net"])
    coefficients, _ = posthoc_coefficients([pair for pair in sorted(stored) if pair[1] <= step], std, step)
    combined = sum(
        c * torch.nn.functional.pad(profile(s, at), (0, step - at))
        for c, (s, at) in zip(coefficients, [pair for pair in sorted(stored) if pair[1] <= step], strict=True)
    )
    wanted = profile(std, step)
    assert abs((combined - wanted).norm() / wanted.norm() - error) < 0.1 * error


def test_buffers_are_those_of_the_step_and_statistics_are_averaged(walk):
    found, _ = Snapshots(walk[0]).reconstruct("net", 0.08, 300)
    assert found.keys() == Network().state_dict().keys()
    assert found["norm.num_batches_tracked"] == 300
    expected = profile(0.08, 300) @ torch.arange(1, 301, dtype=torch.float64)
    torch.testing.assert_close(found["norm.running_mean"], expected.float().expand(10), rtol=1e-3, atol=0)


def test_no_variance_is_negative(tmp_path):
    network = Network()
    average = PostHocEMA(tmp_path, {"net": network}, [0.05, 0.1])
    for step in range(1, 101):
        network.norm.running_var.fill_(1000.0 if step < 85 else 0.0)
        average.update(step)
    average.write_snapshot(100)
    found, _ = Snapshots(tmp_path).reconstruct("net", 0.045, 100)
    assert (found["norm.running_var"] >= 0).all()


def test_a_step_without_snapshot_is_refused(walk):
    with pytest.raises(ValueError, match="no snapshot of step 30, only of 20, 40"):
        Snapshots(walk[0]).reconstruct("net", 0.08, 30)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    command = arguments(folder, max_train_steps=10, posthoc_ema_steps=2, num_inference_steps=2)
    assert finish([*command, "--posthoc_ema_stds", "0.05", "0.1"]) == 0
    return folder


@pytest.mark.slow
def test_a_pipeline_with_another_average(trained, tmp_path):
    record = reconstruct_ema(trained, tmp_path / "new", 0.08)
    assert record == json.loads((tmp_path / "new" / "posthoc_ema.json").read_text())
    assert record["step"] == 10 and record["networks"] == ["unet"] and 0 < record["profile_error"] < 0.1
    weights, _ = Snapshots(trained).reconstruct("unet", 0.08, 10)
    pipe = ClassConditionalPipeline.from_pretrained(tmp_path / "new")
    published = ClassConditionalPipeline.from_pretrained(trained)
    assert pipe.scheduler.config == published.scheduler.config and pipe.config.id2label == published.config.id2label
    for name, tensor in pipe.unet.state_dict().items():
        assert torch.equal(tensor, weights[name])
    assert len(pipe([3], num_images_per_label=2).images) == 2
    # What was measured on the published weights is not said of these.
    assert not {"metrics.json", "samples.png", "README.md"} & {path.name for path in (tmp_path / "new").iterdir()}


@pytest.mark.slow
def test_the_command(trained, tmp_path, capsys):
    main([str(trained), str(tmp_path / "new"), "--std", "0.1", "--step", "4"])
    assert "with a profile error of 0.00%" in capsys.readouterr().out
    stored = load_file(trained / "posthoc_ema" / "step-4" / "unet_0.1.safetensors")
    found = load_file(tmp_path / "new" / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(found[name], stored[name]) for name in found)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--std", "0.5"], "between 0 and 0.2887"),
        (["--std", "0.1", "--step", "3"], "no snapshot of step 3, only of 2, 4, 6, 8, 10"),
    ],
)
def test_what_cannot_be_made_is_refused(trained, tmp_path, capsys, options, sentence):
    with pytest.raises(SystemExit):
        main([str(trained), str(tmp_path / "new"), *options])
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_folders_that_do_not_fit_are_refused(trained, walk, tmp_path):
    with pytest.raises(FileNotFoundError, match="no snapshots: train with --posthoc_ema_stds"):
        reconstruct_ema(tmp_path, tmp_path / "new", 0.1)
    with pytest.raises(FileNotFoundError, match="has not been finished"):
        reconstruct_ema(walk[0], tmp_path / "new", 0.1)
    with pytest.raises(FileExistsError, match="not an empty folder"):
        reconstruct_ema(trained, trained, 0.1)
