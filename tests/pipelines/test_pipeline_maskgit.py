import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from diffusers_ext import VQVAEModel
from diffusers_ext.pipelines.pipeline_maskgit import MaskGITPipeline
from diffusers_ext.schedulers import HaltonScheduler, MaskGITScheduler
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
)
from tests.tiny_autoencoders import tiny_vq_model


NAMES = {0: "zero", 1: "one", 2: "two", 3: "three"}


def tiny_vqvae(**changes) -> VQVAEModel:
    torch.manual_seed(0)
    options = {"num_embeddings": 16, "embedding_dim": 4, "hidden_channels": 8, "num_residual_layers": 0}
    model = VQVAEModel(**{"sample_size": (8, 4), "num_downsamples": 1, **options, **changes}).eval()
    with torch.no_grad():  # fresh entries hardly differ
        model.quantizer.embeddings.normal_()
    return model


def tiny_bert(num_codes: int = 16, num_labels: int = 5, length: int = 8) -> BertForMaskedLM:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=num_codes + num_labels + 1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=1 + length,
        type_vocab_size=1,
        initializer_range=0.5,
    )
    return BertForMaskedLM(config).eval()


class MaskGITConfig(PipelineTesterConfig):
    pipeline_class = MaskGITPipeline
    output_shape = (3, 3, 8, 4)
    batch_params = ("class_labels",)
    num_images_param = "num_images_per_label"

    def get_components(self):
        return {
            "transformer": tiny_bert(),
            "vqvae": tiny_vqvae(),
            "scheduler": MaskGITScheduler(21, num_inference_steps=3),
            "token_height": 4,
            "token_width": 2,
            "id2label": NAMES,
            "null_class_label": 4,
        }

    def get_inputs(self):
        return {"class_labels": [3, "one", 3]}


class TestOutput(MaskGITConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(MaskGITConfig, PipelineSaveLoadTesterMixin):
    pass


class TestRandomness(MaskGITConfig, PipelineRandomnessTesterMixin):
    test_latents_are_the_first_noise = None  # there is no first noise: each step draws


class TestBatch(MaskGITConfig, PipelineBatchTesterMixin):
    pass


class TestGuidedBatch(MaskGITConfig, PipelineBatchTesterMixin):
    def get_inputs(self):
        return {**super().get_inputs(), "guidance_scale": 3.0}


class TestHaltonSaveLoad(MaskGITConfig, PipelineSaveLoadTesterMixin):
    def get_components(self):
        scheduler = HaltonScheduler(21, token_height=4, num_inference_steps=3)
        return {**super().get_components(), "scheduler": scheduler}


def make_pipeline(**changes) -> MaskGITPipeline:
    return MaskGITConfig().get_pipeline(**changes)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@torch.no_grad()
def test_codes_come_back_from_the_images_of_a_vq_model_of_diffusers():
    pipe = make_pipeline(vqvae=tiny_vq_model())
    images = pipe(class_labels=[0, 1], generator=seeded(), output_type="pt").images
    assert images.shape == (2, 3, 8, 4)
    entries = pipe.vqvae.quantize.embedding.weight
    assert entries.shape == (16, 4)


def test_only_tokens_under_the_mask_are_drawn_and_other_pixels_stay():
    pipe = make_pipeline()
    image = torch.rand(3, 8, 4, generator=seeded())
    tokens = []

    def callback(pipe, step, timestep, tensors):
        tokens.append(tensors["tokens"].view(-1, 4, 2))

    inputs = {"class_labels": [0, 1], "image": image, "mask_image": (0, 4, 4, 7), "output_type": "pt"}
    changed = pipe(**inputs, generator=seeded(), callback_on_step_end=callback).images
    assert torch.equal(changed[:, :, :4], image[:, :4].expand(2, -1, -1, -1))
    assert torch.equal(changed[:, :, 7], image[:, 7].expand(2, -1, -1))
    assert not torch.equal(changed[:, :, 4:7], image[:, 4:7].expand(2, -1, -1, -1))
    assert len(tokens) == 3 and all(torch.equal(seen[:, :2], tokens[0][:, :2]) for seen in tokens)
    assert (tokens[0][:, :2] != 21).all() and (tokens[0][:, 2:] == 21).any() and (tokens[-1] < 16).all()


def test_guidance_and_no_class():
    pipe = make_pipeline()
    plain, guided, strong, null = (
        pipe(**inputs, generator=seeded(), output_type="pt").images
        for inputs in (
            {"class_labels": [2]},
            {"class_labels": [2], "guidance_scale": 1.0},
            {"class_labels": [2], "guidance_scale": 20.0},
            {},
        )
    )
    assert_equal(guided, plain)
    assert not torch.equal(strong, plain) and not torch.equal(null, plain)
    without = pipe(class_labels=[2], guidance_scale=0.0, generator=seeded(), output_type="pt").images
    assert_equal(without, null)


def test_an_interrupted_call_gives_whole_images():
    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = True

    images = make_pipeline()(class_labels=0, output_type="pt", callback_on_step_end=stop).images
    assert images.shape == (1, 3, 8, 4)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"class_labels": 5}, "There is no class 5"),
        ({"class_labels": 4}, "stands for no class"),
        ({"mask_image": (0, 0, 1, 1)}, "`mask_image` is for changing an `image`"),
        ({"image": torch.zeros(3, 8, 5)}, "must have the network's height and width"),
        ({"image": torch.zeros(3, 3, 8, 4), "class_labels": [0, 1]}, "`image` must be one image or 2"),
        ({"class_labels": None, "guidance_scale": 2.0}, "`guidance_scale` guides to a condition"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be a positive integer"),
        ({"output_type": "latent"}, "`output_type` must be"),
    ],
)
def test_refusals(inputs, message):
    with pytest.raises(ValueError, match=message):
        make_pipeline()(**{"class_labels": 0, **inputs})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"scheduler": MaskGITScheduler(20)}, "The mask token of `scheduler` is 20, but must be the last of the 22"),
        ({"token_width": 3}, "`transformer` has 9 positions, but 4x3 codes and a label need one for each"),
        ({"id2label": {9: "nine"}}, "`id2label` has the label 9"),
        (
            {"vqvae": tiny_vqvae(body="mlp", hidden_dims=(8,), latent_dim=8)},
            "must make one map of codes of each image",
        ),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        make_pipeline(**changes)


def test_guidance_needs_a_label_for_no_class():
    pipe = make_pipeline(null_class_label=None)
    with pytest.raises(ValueError, match="there is no `null_class_label`"):
        pipe(class_labels=0, guidance_scale=2.0)
    with pytest.raises(ValueError, match="`class_labels` must be given"):
        pipe()
