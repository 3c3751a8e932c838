"""The diffusion prior: what a run leaves, exact resume, processes that train like one, and what is refused."""

import json

import pytest
import torch
from PIL import Image

from diffusers_ext.pipelines import UnCLIPPriorPipeline
from diffusers_ext.training.text_and_image.captions import draw_captions
from diffusers_ext.training.text_and_image.clip_networks import noisy_clip_from
from diffusers_ext.training.train_prior import PriorConfig, PriorRecipe
from tests.tiny_clip import SIZE, TOWER, WIDTH, save_tiny_clip, tiny_clip, write_pictures
from tests.training.runs import context, records, steps, tensors, trainer
from tests.training.text_to_image_runs import run_on_one_and_two_processes
from tests.waits import waits_of_an_update


OPTIONS = {
    "resolution": [SIZE],
    "prior": {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "dropout": 0.1},
    "train_batch_size": 4,
    "max_train_steps": 3,
    "checkpointing_steps": 2,
    "learning_rate": 1e-2,
    "lr_warmup_steps": 0,
    "num_evaluation_samples": 12,
    "num_inference_steps": 2,
    "guidance_scales": [1.0, 2.0],
}


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", write_pictures(folder / "pictures"))
        patch.setitem(OPTIONS, "clip", save_tiny_clip(folder / "clip"))
        yield


def configuration(output_dir, **options) -> PriorConfig:
    return PriorConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "prior"
    assert trainer(PriorRecipe, configuration(folder)).train()
    return folder


def test_a_run_leaves_a_pipeline_and_its_measures(trained):
    rows = json.loads((trained / "metrics.json").read_text())["evaluations"]
    assert [row["guidance_scale"] for row in rows] == [1.0, 2.0]
    assert {"accuracy", "accuracy_on_images", "cosine_to_image", "cosine_of_text", "relative_std"} <= set(rows[0])
    pipe = UnCLIPPriorPipeline.from_pretrained(trained)
    assert pipe("a red picture", num_images_per_prompt=2).image_embeds.shape == (2, WIDTH)
    assert pipe.config.default_num_inference_steps == 2
    with Image.open(trained / "samples.png") as grid:
        assert grid.width > 100
    assert "image_embeds = pipe('a red picture'" in (trained / "README.md").read_text()


def test_embeddings_are_standardised_by_those_of_the_images(trained):
    recipe = PriorRecipe(configuration(trained), context())
    pixels = torch.cat([batch["pixel_values"] for batch in recipe.dataset.reference_batches(5)])
    embeddings = recipe.evaluator.embed_bytes(pixels)
    prior = UnCLIPPriorPipeline.from_pretrained(trained).prior
    torch.testing.assert_close(prior.clip_mean[0], embeddings.mean(dim=0))
    torch.testing.assert_close(prior.clip_std[0], embeddings.std(dim=0))


def test_a_resumed_run_is_the_same(trained, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers_ext.training.loop.outputs.Outputs.write", lambda *arguments: None)
        assert trainer(PriorRecipe, configuration(tmp_path, max_train_steps=2)).train()
        assert trainer(PriorRecipe, configuration(tmp_path, resume_from_checkpoint="latest")).train()
    expected, found = tensors(trained, 3), tensors(tmp_path, 3)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_it_learns_which_images_a_caption_has(tmp_path):
    prior = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1}
    job = trainer(PriorRecipe, configuration(tmp_path, train_batch_size=12, prior=prior))
    losses = [values["loss"] for values in steps(job, 60)]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


def test_a_step_reads_no_value(tmp_path):
    assert not waits_of_an_update(trainer(PriorRecipe, configuration(tmp_path)))


def test_a_hidden_caption_is_empty():
    draw = type("Draw", (), {"host": type("Host", (), {"uniform": lambda self: torch.tensor([0.4, 0.6])})()})()
    assert draw_captions(["one", "two"], {"caption_ids": torch.tensor([0, 1])}, 0.5, draw) == ["", "two"]


def test_what_is_refused(tmp_path):
    def refused(message, **options):
        with pytest.raises(ValueError, match=message):
            PriorRecipe(configuration(tmp_path, **options), context()).networks()

    refused("--clip is required", clip=None)
    refused(r"--prompt_dropout must be in \[0, 1\)", prompt_dropout=1.0)
    refused("--clip: .* is no CLIPModel", clip=str(tmp_path))
    refused("--prior: PriorTransformer has no argument 'depth'", prior={"depth": 2})
    refused("--prior: embedding_dim is 16, as the images and other options decide", prior={"embedding_dim": 8})
    wide = save_tiny_clip(tmp_path / "wide", text_config={**TOWER, "hidden_size": 2 * WIDTH})
    refused("--clip: the states of its tokens have 32 channels and its embeddings 16", clip=wide)
    clip, tokenizer, _ = tiny_clip(
        text_config={**TOWER, "intermediate_size": 64},
        vision_config={**TOWER, "intermediate_size": 64, "patch_size": 4},
    )
    for part in (noisy_clip_from(clip, [0.5] * 3, [0.5] * 3, 10), tokenizer):
        part.save_pretrained(tmp_path / "noisy")
    refused("--clip: .* is no CLIPModel", clip=str(tmp_path / "noisy"))


def test_another_clip_is_no_continuation(tmp_path):
    other = PriorRecipe(configuration(tmp_path, clip=save_tiny_clip(tmp_path / "other", seed=1)), context())
    assert other.identity() != PriorRecipe(configuration(tmp_path), context()).identity()


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    options = {**OPTIONS, "prior": json.dumps({**OPTIONS["prior"], "dropout": 0.0})}
    one, two = run_on_one_and_two_processes("train_prior", options, tmp_path)
    for first, second in zip(records(one), records(two), strict=True):
        for name in ("loss", "grad_norm"):
            if name in first:
                assert second[name] == pytest.approx(first[name], rel=1e-5, abs=1e-6)
