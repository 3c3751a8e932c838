import pytest
import torch
from safetensors import safe_open

from diffusers_ext.models.modeling_noisy_classifier import POOLS, NoisyClassifier
from tests.models.testing import (
    ModelCompileTesterMixin,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTesterConfig,
    ModelTesterMixin,
    ModelTrainingTesterMixin,
)


class AttentionPoolConfig(ModelTesterConfig):
    """The architecture of the published classifiers, but small."""

    model_class = NoisyClassifier
    output_shape = (2, 5)

    def get_init_dict(self):
        return {
            "sample_size": 8,
            "in_channels": 3,
            "num_classes": 5,
            "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "downsample_type": "resnet",
            "attention_head_dim": 8,
            "norm_num_groups": 4,
            "pool": "attention",
        }

    def get_inputs(self):
        sample = torch.randn((2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        return {"sample": sample, "timestep": torch.tensor([700, 20])}


class SpatialPoolConfig(AttentionPoolConfig):
    def get_init_dict(self):
        return super().get_init_dict() | {
            "down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
            "downsample_type": "conv",
            "attention_head_dim": None,
            "num_attention_heads": 2,
            "time_projection_dim": 32,
            "pool": "spatial_v2",
        }


class TestAttentionPool(AttentionPoolConfig, ModelTesterMixin):
    pass


class TestSpatialPool(
    SpatialPoolConfig,
    ModelOutputTesterMixin,
    ModelSaveLoadTesterMixin,
    ModelTrainingTesterMixin,
    ModelCompileTesterMixin,
):
    pass


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (12, 20)])
def test_every_pool_at_every_size(pool, size):
    classifier = NoisyClassifier(sample_size=size, pool=pool).eval()
    sample = torch.randn(2, 1, *size)
    assert classifier(sample, 3).logits.shape == (2, 10)
    if pool != "attention":
        assert classifier(torch.randn(1, 1, 16, 16), 3).logits.shape == (1, 10)
        # 7 pixels become 4, and then 2
        assert classifier(torch.randn(1, 1, 7, 7), 3).logits.shape == (1, 10)


@pytest.mark.parametrize("downsample_type", ["conv", "resnet"])
def test_attention_pool_where_halves_are_not_whole(downsample_type):
    classifier = NoisyClassifier(
        sample_size=14,
        pool="attention",
        down_block_types=("AttnDownBlock2D",) * 3,
        downsample_type=downsample_type,
    )
    assert classifier(torch.randn(1, 1, 14, 14), 0).logits.shape == (1, 10)


@torch.no_grad()
def test_timesteps_of_every_kind():
    classifier = NoisyClassifier().eval()
    sample = torch.randn(2, 1, 8, 8)
    expected = classifier(sample, torch.tensor([7, 7])).logits
    for timestep in (7, 7.0, torch.tensor(7), torch.tensor([7.0])):
        torch.testing.assert_close(classifier(sample, timestep).logits, expected, rtol=0, atol=0)
    assert not torch.allclose(classifier(sample, 7.5).logits, expected, atol=1e-6)


def test_samples_do_not_see_each_other():
    classifier = NoisyClassifier().eval()
    sample, timesteps = torch.randn(3, 1, 8, 8), torch.tensor([1, 500, 900])
    together = classifier(sample, timesteps).logits
    for i in range(3):
        alone = classifier(sample[i : i + 1], timesteps[i]).logits
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"num_classes": 0}, "must be at least 1, but are 0 and 2"),
        ({"layers_per_block": 0}, "must be at least 1, but are 10 and 0"),
        ({"block_out_channels": (), "down_block_types": ()}, "`block_out_channels` must have an entry"),
        ({"pool": "max"}, "`pool` must be one of"),
        ({"pool": "attention"}, "`sample_size` must be given"),
        ({"block_out_channels": (32, 64)}, "must have the same length"),
        ({"attention_head_dim": 24}, "divided among"),
        ({"attention_head_dim": None, "num_attention_heads": 3}, "divided among"),
        ({"attention_head_dim": 48}, "cannot be divided among attention heads"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NoisyClassifier(**arguments)


def test_images_that_do_not_fit_are_refused():
    classifier = NoisyClassifier(sample_size=8, pool="attention")
    with pytest.raises(ValueError, match=r"must be of the size \(8, 8\)"):
        classifier(torch.randn(1, 1, 16, 16), 0)
    resnet = NoisyClassifier(down_block_types=("ResnetDownsampleBlock2D",) * 3)
    with pytest.raises(ValueError, match="too small"):
        resnet(torch.randn(1, 1, 3, 8), 0)


def test_weights_are_safetensors_under_plain_names(tmp_path):
    NoisyClassifier(sample_size=8, pool="attention").save_pretrained(tmp_path)
    with safe_open(tmp_path / "diffusion_pytorch_model.safetensors", "pt") as file:
        names = set(file.keys())
    assert {"conv_in.weight", "mid_block.attentions.0.to_q.weight", "head.2.positional_embedding"} <= names
