import torch

from diffusers_ext.training.diffusion.timestep_sampling import LossSecondMoment
from diffusers_ext.training.loop.draws import Draw


SCALES = torch.tensor([1.0, 10.0, 0.1, 3.0])


def draw(rows=4_000, step=0):
    return Draw(0, torch.device("cpu")).begin(step, range(rows))


def warm():
    sampler = LossSecondMoment(len(SCALES))
    timesteps = torch.arange(len(SCALES)).repeat(10)
    sampler.record(timesteps, SCALES[timesteps])
    return sampler


def test_drawing_is_uniform_until_every_history_is_full():
    sampler = LossSecondMoment(4)
    sampler.record(torch.tensor([0] * 50 + [1, 2] * 10 + [3] * 9), torch.full((79,), 5.0))
    timesteps, weights = sampler.draw(draw())
    assert (weights == 1).all()
    assert (timesteps.bincount(minlength=4) / 4_000 - 0.25).abs().max() < 0.03
    sampler.record(torch.tensor([3]), torch.tensor([500.0]))
    assert (sampler.draw(draw())[1] != 1).all()


def test_probabilities_follow_the_root_mean_square_of_the_last_ten_losses():
    sampler = warm()
    expected = 0.999 * SCALES / SCALES.sum() + 0.001 / 4
    torch.testing.assert_close(sampler.probabilities(), expected.double())
    # Ten more of timestep 2, in one update, push the old ones out; then one more pushes out the first of these.
    losses = torch.arange(10.0)
    sampler.record(torch.full((10,), 2), losses)
    sampler.record(torch.tensor([2]), torch.tensor([20.0]))
    scales = SCALES.clone()
    scales[2] = torch.cat([losses[1:], torch.tensor([20.0])]).square().mean().sqrt()
    torch.testing.assert_close(sampler.probabilities(), (0.999 * scales / scales.sum() + 0.001 / 4).double())


def test_weights_keep_the_mean_and_lower_the_variance():
    sampler = warm()
    timesteps, weights = sampler.draw(draw())
    frequencies = timesteps.bincount(minlength=4) / 4_000
    assert (frequencies - sampler.probabilities()).abs().max() < 0.03
    weighted, uniform = weights * SCALES[timesteps], SCALES[draw().integers(4)]
    assert abs(weighted.mean() / SCALES.mean() - 1) < 0.02
    assert weighted.var() < 0.01 * uniform.var()


def test_a_sample_does_not_depend_on_the_split_of_the_batch():
    sampler = warm()
    whole = sampler.draw(draw(rows=6))
    parts = [sampler.draw(Draw(0, torch.device("cpu")).begin(0, range(*rows))) for rows in [(0, 4), (4, 6)]]
    for index, expected in enumerate(whole):
        assert torch.equal(torch.cat([part[index] for part in parts]), expected)


def test_a_saved_history_continues():
    sampler, other = warm(), LossSecondMoment(4)
    sampler.record(torch.tensor([1, 1, 1]), torch.tensor([1.0, 2.0, 3.0]))
    other.load_state_dict({name: tensor.clone() for name, tensor in sampler.state_dict().items()})
    for one in (sampler, other):
        one.record(torch.tensor([1, 0]), torch.tensor([7.0, 8.0]))
    assert torch.equal(sampler.probabilities(), other.probabilities())
