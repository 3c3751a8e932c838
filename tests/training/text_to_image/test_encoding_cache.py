"""Caches of moments and text embeddings: what they find, what they encode again, and how processes share them."""

import multiprocessing

import pytest
import torch

from diffusers_ext.pipelines.latent_space import LatentSpace
from diffusers_ext.training.diffusion.encoding_cache import MomentCache, TensorCache
from diffusers_ext.training.text_to_image.base_models import load_base_model
from diffusers_ext.training.text_to_image.text_cache import TextCache
from tests.training.text_to_image_models import FAMILIES, SIZE, tiny_base


PROMPTS = ["a cat", "a dog", "", "a cat"]


@pytest.fixture(scope="module", params=FAMILIES)
def base(request):
    base = load_base_model(tiny_base(request.param))
    base.freeze(torch.device("cpu"))
    return base


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def files(folder) -> list:
    return sorted(folder.rglob("*.safetensors"))


def text_cache(folder, base, precision: str = "no") -> TextCache:
    return TextCache(folder, base, base.encode_text, precision, torch.device("cpu"))


class Encoded(Exception):
    pass


def forbidden(*_):
    raise Encoded


def test_moments_are_those_of_the_encoder(base, tmp_path):
    pixels = images()
    without, cached = MomentCache(None, base.space)(pixels), MomentCache(tmp_path, base.space)(pixels)
    torch.testing.assert_close(without, base.space.encode_moments(pixels))
    assert torch.equal(without, cached) and not cached.requires_grad
    assert len(files(tmp_path)) == 3 and not list(tmp_path.rglob(".tmp-*"))
    # A row does not depend on the other rows.
    assert torch.equal(MomentCache(None, base.space)(pixels[1:2]), without[1:2])


def test_cached_inputs_are_not_encoded_again(base, tmp_path, monkeypatch):
    pixels = images()
    moments, text = MomentCache(tmp_path, base.space)(pixels), text_cache(tmp_path, base)(PROMPTS)
    reopened, texts = MomentCache(tmp_path, base.space), text_cache(tmp_path, base)
    monkeypatch.setattr(LatentSpace, "encode_moments", forbidden)
    texts._encode = forbidden
    assert torch.equal(reopened(pixels.flip(0)), moments.flip(0))
    found = texts(PROMPTS[::-1])
    assert all(torch.equal(found[name], text[name].flip(0)) for name in text)
    for others in (pixels.flip(-1), pixels[..., :-2, :], pixels + 1e-6):
        with pytest.raises(Encoded):
            reopened(others)
    with pytest.raises(Encoded):
        texts(["a cow"])


def test_text_is_that_of_the_encoders(base, tmp_path):
    without, cached = text_cache(None, base)(PROMPTS), text_cache(tmp_path, base)(PROMPTS)
    expected = base.encode_text(base.tokenize(PROMPTS))
    assert set(without) == set(expected)
    for name, values in expected.items():
        torch.testing.assert_close(without[name], values)
        assert torch.equal(without[name], cached[name]) and not cached[name].requires_grad
    assert len(files(tmp_path)) == 3  # one of them occurs twice


def test_other_weights_and_precisions_have_files_of_their_own(tmp_path):
    base = load_base_model(tiny_base("sd1"))
    base.freeze(torch.device("cpu"))
    MomentCache(tmp_path, base.space)(images(1))
    text_cache(tmp_path, base)(["a cat"])
    MomentCache(tmp_path, load_base_model(tiny_base("sd1")).space)(images(1))  # the same weights
    assert len(files(tmp_path)) == 2
    text_cache(tmp_path, base, "bf16")(["a cat"])
    assert len(files(tmp_path)) == 3
    with torch.no_grad():
        base.vae.encoder.conv_in.bias[0] += 1
        base.text_encoders["text_encoder"].get_input_embeddings().weight[0, 0] += 1
    assert torch.equal(MomentCache(tmp_path, base.space)(images(1)), MomentCache(None, base.space)(images(1)))
    text_cache(tmp_path, base)(["a cat"])
    assert len(files(tmp_path)) == 5


def damages():
    return {
        "empty": lambda content: b"",
        "cut": lambda content: content[: len(content) // 2],
        "longer": lambda content: content + b"\0",
        "no header": lambda content: b"\xff" * 64,
        "a bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    }


@pytest.mark.parametrize("damage", damages())
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    base = load_base_model(tiny_base("sd1"))
    base.freeze(torch.device("cpu"))
    expected = MomentCache(tmp_path, base.space)(images(1))
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damages()[damage](whole))
    assert torch.equal(MomentCache(tmp_path, base.space)(images(1)), expected)
    assert path.read_bytes() == whole


def answer(number: int) -> torch.Tensor:
    return torch.full((1, 500), float(number))


def fill(folder, start) -> None:
    cache = TensorCache(folder, [])
    start.wait()
    for number in range(60):
        row = torch.tensor([[number]])
        value = cache.get({"row": row}, lambda number=number: {"value": answer(number)}, torch.device("cpu"))["value"]
        assert torch.equal(value, answer(number))


def test_several_processes_fill_one_cache(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)
    workers = [context.Process(target=fill, args=(tmp_path, start)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(1800)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(files(tmp_path)) == 60 and len(list(tmp_path.rglob("*"))) == 60 + len(list(tmp_path.iterdir()))
    cache = TensorCache(tmp_path, [])
    for number in range(60):
        found = cache.get({"row": torch.tensor([[number]])}, forbidden, torch.device("cpu"))
        assert torch.equal(found["value"], answer(number))


def test_embeddings_of_trained_text_encoders_are_not_cached(tmp_path):
    base = load_base_model(tiny_base("sd1"))
    with pytest.raises(ValueError, match="can't be cached while text encoders are trained"):
        text_cache(tmp_path, base)
