import torch

from diffusers_ext.training.loop.draws import Draw


CPU = torch.device("cpu")


def numbers(draw):
    return (
        draw.normal(3, 4, 4),
        draw.uniform(),
        draw.integers(1000),
        draw.normal_like(torch.zeros(len(draw.uniform()), 2)),
    )


def test_a_sample_does_not_depend_on_the_split_of_the_batch():
    whole = numbers(Draw(0, CPU).begin(7, range(6)))
    parts = [numbers(Draw(0, CPU).begin(7, range(*rows))) for rows in [(0, 1), (1, 4), (4, 6)]]
    for index, expected in enumerate(whole):
        assert torch.equal(torch.cat([part[index] for part in parts]), expected)


def test_steps_seeds_and_samples_differ_and_repeat():
    draw = Draw(0, CPU)
    first = draw.begin(0, range(4)).normal(16)
    assert not torch.equal(draw.normal(16), first)
    assert not torch.equal(draw.begin(1, range(4)).normal(16), first)
    assert not torch.equal(Draw(1, CPU).begin(0, range(4)).normal(16), first)
    assert torch.equal(draw.begin(0, range(4)).normal(16), first)
    assert len(first.unique(dim=0)) == 4


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    numbers(Draw(0, CPU).begin(0, range(4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_distributions():
    draw = Draw(0, CPU).begin(0, range(4000))
    assert abs(draw.normal(8).mean()) < 0.02 and abs(draw.normal(8).std() - 1) < 0.02
    integers = draw.integers(10)
    assert integers.dtype == torch.int64 and integers.unique().tolist() == list(range(10))
    dropped = draw.dropout(torch.zeros(4000, dtype=torch.int64), 0.25, 7)
    assert set(dropped.tolist()) == {0, 7} and abs((dropped == 7).float().mean() - 0.25) < 0.03


def test_noise_is_float32_for_half_precision_images():
    assert (
        Draw(0, CPU).begin(0, range(2)).normal_like(torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16)).dtype
        == torch.float32
    )
