import pytest
import torch
from diffusers import (
    ClassifierFreeGuidance,
    DDIMScheduler,
    DiTTransformer2DModel,
    LDMPipeline,
    ModelMixin,
    UNet2DConditionModel,
)
from diffusers.configuration_utils import ConfigMixin, register_to_config

from diffusers_ext import ClassConditionalPipeline
from diffusers_ext.pipelines.latent_space import LatentSpace
from tests.pipelines.test_pipeline_class_conditional import ClassConditionalConfig, make_unet
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    assert_equal,
)
from tests.tiny_autoencoders import tiny_dc, tiny_taesd, tiny_vae, tiny_vq_model


class LatentConfig(ClassConditionalConfig):
    """Latents of half the size, which an autoencoder decodes."""

    output_shape = (3, 3, 16, 16)
    latents_shape = (3, 4, 8, 8)

    def get_components(self):
        unet = make_unet(in_channels=4, out_channels=4)
        return {**super().get_components(), "unet": unet, "vae": tiny_vae(scaling_factor=0.7, shift_factor=0.1)}


def tiny_dit() -> DiTTransformer2DModel:
    """With labels for four classes, and one more for none."""
    torch.manual_seed(0)
    return DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=4,
        norm_num_groups=4,
    ).eval()


class TransformerConfig(LatentConfig):
    """A DiT, and latents that are quantized at the end."""

    def get_components(self):
        return {**super().get_components(), "unet": tiny_dit(), "vae": tiny_vq_model()}


class Embedder(ModelMixin, ConfigMixin):
    """A vector of context for each label."""

    @register_to_config
    def __init__(self, num_class_embeds: int = 5, dim: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(num_class_embeds, dim)

    def forward(self, class_labels):
        return self.embedding(class_labels)[:, None]


class CrossAttentionConfig(LatentConfig):
    """Labels that a U-Net of text-to-image attends to."""

    def get_components(self):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
            cross_attention_dim=8,
            attention_head_dim=2,
        ).eval()
        return {**super().get_components(), "unet": unet, "class_embedder": Embedder()}


