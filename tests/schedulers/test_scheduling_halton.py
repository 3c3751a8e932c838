import pytest
import torch

from diffusers_ext.schedulers import HaltonScheduler, MaskGITScheduler
from diffusers_ext.schedulers.scheduling_halton import halton_order
from tests.schedulers.golden_cases import case_names, load_case


MASK = 30
ORIGINAL_NAMES = {
    "arccos": "arccos",
    "cosine": "cosine",
    "linear": "linear",
    "square": "square",
    "square_root": "root",
}


@pytest.mark.parametrize("name", case_names("maskgit_halton"))
def test_the_order_and_the_numbers_of_tokens_are_the_original_ones(name):
    config, inputs, outputs = load_case("maskgit_halton", name)
    size, steps = config["input_size"], config["step"]
    rows, columns = outputs["halton_order"].unbind(dim=1)
    assert list(halton_order(size, size)) == (rows * size + columns).tolist()
    scheduler = HaltonScheduler(MASK, num_inference_steps=steps)
    counts = [scheduler.num_drawn(timestep, size**2).item() for timestep in scheduler.timesteps]
    assert counts == outputs["halton_counts"].tolist()
    for ours, theirs in ORIGINAL_NAMES.items():  # the masks of the training, each token by itself
        ratio = MaskGITScheduler(MASK, ours).mask_ratio(inputs["r"], size**2)
        assert torch.equal(inputs["uniform"] < ratio[:, None, None], outputs[f"mask_{theirs}"])


def test_steps_draw_the_tokens_at_the_next_places_and_keep_the_others():
    scheduler = HaltonScheduler(5, token_height=2, num_inference_steps=3)
    tokens = torch.full((2, 8), 5)
    tokens[1, 3] = 0  # given
    logits = torch.randn(3, 2, 8, 5, generator=torch.Generator().manual_seed(0))
    order = torch.tensor(halton_order(2, 4))
    expected = tokens.clone()
    for timestep, drawn_before, drawn_after in [(2, 0, 1), (1, 1, 3), (0, 3, 8)]:
        scores = logits[timestep]
        places = order[drawn_before:drawn_after]
        expected[:, places] = torch.where(expected == 5, scores.argmax(dim=-1), expected)[:, places]
        tokens, drawn = scheduler.step(scores, timestep, tokens, torch.zeros_like(scores), return_dict=False)
        assert torch.equal(tokens, expected) and (drawn < 5).all()
    assert tokens[1, 3] == 0


def test_each_step_draws_a_token_as_long_as_there_are_some():
    scheduler = HaltonScheduler(5, num_inference_steps=9)
    counts = [scheduler.num_drawn(timestep, 4).item() for timestep in scheduler.timesteps]
    assert counts == [1, 2, 3, 4, 4, 4, 4, 4, 4]


def test_refusals():
    with pytest.raises(ValueError, match="`masking_schedule` must be one of cosine, arccos, linear"):
        HaltonScheduler(3, "sine")
    tokens = torch.full((1, 6), 3)
    with pytest.raises(ValueError, match="The 6 tokens are not a square: set `token_height`"):
        HaltonScheduler(3).step(torch.zeros(1, 6, 3), 7, tokens, torch.zeros(1, 6, 3))
    with pytest.raises(ValueError, match="not a map of height 4"):
        HaltonScheduler(3, token_height=4).step(torch.zeros(1, 6, 3), 7, tokens, torch.zeros(1, 6, 3))
    for height in (0, -4, 2.0):
        with pytest.raises(ValueError, match="`token_height` must be a positive integer"):
            HaltonScheduler(3, token_height=height)
    for mask_token_id in (1.5, -1, True):
        with pytest.raises(ValueError, match="`mask_token_id` must be an integer of at least 0"):
            HaltonScheduler(mask_token_id)
