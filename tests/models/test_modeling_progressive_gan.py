import pytest
import torch

from diffusers_ext.models import ProgressiveDiscriminator, ProgressiveGenerator
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class GrowingGeneratorConfig(ModelTesterConfig):
    model_class = ProgressiveGenerator
    output_shape = (3, 2, 8, 8)

    def get_init_dict(self):
        arguments = {"sample_size": 8, "out_channels": 2, "latent_dim": 6, "block_out_channels": (8, 6)}
        return arguments | {"num_classes": 3}

    def get_inputs(self):
        latents = torch.randn((3, 6), generator=torch.Generator().manual_seed(0))
        return {"latents": latents, "class_labels": torch.tensor([2, 0, 1]), "fade": 0.3}


class GrowingDiscriminatorConfig(ModelTesterConfig):
    model_class = ProgressiveDiscriminator
    output_shape = (4,)

    def get_init_dict(self):
        return {"sample_size": 8, "in_channels": 2, "block_out_channels": (8, 6), "pools_first": False}

    def get_inputs(self):
        sample = torch.randn((4, 2, 8, 8), generator=torch.Generator().manual_seed(0))
        return {"sample": sample, "fade": 0.3}


class TestGrowingGenerator(GrowingGeneratorConfig, ModelTesterMixin):
    pass


class TestGrowingDiscriminator(GrowingDiscriminatorConfig, ModelTesterMixin):
    pass


@torch.no_grad()
def test_each_resolution_fades_in():
    torch.manual_seed(0)
    generator = ProgressiveGenerator(16, 1, 4, block_out_channels=(6, 5, 4)).eval()
    discriminator = ProgressiveDiscriminator(16, 1, block_out_channels=(6, 5, 4)).eval()
    latents = torch.randn(4, 4)
    for size in (8, 16):
        coarser, start, end = (
            generator(latents, resolution=r, fade=f).sample for r, f in ((size // 2, 1), (size, 0), (size, 1))
        )
        torch.testing.assert_close(start, coarser.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))
        torch.testing.assert_close(generator(latents, resolution=size, fade=0.25).sample, start.lerp(end, 0.25))
        # at the start of a resolution, only the halved image counts
        halved = torch.nn.functional.avg_pool2d(end, 2)
        torch.testing.assert_close(discriminator(end, fade=0.0).logits, discriminator(halved).logits)


@torch.no_grad()
def test_the_generator_of_a_smaller_resolution_has_the_same_weights():
    torch.manual_seed(0)
    generator = ProgressiveGenerator(16, 1, 4, block_out_channels=(6, 5, 4)).eval()
    latents = torch.randn(4, 4)
    state = torch.random.get_rng_state()
    for size in (4, 8, 16):
        smaller = generator.up_to(size)
        assert torch.equal(smaller(latents).sample, generator(latents, resolution=size).sample)
        assert smaller.linear_in.weight.data_ptr() == generator.linear_in.weight.data_ptr() and not smaller.training
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(ValueError, match="The resolution must be"):
        generator.up_to(32)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="`sample_size` must be a power of two"):
        ProgressiveGenerator(12)
    with pytest.raises(ValueError, match="must be 3 positive numbers"):
        ProgressiveDiscriminator(16, block_out_channels=(4, 4))
    generator = ProgressiveGenerator(8, latent_dim=4, block_out_channels=(4, 4))
    with pytest.raises(ValueError, match="The resolution must be 4, 8 ... or 8, but is 16"):
        generator(torch.zeros(1, 4), resolution=16)
    with pytest.raises(ValueError, match="The resolution must be"):
        ProgressiveDiscriminator(8, block_out_channels=(4, 4))(torch.zeros(1, 3, 12, 12))
