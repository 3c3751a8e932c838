import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffusers_ext.losses import pen_state_loss, standard_normal_kl, stroke_offset_loss
from diffusers_ext.models.modeling_sketch_rnn import SketchRNN, SketchRNNOutput
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


GOLDEN = Path(__file__).parent / "golden" / "sketch_rnn"


def make_strokes() -> tuple[torch.Tensor, torch.Tensor]:
    generator, lengths = torch.Generator().manual_seed(0), torch.tensor([7, 1, 4])
    offsets = torch.randn(3, 7, 2, generator=generator)
    lifted = (torch.rand(3, 7, 1, generator=generator) < 0.3).float()
    return SketchRNN.to_stroke5(torch.cat([offsets, lifted], dim=2), lengths), lengths


class SketchRNNConfig(ModelTesterConfig):
    model_class = SketchRNN
    output_shape = (3, 7, 3)

    def get_init_dict(self):
        return {
            "encoder_hidden_size": 6,
            "decoder_hidden_size": 8,
            "latent_dim": 4,
            "num_mixtures": 3,
            "num_classes": 5,
            "max_length": 7,
        }

    def get_inputs(self):
        strokes, lengths = make_strokes()
        noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
        return {"strokes": strokes, "lengths": lengths, "class_labels": torch.tensor([4, 0, 4]), "noise": noise}


class TestSketchRNN(SketchRNNConfig, ModelTesterMixin):
    pass


class TestDecoderOnly(SketchRNNConfig, ModelTesterMixin):
    def get_init_dict(self):
        return {"decoder_hidden_size": 8, "latent_dim": None, "num_mixtures": 3, "max_length": 7}

    def get_inputs(self):
        return {"strokes": make_strokes()[0]}


def golden(name: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / name / "case.safetensors")


def model_of_the_port(tensors: dict[str, torch.Tensor]) -> SketchRNN:
    """The weights of the PyTorch port in the order of Magenta: pen first, blocks of M, memory before output."""
    model = SketchRNN(8, 12, latent_dim=4, num_mixtures=3, max_length=11).eval()
    outputs = torch.cat([torch.arange(18, 21), torch.arange(18).view(3, 6).T.flatten()])
    states = torch.arange(24).roll(12)
    state = {}
    for name, lstm, suffix in (
        ("forward_encoder", "encoder", ""),
        ("backward_encoder", "encoder", "_reverse"),
        ("decoder", "decoder", ""),
    ):
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        of_lstm = {kind: tensors[f"weights.{lstm}.lstm.{kind}_l0{suffix}"] for kind in kinds}
        state |= {f"{name}.{kind}": of_lstm[kind] for kind in kinds[:2]}
        state[f"{name}.bias"] = of_lstm["bias_ih"] + of_lstm["bias_hh"]
    for part in ("weight", "bias"):
        state[f"to_mean.{part}"] = tensors[f"weights.encoder.fc_mu.{part}"]
        state[f"to_logvar.{part}"] = tensors[f"weights.encoder.fc_sigma.{part}"]
        state[f"to_state.{part}"] = tensors[f"weights.decoder.fc_hc.{part}"][states]
        state[f"to_parameters.{part}"] = tensors[f"weights.decoder.fc_params.{part}"][outputs]
    model.load_state_dict(state)
    return model


