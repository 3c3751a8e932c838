"""Text to video: what a run leaves, exact resume, images among films, and what is refused."""

import json

import pytest
import torch
from PIL import Image
from transformers import T5Config, T5EncoderModel

from diffusers_ext import TextToVideoPixelPipeline
from diffusers_ext.pipelines.prompts import encode_film_tokens
from diffusers_ext.training.loop.draws import Draw
from diffusers_ext.training.train_video import VideoConfig, VideoRecipe
from tests.tiny_films import (
    TINY_CONVOLUTIONAL_UNET,
    TINY_MOTION_UNET,
    TINY_TEXT,
    tiny_text_encoder,
    tiny_tokenizer,
    write_captioned_films,
)
from tests.training.runs import context, steps, tensors, trainer
from tests.training.text_to_image_runs import run_on_one_and_two_processes
from tests.waits import waits_of_an_update


OPTIONS = {
    "resolution": [8],
    "channels": 1,
    "num_frames": 3,
    "label_column": "none",
    "unet": TINY_MOTION_UNET,
    "text_config": TINY_TEXT,
    "image_share": 0.5,
    "train_batch_size": 4,
    "max_train_steps": 3,
    "checkpointing_steps": 2,
    "learning_rate": 1e-2,
    "lr_warmup_steps": 0,
    "num_inference_steps": 2,
    "num_evaluation_samples": 8,
    "validation_prompts": ["a one", "two"],
}


@pytest.fixture(scope="module", autouse=True)
def films(tmp_path_factory):
    folder = write_captioned_films(tmp_path_factory.mktemp("films"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "train_data_dir", str(folder))
        patch.setitem(OPTIONS, "cache_dir", str(tmp_path_factory.mktemp("cache")))
        yield folder


def configuration(output_dir, **options) -> VideoConfig:
    return VideoConfig(**{**OPTIONS, "output_dir": str(output_dir), **options})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "video"
    assert trainer(VideoRecipe, configuration(folder, feature_extractor="digits", guidance_scales=[2.0])).train()
    return folder


def test_a_run_leaves_a_pipeline_a_picture_and_measures(trained):
    pipe = TextToVideoPixelPipeline.from_pretrained(trained)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a two", output_type="pt").frames.shape == (1, 3, 1, 8, 8)
    assert pipe.tokenizer.model_max_length == 4 and pipe.config.default_num_inference_steps == 2
    (row,) = json.loads((trained / "metrics.json").read_text())["evaluations"]
    assert row["guidance_scale"] == 2.0 and row["fid"] > 0 and row["provenance"]["measured"] == "single frames"
    with Image.open(trained / "samples.png") as picture:
        assert picture.width > picture.height  # two films of three frames
    card = (trained / "README.md").read_text()
    assert "pipe('a one', guidance_scale=2.0).frames[0]" in card and "text-to-video" in card


def test_a_resumed_run_is_the_same(trained, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffusers_ext.training.loop.outputs.Outputs.write", lambda *arguments: None)
        assert trainer(VideoRecipe, configuration(tmp_path, max_train_steps=2)).train()
        assert trainer(VideoRecipe, configuration(tmp_path, resume_from_checkpoint="latest")).train()
    expected, found = tensors(trained, 3), tensors(tmp_path, 3)
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_step_reads_no_value(tmp_path):
    waits = waits_of_an_update(trainer(VideoRecipe, configuration(tmp_path)))
    # The text encoders of transformers look whether their mask hides anything.
    assert not [place for place in waits if not place.startswith("transformers: ")]


def test_images_are_single_frames_whose_layers_of_time_see_no_other(tmp_path):
    recipe = trainer(VideoRecipe, configuration(tmp_path)).recipe
    recipe.network("unet").eval()
    films, levels = torch.randn(2, 1, 3, 8, 8), torch.tensor([100, 600])
    texts = {"encoder_hidden_states": torch.randn(2, 4, 16), "text_embeds": torch.randn(2, 16)}
    noise = torch.randn_like(films)
    with torch.no_grad():
        one = recipe.losses(films[:, :, :1], texts, levels, noise[:, :, :1])
        changed = torch.cat([films[:, :, :1], torch.zeros(2, 1, 2, 8, 8)], dim=2)
        assert torch.equal(recipe.losses(changed[:, :, :1], texts, levels, noise[:, :, :1]), one)
        assert not torch.allclose(
            recipe.losses(films, texts, levels, noise), recipe.losses(changed, texts, levels, noise)
        )


@pytest.mark.slow
@pytest.mark.parametrize(("share", "lengths"), [(0.0, {3}), (1.0, {1}), (0.5, {1, 3})])
def test_a_share_of_the_films_are_images(tmp_path, share, lengths):
    job = trainer(VideoRecipe, configuration(tmp_path, image_share=share, train_batch_size=8))
    seen, losses = set(), job.recipe.losses

    def record(films, *others):
        seen.add(films.shape[2])
        return losses(films, *others)

    job.recipe.losses = record
    list(steps(job, 2))
    assert seen == lengths


def test_some_captions_are_hidden(tmp_path):
    recipe = VideoRecipe(configuration(tmp_path, caption_dropout=0.5), context())
    draw = Draw(0, torch.device("cpu")).begin(0, range(64))
    ids, _ = recipe.tokens(
        {"pixel_values": torch.zeros(64, 1), "caption_ids": torch.zeros(64, dtype=torch.int64)}, draw
    )
    assert len(ids.unique(dim=0)) == 2 and 16 < (ids == ids[0]).all(dim=1).sum() < 48


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "label"])
def test_films_without_captions_and_with_classes(tmp_path, kind):
    config = configuration(tmp_path, caption_column=kind, validation_prompts=None, prediction_type="flow_prediction")
    assert trainer(VideoRecipe, config).train()
    pipe = TextToVideoPixelPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    prompt = {} if kind == "none" else {"prompt": "two"}
    assert len(pipe(**prompt).frames[0]) == 3


