import re
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from diffusers_ext.hub.repository import files_to_publish
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.loop.trainer import Trainer
from diffusers_ext.training.loop.weights import weights_fingerprint
from diffusers_ext.training.train_textual_inversion import (
    FILE_OF_ALL,
    TEMPLATES,
    TextualInversionConfig,
    TextualInversionRecipe,
)
from tests.training.runs import records, tensors, trainer as build_trainer
from tests.training.text_to_image_models import FAMILIES, PROMPT_LENGTH, captioned_images, tiny_base
from tests.training.text_to_image_runs import OPTIONS, image, load, run_on_one_and_two_processes
from tests.waits import waits_of_an_update


WORD = "<cat>"
PROMPT = f"a {WORD} too"
FILES = {"text_encoder": "learned_embeds.safetensors", "text_encoder_2": "learned_embeds_2.safetensors"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return captioned_images(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture
def trainer(pictures, tmp_path):
    def make(family="sd1", folder="run", precision="no", **options) -> Trainer:
        base = tiny_base(family)
        options = {"pretrained_model_name_or_path": base, "train_data_dir": pictures, **OPTIONS, **options}
        config = TextualInversionConfig(**{"placeholder_token": WORD, **options}, output_dir=str(tmp_path / folder))
        return build_trainer(TextualInversionRecipe, config, mixed_precision=precision)

    return make


def rows_of(made: Trainer) -> dict[str, torch.Tensor]:
    """The averaged vectors, which are published."""
    with made.outputs._generation():
        return {name: rows.detach().clone() for name, rows in made.networks["placeholder_vectors"]().items()}


def as_the_card_says(folder: Path):
    """The pipeline that the first block of Python in the card loads."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    names = {}
    exec(code.rpartition("image = ")[0], names)
    names["pipe"].set_progress_bar_config(disable=True)
    return names["pipe"]


@pytest.mark.parametrize(
    ("family", "num_vectors"),
    [
        ("sd1", 1),
        pytest.param("sd2", 3, marks=pytest.mark.slow),
        ("sdxl", 2),
        pytest.param("sd3", 2, marks=pytest.mark.slow),
    ],
)
def test_words_give_the_same_images_in_diffusers(trainer, tmp_path, family, num_vectors):
    made = trainer(family, num_vectors=num_vectors, initializer_token="c")
    base = made.recipe.base
    others = {name: encoder.get_input_embeddings().embedding for name, encoder in base.text_encoders.items()}
    before = weights_fingerprint(*others.values(), base.denoiser, base.vae)
    assert made.train()
    assert weights_fingerprint(*others.values(), base.denoiser, base.vae) == before
    assert set(made.networks["placeholder_vectors"].state_dict()) == {f"vectors.{name}" for name in others}

    folder = tmp_path / "run"
    pipeline = as_the_card_says(folder)
    prompt = PROMPT
    if family == "sd3":
        prompt = pipeline.maybe_convert_prompt(PROMPT, pipeline.tokenizer)
        assert prompt == f"a {WORD} {WORD}_1 too"
    with made.outputs._generation() as generate:
        ours = image(generate.pipeline, prompt)
    assert np.array_equal(image(pipeline, prompt), ours)

    stock, plain = load(tiny_base(family), family), rows_of(made)
    assert not np.array_equal(image(stock, PROMPT), ours)
    for name in others:
        # The loaded embeddings: the rows of the base, followed by the learned ones.
        rows = load_file(folder / FILES[name])[WORD]
        known, loaded = (p.get_input_embeddings().weight for p in (getattr(stock, name), getattr(pipeline, name)))
        words = len(getattr(stock, name.replace("text_encoder", "tokenizer")))
        assert torch.equal(loaded[:words], known[:words]) and torch.equal(loaded[words:], rows)
        assert torch.equal(rows, plain[name]) and rows.shape == (num_vectors, known.shape[-1])
        assert not torch.equal(rows[0], known[base.tokenizers[name].convert_tokens_to_ids("c</w>")])
    assert sorted(path.name for path in folder.glob("*.safetensors")) == sorted(
        [FILES[name] for name in others] + [FILE_OF_ALL] * (len(others) > 1)
    )
    if len(others) > 1:
        both = load_file(folder / FILE_OF_ALL)
        assert torch.equal(both["clip_l"], plain["text_encoder"])
        assert torch.equal(both["clip_g"], plain["text_encoder_2"])
    assert set(files_to_publish(folder)) >= {FILES[name] for name in others}
    assert max(path.stat().st_size for path in (folder / "checkpoint-2").iterdir()) < 50_000


def test_a_word_starts_from_its_initialiser(trainer):
    made = trainer("sdxl", num_vectors=3, initializer_token="dog")
    base, vectors = made.recipe.base, made.networks["placeholder_vectors"]()
    for name, rows in vectors.items():
        table = base.text_encoders[name].get_input_embeddings().embedding.weight
        ids = base.tokenizers[name].convert_tokens_to_ids(["d", "o", "g</w>"])
        assert torch.equal(rows, table[ids])
    # Each vector starts as one of these letters, so the word has the same embeddings as they.
    text = made.recipe.encode_prompts([PROMPT, "a dog too"])
    assert torch.equal(text["prompt_embeds"][0], text["prompt_embeds"][1])


def test_a_word_without_initialiser_starts_from_the_mean(trainer):
    made = trainer()
    table = made.recipe.base.text_encoders["text_encoder"].get_input_embeddings().embedding.weight
    torch.testing.assert_close(made.networks["placeholder_vectors"]()["text_encoder"][0], table.mean(dim=0))


def prompts_of(made: Trainer, count=200) -> list[str]:
    batch = next(made.recipe.dataset.batches(count, seed=0))
    return made.recipe.prompts(batch, Draw(0, torch.device("cpu")).begin(0, range(count)))


def test_prompts_are_templates_or_captions(trainer, pictures, tmp_path):
    assert set(prompts_of(trainer())) == {template.replace("{}", WORD) for template in TEMPLATES["object"]}
    styled = trainer(learnable_property="style").recipe
    assert "a painting in the style of {}" in styled.templates and set(styled.templates) < set(TEMPLATES["style"])
    assert set(prompts_of(trainer(prompt_templates=["{} here", "a {}"]))) == {f"{WORD} here", f"a {WORD}"}
    captioned = captioned_images(tmp_path / "captioned", 3)
    for index in range(3):
        (tmp_path / "captioned" / f"{index}.txt").write_text(f"{WORD} no {index}")
    made = trainer(train_data_dir=captioned, caption_column="text")
    assert set(prompts_of(made)) == {f"{WORD} no {index}" for index in range(3)}
    with pytest.raises(ValueError, match="Every caption must contain the new word <cat>, unlike 'picture 0'"):
        trainer(caption_column="text")


@pytest.mark.parametrize("family", FAMILIES)
def test_all_vectors_of_the_word_count_for_the_length_of_a_caption(trainer, tmp_path, caplog, family):
    pictures = Path(captioned_images(tmp_path / "captioned", 2))
    fits, cut = (f"{WORD} {'a' * (PROMPT_LENGTH - 2 - 5 + more)}" for more in (0, 1))
    for index, caption in enumerate((fits, cut)):
        (pictures / f"{index}.txt").write_text(caption)
    made = trainer(family, train_data_dir=str(pictures), caption_column="text", num_vectors=5)
    (said,) = [message for message in caplog.messages if "their ends have no effect" in message]
    assert said.startswith("1 of 2 captions are longer") and repr(cut) in said
    # These are the tokens of the training.
    for name in made.recipe.placeholder.names:
        prompts = made.recipe.placeholder.expand([fits, cut])
        assert made.recipe.base.num_tokens(name, prompts) == [PROMPT_LENGTH, PROMPT_LENGTH + 1]


@pytest.mark.parametrize(
    "family", [pytest.param("sd1", marks=pytest.mark.slow), "sdxl", pytest.param("sd3", marks=pytest.mark.slow)]
)
def test_a_resumed_run_ends_with_the_same_bits(trainer, tmp_path, family):
    options = {"num_vectors": 2, "checkpointing_steps": 1, "prompt_dropout": 0.3, "cache_latents": family == "sdxl"}
    options |= {"family": family, "gradient_checkpointing": family == "sd3"}
    assert trainer(folder="whole", **options, max_train_steps=3).train()
    assert trainer(folder="parts", **options, max_train_steps=1).train()
    assert trainer(folder="parts", **options, max_train_steps=3, resume_from_checkpoint="latest").train()
    found, wanted = (tensors(tmp_path / name, 3) for name in ("parts", "whole"))
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    with pytest.raises(ValueError, match="recipe.placeholder_token is <cat> there and <dog> here"):
        trainer(folder="parts", **options, placeholder_token="<dog>", resume_from_checkpoint="latest")


def test_caches_gradient_checkpointing_and_samples_change_nothing(trainer, tmp_path):
    assert trainer(folder="plain").train()
    assert trainer(folder="watched", validation_steps=1).train()
    assert trainer(folder="cached", cache_latents=True).train()
    assert trainer(folder="saving", gradient_checkpointing=True).train()
    names = ("plain", "cached", "watched", "saving")
    losses = [[line["loss"] for line in records(tmp_path / name)] for name in names]
    assert losses[2] == losses[1] == losses[0] and losses[3] == pytest.approx(losses[0], rel=1e-5)


@pytest.fixture
def other_precision():
    AcceleratorState._reset_state(reset_partial_state=False)  # it keeps the precision of earlier runs
    yield
    AcceleratorState._reset_state(reset_partial_state=False)


def test_training_in_bfloat16(trainer, tmp_path, other_precision):
    made = trainer("sdxl", precision="bf16", num_vectors=2)
    assert made.train()
    assert all(weight.dtype == torch.float32 for weight in made.networks["placeholder_vectors"].parameters())
    assert load_file(tmp_path / "run" / FILES["text_encoder_2"])[WORD].dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3"])
def test_two_processes_follow_one(pictures, tmp_path, family):
    options = {**OPTIONS, "pretrained_model_name_or_path": tiny_base(family), "train_data_dir": pictures}
    options |= {"placeholder_token": WORD, "num_vectors": 2, "prompt_dropout": 0.3, "num_validation_images": 2}
    folders = run_on_one_and_two_processes("train_textual_inversion", options, tmp_path)
    for line, other in zip(*map(records, folders), strict=True):
        assert line == pytest.approx(other, rel=1e-4, abs=1e-6)
    for file in list(FILES.values())[: 1 if family == "sd1" else 2]:
        one, two = (load_file(folder / file)[WORD] for folder in folders)
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"placeholder_token": None}, "--placeholder_token is required"),
        ({"placeholder_token": "a"}, "The tokenizer of .* already knows --placeholder_token a, as a"),
        ({"placeholder_token": "<|endoftext|>"}, "already knows --placeholder_token"),
        ({"placeholder_token": "my cat"}, "must be one word without spaces"),
        ({"initializer_token": "dog"}, "'dog' is 3 tokens .* or --num_vectors 3"),
        ({"initializer_token": "dog", "num_vectors": 2}, "'dog' is 3 tokens"),
        ({"num_vectors": 0}, "--num_vectors must be at least 1"),
        ({"num_vectors": 30}, "The 30 tokens of <cat> don't fit into"),
        ({"prompt_templates": ["a cat"]}, "need a {} for the new word, unlike 'a cat'"),
        ({"prompt_templates": ["a most extraordinarily long {}"]}, "don't fit into 'a most"),
        ({"prompt_templates": ["{}"], "caption_column": "text"}, "leave out one of them"),
        ({"cache_text_embeddings": True}, "would keep embeddings that a new word changes"),
        ({"streaming": True, "validation_prompts": ["a"]}, "--streaming is not for"),
        ({"caption_column": "prompt"}, "there is no caption column 'prompt'"),
    ],
)
def test_invalid_options_are_refused_in_one_sentence(trainer, options, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        trainer(**options)
    assert "\n" not in str(error.value)


def test_an_update_waits_for_no_device(trainer):
    assert not waits_of_an_update(trainer())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("word", ["<My-Cat>", "<CAFÉ>", "<cafe\u0301>", "<\u0130x>"])
def test_words_whose_vectors_would_not_all_be_used_are_refused(trainer, family, word):
    with pytest.raises(ValueError, match="--placeholder_token .* in lower-case letters without accents, such as <"):
        trainer(family, placeholder_token=word, num_vectors=2)


@pytest.mark.parametrize("word", ["<my-cat>", "sks.dog", "猫"])
def test_all_vectors_of_a_word_reach_the_encoder(trainer, word):
    made = trainer(placeholder_token=word, num_vectors=3)
    token_ids = made.recipe.base.tokenize(made.recipe.placeholder.expand([f"a {word} b"]))["text_encoder"]
    first = made.recipe.base.tokenizers["text_encoder"].convert_tokens_to_ids(word)
    assert [token for token in token_ids[0].tolist() if token >= first] == [first, first + 1, first + 2]
