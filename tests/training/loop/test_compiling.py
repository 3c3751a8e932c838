import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffusers_ext.training.loop.compiling import compile_network


class Enlarging(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.last = nn.GroupNorm(4, 8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images):
        enlarged = F.interpolate(self.first(images), scale_factor=2.0, mode="nearest")
        return self.last(F.silu(self.norm(self.second(enlarged))))


@pytest.mark.slow
def test_gradients_pass_what_enlarges_images():
    images, found = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), {}
    for compiled in (False, True):
        torch.manual_seed(0)
        network = Enlarging()
        if compiled:
            torch.compiler.reset()
            compile_network(network)
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(images).float().square().mean()
        twice = torch.autograd.grad(loss, network.last.weight, retain_graph=True)[0]
        loss.backward()
        torch.testing.assert_close(network.last.weight.grad, twice)
        found[compiled] = torch.stack([weight.grad.norm() for weight in network.parameters()])
    assert found[True].min() > 0
    torch.testing.assert_close(found[True], found[False], rtol=0.02, atol=1e-3)