@torch.no_grad()
def test_networks_and_losses_are_those_of_the_port():
    tensors = golden("vae_losses")
    expected = {name[8:]: value for name, value in tensors.items() if name.startswith("outputs.")}
    end = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]).expand(3, 1, 5)  # the port predicts one point more
    strokes = torch.cat([expected["stroke5"].transpose(0, 1), end], dim=1)
    # The port encodes the ends, too.
    output = model_of_the_port(tensors)(strokes, torch.full((3,), 10), noise=tensors["inputs.eps"])

    def assert_near(found, name):
        torch.testing.assert_close(found, expected[name], rtol=1e-5, atol=1e-5, msg=name)

    assert_near(output.latent_mean, "mu")
    assert_near(output.latent_logvar, "presigma")
    for name, values in {
        "pi": output.log_weights.exp(),
        "mu_x": output.means[..., 0],
        "mu_y": output.means[..., 1],
        "sigma_x": output.log_stds[..., 0].exp(),
        "sigma_y": output.log_stds[..., 1].exp(),
        "rho": output.correlations,
        "pen": output.pen_logits.softmax(dim=2),
    }.items():
        assert_near(values.transpose(0, 1), name)
    log_prob = output.offset_log_prob(strokes[..., :2])
    torch.testing.assert_close(log_prob.exp(), (expected["pi"] * expected["pdf"]).sum(dim=2).T, rtol=1e-5, atol=1e-6)
    lengths = tensors["inputs.lengths"]
    loss = stroke_offset_loss(log_prob, lengths, epsilon=1e-5) + pen_state_loss(output.pen_logits, strokes)
    assert_near(loss.mean() * 11 / 10, "loss_reconstruction")  # the port divides by a step less
    assert_near(standard_normal_kl(output.latent_mean, output.latent_logvar).mean(), "kl_per_dimension")


