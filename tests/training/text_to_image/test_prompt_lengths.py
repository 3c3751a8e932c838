"""Prompts that some text encoders read to their ends, and others do not."""

import pytest
from diffusers import DiffusionPipeline
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel

from diffusers_ext.training.text_to_image.base_models import take_apart
from diffusers_ext.training.text_to_image.prompt_lengths import (
    find_cut_prompts,
    refuse_cut_prompts,
    warn_of_cut_prompts,
)
from tests.training.text_to_image_models import PROMPT_LENGTH, tiny_base


FITS, READ_BY_T5, CUT = "a" * (PROMPT_LENGTH - 2), "a" * (PROMPT_LENGTH - 1), "a" * 300
CLIPS = ("text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def base():
    """A Stable Diffusion 3 with a T5, which reads 256 tokens; its tokenizer has one for each byte."""
    t5 = T5EncoderModel(T5Config(vocab_size=384, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2))
    pipe = DiffusionPipeline.from_pretrained(tiny_base("sd3"), text_encoder_3=t5, tokenizer_3=ByT5Tokenizer())
    return take_apart(pipe, "sd3")


def test_the_encoders_that_cut_a_prompt_are_named(base, caplog):
    prompts = [FITS, READ_BY_T5, CUT]
    assert find_cut_prompts(base, prompts) == {READ_BY_T5: CLIPS, CUT: (*CLIPS, "text_encoder_3")}
    warn_of_cut_prompts(base, prompts, "captions")
    partly, wholly = caplog.messages
    assert partly.startswith(
        "1 of 3 captions are longer than text_encoder, text_encoder_2 of sd3 read (24 tokens): only text_encoder_3 "
        "(256 tokens) reads their ends."
    )
    assert wholly.startswith(
        "1 of 3 captions are longer than the text encoders of sd3 read (256 tokens): their ends have no effect."
    )


def test_a_prompt_that_one_encoder_reads_is_not_refused(base):
    refuse_cut_prompts(base, [FITS, None, READ_BY_T5], "--instance_prompt")
    with pytest.raises(ValueError, match=r"--instance_prompt 'aaa.* \(256 tokens\), so that its end"):
        refuse_cut_prompts(base, [READ_BY_T5, CUT], "--instance_prompt")
