import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
)

from diffusers_ext.pipelines.pipeline_tokens_to_image import TokensToImagePipeline
from diffusers_ext.pipelines.token_sequences import draw_codes, get_null_prefix, get_text_prefix
from diffusers_ext.training.text_and_image.caption_tokenizer import make_caption_tokenizer
from tests.pipelines.test_pipeline_maskgit import NAMES, seeded, tiny_vqvae
from tests.pipelines.testing import (
    PipelineBatchTesterMixin,
    PipelineOutputTesterMixin,
    PipelineRandomnessTesterMixin,
    PipelineSaveLoadTesterMixin,
    PipelineTesterConfig,
    assert_equal,
)


def tiny_gpt(num_others: int = 5, prefix_length: int = 1) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=16 + num_others,
        n_positions=prefix_length + 7,
        n_embd=8,
        n_layer=2,
        n_head=2,
        bos_token_id=None,
        eos_token_id=None,
        initializer_range=0.7,
        tie_word_embeddings=False,
    )
    return GPT2LMHeadModel(config).eval()


def tiny_tokenizer():
    tokenizer = make_caption_tokenizer(["a red one", "a blue two"] * 2, 520)
    tokenizer.model_max_length = 8
    return tokenizer


def tiny_clip(tokenizer) -> tuple[CLIPModel, CLIPProcessor]:
    torch.manual_seed(0)
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(**tower, vocab_size=len(tokenizer), max_position_embeddings=8, eos_token_id=513)
    vision = CLIPVisionConfig(**tower, image_size=8, patch_size=4)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    size = {"height": 8, "width": 8}
    return CLIPModel(config).eval(), CLIPProcessor(CLIPImageProcessor(size=size, crop_size=size), tokenizer)


class LabelConfig(PipelineTesterConfig):
    pipeline_class = TokensToImagePipeline
    output_shape = (3, 3, 8, 4)
    batch_params = ("class_labels",)
    num_images_param = "num_images_per_label"

    def get_components(self):
        return {
            "transformer": tiny_gpt(),
            "vqvae": tiny_vqvae(),
            "token_height": 4,
            "token_width": 2,
            "id2label": NAMES,
            "null_class_label": 4,
        }

    def get_inputs(self):
        return {"class_labels": [3, "one", 3]}


class TextConfig(LabelConfig):
    batch_params = ("prompt",)
    num_images_param = "num_images_per_prompt"

    def get_components(self):
        tokenizer = tiny_tokenizer()
        clip, processor = tiny_clip(tokenizer)
        return {
            "transformer": tiny_gpt(len(tokenizer) + 8, prefix_length=8),
            "vqvae": tiny_vqvae(),
            "token_height": 4,
            "token_width": 2,
            "tokenizer": tokenizer,
            "clip": clip,
            "clip_processor": processor,
            "knows_no_text": True,
        }

    def get_inputs(self):
        return {"prompt": ["a red one", "a blue two", "a red one"], "guidance_scale": 2.0}


class TestOutput(LabelConfig, PipelineOutputTesterMixin):
    pass


class TestSaveLoad(LabelConfig, PipelineSaveLoadTesterMixin):
    pass


class TestTextSaveLoad(TextConfig, PipelineSaveLoadTesterMixin):
    test_optional_components_may_be_missing = None  # those for texts belong to the network


class TestRandomness(LabelConfig, PipelineRandomnessTesterMixin):
    def test_latents_are_the_first_noise(self):
        pipe = self.get_pipeline()
        latents = torch.rand((3, 1, 8), generator=seeded())
        assert_equal(self.run(pipe, latents=latents), self.run(pipe, seed=1, latents=latents))
        assert_equal(self.run(pipe, latents=latents), self.run(pipe))


class TestBatch(LabelConfig, PipelineBatchTesterMixin):
    pass


class TestTextBatch(TextConfig, PipelineBatchTesterMixin):
    pass


class TestRerankedBatch(TextConfig, PipelineBatchTesterMixin):
    def get_inputs(self):
        return {**super().get_inputs(), "num_candidates": 3}


def make_pipeline(**changes) -> TokensToImagePipeline:
    return LabelConfig().get_pipeline(**changes)


def make_text_pipeline(**changes) -> TokensToImagePipeline:
    return TextConfig().get_pipeline(**changes)


def test_texts_are_filled_up_with_a_token_for_each_position():
    tokenizer, device = tiny_tokenizer(), torch.device("cpu")
    (tokens,), (null,) = (
        get_text_prefix(tokenizer, ["a red one"], 16, device),
        get_null_prefix(tokenizer, 16, device),
    )
    ids = torch.tensor(tokenizer("a red one").input_ids)
    assert torch.equal(tokens[: len(ids)], ids + 16) and torch.equal(tokens[len(ids) :], null[len(ids) :])
    assert null.tolist() == [16 + len(tokenizer) + position for position in range(8)]


def test_draws_are_the_inverse_of_the_cumulative_distribution():
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log().expand(5, -1)
    uniforms = torch.tensor([0.0, 0.15, 0.31, 0.59, 0.61])
    assert draw_codes(logits, uniforms).tolist() == [0, 1, 2, 2, 3]
    assert draw_codes(logits, uniforms, top_k=1).tolist() == [3] * 5
    assert draw_codes(logits, uniforms, top_k=2).tolist() == [2, 2, 2, 3, 3]
    assert draw_codes(logits, uniforms, top_p=0.6).tolist() == [2, 2, 2, 3, 3]
    assert draw_codes(logits[1:], uniforms[1:], temperature=0.01).tolist() == [3] * 4
    last = torch.tensor([1 - 2**-24])  # the largest number below 1
    assert draw_codes(torch.tensor([[0.3, 0.1, -9.0]]), last, top_k=2).tolist() == [1]


