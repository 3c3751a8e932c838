import math

import numpy as np
import pytest
import torch

from diffusers_ext.pipelines import checks


@pytest.mark.parametrize("value", [1, 7, np.int32(3)])
def test_positive_integers(value):
    checks.check_positive_int("steps", value)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None, torch.tensor(1)])
def test_other_values_are_no_positive_integers(value):
    with pytest.raises(ValueError, match="`steps` must be a positive integer, but is"):
        checks.check_positive_int("steps", value)
    with pytest.raises(ValueError, match="`steps` must be an integer of at least 2, but is"):
        checks.check_positive_int("steps", value, least=2)


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "1", None, 1j])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match="`scale` must be a finite number, but is"):
        checks.check_number("scale", value)
    with pytest.raises(ValueError, match="`scale` must be a positive number, but is"):
        checks.check_positive("scale", value)


def test_numbers():
    for value in (-1, 0.5, np.float32(2)):
        checks.check_number("scale", value)
    checks.check_positive("scale", np.float64(0.5))
    with pytest.raises(ValueError, match="positive"):
        checks.check_positive("scale", 0)


def test_generators():
    one = torch.Generator()
    for generator in (None, one, [one, one]):
        checks.check_generator(generator, 2)
    for generator in (0, [one, 0], (one, one)):
        with pytest.raises(ValueError, match="`generator` must be a torch.Generator or a list of them"):
            checks.check_generator(generator, 2)
    with pytest.raises(ValueError, match="must be one generator or a list of 3, but is a list of 2"):
        checks.check_generator([one, one], 3)


def test_latents():
    checks.check_latents(None, (1, 2))
    checks.check_latents(torch.zeros(1, 2), (1, 2))
    checks.check_latents(torch.zeros(7, 2), (None, 2))
    for latents, found in (
        (torch.zeros(0, 2), r"\(0, 2\)"),
        (torch.zeros(2), r"\(2,\)"),
        (torch.zeros(1, 3), r"\(1, 3\)"),
        ([[0.0, 0.0]], "list"),
    ):
        with pytest.raises(ValueError, match=rf"must be a tensor of the shape \(N, 2\), but is {found}"):
            checks.check_latents(latents, (None, 2))
    with pytest.raises(ValueError, match="`latents` must be finite numbers"):
        checks.check_latents(torch.tensor([[0.0, float("nan")]]), (None, 2))


def test_output_types():
    for output_type, channels in (("pil", 1), ("pil", 3), ("pil", 4), ("np", 2), ("pt", 7)):
        checks.check_output_type(output_type, channels)
    checks.check_output_type("pil", 2, picture_channels=(1, 2, 3, 4))
    with pytest.raises(ValueError, match="PIL has no images of 2 channels"):
        checks.check_output_type("pil", 2)
    with pytest.raises(ValueError, match="`output_type` must be 'pil', 'np' or 'pt', but is 'jpg'"):
        checks.check_output_type("jpg", 3)


def test_sizes_and_callbacks():
    checks.check_multiple("The height", 8, 4)
    with pytest.raises(
        ValueError, match="The height must be a multiple of 4, because .* but is 6: 4 and 8 are nearest"
    ):
        checks.check_multiple("The height", 6, 4)
    with pytest.raises(ValueError, match="but is 3: 4 is nearest"):
        checks.check_multiple("The height", 3, 4)
    checks.check_callback_inputs(["latents"], ["latents", "noise_pred"])
    with pytest.raises(ValueError, match="must be among .* but has 'wishes'"):
        checks.check_callback_inputs(["wishes"], ["latents"])
