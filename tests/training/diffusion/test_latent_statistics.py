import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel

from diffusers_ext.training.diffusion.latent_statistics import LatentStatistics, latent_moments, measure_latents
from tests.training.runs import context


def kl() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4, latent_channels=3)


def images(count: int = 7) -> torch.Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1


def measured(autoencoder, batches) -> LatentStatistics:
    return measure_latents(lambda batch: latent_moments(autoencoder, batch), batches, context())


def test_the_scale_is_that_of_draws_from_the_posterior():
    autoencoder = kl()
    found = measured(autoencoder, images().split(3))
    with torch.no_grad():
        posterior = autoencoder.encode(images()).latent_dist
    draws = torch.stack([posterior.sample(torch.Generator().manual_seed(seed)) for seed in range(2000)])
    assert found.num_images == 7 and found.std == pytest.approx(draws.std().item(), rel=0.01)
    torch.testing.assert_close(
        found.channel_std.float(), draws.movedim(2, 0).flatten(1).std(dim=1), rtol=0.01, atol=0.0
    )
    torch.testing.assert_close(found.mean.float(), draws.mean(dim=(0, 1, 3, 4)), rtol=0.0, atol=0.01)


def test_batches_do_not_matter():
    autoencoder = kl()
    one, many = measured(autoencoder, [images()]), measured(autoencoder, images().split(2))
    assert one.std == pytest.approx(many.std, rel=1e-6)


@pytest.mark.parametrize("kind", ["vq", "tiny"])
def test_latents_without_a_posterior(kind):
    torch.manual_seed(0)
    if kind == "vq":
        autoencoder = VQModel(in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4)
    else:
        blocks = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
        blocks |= {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
        autoencoder = AutoencoderTiny(in_channels=1, out_channels=1, **blocks)
    with torch.no_grad():
        latents = autoencoder.encode(images())[0]
    found = measured(autoencoder, [images()])
    assert found.std == pytest.approx(latents.double().std(correction=0).item(), rel=1e-6)