@pytest.mark.parametrize("make", [make_pipeline, make_text_pipeline])
@torch.no_grad()
def test_the_cache_computes_the_same_logits_and_draws_the_same_images(make):
    pipe, text = make(), make is make_text_pipeline
    inputs = {"prompt": ["a red one", "a blue two"]} if text else {"class_labels": [1, 2]}
    cached, whole = (
        pipe(**inputs, use_cache=use_cache, guidance_scale=2.0, generator=seeded(), output_type="pt").images
        for use_cache in (True, False)
    )
    torch.testing.assert_close(cached, whole, rtol=0, atol=1e-6)


@torch.no_grad()
def test_drawn_codes_follow_the_likelihoods_of_the_transformer():
    pipe = make_pipeline()
    seen = []
    pipe(
        class_labels=[2],
        top_k=1,
        output_type="pt",
        callback_on_step_end=lambda pipe, row, timestep, tensors: seen.append(tensors["tokens"].clone()),
    )
    sequence = torch.cat([torch.tensor([[16 + 2]]), seen[-1]], dim=1)
    logits = pipe.transformer(sequence[:, :-1]).logits[:, :, :16]
    assert torch.equal(logits.argmax(dim=2), seen[-1])
    assert (seen[0][:, 2:] == 0).all()


def test_completion_keeps_the_codes_that_are_given():
    pipe, seen = make_pipeline(), []
    image = torch.rand(3, 8, 4, generator=seeded())
    pipe(
        class_labels=[0, 1],
        image=image,
        generator=seeded(),
        callback_on_step_end=lambda pipe, row, timestep, tensors: seen.append(tensors["tokens"].clone()),
    )
    tokens = pipe.vqvae.quantize(pipe.vqvae.encode(2 * image[None] - 1).latents).codes.flatten(1)
    assert torch.equal(seen[-1][:, :4], tokens[:, :4].expand(2, -1))
    assert not torch.equal(seen[-1][:, 4:], tokens[:, 4:].expand(2, -1))


def test_the_candidate_is_chosen_that_clip_finds_nearest():
    pipe = make_text_pipeline()
    inputs = {"prompt": "a red one", "output_type": "pt"}
    latents = torch.rand((1, 4, 8), generator=seeded())
    candidates = torch.cat([pipe(**inputs, latents=latents[:, i : i + 1]).images for i in range(4)])
    chosen = pipe(**inputs, latents=latents, num_candidates=4).images
    processed = pipe.clip_processor(
        text=["a red one"], images=[image.mul(255).round().byte() for image in candidates], return_tensors="pt"
    )
    with torch.no_grad():
        best = pipe.clip(**processed).logits_per_image.argmax()
    torch.testing.assert_close(chosen[0], candidates[best], rtol=0, atol=1e-5)


def test_no_text_and_guidance_of_scale_0_draw_the_same():
    pipe = make_text_pipeline()
    null = pipe(generator=seeded(), output_type="pt").images
    assert_equal(pipe("a red one", guidance_scale=0.0, generator=seeded(), output_type="pt").images, null)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"class_labels": 5}, "There is no class 5"),
        ({"prompt": "a red one"}, "`prompt` must be left out, because the pipeline has no `tokenizer`"),
        ({"num_images_per_prompt": 2}, "`num_images_per_prompt` needs a `prompt`"),
        ({"temperature": 0}, "`temperature` must be a positive number"),
        ({"top_k": 0}, "`top_k` must be a positive integer"),
        ({"top_p": 0}, "`top_p` must be a positive number"),
        ({"num_candidates": 2}, "`num_candidates` above 1 needs a `prompt` and a pipeline with `clip`"),
        ({"latents": torch.zeros(1, 8)}, "`latents` must be a tensor of the shape"),
        ({"class_labels": None, "guidance_scale": 2.0}, "`guidance_scale` guides to a condition"),
    ],
)
def test_refusals(inputs, message):
    with pytest.raises(ValueError, match=message):
        make_pipeline()(**{"class_labels": 0, **inputs})


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"prompt": []}, "`prompt` must be a text or a list of texts"),
        ({"prompt": "one", "class_labels": 3}, "`class_labels` must be left out"),
        ({"prompt": "one", "num_images_per_label": 2}, "pass `num_images_per_prompt`"),
    ],
)
def test_refusals_with_text(inputs, message):
    with pytest.raises(ValueError, match=message):
        make_text_pipeline()(**inputs)


def test_texts_that_were_never_hidden():
    pipe = make_text_pipeline(knows_no_text=False)
    with pytest.raises(ValueError, match="`prompt` must be given"):
        pipe()
    with pytest.raises(ValueError, match="has always seen the condition"):
        pipe("a red one", guidance_scale=2.0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"token_width": 3}, "`transformer` has 8 positions, but needs 12"),
        ({"tokenizer": tiny_tokenizer()}, "must have those of the 16 codes of `vqvae` and [0-9]+ tokens of texts"),
        ({"transformer": tiny_gpt(0)}, "and one label at least"),
        ({"null_class_label": 5}, "`null_class_label` has the label 5"),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        make_pipeline(**changes)