@pytest.mark.slow
def test_a_given_text_encoder_stays_as_it_is_or_is_trained(tmp_path):
    tokenizer, name = tiny_tokenizer(), tmp_path / "text"
    encoder = tiny_text_encoder(tokenizer)
    encoder.save_pretrained(name)
    tokenizer.save_pretrained(name)
    options = {"text_encoder": str(name), "text_config": {}}
    for train in (False, True):
        folder = tmp_path / str(train)
        assert trainer(VideoRecipe, configuration(folder, train_text_encoder=train, **options)).train()
        found = TextToVideoPixelPipeline.from_pretrained(folder).text_encoder.get_input_embeddings().weight
        assert torch.equal(found, encoder.get_input_embeddings().weight) != train


@pytest.mark.slow
def test_a_text_encoder_without_a_state_of_the_whole_text(tmp_path):
    """The mean of the states of a T5 takes its place."""
    tokenizer, name = tiny_tokenizer(), tmp_path / "t5"
    T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    ).save_pretrained(name)
    tokenizer.save_pretrained(name)
    assert trainer(VideoRecipe, configuration(tmp_path / "run", text_encoder=str(name), text_config={})).train()
    pipe = TextToVideoPixelPipeline.from_pretrained(tmp_path / "run")
    ids, mask = tokenizer(["a two"], return_tensors="pt").values()
    told = encode_film_tokens(pipe.text_encoder, ids, mask)
    torch.testing.assert_close(told["text_embeds"], told["encoder_hidden_states"].mean(dim=1))


@pytest.mark.slow
@pytest.mark.parametrize("denoiser", ["UNetMotionModel", "UNet3DConditionModel"])
def test_a_run_begins_with_another_ones_result(tmp_path, denoiser):
    """Such as a model of single frames; its text encoder then stays as it is."""
    unet = TINY_MOTION_UNET if denoiser == "UNetMotionModel" else TINY_CONVOLUTIONAL_UNET
    first = configuration(tmp_path / "images", image_share=1.0, denoiser=denoiser, unet=unet)
    assert trainer(VideoRecipe, first).train()
    options = {"pretrained_model_name_or_path": str(tmp_path / "images"), "unet": {}, "text_config": {}}
    job = trainer(VideoRecipe, configuration(tmp_path / "films", **options))
    assert list(job.networks) == ["unet"]
    begun = TextToVideoPixelPipeline.from_pretrained(tmp_path / "images").unet.state_dict()
    assert all(torch.equal(weight, begun[name]) for name, weight in job.networks["unet"].state_dict().items())
    assert job.train()
    with pytest.raises(ValueError, match="prediction_type=v_prediction, but this run needs epsilon"):
        trainer(VideoRecipe, configuration(tmp_path / "other", **options, prediction_type="epsilon"))
    if denoiser == "UNetMotionModel":
        with pytest.raises(ValueError, match="--num_frames must be at most 4 for .*, not 5"):
            trainer(VideoRecipe, configuration(tmp_path / "other", **{**options, "num_frames": 5}))


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    one, two = run_on_one_and_two_processes("train_video", OPTIONS, tmp_path)
    found = tensors(two, 3)
    for name, tensor in tensors(one, 3).items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_it_learns(tmp_path):
    job = trainer(VideoRecipe, configuration(tmp_path, train_batch_size=8))
    losses = [values["unet_loss"] for values in steps(job, 30)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_frames": 0}, "--num_frames must be at least 1"),
        ({"num_frames": 5}, "--unet: motion_max_seq_length is 4, but --num_frames is 5"),
        ({"image_share": 1.5}, "--image_share must be in"),
        ({"caption_dropout": 1.0}, "--caption_dropout must be in"),
        ({"streaming": True}, "--streaming is not for films"),
        ({"conditioning_image_column": "label"}, "--conditioning_image_column can't be used"),
        ({"prediction_type": "flow_prediction", "beta_schedule": "linear"}, "--beta_schedule is for"),
        ({"train_text_encoder": True}, "--train_text_encoder is for a given --text_encoder"),
        ({"caption_column": "words"}, "words"),
        ({"resolution": [9]}, "--resolution must be a multiple of 2"),
        ({"unet": {"depth": 3}}, "--unet: UNetMotionModel has no argument 'depth'"),
        ({"text_config": {"hidden_size": 15}}, "--text_config"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, options, reason):
    with pytest.raises(ValueError, match=reason):
        trainer(VideoRecipe, configuration(tmp_path, **options))