@pytest.mark.parametrize("name, temperature", [("sampling_temperature", 0.4), ("sampling_temperature_hot", 0.9)])
def test_a_temperature_is_that_of_the_paper(name, temperature):
    """The port's draws are replaced by the most probable Gaussian and state of the pen, and by the mean."""
    case = golden(name)
    output = SketchRNNOutput(
        pen_logits=case["inputs.pen"].log()[:, None],
        log_weights=case["inputs.pi"].log()[:, None],
        means=torch.stack([case["inputs.mu_x"], case["inputs.mu_y"]], dim=2)[:, None],
        log_stds=torch.stack([case["inputs.sigma_x"], case["inputs.sigma_y"]], dim=2).log()[:, None],
        correlations=case["inputs.rho"][:, None],
    )

    def middle(probabilities):
        """A uniform number that draws the most probable entry."""
        best = probabilities.argmax(dim=1, keepdim=True)
        return (probabilities.cumsum(dim=1) - probabilities / 2).gather(1, best)[:, 0]

    chosen = [middle(case["outputs.pi_tempered"]), middle(case["outputs.pen_tempered"])]

    def draw(x, y):
        ranks = torch.special.ndtr(torch.tensor([x, y])).expand(6, 2)
        return SketchRNN.draw_points(output, torch.cat([torch.stack(chosen, dim=1), ranks], dim=1), temperature)

    mean = draw(0.0, 0.0)
    torch.testing.assert_close(mean, case["outputs.state"], rtol=1e-5, atol=1e-5)
    # The steps along both normal numbers are a factor of the covariance.
    factor = torch.stack([draw(1.0, 0.0) - mean, draw(0.0, 1.0) - mean], dim=2)[:, :2]
    torch.testing.assert_close(factor @ factor.transpose(1, 2), case["outputs.covariance"], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_drawn_points_have_the_distribution_of_the_network():
    output = SketchRNNOutput(
        pen_logits=torch.tensor([0.2, 0.7, 0.1]).log().expand(4000, 1, 3),
        log_weights=torch.tensor([0.3, 0.7]).log().expand(4000, 1, 2),
        means=torch.tensor([[-1.0, 2.0], [1.0, 0.0]]).expand(4000, 1, 2, 2),
        log_stds=torch.tensor([[0.1, 0.2], [0.3, 0.1]]).log().expand(4000, 1, 2, 2),
        correlations=torch.tensor([0.5, -0.8]).expand(4000, 1, 2),
    )
    points = SketchRNN.draw_points(output, torch.rand(4000, 4, generator=torch.Generator().manual_seed(0)))
    assert (points[:, 2:].mean(dim=0) - torch.tensor([0.2, 0.7, 0.1])).abs().max() < 0.03
    left, right = points[points[:, 0] < 0], points[points[:, 0] > 0]
    assert len(left) / 4000 == pytest.approx(0.3, abs=0.03)
    assert left[:, :2].T.corrcoef()[0, 1] == pytest.approx(0.5, abs=0.1)
    assert right[:, 0].std() == pytest.approx(0.3, abs=0.03)


@torch.no_grad()
def test_a_density_has_the_integral_one():
    model = SketchRNN(4, 6, latent_dim=2, num_mixtures=3, max_length=2)
    output = model(torch.zeros(1, 1, 5), torch.ones(1, dtype=torch.int64))
    axis = torch.linspace(-8, 8, 161)
    grid = torch.cartesian_prod(axis, axis)[None]
    expanded = SketchRNNOutput(
        **{name: value.expand(1, len(grid[0]), *value.shape[2:]) for name, value in output.items() if value.ndim > 2}
    )
    assert expanded.offset_log_prob(grid).exp().sum() * 0.01 == pytest.approx(1, abs=1e-3)


@torch.no_grad()
def test_step_by_step_is_as_all_at_once():
    config = SketchRNNConfig()
    model, inputs = config.get_model(), config.get_inputs()
    expected = model(**inputs).pen_logits
    mean, logvar = model.encode(inputs["strokes"], inputs["lengths"])
    condition = model.condition(mean + (0.5 * logvar).exp() * inputs["noise"], inputs["class_labels"])
    points, state, found = model.start_points(inputs["strokes"]), None, []
    for step in range(7):
        output, state = model.decode(points, condition, state)
        found.append(output.pen_logits)
        points = inputs["strokes"][:, step : step + 1]
    torch.testing.assert_close(torch.cat(found, dim=1), expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_what_follows_a_sketch_is_not_encoded():
    model = SketchRNNConfig().get_model()
    strokes, lengths = make_strokes()
    changed = torch.where(torch.arange(7)[:, None] < lengths[:, None, None], strokes, 9.0)
    for found, expected in zip(model.encode(changed, lengths), model.encode(strokes, lengths), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_without_dropout_the_loop_is_the_operation_of_pytorch():
    layer = SketchRNNConfig().get_model().decoder
    inputs = torch.randn(3, 7, 14, generator=torch.Generator().manual_seed(0))
    state = (inputs[:, 0, :8], inputs[:, 1, :8])
    expected = layer(inputs, state)
    layer.train().recurrent_dropout = 1e-12
    torch.testing.assert_close(layer(inputs, state), expected, rtol=1e-5, atol=1e-6)
    layer.recurrent_dropout = 0.5
    assert not torch.allclose(layer(inputs, state)[0], expected[0])


def test_losses_count_what_they_should():
    strokes, lengths = make_strokes()
    logits, log_prob = torch.zeros(3, 7, 3), torch.full((3, 7), -2.0)
    torch.testing.assert_close(stroke_offset_loss(log_prob, lengths, epsilon=1e-30), 2 * lengths / 7)
    floor = stroke_offset_loss(torch.full((3, 7), -1e4), lengths)
    torch.testing.assert_close(floor, -math.log(1e-6) * lengths / 7)
    torch.testing.assert_close(pen_state_loss(logits, strokes), torch.full((3,), math.log(3)))
    torch.testing.assert_close(pen_state_loss(logits, strokes, lengths), math.log(3) * lengths / 7)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_mixtures": 0}, "`num_mixtures` must be at least 1"),
        ({"latent_dim": 0}, "`latent_dim` must be at least 1 or `None`"),
        ({"recurrent_dropout": 1.0}, "`recurrent_dropout` must be from 0 to below 1"),
        ({"offset_std": 0.0}, "`offset_std` must be positive"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SketchRNN(**arguments)


def test_inputs_that_do_not_belong_to_the_network_are_refused():
    strokes, lengths = make_strokes()
    decoder = SketchRNN(decoder_hidden_size=4, latent_dim=None)
    with pytest.raises(ValueError, match="`class_labels` of the sketches are given, but the network has none"):
        decoder(strokes, class_labels=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="a decoder alone"):
        decoder.encode(strokes, lengths)
    with pytest.raises(ValueError, match="`class_labels` of the sketches are missing"):
        SketchRNNConfig().get_model()(strokes, lengths)
