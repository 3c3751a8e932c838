import pytest
import torch

from diffusers_ext.models import StyleGANGenerator
from diffusers_ext.pipelines import GANPipeline
from tests.models.testing import ModelTesterConfig, ModelTesterMixin


class StyleGANGeneratorConfig(ModelTesterConfig):
    model_class = StyleGANGenerator
    output_shape = (3, 2, 8, 8)

    def get_init_dict(self):
        arguments = {"sample_size": 8, "out_channels": 2, "latent_dim": 6, "style_dim": 5, "num_classes": 3}
        return arguments | {"block_out_channels": (8, 6), "num_mapping_layers": 2}

    def get_inputs(self):
        latents = torch.randn((3, 6), generator=torch.Generator().manual_seed(0))
        return {"latents": latents, "class_labels": torch.tensor([2, 0, 1]), "truncation_psi": 0.7}


class TestStyleGANGenerator(StyleGANGeneratorConfig, ModelTesterMixin):
    pass


@torch.no_grad()
def test_features_have_the_mean_and_the_deviation_of_their_style():
    """Equation 1 of the paper."""
    model = StyleGANGeneratorConfig().get_model()
    layer, features = model.blocks[1].convs[1], []
    layer.register_forward_hook(lambda module, args, output: features.append(output))
    styles = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    model(styles=styles)
    scale, shift = layer.affine(styles).chunk(2, dim=1)
    torch.testing.assert_close(features[0].mean(dim=(2, 3)), shift, atol=1e-4, rtol=0)
    deviations = features[0].std(dim=(2, 3), correction=0)
    torch.testing.assert_close(deviations, (1 + scale).abs(), atol=1e-3, rtol=1e-2)


@torch.no_grad()
def test_a_pipeline_works_in_each_latent_space():
    pipe = GANPipeline(StyleGANGeneratorConfig().get_model())
    seed = torch.Generator().manual_seed(0)
    output = pipe([0, 1, 2, 1], noise="random", truncation_psi=0.5, generator=seed, output_type="pt")
    assert output.styles.shape == (4, 4, 5) and [maps.shape[-1] for maps in output.noise] == [4, 4, 8, 8]
    again = pipe(styles=output.styles, noise=output.noise, output_type="pt").images
    torch.testing.assert_close(again, output.images)
    mixed = pipe.mix_styles(output.styles[:2], output.styles[2:], layers=[2, 3], output_type="pt").images
    assert mixed.shape == (2, 2, 2, 8, 8)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="`sample_size` must be a power of two and at least 8, but is 4"):
        StyleGANGenerator(4)
    with pytest.raises(ValueError, match="must be 2 positive numbers"):
        StyleGANGenerator(8, block_out_channels=(4,))
