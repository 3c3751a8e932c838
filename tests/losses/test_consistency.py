import torch

from diffusers_ext.losses import pseudo_huber_loss


def test_it_is_quadratic_near_the_target_and_linear_far_from_it():
    target = torch.zeros(4, 3, 2, 2)
    offsets = torch.tensor([0.0, 0.0003, 30.0, 60.0])[:, None, None, None]
    losses = pseudo_huber_loss(target + offsets, target)
    assert losses.shape == (4,) and losses[0] == 0
    # half of the square over the width
    torch.testing.assert_close(losses[1].item(), 0.0003**2 / 0.06, rtol=1e-2, atol=0)
    torch.testing.assert_close(losses[3] - losses[2], torch.tensor(30.0), rtol=1e-4, atol=0)