class TestOutput(LatentConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(LatentConfig, PipelineSaveLoadTesterMixin):
    pass


class TestRandomness(LatentConfig, PipelineRandomnessTesterMixin):
    pass


class TestBatch(LatentConfig, PipelineBatchTesterMixin):
    pass


class TestTransformerOutput(TransformerConfig, PipelineOutputTesterMixin):
    pass


class TestTransformerSaveLoad(TransformerConfig, PipelineSaveLoadTesterMixin):
    pass


class TestCrossAttentionOutput(CrossAttentionConfig, PipelineOutputTesterMixin):
    pass


class TestCrossAttentionBatch(CrossAttentionConfig, PipelineBatchTesterMixin):
    pass


def make_pipeline(config: type[LatentConfig] = LatentConfig, **changes) -> ClassConditionalPipeline:
    return config().get_pipeline(**changes)


def draw(pipe, **arguments):
    arguments = {"class_labels": [3, "one"], "generator": torch.Generator().manual_seed(0), **arguments}
    return pipe(output_type="pt", **arguments).images


@pytest.mark.parametrize("config", [LatentConfig, TransformerConfig, CrossAttentionConfig])
def test_labels_and_guidance_matter(config):
    pipe = make_pipeline(config, guider=None)
    images = draw(pipe)
    assert not torch.equal(images, draw(pipe, class_labels=[2, "one"])) and images[0].ne(images[1]).any()
    assert not torch.equal(images, draw(pipe, guidance_scale=3.0))
    assert_equal(draw(pipe, guidance_scale=3.0), draw(make_pipeline(config, guider=ClassifierFreeGuidance(3.0))))


def test_images_are_the_decoded_latents():
    pipe, seen = make_pipeline(), []
    images = draw(pipe, callback_on_step_end=lambda pipe, i, t, tensors: seen.append(tensors["latents"]) or {})
    vae = pipe.vae
    decoded = vae.decode(seen[-1] / 0.7 + 0.1).sample
    torch.testing.assert_close(images, (decoded / 2 + 0.5).clamp(0, 1))


def test_sizes_are_those_of_images():
    pipe = make_pipeline()
    assert pipe.image_shape == (3, 16, 16)
    assert draw(pipe, height=32, width=8).shape == (2, 3, 32, 8)
    with pytest.raises(ValueError, match="`width` must be a multiple of 4"):
        draw(pipe, width=18)
    with pytest.raises(ValueError, match=r"`latents` .*\(2, 4, 8, 8\)"):
        draw(pipe, latents=torch.zeros(2, 3, 16, 16))


def test_a_network_for_other_latents_is_refused():
    with pytest.raises(ValueError, match="`unet` makes 3 channels, but the latents of `vae` have 4"):
        make_pipeline(unet=make_unet())
    with pytest.raises(ValueError, match="`vae` must encode images .* its class is UNet2DModel"):
        make_pipeline(vae=make_unet())


def test_an_unconditional_model_runs_in_diffusers_pipeline_and_back():
    """LDMPipeline knows a `scaling_factor`, and neither a shift nor scales of channels."""
    unet, vae = make_unet(None, in_channels=4, out_channels=4), tiny_vq_model(scaling_factor=0.5)
    scheduler = DDIMScheduler(clip_sample=False)
    pipe = ClassConditionalPipeline(unet, scheduler, vae=vae)
    pipe.set_progress_bar_config(disable=True)
    stock = LDMPipeline(vqvae=pipe.vae, unet=pipe.unet, scheduler=DDIMScheduler.from_config(scheduler.config))
    stock.set_progress_bar_config(disable=True)
    arguments = {"num_inference_steps": 4, "batch_size": 2}
    expected = stock(**arguments, generator=torch.Generator().manual_seed(0), output_type="np").images
    images = pipe(**arguments, generator=torch.Generator().manual_seed(0), output_type="np").images
    torch.testing.assert_close(torch.tensor(images), torch.tensor(expected))

    taken = ClassConditionalPipeline.from_pipe(stock)
    assert taken.vae is vae and taken.unet is unet
    images = taken(**arguments, generator=torch.Generator().manual_seed(0), output_type="np").images
    torch.testing.assert_close(torch.tensor(images), torch.tensor(expected))


# The space


@pytest.mark.parametrize("build", [tiny_vae, tiny_vq_model, tiny_taesd, tiny_dc])
@torch.no_grad()
def test_latents_of_every_autoencoder_are_scaled_and_decoded(build):
    vae, images = build(), torch.rand(2, 3, 16, 16) * 2 - 1
    space = LatentSpace(vae)
    assert (space.channels, space.image_channels, space.pixels_per_latent) == (4, 3, 2)
    latents = space.encode(images)
    assert latents.shape == (2, 4, 8, 8) and latents.dtype == torch.float32
    plain = vae.encode(images, return_dict=False)[0]
    plain = plain.mode() if build is tiny_vae else plain
    torch.testing.assert_close(latents, plain * vae.config.scaling_factor)
    torch.testing.assert_close(space.decode(latents), vae.decode(plain).sample, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_latents_are_drawn_from_their_posterior():
    vae, images, noise = tiny_vae(), torch.rand(2, 3, 16, 16) * 2 - 1, torch.randn(2, 4, 8, 8)
    space = LatentSpace(vae)
    posterior = vae.encode(images).latent_dist
    expected = (posterior.mean + posterior.std * noise) * vae.config.scaling_factor
    torch.testing.assert_close(space.sample(space.encode_moments(images), noise), expected)
    # Without a posterior, there is nothing to draw.
    space = LatentSpace(tiny_vq_model())
    assert_equal(space.sample(space.encode_moments(images), noise), space.encode(images))


@torch.no_grad()
def test_channels_can_have_their_own_scales():
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.0, 2.0, 0.5, 4.0]
    space = LatentSpace(tiny_vae(latents_mean=mean, latents_std=std, scaling_factor=1.0))
    images = torch.rand(1, 3, 16, 16)
    plain = space.vae.encode(images).latent_dist.mode()
    expected = (plain - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(space.encode(images), expected)
    torch.testing.assert_close(space.unscale(space.scale(plain)), plain)
